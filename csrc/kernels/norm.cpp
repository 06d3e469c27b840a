#include "tokprune/norm.h"

#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

#include "parallel.h"
#include "table.h"

namespace tokprune {

void add_layer_norm(const KernelTable& kernels, const AddLayerNormArgs& args, const Executor& executor) {
  // Rows shorter than this many elements together are not worth a second worker.
  const int64_t least = 16384 / (args.width > 0 ? args.width : 1) + 1;
  parallel_ranges(executor, args.rows, least, [&](int64_t begin, int64_t end, int) {
    thread_local std::vector<float> buffer;  // the row in float32; one vector of slack
    if (buffer.size() < static_cast<size_t>(args.width) + 16) buffer.resize(static_cast<size_t>(args.width) + 16);
    kernels.add_layer_norm[static_cast<int>(args.dtype)](args, begin, end, buffer.data());
  });
}

void check_eps(double eps) {
  if (!std::isfinite(eps) || eps < 0) throw std::invalid_argument("eps: must be finite and not negative, got " + std::to_string(eps));
}

}  // namespace tokprune
