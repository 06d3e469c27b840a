// keep_threshold, keep_topk.
#include "ops.h"

namespace tokprune::torch_binding {
namespace {

std::tuple<Tensor, Tensor> keep(const Tensor& importance, const Tensor& cu_seqlens, Criterion criterion, double value,
                                const std::optional<Tensor>& protected_rows, bool protect_first, bool capacity,
                                bool count_first) {
  check_type("importance", importance, ScalarType::Float);
  check_shape("importance", importance, {-1});
  check_contiguous("importance", importance);
  const int64_t total = importance.size(0);
  const Sequences sequences = check_sequences(cu_seqlens, total, total);
  const int64_t batch = sequences.batch();
  const KeepRule rule{criterion, value, check_protected(protected_rows, total), protect_first, count_first};
  check_keep_rule(rule);
  Tensor new_cu_seqlens = empty({batch + 1}, ScalarType::Int);
  Tensor all = capacity ? empty({total}, ScalarType::Int) : Tensor();
  int32_t* idx = capacity ? mutable_data<int32_t>(all)
                          : static_cast<int32_t*>(workspace(static_cast<size_t>(total) * sizeof(int32_t)));
  const int64_t kept = keep_tokens(data<float>(importance), sequences.bounds.data(), batch, rule, idx,
                                   mutable_data<int32_t>(new_cu_seqlens));
  if (capacity) {
    // Unused entries name row 0, so that whoever gathers all of them reads a valid row.
    std::fill_n(idx + kept, total - kept, 0);
    return {all, new_cu_seqlens};
  }
  Tensor keep_idx = empty({kept}, ScalarType::Int);
  std::copy_n(idx, kept, mutable_data<int32_t>(keep_idx));
  return {keep_idx, new_cu_seqlens};
}

}  // namespace

std::tuple<Tensor, Tensor> keep_threshold(Tensor importance, Tensor cu_seqlens, double threshold,
                                          std::optional<Tensor> protected_rows, bool protect_first, bool capacity) {
  return keep(importance, cu_seqlens, Criterion::kThreshold, threshold, protected_rows, protect_first, capacity, true);
}

std::tuple<Tensor, Tensor> keep_topk(Tensor importance, Tensor cu_seqlens, double keep_ratio,
                                     std::optional<Tensor> protected_rows, bool protect_first, bool capacity,
                                     bool count_first) {
  return keep(importance, cu_seqlens, Criterion::kTopK, keep_ratio, protected_rows, protect_first, capacity, count_first);
}

}  // namespace tokprune::torch_binding
