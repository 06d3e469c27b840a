// Types shared by every public header. Torch-free, raw pointers, C++17.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tokprune {

// Element types of activations and weights. Accumulation and importance are always float32.
enum class DType : int { kFloat32 = 0, kBFloat16 = 1 };

inline size_t element_size(DType dtype) { return dtype == DType::kFloat32 ? 4 : 2; }

// How the caller runs work. The kernels own no threads: `run(state, workers, fn, context)` must call
// fn(context, w) exactly once for every w in [0, workers), in any order, on any threads, and return when
// all are done. Running them one after the other is allowed: work is claimed from a shared counter, so
// the first worker then does everything. Results never depend on `max_workers` or on the order.
struct Executor {
  int max_workers;
  void* state;
  void (*run)(void* state, int workers, void (*fn)(void* context, int worker), void* context);
};

// Everything on the calling thread.
Executor serial_executor();

}  // namespace tokprune
