// Row movement. Rows are copied whole, so the element type does not matter.
#include "tokprune/gather.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "parallel.h"

namespace tokprune {
namespace {

// Ranges below this many bytes are not worth a second worker.
constexpr int64_t kLeastBytes = 64 * 1024;

int64_t least_rows(int64_t row_bytes) { return kLeastBytes / (row_bytes > 0 ? row_bytes : 1) + 1; }

const char* row(const void* base, int64_t i, int64_t row_bytes) { return static_cast<const char*>(base) + i * row_bytes; }
char* row(void* base, int64_t i, int64_t row_bytes) { return static_cast<char*>(base) + i * row_bytes; }

// Not memcpy: rows of no bytes may lie at null, which it must not be given.
void copy_rows(const void* source, int64_t from, void* destination, int64_t to, int64_t count, int64_t row_bytes) {
  std::copy_n(row(source, from, row_bytes), count * row_bytes, row(destination, to, row_bytes));
}

template <class T>
int64_t scan(const T* mask, int64_t batch, int64_t length, int32_t* cu_seqlens, int32_t* token_idx, int32_t* position) {
  int32_t total = 0;
  for (int64_t b = 0; b < batch; ++b) {
    const int32_t first = total;
    if (cu_seqlens) cu_seqlens[b] = first;
    for (int64_t l = 0; l < length; ++l) {
      if (!(mask[b * length + l] != T{0})) continue;
      if (token_idx) {
        token_idx[total] = static_cast<int32_t>(b * length + l);
        position[total] = total - first;
      }
      ++total;
    }
  }
  if (cu_seqlens) cu_seqlens[batch] = total;
  return total;
}

int64_t scan_mask(const void* mask, MaskType type, int64_t batch, int64_t length, int32_t* cu_seqlens,
                  int32_t* token_idx, int32_t* position) {
  switch (type) {
    case MaskType::kByte:
      return scan(static_cast<const uint8_t*>(mask), batch, length, cu_seqlens, token_idx, position);
    case MaskType::kInt32:
      return scan(static_cast<const int32_t*>(mask), batch, length, cu_seqlens, token_idx, position);
    case MaskType::kInt64:
      return scan(static_cast<const int64_t*>(mask), batch, length, cu_seqlens, token_idx, position);
    case MaskType::kFloat32:
      return scan(static_cast<const float*>(mask), batch, length, cu_seqlens, token_idx, position);
  }
  throw std::invalid_argument("attention_mask: unsupported element type");
}

}  // namespace

void gather_rows(const RowGather* tensors, int64_t tensor_count, const int32_t* idx, int64_t count,
                 const Executor& executor) {
  int64_t bytes = 0;
  for (int64_t t = 0; t < tensor_count; ++t) bytes += tensors[t].row_bytes;
  parallel_ranges(executor, count, least_rows(bytes), [&](int64_t begin, int64_t end, int) {
    for (int64_t t = 0; t < tensor_count; ++t) {
      const RowGather& g = tensors[t];
      for (int64_t i = begin; i < end;) {
        // Runs of neighbours go in one copy: most tokens survive most layers.
        int64_t stop = i + 1;
        while (stop < end && idx[stop] == idx[stop - 1] + 1) ++stop;
        copy_rows(g.source, idx[i], g.destination, i, stop - i, g.row_bytes);
        i = stop;
      }
    }
  });
}

void unpack_rows(const void* source, const int32_t* token_idx, int64_t count, int64_t row_bytes, void* destination,
                 int64_t rows, const Executor& executor) {
  // Token i owns the output rows from its own up to the next token's: it writes one and zeroes the rest.
  // Ranges are over tokens, with a range before the first one.
  auto zero_rows = [&](int64_t begin, int64_t end) {
    if (end > begin) std::fill_n(row(destination, begin, row_bytes), (end - begin) * row_bytes, char{0});
  };
  zero_rows(0, count ? token_idx[0] : rows);
  parallel_ranges(executor, count, least_rows(row_bytes), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end;) {
      int64_t stop = i + 1;
      while (stop < end && token_idx[stop] == token_idx[stop - 1] + 1) ++stop;
      copy_rows(source, i, destination, token_idx[i], stop - i, row_bytes);
      zero_rows(token_idx[stop - 1] + 1, stop < count ? token_idx[stop] : rows);
      i = stop;
    }
  });
}

void store_exits(const void* source, const int32_t* token_idx, int64_t count, const int32_t* keep_idx,
                 int64_t keep_count, int64_t row_bytes, void* destination, const Executor& executor) {
  parallel_ranges(executor, count, least_rows(row_bytes), [&](int64_t begin, int64_t end, int) {
    const int32_t* keep = std::lower_bound(keep_idx, keep_idx + keep_count, begin);
    for (int64_t i = begin; i < end; ++i) {
      if (keep != keep_idx + keep_count && *keep == i)
        ++keep;
      else
        copy_rows(source, i, destination, token_idx[i], 1, row_bytes);
    }
  });
}

int64_t count_live(const void* mask, MaskType type, int64_t batch, int64_t length, int32_t* cu_seqlens) {
  return scan_mask(mask, type, batch, length, cu_seqlens, nullptr, nullptr);
}

void live_tokens(const void* mask, MaskType type, int64_t batch, int64_t length, int32_t* token_idx, int32_t* position) {
  scan_mask(mask, type, batch, length, nullptr, token_idx, position);
}

void check_indices(const char* name, const int32_t* idx, int64_t count, int64_t rows, bool ascending) {
  for (int64_t i = 0; i < count; ++i) {
    if (idx[i] < 0 || idx[i] >= rows)
      throw std::invalid_argument(std::string(name) + ": entry " + std::to_string(i) + " is " + std::to_string(idx[i]) +
                                  ", outside [0, " + std::to_string(rows) + ")");
    if (ascending && i > 0 && idx[i] <= idx[i - 1])
      throw std::invalid_argument(std::string(name) + ": entries must rise, but entry " + std::to_string(i) + " is " +
                                  std::to_string(idx[i]) + " after " + std::to_string(idx[i - 1]));
  }
}

}  // namespace tokprune
