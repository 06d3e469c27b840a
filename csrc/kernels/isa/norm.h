// Residual + LayerNorm of one row; mean and variance in two passes over a float32 copy in cache.
#pragma once

namespace tokprune {
namespace TOKPRUNE_ISA {

template <class T>
static void add_layer_norm_rows(const AddLayerNormArgs& args, int64_t begin, int64_t end, float* buffer) {
  typedef typename T::Element Element;
  const int width = static_cast<int>(args.width);
  const int full = width / kLanes * kLanes, tail = width - full;
  const float inverse_width = 1.0f / static_cast<float>(width);
  const Element* weight = static_cast<const Element*>(args.weight);
  const Element* bias = static_cast<const Element*>(args.bias);
  for (int64_t row = begin; row < end; ++row) {
    const Element* x = static_cast<const Element*>(args.x) + row * args.x_stride;
    const Element* residual = static_cast<const Element*>(args.residual) +
                              (args.residual_rows ? args.residual_rows[row] : row) * args.residual_stride;
    Element* out = static_cast<Element*>(args.out) + row * width;
    vf sum = zero();
    for (int j = 0; j < full; j += kLanes) {
      vf y = add(T::load_vector(x + j), T::load_vector(residual + j));
      store(buffer + j, y);
      sum = add(sum, y);
    }
    if (tail) {
      vf y = add(T::load_vector(x + full, tail), T::load_vector(residual + full, tail));
      store(buffer + full, y);
      sum = add(sum, fill_tail(y, tail, 0.0f));
    }
    const vf mean = set1(reduce_add(sum) * inverse_width);
    // Deviations, their squares and their own sum: what the rounded mean is off by is taken out again.
    vf square = zero(), rest = zero();
    for (int j = 0; j < full; j += kLanes) {
      vf d = sub(load(buffer + j), mean);
      store(buffer + j, d);
      square = fmadd(d, d, square);
      rest = add(rest, d);
    }
    if (tail) {
      vf d = fill_tail(sub(load(buffer + full), mean), tail, 0.0f);
      store(buffer + full, d);
      square = fmadd(d, d, square);
      rest = add(rest, d);
    }
    const float off = reduce_add(rest) * inverse_width;
    const float difference = reduce_add(square) * inverse_width - off * off;
    const float variance = difference < 0.0f ? 0.0f : difference;  // rounding of a constant row; NaN stays
    const vf factor = set1(1.0f / __builtin_sqrtf(variance + args.eps)), offset = set1(off);
    for (int j = 0; j < full; j += kLanes) {
      vf d = mul(sub(load(buffer + j), offset), factor);
      T::store_vector(out + j, fmadd(d, T::load_vector(weight + j), T::load_vector(bias + j)));
    }
    if (tail) {
      vf d = mul(sub(load(buffer + full), offset), factor);
      T::store_vector(out + full, fmadd(d, T::load_vector(weight + full, tail), T::load_vector(bias + full, tail)), tail);
    }
  }
}

}  // namespace TOKPRUNE_ISA
}  // namespace tokprune
