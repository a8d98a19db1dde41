// Vectors of VL floats, the widest the machine has: 16 (AVX-512), 8 (AVX2) or 4 (anything else the compiler has vectors for).
// Arithmetic is the compiler's vector extension; intrinsics stand only where it has no word for it.
#ifndef TYPERT_CPU_SIMD_H
#define TYPERT_CPU_SIMD_H
#include "include/cpu/launch.h"
#ifdef __x86_64__
#include <immintrin.h>
#endif

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define VL 16
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define VL 8
#else
#define VL 4
#endif

typedef float vf __attribute__((vector_size(VL * 4)));
typedef int32_t vi __attribute__((vector_size(VL * 4)));
typedef uint32_t vu __attribute__((vector_size(VL * 4)));
typedef float vf_loose __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef uint32_t vu_loose __attribute__((vector_size(VL * 4), aligned(4), may_alias));

INLINE vf load(const float *p) { return *(const vf_loose *)p; }
INLINE void store(float *p, vf v) { *(vf_loose *)p = v; }
INLINE vu load_u(const void *p) { return *(const vu_loose *)p; }

INLINE vf set(float x) {
#if VL == 16
  return (vf)_mm512_set1_ps(x);
#elif VL == 8
  return (vf)_mm256_set1_ps(x);
#else
  return (vf){x, x, x, x};
#endif
}
INLINE vi set_i(int32_t x) {
#if VL == 16
  return (vi)_mm512_set1_epi32(x);
#elif VL == 8
  return (vi)_mm256_set1_epi32(x);
#else
  return (vi){x, x, x, x};
#endif
}
INLINE vi lanes(void) {
#if VL == 16
  return (vi){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#elif VL == 8
  return (vi){0, 1, 2, 3, 4, 5, 6, 7};
#else
  return (vi){0, 1, 2, 3};
#endif
}

/// The first n lanes, zeros after.
INLINE vf load_n(const float *p, int n) {
#if VL == 16
  return (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#else
  vf v = set(0);
  memcpy(&v, p, (size_t)n * 4);
  return v;
#endif
}
INLINE void store_n(float *p, vf v, int n) {
#if VL == 16
  _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
#else
  memcpy(p, &v, (size_t)n * 4);
#endif
}

/// a where the mask's lanes are -1, b where they are 0.
INLINE vf choose(vi mask, vf a, vf b) { return (vf)(((vi)a & mask) | ((vi)b & ~mask)); }
INLINE vf vmax(vf a, vf b) {
#if VL == 16
  return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif VL == 8
  return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#else
  return choose(a > b, a, b);
#endif
}
INLINE vf vmin(vf a, vf b) {
#if VL == 16
  return (vf)_mm512_min_ps((__m512)a, (__m512)b);
#elif VL == 8
  return (vf)_mm256_min_ps((__m256)a, (__m256)b);
#else
  return choose(a < b, a, b);
#endif
}
INLINE vf vround(vf a) {
#if VL == 16
  return (vf)_mm512_roundscale_ps((__m512)a, 8);
#elif VL == 8
  return (vf)_mm256_round_ps((__m256)a, 8);
#elif defined(__wasm__)
  return __builtin_elementwise_nearbyint(a);
#else
  for (int i = 0; i < VL; i++) a[i] = nearbyintf(a[i]);
  return a;
#endif
}
INLINE vi to_int(vf a) { return __builtin_convertvector(a, vi); }
INLINE vf to_float(vi a) { return __builtin_convertvector(a, vf); }
INLINE vf vabs(vf a) { return (vf)((vi)a & 0x7fffffff); }

INLINE float sum_of(vf a) {
#if VL == 16
  return _mm512_reduce_add_ps((__m512)a);
#else
  float s = 0;
  for (int i = 0; i < VL; i++) s += a[i];
  return s;
#endif
}
INLINE float max_in(vf a) {
#if VL == 16
  return _mm512_reduce_max_ps((__m512)a);
#else
  float s = a[0];
  for (int i = 1; i < VL; i++) s = a[i] > s ? a[i] : s;
  return s;
#endif
}

/// Subnormal halves are ordinary floats, so they must not pass through subnormal floats, which count as zero in a step.
INLINE float half_to_float(uint16_t h) {
  union { uint32_t u; float f; } v;
  const uint32_t magnitude = h & 0x7fff;
  if (magnitude < 0x400) v.f = (float)magnitude * 0x1p-24f;
  else v.u = (magnitude << 13) + (magnitude >= 0x7c00 ? 0x70000000 : 0x38000000);
  v.u |= (uint32_t)(h & 0x8000) << 16;
  return v.f;
}

/// VL halves in memory → floats.
INLINE vf load_half(const void *p) {
#if VL == 16
  return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
#elif VL == 8
  return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
#else
  typedef uint16_t halves __attribute__((vector_size(VL * 2), aligned(2), may_alias));
  const vu bits = __builtin_convertvector(*(const halves *)p, vu), magnitude = bits & 0x7fff;
  const vi special = magnitude >= 0x7c00, tiny = magnitude < 0x400;
  const vu normal = (magnitude << 13) + 0x38000000u + ((vu)special & 0x38000000u);
  const vf value = choose(tiny, to_float((vi)magnitude) * set(0x1p-24f), (vf)normal);
  return (vf)((vu)value | (bits & 0x8000u) << 16);
#endif
}
INLINE float bfloat_to_float(uint16_t h) {
  union { uint32_t u; float f; } v = {(uint32_t)h << 16};
  return v.f;
}
/// To the nearest, of two as near to the even one; not a number stays one.
INLINE uint16_t float_to_bfloat(float x) {
  union { float f; uint32_t u; } v = {x};
  if (x != x) return 0x7fc0;
  return (uint16_t)((v.u + 0x7fff + (v.u >> 16 & 1)) >> 16);
}
/// VL bfloat16 in memory → floats.
INLINE vf load_bfloat(const void *p) {
  typedef uint16_t halves __attribute__((vector_size(VL * 2), aligned(2), may_alias));
  return (vf)(__builtin_convertvector(*(const halves *)p, vu) << 16);
}
/// VL bytes in memory → floats.
INLINE vf load_bytes(const void *p, const int is_signed) {
  typedef uint8_t unsigned_bytes __attribute__((vector_size(VL), aligned(1), may_alias));
  typedef int8_t signed_bytes __attribute__((vector_size(VL), aligned(1), may_alias));
  return to_float(is_signed ? __builtin_convertvector(*(const signed_bytes *)p, vi) : __builtin_convertvector(*(const unsigned_bytes *)p, vi));
}
#endif
