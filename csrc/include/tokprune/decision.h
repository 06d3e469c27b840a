// Which tokens stay: by threshold (LTP) or by keep ratio (ToP).
#pragma once

#include "tokprune/types.h"

namespace tokprune {

enum class Criterion : int { kThreshold = 0, kTopK = 1 };

struct KeepRule {
  Criterion criterion;
  double value;                 // threshold (finite) or keep ratio in (0, 1]
  const uint8_t* protected_rows;  // (total,) non-zero = never pruned; or null
  bool protect_first;           // the first token of every sequence is never pruned
  bool count_first = true;      // a keep ratio is of all tokens; else of those past the first, which stays beside them
};

// Throws std::invalid_argument for a threshold that is not finite, a ratio outside (0, 1], or count_first = false with
// a threshold or a first token that may be pruned.
void check_keep_rule(const KeepRule& rule);

// k = max(1, ceil(ratio * n - 1e-9)) in float64, or without the first token 1 + ceil(ratio * (n - 1) - 1e-9); never more
// than n, 0 for an empty sequence.
int64_t topk_count(double ratio, int64_t n, bool count_first = true);

// Decides one sequence of `n` tokens. Writes the kept positions (ascending, 0-based within the
// sequence, plus `offset`) to keep (room for n) and returns how many. Tokens whose importance is NaN
// are kept; never fewer than one of a non-empty sequence; ties go to the lower position.
int64_t keep_in_sequence(const float* importance, const uint8_t* protected_rows, int64_t n,
                         const KeepRule& rule, int32_t offset, int32_t* keep);

// The whole batch: keep_idx (room for total) gets the kept rows in order, new_cu_seqlens (batch + 1)
// the new bounds. Returns the number of kept rows.
int64_t keep_tokens(const float* importance, const int32_t* cu_seqlens, int64_t batch,
                    const KeepRule& rule, int32_t* keep_idx, int32_t* new_cu_seqlens);

}  // namespace tokprune
