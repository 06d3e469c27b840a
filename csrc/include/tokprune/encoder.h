// A whole encoder on packed tokens: attention, decisions, linear layers and norms of every layer in one call.
#pragma once

#include "tokprune/attention.h"
#include "tokprune/decision.h"
#include "tokprune/linear.h"

namespace tokprune {

// A linear layer whose weight `pack_weight` packed.
struct PackedLinear {
  const void* weight;
  const void* bias;  // (out_features,) or null
  int64_t out_features;
};

struct LayerNorm {
  const void* weight;  // (hidden,)
  const void* bias;    // (hidden,)
  float eps;
};

struct EncoderLayer {
  PackedLinear qkv;            // hidden -> query, key and value side by side, 3 * hidden
  PackedLinear attention_out;  // hidden -> hidden
  PackedLinear up, down;       // hidden -> wide -> hidden
  LayerNorm norm_attention, norm_output;
  bool prunes;                 // whether tokens leave at this layer, by EncoderArgs::rule with
  double keep;                 // this threshold or keep ratio
};

enum class PrunePosition : int {
  kAfterAttention = 0,  // LTP: importance of layer l decides between its attention and its output projection
  kBeforeLayer = 1,     // ToP: importance of layer l - 1 decides at the entry of layer l
};

enum class Readout : int {
  kAll = 0,        // out (out_rows, hidden): row token_idx[i] = last state of token i, zeros elsewhere
  kFirst = 1,      // out (batch, hidden): state of each sequence's first token, zeros for an empty one
  kFirstOnly = 2,  // as kFirst, and the last layer computes only those rows: the same bits
  kSurvivorMean = 3,  // as kAll, but the rows of pruned tokens hold the mean of their sequence's survivors
};

struct EncoderArgs {
  DType dtype;  // of x, weights and out
  const EncoderLayer* layers;
  int64_t layer_count, hidden, heads;
  Activation activation;  // of the feed-forward part
  float scale;            // of the attention scores
  KeepRule rule;          // its value is that of the layer
  PrunePosition position;
  const void* x;             // (total, hidden), contiguous
  const int32_t* cu_seqlens;   // (batch + 1,), see check_cu_seqlens
  const float* denominators;   // (batch,) or null, see AttentionArgs
  bool sqrt_rows;              // without denominators: divide by the square root of a layer's rows, not by their number
  int64_t batch;
  Readout readout;  // kFirst and kFirstOnly need a rule that never prunes the first token
  const int32_t* token_idx;  // (total,), ascending; kAll and kSurvivorMean only
  void* out;
  int64_t out_rows;
};

// Bytes of scratch that `encoder` needs with this executor (64-byte aligned memory).
size_t encoder_workspace(const EncoderArgs& args, const Executor& executor);

// Same bits for any executor and any other sequences in the batch.
void encoder(const KernelTable& kernels, const EncoderArgs& args, void* workspace, const Executor& executor);

}  // namespace tokprune
