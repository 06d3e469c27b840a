// The one register-tile product behind QK^T, PV and every linear layer.
//
//   c[i][j] (+)= sum over units u of  rows[i][u] * b[u][j]
//
// rows: pointers to m rows of units; b: units, `ldb` units between steps; c: float32, `ldc` apart.
// A unit is 32 bits: one float, or two consecutive bfloat16 of a row against two interleaved in b. Every
// output element is one chain of multiply-adds over u, whatever the tile it falls in: its bits do not
// depend on m or on its neighbours.
#pragma once

namespace tokprune {
namespace TOKPRUNE_ISA {

// How units multiply.
struct Float32 {
  typedef float Element;
  static constexpr int kPerUnit = 1;
  typedef vf Operand;
  static inline Operand load_b(const uint32_t* p) { return load(reinterpret_cast<const float*>(p)); }
  static inline Operand broadcast(const char* p) {
    float x;
    __builtin_memcpy(&x, p, sizeof x);
    return set1(x);
  }
  static inline Operand broadcast_last(const char* p) { return broadcast(p); }
  static inline vf multiply_add(vf acc, Operand a, Operand b) { return fmadd(a, b, acc); }
  static inline vf load_vector(const float* p) { return load(p); }
  static inline vf load_vector(const float* p, int n) { return load_partial(p, n); }
  static inline void store_vector(float* p, vf v) { store(p, v); }
  static inline void store_vector(float* p, vf v, int n) { store_partial(p, v, n); }
};

struct BFloat16 {
  typedef uint16_t Element;
  static constexpr int kPerUnit = 2;
  typedef vu Operand;
  static inline Operand load_b(const uint32_t* p) { return load_units(p); }
  static inline Operand broadcast(const char* p) {
    uint32_t x;
    __builtin_memcpy(&x, p, sizeof x);
    return broadcast_unit(x);
  }
  // The last element of a row of odd length: nothing is read past it.
  static inline Operand broadcast_last(const char* p) {
    uint16_t x;
    __builtin_memcpy(&x, p, sizeof x);
    return broadcast_unit(x);
  }
  static inline vf multiply_add(vf acc, Operand a, Operand b) { return dot_pair(acc, a, b); }
  static inline vf load_vector(const uint16_t* p) { return load_bf16(p); }
  static inline vf load_vector(const uint16_t* p, int n) { return load_bf16_partial(p, n); }
  static inline void store_vector(uint16_t* p, vf v) { store_bf16(p, v); }
  static inline void store_vector(uint16_t* p, vf v, int n) { store_bf16_partial(p, v, n); }
};

struct Product {
  const char* const* rows;
  const uint32_t* b;
  ptrdiff_t ldb;
  int elements;     // of a row: units * kPerUnit, less one where the last pair is half empty
  float* c;
  ptrdiff_t ldc;
  bool accumulate;  // start from c instead of 0
  // What the next product will read: its lines come into the second-level cache while this one computes, because a
  // prefetcher that begins at the first miss cannot keep up with a tile. Null: nothing is known of it.
  const char* next;
  ptrdiff_t next_bytes;
};

// The part of `next` that one tile fetches: `lines` cache lines in every kFetchUnits units.
struct Fetch {
  const char* from;
  int lines;
};

constexpr int kFetchUnits = 2;

template <class T, int M, int V>
static void tile(const Product& t, int row, int column, Fetch fetch) {
  const char* a[M];
  for (int i = 0; i < M; ++i) a[i] = t.rows[row + i];
  const uint32_t* b = t.b + column;
  float* c = t.c + row * t.ldc + column;
  vf acc[M][V];
  for (int i = 0; i < M; ++i)
    for (int j = 0; j < V; ++j) acc[i][j] = t.accumulate ? load(c + i * t.ldc + j * kLanes) : zero();
  ptrdiff_t offset = 0;
  const ptrdiff_t end = static_cast<ptrdiff_t>(t.elements / T::kPerUnit) * 4;
  auto step = [&]() {
    typename T::Operand bv[V];
    for (int j = 0; j < V; ++j) bv[j] = T::load_b(b + j * kLanes);
    for (int i = 0; i < M; ++i) {
      typename T::Operand av = T::broadcast(a[i] + offset);
      for (int j = 0; j < V; ++j) acc[i][j] = T::multiply_add(acc[i][j], av, bv[j]);
    }
    offset += 4;
    b += t.ldb;
  };
  if (fetch.lines)
    while (offset + kFetchUnits * 4 <= end) {
      for (int i = 0; i < fetch.lines; ++i, fetch.from += 64) __builtin_prefetch(fetch.from, 0, 2);
      for (int u = 0; u < kFetchUnits; ++u) step();
    }
#pragma GCC unroll 4
  while (offset < end) step();
  if (t.elements % T::kPerUnit) {
    for (int i = 0; i < M; ++i) {
      typename T::Operand av = T::broadcast_last(a[i] + offset);
      for (int j = 0; j < V; ++j)
        acc[i][j] = T::multiply_add(acc[i][j], av, T::load_b(b + j * kLanes));
    }
  }
  for (int i = 0; i < M; ++i)
    for (int j = 0; j < V; ++j) store(c + i * t.ldc + j * kLanes, acc[i][j]);
}

template <class T, int V>
static inline void tile_of(const Product& t, int m, int row, int column, Fetch fetch) {
  typedef void (*TileFn)(const Product&, int, int, Fetch);
  static const TileFn tiles[12] = {
      tile<T, 1, V>, tile<T, 2, V>, tile<T, 3, V>, tile<T, 4, V>,
      tile_rows(V) >= 5 ? tile<T, tile_rows(V) >= 5 ? 5 : 1, V> : nullptr,
      tile_rows(V) >= 6 ? tile<T, tile_rows(V) >= 6 ? 6 : 1, V> : nullptr,
      tile_rows(V) >= 7 ? tile<T, tile_rows(V) >= 7 ? 7 : 1, V> : nullptr,
      tile_rows(V) >= 8 ? tile<T, tile_rows(V) >= 8 ? 8 : 1, V> : nullptr,
      tile_rows(V) >= 9 ? tile<T, tile_rows(V) >= 9 ? 9 : 1, V> : nullptr,
      tile_rows(V) >= 10 ? tile<T, tile_rows(V) >= 10 ? 10 : 1, V> : nullptr,
      tile_rows(V) >= 11 ? tile<T, tile_rows(V) >= 11 ? 11 : 1, V> : nullptr,
      tile_rows(V) >= 12 ? tile<T, tile_rows(V) >= 12 ? 12 : 1, V> : nullptr};
  tiles[m - 1](t, row, column, fetch);
}

// All rows of one column strip of V vectors, in tiles of nearly equal height.
template <class T, int V>
static inline void strip(const Product& t, int m, int column) {
  const int tiles = (m + tile_rows(V) - 1) / tile_rows(V);
  const ptrdiff_t blocks = static_cast<ptrdiff_t>(t.elements / T::kPerUnit) / kFetchUnits * tiles;
  Fetch fetch{t.next, 0};
  if (t.next && column == 0 && blocks) fetch.lines = static_cast<int>((t.next_bytes / 64 + blocks - 1) / blocks);
  for (int i = 0, row = 0; i < tiles; ++i) {
    const int height = (m - row) / (tiles - i);
    tile_of<T, V>(t, height, row, column, fetch);
    fetch.from += fetch.lines * 64 * (blocks / tiles);
    row += height;
  }
}

// m rows by `vectors` vectors of columns.
template <class T>
static void multiply(const Product& t, int m, int vectors) {
  int j = 0;
  for (; vectors - j >= kTileVectors; j += kTileVectors) strip<T, kTileVectors>(t, m, j * kLanes);
  if (kTileVectors > 2 && vectors - j >= 2) {
    strip<T, 2>(t, m, j * kLanes);
    j += 2;
  }
  if (vectors > j) strip<T, 1>(t, m, j * kLanes);
}

}  // namespace TOKPRUNE_ISA
}  // namespace tokprune
