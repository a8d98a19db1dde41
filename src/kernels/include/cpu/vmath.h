// Elementary functions on vectors, to about two units in the last place of float32.
#ifndef TYPERT_CPU_VMATH_H
#define TYPERT_CPU_VMATH_H
#include "include/cpu/simd.h"

/// e^x: x = n·ln 2 + r with |r| ≤ ln 2 / 2, a polynomial in r, n added to the exponent in two halves so that results near the ends stay right.
INLINE vf vexp(vf x) {
  // The bound stands first: the machine's min and max give their second operand when x is not a number, which must stay so.
  x = vmin(set(89.0f), vmax(set(-104.0f), x));
  const vf n = vround(x * set(1.44269504f));
  vf r = x - n * set(0.693359375f);
  r = r - n * set(-2.12194440e-4f);
  vf p = set(1.9875691500e-4f);
  p = p * r + set(1.3981999507e-3f);
  p = p * r + set(8.3334519073e-3f);
  p = p * r + set(4.1665795894e-2f);
  p = p * r + set(1.6666665459e-1f);
  p = p * r + set(5.0000001201e-1f);
  p = p * r * r + r + set(1.0f);
  const vi whole = to_int(n);
  const vi half = whole >> 1;
  return p * (vf)((half + 127) << 23) * (vf)((whole - half + 127) << 23);
}

INLINE vf vsigmoid(vf x) { return set(1.0f) / (set(1.0f) + vexp(-x)); }

/// tanh: its odd series near zero, where 1 - 2 / (e^2x + 1) would lose digits.
INLINE vf vtanh(vf x) {
  const vf a = vabs(x);
  const vf big = set(1.0f) - set(2.0f) / (vexp(a + a) + set(1.0f));
  const vf s = x * x;
  vf p = set(-5.70498872745e-3f);
  p = p * s + set(2.06390887954e-2f);
  p = p * s + set(-5.37397155531e-2f);
  p = p * s + set(1.33314422036e-1f);
  p = p * s + set(-3.33332819422e-1f);
  const vf small = a + a * s * p;
  const vf result = choose(a < set(0.625f), small, big);
  return (vf)((vi)result | ((vi)x & (int32_t)0x80000000));
}

/// erf = 1 - e^(-x²)·P(1 / (1 + 0.3275911·x)) (Abramowitz and Stegun 7.1.26, |error| < 1.5e-7).
INLINE vf verf(vf x) {
  const vf a = vabs(x);
  const vf t = set(1.0f) / (set(1.0f) + set(0.3275911f) * a);
  vf p = set(1.061405429f);
  p = p * t + set(-1.453152027f);
  p = p * t + set(1.421413741f);
  p = p * t + set(-0.284496736f);
  p = p * t + set(0.254829592f);
  const vf far = set(1.0f) - p * t * vexp(-a * a);
  return (vf)((vi)far | ((vi)x & (int32_t)0x80000000));
}

/// Sine and cosine of angles up to 1e5: x - n·π/2 in three parts, then polynomials on [-π/4, π/4].
INLINE void vsincos(vf x, vf *sine, vf *cosine) {
  const vf n = vround(x * set(0.636619772f));
  vf r = x - n * set(1.5703125f);
  r = r - n * set(4.837512969970703125e-4f);
  r = r - n * set(7.54978995489188216e-8f);
  const vf s = r * r;
  vf a = set(-1.9515295891e-4f);
  a = a * s + set(8.3321608736e-3f);
  a = a * s + set(-1.6666654611e-1f);
  a = a * s * r + r;
  vf b = set(2.443315711809948e-5f);
  b = b * s + set(-1.388731625493765e-3f);
  b = b * s + set(4.166664568298827e-2f);
  b = b * s * s - set(0.5f) * s + set(1.0f);
  const vi quadrant = to_int(n);
  const vi swap = (quadrant & 1) != 0;
  const vf u = choose(swap, b, a);
  const vf v = choose(swap, a, b);
  *sine = (vf)((vi)u ^ ((quadrant & 2) << 30));
  *cosine = (vf)((vi)v ^ (((quadrant + 1) & 2) << 30));
}
#endif
