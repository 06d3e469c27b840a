// All of tokprune's CPU kernels: link libtokprune.a, no torch needed.
#pragma once

#include "tokprune/attention.h"
#include "tokprune/attention_backward.h"
#include "tokprune/decision.h"
#include "tokprune/encoder.h"
#include "tokprune/gather.h"
#include "tokprune/isa.h"
#include "tokprune/linear.h"
#include "tokprune/norm.h"
#include "tokprune/peak.h"
#include "tokprune/prune_attention.h"
#include "tokprune/survivors.h"
#include "tokprune/types.h"
