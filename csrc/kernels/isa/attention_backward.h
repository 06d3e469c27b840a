// Gradients of the attention of one (sequence, head): packs K, K^T and V^T once, then blocks of query rows.
//
// Contract: reads q, k, v, grad_context rows of the sequence; writes this head's part of grad_q, grad_k, grad_v and its
// addend of grad_key_bias and grad_row_weights. Everything is float32 inside, bfloat16 is widened when it is read and
// rounded once when it is written. Sums over query rows are taken block by block, in order; blocks depend on the
// length alone, so a (sequence, head) has the same bits wherever and beside whatever it runs.
//
// The gradients of k and v are accumulated transposed: Q^T and grad_context^T of a block, which are small, are the rows of
// the product, and the block's matrices its columns as they lie. Nothing of block size is ever transposed.
#pragma once

namespace tokprune {
namespace TOKPRUNE_ISA {

struct BackwardScratch {
  float* keys_turned;         // [panel of 64 keys][head_dim][64]
  float* values_turned;       // same
  float* grad_keys_turned;    // same, sums over query blocks, without the scale
  float* grad_values_turned;  // same
  float* keys;                // [key][padded_dim]
  float* weights;             // [kBackwardRows][stride] exp(score - largest of its row)
  float* grads;               // [kBackwardRows][stride] first gradient of the probabilities, then dB
  float* queries_turned;      // [head_dim][kBackwardRows]
  float* context_turned;      // same: grad_context, its rows divided by their sums of weights
  float* query_rows;          // [kBackwardRows][padded_dim] of bfloat16 inputs
  float* context_rows;        // same
  float* grad_queries;        // same, of all dtypes
  float* bias;                // [keys]: pack_bias, or zeros
  float* importance;          // [keys] gradient of the importance times its factor
  float* grad_bias;           // [keys]
  ptrdiff_t stride;
  int padded_dim;

  BackwardScratch(const AttentionBackwardTask& t) {
    const AttentionBackwardScratchSizes s = attention_backward_scratch_sizes(t.length, t.head_dim);
    char* p = static_cast<char*>(t.scratch);
    auto take = [&p](size_t bytes) {
      float* piece = reinterpret_cast<float*>(p);
      p += bytes;
      return piece;
    };
    keys_turned = take(s.panels);
    values_turned = take(s.panels);
    grad_keys_turned = take(s.panels);
    grad_values_turned = take(s.panels);
    keys = take(s.rows);
    weights = take(s.block);
    grads = take(s.block);
    queries_turned = take(s.turned);
    context_turned = take(s.turned);
    query_rows = take(s.narrow);
    context_rows = take(s.narrow);
    grad_queries = take(s.narrow);
    bias = take(s.keys_wide);
    importance = take(s.keys_wide);
    grad_bias = take(s.keys_wide);
    stride = s.block_stride;
    padded_dim = s.padded_dim;
  }
};

// The numbers of a block's rows.
struct BackwardRows {
  float inverse[kBackwardRows];  // 1 / sum of weights
  float gain[kBackwardRows];     // row weight * inverse
  float shift[kBackwardRows];    // -rowsum(P * dP) * inverse
};

static inline int vectors_of(int columns) { return (columns + kLanes - 1) / kLanes; }

static inline const float* head_row(const void* base, ptrdiff_t stride, int row, Float32) {
  return static_cast<const float*>(base) + row * stride;
}
static inline const uint16_t* head_row(const void* base, ptrdiff_t stride, int row, BFloat16) {
  return static_cast<const uint16_t*>(base) + row * stride;
}

// `rows` rows from `first` on as float32, zero padded to whole vectors.
template <class T>
static void widen_rows(const void* base, ptrdiff_t stride, int first, int rows, int head_dim, int padded_dim, float* out) {
  for (int i = 0; i < rows; ++i, out += padded_dim) {
    const typename T::Element* row = head_row(base, stride, first + i, T());
    int j = 0;
    for (; j + kLanes <= head_dim; j += kLanes) store(out + j, T::load_vector(row + j));
    for (; j < padded_dim; j += kLanes) store(out + j, j < head_dim ? T::load_vector(row + j, head_dim - j) : zero());
  }
}

struct Rows {
  const float* p;
  ptrdiff_t stride;
};

// The same rows where they lie if that is float32, else widened into `room`.
static inline Rows float_rows(const void* base, ptrdiff_t stride, int first, int, int, int, float*, Float32) {
  return {head_row(base, stride, first, Float32()), stride};
}
static inline Rows float_rows(const void* base, ptrdiff_t stride, int first, int rows, int head_dim, int padded_dim,
                              float* room, BFloat16) {
  widen_rows<BFloat16>(base, stride, first, rows, head_dim, padded_dim, room);
  return {room, padded_dim};
}

// Up to 64 rows transposed: out[element][64], zeros past the last row up to a whole vector.
static inline void turn_rows(const Rows& rows, int count, int head_dim, float* out) {
  const ptrdiff_t bytes = rows.stride * 4;
  for (int i = 0; i < count; i += kLanes)
    transpose_keys<Float32>(reinterpret_cast<const char*>(rows.p) + i * bytes, bytes, count - i < kLanes ? count - i : kLanes,
                            head_dim, reinterpret_cast<uint32_t*>(out) + i);
}

template <class T>
static void pack_backward(const AttentionBackwardTask& t, const BackwardScratch& s) {
  widen_rows<T>(t.k, t.k_stride, 0, t.length, t.head_dim, s.padded_dim, s.keys);
  for (int key = 0; key < t.length; key += 64) {
    const int width = t.length - key < 64 ? t.length - key : 64;
    const ptrdiff_t panel = static_cast<ptrdiff_t>(key) * t.head_dim;
    turn_rows({s.keys + static_cast<ptrdiff_t>(key) * s.padded_dim, s.padded_dim}, width, t.head_dim, s.keys_turned + panel);
    const Rows values = float_rows(t.v, t.v_stride, key, width, t.head_dim, s.padded_dim, s.context_rows, T());
    turn_rows(values, width, t.head_dim, s.values_turned + panel);
  }
  for (int j = 0; j < t.length; j += kLanes) {
    const int n = t.length - j < kLanes ? t.length - j : kLanes;
    store(s.bias + j, zero());
    store(s.importance + j, mul(set1(t.importance_factor), load_partial(t.grad_importance + j, n)));
    store(s.grad_bias + j, zero());
  }
  if (t.key_bias) pack_bias(t.key_bias, t.length, s.bias);
}

// scores[i][j] = scale * scores[i][j] + bias[j]; largest[i] gathers them lane by lane.
static inline void add_bias(float* scores, ptrdiff_t stride, int m, int width, float scale, const float* bias, vf* largest) {
  const int full = width / kLanes * kLanes;
  for (int i = 0; i < m; ++i, scores += stride) {
    vf top = largest[i];
    for (int j = 0; j < full; j += kLanes) {
      const vf x = fmadd(load(scores + j), set1(scale), load(bias + j));
      store(scores + j, x);
      top = max(top, x);
    }
    if (full < width) {
      const vf x = fmadd(load(scores + full), set1(scale), load(bias + full));
      store(scores + full, x);
      top = max(top, fill_tail(x, width - full, -__builtin_inff()));
    }
    largest[i] = top;
  }
}

// Weights exp(score - largest) of the block, zero past the length, and the inverse of their sums.
static void backward_weights(const AttentionBackwardTask& t, const BackwardScratch& s, const char* const* rows, int m,
                             BackwardRows& numbers) {
  vf lanes[kBackwardRows];
  float largest[kBackwardRows];
  for (int i = 0; i < m; ++i) lanes[i] = set1(-__builtin_inff());
  for (int key = 0; key < t.length; key += 64) {
    const int width = t.length - key < 64 ? t.length - key : 64;
    const uint32_t* panel = reinterpret_cast<const uint32_t*>(s.keys_turned + static_cast<ptrdiff_t>(key) * t.head_dim);
    multiply<Float32>({rows, panel, 64, t.head_dim, s.weights + key, s.stride, false, nullptr, 0}, m, vectors_of(width));
    add_bias(s.weights + key, s.stride, m, width, t.scale, s.bias + key, lanes);
  }
  for (int i = 0; i < m; ++i) largest[i] = reduce_max(lanes[i]);
  for (int i = 0; i < m; ++i) lanes[i] = exponentiate(s.weights + i * s.stride, t.length, set1(kLog2E), set1(largest[i]));
  for (int i = 0; i < m; ++i) numbers.inverse[i] = 1.0f / reduce_add(lanes[i]);
}

// Gradients of the probabilities through the context, and what the rows' sums make of them.
static void backward_probabilities(const AttentionBackwardTask& t, const BackwardScratch& s, const char* const* rows,
                                   int first, int m, BackwardRows& numbers) {
  vf through_context[kBackwardRows], through_importance[kBackwardRows];
  for (int i = 0; i < m; ++i) through_context[i] = through_importance[i] = zero();
  for (int key = 0; key < t.length; key += 64) {
    const int width = t.length - key < 64 ? t.length - key : 64;
    const uint32_t* panel = reinterpret_cast<const uint32_t*>(s.values_turned + static_cast<ptrdiff_t>(key) * t.head_dim);
    multiply<Float32>({rows, panel, 64, t.head_dim, s.grads + key, s.stride, false, nullptr, 0}, m, vectors_of(width));
    for (int i = 0; i < m; ++i) {
      const float* weights = s.weights + i * s.stride + key;
      const float* grads = s.grads + i * s.stride + key;
      vf a = through_context[i], b = through_importance[i];
      for (int j = 0; j < width; j += kLanes) {
        const vf weight = load(weights + j);
        a = fmadd(weight, load(grads + j), a);
        b = fmadd(weight, load(s.importance + key + j), b);
      }
      through_context[i] = a;
      through_importance[i] = b;
    }
  }
  for (int i = 0; i < m; ++i) {
    const float inverse = numbers.inverse[i], row_weight = t.row_weights ? t.row_weights[first + i] : 1.0f;
    const float grad_row_weight = inverse * reduce_add(through_importance[i]);
    t.grad_row_weights[first + i] = grad_row_weight;
    numbers.gain[i] = row_weight * inverse;
    numbers.shift[i] = -inverse * (inverse * reduce_add(through_context[i]) + row_weight * grad_row_weight);
  }
}

// V vectors of columns: grads = dB = P * (dP - rowsum(P * dP)), and their sums over the rows to grad_bias.
template <int V>
static inline void grad_columns(const float* weights, float* grads, ptrdiff_t stride, int m, const BackwardRows& numbers,
                                const float* importance, float* grad_bias) {
  vf sums[V], g[V];
  for (int j = 0; j < V; ++j) {
    sums[j] = load(grad_bias + j * kLanes);
    g[j] = load(importance + j * kLanes);
  }
  for (int i = 0; i < m; ++i, weights += stride, grads += stride) {
    const vf inverse = set1(numbers.inverse[i]), gain = set1(numbers.gain[i]), shift = set1(numbers.shift[i]);
    for (int j = 0; j < V; ++j) {
      const vf x = fmadd(load(grads + j * kLanes), inverse, fmadd(g[j], gain, shift));
      const vf grad = mul(load(weights + j * kLanes), x);
      store(grads + j * kLanes, grad);
      sums[j] = add(sums[j], grad);
    }
  }
  for (int j = 0; j < V; ++j) store(grad_bias + j * kLanes, sums[j]);
}

static inline void grad_scores(const BackwardScratch& s, int key, int width, int m, const BackwardRows& numbers) {
  int j = key;
  for (; j + kTileVectors * kLanes <= key + width; j += kTileVectors * kLanes)
    grad_columns<kTileVectors>(s.weights + j, s.grads + j, s.stride, m, numbers, s.importance + j, s.grad_bias + j);
  for (; j < key + width; j += kLanes)
    grad_columns<1>(s.weights + j, s.grads + j, s.stride, m, numbers, s.importance + j, s.grad_bias + j);
}

// What one block adds to the gradients: panel by panel, so that a panel's part of dB is used while it is in cache.
static void backward_products(const AttentionBackwardTask& t, const BackwardScratch& s, int m, const BackwardRows& numbers,
                              bool first_block) {
  const char *query_rows[256], *context_rows[256], *grad_rows[kBackwardRows];  // 256: the largest head_dim
  for (int j = 0; j < t.head_dim; ++j) {
    query_rows[j] = reinterpret_cast<const char*>(s.queries_turned + j * kBackwardRows);
    context_rows[j] = reinterpret_cast<const char*>(s.context_turned + j * kBackwardRows);
  }
  for (int key = 0; key < t.length; key += 64) {
    const int width = t.length - key < 64 ? t.length - key : 64, vectors = vectors_of(width);
    const ptrdiff_t panel = static_cast<ptrdiff_t>(key) * t.head_dim;
    grad_scores(s, key, width, m, numbers);
    for (int i = 0; i < m; ++i) grad_rows[i] = reinterpret_cast<const char*>(s.grads + i * s.stride + key);
    const uint32_t* keys = reinterpret_cast<const uint32_t*>(s.keys + static_cast<ptrdiff_t>(key) * s.padded_dim);
    multiply<Float32>({grad_rows, keys, s.padded_dim, width, s.grad_queries, s.padded_dim, key > 0, nullptr, 0}, m,
                      s.padded_dim / kLanes);
    const uint32_t* grads = reinterpret_cast<const uint32_t*>(s.grads + key);
    multiply<Float32>({query_rows, grads, s.stride, m, s.grad_keys_turned + panel, 64, !first_block, nullptr, 0}, t.head_dim,
                      vectors);
    const uint32_t* weights = reinterpret_cast<const uint32_t*>(s.weights + key);
    multiply<Float32>({context_rows, weights, s.stride, m, s.grad_values_turned + panel, 64, !first_block, nullptr, 0},
                      t.head_dim, vectors);
  }
}

template <class T>
static void backward_block(const AttentionBackwardTask& t, const BackwardScratch& s, int first, int m, bool first_block) {
  typedef typename T::Element Element;
  const Rows queries = float_rows(t.q, t.q_stride, first, m, t.head_dim, s.padded_dim, s.query_rows, T());
  const Rows context = float_rows(t.grad_context, t.stride, first, m, t.head_dim, s.padded_dim, s.context_rows, T());
  const char* rows[kBackwardRows];
  BackwardRows numbers = {};
  for (int i = 0; i < m; ++i) rows[i] = reinterpret_cast<const char*>(queries.p + i * queries.stride);
  backward_weights(t, s, rows, m, numbers);
  for (int i = 0; i < m; ++i) rows[i] = reinterpret_cast<const char*>(context.p + i * context.stride);
  backward_probabilities(t, s, rows, first, m, numbers);
  turn_rows(queries, m, t.head_dim, s.queries_turned);
  turn_rows(context, m, t.head_dim, s.context_turned);
  for (int j = 0; j < t.head_dim; ++j)
    for (int i = 0; i < m; i += kLanes) {
      float* p = s.context_turned + j * kBackwardRows + i;
      store(p, mul(load(p), load(numbers.inverse + i)));
    }
  backward_products(t, s, m, numbers, first_block);
  for (int i = 0; i < m; ++i) {
    Element* out = static_cast<Element*>(t.grad_q) + (first + i) * t.stride;
    const float* from = s.grad_queries + i * s.padded_dim;
    int j = 0;
    for (; j + kLanes <= t.head_dim; j += kLanes) T::store_vector(out + j, mul(load(from + j), set1(t.scale)));
    if (j < t.head_dim) T::store_vector(out + j, mul(load(from + j), set1(t.scale)), t.head_dim - j);
  }
}

// Panels of transposed rows -> factor * rows in the output's dtype.
template <class T>
static void store_turned(const float* panels, int length, int head_dim, float factor, void* out, ptrdiff_t stride) {
  for (int key = 0; key < length; key += kLanes) {
    const int live = length - key < kLanes ? length - key : kLanes;
    const float* panel = panels + static_cast<ptrdiff_t>(key / 64) * 64 * head_dim + key % 64;
    for (int j = 0; j < head_dim; j += kLanes) {
      const int n = head_dim - j < kLanes ? head_dim - j : kLanes;
      vu r[kLanes];
      for (int u = 0; u < kLanes; ++u)
        r[u] = u < n ? load_units(reinterpret_cast<const uint32_t*>(panel + (j + u) * 64)) : broadcast_unit(0);
      transpose(r);
      for (int i = 0; i < live; ++i) {
        typename T::Element* row = static_cast<typename T::Element*>(out) + (key + i) * stride + j;
        const vf x = mul((vf)r[i], set1(factor));
        if (n == kLanes) T::store_vector(row, x);
        else T::store_vector(row, x, n);
      }
    }
  }
}

template <class T>
static void attend_backward(const AttentionBackwardTask& t) {
  const BackwardScratch s(t);
  pack_backward<T>(t, s);
  const int blocks = (t.length + kBackwardRows - 1) / kBackwardRows;
  for (int i = 0, row = 0; i < blocks; ++i) {
    const int m = (t.length - row) / (blocks - i);
    backward_block<T>(t, s, row, m, i == 0);
    row += m;
  }
  store_turned<T>(s.grad_keys_turned, t.length, t.head_dim, t.scale, t.grad_k, t.stride);
  store_turned<T>(s.grad_values_turned, t.length, t.head_dim, 1.0f, t.grad_v, t.stride);
  __builtin_memcpy(t.grad_key_bias, s.grad_bias, static_cast<size_t>(t.length) * sizeof(float));
}

}  // namespace TOKPRUNE_ISA
}  // namespace tokprune
