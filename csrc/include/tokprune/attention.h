// Varlen attention that also returns each token's importance.
#pragma once

#include "tokprune/isa.h"
#include "tokprune/types.h"

namespace tokprune {

// context[i] = A v with A = softmax(scale * q k^T + key_bias) within each sequence; importance[i] is the mean
// attention that token i receives: 1 / (heads * D) * sum over heads and query rows of row_weights[q] * A[q, i],
// where D is denominators[sequence], or the number of rows of the sequence if `denominators` is null
// (LTP, Kim et al., KDD 2022: the importance score). No length x length matrix is stored.
struct AttentionArgs {
  DType dtype;           // of q, k, v and context
  const void* q;         // (total, heads, head_dim): heads contiguous, rows q_stride elements apart
  const void* k;         // same, k_stride
  const void* v;         // same, v_stride
  int64_t q_stride, k_stride, v_stride;  // in elements; views of one fused QKV are fine
  void* context;         // (total, heads, head_dim), contiguous
  float* importance;     // (total,), or null: attention only
  const int32_t* cu_seqlens;   // (batch + 1,), see check_cu_seqlens
  const float* denominators;   // (batch,) or null
  const float* key_bias;       // (total,) finite, added to the scores of each key; null: none
  const float* row_weights;    // (total,) how much each query row counts in the importance; null: 1
  int64_t batch;
  int64_t heads;
  int64_t head_dim;      // a multiple of 8, at most 256
  float scale;
  bool first_query_only;  // q and context (batch, heads, head_dim): each sequence's first row; importance null
};

// Bytes of scratch that `attention` needs when it runs with this executor (64-byte aligned memory).
size_t attention_workspace(const AttentionArgs& args, const Executor& executor);

// Same bits for any executor and any other sequences in the batch.
void attention(const KernelTable& kernels, const AttentionArgs& args, void* workspace,
               const Executor& executor);

// Throws std::invalid_argument unless cu_seqlens[0] == 0, it never decreases, it ends at `total` and
// no sequence is longer than max_seqlen.
void check_cu_seqlens(const int32_t* cu_seqlens, int64_t batch, int64_t total, int64_t max_seqlen);

// Throws std::invalid_argument unless every denominator is finite and positive.
void check_denominators(const float* denominators, int64_t batch);

// Throws std::invalid_argument unless every entry is finite.
void check_key_bias(const float* key_bias, int64_t total);

// Throws std::invalid_argument unless every entry is finite and not negative.
void check_row_weights(const float* row_weights, int64_t total);

}  // namespace tokprune
