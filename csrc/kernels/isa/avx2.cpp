#define TOKPRUNE_ISA avx2

#include "vec_avx2.h"
#include "bodies.h"

namespace tokprune {

const KernelTable kAvx2Kernels = TOKPRUNE_KERNEL_TABLE("avx2");

}  // namespace tokprune
