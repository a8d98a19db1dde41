// The product of a few rows of x with a few panels of the weight, kept in registers over a run of columns. Used by matmul and by mixture of experts.
#ifndef TYPERT_CPU_TILE_H
#define TYPERT_CPU_TILE_H
#include "include/cpu/weights.h"

// Rows × panels of a tile: as many accumulators as leave registers for the weights and one broadcast.
enum { TILE_ROWS = 6, TILE_PANELS = VL == 16 ? 4 : 1 };
/// Panels that are computed by one claim.
enum { GROUP_PANELS = 4, GROUP = GROUP_PANELS * PANEL };
/// Bytes that are asked for ahead of their use; one core's own prefetcher does not reach memory's speed.
enum { PREFETCH_BYTES = 3072 };

/// Panel columns k and k + 1 (k even) as floats: `first` and `second` each hold PV vectors.
INLINE void weight_pair(const int format, const char *panel, int64_t k, vf *first, vf *second) {
  for (int v = 0; v < PV; v++) {
    if (format == W_BF16) {
      const vu both = load_u(panel + k * PANEL * 2 + v * VL * 4);
      first[v] = (vf)(both << 16);
      second[v] = (vf)(both & 0xffff0000u);
    } else if (format == W_F16) {
      first[v] = load_half(panel + (k * PANEL + v * VL) * 2);
      second[v] = load_half(panel + ((k + 1) * PANEL + v * VL) * 2);
    } else {
      first[v] = load((const float *)panel + k * PANEL + v * VL);
      second[v] = load((const float *)panel + (k + 1) * PANEL + v * VL);
    }
  }
}
INLINE vf weight_single(const int format, const char *panel, int64_t k, int v) {
  if (format == W_BF16) return (vf)(load_u(panel + k * PANEL * 2 + v * VL * 4) << 16);
  if (format == W_F16) return load_half(panel + (k * PANEL + v * VL) * 2);
  return load((const float *)panel + k * PANEL + v * VL);
}

/// A run of the weight's columns.
typedef struct {
  int64_t stride;   // bytes from panel to panel
  int64_t from, to; // `from` even
} column_run;

/// sums[row][panel · 16 + lane] = Σ x[row][k] · w[panel][k][lane] over the run.
INLINE void float_tile(const int format, const int rows, const int panels, const float *const *x, const char *w,
                       const column_run *run, float *out) {
  vf sums[TILE_ROWS][TILE_PANELS][PV];
  const int64_t stride = run->stride;
#pragma GCC unroll 6
  for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
    for (int j = 0; j < panels; j++)
#pragma GCC unroll 4
      for (int v = 0; v < PV; v++) sums[i][j][v] = set(0);
  int64_t k = run->from;
  const int64_t pairs = run->from + (run->to - run->from) / 2 * 2;
  const int64_t bytes = element_bytes(format) * PANEL;
  for (; k < pairs; k += 2) {
    vf first[TILE_PANELS][PV], second[TILE_PANELS][PV];
    // Past a panel's end come the panels that are read beside it, so the next to be read are further on.
    const int64_t ahead = k * bytes + PREFETCH_BYTES, skip = ahead >= stride ? ahead + (panels - 1) * stride : ahead;
#pragma GCC unroll 4
    for (int j = 0; j < panels; j++) {
      __builtin_prefetch(w + j * stride + skip);
      if (format == W_F32) __builtin_prefetch(w + j * stride + skip + bytes);
      weight_pair(format, w + j * stride, k, first[j], second[j]);
    }
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++) {
      const vf a = set(x[i][k]);
#pragma GCC unroll 4
      for (int j = 0; j < panels; j++)
#pragma GCC unroll 4
        for (int v = 0; v < PV; v++) sums[i][j][v] += first[j][v] * a;
    }
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++) {
      const vf b = set(x[i][k + 1]);
#pragma GCC unroll 4
      for (int j = 0; j < panels; j++)
#pragma GCC unroll 4
        for (int v = 0; v < PV; v++) sums[i][j][v] += second[j][v] * b;
    }
  }
  if (k < run->to) {
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
      for (int j = 0; j < panels; j++)
#pragma GCC unroll 4
        for (int v = 0; v < PV; v++) sums[i][j][v] += weight_single(format, w + j * stride, k, v) * set(x[i][k]);
  }
#pragma GCC unroll 6
  for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
    for (int j = 0; j < panels; j++)
#pragma GCC unroll 4
      for (int v = 0; v < PV; v++) store(out + i * GROUP + j * PANEL + v * VL, sums[i][j][v]);
}

/// One function for each format: a loop for each number of rows, with all panels of a group or with one.
#define FLOAT_ROWS(name, format)                                                                                        \
  __attribute__((noinline, unused)) static void name(int rows, int wide, const float *const *x, const char *w,          \
                                                     const column_run *run, float *out) {                               \
    switch (rows + (wide ? 8 : 0)) {                                                                                    \
      case 1: float_tile(format, 1, 1, x, w, run, out); break;                                                          \
      case 2: float_tile(format, 2, 1, x, w, run, out); break;                                                          \
      case 3: float_tile(format, 3, 1, x, w, run, out); break;                                                          \
      case 4: float_tile(format, 4, 1, x, w, run, out); break;                                                          \
      case 5: float_tile(format, 5, 1, x, w, run, out); break;                                                          \
      case 6: float_tile(format, 6, 1, x, w, run, out); break;                                                          \
      case 9: float_tile(format, 1, TILE_PANELS, x, w, run, out); break;                                                \
      case 10: float_tile(format, 2, TILE_PANELS, x, w, run, out); break;                                               \
      case 11: float_tile(format, 3, TILE_PANELS, x, w, run, out); break;                                               \
      case 12: float_tile(format, 4, TILE_PANELS, x, w, run, out); break;                                               \
      case 13: float_tile(format, 5, TILE_PANELS, x, w, run, out); break;                                               \
      default: float_tile(format, 6, TILE_PANELS, x, w, run, out);                                                      \
    }                                                                                                                   \
  }
FLOAT_ROWS(float_rows_f32, W_F32)
FLOAT_ROWS(float_rows_bf16, W_BF16)
FLOAT_ROWS(float_rows_f16, W_F16)

/// Adds a tile's sums to the bias (at the first run of columns) or to what stands in y (at later ones).
__attribute__((noinline, unused)) static void finish_tile(const float *sums, int64_t rows, int64_t columns, const float *bias,
                                                          int first, float *const *y) {
  for (int64_t i = 0; i < rows; i++, sums += GROUP) {
    const float *add = first ? bias : y[i];
    int64_t c = 0;
    for (; c + VL <= columns; c += VL) store(y[i] + c, add == NULL ? load(sums + c) : load(sums + c) + load(add + c));
    for (; c < columns; c++) y[i][c] = add == NULL ? sums[c] : sums[c] + add[c];
  }
}

/// y = x · weightᵀ for `count` rows (given by their addresses) and one group of up to GROUP_PANELS panels.
INLINE void float_group(const int format, int64_t count, const float *const *x, const char *w, float *const *y, int64_t k,
                        int64_t columns, const float *bias) {
  void (*const multiply)(int, int, const float *const *, const char *, const column_run *, float *) =
      format == W_F32 ? float_rows_f32 : format == W_BF16 ? float_rows_bf16 : float_rows_f16;
  const int64_t tiles = ceil_div(count, TILE_ROWS);
  // A run of weights that many rows use stays in the core's cache between them; a long row of few tiles is read through once.
  const int64_t run_columns = tiles == 1 ? k : max_of(256, (int64_t)(256 << 10) / (GROUP * element_bytes(format)) / 2 * 2);
  column_run run = {.stride = panel_bytes(format, k)};
  const int64_t width = min_of(columns, GROUP), panels = ceil_div(width, PANEL);
  _Alignas(64) float sums[TILE_ROWS * GROUP];
  for (run.from = 0; run.from < k; run.from = run.to) {
    run.to = min_of(k, run.from + run_columns);
    for (int64_t t = 0; t < tiles; t++) {
      const int64_t begin = count * t / tiles, rows = count * (t + 1) / tiles - begin;
      if (TILE_PANELS > 1 && panels == TILE_PANELS) {
        multiply((int)rows, 1, x + begin, w, &run, sums);
      } else {
        for (int64_t p = 0; p < panels; p++) multiply((int)rows, 0, x + begin, w + p * run.stride, &run, sums + p * PANEL);
      }
      finish_tile(sums, rows, width, bias, run.from == 0, y + begin);
    }
  }
}
#endif
