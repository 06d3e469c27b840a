// The plan of one attention call: which heads or chunks of which sequence run when, and where their sums go.
#pragma once

#include <atomic>

#include "parallel.h"
#include "table.h"

namespace tokprune {

class AttentionPlan {
 public:
  // With a measuring workspace (null base) only the sizes are worked out and `run` must not be called.
  AttentionPlan(const AttentionArgs& args, const Executor& executor, Workspace& workspace);

  // finished(sequence) runs once for every sequence that has tokens, on some worker, as soon as its
  // context and importance are written.
  template <class Finished>
  void run(const KernelTable& kernels, const Executor& executor, const Finished& finished) {
    parallel_tasks(executor, task_begin_[args_.batch], 1, [&](int64_t task, int worker) {
      const Position p = locate(task);
      run_task(kernels, p, scratch_ + static_cast<size_t>(worker) * scratch_bytes_);
      // The last task of a sequence sees the sums of all the others (acquire-release).
      if (remaining_[p.sequence].fetch_sub(1, std::memory_order_acq_rel) == 1) {
        if (args_.importance) reduce(kernels, p.sequence);
        finished(p.sequence);
      }
    });
  }

 private:
  // Heads [head, head_end) of a sequence; all their chunks, or the one that is `part`.
  struct Position {
    int64_t sequence, head, head_end;
    int part;
  };

  int64_t length(int64_t b) const { return static_cast<int64_t>(args_.cu_seqlens[b + 1]) - args_.cu_seqlens[b]; }
  int64_t queries(int64_t length) const { return args_.first_query_only ? std::min<int64_t>(length, 1) : length; }
  // Of q and context: where the sequence begins.
  int64_t query_row(int64_t b) const { return args_.first_query_only ? b : args_.cu_seqlens[b]; }
  // A head's first element in a row.
  char* at(const void* base, int64_t row, int64_t stride, int64_t head) const;
  int64_t parts(int64_t length) const;
  int64_t heads_per_task(int64_t length) const;
  int64_t task_count(int64_t length) const;
  Position locate(int64_t task) const;
  void run_task(const KernelTable& kernels, const Position& p, char* scratch) const;
  void fetch_heads(const Position& p) const;
  void run_head(const KernelTable& kernels, const Position& p, int64_t head, char* scratch) const;
  void reduce(const KernelTable& kernels, int64_t b) const;

  const AttentionArgs& args_;
  bool split_;                       // tasks are chunks, not whole (sequence, head) pairs
  int64_t most_heads_;               // of a task
  int32_t* order_;                   // sequences, longest first
  int64_t* task_begin_;              // first task of the i-th sequence in that order; the end
  std::atomic<int32_t>* remaining_;  // tasks of a sequence that have not finished
  int64_t* sums_begin_;              // of a sequence, in sums_
  float* sums_;                      // [head][chunk][length] per sequence
  char* scratch_;
  size_t scratch_bytes_;             // of one worker
};

}  // namespace tokprune
