// One row of root-mean-square or layer norm.
#ifndef TYPERT_CPU_NORM_H
#define TYPERT_CPU_NORM_H
#include "include/cpu/simd.h"

INLINE float sum_row(const float *x, int64_t n) {
  vf a = set(0), b = set(0);
  int64_t i = 0;
  for (; i + 2 * VL <= n; i += 2 * VL) {
    a += load(x + i);
    b += load(x + i + VL);
  }
  for (; i < n; i += VL) a += i + VL <= n ? load(x + i) : load_n(x + i, (int)(n - i));
  return sum_of(a + b);
}

INLINE float sum_squares(const float *x, int64_t n, float mean) {
  const vf m = set(mean);
  vf a = set(0), b = set(0);
  int64_t i = 0;
  for (; i + 2 * VL <= n; i += 2 * VL) {
    const vf u = load(x + i) - m, v = load(x + i + VL) - m;
    a += u * u;
    b += v * v;
  }
  float rest = 0;
  for (; i < n; i++) rest += (x[i] - mean) * (x[i] - mean);
  return sum_of(a + b) + rest;
}

/// y = (x - mean) · 1/√(variance + eps) · (weight + offset) + bias; weight and bias may be absent; y may be x.
INLINE void norm_row(const int layer, const float *x, float *y, int64_t n, float eps, const float *weight, float offset,
                     const float *bias) {
  const float mean = layer ? sum_row(x, n) / (float)n : 0;
  const float inverse = 1 / sqrtf(sum_squares(x, n, mean) / (float)n + eps);
  const vf m = set(mean), s = set(inverse), o = set(offset);
  int64_t i = 0;
  for (; i + VL <= n; i += VL) {
    vf v = (load(x + i) - m) * s;
    if (weight != NULL) v *= load(weight + i) + o;
    if (bias != NULL) v += load(bias + i);
    store(y + i, v);
  }
  for (; i < n; i++) {
    float v = (x[i] - mean) * inverse;
    if (weight != NULL) v *= weight[i] + offset;
    if (bias != NULL) v += bias[i];
    y[i] = v;
  }
}
#endif
