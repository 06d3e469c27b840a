// Every kernel on buffers of exactly the documented size, for the address and undefined-behaviour sanitizers:
// an element read or written outside them ends the program. Prints how many calls were made.
#include <tokprune/openmp.h>
#include <tokprune/tokprune.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

using namespace tokprune;

namespace {

// Exactly `bytes` bytes, 64-byte aligned, filled with small bfloat16 / float32 numbers.
struct Buffer {
  explicit Buffer(size_t bytes) : p(nullptr) {
    if (posix_memalign(&p, 64, bytes ? bytes : 1)) std::abort();
    std::memset(p, 0x3c, bytes);
  }
  ~Buffer() { std::free(p); }
  Buffer(const Buffer&) = delete;
  void* p;
};

int calls = 0;

void check_attention(const KernelTable& kernels, DType dtype, const std::vector<int64_t>& lengths, int64_t heads, int64_t head_dim,
                     const Executor& executor) {
  std::vector<int32_t> bounds{0};
  for (int64_t n : lengths) bounds.push_back(bounds.back() + static_cast<int32_t>(n));
  const int64_t total = bounds.back(), width = heads * head_dim;
  // The last row of the fused QKV ends exactly where v ends.
  Buffer qkv(static_cast<size_t>(total * 3 * width) * element_size(dtype)), context(static_cast<size_t>(total * width) * element_size(dtype));
  Buffer key_bias(total * sizeof(float)), row_weights(total * sizeof(float));
  Buffer importance(total * sizeof(float)), keep(total * sizeof(int32_t)), new_bounds(bounds.size() * sizeof(int32_t));
  PruneAttentionArgs args{};
  AttentionArgs& a = args.attention;
  char* base = static_cast<char*>(qkv.p);
  a.dtype = dtype;
  a.q = base;
  a.k = base + width * element_size(dtype);
  a.v = base + 2 * width * element_size(dtype);
  a.q_stride = a.k_stride = a.v_stride = 3 * width;
  a.context = context.p;
  a.importance = static_cast<float*>(importance.p);
  a.cu_seqlens = bounds.data();
  a.batch = static_cast<int64_t>(lengths.size());
  a.heads = heads;
  a.head_dim = head_dim;
  a.scale = 0.1f;
  args.keep_idx = static_cast<int32_t*>(keep.p);
  args.new_cu_seqlens = static_cast<int32_t*>(new_bounds.p);
  for (Criterion criterion : {Criterion::kThreshold, Criterion::kTopK}) {
    if (criterion == Criterion::kTopK)
      a.key_bias = static_cast<float*>(key_bias.p), a.row_weights = static_cast<float*>(row_weights.p);
    args.rule = {criterion, criterion == Criterion::kTopK ? 0.3 : 0.02, nullptr, true};
    Buffer workspace(prune_attention_workspace(args, executor));
    prune_attention(kernels, args, workspace.p, executor);
    ++calls;
  }
  a.importance = nullptr;
  for (bool first_query_only : {false, true}) {
    Buffer queries(static_cast<size_t>(a.batch * width) * element_size(dtype)), first(static_cast<size_t>(a.batch * width) * element_size(dtype));
    if (first_query_only) a.q = queries.p, a.q_stride = width, a.context = first.p;
    a.first_query_only = first_query_only;
    Buffer workspace(attention_workspace(a, executor));
    attention(kernels, a, workspace.p, executor);
    ++calls;
  }
}

void check_attention_backward(const KernelTable& kernels, DType dtype, const std::vector<int64_t>& lengths, int64_t heads, int64_t head_dim,
                              const Executor& executor) {
  std::vector<int32_t> bounds{0};
  for (int64_t n : lengths) bounds.push_back(bounds.back() + static_cast<int32_t>(n));
  const int64_t total = bounds.back(), width = heads * head_dim, size = static_cast<int64_t>(element_size(dtype));
  Buffer qkv(total * 3 * width * size), grad_context(total * width * size), grad_importance(total * sizeof(float));
  Buffer grad_q(total * width * size), grad_k(total * width * size), grad_v(total * width * size);
  Buffer key_bias(total * sizeof(float)), row_weights(total * sizeof(float)), denominators(lengths.size() * sizeof(float));
  Buffer grad_key_bias(total * sizeof(float)), grad_row_weights(total * sizeof(float));
  char* base = static_cast<char*>(qkv.p);
  AttentionBackwardArgs a{};
  a.dtype = dtype;
  a.grad_context = grad_context.p;
  a.grad_importance = static_cast<float*>(grad_importance.p);
  a.q = base;
  a.k = base + width * size;
  a.v = base + 2 * width * size;
  a.q_stride = a.k_stride = a.v_stride = 3 * width;
  a.cu_seqlens = bounds.data();
  a.batch = static_cast<int64_t>(lengths.size());
  a.heads = heads;
  a.head_dim = head_dim;
  a.scale = 0.1f;
  a.grad_q = grad_q.p;
  a.grad_k = grad_k.p;
  a.grad_v = grad_v.p;
  a.grad_key_bias = static_cast<float*>(grad_key_bias.p);
  a.grad_row_weights = static_cast<float*>(grad_row_weights.p);
  for (bool optional : {false, true}) {
    a.denominators = optional ? static_cast<float*>(denominators.p) : nullptr;
    a.key_bias = optional ? static_cast<float*>(key_bias.p) : nullptr;
    a.row_weights = optional ? static_cast<float*>(row_weights.p) : nullptr;
    Buffer workspace(attention_backward_workspace(a, executor));
    attention_backward(kernels, a, workspace.p, executor);
    ++calls;
  }
}

void check_encoder(const KernelTable& kernels, DType dtype, const std::vector<int64_t>& lengths, int64_t hidden, const Executor& executor) {
  std::vector<int32_t> bounds{0};
  for (int64_t n : lengths) bounds.push_back(bounds.back() + static_cast<int32_t>(n));
  const int64_t total = bounds.back(), wide = 2 * hidden + 3, batch = static_cast<int64_t>(lengths.size()), places = total + 3;
  const size_t size = element_size(dtype);
  auto packed = [&](int64_t out, int64_t in) { return packed_weight_elements(dtype, out, in) * size; };
  Buffer qkv(packed(3 * hidden, hidden)), narrow(packed(hidden, hidden)), up(packed(wide, hidden)), down(packed(hidden, wide));
  Buffer vector(std::max(3 * hidden, wide) * size), x(total * hidden * size), fixed(total);
  std::vector<int32_t> token_idx;
  for (int64_t i = 0; i < total; ++i) token_idx.push_back(static_cast<int32_t>(i + (i > total / 2 ? 2 : 1)));
  const LayerNorm norm{vector.p, vector.p, 1e-5f};
  EncoderLayer layer{{qkv.p, vector.p, 3 * hidden}, {narrow.p, vector.p, hidden}, {up.p, vector.p, wide}, {down.p, vector.p, hidden}, norm, norm, false, 0};
  std::vector<EncoderLayer> layers(3, layer);
  for (Criterion criterion : {Criterion::kThreshold, Criterion::kTopK})
    for (PrunePosition position : {PrunePosition::kAfterAttention, PrunePosition::kBeforeLayer})
      for (Readout readout : {Readout::kAll, Readout::kFirst, Readout::kFirstOnly, Readout::kSurvivorMean})
        for (bool prunes : {false, true}) {
          layers[1].prunes = layers[2].prunes = prunes;
          layers[1].keep = layers[2].keep = criterion == Criterion::kTopK ? 0.6 : 0.02;
          const int64_t rows = readout == Readout::kAll || readout == Readout::kSurvivorMean ? places : batch;
          Buffer out(rows * hidden * size);
          EncoderArgs args{dtype, layers.data(), 3, hidden, hidden / 8, Activation::kGelu, 0.3f,
                           {criterion, 0, prunes ? static_cast<const uint8_t*>(fixed.p) : nullptr, true}, position, x.p, bounds.data(),
                           nullptr, criterion == Criterion::kThreshold, batch, readout, token_idx.data(), out.p, rows};
          Buffer workspace(encoder_workspace(args, executor));
          encoder(kernels, args, workspace.p, executor);
          ++calls;
        }
}

void check_linear(const KernelTable& kernels, DType dtype, int64_t rows, int64_t in, int64_t out, const Executor& executor) {
  const size_t size = element_size(dtype);
  Buffer x(rows * in * size), weight(out * in * size), bias(out * size), y(rows * out * size);
  Buffer packed(packed_weight_elements(dtype, out, in) * size);
  pack_weight(dtype, weight.p, in, out, in, packed.p, executor);
  for (Activation activation : {Activation::kNone, Activation::kGelu, Activation::kGeluTanh, Activation::kRelu}) {
    LinearArgs args{dtype, x.p, in, nullptr, rows, packed.p, bias.p, in, out, activation, y.p};
    Buffer workspace(linear_workspace(args, executor));
    linear(kernels, args, workspace.p, executor);
    ++calls;
  }
  Buffer norm(rows * in * size), scale(in * size);
  add_layer_norm(kernels, {dtype, x.p, x.p, nullptr, scale.p, scale.p, norm.p, rows, in, in, in, 1e-5f}, executor);
  ++calls;
}

}  // namespace

int main() {
  const Executor executor = openmp_executor(2);
  const std::vector<std::vector<int64_t>> batches{{}, {0}, {1}, {0, 1, 7, 16, 0, 33}, {63, 64, 65}, {130, 2}, {390}};
  for (const char* const* isa = compiled_isas(); *isa; ++isa) {
    if (!isa_supported(*isa)) continue;
    const KernelTable& kernels = kernels_for(*isa);
    for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
      for (const auto& lengths : batches)
        for (int64_t head_dim : {8, 24, 32, 40, 64, 104, 128, 256}) {
          check_attention(kernels, dtype, lengths, 2, head_dim, executor);
          check_attention_backward(kernels, dtype, lengths, 2, head_dim, executor);
        }
      for (const auto& lengths : batches)
        for (int64_t hidden : {8, 64, 72}) check_encoder(kernels, dtype, lengths, hidden, executor);
      for (int64_t rows : {0, 1, 5, 13, 97, 200})
        for (int64_t in : {1, 7, 33, 600})
          for (int64_t out : {1, 15, 64, 70, 129}) check_linear(kernels, dtype, rows, in, out, executor);
    }
  }
  std::printf("%d calls\n", calls);
  return 0;
}
