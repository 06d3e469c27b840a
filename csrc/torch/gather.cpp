// compact, compact_many, pack_index, pack, unpack, store_exits_.
#include "ops.h"

#include <limits>

namespace tokprune::torch_binding {
namespace {

int64_t row_bytes(const Tensor& t) {
  return t.size(0) ? t.numel() / t.size(0) * static_cast<int64_t>(t.element_size())
                   : static_cast<int64_t>(t.element_size());
}

// Like x, with `lead` in place of its first `dropped` dimensions.
Tensor empty_like(const Tensor& x, std::vector<int64_t> lead, int64_t dropped) {
  for (int64_t i = dropped; i < x.dim(); ++i) lead.push_back(x.size(i));
  return empty(lead.data(), lead.size(), x.scalar_type());
}

void check_places(const char* name, int64_t batch, int64_t length) {
  int64_t places;
  if (__builtin_mul_overflow(batch, length, &places) || places > std::numeric_limits<int32_t>::max())
    fail(std::string(name) + ": more positions than int32 can count");
}

// Both contiguous.
void check_apart(const char* name, const Tensor& written, const char* other_name, const Tensor& read) {
  auto begin = [](const Tensor& t) { return reinterpret_cast<uintptr_t>(t.data_ptr()); };
  auto end = [&](const Tensor& t) { return begin(t) + static_cast<uintptr_t>(t.numel()) * t.element_size(); };
  if (begin(written) < end(read) && begin(read) < end(written))
    fail(std::string(name) + ": must not share memory with " + other_name);
}

MaskType mask_type(const Tensor& mask) {
  check_cpu("attention_mask", mask);
  switch (mask.scalar_type()) {
    case ScalarType::Bool:
    case ScalarType::Byte: return MaskType::kByte;
    case ScalarType::Int: return MaskType::kInt32;
    case ScalarType::Long: return MaskType::kInt64;
    case ScalarType::Float: return MaskType::kFloat32;
    default:
      fail(std::string("attention_mask: must be bool, uint8, int32, int64 or float32, got ") + type_name(mask.scalar_type()));
  }
}

}  // namespace

std::vector<Tensor> compact_many(std::vector<Tensor> xs, Tensor keep_idx, int64_t total) {
  const std::vector<int32_t> idx = check_index_tensor("keep_idx", keep_idx);
  if (total < 0 || total > keep_idx.size(0))
    fail("total: must be between 0 and the " + std::to_string(keep_idx.size(0)) + " entries of keep_idx, got " + std::to_string(total));
  std::vector<RowGather> gathers;
  std::vector<Tensor> out;
  int64_t checked_rows = -1;
  for (const Tensor& x : xs) {
    check_cpu("x", x);
    if (x.dim() < 1) fail("x: must have at least one dimension");
    check_contiguous("x", x);
    if (checked_rows < 0 || x.size(0) < checked_rows) {
      checked_rows = x.size(0);
      check_indices("keep_idx", idx.data(), total, checked_rows, false);
    }
    out.push_back(empty_like(x, {total}, 1));
    gathers.push_back({x.data_ptr(), out.back().data_ptr(), row_bytes(x)});
  }
  gather_rows(gathers.data(), static_cast<int64_t>(gathers.size()), idx.data(), total, torch_executor());
  return out;
}

Tensor compact(Tensor x, Tensor keep_idx, int64_t total) { return compact_many({x}, keep_idx, total)[0]; }

std::tuple<Tensor, Tensor, Tensor> pack_index(Tensor attention_mask) {
  const MaskType type = mask_type(attention_mask);
  check_shape("attention_mask", attention_mask, {-1, -1});
  check_contiguous("attention_mask", attention_mask);
  const int64_t batch = attention_mask.size(0), length = attention_mask.size(1);
  check_places("attention_mask", batch, length);
  Tensor cu_seqlens = empty({batch + 1}, ScalarType::Int);
  const int64_t total = count_live(attention_mask.data_ptr(), type, batch, length, mutable_data<int32_t>(cu_seqlens));
  Tensor token_idx = empty({total}, ScalarType::Int), position = empty({total}, ScalarType::Int);
  live_tokens(attention_mask.data_ptr(), type, batch, length, mutable_data<int32_t>(token_idx),
              mutable_data<int32_t>(position));
  return {token_idx, cu_seqlens, position};
}

std::tuple<Tensor, Tensor, Tensor> pack(Tensor x, Tensor attention_mask) {
  auto [token_idx, cu_seqlens, position] = pack_index(attention_mask);
  check_cpu("x", x);
  if (x.dim() < 2 || x.size(0) != attention_mask.size(0) || x.size(1) != attention_mask.size(1))
    fail("x: must begin with the shape of attention_mask, " + shape_of(attention_mask) + ", got " + shape_of(x));
  check_contiguous("x", x);
  const int64_t places = x.size(0) * x.size(1), count = token_idx.size(0);
  Tensor packed = empty_like(x, {count}, 2);
  const RowGather gather{x.data_ptr(), packed.data_ptr(),
                         places ? x.numel() / places * static_cast<int64_t>(x.element_size()) : 1};
  gather_rows(&gather, 1, data<int32_t>(token_idx), count, torch_executor());
  return {packed, cu_seqlens, token_idx};
}

Tensor unpack(Tensor packed, Tensor token_idx, int64_t batch, int64_t length) {
  check_cpu("packed", packed);
  if (packed.dim() < 1) fail("packed: must have at least one dimension");
  check_contiguous("packed", packed);
  if (batch < 0 || length < 0) fail("batch, length: must not be negative");
  check_places("batch, length", batch, length);
  const std::vector<int32_t> idx = check_index_tensor("token_idx", token_idx);
  check_shape("token_idx", token_idx, {packed.size(0)});
  check_indices("token_idx", idx.data(), packed.size(0), batch * length, true);
  Tensor out = empty_like(packed, {batch, length}, 1);
  const int64_t rows = batch * length;
  const int64_t bytes = rows ? out.numel() / rows * static_cast<int64_t>(out.element_size()) : 1;
  unpack_rows(packed.data_ptr(), idx.data(), packed.size(0), bytes, out.data_ptr(), rows, torch_executor());
  return out;
}

void store_exits_(Tensor out, Tensor x, Tensor token_idx, Tensor keep_idx) {
  check_cpu("x", x);
  check_cpu("out", out);
  check_shape("x", x, {-1, -1});
  check_shape("out", out, {-1, x.size(1)});
  if (out.scalar_type() != x.scalar_type()) fail("out: must have the dtype of x");
  check_contiguous("x", x);
  check_contiguous("out", out);
  check_apart("out", out, "x", x);
  const std::vector<int32_t> idx = check_index_tensor("token_idx", token_idx);
  check_shape("token_idx", token_idx, {x.size(0)});
  const std::vector<int32_t> keep = check_index_tensor("keep_idx", keep_idx);
  check_indices("token_idx", idx.data(), x.size(0), out.size(0), true);
  check_indices("keep_idx", keep.data(), keep_idx.size(0), x.size(0), true);
  store_exits(x.data_ptr(), idx.data(), x.size(0), keep.data(), keep_idx.size(0),
              x.size(1) * static_cast<int64_t>(x.element_size()), out.data_ptr(), torch_executor());
}

}  // namespace tokprune::torch_binding
