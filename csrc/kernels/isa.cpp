// Choosing the kernels: by name, by TOKPRUNE_CPU_ISA, or the best that this machine can run.
#include "tokprune/isa.h"

#include <array>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "table.h"

namespace tokprune {
namespace {

struct Implementation {
  const KernelTable* kernels;
  const char* needs[7];  // CPU features, terminated by nullptr
};

// Best first.
const Implementation kImplementations[] = {
#if defined(__x86_64__)
    {&kAvx512Bf16Kernels, {"avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_bf16"}},
    {&kAvx512Kernels, {"avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512dq", nullptr}},
    {&kAvx2Kernels, {"avx2", "fma", nullptr}},
#endif
    {&kGenericKernels, {nullptr}},
};

bool has_feature(const char* name) {
  for (const CpuFeature* f = cpu_features(); f->name; ++f)
    if (std::strcmp(f->name, name) == 0) return f->present;
  return false;
}

bool runs_here(const Implementation& implementation) {
  for (const char* need : implementation.needs) {
    if (!need) break;
    if (!has_feature(need)) return false;
  }
  return true;
}

const Implementation* find(const char* name) {
  for (const Implementation& i : kImplementations)
    if (std::strcmp(i.kernels->name, name) == 0) return &i;
  return nullptr;
}

std::string names(bool supported_only) {
  std::string list;
  for (const Implementation& i : kImplementations)
    if (!supported_only || runs_here(i)) list += (list.empty() ? "" : ", ") + std::string(i.kernels->name);
  return list;
}

const KernelTable& choose() {
  const char* forced = std::getenv("TOKPRUNE_CPU_ISA");
  if (forced && *forced) return kernels_for(forced);
  for (const Implementation& i : kImplementations)
    if (runs_here(i)) return *i.kernels;
  return kGenericKernels;
}

}  // namespace

const char* const* compiled_isas() {
  // Filled once, whichever caller comes first.
  static const auto list = [] {
    std::array<const char*, sizeof(kImplementations) / sizeof(kImplementations[0]) + 1> names{};
    for (size_t i = 0; i + 1 < names.size(); ++i) names[i] = kImplementations[i].kernels->name;
    return names;
  }();
  return list.data();
}

bool isa_supported(const char* name) {
  const Implementation* i = find(name);
  return i && runs_here(*i);
}

const KernelTable& kernels_for(const char* name) {
  const Implementation* i = find(name);
  if (!i)
    throw std::invalid_argument("unknown CPU ISA '" + std::string(name) + "' (TOKPRUNE_CPU_ISA or isa=): this build has " +
                                names(false));
  if (!runs_here(*i))
    throw std::invalid_argument("CPU ISA '" + std::string(name) + "' (TOKPRUNE_CPU_ISA or isa=) is not supported by this machine, which can run " +
                                names(true));
  return *i->kernels;
}

const KernelTable& active_kernels() {
  static const KernelTable& kernels = choose();
  return kernels;
}

const char* isa_name(const KernelTable& kernels) { return kernels.name; }

}  // namespace tokprune
