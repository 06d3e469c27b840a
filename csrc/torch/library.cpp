// The CPU kernels of the tokprune ops, whose schemas are defined in schemas.cpp.
#include <torch/csrc/stable/library.h>

#include "ops.h"

namespace tokprune::torch_binding {

STABLE_TORCH_LIBRARY_IMPL(tokprune, CPU, m) {
  m.impl("attn_importance", TORCH_BOX(&attn_importance));
  m.impl("attn_importance_backward", TORCH_BOX(&attn_importance_backward));
  m.impl("varlen_attention", TORCH_BOX(&varlen_attention));
  m.impl("prune_attention", TORCH_BOX(&prune_attention));
  m.impl("keep_threshold", TORCH_BOX(&keep_threshold));
  m.impl("keep_topk", TORCH_BOX(&keep_topk));
  m.impl("compact", TORCH_BOX(&compact));
  m.impl("compact_many", TORCH_BOX(&compact_many));
  m.impl("pack_index", TORCH_BOX(&pack_index));
  m.impl("pack", TORCH_BOX(&pack));
  m.impl("unpack", TORCH_BOX(&unpack));
  m.impl("store_exits_", TORCH_BOX(&store_exits_));
  m.impl("add_layer_norm", TORCH_BOX(&add_layer_norm));
  m.impl("pack_weight", TORCH_BOX(&pack_weight));
  m.impl("encoder", TORCH_BOX(&encoder));
  m.impl("packed_linear", TORCH_BOX(&packed_linear));
  m.impl("padded_encoder", TORCH_BOX(&padded_encoder));
}

}  // namespace tokprune::torch_binding
