#define TOKPRUNE_ISA avx512_bf16

#include "vec_avx512.h"
#include "bodies.h"

namespace tokprune {

const KernelTable kAvx512Bf16Kernels = TOKPRUNE_KERNEL_TABLE("avx512_bf16");

}  // namespace tokprune
