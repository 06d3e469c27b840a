// pack_weight, packed_linear.
#include "ops.h"

namespace tokprune::torch_binding {

Tensor pack_weight(Tensor weight) {
  const DType dtype = float_type("weight", weight);
  if (weight.dim() != 2) fail("weight: must have shape (out_features, in_features), got " + shape_of(weight));
  check_dense_rows("weight", weight);
  const int64_t n = weight.size(0), k = weight.size(1), panels = (n + kPanelColumns - 1) / kPanelColumns;
  Tensor packed = dtype == DType::kFloat32 ? empty({panels, k, kPanelColumns}, weight.scalar_type())
                                           : empty({panels, (k + 1) / 2, kPanelColumns, 2}, weight.scalar_type());
  pack_weight(dtype, weight.data_ptr(), row_stride(weight), n, k, packed.data_ptr(), torch_executor());
  return packed;
}

Tensor packed_linear(Tensor x, Tensor weight, std::optional<Tensor> bias, int64_t out_features, int64_t activation,
                     std::optional<Tensor> rows) {
  LinearArgs args;
  args.dtype = float_type("x", x);
  if (x.dim() != 2) fail("x: must have shape (rows, in_features), got " + shape_of(x));
  check_dense_rows("x", x);
  if (out_features < 0) fail("out_features: must not be negative, got " + std::to_string(out_features));
  const int64_t k = x.size(1);
  check_packed_weight("weight", weight, x.scalar_type(), k, out_features);
  args.bias = nullptr;
  if (bias) {
    check_type("bias", *bias, x.scalar_type());
    check_shape("bias", *bias, {out_features});
    check_contiguous("bias", *bias);
    args.bias = bias->data_ptr();
  }
  args.rows = nullptr;
  args.row_count = x.size(0);
  std::vector<int32_t> indices;
  if (rows) {
    indices = check_index_tensor("rows", *rows);
    args.rows = indices.data();
    args.row_count = rows->size(0);
    check_indices("rows", args.rows, args.row_count, x.size(0), false);
  }
  Tensor out = empty({args.row_count, out_features}, x.scalar_type());
  args.x = x.data_ptr();
  args.x_stride = row_stride(x);
  args.weight = weight.data_ptr();
  args.in_features = k;
  args.out_features = out_features;
  args.activation = activation_of(activation);
  args.out = out.data_ptr();
  const Executor executor = torch_executor();
  linear(active_kernels(), args, workspace(linear_workspace(args, executor)), executor);
  return out;
}

}  // namespace tokprune::torch_binding
