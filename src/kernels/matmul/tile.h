// The product of a few rows of x with a few panels of the weight, kept in registers over a run of columns. Used by matmul and by mixture of experts.
#ifndef TYPERT_CPU_TILE_H
#define TYPERT_CPU_TILE_H
#include "include/cpu/weights.h"

// Rows × panels of a tile: as many accumulators as leave registers for the weights and one broadcast.
enum { TILE_ROWS = 6, TILE_PANELS = VL == 16 ? 4 : 1 };
/// Bytes that are asked for ahead of their use; one core's own prefetcher does not reach memory's speed.
enum { PREFETCH_BYTES = 4096 };

/// Vector v of a panel at columns k and k + 1 (k even); `w` is the panel's first byte in its block.
INLINE void weight_pair(const int format, const char *w, int64_t k, int v, vf *first, vf *second) {
  if (format == W_BF16) {
    const vu both = load_u(w + k * GROUP * 2 + v * VL * 4);
    *first = (vf)(both << 16);
    *second = (vf)(both & 0xffff0000u);
  } else if (format == W_F16) {
    *first = load_half(w + (k * GROUP + v * VL) * 2);
    *second = load_half(w + ((k + 1) * GROUP + v * VL) * 2);
  } else {
    *first = load((const float *)w + k * GROUP + v * VL);
    *second = load((const float *)w + (k + 1) * GROUP + v * VL);
  }
}
INLINE vf weight_single(const int format, const char *w, int64_t k, int v) {
  if (format == W_BF16) return (vf)(load_u(w + k * GROUP * 2 + v * VL * 4) << 16);
  if (format == W_F16) return load_half(w + (k * GROUP + v * VL) * 2);
  return load((const float *)w + k * GROUP + v * VL);
}
/// Bytes from panel to panel of a block.
INLINE int64_t panel_step(const int format) { return PANEL * (format == W_BF16 ? 4 : element_bytes(format)); }

/// A run of the weight's columns.
typedef struct {
  int64_t from, to; // `from` even
} column_run;

/// sums[row][panel · 16 + lane] = Σ x[row][k] · w[panel][k][lane] over the run.
INLINE void float_tile(const int format, const int rows, const int panels, const float *const *x, const char *w,
                       const column_run *run, float *out) {
  vf sums[TILE_ROWS][TILE_PANELS][PV];
  const int64_t stride = panel_step(format);
#pragma GCC unroll 6
  for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
    for (int j = 0; j < panels; j++)
#pragma GCC unroll 4
      for (int v = 0; v < PV; v++) sums[i][j][v] = set(0);
  int64_t k = run->from;
  const int64_t pairs = run->from + (run->to - run->from) / 2 * 2;
  const int64_t bytes = element_bytes(format) * GROUP;
  for (; k < pairs; k += 2) {
    vf first[TILE_PANELS][PV], second[TILE_PANELS][PV];
    // Two columns of the block are 256 or 512 bytes; a tile of one panel asks for the lines that it reads itself.
    for (int line = 0; line < panels * stride * (format == W_BF16 ? 1 : 2); line += 64) __builtin_prefetch(w + k * bytes + line + PREFETCH_BYTES);
#pragma GCC unroll 4
    for (int j = 0; j < panels; j++)
#pragma GCC unroll 4
      for (int v = 0; v < PV; v++) weight_pair(format, w + j * stride, k, v, &first[j][v], &second[j][v]);
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

/// One function for each format: a loop for each number of rows.
#define FLOAT_ROWS(name, format)                                                                                        \
  __attribute__((noinline, unused)) static void name(int rows, const float *const *x, const char *w, const column_run *run, \
                                                     float *out) {                                                      \
    switch (rows) {                                                                                                     \
      case 1: float_tile(format, 1, TILE_PANELS, x, w, run, out); break;                                                \
      case 2: float_tile(format, 2, TILE_PANELS, x, w, run, out); break;                                                \
      case 3: float_tile(format, 3, TILE_PANELS, x, w, run, out); break;                                                \
      case 4: float_tile(format, 4, TILE_PANELS, x, w, run, out); break;                                                \
      case 5: float_tile(format, 5, TILE_PANELS, x, w, run, out); break;                                                \
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

/// y = x · weightᵀ for `count` rows (given by their addresses) and one block of the weight, of whose rows `columns` are real.
INLINE void float_group(const int format, int64_t count, const float *const *x, const char *w, float *const *y, int64_t k,
                        int64_t columns, const float *bias) {
  void (*const multiply)(int, const float *const *, const char *, const column_run *, float *) =
      format == W_F32 ? float_rows_f32 : format == W_BF16 ? float_rows_bf16 : float_rows_f16;
  const int64_t tiles = ceil_div(count, TILE_ROWS), width = min_of(columns, GROUP);
  // A run of weights that many rows use stays in the core's cache between them; one that few use is read through once.
  const int64_t run_columns = tiles == 1 ? k : (int64_t)(256 << 10) / (GROUP * element_bytes(format)) / 2 * 2;
  _Alignas(64) float sums[TILE_ROWS * GROUP];
  column_run run;
  for (run.from = 0; run.from < k; run.from = run.to) {
    run.to = min_of(k, run.from + run_columns);
    for (int64_t t = 0; t < tiles; t++) {
      const int64_t begin = count * t / tiles, rows = count * (t + 1) / tiles - begin;
      for (int64_t p = 0; p * PANEL < width; p += TILE_PANELS)
        multiply((int)rows, x + begin, w + p * panel_step(format), &run, sums + p * PANEL);
      finish_tile(sums, rows, width, bias, run.from == 0, y + begin);
    }
  }
}
#endif
