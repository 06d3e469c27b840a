// What the scheduling of the attention gradients hands to an ISA's kernel. Included by ISA files, so no STL.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tokprune {

// One (sequence, head). Pointers to rows: first row of the sequence, first element of the head.
struct AttentionBackwardTask {
  const void* q;
  const void* k;
  const void* v;
  const void* grad_context;
  void* grad_q;
  void* grad_k;
  void* grad_v;
  int64_t q_stride, k_stride, v_stride, stride;  // elements between rows; `stride` of grad_context and the gradients
  const float* grad_importance;  // (length,)
  const float* key_bias;         // (length,) or null
  const float* row_weights;      // (length,) or null
  float* grad_key_bias;          // (length,): this head's part
  float* grad_row_weights;       // (length,): this head's part
  int length, head_dim;
  float scale;
  float importance_factor;  // 1 / (heads * D)
  void* scratch;            // attention_backward_scratch_sizes(...).total bytes, 64-byte aligned
};

// Query rows whose probabilities are held at a time.
constexpr int kBackwardRows = 64;

struct AttentionBackwardScratchSizes {
  size_t panels, rows, block, turned, narrow, keys_wide, total;  // bytes
  int64_t block_stride;  // elements
  int padded_dim;
};

// All of it float32. The block stride is kept off multiples of 2 KiB, which would put all rows of a block into the
// same cache sets.
static inline AttentionBackwardScratchSizes attention_backward_scratch_sizes(int64_t length, int head_dim) {
  AttentionBackwardScratchSizes s;
  const size_t keys = (static_cast<size_t>(length) + 63) / 64 * 64, dim = static_cast<size_t>(head_dim);
  s.padded_dim = (head_dim + 15) / 16 * 16;
  s.block_stride = static_cast<int64_t>(keys) + 16;
  s.panels = keys * dim * 4;                            // K^T, V^T and the gradients of both
  s.rows = keys * static_cast<size_t>(s.padded_dim) * 4;  // K
  s.block = (static_cast<size_t>(length) < kBackwardRows ? static_cast<size_t>(length) : kBackwardRows) *
            static_cast<size_t>(s.block_stride) * 4;    // weights and their gradients
  s.turned = dim * kBackwardRows * 4;                   // Q^T and grad_context^T of a block
  s.narrow = static_cast<size_t>(kBackwardRows) * static_cast<size_t>(s.padded_dim) * 4;  // q, grad_context, grad_q
  s.keys_wide = keys * 4;                               // bias, importance gradients, bias gradients
  s.total = 4 * s.panels + s.rows + 2 * s.block + 2 * s.turned + 3 * s.narrow + 3 * s.keys_wide;
  s.total = (s.total + 63) / 64 * 64;
  return s;
}

}  // namespace tokprune
