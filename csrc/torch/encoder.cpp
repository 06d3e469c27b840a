// encoder.
#include <cmath>
#include <limits>

#include "ops.h"

namespace tokprune::torch_binding {
namespace {

// Tensors of a layer, in the order of the op's `weights`.
enum Part { kQkv, kQkvBias, kOut, kOutBias, kNorm1, kNorm1Bias, kUp, kUpBias, kDown, kDownBias, kNorm2, kNorm2Bias, kParts };

const void* vector_data(const std::string& name, const Tensor& t, ScalarType type, int64_t size) {
  check_type(name.c_str(), t, type);
  check_shape(name.c_str(), t, {size});
  check_contiguous(name.c_str(), t);
  return t.data_ptr();
}

PackedLinear packed_layer(const std::string& name, const Tensor* parts, ScalarType type, int64_t in_features, int64_t out_features) {
  check_packed_weight(name.c_str(), parts[0], type, in_features, out_features);
  return {parts[0].data_ptr(), vector_data(name + " bias", parts[1], type, out_features), out_features};
}

LayerNorm norm_layer(const std::string& name, const Tensor* parts, ScalarType type, int64_t hidden, double eps) {
  check_eps(eps);
  return {vector_data(name + " weight", parts[0], type, hidden), vector_data(name + " bias", parts[1], type, hidden),
          static_cast<float>(eps)};
}

EncoderLayer layer_of(const std::vector<Tensor>& weights, const std::vector<double>& eps, int64_t l, ScalarType type, int64_t hidden) {
  const Tensor* parts = &weights[static_cast<size_t>(l * kParts)];
  const std::string name = "weights: layer " + std::to_string(l) + " ";
  const int64_t wide = parts[kUpBias].numel();
  EncoderLayer layer{};
  layer.qkv = packed_layer(name + "qkv", parts + kQkv, type, hidden, 3 * hidden);
  layer.attention_out = packed_layer(name + "attention output", parts + kOut, type, hidden, hidden);
  layer.norm_attention = norm_layer(name + "attention norm", parts + kNorm1, type, hidden, eps[static_cast<size_t>(2 * l)]);
  layer.up = packed_layer(name + "up", parts + kUp, type, hidden, wide);
  layer.down = packed_layer(name + "down", parts + kDown, type, wide, hidden);
  layer.norm_output = norm_layer(name + "output norm", parts + kNorm2, type, hidden, eps[static_cast<size_t>(2 * l + 1)]);
  return layer;
}

}  // namespace

Tensor encoder(Tensor x, Tensor cu_seqlens, int64_t max_seqlen, std::vector<Tensor> weights, std::vector<double> eps,
               int64_t heads, int64_t activation, double scale, std::vector<double> keep, bool topk, bool before_layer,
               std::optional<Tensor> denominators, std::optional<Tensor> protected_rows, bool protect_first,
               int64_t readout, std::optional<Tensor> token_idx, int64_t places, bool sqrt_rows,
               bool count_first) {
  EncoderArgs args{};
  args.dtype = float_type("x", x);
  if (x.dim() != 2 || x.size(1) < 1) fail("x: must have shape (tokens, hidden), hidden > 0, got " + shape_of(x));
  check_contiguous("x", x);
  const int64_t total = x.size(0), hidden = x.size(1), layers = static_cast<int64_t>(eps.size()) / 2;
  if (std::max(total, hidden) > std::numeric_limits<int32_t>::max()) fail("x: more tokens or columns than int32 can count");
  if (static_cast<int64_t>(weights.size()) != layers * kParts || eps.size() % 2)
    fail("weights, eps: must hold 12 tensors and 2 numbers for every layer, got " + std::to_string(weights.size()) + " and " +
         std::to_string(eps.size()));
  if (heads < 1 || hidden % heads) fail("heads: must divide the " + std::to_string(hidden) + " columns of x, got " + std::to_string(heads));
  check_head_dim("heads", hidden / heads);
  if (!keep.empty() && static_cast<int64_t>(keep.size()) != layers)
    fail("keep: must hold a number for every layer or nothing, got " + std::to_string(keep.size()));
  if (!std::isfinite(scale)) fail("scale: must be finite, got " + std::to_string(scale));
  if (readout < 0 || readout > 3)
    fail("readout: must be 0 (all), 1 (first), 2 (first_only) or 3 (survivor_mean), got " + std::to_string(readout));
  const Sequences sequences = check_sequences(cu_seqlens, total, max_seqlen);
  args.batch = sequences.batch();
  args.denominators = check_denominator_tensor(denominators, args.batch);
  args.sqrt_rows = sqrt_rows;
  args.rule = {topk ? Criterion::kTopK : Criterion::kThreshold, 0, check_protected(protected_rows, total), protect_first, count_first};
  std::vector<EncoderLayer> stack;
  bool prunes = false;
  for (int64_t l = 0; l < layers; ++l) {
    stack.push_back(layer_of(weights, eps, l, x.scalar_type(), hidden));
    if (keep.empty()) continue;
    EncoderLayer& layer = stack.back();
    layer.keep = keep[static_cast<size_t>(l)];
    layer.prunes = topk ? layer.keep != 1 : !(layer.keep <= 0);
    KeepRule rule = args.rule;
    rule.value = layer.keep;
    if (layer.prunes) check_keep_rule(rule);
    prunes = prunes || layer.prunes;
  }
  if (before_layer && layers && stack[0].prunes) fail("keep: must prune nothing at the first layer, before which no token has a score");
  args.readout = static_cast<Readout>(readout);
  std::vector<int32_t> places_of_tokens;
  if (args.readout == Readout::kAll || args.readout == Readout::kSurvivorMean) {
    if (!token_idx) fail("token_idx: must be given with readouts 0 (all) and 3 (survivor_mean)");
    places_of_tokens = check_index_tensor("token_idx", *token_idx);
    check_shape("token_idx", *token_idx, {total});
    if (places < 0) fail("places: must not be negative, got " + std::to_string(places));
    args.token_idx = places_of_tokens.data();
    args.out_rows = places;
    check_indices("token_idx", args.token_idx, total, places, true);
  } else {
    if (prunes && !protect_first) fail("readout: the first tokens can only be read out if they are never pruned (protect_first)");
    args.out_rows = args.batch;
  }
  Tensor out = empty({args.out_rows, hidden}, x.scalar_type());
  args.layers = stack.data();
  args.layer_count = layers;
  args.hidden = hidden;
  args.heads = heads;
  args.activation = activation_of(activation);
  args.scale = static_cast<float>(scale);
  args.position = before_layer ? PrunePosition::kBeforeLayer : PrunePosition::kAfterAttention;
  args.x = x.data_ptr();
  args.cu_seqlens = sequences.bounds.data();
  args.out = out.data_ptr();
  const Executor executor = torch_executor();
  encoder(active_kernels(), args, workspace(encoder_workspace(args, executor)), executor);
  return out;
}

}  // namespace tokprune::torch_binding
