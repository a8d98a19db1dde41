// Activations on vectors. The kind is a constant wherever this is used, so that the choice costs nothing.
#ifndef TYPERT_CPU_ACTIVATIONS_H
#define TYPERT_CPU_ACTIVATIONS_H
#include "include/cpu/vmath.h"

enum { ACT_silu, ACT_gelu, ACT_gelu_tanh, ACT_quick_gelu, ACT_relu, ACT_relu2, ACT_sigmoid, ACT_tanh };

INLINE vf activate(const int kind, vf x) {
  const vf zero = set(0);
  switch (kind) {
    case ACT_silu: return x / (set(1.0f) + vexp(-x));
    case ACT_gelu: return set(0.5f) * x * (set(1.0f) + verf(x * set(0.70710678f)));
    case ACT_gelu_tanh: return set(0.5f) * x * (set(1.0f) + vtanh(set(0.79788456f) * (x + set(0.044715f) * x * x * x)));
    case ACT_quick_gelu: return x * vsigmoid(set(1.702f) * x);
    case ACT_relu: return vmax(zero, x);
    case ACT_relu2: return vmax(zero, x) * vmax(zero, x);
    case ACT_sigmoid: return vsigmoid(x);
    default: return vtanh(x);
  }
}

/// y = activate(gate) · up; y may be either.
INLINE void gate_row(const int kind, const float *gate, const float *up, float *y, int64_t n) {
  int64_t i = 0;
  for (; i + VL <= n; i += VL) store(y + i, activate(kind, load(gate + i)) * load(up + i));
  if (i < n) store_n(y + i, activate(kind, load_n(gate + i, (int)(n - i))) * load_n(up + i, (int)(n - i)), (int)(n - i));
}
#endif
