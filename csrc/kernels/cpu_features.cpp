// What this machine's CPU and operating system offer.
#include "tokprune/isa.h"

namespace tokprune {

#if defined(__x86_64__)

// __builtin_cpu_supports also checks that the operating system saves the wide registers.
const CpuFeature* cpu_features() {
  static const CpuFeature features[] = {
      {"avx2", __builtin_cpu_supports("avx2") != 0},
      {"fma", __builtin_cpu_supports("fma") != 0},
      {"avx512f", __builtin_cpu_supports("avx512f") != 0},
      {"avx512bw", __builtin_cpu_supports("avx512bw") != 0},
      {"avx512vl", __builtin_cpu_supports("avx512vl") != 0},
      {"avx512dq", __builtin_cpu_supports("avx512dq") != 0},
      {"avx512_bf16", __builtin_cpu_supports("avx512bf16") != 0},
      {"avx512_vnni", __builtin_cpu_supports("avx512vnni") != 0},
      {nullptr, false}};
  return features;
}

#else

const CpuFeature* cpu_features() {
#if defined(__aarch64__)
  static const CpuFeature features[] = {{"neon", true}, {nullptr, false}};
#else
  static const CpuFeature features[] = {{nullptr, false}};
#endif
  return features;
}

#endif

}  // namespace tokprune
