// The dispatch table: what one translation unit per ISA provides. Included by ISA files, so no STL.
#pragma once

#include "attention_backward_task.h"
#include "tokprune/attention.h"
#include "tokprune/linear.h"
#include "tokprune/norm.h"

namespace tokprune {

// One (sequence, head), query chunks [chunk_begin, chunk_end) of `chunks`.
struct AttentionTask {
  const void* q;  // first row of the sequence, first element of the head
  const void* k;
  const void* v;
  void* context;
  int64_t q_stride, k_stride, v_stride, context_stride;  // elements between rows
  int length, head_dim;
  int queries;         // query rows, the first of the sequence
  float scale;
  const float* key_bias;     // (length,) or null
  const float* row_weights;  // (length,) or null
  int chunks, chunk_begin, chunk_end;
  float* column_sums;  // [chunks][length], or null
  void* scratch;       // attention_scratch_sizes(...).total bytes, 64-byte aligned
};

// Query chunk c of `chunks` starts at this row: nearly equal chunks that depend on their number alone.
static inline int chunk_start(int queries, int chunks, int c) {
  return static_cast<int>(static_cast<int64_t>(queries) * c / chunks);
}

// Query rows whose scores are held at a time. More rows read the packed keys and values, which lie in the
// second-level cache, less often; 24 measured 5-10% better than 12 and within noise of 36.
constexpr int kAttentionRows = 24;

struct AttentionScratchSizes {
  size_t keys, values, scores, weights, output, bias, total;  // bytes
  int64_t score_stride;  // elements
  int padded_dim;
};

static inline size_t round_up(size_t x, size_t multiple) { return (x + multiple - 1) / multiple * multiple; }

// per_unit: elements in 32 bits, 1 or 2. The score stride is kept off multiples of 2 KiB, which would
// put all rows of a block into the same cache sets.
static inline AttentionScratchSizes attention_scratch_sizes(int64_t length, int head_dim, int per_unit) {
  AttentionScratchSizes s;
  const size_t keys = round_up(static_cast<size_t>(length), 64), block_rows = kAttentionRows;
  s.padded_dim = static_cast<int>(round_up(static_cast<size_t>(head_dim), 16));
  s.score_stride = static_cast<int64_t>(keys) + 16;
  s.keys = keys * static_cast<size_t>(head_dim) / per_unit * 4;
  s.values = round_up(keys / per_unit * s.padded_dim * 4, 64);
  s.scores = block_rows * s.score_stride * 4;
  s.weights = per_unit == 2 ? round_up(block_rows * s.score_stride * 2, 64) : 0;
  s.output = block_rows * s.padded_dim * 4;
  s.bias = keys * 4;
  s.total = s.keys + s.values + s.scores + s.weights + s.output + s.bias;
  return s;
}

// Rows of one linear task. With these and the steps of isa/linear.h a task's weights and rows fill most of a
// second-level cache of 1 MiB.
constexpr int kLinearRows = 144;

// Every member takes [0] float32, [1] bfloat16 where it is an array.
struct KernelTable {
  const char* name;
  void (*attend[2])(const AttentionTask& task);
  void (*attend_backward[2])(const AttentionBackwardTask& task);
  void (*sum_parts)(const float* column_sums, int64_t parts, int64_t length, float factor, float* out);
  void (*add_layer_norm[2])(const AddLayerNormArgs& args, int64_t begin, int64_t end, float* buffer);
  void (*linear[2])(const LinearArgs& args, int64_t row_begin, int64_t row_end, int64_t panel, int64_t next_panel, float* scratch);
  float (*multiply_add_loop[2])(int64_t iterations);
  int64_t multiply_adds_per_iteration[2];
};

extern const KernelTable kGenericKernels;
#if defined(__x86_64__)
extern const KernelTable kAvx2Kernels;
extern const KernelTable kAvx512Kernels;
extern const KernelTable kAvx512Bf16Kernels;
#endif

}  // namespace tokprune
