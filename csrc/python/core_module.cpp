// tokprune_kernels._core: the CPU kernels for numpy users, without torch, with a choice of ISA.
//
// Arrays are float32, or uint16 holding bfloat16 bits. Every function takes isa=None (the active one)
// and threads=1, and returns new arrays.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "tokprune/openmp.h"
#include "tokprune/tokprune.h"

namespace py = pybind11;
using namespace tokprune;

namespace {

// Aligned as well: numpy makes arrays over any byte of a buffer.
constexpr int kDense = py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
using Ints = py::array_t<int32_t, kDense>;
using Floats = py::array_t<float, kDense>;
using Bytes = py::array_t<bool, py::array::c_style>;

DType dtype_of(const char* name, const py::array& a) {
  if (py::isinstance<py::array_t<float>>(a)) return DType::kFloat32;
  if (py::isinstance<py::array_t<uint16_t>>(a)) return DType::kBFloat16;
  throw py::type_error(std::string(name) + ": must be float32 or uint16 (bfloat16 bits), got " +
                       py::str(a.dtype()).cast<std::string>());
}

py::array dense(const py::array& a) {
  py::array copy = py::array::ensure(a, kDense);
  if (!copy) throw std::bad_alloc();
  return copy;
}

// The entries of an int32 array. A copy: another thread may write to the array between the check of what it holds and its use.
std::vector<int32_t> indices(const char* name, const Ints& a) {
  if (a.ndim() != 1) throw py::value_error(std::string(name) + ": must have one dimension");
  return std::vector<int32_t>(a.data(), a.data() + a.size());
}

// cu_seqlens (batch + 1,), checked.
std::vector<int32_t> sequence_bounds(const Ints& cu_seqlens, int64_t total) {
  std::vector<int32_t> bounds = indices("cu_seqlens", cu_seqlens);
  if (bounds.empty()) throw py::value_error("cu_seqlens: must have shape (batch + 1,)");
  check_cu_seqlens(bounds.data(), static_cast<int64_t>(bounds.size()) - 1, total, total);
  return bounds;
}

py::array contiguous(const char* name, const py::array& a, DType dtype, std::vector<py::ssize_t> shape) {
  if (dtype_of(name, a) != dtype) throw py::type_error(std::string(name) + ": must have the dtype of the first array");
  bool same = a.ndim() == static_cast<py::ssize_t>(shape.size());
  for (size_t i = 0; same && i < shape.size(); ++i) same = shape[i] < 0 || a.shape(static_cast<py::ssize_t>(i)) == shape[i];
  if (!same) {
    std::string wanted;
    for (py::ssize_t size : shape) wanted += (wanted.empty() ? "" : ", ") + (size < 0 ? std::string("any") : std::to_string(size));
    throw py::value_error(std::string(name) + ": must have shape (" + wanted + ")");
  }
  return dense(a);
}

py::array empty(DType dtype, std::vector<py::ssize_t> shape) {
  return dtype == DType::kFloat32 ? py::array(py::array_t<float>(shape)) : py::array(py::array_t<uint16_t>(shape));
}

const KernelTable& kernels_of(const std::optional<std::string>& isa) {
  return isa ? kernels_for(isa->c_str()) : active_kernels();
}

// More threads than cores are no use, but no harm either, up to where OpenMP cannot start them and ends the process.
constexpr int kThreadsPerCore = 4;

Executor executor_of(int threads) {
  const int cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  if (threads < 1 || threads > kThreadsPerCore * cores)
    throw py::value_error("threads: must be from 1 to " + std::to_string(kThreadsPerCore * cores) + ", " + std::to_string(kThreadsPerCore) +
                          " for each of the " + std::to_string(cores) + " cores that this process may use, got " + std::to_string(threads));
  return openmp_executor(threads);
}

class AlignedMemory {
 public:
  explicit AlignedMemory(size_t bytes) : p_(std::aligned_alloc(64, (bytes + 63) / 64 * 64 + 64)) {
    if (!p_) throw std::bad_alloc();
  }
  ~AlignedMemory() { std::free(p_); }
  AlignedMemory(const AlignedMemory&) = delete;
  void* get() const { return p_; }

 private:
  void* p_;
};

// The numbers of an optional array of shape (size,), checked; null without it.
const float* entries(const char* name, const std::optional<Floats>& array, int64_t size, const char* size_name,
                     void (*check)(const float*, int64_t)) {
  if (!array) return nullptr;
  if (array->ndim() != 1 || array->size() != size)
    throw py::value_error(std::string(name) + ": must have shape (" + size_name + ",), (" + std::to_string(size) + ",) here");
  check(array->data(), size);
  return array->data();
}

py::tuple attn_importance(const py::array& q, const py::array& k, const py::array& v, const Ints& cu_seqlens,
                          double scale, const std::optional<Floats>& denominators, const std::optional<Floats>& key_bias,
                          const std::optional<Floats>& row_weights, bool importance,
                          const std::optional<std::string>& isa, int threads) {
  const DType dtype = dtype_of("q", q);
  const py::array qc = contiguous("q", q, dtype, {-1, -1, -1});
  const std::vector<py::ssize_t> shape{q.shape(0), q.shape(1), q.shape(2)};
  const py::array kc = contiguous("k", k, dtype, shape), vc = contiguous("v", v, dtype, shape);
  if (shape[1] < 1 || shape[2] < 8 || shape[2] > 256 || shape[2] % 8)
    throw py::value_error("q: must have heads and a head_dim that is a multiple of 8 up to 256");
  const std::vector<int32_t> bounds = sequence_bounds(cu_seqlens, shape[0]);
  if (!std::isfinite(scale)) throw py::value_error("scale: must be finite");
  AttentionArgs args{};
  args.dtype = dtype;
  args.batch = static_cast<int64_t>(bounds.size()) - 1;
  args.cu_seqlens = bounds.data();
  args.denominators = entries("denominators", denominators, args.batch, "batch", check_denominators);
  args.key_bias = entries("key_bias", key_bias, shape[0], "tokens", check_key_bias);
  args.row_weights = entries("row_weights", row_weights, shape[0], "tokens", check_row_weights);
  py::array context = empty(dtype, shape);
  py::array_t<float> scores(shape[0]);
  args.q = qc.data();
  args.k = kc.data();
  args.v = vc.data();
  args.q_stride = args.k_stride = args.v_stride = shape[1] * shape[2];
  args.context = context.mutable_data();
  args.importance = importance ? scores.mutable_data() : nullptr;
  args.heads = shape[1];
  args.head_dim = shape[2];
  args.scale = static_cast<float>(scale);
  const KernelTable& kernels = kernels_of(isa);
  const Executor executor = executor_of(threads);
  {
    py::gil_scoped_release release;
    AlignedMemory memory(attention_workspace(args, executor));
    attention(kernels, args, memory.get(), executor);
  }
  return py::make_tuple(context, importance ? py::object(scores) : py::none());
}

py::tuple keep_tokens_of(const Floats& importance, const Ints& cu_seqlens, Criterion criterion, double value,
                         const std::optional<Bytes>& protected_rows, bool protect_first, bool count_first) {
  if (importance.ndim() != 1) throw py::value_error("importance: must have shape (tokens,)");
  const int64_t total = importance.size();
  const std::vector<int32_t> bounds = sequence_bounds(cu_seqlens, total);
  const int64_t batch = static_cast<int64_t>(bounds.size()) - 1;
  if (protected_rows && (protected_rows->ndim() != 1 || protected_rows->size() != total))
    throw py::value_error("protected: must have shape (tokens,)");
  const KeepRule rule{criterion, value,
                      protected_rows ? reinterpret_cast<const uint8_t*>(protected_rows->data()) : nullptr, protect_first, count_first};
  check_keep_rule(rule);
  Ints keep_idx(total), new_bounds(batch + 1);
  const int64_t kept =
      keep_tokens(importance.data(), bounds.data(), batch, rule, keep_idx.mutable_data(), new_bounds.mutable_data());
  return py::make_tuple(keep_idx[py::slice(0, kept, 1)], new_bounds);
}

py::array compact(const py::array& x, const Ints& keep_idx, int threads) {
  if (x.ndim() < 1) throw py::value_error("x: must have at least one dimension");
  if (x.dtype().attr("hasobject").cast<bool>()) throw py::type_error("x: rows of Python objects cannot be moved as bytes");
  const py::array source = dense(x);
  const std::vector<int32_t> idx = indices("keep_idx", keep_idx);
  const int64_t count = static_cast<int64_t>(idx.size());
  std::vector<py::ssize_t> shape(source.shape(), source.shape() + source.ndim());
  check_indices("keep_idx", idx.data(), count, shape[0], false);
  const py::ssize_t row = shape[0] ? source.nbytes() / shape[0] : source.itemsize();
  shape[0] = count;
  py::array out(source.dtype(), shape);
  const RowGather gather{source.data(), out.mutable_data(), row};
  gather_rows(&gather, 1, idx.data(), count, executor_of(threads));
  return out;
}

py::array add_layer_norm_of(const py::array& x, const py::array& residual, const py::array& weight,
                            const py::array& bias, double eps, const std::optional<std::string>& isa, int threads) {
  const DType dtype = dtype_of("x", x);
  const py::array xc = contiguous("x", x, dtype, {-1, -1});
  const py::ssize_t rows = x.shape(0), width = x.shape(1);
  if (width < 1 || width > std::numeric_limits<int32_t>::max()) throw py::value_error("x: must have at least one column, at most 2**31 - 1");
  check_eps(eps);
  const py::array rc = contiguous("residual", residual, dtype, {rows, width});
  const py::array wc = contiguous("weight", weight, dtype, {width}), bc = contiguous("bias", bias, dtype, {width});
  py::array out = empty(dtype, {rows, width});
  add_layer_norm(kernels_of(isa),
                 {dtype, xc.data(), rc.data(), nullptr, wc.data(), bc.data(), out.mutable_data(), rows, width, width, width,
                  static_cast<float>(eps)},
                 executor_of(threads));
  return out;
}

py::array linear_of(const py::array& x, const py::array& weight, const std::optional<py::array>& bias, int activation,
                    const std::optional<Ints>& rows, const std::optional<std::string>& isa, int threads) {
  const DType dtype = dtype_of("x", x);
  const py::array xc = contiguous("x", x, dtype, {-1, -1});
  const py::array wc = contiguous("weight", weight, dtype, {-1, x.shape(1)});
  const py::ssize_t k = x.shape(1), n = weight.shape(0);
  if (activation < 0 || activation > 3) throw py::value_error("activation: must be 0 (none), 1 (gelu), 2 (gelu_tanh) or 3 (relu)");
  const py::array bc = bias ? contiguous("bias", *bias, dtype, {n}) : py::array();
  const std::vector<int32_t> idx = rows ? indices("rows", *rows) : std::vector<int32_t>();
  const py::ssize_t count = rows ? static_cast<py::ssize_t>(idx.size()) : x.shape(0);
  if (rows) check_indices("rows", idx.data(), count, x.shape(0), false);
  const Executor executor = executor_of(threads);
  AlignedMemory packed(static_cast<size_t>(packed_weight_elements(dtype, n, k)) * element_size(dtype));
  pack_weight(dtype, wc.data(), k, n, k, packed.get(), executor);
  py::array out = empty(dtype, {count, n});
  const LinearArgs args{dtype, xc.data(), k, rows ? idx.data() : nullptr, count, packed.get(), bias ? bc.data() : nullptr,
                        k, n, static_cast<Activation>(activation), out.mutable_data()};
  AlignedMemory memory(linear_workspace(args, executor));
  linear(kernels_of(isa), args, memory.get(), executor);
  return out;
}

}  // namespace

PYBIND11_MODULE(_core, m) {
  m.doc() = "CPU kernels of tokprune-kernels for numpy arrays (float32, or uint16 holding bfloat16 bits); no torch.";
  m.def("versions", [] {
    py::dict d;
    d["tokprune_kernels"] = TOKPRUNE_VERSION;
    d["compiler"] = TOKPRUNE_COMPILER;
    d["pybind11"] = std::to_string(PYBIND11_VERSION_MAJOR) + "." + std::to_string(PYBIND11_VERSION_MINOR);
    return d;
  }, "Version of the package, compiler and pybind11 that this module was built with.");
  m.def("cpu_features", [] {
    py::dict d;
    for (const CpuFeature* f = cpu_features(); f->name; ++f) d[f->name] = f->present;
    return d;
  }, "CPU features that the choice of ISA looks at, and whether this machine has them.");
  m.def("compiled_isas", [] {
    py::list l;
    for (const char* const* name = compiled_isas(); *name; ++name) l.append(*name);
    return l;
  }, "ISAs in this binary, best first.");
  m.def("available_isas", [] {
    py::list l;
    for (const char* const* name = compiled_isas(); *name; ++name)
      if (isa_supported(*name)) l.append(*name);
    return l;
  }, "ISAs in this binary that this machine can run, best first.");
  m.def("active_isa", [] { return std::string(isa_name(active_kernels())); },
        "The ISA that runs by default: the best available, or TOKPRUNE_CPU_ISA. ValueError if that names none.");
  m.def("measure_peak",
        [](int dtype_bits, double seconds, const std::optional<std::string>& isa, int threads) {
          if (dtype_bits != 32 && dtype_bits != 16) throw py::value_error("dtype_bits: must be 32 (float32) or 16 (bfloat16)");
          if (!(seconds > 0 && seconds <= 10)) throw py::value_error("seconds: must be in (0, 10]");
          const KernelTable& kernels = kernels_of(isa);
          const Executor executor = executor_of(threads);
          std::vector<double> rates(static_cast<size_t>(threads));
          struct Job { const KernelTable& kernels; DType dtype; double seconds; double* rates; };
          Job job{kernels, dtype_bits == 32 ? DType::kFloat32 : DType::kBFloat16, seconds, rates.data()};
          py::gil_scoped_release release;
          executor.run(executor.state, threads, [](void* context, int worker) {
            Job& j = *static_cast<Job*>(context);
            j.rates[worker] = measure_multiply_adds(j.kernels, j.dtype, j.seconds);
          }, &job);
          double total = 0;
          for (double rate : rates) total += rate;
          return 2.0 * total;
        }, py::arg("dtype_bits"), py::arg("seconds") = 0.2, py::arg("isa") = py::none(), py::arg("threads") = 1,
        "FLOP/s (2 per multiply-add) of `threads` threads with the ISA's instructions, in registers: the roofline's ceiling.");
  m.def("measure_bandwidth",
        [](int threads, int megabytes, double seconds) {
          const Executor executor = executor_of(threads);
          if (megabytes < threads)
            throw py::value_error("megabytes: must be at least the number of threads, got " + std::to_string(megabytes));
          if (!(seconds > 0 && seconds <= 10)) throw py::value_error("seconds: must be in (0, 10]");
          py::gil_scoped_release release;
          return measure_read_bandwidth(int64_t{megabytes} << 20, seconds, executor);
        }, py::arg("threads") = 1, py::arg("megabytes") = 512, py::arg("seconds") = 0.2,
        "Bytes/s (1 megabyte = 2**20) that `threads` threads read from a buffer that must be far larger than the last-level cache.");
  m.def("attn_importance", &attn_importance, py::arg("q"), py::arg("k"), py::arg("v"), py::arg("cu_seqlens"),
        py::arg("scale"), py::arg("denominators") = py::none(), py::arg("key_bias") = py::none(),
        py::arg("row_weights") = py::none(), py::arg("importance") = true, py::arg("isa") = py::none(), py::arg("threads") = 1,
        "q, k, v (tokens, heads, head_dim), cu_seqlens (batch + 1,) int32 -> context, importance (tokens,) float32 or None.");
  m.def("keep_threshold",
        [](const Floats& importance, const Ints& cu_seqlens, double threshold, const std::optional<Bytes>& protected_rows, bool protect_first) {
          return keep_tokens_of(importance, cu_seqlens, Criterion::kThreshold, threshold, protected_rows, protect_first, true);
        }, py::arg("importance"), py::arg("cu_seqlens"), py::arg("threshold"), py::arg("protected") = py::none(),
        py::arg("protect_first") = true, "Rows with importance >= threshold (LTP) -> keep_idx, new_cu_seqlens, both int32.");
  m.def("keep_topk",
        [](const Floats& importance, const Ints& cu_seqlens, double keep_ratio, const std::optional<Bytes>& protected_rows, bool protect_first,
           bool count_first) {
          return keep_tokens_of(importance, cu_seqlens, Criterion::kTopK, keep_ratio, protected_rows, protect_first, count_first);
        }, py::arg("importance"), py::arg("cu_seqlens"), py::arg("keep_ratio"), py::arg("protected") = py::none(),
        py::arg("protect_first") = true, py::arg("count_first") = true,
        "The most important share of every sequence (ToP) -> keep_idx, new_cu_seqlens, both int32.");
  m.def("compact", &compact, py::arg("x"), py::arg("keep_idx"), py::arg("threads") = 1, "x[keep_idx] along the first axis.");
  m.def("add_layer_norm", &add_layer_norm_of, py::arg("x"), py::arg("residual"), py::arg("weight"), py::arg("bias"),
        py::arg("eps"), py::arg("isa") = py::none(), py::arg("threads") = 1, "LayerNorm(x + residual) * weight + bias; (rows, width).");
  m.def("linear", &linear_of, py::arg("x"), py::arg("weight"), py::arg("bias") = py::none(), py::arg("activation") = 0,
        py::arg("rows") = py::none(), py::arg("isa") = py::none(), py::arg("threads") = 1,
        "activation(x[rows] @ weight.T + bias); x (rows, in), weight (out, in).");
}
