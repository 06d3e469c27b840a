// Linear layers on packed rows: weights packed once, no run-time code generation, any row count.
#pragma once

#include "tokprune/isa.h"
#include "tokprune/types.h"

namespace tokprune {

constexpr int64_t kPanelColumns = 64;

// Elements of a packed (out_features, in_features) weight: panels of 64 output columns, each
// [in_features][64] in float32 and [ceil(in_features / 2)][64][2] in bfloat16; zero padded.
int64_t packed_weight_elements(DType dtype, int64_t out_features, int64_t in_features);

// weight: (out_features, in_features) row-major, rows `stride` elements apart.
void pack_weight(DType dtype, const void* weight, int64_t stride, int64_t out_features,
                 int64_t in_features, void* packed, const Executor& executor);

enum class Activation : int { kNone = 0, kGelu = 1, kGeluTanh = 2, kRelu = 3 };

struct LinearArgs {
  DType dtype;          // of x, packed weight, bias and out
  const void* x;        // (., in_features), rows x_stride elements apart
  int64_t x_stride;
  const int32_t* rows;  // (row_count,) rows of x to read, or null: rows 0 .. row_count - 1
  int64_t row_count;
  const void* weight;   // packed by pack_weight
  const void* bias;     // (out_features,) or null
  int64_t in_features, out_features;
  Activation activation;
  void* out;            // (row_count, out_features), contiguous
};

size_t linear_workspace(const LinearArgs& args, const Executor& executor);

// out = activation(x[rows] W^T + bias). A row's bits do not depend on the other rows.
void linear(const KernelTable& kernels, const LinearArgs& args, void* workspace,
            const Executor& executor);

}  // namespace tokprune
