// One task of a linear layer: up to kLinearRows rows against one panel of 64 output columns.
//
// Contract: writes out[row_begin .. row_end) of the panel's columns; `next_panel` is the one that this worker will
// probably run next, its weights are fetched ahead; `scratch` holds kLinearRows x 64 float32 sums. The product runs in
// steps of the inner dimension: the part of the panel in use stays in cache while the rows pass by.
#pragma once

namespace tokprune {
namespace TOKPRUNE_ISA {

// Units of a step. Many rows: as long as a second-level cache of 1 MiB allows, because every step loads and stores the
// sums. Few rows: memory sets the pace, and what it brings is read from the first-level cache from the second tile on.
static inline int64_t linear_step(int64_t rows) { return rows > 48 ? 768 : 128; }

static inline vf activate(vf x, Activation activation) {
  switch (activation) {
    case Activation::kGelu: return gelu(x);
    case Activation::kGeluTanh: return gelu_tanh(x);
    case Activation::kRelu: return relu(x);
    case Activation::kNone: break;
  }
  return x;
}

template <class T>
static inline void finish_row(const float* sums, const LinearArgs& args, int64_t column, int width,
                              typename T::Element* out) {
  typedef typename T::Element Element;
  const Element* bias = args.bias ? static_cast<const Element*>(args.bias) + column : nullptr;
  for (int j = 0; j < width; j += kLanes) {
    const int n = width - j < kLanes ? width - j : kLanes;
    vf y = load(sums + j);
    if (bias) y = add(y, n == kLanes ? T::load_vector(bias + j) : T::load_vector(bias + j, n));
    y = activate(y, args.activation);
    if (n == kLanes) T::store_vector(out + j, y);
    else T::store_vector(out + j, y, n);
  }
}

// Rows that are multiplied and finished together. Where one tile spans the panel: its rows, so that their results are
// written while the next tile is multiplied (2-3% better than all at the end, where the stores' cache misses add up).
constexpr int kGroupRows = kTileVectors * kLanes == 64 ? tile_rows(kTileVectors) : kLinearRows;

template <class T>
static void linear_task(const LinearArgs& args, int64_t row_begin, int64_t row_end, int64_t panel, int64_t next_panel,
                        float* scratch) {
  typedef typename T::Element Element;
  const int m = static_cast<int>(row_end - row_begin);
  const int64_t column = panel * 64;
  const int width = static_cast<int>(args.out_features - column < 64 ? args.out_features - column : 64);
  Element* out = static_cast<Element*>(args.out) + row_begin * args.out_features + column;
  if (args.in_features == 0) {  // sums of nothing
    __builtin_memset(scratch, 0, 64 * sizeof(float));
    for (int i = 0; i < m; ++i) finish_row<T>(scratch, args, column, width, out + i * args.out_features);
    return;
  }
  const char* rows[kLinearRows];
  for (int i = 0; i < m; ++i) {
    const int64_t row = args.rows ? args.rows[row_begin + i] : row_begin + i;
    rows[i] = reinterpret_cast<const char*>(static_cast<const Element*>(args.x) + row * args.x_stride);
  }
  const int64_t elements = args.in_features, units = (elements + T::kPerUnit - 1) / T::kPerUnit;
  const uint32_t* weight = static_cast<const uint32_t*>(args.weight) + panel * units * 64;
  const uint32_t* next_weight = static_cast<const uint32_t*>(args.weight) + next_panel * units * 64;
  const int vectors = (width + kLanes - 1) / kLanes;
  const int64_t step = linear_step(m);
  const int groups = (m + kGroupRows - 1) / kGroupRows;
  for (int64_t unit = 0; unit < units; unit += step) {
    const int64_t left = elements - unit * T::kPerUnit, most = step * T::kPerUnit;
    const bool last = unit + step >= units;
    const char* next = reinterpret_cast<const char*>(last ? next_weight : weight + (unit + step) * 64);
    const int64_t next_units = last ? units : units - unit - step;
    const ptrdiff_t next_bytes = (next_units < step ? next_units : step) * 256 / groups;
    Product p{rows, weight + unit * 64, 64, static_cast<int>(left < most ? left : most), scratch, 64, unit > 0, next, next_bytes};
    for (int g = 0, row = 0; g < groups; ++g) {
      const int height = (m - row) / (groups - g);
      p.rows = rows + row;
      p.c = scratch + row * 64;
      multiply<T>(p, height, vectors);
      p.next += next_bytes;
      for (int i = row; last && i < row + height; ++i) finish_row<T>(scratch + i * 64, args, column, width, out + i * args.out_features);
      row += height;
    }
    for (int i = 0; i < m; ++i) rows[i] += static_cast<ptrdiff_t>(step) * 4;
  }
}

}  // namespace TOKPRUNE_ISA
}  // namespace tokprune
