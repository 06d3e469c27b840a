// add_layer_norm.
#include "ops.h"

namespace tokprune::torch_binding {

Tensor add_layer_norm(Tensor x, Tensor residual, Tensor weight, Tensor bias, double eps) {
  AddLayerNormArgs args;
  args.dtype = float_type("x", x);
  if (x.dim() != 2 || x.size(1) < 1) fail("x: must have shape (rows, width), width > 0, got " + shape_of(x));
  const int64_t width = x.size(1);
  if (width > std::numeric_limits<int32_t>::max()) fail("x: more columns than int32 can count");
  check_type("residual", residual, x.scalar_type());
  check_shape("residual", residual, {x.size(0), width});
  check_type("weight", weight, x.scalar_type());
  check_shape("weight", weight, {width});
  check_contiguous("weight", weight);
  check_type("bias", bias, x.scalar_type());
  check_shape("bias", bias, {width});
  check_contiguous("bias", bias);
  check_dense_rows("x", x);
  check_dense_rows("residual", residual);
  check_eps(eps);
  Tensor out = empty({x.size(0), width}, x.scalar_type());
  args.x = x.data_ptr();
  args.residual = residual.data_ptr();
  args.residual_rows = nullptr;
  args.weight = weight.data_ptr();
  args.bias = bias.data_ptr();
  args.out = out.data_ptr();
  args.rows = x.size(0);
  args.width = width;
  args.x_stride = row_stride(x);
  args.residual_stride = row_stride(residual);
  args.eps = static_cast<float>(eps);
  add_layer_norm(active_kernels(), args, torch_executor());
  return out;
}

}  // namespace tokprune::torch_binding
