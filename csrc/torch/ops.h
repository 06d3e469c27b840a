// The bound ops. Their schemas are in tokprune_kernels/ops/schemas.txt.
#pragma once

#include <cstring>
#include <tuple>
#include <vector>

#include "tensors.h"

namespace tokprune::torch_binding {

std::tuple<Tensor, Tensor> attn_importance(Tensor q, Tensor k, Tensor v, Tensor cu_seqlens, int64_t max_seqlen,
                                           double scale, std::optional<Tensor> denominators,
                                           std::optional<Tensor> key_bias, std::optional<Tensor> row_weights);
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> attn_importance_backward(
    Tensor grad_context, Tensor grad_importance, Tensor q, Tensor k, Tensor v, Tensor cu_seqlens, int64_t max_seqlen,
    double scale, std::optional<Tensor> denominators, std::optional<Tensor> key_bias, std::optional<Tensor> row_weights);
Tensor varlen_attention(Tensor q, Tensor k, Tensor v, Tensor cu_seqlens, int64_t max_seqlen, double scale);
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> prune_attention(
    Tensor q, Tensor k, Tensor v, Tensor residual, Tensor cu_seqlens, int64_t max_seqlen, double scale,
    std::optional<double> threshold, std::optional<double> keep_ratio, std::optional<Tensor> denominators,
    std::optional<Tensor> protected_rows, bool protect_first, bool count_first);
std::tuple<Tensor, Tensor> keep_threshold(Tensor importance, Tensor cu_seqlens, double threshold,
                                          std::optional<Tensor> protected_rows, bool protect_first, bool capacity);
std::tuple<Tensor, Tensor> keep_topk(Tensor importance, Tensor cu_seqlens, double keep_ratio,
                                     std::optional<Tensor> protected_rows, bool protect_first, bool capacity,
                                     bool count_first);
Tensor compact(Tensor x, Tensor keep_idx, int64_t total);
std::vector<Tensor> compact_many(std::vector<Tensor> xs, Tensor keep_idx, int64_t total);
std::tuple<Tensor, Tensor, Tensor> pack_index(Tensor attention_mask);
std::tuple<Tensor, Tensor, Tensor> pack(Tensor x, Tensor attention_mask);
Tensor unpack(Tensor packed, Tensor token_idx, int64_t batch, int64_t length);
void store_exits_(Tensor out, Tensor x, Tensor token_idx, Tensor keep_idx);
Tensor add_layer_norm(Tensor x, Tensor residual, Tensor weight, Tensor bias, double eps);
Tensor pack_weight(Tensor weight);
Tensor packed_linear(Tensor x, Tensor weight, std::optional<Tensor> bias, int64_t out_features, int64_t activation,
                     std::optional<Tensor> rows);
Tensor encoder(Tensor x, Tensor cu_seqlens, int64_t max_seqlen, std::vector<Tensor> weights, std::vector<double> eps,
               int64_t heads, int64_t activation, double scale, std::vector<double> keep, bool topk, bool before_layer,
               std::optional<Tensor> denominators, std::optional<Tensor> protected_rows, bool protect_first,
               int64_t readout, std::optional<Tensor> token_idx, int64_t places, bool sqrt_rows,
               bool count_first);
Tensor padded_encoder(Tensor x, Tensor attention_mask, std::vector<Tensor> weights, std::vector<double> eps, int64_t heads,
                      int64_t activation, double scale, std::vector<double> keep, bool topk, bool before_layer,
                      int64_t denominator, std::optional<Tensor> protected_places, bool protect_first, int64_t readout,
                      bool count_first);

}  // namespace tokprune::torch_binding
