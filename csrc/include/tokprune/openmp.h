// An Executor over OpenMP, for programs without torch. Compile the including file with -fopenmp.
#pragma once

#include <stdexcept>
#include <string>

#include "tokprune/types.h"

namespace tokprune {

// OpenMP ends the process where it cannot start a thread.
constexpr int kMostThreads = 1024;

// Throws std::invalid_argument unless threads is in [1, kMostThreads].
inline Executor openmp_executor(int threads) {
  if (threads < 1 || threads > kMostThreads)
    throw std::invalid_argument("threads: must be from 1 to " + std::to_string(kMostThreads) + ", got " + std::to_string(threads));
  return {threads, nullptr, [](void*, int workers, void (*fn)(void*, int), void* context) {
#pragma omp parallel for num_threads(workers) schedule(static, 1)
            for (int w = 0; w < workers; ++w) fn(context, w);
          }};
}

}  // namespace tokprune
