#define TOKPRUNE_ISA generic

#include "vec_generic.h"
#include "bodies.h"

namespace tokprune {

const KernelTable kGenericKernels = TOKPRUNE_KERNEL_TABLE("generic");

}  // namespace tokprune
