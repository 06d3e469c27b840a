// The loop over the layers. All activations live in the caller's workspace: they are allocated once, not once a layer.
#include "tokprune/encoder.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "parallel.h"
#include "tokprune/gather.h"
#include "tokprune/survivors.h"
#include "tokprune/norm.h"
#include "tokprune/prune_attention.h"

namespace tokprune {
namespace {

// Rows that run through the rest of a layer together, for each worker: few enough for the wide activations to stay in
// cache, enough for the weights to be read seldom.
constexpr int64_t kBlockRows = 288;

class EncoderRun {
 public:
  EncoderRun(const EncoderArgs& args, const Executor& executor, Workspace& workspace)
      : args_(args),
        executor_(executor),
        size_(element_size(args.dtype)),
        total_(args.cu_seqlens[args.batch]) {
    const int64_t hidden = args.hidden;
    int64_t wide = 0;
    for (int64_t l = 0; l < args.layer_count; ++l) wide = std::max(wide, args.layers[l].up.out_features);
    // With kFirstOnly the last layer has a row for every sequence, and there may be more of those than tokens.
    const int64_t rows = std::max(total_, args.batch);
    block_rows_ = std::min(kBlockRows * std::max(executor.max_workers, 1), rows);
    x_ = take(workspace, rows * hidden);
    qkv_ = take(workspace, rows * 3 * hidden);
    context_ = take(workspace, rows * hidden);
    queries_ = take(workspace, args.readout == Readout::kFirstOnly ? args.batch * hidden : 0);
    narrow_ = take(workspace, block_rows_ * hidden);
    normed_ = take(workspace, block_rows_ * hidden);
    wide_ = take(workspace, block_rows_ * wide);
    importance_ = workspace.take<float>(total_);
    keep_idx_ = workspace.take<int32_t>(total_);
    token_idx_ = workspace.take<int32_t>(total_);
    protected_ = workspace.take<uint8_t>(total_);
    first_rows_ = workspace.take<int32_t>(args.batch);
    square_roots_ = workspace.take<float>(args.sqrt_rows ? args.batch : 0);
    for (int32_t*& bounds : bounds_) bounds = workspace.take<int32_t>(args.batch + 1);
    linear_ = workspace.take<char>(linear_workspace(LinearArgs{}, executor));
    cu_seqlens_ = args.cu_seqlens;
    PruneAttentionArgs largest = prune_arguments();
    float scores;  // any address: while measuring importance_ has none, and without it no room for its sums is counted
    largest.attention.importance = &scores;
    attention_ = workspace.take<char>(prune_attention_workspace(largest, executor));
  }

  void run(const KernelTable& kernels) {
    kernels_ = &kernels;
    alive_ = total_;
    source_ = static_cast<const char*>(args_.x);
    if (args_.rule.protected_rows) std::copy_n(args_.rule.protected_rows, total_, protected_);
    if (restores()) {
      std::copy_n(args_.token_idx, total_, token_idx_);
      zero_padding();
    }
    for (int64_t l = 0; l < args_.layer_count; ++l) run_layer(l);
    if (!written_) read_out();
  }

 private:
  char* take(Workspace& workspace, int64_t elements) { return workspace.take<char>(static_cast<size_t>(elements) * size_); }
  size_t bytes(int64_t elements) const { return static_cast<size_t>(elements) * size_; }
  int64_t row_bytes() const { return static_cast<int64_t>(bytes(args_.hidden)); }
  bool is_empty(int64_t b) const { return cu_seqlens_[b] == cu_seqlens_[b + 1]; }
  bool divides_by_roots() const { return args_.sqrt_rows && !args_.denominators; }
  bool restores() const { return args_.readout == Readout::kAll || args_.readout == Readout::kSurvivorMean; }
  bool is_last(int64_t l) const { return l + 1 == args_.layer_count; }

  void run_layer(int64_t l) {
    const EncoderLayer& layer = args_.layers[l];
    const bool before = args_.position == PrunePosition::kBeforeLayer;
    // Rows of source_ that this layer works on; null = all.
    const int32_t* rows = nullptr;
    if (layer.prunes && before) rows = leave(keep_tokens(importance_, cu_seqlens_, args_.batch, rule(l), keep_idx_, other_bounds()));
    if (is_last(l) && args_.readout == Readout::kFirstOnly) return run_first_rows(layer, rows);
    if (divides_by_roots()) update_square_roots();
    linear(layer.qkv, source_, rows, alive_, args_.hidden, Activation::kNone, qkv_);
    const int32_t* context_rows = nullptr;
    if (layer.prunes && !before) {
      PruneAttentionArgs prune = prune_arguments();
      prune.rule = rule(l);
      context_rows = rows = leave(prune_attention(*kernels_, prune, attention_, executor_));
    } else {
      AttentionArgs attention_args = attention_arguments();
      const bool read = before && !is_last(l) && args_.layers[l + 1].prunes;
      if (!read) attention_args.importance = nullptr;
      attention(*kernels_, attention_args, attention_, executor_);
    }
    // Without padding and exits the last layer can write where the result belongs.
    written_ = is_last(l) && restores() && alive_ == args_.out_rows;
    finish(layer, context_, context_rows, rows, alive_, written_ ? static_cast<char*>(args_.out) : x_);
    source_ = x_;
  }

  // The last layer, for the first row of each sequence: keys and values of all rows, everything else of those alone.
  void run_first_rows(const EncoderLayer& layer, const int32_t* rows) {
    written_ = true;
    const int64_t hidden = args_.hidden, batch = args_.batch;
    if (alive_ == 0) {
      std::fill_n(static_cast<char*>(args_.out), bytes(batch * hidden), 0);
      return;
    }
    for (int64_t b = 0; b < batch; ++b) {  // an empty sequence computes some row, which is zeroed in the end
      const int32_t row = is_empty(b) ? 0 : cu_seqlens_[b];
      first_rows_[b] = rows ? rows[row] : row;
      if (is_empty(b)) std::memset(context_ + b * row_bytes(), 0, bytes(hidden));
    }
    // The panels of keys and values, if those of the queries end where they begin.
    const bool apart = hidden % kPanelColumns == 0;
    const int64_t skip = apart ? hidden : 0, width = 3 * hidden - skip;
    const PackedLinear key_value{static_cast<const char*>(layer.qkv.weight) + bytes(packed_weight_elements(args_.dtype, skip, hidden)),
                                 layer.qkv.bias ? static_cast<const char*>(layer.qkv.bias) + bytes(skip) : nullptr, width};
    linear(key_value, source_, rows, alive_, hidden, Activation::kNone, qkv_);
    linear({layer.qkv.weight, layer.qkv.bias, hidden}, source_, first_rows_, batch, hidden, Activation::kNone, queries_);
    AttentionArgs a = attention_arguments();
    a.q = queries_;
    a.k = qkv_ + bytes(hidden - skip);
    a.v = qkv_ + bytes(2 * hidden - skip);
    a.q_stride = hidden;
    a.k_stride = a.v_stride = width;
    a.importance = nullptr;
    a.first_query_only = true;
    attention(*kernels_, a, attention_, executor_);
    finish(layer, context_, nullptr, first_rows_, batch, static_cast<char*>(args_.out));
    for (int64_t b = 0; b < batch; ++b)
      if (is_empty(b)) std::memset(static_cast<char*>(args_.out) + b * row_bytes(), 0, bytes(hidden));
  }

  // The rest of a layer. context: rows `context_rows`, or all in order; its residual: rows `rows` of source_, or all.
  // May write to source_: rows ascend, so that row i is written after every row from i on was read.
  void finish(const EncoderLayer& layer, const char* context, const int32_t* context_rows, const int32_t* rows, int64_t count,
              char* out) {
    const int64_t hidden = args_.hidden, blocks = count ? (count + block_rows_ - 1) / block_rows_ : 0;
    for (int64_t i = 0; i < blocks; ++i) {
      const int64_t begin = count * i / blocks, end = count * (i + 1) / blocks, n = end - begin;
      const int64_t skip = static_cast<int64_t>(bytes(begin * hidden));
      linear(layer.attention_out, context_rows ? context : context + skip, context_rows ? context_rows + begin : nullptr, n,
             hidden, Activation::kNone, narrow_);
      norm(layer.norm_attention, narrow_, rows ? source_ : source_ + skip, rows ? rows + begin : nullptr, n, normed_);
      linear(layer.up, normed_, nullptr, n, hidden, args_.activation, wide_);
      linear(layer.down, wide_, nullptr, n, layer.up.out_features, Activation::kNone, narrow_);
      norm(layer.norm_output, narrow_, normed_, nullptr, n, out + skip);
    }
  }

  // Takes the decision in keep_idx_ and the other bounds over; returns the rows that stay, null if all do.
  const int32_t* leave(int64_t kept) {
    cu_seqlens_ = other_bounds();
    if (kept == alive_) return nullptr;
    if (restores()) {
      if (args_.readout == Readout::kAll)
        store_exits(source_, token_idx_, alive_, keep_idx_, kept, row_bytes(), args_.out, executor_);
      for (int64_t i = 0; i < kept; ++i) token_idx_[i] = token_idx_[keep_idx_[i]];
    }
    if (args_.rule.protected_rows)
      for (int64_t i = 0; i < kept; ++i) protected_[i] = protected_[keep_idx_[i]];
    alive_ = kept;
    return keep_idx_;
  }

  void read_out() {
    char* out = static_cast<char*>(args_.out);
    if (args_.readout == Readout::kAll) {
      store_exits(source_, token_idx_, alive_, nullptr, 0, row_bytes(), out, executor_);
      return;
    }
    if (args_.readout == Readout::kSurvivorMean)
      return store_survivor_means({args_.dtype, source_, args_.hidden, args_.token_idx, args_.cu_seqlens, token_idx_, cu_seqlens_,
                                   args_.batch, out}, executor_);
    for (int64_t b = 0; b < args_.batch; ++b)
      if (is_empty(b))
        std::memset(out + b * row_bytes(), 0, bytes(args_.hidden));
      else
        std::memcpy(out + b * row_bytes(), source_ + cu_seqlens_[b] * row_bytes(), bytes(args_.hidden));
  }

  // Rows of out that belong to no token. All others are written once: when their token leaves, or in the end.
  void zero_padding() {
    int64_t next = 0;
    for (int64_t i = 0; i <= total_; ++i) {
      const int64_t row = i < total_ ? args_.token_idx[i] : args_.out_rows;
      if (row > next) std::memset(static_cast<char*>(args_.out) + next * row_bytes(), 0, static_cast<size_t>((row - next) * row_bytes()));
      next = row + 1;
    }
  }

  void linear(const PackedLinear& layer, const char* x, const int32_t* rows, int64_t count, int64_t in_features,
              Activation activation, char* out) {
    tokprune::linear(*kernels_, {args_.dtype, x, in_features, rows, count, layer.weight, layer.bias, in_features, layer.out_features, activation, out},
                     linear_, executor_);
  }

  void norm(const LayerNorm& layer, const char* x, const char* residual, const int32_t* residual_rows, int64_t count, char* out) {
    const int64_t hidden = args_.hidden;
    add_layer_norm(*kernels_, {args_.dtype, x, residual, residual_rows, layer.weight, layer.bias, out, count, hidden, hidden, hidden, layer.eps},
                   executor_);
  }

  // Of the rows that each sequence has now; 1 for an empty one.
  void update_square_roots() {
    for (int64_t b = 0; b < args_.batch; ++b)
      square_roots_[b] = std::sqrt(static_cast<float>(std::max(cu_seqlens_[b + 1] - cu_seqlens_[b], 1)));
  }

  AttentionArgs attention_arguments() const {
    AttentionArgs a{};
    a.dtype = args_.dtype;
    a.q = qkv_;
    a.k = qkv_ + bytes(args_.hidden);
    a.v = qkv_ + bytes(2 * args_.hidden);
    a.q_stride = a.k_stride = a.v_stride = 3 * args_.hidden;
    a.context = context_;
    a.importance = importance_;
    a.cu_seqlens = cu_seqlens_;
    a.denominators = divides_by_roots() ? square_roots_ : args_.denominators;
    a.batch = args_.batch;
    a.heads = args_.heads;
    a.head_dim = args_.hidden / args_.heads;
    a.scale = args_.scale;
    return a;
  }

  PruneAttentionArgs prune_arguments() const { return {attention_arguments(), args_.rule, keep_idx_, other_bounds()}; }

  KeepRule rule(int64_t l) const {
    KeepRule rule = args_.rule;
    rule.value = args_.layers[l].keep;
    if (rule.protected_rows) rule.protected_rows = protected_;
    return rule;
  }

  int32_t* other_bounds() const { return bounds_[cu_seqlens_ == bounds_[0]]; }

  const EncoderArgs& args_;
  const Executor& executor_;
  const KernelTable* kernels_ = nullptr;
  const size_t size_;    // of an element
  const int64_t total_;  // tokens at the entry
  int64_t alive_ = 0;
  int64_t block_rows_;
  const char* source_ = nullptr;  // (alive, hidden): the states at the entry of the layer
  const int32_t* cu_seqlens_;     // of the tokens alive
  bool written_ = false;          // whether out holds the result already
  char *x_, *qkv_, *context_;
  char* queries_;  // of the first rows, kFirstOnly
  char *narrow_, *normed_, *wide_;  // of a block
  float *importance_, *square_roots_;
  int32_t *keep_idx_, *token_idx_, *first_rows_, *bounds_[2];
  uint8_t* protected_;
  void *attention_, *linear_;
};

}  // namespace

size_t encoder_workspace(const EncoderArgs& args, const Executor& executor) {
  Workspace measure(nullptr);
  EncoderRun run(args, executor, measure);
  return measure.used();
}

void encoder(const KernelTable& kernels, const EncoderArgs& args, void* workspace, const Executor& executor) {
  Workspace memory(workspace);
  EncoderRun(args, executor, memory).run(kernels);
}

}  // namespace tokprune
