// The two ceilings of a roofline: how fast this machine multiplies and adds, and how fast it reads memory.
#pragma once

#include "tokprune/isa.h"
#include "tokprune/types.h"

namespace tokprune {

// Multiply-adds per second of the calling thread with these kernels' instructions, registers only.
// Runs for about `seconds`.
double measure_multiply_adds(const KernelTable& kernels, DType dtype, double seconds);

// The smallest part of the buffer that one worker of measure_read_bandwidth streams through.
constexpr int64_t kBandwidthChunkBytes = int64_t{1} << 20;

// Bytes per second that all workers of the executor read together, each streaming again and again through
// its own part of a buffer of `bytes`. That is the memory's bandwidth if the buffer is far larger than the
// last-level cache. Allocates and writes the buffer, then reads for about `seconds`.
// Throws std::invalid_argument for less than one chunk a worker, std::bad_alloc without the memory.
double measure_read_bandwidth(int64_t bytes, double seconds, const Executor& executor);

}  // namespace tokprune
