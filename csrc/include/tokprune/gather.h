// Moving token rows: compaction, padded <-> packed, exit states.
#pragma once

#include "tokprune/types.h"

namespace tokprune {

// destination[i] = source[idx[i]], i < count, rows of row_bytes bytes. Indices must be in range.
struct RowGather {
  const void* source;
  void* destination;
  int64_t row_bytes;
};

// Several tensors by the same indices, in one pass.
void gather_rows(const RowGather* tensors, int64_t tensor_count, const int32_t* idx, int64_t count,
                 const Executor& executor);

// destination (rows, row_bytes): row token_idx[i] = source row i; every other row is zeroed.
// token_idx ascending and in range.
void unpack_rows(const void* source, const int32_t* token_idx, int64_t count, int64_t row_bytes,
                 void* destination, int64_t rows, const Executor& executor);

// destination[token_idx[i]] = source[i] for every row i < count that is not in keep_idx (ascending).
void store_exits(const void* source, const int32_t* token_idx, int64_t count,
                 const int32_t* keep_idx, int64_t keep_count, int64_t row_bytes, void* destination,
                 const Executor& executor);

enum class MaskType : int { kByte, kInt32, kInt64, kFloat32 };

// Live tokens of a (batch, length) attention mask (non-zero = live): how many.
int64_t count_live(const void* mask, MaskType type, int64_t batch, int64_t length, int32_t* cu_seqlens);

// Their flat indices b * length + l and their positions among the live tokens of their text.
void live_tokens(const void* mask, MaskType type, int64_t batch, int64_t length, int32_t* token_idx,
                 int32_t* position);

// Throw std::invalid_argument naming `name` unless all indices lie in [0, rows); `ascending`: and rise strictly.
void check_indices(const char* name, const int32_t* idx, int64_t count, int64_t rows, bool ascending);

}  // namespace tokprune
