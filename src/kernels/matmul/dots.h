// Sums of products of whole numbers, as the machine has them: a register of VL rows × 4 columns times four numbers of a row of x, which every lane
// has the same.
#ifndef TYPERT_CPU_DOTS_H
#define TYPERT_CPU_DOTS_H
#include "matmul/byte-rows.h"
#ifdef __ARM_NEON
#include <arm_neon.h>
#endif

// From intrinsics the compiler makes trees of sums and spills the accumulators of large tiles; as text both stay as they are.
#if VL == 16
#define REGISTER "v"
#elif VL == 8
#define REGISTER "x"
#endif

/// Keeps a value in its register: the compiler would rather load it again, and again.
INLINE void keep(vi *value) {
#ifdef REGISTER
  __asm__("" : "+" REGISTER(*value));
#elif defined(__aarch64__)
  __asm__("" : "+w"(*value));
#else
  (void)value;
#endif
}

/// sum + Σ of four products; weights from 0 (x86) or signed (arm64).
INLINE vi dot_fours(vi sum, vi weights, vi x) {
#if VL == 16 && defined(__AVX512VNNI__)
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(weights), "v"(x));
#elif VL == 8 && defined(__AVXVNNI__)
  __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(weights), "x"(x));
#elif defined(__ARM_FEATURE_DOTPROD)
  sum = (vi)vdotq_s32((int32x4_t)sum, (int8x16_t)weights, (int8x16_t)x);
#else
  (void)weights, (void)x;
#endif
  return sum;
}

/// The same in two 16-bit sums of two products.
INLINE vi dot_pairs(vi sum, vi weights, vi x) {
#ifdef REGISTER
  vi products;
  __asm__("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0" : "+" REGISTER(sum), "=&" REGISTER(products) : REGISTER(weights), REGISTER(x));
#else
  (void)weights, (void)x;
#endif
  return sum;
}
/// sum + Σ of two products of 16-bit numbers.
INLINE vi dot_words(vi sum, vi weights, vi x) {
#ifdef REGISTER
  vi products;
  __asm__("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+" REGISTER(sum), "=&" REGISTER(products) : REGISTER(weights), REGISTER(x));
  return sum;
#elif defined(__SSE2__)
  return sum + (vi)_mm_madd_epi16((__m128i)weights, (__m128i)x);
#elif defined(__wasm_simd128__)
  return sum + (vi)__builtin_wasm_dot_s_i32x4_i16x8((vw)weights, (vw)x);
#elif defined(__aarch64__)
  const int16x8_t w = (int16x8_t)weights, v = (int16x8_t)x;
  return sum + (vi)vpaddq_s32(vmull_s16(vget_low_s16(w), vget_low_s16(v)), vmull_high_s16(w, v));
#else
  return sum + (weights << 16 >> 16) * (x << 16 >> 16) + (weights >> 16) * (x >> 16);
#endif
}
/// As two `dot_words` of the registers of a quad, and what its neighbours' products with each other add: (x0 + w1) · (x1 + w0) is
/// x0 · w0 + x1 · w1 + x0 · x1 + w0 · w1, of which the last two are known beforehand, of a row and of the weight (Winograd's inner product).
INLINE vi dot_folded(vi sum, const vi *weights, const vi *x) {
  return dot_words(sum, (vi)((vw)weights[1] + (vw)x[0]), (vi)((vw)weights[0] + (vw)x[1]));
}
/// Both 16-bit sums of a lane together.
INLINE vi join_pairs(vi sums) {
#if VL == 16
  return (vi)_mm512_madd_epi16((__m512i)sums, _mm512_set1_epi16(1));
#elif VL == 8
  return (vi)_mm256_madd_epi16((__m256i)sums, _mm256_set1_epi16(1));
#else
  return (sums << 16 >> 16) + (sums >> 16);
#endif
}

/// Four numbers of a row in every lane: one register, or two of words.
INLINE void four_numbers(const int way, const char *from, vi *x) {
  typedef int32_t loose __attribute__((aligned(1), may_alias));
  x[0] = set_i(*(const loose *)from);
  if (way == BY_WORDS) x[1] = set_i(*(const loose *)(from + 4));
}
/// What a register of the weight's numbers times a row's four adds.
INLINE vi dot(const int way, vi sum, const vi *weights, const vi *x) {
  if (way == BY_FOURS) return dot_fours(sum, weights[0], x[0]);
  if (way == BY_PAIRS) return dot_pairs(sum, weights[0], x[0]);
  return dot_words(dot_words(sum, weights[0], x[0]), weights[1], x[1]);
}

/// Register y of a pair of panels (rows y · VL and on), columns 4 · quad to 4 · quad + 3, as stored: four bytes a lane.
INLINE vu stored_numbers(const int f, const char *group, int y, int quad) {
  const int panel = y / PV, at = y % PV * VL * 4;
  const char *low = group + low_at(f, panel) + at;
  if (eight_bits(f)) return load_u(low + quad * 64);
  vu q = load_u(low + quad / 2 * 64);
  q = (quad % 2 ? q >> 4 : q) & 0x0f0f0f0fu;
  if (high_planes(f) == 0) return q;
  // Bits of a number stand side by side: one of eight quads in a byte, or two of four.
  const int bits = high_planes(f), shift = quad * bits % 8;
  const vu high = load_u(group + high_at(f, panel) + quad * bits / 8 * 64 + at);
  return q | ((shift <= 4 ? high << (4 - shift) : high >> (shift - 4)) & (bits == 2 ? 0x30303030u : 0x10101010u));
}

/// The same as `dot` takes them.
INLINE void numbers_of(const int f, const char *group, int y, int quad, vi *out) {
  vu q = stored_numbers(f, group, y, quad);
  if (eight_bits(f) && HAS_FOURS && FOURS_SIGNED) q ^= 0x80808080u;
  if (dot_way(f) == BY_WORDS) {
    out[0] = (vi)(q & 0x00ff00ffu);
    out[1] = (vi)(q >> 8 & 0x00ff00ffu);
  } else {
    out[0] = (vi)q;
  }
}

/// Scales of register y, and what `second` of a row's slot is multiplied by: shifts, or of Q6_K the scales of the second half.
INLINE void scales_of(const int f, const char *pair, int64_t g, int y, vf *scale, vf *second) {
  const int panel = y / PV, lane = y % PV * VL;
  const char *at = pair + group_offset(f, g) + scales_at(f, panel), *header = pair + header_offset(f, g, panel);
  *second = set(0);
  if (!has_header(f)) {
    *scale = load_half(at + lane * 2);
    if (has_minimum(f)) *second = load_half(at + 32 + lane * 2);
  } else {
    const vf factor = load_half(header + lane * 2);
    *scale = factor * load_bytes(at + lane, f == W_Q6_K);
    if (f == W_Q6_K) *second = factor * load_bytes(at + PANEL + lane, 1);
    else *second = -load_half(header + 32 + lane * 2) * load_bytes(at + PANEL + lane, 0);
  }
  if (has_minimum(f) && !eight_bits(f)) *second += *scale * set((float)(sum_offset(f) - quant_offset(f)));
}
#endif
