// Vector trait, 16 lanes, AVX-512 (F, BW, VL, DQ), with the BF16 instructions where the translation
// unit is compiled with them. Contract in vec_generic.h.
#pragma once

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

namespace tokprune {
namespace TOKPRUNE_ISA {

typedef __m512 vf;
typedef __m512i vu;

constexpr int kLanes = 16;
constexpr int kTileVectors = 4;
// 32 registers: 6 x 4 accumulators + 4 of b + broadcasts. Narrow tiles take 12 rows to hide the latency.
constexpr int tile_rows(int vectors) { return vectors == 4 ? 6 : 12; }

static inline vf zero() { return _mm512_setzero_ps(); }
static inline vf set1(float x) { return _mm512_set1_ps(x); }
static inline vf load(const float* p) { return _mm512_loadu_ps(p); }
static inline void store(float* p, vf v) { _mm512_storeu_ps(p, v); }
static inline vf fmadd(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
static inline vf max(vf a, vf b) { return _mm512_max_ps(a, b); }
static inline vf min(vf a, vf b) { return _mm512_min_ps(a, b); }
static inline vf round(vf x) {
  return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline vf scale2(vf p, vf n) {
  vu bits = _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23);
  return _mm512_mul_ps(p, _mm512_castsi512_ps(bits));
}
static inline float reduce_add(vf v) { return _mm512_reduce_add_ps(v); }
static inline float reduce_max(vf v) { return _mm512_reduce_max_ps(v); }
static inline __mmask16 tail_mask(int n) {
  return static_cast<__mmask16>(n >= kLanes ? 0xffffu : (1u << n) - 1u);
}
static inline vf fill_tail(vf v, int n, float fill) {
  return _mm512_mask_mov_ps(_mm512_set1_ps(fill), tail_mask(n), v);
}
static inline vf load_partial(const float* p, int n) { return _mm512_maskz_loadu_ps(tail_mask(n), p); }
static inline void store_partial(float* p, vf v, int n) { _mm512_mask_storeu_ps(p, tail_mask(n), v); }

static inline vf widen_bf16(__m256i h) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}
static inline vf load_bf16(const uint16_t* p) {
  return widen_bf16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
static inline vf load_bf16_partial(const uint16_t* p, int n) {
  return widen_bf16(_mm256_maskz_loadu_epi16(tail_mask(n), p));
}
static inline __m256i narrow_bf16(vf x) {
#if defined(__AVX512BF16__)
  return (__m256i)_mm512_cvtneps_pbh(x);
#else
  vu bits = _mm512_castps_si512(x);
  vu odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  vu rounded = _mm512_srli_epi32(
      _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd), 16);
  vu quiet = _mm512_or_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(0x40));
  __mmask16 ordered = _mm512_cmp_ps_mask(x, x, _CMP_ORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(quiet, ordered, rounded));
#endif
}
static inline void store_bf16(uint16_t* p, vf x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow_bf16(x));
}
static inline void store_bf16_partial(uint16_t* p, vf x, int n) {
  _mm256_mask_storeu_epi16(p, tail_mask(n), narrow_bf16(x));
}

static inline vu load_units(const uint32_t* p) { return _mm512_loadu_si512(p); }
static inline void store_units(uint32_t* p, vu v) { _mm512_storeu_si512(p, v); }
static inline vu broadcast_unit(uint32_t x) { return _mm512_set1_epi32(static_cast<int>(x)); }
static inline vf low_half(vu v) { return _mm512_castsi512_ps(_mm512_slli_epi32(v, 16)); }
static inline vf high_half(vu v) {
  return _mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32(static_cast<int>(0xffff0000))));
}
static inline vf dot_pair(vf acc, vu a, vu b) {
#if defined(__AVX512BF16__)
  return _mm512_dpbf16_ps(acc, (__m512bh)a, (__m512bh)b);
#else
  return fmadd(low_half(a), low_half(b), fmadd(high_half(a), high_half(b), acc));
#endif
}
static inline vu zip_bf16(const uint16_t* a, const uint16_t* b, int n) {
  vu low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(tail_mask(n), a));
  if (!b) return low;
  vu high = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(tail_mask(n), b));
  return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}
static inline void transpose(vu* r) {
  vu t[16];
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 2; ++j) {
      r[4 * i + 2 * j] = _mm512_unpacklo_epi64(t[4 * i + j], t[4 * i + 2 + j]);
      r[4 * i + 2 * j + 1] = _mm512_unpackhi_epi64(t[4 * i + j], t[4 * i + 2 + j]);
    }
  for (int j = 0; j < 4; ++j) {
    t[j] = _mm512_shuffle_i32x4(r[j], r[4 + j], 0x88);
    t[4 + j] = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0x88);
    t[8 + j] = _mm512_shuffle_i32x4(r[j], r[4 + j], 0xdd);
    t[12 + j] = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0xdd);
  }
  for (int j = 0; j < 4; ++j) {
    r[j] = _mm512_shuffle_i32x4(t[j], t[4 + j], 0x88);
    r[8 + j] = _mm512_shuffle_i32x4(t[j], t[4 + j], 0xdd);
    r[4 + j] = _mm512_shuffle_i32x4(t[8 + j], t[12 + j], 0x88);
    r[12 + j] = _mm512_shuffle_i32x4(t[8 + j], t[12 + j], 0xdd);
  }
}

}  // namespace TOKPRUNE_ISA
}  // namespace tokprune
