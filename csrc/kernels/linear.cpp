// Weight packing and the sharing out of linear layers.
#include "tokprune/linear.h"

#include <cstring>

#include "parallel.h"
#include "table.h"

namespace tokprune {
namespace {

int64_t panel_count(int64_t out_features) { return (out_features + kPanelColumns - 1) / kPanelColumns; }

int64_t row_chunks(int64_t rows) { return (rows + kLinearRows - 1) / kLinearRows; }

// [units][64] of one panel; an element of the weight is `size` bytes, a unit 4.
void pack_panel(const char* weight, int64_t stride, int64_t columns, int64_t in_features, size_t size, char* out) {
  const int64_t per_unit = static_cast<int64_t>(4 / size), units = (in_features + per_unit - 1) / per_unit;
  for (int64_t u = 0; u < units; ++u)
    for (int64_t c = 0; c < kPanelColumns; ++c, out += 4) {
      const int64_t left = (in_features - u * per_unit) * static_cast<int64_t>(size);
      std::memset(out, 0, 4);
      if (c < columns) std::memcpy(out, weight + c * stride + u * 4, static_cast<size_t>(left < 4 ? left : 4));
    }
}

}  // namespace

int64_t packed_weight_elements(DType dtype, int64_t out_features, int64_t in_features) {
  const int64_t padded = dtype == DType::kFloat32 ? in_features : (in_features + 1) / 2 * 2;
  return panel_count(out_features) * kPanelColumns * padded;
}

void pack_weight(DType dtype, const void* weight, int64_t stride, int64_t out_features, int64_t in_features,
                 void* packed, const Executor& executor) {
  const size_t size = element_size(dtype);
  const int64_t panel_bytes = packed_weight_elements(dtype, kPanelColumns, in_features) * static_cast<int64_t>(size);
  const int64_t stride_bytes = stride * static_cast<int64_t>(size);
  parallel_tasks(executor, panel_count(out_features), 1, [&](int64_t panel, int) {
    const int64_t column = panel * kPanelColumns;
    pack_panel(static_cast<const char*>(weight) + column * stride_bytes, stride_bytes,
               std::min(out_features - column, kPanelColumns), in_features, size,
               static_cast<char*>(packed) + panel * panel_bytes);
  });
}

size_t linear_workspace(const LinearArgs&, const Executor& executor) {
  return static_cast<size_t>(std::max(executor.max_workers, 1)) * kLinearRows * kPanelColumns * sizeof(float);
}

void linear(const KernelTable& kernels, const LinearArgs& args, void* workspace, const Executor& executor) {
  const int64_t panels = panel_count(args.out_features), chunks = row_chunks(args.row_count);
  // All panels of one row chunk follow each other: its rows stay in cache while the weights pass.
  parallel_tasks(executor, chunks * panels, 1, [&](int64_t task, int worker) {
    const int64_t chunk = task / panels;
    kernels.linear[static_cast<int>(args.dtype)](args, args.row_count * chunk / chunks,
                                                 args.row_count * (chunk + 1) / chunks, task % panels,
                                                 (task + executor.max_workers) % panels,
                                                 static_cast<float*>(workspace) + worker * kLinearRows * kPanelColumns);
  });
}

}  // namespace tokprune
