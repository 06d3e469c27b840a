// Keep decisions, one sequence at a time.
#include "tokprune/decision.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

namespace tokprune {
namespace {

bool always_kept(const float* importance, const uint8_t* protected_rows, int64_t i, const KeepRule& rule) {
  return (i == 0 && rule.protect_first) || (protected_rows && protected_rows[i]) || std::isnan(importance[i]);
}

int64_t keep_by_threshold(const float* importance, const uint8_t* protected_rows, int64_t n,
                          const KeepRule& rule, int32_t offset, int32_t* keep) {
  const float threshold = static_cast<float>(rule.value);
  int64_t kept = 0;
  for (int64_t i = 0; i < n; ++i)
    if (importance[i] >= threshold || always_kept(importance, protected_rows, i, rule))
      keep[kept++] = offset + static_cast<int32_t>(i);
  if (kept == 0) {
    // max_element returns the first of equals: the lower position.
    keep[0] = offset + static_cast<int32_t>(std::max_element(importance, importance + n) - importance);
    kept = 1;
  }
  return kept;
}

int64_t keep_by_rank(const float* importance, const uint8_t* protected_rows, int64_t n, const KeepRule& rule,
                     int32_t offset, int32_t* keep) {
  const int64_t k = topk_count(rule.value, n, rule.count_first);
  // `keep` serves as the list of candidates, then of the chosen, and is sorted at the end.
  int64_t fixed = 0, candidates = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (always_kept(importance, protected_rows, i, rule)) {
      keep[fixed + candidates] = keep[fixed];  // the first candidate makes room
      keep[fixed++] = static_cast<int32_t>(i);
    } else {
      keep[fixed + candidates++] = static_cast<int32_t>(i);
    }
  }
  const int64_t chosen = std::min(std::max<int64_t>(k - fixed, 0), candidates);
  int32_t* first = keep + fixed;
  std::nth_element(first, first + chosen, first + candidates, [&](int32_t a, int32_t b) {
    return importance[a] != importance[b] ? importance[a] > importance[b] : a < b;
  });
  std::sort(keep, keep + fixed + chosen);
  for (int64_t i = 0; i < fixed + chosen; ++i) keep[i] += offset;
  return fixed + chosen;
}

}  // namespace

void check_keep_rule(const KeepRule& rule) {
  if (rule.criterion == Criterion::kThreshold) {
    if (!std::isfinite(rule.value))
      throw std::invalid_argument("threshold: must be finite, got " + std::to_string(rule.value));
  } else if (!(rule.value > 0 && rule.value <= 1)) {
    throw std::invalid_argument("keep_ratio: must be in (0, 1], got " + std::to_string(rule.value));
  }
  if (!rule.count_first && (rule.criterion != Criterion::kTopK || !rule.protect_first))
    throw std::invalid_argument("count_first: false needs keep ratios, and a first token that is never pruned (protect_first)");
}

int64_t topk_count(double ratio, int64_t n, bool count_first) {
  if (n == 0) return 0;
  const int64_t apart = count_first ? 0 : 1;
  const int64_t k = apart + static_cast<int64_t>(std::ceil(ratio * static_cast<double>(n - apart) - 1e-9));
  return std::min(std::max<int64_t>(k, 1), n);
}

int64_t keep_in_sequence(const float* importance, const uint8_t* protected_rows, int64_t n, const KeepRule& rule,
                         int32_t offset, int32_t* keep) {
  if (n == 0) return 0;
  return rule.criterion == Criterion::kThreshold
             ? keep_by_threshold(importance, protected_rows, n, rule, offset, keep)
             : keep_by_rank(importance, protected_rows, n, rule, offset, keep);
}

int64_t keep_tokens(const float* importance, const int32_t* cu_seqlens, int64_t batch, const KeepRule& rule,
                    int32_t* keep_idx, int32_t* new_cu_seqlens) {
  int64_t total = 0;
  new_cu_seqlens[0] = 0;
  for (int64_t b = 0; b < batch; ++b) {
    const int32_t first = cu_seqlens[b];
    total += keep_in_sequence(importance + first, rule.protected_rows ? rule.protected_rows + first : nullptr,
                              cu_seqlens[b + 1] - first, rule, first, keep_idx + total);
    new_cu_seqlens[b + 1] = static_cast<int32_t>(total);
  }
  return total;
}

}  // namespace tokprune
