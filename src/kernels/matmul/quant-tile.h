// Products with quantised weights: activations become bytes in groups of 32 columns with a scale, and four products of bytes are one instruction
// where the machine has it (AVX-512 VNNI). Elsewhere a group is unpacked to floats and multiplied as such.
#ifndef TYPERT_CPU_QUANT_TILE_H
#define TYPERT_CPU_QUANT_TILE_H
#include "include/cpu/pool.h"
#include "include/cpu/quant.h"
#include "matmul/tile.h"

#if VL == 16 && defined(__AVX512VNNI__)
#define HAS_VNNI 1
#else
#define HAS_VNNI 0
#endif

/// Activations as bytes: rows of k numbers, and for each group its scale and the sums of its halves.
typedef struct {
  int8_t *q;
  float *scale;
  int32_t *sums; // [rows][groups][2]
} byte_rows;

INLINE byte_rows byte_rows_at(char *memory, int64_t rows, int64_t k) {
  const int64_t groups = k / GROUP_COLUMNS;
  byte_rows b = {.q = (int8_t *)memory};
  b.scale = (float *)(memory + rows * k);
  b.sums = (int32_t *)(b.scale + rows * groups);
  return b;
}

#if HAS_VNNI
INLINE void quantise_group(const float *x, int8_t *q, float *scale, int32_t *sums) {
  const __m512 a = _mm512_loadu_ps(x), b = _mm512_loadu_ps(x + 16);
  const float most = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(a), _mm512_abs_ps(b)));
  const __m512 inverse = _mm512_set1_ps(most > 0 ? 127 / most : 0);
  const __m512i u = _mm512_cvtps_epi32(_mm512_mul_ps(a, inverse)), v = _mm512_cvtps_epi32(_mm512_mul_ps(b, inverse));
  _mm_storeu_si128((__m128i *)q, _mm512_cvtepi32_epi8(u));
  _mm_storeu_si128((__m128i *)(q + 16), _mm512_cvtepi32_epi8(v));
  *scale = most / 127;
  sums[0] = _mm512_reduce_add_epi32(u);
  sums[1] = _mm512_reduce_add_epi32(v);
}

// The compiler's own intrinsic makes it spill accumulators of large tiles; as text they stay in registers.
#define DOT(sum, weights, x) __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(weights), "v"(x))

/// Register j (columns 4j to 4j + 3) of a group, as bytes from 0.
INLINE __m512i quant_register(const int f, const char *group, int panel, int j) {
  const char *low = group + low_at(f, panel);
  if (f == W_Q8_0) return _mm512_loadu_si512(low + j * 64);
  const __m512i both = _mm512_loadu_si512(low + j / 2 * 64), mask = _mm512_set1_epi8(15);
  __m512i q = _mm512_and_si512(j % 2 ? _mm512_srli_epi16(both, 4) : both, mask);
  for (int p = 0; p < high_planes(f); p++) {
    uint64_t bits;
    memcpy(&bits, group + high_at(f, panel) + p * 64 + j * 8, 8);
    q = _mm512_mask_add_epi8(q, bits, q, _mm512_set1_epi8((char)(16 << p)));
  }
  return q;
}
INLINE __m512 sixteen_bytes(const char *p, const int is_signed) {
  const __m128i b = _mm_loadu_si128((const __m128i *)p);
  return _mm512_cvtepi32_ps(is_signed ? _mm512_cvtepi8_epi32(b) : _mm512_cvtepu8_epi32(b));
}

enum { QUANT_PREFETCH = 8192 };

/// y = x · w for rows and a pair of panels, all groups. Sums of a group are integers; Q6_K's scales change in the middle of one.
INLINE void quant_tile(const int f, const int rows, const int8_t *x, const float *x_scale, const int32_t *x_sums,
                       int64_t k, const char *w, float *out) {
  const int64_t groups = k / GROUP_COLUMNS;
  const int parts = f == W_Q6_K ? 2 : 1, quads = 8 / parts, lines = (group_bytes(f) + 511) / 512;
  __m512 total[TILE_ROWS][QUANT_PANELS], header[QUANT_PANELS], header_min[QUANT_PANELS];
#pragma GCC unroll 6
  for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
    for (int j = 0; j < QUANT_PANELS; j++) total[i][j] = _mm512_setzero_ps();
  for (int64_t g = 0; g < groups; g++) {
    if (has_header(f) && g % SUPER_GROUPS == 0) {
#pragma GCC unroll 2
      for (int j = 0; j < QUANT_PANELS; j++) {
        const __m256i *at = (const __m256i *)(w + header_offset(f, g, j));
        header[j] = _mm512_cvtph_ps(_mm256_loadu_si256(at));
        header_min[j] = _mm512_cvtph_ps(_mm256_loadu_si256(at + 1));
      }
    }
    const char *group = w + group_offset(f, g);
#pragma GCC unroll 2
    for (int part = 0; part < parts; part++) {
      __m512i dots[TILE_ROWS][QUANT_PANELS];
#pragma GCC unroll 6
      for (int i = 0; i < rows; i++) {
        const int32_t *s = x_sums + (i * groups + g) * 2;
        const int32_t sum = parts == 2 ? s[part] : s[0] + s[1];
#pragma GCC unroll 2
        for (int j = 0; j < QUANT_PANELS; j++) dots[i][j] = _mm512_set1_epi32(quant_offset(f) == 0 ? 0 : -quant_offset(f) * sum);
      }
#pragma GCC unroll 8
      for (int quad = part * quads; quad < (part + 1) * quads; quad++) {
        __m512i q[QUANT_PANELS];
        // Into the second cache only, and a few lines at a time: the first one has too few places for lines under way to keep memory busy.
#pragma GCC unroll 3
        for (int line = quad * lines; line < (quad + 1) * lines; line++) __builtin_prefetch(group + line * 64 + QUANT_PREFETCH, 0, 2);
#pragma GCC unroll 2
        for (int j = 0; j < QUANT_PANELS; j++) q[j] = quant_register(f, group, j, quad);
#pragma GCC unroll 6
        for (int i = 0; i < rows; i++) {
          int32_t four;
          memcpy(&four, x + i * k + g * GROUP_COLUMNS + quad * 4, 4);
          const __m512i b = _mm512_set1_epi32(four);
#pragma GCC unroll 2
          for (int j = 0; j < QUANT_PANELS; j++) DOT(dots[i][j], q[j], b);
        }
      }
#pragma GCC unroll 2
      for (int j = 0; j < QUANT_PANELS; j++) {
        const char *at = group + scales_at(f, j);
        __m512 scale, shift = _mm512_setzero_ps();
        if (has_header(f)) {
          scale = _mm512_mul_ps(header[j], sixteen_bytes(at + part * 16, f == W_Q6_K));
          if (has_minimum(f)) shift = _mm512_mul_ps(header_min[j], sixteen_bytes(at + 16, 0));
        } else {
          scale = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)at));
          if (has_minimum(f)) shift = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(at + 32)));
        }
#pragma GCC unroll 6
        for (int i = 0; i < rows; i++) {
          const float xs = x_scale[i * groups + g];
          total[i][j] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[i][j]), _mm512_mul_ps(scale, _mm512_set1_ps(xs)), total[i][j]);
          if (has_minimum(f)) {
            const int32_t *s = x_sums + (i * groups + g) * 2;
            const float product = xs * (float)(s[0] + s[1]);
            // The K formats' minimum is taken away.
            total[i][j] = _mm512_fmadd_ps(shift, _mm512_set1_ps(has_header(f) ? -product : product), total[i][j]);
          }
        }
      }
    }
  }
#pragma GCC unroll 6
  for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
    for (int j = 0; j < QUANT_PANELS; j++) _mm512_storeu_ps(out + i * GROUP + j * PANEL, total[i][j]);
}

#define QUANT_ROWS(name, f)                                                                                                  \
  __attribute__((noinline, unused)) static void name(int rows, const byte_rows *x, int64_t first, int64_t k, const char *w, \
                                                     float *out) {                                                         \
    const int64_t groups = k / GROUP_COLUMNS;                                                                              \
    const int8_t *q = x->q + first * k;                                                                                    \
    const float *scale = x->scale + first * groups;                                                                        \
    const int32_t *sums = x->sums + first * groups * 2;                                                                    \
    switch (rows) {                                                                                                        \
      case 1: quant_tile(f, 1, q, scale, sums, k, w, out); break;                                                          \
      case 2: quant_tile(f, 2, q, scale, sums, k, w, out); break;                                                          \
      case 3: quant_tile(f, 3, q, scale, sums, k, w, out); break;                                                          \
      case 4: quant_tile(f, 4, q, scale, sums, k, w, out); break;                                                          \
      case 5: quant_tile(f, 5, q, scale, sums, k, w, out); break;                                                          \
      default: quant_tile(f, 6, q, scale, sums, k, w, out);                                                                \
    }                                                                                                                      \
  }
QUANT_ROWS(quant_rows_q8_0, W_Q8_0)
QUANT_ROWS(quant_rows_q4_0, W_Q4_0)
QUANT_ROWS(quant_rows_q4_1, W_Q4_1)
QUANT_ROWS(quant_rows_q5_0, W_Q5_0)
QUANT_ROWS(quant_rows_q5_1, W_Q5_1)
QUANT_ROWS(quant_rows_q4_k, W_Q4_K)
QUANT_ROWS(quant_rows_q5_k, W_Q5_K)
QUANT_ROWS(quant_rows_q6_k, W_Q6_K)

typedef void (*quant_rows_fn)(int, const byte_rows *, int64_t, int64_t, const char *, float *);
INLINE quant_rows_fn quant_rows_of(const int f) {
  return f == W_Q8_0   ? quant_rows_q8_0
         : f == W_Q4_0 ? quant_rows_q4_0
         : f == W_Q4_1 ? quant_rows_q4_1
         : f == W_Q5_0 ? quant_rows_q5_0
         : f == W_Q5_1 ? quant_rows_q5_1
         : f == W_Q4_K ? quant_rows_q4_k
         : f == W_Q5_K ? quant_rows_q5_k
                       : quant_rows_q6_k;
}

/// Rows [first, first + count) of byte activations times one pair of panels, of whose rows `columns` are real.
INLINE void quant_pair(const int f, const byte_rows *x, int64_t first, int64_t count, const char *w, float *const *y, int64_t k,
                       int64_t columns, const float *bias) {
  const int64_t tiles = ceil_div(count, TILE_ROWS);
  _Alignas(64) float sums[TILE_ROWS * GROUP];
  for (int64_t t = 0; t < tiles; t++) {
    const int64_t begin = count * t / tiles, rows = count * (t + 1) / tiles - begin;
    quant_rows_of(f)((int)rows, x, first + begin, k, w, sums);
    finish_tile(sums, rows, min_of(columns, PAIR), bias, 1, y + begin);
  }
}
#endif

/// The same without instructions for bytes: groups are unpacked to floats, which all rows then use.
INLINE void unpacked_pair(const int f, int64_t count, const float *const *x, const char *w, float *const *y, int64_t k,
                          int64_t columns, const float *bias) {
  const int64_t tiles = ceil_div(count, TILE_ROWS), width = min_of(columns, PAIR);
  enum { UNPACKED = 4 }; // groups at a time
  _Alignas(64) float block[UNPACKED * GROUP_COLUMNS * GROUP], sums[TILE_ROWS * GROUP];
  // A pair is half a block of float weights; the other half is computed along where a tile holds it, and not kept.
  if (TILE_PANELS > QUANT_PANELS) memset(block, 0, sizeof block);
  for (int64_t g = 0; g < k / GROUP_COLUMNS; g += UNPACKED) {
    const int64_t now = min_of(UNPACKED, k / GROUP_COLUMNS - g);
    for (int64_t i = 0; i < now; i++)
      for (int j = 0; j < QUANT_PANELS; j++) unpack_group(f, w, g + i, j, block + i * GROUP_COLUMNS * GROUP + j * PANEL, GROUP);
    const column_run run = {0, now * GROUP_COLUMNS};
    for (int64_t t = 0; t < tiles; t++) {
      const int64_t begin = count * t / tiles, rows = count * (t + 1) / tiles - begin;
      const float *from[TILE_ROWS];
      for (int64_t i = 0; i < rows; i++) from[i] = x[begin + i] + g * GROUP_COLUMNS;
      for (int64_t p = 0; p * PANEL < width; p += TILE_PANELS)
        float_rows_f32((int)rows, from, (const char *)(block + p * PANEL), &run, sums + p * PANEL);
      finish_tile(sums, rows, width, bias, g == 0, y + begin);
    }
  }
}

/// Rows of a weight that lie together, and their bytes.
INLINE int64_t weight_block(const int format) { return is_quant(format) ? PAIR : GROUP; }
INLINE int64_t weight_block_bytes(const int format, int64_t k) { return is_quant(format) ? pair_bytes(format, k) : block_bytes(format, k); }
#endif
