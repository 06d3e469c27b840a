// Attention of one (sequence, head): packs K^T and V once, then blocks of query rows.
//
// Contract: reads q, k, v rows of the sequence; writes context rows of this head; writes to
// column_sums + c * length, for every chunk c it is given, the sums over the chunk's query rows of the
// normalised attention, each row times its weight. Chunks are summed by the caller in a fixed order, so that importance has the
// same bits however the chunks were shared out.
#pragma once

namespace tokprune {
namespace TOKPRUNE_ISA {

constexpr float kLog2E = 1.4426950408889634f;

template <class T>
struct AttentionScratch {
  uint32_t* keys;    // [panel of 64 keys][unit of head_dim][64]
  uint32_t* values;  // [unit of keys][padded head_dim]
  float* scores;     // [kAttentionRows][score_stride]
  uint16_t* weights; // bfloat16 only: [kAttentionRows][score_stride] attention weights
  float* output;     // [kAttentionRows][padded head_dim]
  float* bias;       // [keys]: pack_bias, or zeros, where scores are scaled first
  size_t bias_bytes;
  ptrdiff_t score_stride;
  int padded_dim;

  AttentionScratch(const AttentionTask& t) {
    const AttentionScratchSizes s = attention_scratch_sizes(t.length, t.head_dim, T::kPerUnit);
    char* p = static_cast<char*>(t.scratch);
    keys = reinterpret_cast<uint32_t*>(p);
    values = reinterpret_cast<uint32_t*>(p += s.keys);
    scores = reinterpret_cast<float*>(p += s.values);
    weights = reinterpret_cast<uint16_t*>(p += s.scores);
    output = reinterpret_cast<float*>(p += s.weights);
    bias = reinterpret_cast<float*>(p += s.output);
    bias_bytes = s.bias;
    score_stride = s.score_stride;
    padded_dim = s.padded_dim;
  }
};

// kLanes units of `live` rows, transposed: out[u * 64 + i] = row i, unit u.
template <class T>
static inline void transpose_keys(const char* rows, ptrdiff_t stride, int live, int units, uint32_t* out) {
  for (int u = 0; u < units; u += kLanes) {
    const int n = units - u < kLanes ? units - u : kLanes;
    vu r[kLanes];
    for (int i = 0; i < kLanes; ++i) {
      uint32_t lanes[kLanes] = {};
      const char* source = rows + (i < live ? i : 0) * stride + u * 4;
      if (n == kLanes)
        r[i] = i < live ? load_units(reinterpret_cast<const uint32_t*>(source)) : broadcast_unit(0);
      else {
        if (i < live) __builtin_memcpy(lanes, source, static_cast<size_t>(n) * 4);
        r[i] = load_units(lanes);
      }
    }
    transpose(r);
    for (int i = 0; i < n; ++i) store_units(out + (u + i) * 64, r[i]);
  }
}

template <class T>
static void pack_keys(const AttentionTask& t, const AttentionScratch<T>& s) {
  const int units = t.head_dim / T::kPerUnit;
  const ptrdiff_t stride = t.k_stride * static_cast<ptrdiff_t>(sizeof(typename T::Element));
  for (int key = 0; key < t.length; key += kLanes) {
    const int live = t.length - key < kLanes ? t.length - key : kLanes;
    uint32_t* out = s.keys + static_cast<ptrdiff_t>(key / 64) * units * 64 + key % 64;
    transpose_keys<T>(static_cast<const char*>(t.k) + key * stride, stride, live, units, out);
  }
}

static inline void pack_values(const AttentionTask& t, const AttentionScratch<Float32>& s) {
  for (int key = 0; key < t.length; ++key) {
    const float* row = static_cast<const float*>(t.v) + key * t.v_stride;
    float* out = reinterpret_cast<float*>(s.values) + static_cast<ptrdiff_t>(key) * s.padded_dim;
    for (int j = 0; j < s.padded_dim; j += kLanes) store(out + j, load_partial(row + j, t.head_dim - j < 0 ? 0 : t.head_dim - j < kLanes ? t.head_dim - j : kLanes));
  }
}

static inline void pack_values(const AttentionTask& t, const AttentionScratch<BFloat16>& s) {
  for (int key = 0; key < t.length; key += 2) {
    const uint16_t* low = static_cast<const uint16_t*>(t.v) + key * t.v_stride;
    const uint16_t* high = key + 1 < t.length ? low + t.v_stride : nullptr;
    uint32_t* out = s.values + static_cast<ptrdiff_t>(key / 2) * s.padded_dim;
    for (int j = 0; j < s.padded_dim; j += kLanes) {
      const int n = t.head_dim - j < 0 ? 0 : t.head_dim - j < kLanes ? t.head_dim - j : kLanes;
      store_units(out + j, zip_bf16(low + j, high ? high + j : nullptr, n));
    }
  }
}

static inline float largest(const float* scores, int length) {
  const int full = length / kLanes * kLanes, tail = length - full;
  const float lowest = -__builtin_inff();
  vf top = set1(lowest);
  for (int j = 0; j < full; j += kLanes) top = max(top, load(scores + j));
  if (tail) top = max(top, fill_tail(load(scores + full), tail, lowest));
  return reduce_max(top);
}

// out[j] = the keys' bias less the sequence's largest. Softmax does not see what all keys have in common, but float32 does:
// beside a bias of -1e4 everywhere a score would keep three digits.
static inline void pack_bias(const float* key_bias, int length, float* out) {
  for (int j = 0; j < length; j += kLanes)
    store(out + j, load_partial(key_bias + j, length - j < kLanes ? length - j : kLanes));
  const vf top = set1(largest(out, length));
  for (int j = 0; j < length; j += kLanes) store(out + j, sub(load(out + j), top));
}

// Whether scores are scaled before their maximum is taken, in a pass of their own: a scale that is not positive turns their
// order, and a bias adds to scaled scores.
static inline bool scales_first(const AttentionTask& t) { return t.key_bias || !(t.scale > 0.0f); }

// scores -> scale * score + bias.
static inline void bias_scores(float* scores, int length, vf scale, const float* bias) {
  for (int j = 0; j < length; j += kLanes) store(scores + j, fmadd(load(scores + j), scale, load(bias + j)));
}

// scores -> exp2(factor * (score - largest)), zero past the length; returns their sum, lane by lane. The difference is taken
// first: factor * score - factor * largest, fused, rounds one product and not the other, which from scores of 1e9 on is more
// than an exponent can hold.
static inline vf exponentiate(float* scores, int length, vf factor, vf largest) {
  const int full = length / kLanes * kLanes, tail = length - full;
  vf sum = zero();
  for (int j = 0; j < full; j += kLanes) {
    vf e = exp2(mul(sub(load(scores + j), largest), factor));
    store(scores + j, e);
    sum = add(sum, e);
  }
  if (tail) {
    vf e = fill_tail(exp2(mul(sub(load(scores + full), largest), factor)), tail, 0.0f);
    store(scores + full, e);
    sum = add(sum, e);
  }
  return sum;
}

// Rows of scores -> unnormalised weights; inverse[i] = 1 / their sum. Three passes over the rows rather than one
// over each: the reductions at the ends of a row, long chains of latency, then overlap with its neighbours' work.
static inline void softmax(float* scores, ptrdiff_t stride, int m, int length, float factor, float* inverse) {
  vf sums[kAttentionRows];
  for (int i = 0; i < m; ++i) inverse[i] = largest(scores + i * stride, length);
  for (int i = 0; i < m; ++i) sums[i] = exponentiate(scores + i * stride, length, set1(factor), set1(inverse[i]));
  for (int i = 0; i < m; ++i) inverse[i] = 1.0f / reduce_add(sums[i]);
}

// sums[j] += sum over rows of factors[row] * scores[row][j]
static inline void add_columns(const float* scores, ptrdiff_t stride, int m, const float* factors,
                               int length, float* sums) {
  for (int j = 0; j < length; j += kLanes) {
    const int n = length - j < kLanes ? length - j : kLanes;
    vf total = n == kLanes ? load(sums + j) : load_partial(sums + j, n);
    for (int i = 0; i < m; ++i) total = fmadd(set1(factors[i]), load(scores + i * stride + j), total);
    if (n == kLanes) store(sums + j, total);
    else store_partial(sums + j, total, n);
  }
}

static inline const char* weight_row(const AttentionScratch<Float32>& s, int i, int) {
  return reinterpret_cast<const char*>(s.scores + i * s.score_stride);
}
static inline const char* weight_row(const AttentionScratch<BFloat16>& s, int i, int length) {
  const float* from = s.scores + i * s.score_stride;
  uint16_t* to = s.weights + i * s.score_stride;
  for (int j = 0; j < length; j += kLanes) store_bf16(to + j, load(from + j));
  return reinterpret_cast<const char*>(to);
}

template <class T>
static void attend_block(const AttentionTask& t, const AttentionScratch<T>& s, int row, int m, float* sums) {
  typedef typename T::Element Element;
  const char* rows[kAttentionRows];
  for (int i = 0; i < m; ++i)
    rows[i] = reinterpret_cast<const char*>(static_cast<const Element*>(t.q) + (row + i) * t.q_stride);
  const ptrdiff_t panel_units = static_cast<ptrdiff_t>(t.head_dim / T::kPerUnit) * 64;
  for (int key = 0; key < t.length; key += 64) {
    const int width = t.length - key < 64 ? t.length - key : 64;
    const Product p{rows, s.keys + key / 64 * panel_units, 64, t.head_dim, s.scores + key, s.score_stride, false, nullptr, 0};
    multiply<T>(p, m, (width + kLanes - 1) / kLanes);
  }
  float factor = t.scale * kLog2E;
  if (scales_first(t)) {
    for (int i = 0; i < m; ++i) bias_scores(s.scores + i * s.score_stride, t.length, set1(t.scale), s.bias);
    factor = kLog2E;
  }
  float inverse[kAttentionRows];
  softmax(s.scores, s.score_stride, m, t.length, factor, inverse);
  if (sums) {
    float weighted[kAttentionRows];
    if (t.row_weights)
      for (int i = 0; i < m; ++i) weighted[i] = inverse[i] * t.row_weights[row + i];
    add_columns(s.scores, s.score_stride, m, t.row_weights ? weighted : inverse, t.length, sums);
  }
  for (int i = 0; i < m; ++i) rows[i] = weight_row(s, i, t.length);
  const Product p{rows, s.values, s.padded_dim, t.length, s.output, s.padded_dim, false, nullptr, 0};
  multiply<T>(p, m, s.padded_dim / kLanes);
  for (int i = 0; i < m; ++i) {
    Element* out = static_cast<Element*>(t.context) + (row + i) * t.context_stride;
    const float* from = s.output + i * s.padded_dim;
    const vf factor = set1(inverse[i]);
    int j = 0;
    for (; j + kLanes <= t.head_dim; j += kLanes) T::store_vector(out + j, mul(load(from + j), factor));
    if (j < t.head_dim) T::store_vector(out + j, mul(load(from + j), factor), t.head_dim - j);
  }
}

template <class T>
static void attend(const AttentionTask& t) {
  const AttentionScratch<T> s(t);
  pack_keys(t, s);
  pack_values(t, s);
  if (t.key_bias) pack_bias(t.key_bias, t.length, s.bias);
  else if (scales_first(t)) __builtin_memset(s.bias, 0, s.bias_bytes);
  for (int c = t.chunk_begin; c < t.chunk_end; ++c) {
    const int begin = chunk_start(t.queries, t.chunks, c), end = chunk_start(t.queries, t.chunks, c + 1);
    float* sums = t.column_sums ? t.column_sums + static_cast<ptrdiff_t>(c) * t.length : nullptr;
    if (sums) __builtin_memset(sums, 0, static_cast<size_t>(t.length) * sizeof(float));
    const int blocks = (end - begin + kAttentionRows - 1) / kAttentionRows;
    for (int i = 0, row = begin; i < blocks; ++i) {
      const int m = (end - row) / (blocks - i);
      attend_block<T>(t, s, row, m, sums);
      row += m;
    }
  }
}

// importance[i] = factor * sum over parts of column_sums[part][i], parts in order.
static void sum_parts(const float* column_sums, int64_t parts, int64_t length, float factor, float* out) {
  for (int64_t j = 0; j < length; j += kLanes) {
    const int n = length - j < kLanes ? static_cast<int>(length - j) : kLanes;
    vf total = zero();
    for (int64_t p = 0; p < parts; ++p) total = add(total, load_partial(column_sums + p * length + j, n));
    store_partial(out + j, mul(total, set1(factor)), n);
  }
}

}  // namespace TOKPRUNE_ISA
}  // namespace tokprune
