// An Executor over OpenMP, for programs without torch. Compile the including file with -fopenmp.
#pragma once

#include "tokprune/types.h"

namespace tokprune {

inline Executor openmp_executor(int threads) {
  return {threads, nullptr, [](void*, int workers, void (*fn)(void*, int), void* context) {
#pragma omp parallel for num_threads(workers) schedule(static, 1)
            for (int w = 0; w < workers; ++w) fn(context, w);
          }};
}

}  // namespace tokprune
