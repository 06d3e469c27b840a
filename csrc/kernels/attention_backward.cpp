// Sharing the gradients of varlen attention out over sequences and heads.
#include "tokprune/attention_backward.h"

#include <algorithm>

#include "parallel.h"
#include "table.h"

namespace tokprune {
namespace {

// Heads of short sequences run several to a task, up to about this many query-key pairs, as in the forward pass.
// Reading their rows ahead, as the forward pass does, made 8 x 128 1.07x faster but 32 texts of 13 tokens 1.15x slower.
constexpr int64_t kTaskWork = 128 * 128;

class BackwardPlan {
 public:
  // With a measuring workspace (null base) only the sizes are worked out and `run` must not be called.
  BackwardPlan(const AttentionBackwardArgs& args, const Executor& executor, Workspace& workspace) : args_(args) {
    const int64_t batch = args.batch, workers = std::max(executor.max_workers, 1);
    int64_t longest = 0;
    for (int64_t b = 0; b < batch; ++b) longest = std::max(longest, length(b));
    total_ = args.cu_seqlens[batch];
    most_heads_ = std::max<int64_t>(std::min(args.heads, batch * args.heads / (workers * 4)), 1);
    scratch_bytes_ = attention_backward_scratch_sizes(longest, static_cast<int>(args.head_dim)).total;
    order_ = workspace.take<int32_t>(batch);
    task_begin_ = workspace.take<int64_t>(batch + 1);
    grad_key_bias_ = workspace.take<float>(args.heads * total_);
    grad_row_weights_ = workspace.take<float>(args.heads * total_);
    scratch_ = workspace.take<char>(scratch_bytes_ * workers);
    if (!workspace.has_memory()) return;
    for (int64_t b = 0; b < batch; ++b) order_[b] = static_cast<int32_t>(b);
    std::stable_sort(order_, order_ + batch, [&](int32_t a, int32_t b) { return length(a) > length(b); });
    task_begin_[0] = 0;
    for (int64_t i = 0; i < batch; ++i) task_begin_[i + 1] = task_begin_[i] + task_count(length(order_[i]));
  }

  void run(const KernelTable& kernels, const Executor& executor) const {
    parallel_tasks(executor, task_begin_[args_.batch], 1, [&](int64_t task, int worker) {
      const int64_t i = std::upper_bound(task_begin_, task_begin_ + args_.batch + 1, task) - task_begin_ - 1;
      const int64_t b = order_[i], heads = heads_per_task(length(b)), head = (task - task_begin_[i]) * heads;
      char* scratch = scratch_ + static_cast<size_t>(worker) * scratch_bytes_;
      for (int64_t h = head; h < std::min(head + heads, args_.heads); ++h) run_head(kernels, b, h, scratch);
    });
    kernels.sum_parts(grad_key_bias_, args_.heads, total_, 1.0f, args_.grad_key_bias);
    kernels.sum_parts(grad_row_weights_, args_.heads, total_, 1.0f, args_.grad_row_weights);
  }

 private:
  int64_t length(int64_t b) const { return static_cast<int64_t>(args_.cu_seqlens[b + 1]) - args_.cu_seqlens[b]; }

  int64_t heads_per_task(int64_t length) const {
    return std::max<int64_t>(std::min(kTaskWork / std::max<int64_t>(length * length, 1), most_heads_), 1);
  }

  int64_t task_count(int64_t length) const {
    const int64_t heads = heads_per_task(length);
    return length > 0 ? (args_.heads + heads - 1) / heads : 0;
  }

  char* at(const void* base, int64_t row, int64_t stride, int64_t head) const {
    return const_cast<char*>(static_cast<const char*>(base)) +
           static_cast<size_t>(row * stride + head * args_.head_dim) * element_size(args_.dtype);
  }

  void run_head(const KernelTable& kernels, int64_t b, int64_t head, char* scratch) const {
    const int64_t first = args_.cu_seqlens[b], n = length(b);
    const double rows = args_.denominators ? static_cast<double>(args_.denominators[b]) : static_cast<double>(n);
    AttentionBackwardTask task;
    task.stride = args_.heads * args_.head_dim;
    task.q_stride = args_.q_stride;
    task.k_stride = args_.k_stride;
    task.v_stride = args_.v_stride;
    task.q = at(args_.q, first, args_.q_stride, head);
    task.k = at(args_.k, first, args_.k_stride, head);
    task.v = at(args_.v, first, args_.v_stride, head);
    task.grad_context = at(args_.grad_context, first, task.stride, head);
    task.grad_q = at(args_.grad_q, first, task.stride, head);
    task.grad_k = at(args_.grad_k, first, task.stride, head);
    task.grad_v = at(args_.grad_v, first, task.stride, head);
    task.grad_importance = args_.grad_importance + first;
    task.key_bias = args_.key_bias ? args_.key_bias + first : nullptr;
    task.row_weights = args_.row_weights ? args_.row_weights + first : nullptr;
    task.grad_key_bias = grad_key_bias_ + head * total_ + first;
    task.grad_row_weights = grad_row_weights_ + head * total_ + first;
    task.length = static_cast<int>(n);
    task.head_dim = static_cast<int>(args_.head_dim);
    task.scale = args_.scale;
    task.importance_factor = static_cast<float>(1.0 / (static_cast<double>(args_.heads) * rows));
    task.scratch = scratch;
    kernels.attend_backward[static_cast<int>(args_.dtype)](task);
  }

  const AttentionBackwardArgs& args_;
  int64_t total_;
  int64_t most_heads_;       // of a task
  int32_t* order_;           // sequences, longest first
  int64_t* task_begin_;      // first task of the i-th sequence in that order; the end
  float* grad_key_bias_;     // [head][total], summed over heads in order at the end
  float* grad_row_weights_;  // same
  char* scratch_;
  size_t scratch_bytes_;     // of one worker
};

}  // namespace

size_t attention_backward_workspace(const AttentionBackwardArgs& args, const Executor& executor) {
  Workspace measure(nullptr);
  BackwardPlan plan(args, executor, measure);
  return measure.used();
}

void attention_backward(const KernelTable& kernels, const AttentionBackwardArgs& args, void* workspace,
                        const Executor& executor) {
  Workspace memory(workspace);
  BackwardPlan(args, executor, memory).run(kernels, executor);
}

}  // namespace tokprune
