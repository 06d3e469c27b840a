// padded_encoder: pack, encoder, restore, with no size in between that the caller sees.
#include <algorithm>

#include "ops.h"

namespace tokprune::torch_binding {
namespace {

// Codes of the op's `denominator`; a positive one is the number itself.
constexpr int64_t kKept = 0, kSqrtKept = -1, kInitial = -2;

// t's memory, which is contiguous, with other sizes.
Tensor reshaped(const Tensor& t, std::initializer_list<int64_t> sizes) {
  int64_t strides[3], next = 1;
  for (size_t i = sizes.size(); i-- > 0; next *= sizes.begin()[i]) strides[i] = next;
  AtenTensorHandle handle = nullptr;
  if (aoti_torch__reinterpret_tensor(t.get(), static_cast<int64_t>(sizes.size()), sizes.begin(), strides, 0, &handle) != 0)
    throw std::runtime_error("tokprune: out of memory");
  return Tensor(handle);
}

// (batch,) float32, or nothing where a layer's own rows say it.
std::optional<Tensor> denominators_of(int64_t denominator, const int32_t* cu_seqlens, int64_t batch) {
  if (denominator < kInitial) fail("denominator: must be 0 (kept), -1 (sqrt_kept), -2 (initial) or positive, got " + std::to_string(denominator));
  if (denominator == kKept || denominator == kSqrtKept) return std::nullopt;
  Tensor denominators = empty({batch}, ScalarType::Float);
  float* entries = mutable_data<float>(denominators);
  for (int64_t b = 0; b < batch; ++b)  // an empty text has no scores, but its number must be positive
    entries[b] = static_cast<float>(denominator == kInitial ? std::max<int64_t>(cu_seqlens[b + 1] - cu_seqlens[b], 1) : denominator);
  return denominators;
}

}  // namespace

Tensor padded_encoder(Tensor x, Tensor attention_mask, std::vector<Tensor> weights, std::vector<double> eps, int64_t heads,
                      int64_t activation, double scale, std::vector<double> keep, bool topk, bool before_layer,
                      int64_t denominator, std::optional<Tensor> protected_places, bool protect_first, int64_t readout,
                      bool count_first) {
  check_cpu("x", x);
  if (x.dim() != 3) fail("x: must have shape (batch, length, hidden), got " + shape_of(x));
  const int64_t batch = x.size(0), length = x.size(1), hidden = x.size(2), places = batch * length;
  auto [rows, cu_seqlens, token_idx] = pack(x, attention_mask);
  const int32_t* bounds = data<int32_t>(cu_seqlens);
  int64_t longest = 0;
  for (int64_t b = 0; b < batch; ++b) longest = std::max<int64_t>(longest, bounds[b + 1] - bounds[b]);
  std::optional<Tensor> protected_rows;
  if (protected_places) {
    check_type("protected", *protected_places, ScalarType::Bool);
    check_shape("protected", *protected_places, {batch, length});
    check_contiguous("protected", *protected_places);
    protected_rows = compact(reshaped(*protected_places, {places}), token_idx, token_idx.size(0));
  }
  const bool restores = readout == 0 || readout == 3;  // all, survivor_mean
  Tensor out = encoder(rows, cu_seqlens, longest, std::move(weights), std::move(eps), heads, activation, scale, std::move(keep), topk,
                       before_layer, denominators_of(denominator, bounds, batch), protected_rows, protect_first, readout,
                       restores ? std::optional<Tensor>(token_idx) : std::nullopt, places, denominator == kSqrtKept, count_first);
  return restores ? reshaped(out, {batch, length, hidden}) : out;
}

}  // namespace tokprune::torch_binding
