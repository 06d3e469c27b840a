// exp2, erf-GELU, tanh-GELU on vectors: polynomials fitted for float32.
#pragma once

namespace tokprune {
namespace TOKPRUNE_ISA {

static inline vf add(vf a, vf b) { return a + b; }
static inline vf sub(vf a, vf b) { return a - b; }
static inline vf mul(vf a, vf b) { return a * b; }
static inline vf div(vf a, vf b) { return a / b; }

// 2^x for x <= 128, relative error 8e-8 (degree 6, minimax on [-1/2, 1/2]); 0 below -126.5, infinity from 127.5 on; NaN stays.
static inline vf exp2(vf x) {
  x = max(set1(-127.0f), x);
  vf n = round(x);
  vf f = sub(x, n);
  vf p = set1(1.5353360609e-04f);
  p = fmadd(p, f, set1(1.3398874867e-03f));
  p = fmadd(p, f, set1(9.6184373665e-03f));
  p = fmadd(p, f, set1(5.5503324697e-02f));
  p = fmadd(p, f, set1(2.4022647913e-01f));
  p = fmadd(p, f, set1(6.9314720286e-01f));
  p = fmadd(p, f, set1(1.0f));
  return scale2(p, n);
}

// erf(x), relative error 4e-7: x P(x^2) / Q(x^2) on |x| <= 3.918. There it is 1 to the bit, with fused multiply-adds and
// without: GELU far below zero is x/2 - x/2, and half a bit of x too much would not be nothing.
static inline vf erf(vf x) {
  x = min(set1(3.918f), max(set1(-3.918f), x));
  vf t = mul(x, x);
  vf p = set1(1.992418852e-08f);
  p = fmadd(p, t, set1(-1.957825361e-06f));
  p = fmadd(p, t, set1(1.418491011e-04f));
  p = fmadd(p, t, set1(3.701563226e-03f));
  p = fmadd(p, t, set1(5.057319254e-02f));
  p = fmadd(p, t, set1(1.999235153e-01f));
  p = fmadd(p, t, set1(1.128379107e+00f));
  vf q = set1(9.560269536e-04f);
  q = fmadd(q, t, set1(1.435311511e-02f));
  q = fmadd(q, t, set1(1.149979904e-01f));
  q = fmadd(q, t, set1(5.105092525e-01f));
  q = fmadd(q, t, set1(1.0f));
  return div(mul(x, p), q);
}

static inline vf gelu(vf x) {
  vf half = mul(set1(0.5f), x);
  return fmadd(half, erf(mul(x, set1(0.70710678118654752f))), half);
}

// 0.5 x (1 + tanh(u)) = x / (1 + exp(-2u)), u = sqrt(2/pi) (x + 0.044715 x^3). Far below zero the exponential is infinite.
static inline vf gelu_tanh(vf x) {
  vf cubic = fmadd(mul(set1(0.044715f), mul(x, x)), x, x);
  vf e = exp2(min(set1(128.0f), mul(cubic, set1(-2.0f * 0.79788456080286536f * 1.4426950408889634f))));
  return div(x, add(set1(1.0f), e));
}

static inline vf relu(vf x) { return max(zero(), x); }

}  // namespace TOKPRUNE_ISA
}  // namespace tokprune
