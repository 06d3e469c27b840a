// Vector trait, 4 lanes, by the compiler's vector extensions: SSE2, NEON, or plain code anywhere else.
//
// Every vec_*.h defines the same names in the namespace of its translation unit (TOKPRUNE_ISA), so that
// the kernel bodies are written once: vf (float lanes), kLanes, kTileVectors (widest tile, in vectors),
// tile_rows(vectors) and the functions below. No STL and nothing with external linkage in these files:
// a template instantiated with AVX-512 flags must never be the copy that the linker keeps for everyone.
#pragma once

#include <stddef.h>
#include <stdint.h>
#if defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace tokprune {
namespace TOKPRUNE_ISA {

typedef float vf __attribute__((vector_size(16)));
typedef int32_t vi __attribute__((vector_size(16)));
typedef uint32_t vu __attribute__((vector_size(16)));

constexpr int kLanes = 4;
constexpr int kTileVectors = 2;
constexpr int tile_rows(int vectors) { return vectors == 2 ? 4 : 6; }

static inline vf zero() { return vf{0, 0, 0, 0}; }
static inline vf set1(float x) { return vf{x, x, x, x}; }
static inline vf load(const float* p) { vf v; __builtin_memcpy(&v, p, sizeof v); return v; }
static inline void store(float* p, vf v) { __builtin_memcpy(p, &v, sizeof v); }
static inline vf fmadd(vf a, vf b, vf c) {
#if defined(__aarch64__)
  return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c;
#endif
}
// b where the lanes are unordered: max(bound, x) lets NaN through.
static inline vf max(vf a, vf b) { return a > b ? a : b; }
static inline vf min(vf a, vf b) { return a < b ? a : b; }
// To the nearest integer, |x| < 2^22.
static inline vf round(vf x) {
  const vf magic = set1(12582912.0f);
  return (x + magic) - magic;
}
// p * 2^n for integral n in [-127, 128]; 2^-127 counts as 0, 2^128 is infinity.
static inline vf scale2(vf p, vf n) {
  vi bits = (__builtin_convertvector(n, vi) + 127) << 23;
  return p * (vf)bits;
}
static inline float reduce_add(vf v) { return (v[0] + v[1]) + (v[2] + v[3]); }
static inline float reduce_max(vf v) {
  float a = v[0] > v[1] ? v[0] : v[1], b = v[2] > v[3] ? v[2] : v[3];
  return a > b ? a : b;
}
// First n lanes of v, `fill` in the others.
static inline vf fill_tail(vf v, int n, float fill) {
  for (int i = n; i < kLanes; ++i) v[i] = fill;
  return v;
}
static inline vf load_partial(const float* p, int n) {
  vf v = zero();
  for (int i = 0; i < n; ++i) v[i] = p[i];
  return v;
}
static inline void store_partial(float* p, vf v, int n) {
  for (int i = 0; i < n; ++i) p[i] = v[i];
}

static inline vf load_bf16(const uint16_t* p) {
  vu v{p[0], p[1], p[2], p[3]};
  return (vf)(v << 16);
}
static inline vf load_bf16_partial(const uint16_t* p, int n) {
  vu v{0, 0, 0, 0};
  for (int i = 0; i < n; ++i) v[i] = p[i];
  return (vf)(v << 16);
}
// Round to nearest even; NaN stays NaN.
static inline vu bf16_bits(vf x) {
  vu bits = (vu)x;
  vu rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  vu quiet = (bits >> 16) | 0x40u;
  return x == x ? rounded : quiet;
}
static inline void store_bf16_partial(uint16_t* p, vf x, int n) {
  vu bits = bf16_bits(x);
  for (int i = 0; i < n; ++i) p[i] = static_cast<uint16_t>(bits[i]);
}
static inline void store_bf16(uint16_t* p, vf x) { store_bf16_partial(p, x, kLanes); }

// Lanes of one 32-bit unit: a float, or a pair of bfloat16.
static inline vu load_units(const uint32_t* p) { vu v; __builtin_memcpy(&v, p, sizeof v); return v; }
static inline void store_units(uint32_t* p, vu v) { __builtin_memcpy(p, &v, sizeof v); }
static inline vu broadcast_unit(uint32_t x) { return vu{x, x, x, x}; }
static inline vf low_half(vu v) { return (vf)(v << 16); }
static inline vf high_half(vu v) { return (vf)(v & 0xffff0000u); }
static inline vf dot_pair(vf acc, vu a, vu b) {
  return fmadd(low_half(a), low_half(b), fmadd(high_half(a), high_half(b), acc));
}
// Units (low = a[i], high = b[i]); `b` null: high = 0.
static inline vu zip_bf16(const uint16_t* a, const uint16_t* b, int n) {
  vu v{0, 0, 0, 0};
  for (int i = 0; i < n; ++i) v[i] = a[i] | (b ? static_cast<uint32_t>(b[i]) << 16 : 0u);
  return v;
}
// In-place transpose of kLanes vectors.
static inline void transpose(vu* r) {
  for (int i = 0; i < kLanes; ++i)
    for (int j = 0; j < i; ++j) {
      uint32_t t = r[i][j];
      r[i][j] = r[j][i];
      r[j][i] = t;
    }
}

}  // namespace TOKPRUNE_ISA
}  // namespace tokprune
