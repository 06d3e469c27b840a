// The fused pass: attention + importance + decision, then context and residual rows of the survivors.
#pragma once

#include "tokprune/attention.h"
#include "tokprune/decision.h"

namespace tokprune {

struct PruneAttentionArgs {
  AttentionArgs attention;   // importance must not be null
  KeepRule rule;
  int32_t* keep_idx;         // (total,): the kept rows, in order
  int32_t* new_cu_seqlens;   // (batch + 1,)
};

size_t prune_attention_workspace(const PruneAttentionArgs& args, const Executor& executor);

// Decides each sequence as soon as its last head is done, while other sequences still run, and returns
// the number of kept rows; the caller then gathers with `gather_rows` (it owns the memory).
int64_t prune_attention(const KernelTable& kernels, const PruneAttentionArgs& args, void* workspace,
                        const Executor& executor);

}  // namespace tokprune
