// attn_importance, varlen_attention, prune_attention.
#include "ops.h"

#include <cmath>

namespace tokprune::torch_binding {
namespace {

struct Inputs {
  AttentionArgs args{};
  Tensor context;
  Sequences sequences;

  Inputs(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& cu_seqlens, int64_t max_seqlen,
         double scale, const std::optional<Tensor>& denominators, float* importance) {
    args.dtype = float_type("q", q);
    check_head_tensors(q, k, v);
    const int64_t head_dim = q.size(2);
    if (!std::isfinite(scale)) fail("scale: must be finite, got " + std::to_string(scale));
    sequences = check_sequences(cu_seqlens, q.size(0), max_seqlen);
    args.batch = sequences.batch();
    args.denominators = check_denominator_tensor(denominators, args.batch);
    context = empty({q.size(0), q.size(1), head_dim}, q.scalar_type());
    args.q = q.data_ptr();
    args.k = k.data_ptr();
    args.v = v.data_ptr();
    args.q_stride = row_stride(q);
    args.k_stride = row_stride(k);
    args.v_stride = row_stride(v);
    args.context = context.data_ptr();
    args.importance = importance;
    args.cu_seqlens = sequences.bounds.data();
    args.heads = q.size(1);
    args.head_dim = head_dim;
    args.scale = static_cast<float>(scale);
  }
};

void run(const Inputs& in) {
  const Executor executor = torch_executor();
  attention(active_kernels(), in.args, workspace(attention_workspace(in.args, executor)), executor);
}

int64_t tokens_of(const Tensor& q) { return q.dim() > 0 ? q.size(0) : 0; }

}  // namespace

std::tuple<Tensor, Tensor> attn_importance(Tensor q, Tensor k, Tensor v, Tensor cu_seqlens, int64_t max_seqlen,
                                           double scale, std::optional<Tensor> denominators,
                                           std::optional<Tensor> key_bias, std::optional<Tensor> row_weights) {
  Tensor importance = empty({tokens_of(q)}, ScalarType::Float);
  Inputs in(q, k, v, cu_seqlens, max_seqlen, scale, denominators, mutable_data<float>(importance));
  in.args.key_bias = check_key_bias_tensor(key_bias, q.size(0));
  in.args.row_weights = check_row_weight_tensor(row_weights, q.size(0));
  run(in);
  return {in.context, importance};
}

Tensor varlen_attention(Tensor q, Tensor k, Tensor v, Tensor cu_seqlens, int64_t max_seqlen, double scale) {
  Inputs in(q, k, v, cu_seqlens, max_seqlen, scale, std::nullopt, nullptr);
  run(in);
  return in.context;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> prune_attention(
    Tensor q, Tensor k, Tensor v, Tensor residual, Tensor cu_seqlens, int64_t max_seqlen, double scale,
    std::optional<double> threshold, std::optional<double> keep_ratio, std::optional<Tensor> denominators,
    std::optional<Tensor> protected_rows, bool protect_first, bool count_first) {
  if (threshold.has_value() == keep_ratio.has_value())
    fail("prune_attention: give exactly one of threshold and keep_ratio");
  Tensor importance = empty({tokens_of(q)}, ScalarType::Float);
  Inputs in(q, k, v, cu_seqlens, max_seqlen, scale, denominators, mutable_data<float>(importance));
  const int64_t total = q.size(0);
  check_cpu("residual", residual);
  check_shape("residual", residual, {total, -1});
  check_contiguous("residual", residual);

  PruneAttentionArgs args;
  args.attention = in.args;
  args.rule = {threshold ? Criterion::kThreshold : Criterion::kTopK, threshold ? *threshold : *keep_ratio,
               check_protected(protected_rows, total), protect_first, count_first};
  check_keep_rule(args.rule);
  Tensor new_cu_seqlens = empty({in.args.batch + 1}, ScalarType::Int);
  args.new_cu_seqlens = mutable_data<int32_t>(new_cu_seqlens);
  // The number of survivors is known only afterwards: their indices first go to scratch.
  const Executor executor = torch_executor();
  const size_t index_bytes = (static_cast<size_t>(total) * sizeof(int32_t) + 63) / 64 * 64;
  args.keep_idx = nullptr;
  char* memory = static_cast<char*>(workspace(index_bytes + prune_attention_workspace(args, executor)));
  args.keep_idx = reinterpret_cast<int32_t*>(memory);
  const int64_t kept = prune_attention(active_kernels(), args, memory + index_bytes, executor);

  Tensor keep_idx = empty({kept}, ScalarType::Int);
  Tensor context = empty({kept, q.size(1), q.size(2)}, q.scalar_type());
  Tensor rows = empty({kept, residual.size(1)}, residual.scalar_type());
  std::copy_n(args.keep_idx, kept, mutable_data<int32_t>(keep_idx));
  const RowGather gathers[] = {
      {in.context.data_ptr(), context.data_ptr(), q.size(1) * q.size(2) * static_cast<int64_t>(q.element_size())},
      {residual.data_ptr(), rows.data_ptr(), residual.size(1) * static_cast<int64_t>(residual.element_size())}};
  gather_rows(gathers, 2, args.keep_idx, kept, executor);
  return {context, rows, importance, keep_idx, new_cu_seqlens};
}

}  // namespace tokprune::torch_binding
