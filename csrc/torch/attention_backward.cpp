// attn_importance_backward.
#include "ops.h"

#include <cmath>

namespace tokprune::torch_binding {
namespace {

// Gradients arrive in any layout: that of a sum is one number expanded.
Tensor dense(const Tensor& t) { return t.is_contiguous() ? t : torch::stable::contiguous(t); }

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> attn_importance_backward(
    Tensor grad_context, Tensor grad_importance, Tensor q, Tensor k, Tensor v, Tensor cu_seqlens, int64_t max_seqlen,
    double scale, std::optional<Tensor> denominators, std::optional<Tensor> key_bias, std::optional<Tensor> row_weights) {
  AttentionBackwardArgs args;
  args.dtype = float_type("q", q);
  check_head_tensors(q, k, v);
  const int64_t total = q.size(0);
  if (grad_context.scalar_type() != q.scalar_type()) fail("grad_context: must have the dtype of q");
  check_cpu("grad_context", grad_context);
  check_shape("grad_context", grad_context, {total, q.size(1), q.size(2)});
  check_type("grad_importance", grad_importance, ScalarType::Float);
  check_shape("grad_importance", grad_importance, {total});
  if (!std::isfinite(scale)) fail("scale: must be finite, got " + std::to_string(scale));
  const Sequences sequences = check_sequences(cu_seqlens, total, max_seqlen);
  args.batch = sequences.batch();
  args.denominators = check_denominator_tensor(denominators, args.batch);
  args.key_bias = check_key_bias_tensor(key_bias, total);
  args.row_weights = check_row_weight_tensor(row_weights, total);
  const Tensor context = dense(grad_context), importance = dense(grad_importance);
  args.grad_context = context.data_ptr();
  args.grad_importance = data<float>(importance);
  args.q = q.data_ptr();
  args.k = k.data_ptr();
  args.v = v.data_ptr();
  args.q_stride = row_stride(q);
  args.k_stride = row_stride(k);
  args.v_stride = row_stride(v);
  args.cu_seqlens = sequences.bounds.data();
  args.heads = q.size(1);
  args.head_dim = q.size(2);
  args.scale = static_cast<float>(scale);

  Tensor grads[3];
  for (Tensor& grad : grads) grad = empty({total, args.heads, args.head_dim}, q.scalar_type());
  Tensor grad_key_bias = empty({total}, ScalarType::Float), grad_row_weights = empty({total}, ScalarType::Float);
  args.grad_q = grads[0].data_ptr();
  args.grad_k = grads[1].data_ptr();
  args.grad_v = grads[2].data_ptr();
  args.grad_key_bias = mutable_data<float>(grad_key_bias);
  args.grad_row_weights = mutable_data<float>(grad_row_weights);
  const Executor executor = torch_executor();
  attention_backward(active_kernels(), args, workspace(attention_backward_workspace(args, executor)), executor);
  return {grads[0], grads[1], grads[2], grad_key_bias, grad_row_weights};
}

}  // namespace tokprune::torch_binding
