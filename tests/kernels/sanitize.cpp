// Every kernel on buffers of exactly the documented size, for the sanitizers: an element read or written outside them, a race
// between the workers of a call or between callers ends the program. Prints how many calls were made.
//
//   sanitize fixed                        shapes that are known to be awkward
//   sanitize random SEED ROUNDS CALLERS   ragged random ones, ROUNDS by each of CALLERS threads at once
#include <tokprune/openmp.h>
#include <tokprune/tokprune.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

using namespace tokprune;

namespace {

// Exactly `bytes` bytes, 64-byte aligned, filled with small bfloat16 / float32 numbers; null for none, as torch has it.
struct Buffer {
  explicit Buffer(size_t bytes) : p(nullptr) {
    if (!bytes) return;
    if (posix_memalign(&p, 64, bytes)) std::abort();
    std::memset(p, 0x3c, bytes);
  }
  ~Buffer() { std::free(p); }
  Buffer(const Buffer&) = delete;
  void* p;
};

std::atomic<int> calls{0};

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

void check_encoder(const KernelTable& kernels, DType dtype, const std::vector<int64_t>& lengths, int64_t hidden, int64_t wide,
                   const Executor& executor) {
  std::vector<int32_t> bounds{0};
  for (int64_t n : lengths) bounds.push_back(bounds.back() + static_cast<int32_t>(n));
  const int64_t total = bounds.back(), batch = static_cast<int64_t>(lengths.size()), places = total + 3;
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

void check_rows(const std::vector<int64_t>& lengths, int64_t row_bytes, const Executor& executor) {
  const int64_t batch = static_cast<int64_t>(lengths.size());
  int64_t length = 0;
  for (int64_t n : lengths) length = std::max(length, n + 1);
  std::vector<uint8_t> mask(static_cast<size_t>(batch * length));
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t l = 0; l < lengths[b]; ++l) mask[static_cast<size_t>(b * length + l)] = 1;
  Buffer bounds((batch + 1) * sizeof(int32_t));
  const int64_t total = count_live(mask.data(), MaskType::kByte, batch, length, static_cast<int32_t*>(bounds.p)), places = batch * length;
  Buffer token_idx(total * sizeof(int32_t)), position(total * sizeof(int32_t));
  int32_t* idx = static_cast<int32_t*>(token_idx.p);
  live_tokens(mask.data(), MaskType::kByte, batch, length, idx, static_cast<int32_t*>(position.p));
  Buffer padded(places * row_bytes), packed(total * row_bytes);
  const RowGather gather{padded.p, packed.p, row_bytes};
  gather_rows(&gather, 1, idx, total, executor);
  unpack_rows(packed.p, idx, total, row_bytes, padded.p, places, executor);
  std::vector<int32_t> keep;
  for (int64_t i = 0; i < total; i += 3) keep.push_back(static_cast<int32_t>(i));
  store_exits(packed.p, idx, total, keep.data(), static_cast<int64_t>(keep.size()), row_bytes, padded.p, executor);
  calls += 5;
}

// Without OpenMP, whose threads the thread sanitizer does not know.
Executor thread_executor(int workers) {
  return {workers, nullptr, [](void*, int workers, void (*fn)(void*, int), void* context) {
            std::vector<std::thread> others;
            for (int w = 1; w < workers; ++w) others.emplace_back(fn, context, w);
            fn(context, 0);
            for (std::thread& other : others) other.join();
          }};
}

void check_random(uint64_t seed, const Executor& executor) {
  std::mt19937_64 random(seed);
  auto below = [&](int64_t n) { return static_cast<int64_t>(random() % static_cast<uint64_t>(n)); };
  std::vector<const char*> isas;
  for (const char* const* isa = compiled_isas(); *isa; ++isa)
    if (isa_supported(*isa)) isas.push_back(*isa);
  const KernelTable& kernels = kernels_for(isas[static_cast<size_t>(below(static_cast<int64_t>(isas.size())))]);
  const DType dtype = below(2) ? DType::kFloat32 : DType::kBFloat16;
  std::vector<int64_t> lengths(static_cast<size_t>(below(6)));
  for (int64_t& n : lengths) n = below(4) ? below(40) : below(260);
  check_attention(kernels, dtype, lengths, 1 + below(4), 8 * (1 + below(32)), executor);
  check_attention_backward(kernels, dtype, lengths, 1 + below(4), 8 * (1 + below(32)), executor);
  check_encoder(kernels, dtype, lengths, 8 * (1 + below(12)), below(150), executor);
  check_linear(kernels, dtype, below(300), below(900), below(200), executor);
  check_rows(lengths, below(70), executor);
}

void check_many(uint64_t seed, int rounds, int callers) {
  std::vector<std::thread> threads;
  for (int caller = 0; caller < callers; ++caller)
    threads.emplace_back([=] {
      for (int round = 0; round < rounds; ++round) {
        const uint64_t own = seed + static_cast<uint64_t>(round) * static_cast<uint64_t>(callers) + static_cast<uint64_t>(caller);
        std::fprintf(stderr, "seed %llu\n", static_cast<unsigned long long>(own));  // the last ones are those to run again
        check_random(own, thread_executor(1 + caller % 3));
      }
    });
  for (std::thread& thread : threads) thread.join();
}

void check_fixed(const Executor& executor) {
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
        for (int64_t hidden : {8, 64, 72}) check_encoder(kernels, dtype, lengths, hidden, hidden == 72 ? 0 : 2 * hidden + 3, executor);
      for (const auto& lengths : batches)
        for (int64_t row_bytes : {0, 1, 96}) check_rows(lengths, row_bytes, executor);
      for (int64_t rows : {0, 1, 5, 13, 97, 200})
        for (int64_t in : {0, 1, 7, 33, 600})
          for (int64_t out : {1, 15, 64, 70, 129}) check_linear(kernels, dtype, rows, in, out, executor);
    }
  }
}

}  // namespace

int main(int count, char** arguments) {
  if (count == 5 && std::string(arguments[1]) == "random")
    check_many(std::strtoull(arguments[2], nullptr, 10), std::atoi(arguments[3]), std::atoi(arguments[4]));
  else if (count == 2 && std::string(arguments[1]) == "fixed")
    check_fixed(openmp_executor(2));
  else
    return std::fprintf(stderr, "usage: sanitize fixed | random SEED ROUNDS CALLERS\n"), 2;
  std::printf("%d calls\n", calls.load());
  return 0;
}
