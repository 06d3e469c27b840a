// All kernel bodies and the table of one ISA. Included once by each isa/*.cpp after its vector trait.
#pragma once

#include "../table.h"
#include "math.h"
#include "tile.h"
#include "attention.h"
#include "attention_backward.h"
#include "linear.h"
#include "norm.h"
#include "peak.h"

#define TOKPRUNE_KERNEL_TABLE(name)                                            \
  {                                                                            \
    name, {TOKPRUNE_ISA::attend<TOKPRUNE_ISA::Float32>,                        \
           TOKPRUNE_ISA::attend<TOKPRUNE_ISA::BFloat16>},                      \
        {TOKPRUNE_ISA::attend_backward<TOKPRUNE_ISA::Float32>,                 \
         TOKPRUNE_ISA::attend_backward<TOKPRUNE_ISA::BFloat16>},               \
        TOKPRUNE_ISA::sum_parts,                                               \
        {TOKPRUNE_ISA::add_layer_norm_rows<TOKPRUNE_ISA::Float32>,             \
         TOKPRUNE_ISA::add_layer_norm_rows<TOKPRUNE_ISA::BFloat16>},           \
        {TOKPRUNE_ISA::linear_task<TOKPRUNE_ISA::Float32>,                     \
         TOKPRUNE_ISA::linear_task<TOKPRUNE_ISA::BFloat16>},                   \
        {TOKPRUNE_ISA::multiply_add_loop<TOKPRUNE_ISA::Float32>,               \
         TOKPRUNE_ISA::multiply_add_loop<TOKPRUNE_ISA::BFloat16>},             \
        {TOKPRUNE_ISA::multiply_adds_per_iteration<TOKPRUNE_ISA::Float32>(),   \
         TOKPRUNE_ISA::multiply_adds_per_iteration<TOKPRUNE_ISA::BFloat16>()}, \
  }
