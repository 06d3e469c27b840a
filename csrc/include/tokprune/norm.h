// Residual + LayerNorm on packed rows.
#pragma once

#include "tokprune/isa.h"
#include "tokprune/types.h"

namespace tokprune {

struct AddLayerNormArgs {
  DType dtype;          // of all tensors
  const void* x;        // (rows, width), rows x_stride elements apart
  const void* residual; // same, residual_stride
  const int32_t* residual_rows;  // (rows,) rows of residual to read, or null: rows 0 .. rows - 1
  const void* weight;   // (width,)
  const void* bias;     // (width,)
  void* out;            // (rows, width), contiguous
  int64_t rows, width, x_stride, residual_stride;
  float eps;
};

// out = (y - mean(y)) / sqrt(var(y) + eps) * weight + bias, y = x + residual; statistics in float32.
void add_layer_norm(const KernelTable& kernels, const AddLayerNormArgs& args, const Executor& executor);

// Throws std::invalid_argument unless eps is finite and not negative.
void check_eps(double eps);

}  // namespace tokprune
