// The states that are left of each sequence, and their mean in place of those that are gone.
#pragma once

#include "tokprune/types.h"

namespace tokprune {

struct SurvivorMeanArgs {
  DType dtype;    // of x and out
  const void* x;  // (kept total, width), contiguous: the survivors' states
  int64_t width;
  const int32_t *token_idx, *cu_seqlens;            // of all tokens: rows of out, ascending, and bounds of the sequences
  const int32_t *kept_token_idx, *kept_cu_seqlens;  // the same of the survivors, who are among them
  int64_t batch;
  void* out;  // (rows, width)
};

// Writes row token_idx[i] of out for every token: a survivor's own state, else the mean of its sequence's survivors, which is
// summed in float32 in their order. A sequence with tokens has survivors.
void store_survivor_means(const SurvivorMeanArgs& args, const Executor& executor);

}  // namespace tokprune
