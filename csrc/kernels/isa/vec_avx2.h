// Vector trait, 8 lanes, AVX2 + FMA. Contract in vec_generic.h.
#pragma once

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

namespace tokprune {
namespace TOKPRUNE_ISA {

typedef __m256 vf;
typedef __m256i vu;

constexpr int kLanes = 8;
constexpr int kTileVectors = 2;
// 16 registers: 6 x 2 accumulators + 2 of b + 1 broadcast, or 10 x 1.
constexpr int tile_rows(int vectors) { return vectors == 2 ? 6 : 10; }

static inline vf zero() { return _mm256_setzero_ps(); }
static inline vf set1(float x) { return _mm256_set1_ps(x); }
static inline vf load(const float* p) { return _mm256_loadu_ps(p); }
static inline void store(float* p, vf v) { _mm256_storeu_ps(p, v); }
static inline vf fmadd(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
static inline vf max(vf a, vf b) { return _mm256_max_ps(a, b); }
static inline vf min(vf a, vf b) { return _mm256_min_ps(a, b); }
static inline vf round(vf x) {
  return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline vf scale2(vf p, vf n) {
  vu bits = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  return _mm256_mul_ps(p, _mm256_castsi256_ps(bits));
}
static inline float reduce_add(vf v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
static inline float reduce_max(vf v) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
static inline vu tail_mask(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline vf fill_tail(vf v, int n, float fill) {
  return _mm256_blendv_ps(_mm256_set1_ps(fill), v, _mm256_castsi256_ps(tail_mask(n)));
}
static inline vf load_partial(const float* p, int n) { return _mm256_maskload_ps(p, tail_mask(n)); }
static inline void store_partial(float* p, vf v, int n) { _mm256_maskstore_ps(p, tail_mask(n), v); }

static inline vf load_bf16(const uint16_t* p) {
  __m128i h = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}
static inline vf load_bf16_partial(const uint16_t* p, int n) {
  uint16_t lanes[8] = {};
  for (int i = 0; i < n; ++i) lanes[i] = p[i];
  return load_bf16(lanes);
}
static inline void store_bf16(uint16_t* p, vf x) {
  vu bits = _mm256_castps_si256(x);
  vu odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  vu rounded = _mm256_srli_epi32(
      _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd), 16);
  vu quiet = _mm256_or_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(0x40));
  vu ordered = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_ORD_Q));
  vu result = _mm256_blendv_epi8(quiet, rounded, ordered);
  vu packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(result, result), 0x08);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
}
static inline void store_bf16_partial(uint16_t* p, vf x, int n) {
  uint16_t lanes[8];
  store_bf16(lanes, x);
  for (int i = 0; i < n; ++i) p[i] = lanes[i];
}

static inline vu load_units(const uint32_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
static inline void store_units(uint32_t* p, vu v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v);
}
static inline vu broadcast_unit(uint32_t x) { return _mm256_set1_epi32(static_cast<int>(x)); }
static inline vf low_half(vu v) { return _mm256_castsi256_ps(_mm256_slli_epi32(v, 16)); }
static inline vf high_half(vu v) {
  return _mm256_castsi256_ps(_mm256_and_si256(v, _mm256_set1_epi32(static_cast<int>(0xffff0000))));
}
static inline vf dot_pair(vf acc, vu a, vu b) {
  return fmadd(low_half(a), low_half(b), fmadd(high_half(a), high_half(b), acc));
}
static inline vu zip_bf16(const uint16_t* a, const uint16_t* b, int n) {
  uint32_t lanes[8] = {};
  for (int i = 0; i < n; ++i) lanes[i] = a[i] | (b ? static_cast<uint32_t>(b[i]) << 16 : 0u);
  return load_units(lanes);
}
static inline void transpose(vu* r) {
  vu t[8], u[8];
  for (int i = 0; i < 4; ++i) {
    t[2 * i] = _mm256_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm256_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < 2; ++j) {
      u[4 * i + 2 * j] = _mm256_unpacklo_epi64(t[4 * i + j], t[4 * i + 2 + j]);
      u[4 * i + 2 * j + 1] = _mm256_unpackhi_epi64(t[4 * i + j], t[4 * i + 2 + j]);
    }
  for (int j = 0; j < 4; ++j) {
    r[j] = _mm256_permute2x128_si256(u[j], u[4 + j], 0x20);
    r[4 + j] = _mm256_permute2x128_si256(u[j], u[4 + j], 0x31);
  }
}

}  // namespace TOKPRUNE_ISA
}  // namespace tokprune
