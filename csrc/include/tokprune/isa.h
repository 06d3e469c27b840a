// Which instruction sets this binary carries, which this machine has, and which one runs.
#pragma once

#include "tokprune/types.h"

namespace tokprune {

struct KernelTable;  // one set of kernels, all of one ISA (opaque)

// Names, best first: "avx512_bf16", "avx512", "avx2", "generic". Terminated by nullptr.
const char* const* compiled_isas();

// True if this machine can run the named ISA. False for unknown names.
bool isa_supported(const char* name);

// The kernels of one ISA. Throws std::invalid_argument for a name that is unknown or that this
// machine cannot run: never a silent fallback.
const KernelTable& kernels_for(const char* name);

// The kernels that run by default: the best supported ISA, or the one that the environment
// variable TOKPRUNE_CPU_ISA names. Resolved at the first call. Throws like kernels_for.
const KernelTable& active_kernels();

// Name of the ISA of a set of kernels.
const char* isa_name(const KernelTable& kernels);

struct CpuFeature {
  const char* name;
  bool present;
};

// CPU features that the choice looks at, terminated by {nullptr, false}.
const CpuFeature* cpu_features();

}  // namespace tokprune
