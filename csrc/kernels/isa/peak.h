// The fastest this ISA can multiply and add: independent chains in registers, no memory. For rooflines.
#pragma once

namespace tokprune {
namespace TOKPRUNE_ISA {

constexpr int kChains = 12;

template <class T>
static float multiply_add_loop(int64_t iterations) {
  vf acc[kChains];
#pragma GCC unroll 16
  for (int i = 0; i < kChains; ++i) acc[i] = set1(static_cast<float>(i));
  const uint32_t ones = 0x3f803f80u;  // about 1 as float32, 1 and 1 as bfloat16
  const typename T::Operand a = T::broadcast(reinterpret_cast<const char*>(&ones)), b = a;
  for (int64_t n = 0; n < iterations; ++n) {
#pragma GCC unroll 16
    for (int i = 0; i < kChains; ++i) acc[i] = T::multiply_add(acc[i], a, b);
  }
  float total = 0;
#pragma GCC unroll 16
  for (int i = 0; i < kChains; ++i) total += reduce_add(acc[i]);
  return total;
}

template <class T>
static constexpr int64_t multiply_adds_per_iteration() {
  return kChains * kLanes * T::kPerUnit;
}

}  // namespace TOKPRUNE_ISA
}  // namespace tokprune
