// What kernels need of <math.h>: exponentials and logarithms in double precision, to about a unit in the last place.
#ifndef TYPERT_WASM_MATH_H
#define TYPERT_WASM_MATH_H
#include <stdint.h>

#define INFINITY __builtin_inff()
#define NAN __builtin_nanf("")
#define sqrtf(x) __builtin_sqrtf(x)
#define nearbyintf(x) __builtin_nearbyintf(x)

typedef union {
  double value;
  uint64_t bits;
} double_bits;

static inline double power_of_two(int64_t n) { return ((double_bits){.bits = (uint64_t)(n + 1023) << 52}).value; }

/// e^x: x = n · ln 2 + r with |r| ≤ ln 2 / 2, Taylor's series of e^r, 2^n in two halves so that results near the ends stay right.
static inline double exp(double x) {
  if (x != x) return x;
  if (x > 710) return __builtin_inf();
  if (x < -746) return 0;
  const double n = __builtin_nearbyint(x * 1.4426950408889634);
  const double r = (x - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
  double sum = 1, term = 1;
  for (int i = 1; i < 15; i++) sum += term *= r / i;
  const int64_t whole = (int64_t)n, half = whole >> 1;
  return sum * power_of_two(half) * power_of_two(whole - half);
}
static inline float expf(float x) { return (float)exp(x); }

/// log x of positive normal numbers: x = m · 2^n with m in [√½, √2), then 2 · artanh((m - 1) / (m + 1)).
static inline double log(double x) {
  double_bits b = {x};
  int64_t n = (int64_t)(b.bits >> 52 & 0x7ff) - 1023;
  b.bits = (b.bits & 0xfffffffffffffull) | 0x3ff0000000000000ull;
  if (b.value > 1.4142135623730951) {
    b.value /= 2;
    n++;
  }
  const double s = (b.value - 1) / (b.value + 1), square = s * s;
  double sum = 0;
  for (int i = 23; i > 0; i -= 2) sum = sum * square + 1.0 / i;
  return (double)n * 6.93147180369123816490e-01 + (2 * s * sum + (double)n * 1.90821492927058770002e-10);
}
#endif
