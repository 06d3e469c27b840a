#include "tokprune/survivors.h"

#include <cstring>
#include <vector>

#include "parallel.h"

namespace tokprune {
namespace {

float load(const float* p) { return *p; }
void store(float value, float* p) { *p = value; }

// bfloat16: the upper half of a float32, rounded to nearest even.
float load(const uint16_t* p) {
  const uint32_t bits = static_cast<uint32_t>(*p) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
void store(float value, uint16_t* p) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  *p = static_cast<uint16_t>(nan ? (bits >> 16) | 0x40u : (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

template <class T>
void store_sequence(const SurvivorMeanArgs& args, int64_t b, std::vector<float>& sums, std::vector<T>& mean) {
  const int64_t width = args.width, kept_begin = args.kept_cu_seqlens[b], kept_end = args.kept_cu_seqlens[b + 1];
  const T* x = static_cast<const T*>(args.x);
  T* out = static_cast<T*>(args.out);
  const size_t row_bytes = static_cast<size_t>(width) * sizeof(T);
  if (kept_end - kept_begin < args.cu_seqlens[b + 1] - args.cu_seqlens[b]) {
    sums.assign(static_cast<size_t>(width), 0.0f);
    for (int64_t i = kept_begin; i < kept_end; ++i)
      for (int64_t c = 0; c < width; ++c) sums[static_cast<size_t>(c)] += load(x + i * width + c);
    mean.resize(static_cast<size_t>(width));
    const float count = static_cast<float>(kept_end > kept_begin ? kept_end - kept_begin : 1);
    for (int64_t c = 0; c < width; ++c) store(sums[static_cast<size_t>(c)] / count, &mean[static_cast<size_t>(c)]);
  }
  int64_t kept = kept_begin;
  for (int64_t i = args.cu_seqlens[b]; i < args.cu_seqlens[b + 1]; ++i) {
    const bool survives = kept < kept_end && args.kept_token_idx[kept] == args.token_idx[i];
    std::memcpy(out + args.token_idx[i] * width, survives ? x + kept * width : mean.data(), row_bytes);
    kept += survives;
  }
}

template <class T>
void store_all(const SurvivorMeanArgs& args, const Executor& executor) {
  parallel_tasks(executor, args.batch, 1, [&](int64_t b, int) {
    thread_local std::vector<float> sums;
    thread_local std::vector<T> mean;
    store_sequence<T>(args, b, sums, mean);
  });
}

}  // namespace

void store_survivor_means(const SurvivorMeanArgs& args, const Executor& executor) {
  if (args.width == 0) return;
  args.dtype == DType::kFloat32 ? store_all<float>(args, executor) : store_all<uint16_t>(args, executor);
}

}  // namespace tokprune
