// Sharing varlen attention out over sequences, heads and chunks of query rows.
#include "attention_plan.h"

#include <cmath>
#include <stdexcept>
#include <string>

namespace tokprune {
namespace {

template <class Allowed>
void check_entries(const char* name, const float* entries, int64_t count, const char* needed, const Allowed& allowed) {
  for (int64_t i = 0; i < count; ++i)
    if (!std::isfinite(entries[i]) || !allowed(entries[i]))
      throw std::invalid_argument(std::string(name) + ": entry " + std::to_string(i) + " is " +
                                  std::to_string(entries[i]) + "; every one must be " + needed);
}

}  // namespace

Executor serial_executor() {
  return {1, nullptr, [](void*, int workers, void (*fn)(void*, int), void* context) {
            for (int w = 0; w < workers; ++w) fn(context, w);
          }};
}

size_t attention_workspace(const AttentionArgs& args, const Executor& executor) {
  Workspace measure(nullptr);
  AttentionPlan plan(args, executor, measure);
  return measure.used();
}

void attention(const KernelTable& kernels, const AttentionArgs& args, void* workspace, const Executor& executor) {
  Workspace memory(workspace);
  AttentionPlan plan(args, executor, memory);
  plan.run(kernels, executor, [](int64_t) {});
}

void check_cu_seqlens(const int32_t* cu_seqlens, int64_t batch, int64_t total, int64_t max_seqlen) {
  auto fail = [](const std::string& what) { throw std::invalid_argument("cu_seqlens: " + what); };
  if (cu_seqlens[0] != 0) fail("the first entry must be 0, got " + std::to_string(cu_seqlens[0]));
  for (int64_t b = 0; b < batch; ++b) {
    const int64_t length = static_cast<int64_t>(cu_seqlens[b + 1]) - cu_seqlens[b];
    if (length < 0)
      fail("entries must not decrease, but entry " + std::to_string(b + 1) + " is " +
           std::to_string(cu_seqlens[b + 1]) + " after " + std::to_string(cu_seqlens[b]));
    if (length > max_seqlen)
      fail("sequence " + std::to_string(b) + " has " + std::to_string(length) +
           " tokens, more than max_seqlen = " + std::to_string(max_seqlen));
  }
  if (cu_seqlens[batch] != total)
    fail("the last entry must be the number of tokens, " + std::to_string(total) + ", got " +
         std::to_string(cu_seqlens[batch]));
}

void check_denominators(const float* denominators, int64_t batch) {
  check_entries("denominators", denominators, batch, "finite and positive", [](float x) { return x > 0; });
}

void check_key_bias(const float* key_bias, int64_t total) {
  check_entries("key_bias", key_bias, total, "finite (-1e4 takes a key out)", [](float) { return true; });
}

void check_row_weights(const float* row_weights, int64_t total) {
  check_entries("row_weights", row_weights, total, "finite and not negative", [](float x) { return x >= 0; });
}

}  // namespace tokprune
