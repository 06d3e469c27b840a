#define TOKPRUNE_ISA avx512

#include "vec_avx512.h"
#include "bodies.h"

namespace tokprune {

const KernelTable kAvx512Kernels = TOKPRUNE_KERNEL_TABLE("avx512");

}  // namespace tokprune
