#include <chrono>

#include "table.h"

namespace tokprune {

double measure_multiply_adds(const KernelTable& kernels, DType dtype, double seconds) {
  using Clock = std::chrono::steady_clock;
  const int t = static_cast<int>(dtype);
  const Clock::time_point start = Clock::now();
  int64_t iterations = 0;
  double elapsed = 0;
  volatile float sink = 0;
  while (elapsed < seconds) {
    sink = kernels.multiply_add_loop[t](100000);
    iterations += 100000;
    elapsed = std::chrono::duration<double>(Clock::now() - start).count();
  }
  (void)sink;
  return static_cast<double>(iterations * kernels.multiply_adds_per_iteration[t]) / elapsed;
}

}  // namespace tokprune
