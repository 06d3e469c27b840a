// Sharing out tasks among the workers of an Executor.
#pragma once

#include <algorithm>
#include <atomic>
#include <exception>

#include "tokprune/types.h"

namespace tokprune {

// Calls body(task, worker) for every task in [0, tasks). Workers claim tasks from a counter, so uneven
// tasks balance themselves: put the longest first. Exceptions must not cross the executor: bodies do not throw.
template <class Body>
void parallel_tasks(const Executor& executor, int64_t tasks, int64_t grain, const Body& body) {
  struct Shared {
    std::atomic<int64_t> next;
    int64_t tasks, grain;
    const Body* body;
  } shared{{0}, tasks, std::max<int64_t>(grain, 1), &body};
  const int64_t shares = (tasks + shared.grain - 1) / shared.grain;
  const int workers = static_cast<int>(std::min<int64_t>(std::max(executor.max_workers, 1), shares));
  if (workers <= 0) return;
  auto work = [](void* context, int worker) {
    Shared& s = *static_cast<Shared*>(context);
    for (;;) {
      const int64_t begin = s.next.fetch_add(s.grain, std::memory_order_relaxed);
      if (begin >= s.tasks) return;
      const int64_t end = std::min(begin + s.grain, s.tasks);
      for (int64_t task = begin; task < end; ++task) (*s.body)(task, worker);
    }
  };
  if (workers == 1)
    work(&shared, 0);
  else
    executor.run(executor.state, workers, work, &shared);
}

// Splits [0, items) into ranges of at least `least` items: body(begin, end, worker).
template <class Body>
void parallel_ranges(const Executor& executor, int64_t items, int64_t least, const Body& body) {
  const int64_t most = std::max(executor.max_workers, 1) * int64_t{4};
  const int64_t size = std::max<int64_t>(std::max<int64_t>(least, 1), (items + most - 1) / most);
  parallel_tasks(executor, (items + size - 1) / size, 1, [&](int64_t range, int worker) {
    body(range * size, std::min((range + 1) * size, items), worker);
  });
}

// Carves aligned pieces out of the caller's workspace; with a null base it only counts.
class Workspace {
 public:
  explicit Workspace(void* base) : base_(static_cast<char*>(base)) {}
  template <class T>
  T* take(size_t count) {
    char* p = base_ ? base_ + used_ : nullptr;
    used_ += (count * sizeof(T) + 63) / 64 * 64;
    return reinterpret_cast<T*>(p);
  }
  size_t used() const { return used_; }
  bool has_memory() const { return base_ != nullptr; }

 private:
  char* base_;
  size_t used_ = 0;
};

}  // namespace tokprune
