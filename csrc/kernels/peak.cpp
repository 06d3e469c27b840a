#include "tokprune/peak.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <vector>

#include "table.h"

namespace tokprune {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

using Lanes = uint64_t __attribute__((vector_size(16)));  // integers: their sums may be taken in any order

constexpr int64_t kChunk = kBandwidthChunkBytes / static_cast<int64_t>(sizeof(Lanes));
constexpr int64_t kAhead = 4096 / static_cast<int64_t>(sizeof(Lanes));

// Fetching ahead keeps as many lines in flight as wider vectors do: with it this measured within 3% of AVX-512.
// Fetches, but does not read, up to kAhead lanes past the chunk.
uint64_t sum_of_chunk(const Lanes* p) {
  constexpr int kSums = 8, kLine = 4;
  Lanes sums[kSums] = {};
  for (int64_t i = 0; i < kChunk; i += kSums) {
    for (int j = 0; j < kSums; j += kLine) __builtin_prefetch(p + i + j + kAhead);
    for (int j = 0; j < kSums; ++j) sums[j] += p[i + j];
  }
  for (int j = 1; j < kSums; ++j) sums[0] += sums[j];
  return sums[0][0] + sums[0][1];
}

struct Stream {
  Lanes* buffer;
  int64_t chunks;  // of one worker
  double seconds;
  Clock::time_point start;
  std::vector<int64_t> chunks_read;  // by each worker
};

// The worker that will read a part writes it first: its pages then lie in that worker's memory node.
void fill_part(void* context, int worker) {
  const Stream& stream = *static_cast<Stream*>(context);
  const int64_t part = stream.chunks * kChunk;
  std::fill_n(stream.buffer + worker * part, part, Lanes{1, 1});
}

// All workers stop at one time, so that none reads while the others are done.
void read_part(void* context, int worker) {
  Stream& stream = *static_cast<Stream*>(context);
  const Lanes* part = stream.buffer + worker * stream.chunks * kChunk;
  int64_t done = 0;
  volatile uint64_t sink = 0;
  for (; seconds_since(stream.start) < stream.seconds; ++done)
    sink = sum_of_chunk(part + done % stream.chunks * kChunk);
  (void)sink;
  stream.chunks_read[worker] = done;
}

}  // namespace

double measure_multiply_adds(const KernelTable& kernels, DType dtype, double seconds) {
  const int t = static_cast<int>(dtype);
  const Clock::time_point start = Clock::now();
  int64_t iterations = 0;
  double elapsed = 0;
  volatile float sink = 0;
  while (elapsed < seconds) {
    sink = kernels.multiply_add_loop[t](100000);
    iterations += 100000;
    elapsed = seconds_since(start);
  }
  (void)sink;
  return static_cast<double>(iterations * kernels.multiply_adds_per_iteration[t]) / elapsed;
}

double measure_read_bandwidth(int64_t bytes, double seconds, const Executor& executor) {
  const int workers = std::max(executor.max_workers, 1);
  const int64_t chunks = bytes / kBandwidthChunkBytes / workers;
  if (chunks < 1) throw std::invalid_argument("measure_read_bandwidth: needs at least 1 MiB for each worker");
  const std::unique_ptr<Lanes[]> buffer(new Lanes[static_cast<size_t>(chunks * workers * kChunk + kAhead)]);
  Stream stream{buffer.get(), chunks, seconds, {}, std::vector<int64_t>(static_cast<size_t>(workers))};
  executor.run(executor.state, workers, fill_part, &stream);
  stream.start = Clock::now();
  executor.run(executor.state, workers, read_part, &stream);
  const double elapsed = seconds_since(stream.start);
  int64_t total = 0;
  for (int64_t read : stream.chunks_read) total += read;
  return static_cast<double>(total * kBandwidthChunkBytes) / elapsed;
}

}  // namespace tokprune
