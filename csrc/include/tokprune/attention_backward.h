// Gradients of varlen attention and of its importance scores.
#pragma once

#include "tokprune/isa.h"
#include "tokprune/types.h"

namespace tokprune {

// With P = softmax(scale * q k^T + key_bias) of one head, r = row_weights (1 if null), g = grad_importance and D the
// sequence's denominator (its number of rows if null), for every head:
//
//   dP[q, i] = grad_context[q] . v[i] + r[q] g[i] / (heads * D)        dB = P * (dP - rowsum(P * dP))
//   grad_q = scale * dB k          grad_k = scale * dB^T q             grad_v = P^T grad_context
//   grad_key_bias[i] = sum over heads and rows of dB[q, i]
//   grad_row_weights[q] = sum over heads and keys of P[q, i] g[i] / (heads * D)
//
// P is computed again, so the forward pass saves nothing; no length x length matrix is stored.
struct AttentionBackwardArgs {
  DType dtype;  // of q, k, v, grad_context and their gradients
  const void* grad_context;      // (total, heads, head_dim), contiguous
  const float* grad_importance;  // (total,)
  const void* q;                 // (total, heads, head_dim): heads contiguous, rows q_stride elements apart
  const void* k;                 // same, k_stride
  const void* v;                 // same, v_stride
  int64_t q_stride, k_stride, v_stride;  // in elements; views of one fused QKV are fine
  const int32_t* cu_seqlens;     // (batch + 1,), see check_cu_seqlens
  const float* denominators;     // (batch,) or null
  const float* key_bias;         // (total,) or null: zeros
  const float* row_weights;      // (total,) or null: ones
  int64_t batch;
  int64_t heads;
  int64_t head_dim;              // a multiple of 8, at most 256
  float scale;
  void* grad_q;                  // (total, heads, head_dim), contiguous, as grad_k and grad_v
  void* grad_k;
  void* grad_v;
  float* grad_key_bias;          // (total,)
  float* grad_row_weights;       // (total,)
};

// Bytes of scratch that `attention_backward` needs when it runs with this executor (64-byte aligned memory).
size_t attention_backward_workspace(const AttentionBackwardArgs& args, const Executor& executor);

// Same bits for any executor and any other sequences in the batch.
void attention_backward(const KernelTable& kernels, const AttentionBackwardArgs& args, void* workspace,
                        const Executor& executor);

}  // namespace tokprune
