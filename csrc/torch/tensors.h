// What every op binding needs of torch: checks, allocation, threads. LibTorch stable ABI only, so that
// one binary serves torch 2.10 and newer.
//
// Checks throw std::invalid_argument, which torch hands to Python as a ValueError. They stand in front of every
// kernel, whoever calls: torch.ops directly, the public functions, an exported program.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdlib>
#include <initializer_list>
#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "tokprune/tokprune.h"

namespace tokprune::torch_binding {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

[[noreturn]] inline void fail(const std::string& message) { throw std::invalid_argument("tokprune: " + message); }

inline std::string shape_of(const Tensor& t) {
  std::string text = "(";
  for (int64_t i = 0; i < t.dim(); ++i) text += (i ? ", " : "") + std::to_string(t.size(i));
  return text + ")";
}

inline const char* type_name(ScalarType type) {
  switch (type) {
    case ScalarType::Float: return "float32";
    case ScalarType::BFloat16: return "bfloat16";
    case ScalarType::Int: return "int32";
    case ScalarType::Long: return "int64";
    case ScalarType::Bool: return "bool";
    case ScalarType::Byte: return "uint8";
    case ScalarType::Double: return "float64";
    case ScalarType::Half: return "float16";
    default: return "another dtype";
  }
}

// That the memory a tensor describes is there: its storage may have been resized since, and torch.frombuffer begins anywhere.
inline void check_memory(const char* name, const Tensor& t) {
  const int64_t size = static_cast<int64_t>(t.element_size());
  int64_t reach = 1, offset = 0, bytes = 0;
  for (int64_t i = 0; i < t.dim(); ++i) {
    if (t.size(i) == 0) return;
    reach += (t.size(i) - 1) * t.stride(i);
  }
  aoti_torch_get_storage_offset(t.get(), &offset);
  aoti_torch_get_storage_size(t.get(), &bytes);
  if ((offset + reach) * size > bytes)
    fail(std::string(name) + ": its storage has " + std::to_string(bytes) + " bytes, its shape needs " +
         std::to_string((offset + reach) * size) + ": the storage was resized under the tensor");
  if (reinterpret_cast<uintptr_t>(t.data_ptr()) % static_cast<uintptr_t>(size < 8 ? size : 8))
    fail(std::string(name) + ": its memory must be aligned to its elements; call .clone() first");
}

inline void check_cpu(const char* name, const Tensor& t) {
  if (!t.is_cpu()) fail(std::string(name) + ": must be on the CPU like the other tensors");
  check_memory(name, t);
}

inline void check_type(const char* name, const Tensor& t, ScalarType type) {
  check_cpu(name, t);
  if (t.scalar_type() != type)
    fail(std::string(name) + ": must be " + type_name(type) + ", got " + type_name(t.scalar_type()));
}

// Exact shape; -1 stands for any size.
inline void check_shape(const char* name, const Tensor& t, std::initializer_list<int64_t> shape) {
  bool same = t.dim() == static_cast<int64_t>(shape.size());
  std::string wanted = "(";
  int64_t i = 0;
  for (int64_t size : shape) {
    wanted += (i ? ", " : "") + (size < 0 ? std::string("any") : std::to_string(size));
    same = same && (size < 0 || t.size(i) == size);
    ++i;
  }
  if (!same) fail(std::string(name) + ": must have shape " + wanted + "), got " + shape_of(t));
}

inline void check_contiguous(const char* name, const Tensor& t) {
  if (!t.is_contiguous()) fail(std::string(name) + ": must be contiguous; call .contiguous() first");
}

inline void check_dense_rows(const char* name, const Tensor& t) {
  if (t.size(t.dim() - 1) > 1 && t.stride(t.dim() - 1) != 1)
    fail(std::string(name) + ": the last dimension must be contiguous; call .contiguous() first");
}

// Stride between rows, for tensors whose single row (or none, or empty ones) may carry any stride.
inline int64_t row_stride(const Tensor& t) { return t.size(0) > 1 && t.numel() ? t.stride(0) : t.numel(); }

inline DType float_type(const char* name, const Tensor& t) {
  check_cpu(name, t);
  if (t.scalar_type() == ScalarType::Float) return DType::kFloat32;
  if (t.scalar_type() == ScalarType::BFloat16) return DType::kBFloat16;
  fail(std::string(name) + ": must be float32 or bfloat16, got " + type_name(t.scalar_type()));
}

// Contiguous and uninitialised, without a look-up by operator name (aten::empty through the stable
// dispatcher costs half a microsecond more).
inline Tensor empty(const int64_t* sizes, size_t dims, ScalarType type) {
  constexpr size_t kMostDims = 16;
  if (dims > kMostDims) fail("tensors of more than 16 dimensions are not supported");
  int64_t strides[kMostDims];
  int64_t next = 1;
  for (size_t i = dims; i-- > 0;) {
    strides[i] = next;
    if (__builtin_mul_overflow(next, std::max<int64_t>(sizes[i], 1), &next)) fail("a result of more elements than int64 can count");
  }
  AtenTensorHandle handle = nullptr;
  const int32_t dtype = torch::stable::detail::to<int32_t>(torch::stable::detail::from(type));
  if (aoti_torch_empty_strided(static_cast<int64_t>(dims), sizes, strides, dtype, aoti_torch_device_type_cpu(), 0,
                               &handle) != 0)
    throw std::runtime_error("tokprune: out of memory");
  return Tensor(handle);
}

inline Tensor empty(std::initializer_list<int64_t> sizes, ScalarType type) {
  return empty(sizes.begin(), sizes.size(), type);
}

template <class T>
const T* data(const Tensor& t) {
  return static_cast<const T*>(t.data_ptr());
}

template <class T>
T* mutable_data(const Tensor& t) {
  return static_cast<T*>(t.data_ptr());
}

// torch's own thread pool, so that torch.set_num_threads is obeyed.
inline Executor torch_executor() {
  return {static_cast<int>(torch::stable::get_num_threads()), nullptr,
          [](void*, int workers, void (*fn)(void*, int), void* context) {
            torch::stable::parallel_for(0, workers, 1, [&](int64_t begin, int64_t end) {
              for (int64_t w = begin; w < end; ++w) fn(context, static_cast<int>(w));
            });
          }};
}

// Scratch of the calling thread, kept between calls: the steady state allocates nothing but results.
inline void* workspace(size_t bytes) {
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  thread_local std::unique_ptr<void, Free> memory;
  thread_local size_t capacity = 0;
  if (bytes > capacity) {
    memory.reset();
    capacity = 0;
    const size_t rounded = (bytes + 4095) / 4096 * 4096;
    memory.reset(std::aligned_alloc(64, rounded));
    if (!memory) throw std::runtime_error("tokprune: out of memory");
    capacity = rounded;
  }
  return memory.get();
}

// The entries of an int32 tensor (any,). A copy: another thread may write to the tensor between the check of what it holds
// and its use, and kernels follow indices without looking at them again.
inline std::vector<int32_t> check_index_tensor(const char* name, const Tensor& idx) {
  check_type(name, idx, ScalarType::Int);
  check_shape(name, idx, {-1});
  check_contiguous(name, idx);
  return std::vector<int32_t>(data<int32_t>(idx), data<int32_t>(idx) + idx.numel());
}

struct Sequences {
  std::vector<int32_t> bounds;  // (batch + 1,)
  int64_t batch() const { return static_cast<int64_t>(bounds.size()) - 1; }
};

// cu_seqlens as int32 (batch + 1,), checked against the number of tokens.
inline Sequences check_sequences(const Tensor& cu_seqlens, int64_t total, int64_t max_seqlen) {
  Sequences sequences{check_index_tensor("cu_seqlens", cu_seqlens)};
  if (sequences.bounds.empty()) fail("cu_seqlens: must have batch + 1 entries, got none");
  check_cu_seqlens(sequences.bounds.data(), sequences.batch(), total, max_seqlen);
  return sequences;
}

inline Activation activation_of(int64_t code) {
  if (code < 0 || code > 3) fail("activation: must be 0 (none), 1 (gelu), 2 (gelu_tanh) or 3 (relu)");
  return static_cast<Activation>(code);
}

inline void check_head_dim(const char* name, int64_t head_dim) {
  if (head_dim < 8 || head_dim > 256 || head_dim % 8)
    fail(std::string(name) + ": head_dim must be a multiple of 8 up to 256, got " + std::to_string(head_dim));
}

// The numbers of an optional float32 tensor of shape (size,); null without it.
inline const float* check_floats(const char* name, const std::optional<Tensor>& t, int64_t size) {
  if (!t) return nullptr;
  check_type(name, *t, ScalarType::Float);
  check_shape(name, *t, {size});
  check_contiguous(name, *t);
  return data<float>(*t);
}

inline const float* check_denominator_tensor(const std::optional<Tensor>& denominators, int64_t batch) {
  const float* entries = check_floats("denominators", denominators, batch);
  if (entries) check_denominators(entries, batch);
  return entries;
}

inline const float* check_key_bias_tensor(const std::optional<Tensor>& key_bias, int64_t total) {
  const float* entries = check_floats("key_bias", key_bias, total);
  if (entries) check_key_bias(entries, total);
  return entries;
}

inline const float* check_row_weight_tensor(const std::optional<Tensor>& row_weights, int64_t total) {
  const float* entries = check_floats("row_weights", row_weights, total);
  if (entries) check_row_weights(entries, total);
  return entries;
}

// What pack_weight makes of a (out_features, in_features) weight.
inline void check_packed_weight(const char* name, const Tensor& weight, ScalarType type, int64_t in_features,
                                int64_t out_features) {
  const int64_t panels = out_features / kPanelColumns + (out_features % kPanelColumns != 0);  // any number, and no overflow
  check_type(name, weight, type);
  if (type == ScalarType::Float)
    check_shape(name, weight, {panels, in_features, kPanelColumns});
  else
    check_shape(name, weight, {panels, (in_features + 1) / 2, kPanelColumns, 2});
  check_contiguous(name, weight);
}

inline const uint8_t* check_protected(const std::optional<Tensor>& rows, int64_t total) {
  if (!rows) return nullptr;
  check_type("protected", *rows, ScalarType::Bool);
  check_shape("protected", *rows, {total});
  check_contiguous("protected", *rows);
  return data<uint8_t>(*rows);
}

// (T, heads, head_dim) with heads side by side; any row stride.
inline void check_heads(const char* name, const Tensor& t, const Tensor& q) {
  if (t.scalar_type() != q.scalar_type()) fail(std::string(name) + ": must have the dtype of q");
  check_cpu(name, t);
  check_shape(name, t, {q.size(0), q.size(1), q.size(2)});
  if (t.numel() == 0) return;
  const bool dense = (t.size(2) == 1 || t.stride(2) == 1) && (t.size(1) == 1 || t.stride(1) == t.size(2));
  if (!dense)
    fail(std::string(name) + ": heads must lie side by side (strides (any, head_dim, 1)); call .contiguous() first");
}

// What every attention op asks of q, k and v.
inline void check_head_tensors(const Tensor& q, const Tensor& k, const Tensor& v) {
  if (q.dim() != 3) fail("q: must have shape (tokens, heads, head_dim), got " + shape_of(q));
  if (q.size(1) < 1) fail("q: must have at least one head, got " + shape_of(q));
  check_head_dim("q", q.size(2));
  if (q.size(0) > std::numeric_limits<int32_t>::max()) fail("q: more tokens than int32 can count");
  check_heads("q", q, q);
  check_heads("k", k, q);
  check_heads("v", v, q);
}

}  // namespace tokprune::torch_binding
