// Attention, then each sequence's decision on the worker that finished it, then one prefix sum.
#include "tokprune/prune_attention.h"

#include <algorithm>

#include "attention_plan.h"

namespace tokprune {
namespace {

// Kept rows of a sequence are first written at the sequence's own place, where there is room for all.
struct Layout {
  AttentionPlan plan;
  int32_t* kept;
  int32_t* kept_count;

  Layout(const PruneAttentionArgs& args, const Executor& executor, Workspace& workspace)
      : plan(args.attention, executor, workspace),
        kept(workspace.take<int32_t>(args.attention.cu_seqlens[args.attention.batch])),
        kept_count(workspace.take<int32_t>(args.attention.batch)) {}
};

}  // namespace

size_t prune_attention_workspace(const PruneAttentionArgs& args, const Executor& executor) {
  Workspace measure(nullptr);
  Layout layout(args, executor, measure);
  return measure.used();
}

int64_t prune_attention(const KernelTable& kernels, const PruneAttentionArgs& args, void* workspace,
                        const Executor& executor) {
  const AttentionArgs& a = args.attention;
  Workspace memory(workspace);
  Layout layout(args, executor, memory);
  for (int64_t b = 0; b < a.batch; ++b) layout.kept_count[b] = 0;
  layout.plan.run(kernels, executor, [&](int64_t b) {
    const int32_t first = a.cu_seqlens[b];
    const uint8_t* fixed = args.rule.protected_rows ? args.rule.protected_rows + first : nullptr;
    layout.kept_count[b] = static_cast<int32_t>(keep_in_sequence(
        a.importance + first, fixed, a.cu_seqlens[b + 1] - first, args.rule, first, layout.kept + first));
  });
  int64_t total = 0;
  args.new_cu_seqlens[0] = 0;
  for (int64_t b = 0; b < a.batch; ++b) {
    const int64_t count = layout.kept_count[b];
    std::copy_n(layout.kept + a.cu_seqlens[b], count, args.keep_idx + total);
    args.new_cu_seqlens[b + 1] = static_cast<int32_t>(total += count);
  }
  return total;
}

}  // namespace tokprune
