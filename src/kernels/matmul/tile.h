// The product of a few rows of x with a few panels of the weight, kept in registers over a run of columns. Used by matmul and by mixture of experts.
#ifndef TYPERT_CPU_TILE_H
#define TYPERT_CPU_TILE_H
#include "include/cpu/weights.h"

// Rows × panels of a tile: as many accumulators as leave registers for the weights and one broadcast.
#if VL == 16
#define TILE_ROWS 6
#define PANELS_OF(rows) 4
#elif VL == 8
#define TILE_ROWS 6
#define PANELS_OF(rows) ((rows) == 1 ? 4 : (rows) <= 3 ? 2 : 1)
#elif defined(__aarch64__)
#define TILE_ROWS 6
#define PANELS_OF(rows) ((rows) == 1 ? 4 : (rows) <= 3 ? 2 : 1)
#else
#define TILE_ROWS 3
#define PANELS_OF(rows) ((rows) == 1 ? 2 : 1)
#endif
enum { TILE_PANELS = PANELS_OF(1) };
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
    // Two columns of the block are 256 or 512 bytes; a tile of some panels asks for the lines that it reads itself.
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

/// All panels of a block, as many at a time as the rows leave registers for.
INLINE void float_block(const int format, const int rows, const float *const *x, const char *w, const column_run *run, int64_t width, float *out) {
  for (int64_t p = 0; p * PANEL < width; p += PANELS_OF(rows))
    float_tile(format, rows, PANELS_OF(rows), x, w + p * panel_step(format), run, out + p * PANEL);
}

/// One function for each format: a loop for each number of rows.
#define FLOAT_ROWS(name, format)                                                                                              \
  __attribute__((noinline, unused)) static void name(int rows, const float *const *x, const char *w, const column_run *run,   \
                                                     int64_t width, float *out) {                                             \
    switch (rows) {                                                                                                           \
      case 1: float_block(format, 1, x, w, run, width, out); break;                                                           \
      case 2: float_block(format, 2, x, w, run, width, out); break;                                                           \
      case 3: float_block(format, 3, x, w, run, width, out); break;                                                           \
      case 4: float_block(format, MOST_ROWS(4), x, w, run, width, out); break;                                                \
      case 5: float_block(format, MOST_ROWS(5), x, w, run, width, out); break;                                                \
      default: float_block(format, MOST_ROWS(6), x, w, run, width, out);                                                      \
    }                                                                                                                         \
  }
#define MOST_ROWS(rows) ((rows) < TILE_ROWS ? (rows) : TILE_ROWS)
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

// Where vectors are shorter than a panel, many rows share a run of a block that is laid open first: floats, panel after panel. A panel of it stays in
// the nearest cache while all rows are multiplied by it.
enum { OPEN_COLUMNS = 256, FLOAT_ROWS_MOST = 144 };
typedef struct {
  _Alignas(64) float open[GROUP_PANELS][OPEN_COLUMNS * PANEL];
  _Alignas(64) float sums[FLOAT_ROWS_MOST * GROUP];
} float_room;

INLINE void open_floats(const int format, const char *w, const column_run *run, float_room *room) {
  const int64_t pairs = run->from + (run->to - run->from) / 2 * 2;
  int64_t k = run->from, at = 0;
  for (; k < pairs; k += 2, at += 2 * PANEL) {
#pragma GCC unroll 4
    for (int p = 0; p < GROUP_PANELS; p++) {
#pragma GCC unroll 4
      for (int v = 0; v < PV; v++) {
        vf first, second;
        weight_pair(format, w + p * panel_step(format), k, v, &first, &second);
        store(room->open[p] + at + v * VL, first);
        store(room->open[p] + at + PANEL + v * VL, second);
      }
    }
  }
  if (k < run->to) {
    for (int p = 0; p < GROUP_PANELS; p++)
      for (int v = 0; v < PV; v++) store(room->open[p] + at + v * VL, weight_single(format, w + p * panel_step(format), k, v));
  }
}

/// Rows of x from column `from` on times an open panel; `sums` [rows][GROUP] goes on.
INLINE void open_floats_tile(const int rows, const float *const *x, int64_t from, const float *open, int64_t columns, float *sums) {
  vf s[TILE_ROWS][PV];
  const float *at[TILE_ROWS];
#pragma GCC unroll 6
  for (int i = 0; i < rows; i++) {
    at[i] = x[i] + from;
#pragma GCC unroll 4
    for (int v = 0; v < PV; v++) s[i][v] = load(sums + i * GROUP + v * VL);
  }
#pragma GCC unroll 4
  for (int64_t k = 0; k < columns; k++) {
    vf w[PV];
#pragma GCC unroll 4
    for (int v = 0; v < PV; v++) w[v] = load(open + k * PANEL + v * VL);
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++) {
      const vf a = set(at[i][k]);
#pragma GCC unroll 4
      for (int v = 0; v < PV; v++) s[i][v] += w[v] * a;
    }
  }
#pragma GCC unroll 6
  for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
    for (int v = 0; v < PV; v++) store(sums + i * GROUP + v * VL, s[i][v]);
}
__attribute__((noinline, unused)) static void open_floats_rows(int64_t rows, const float *const *x, int64_t from, const float *open, int64_t columns, float *sums) {
  switch (rows) {
    case 1: open_floats_tile(1, x, from, open, columns, sums); break;
    case 2: open_floats_tile(2, x, from, open, columns, sums); break;
    case 3: open_floats_tile(3, x, from, open, columns, sums); break;
    case 4: open_floats_tile(MOST_ROWS(4), x, from, open, columns, sums); break;
    case 5: open_floats_tile(MOST_ROWS(5), x, from, open, columns, sums); break;
    default: open_floats_tile(MOST_ROWS(6), x, from, open, columns, sums);
  }
}

INLINE void float_group_open(const int format, float_room *room, int64_t count, const float *const *x, const char *w, float *const *y, int64_t k,
                             int64_t columns, const float *bias) {
  const int64_t tiles = ceil_div(count, TILE_ROWS), width = min_of(columns, GROUP);
  memset(room->sums, 0, (size_t)(count * GROUP) * 4);
  column_run run;
  for (run.from = 0; run.from < k; run.from = run.to) {
    run.to = min_of(k, run.from + OPEN_COLUMNS);
    open_floats(format, w, &run, room);
    // What is laid open next follows in memory: it is asked for a little with every tile, so that memory works while this one does.
    const char *next = w + run.to * element_bytes(format) * GROUP;
    const int64_t share = ceil_div(OPEN_COLUMNS * element_bytes(format) * GROUP, ceil_div(width, PANEL) * tiles);
    for (int64_t p = 0; p * PANEL < width; p++) {
      for (int64_t t = 0; t < tiles; t++) {
        const int64_t begin = count * t / tiles, rows = count * (t + 1) / tiles - begin;
        for (int64_t line = 0; line < share; line += 64) __builtin_prefetch(next + line, 0, 2);
        next += share;
        open_floats_rows(rows, x + begin, run.from, room->open[p], run.to - run.from, room->sums + begin * GROUP + p * PANEL);
      }
    }
  }
  finish_tile(room->sums, count, width, bias, 1, y);
}

/// y = x · weightᵀ for `count` rows (given by their addresses) and one block of the weight, of whose rows `columns` are real.
INLINE void float_group(const int format, float_room *room, int64_t count, const float *const *x, const char *w, float *const *y, int64_t k,
                        int64_t columns, const float *bias) {
  void (*const multiply)(int, const float *const *, const char *, const column_run *, int64_t, float *) =
      format == W_F32 ? float_rows_f32 : format == W_BF16 ? float_rows_bf16 : float_rows_f16;
  const int64_t tiles = ceil_div(count, TILE_ROWS), width = min_of(columns, GROUP);
  if (VL < PANEL && tiles > 1) {
    float_group_open(format, room, count, x, w, y, k, columns, bias);
    return;
  }
  // A run of weights that many rows use stays in the core's cache between them; one that few use is read through once, or in runs short enough to
  // stay in the nearest cache where not all panels are multiplied together.
  const int64_t far = (int64_t)(256 << 10) / (GROUP * element_bytes(format)), near = (int64_t)(16 << 10) / (GROUP * element_bytes(format));
  const int64_t run_columns = tiles > 1 ? far / 2 * 2 : PANELS_OF(count) < GROUP_PANELS ? near / 2 * 2 : k;
  _Alignas(64) float sums[TILE_ROWS * GROUP];
  column_run run;
  for (run.from = 0; run.from < k; run.from = run.to) {
    run.to = min_of(k, run.from + run_columns);
    for (int64_t t = 0; t < tiles; t++) {
      const int64_t begin = count * t / tiles, rows = count * (t + 1) / tiles - begin;
      multiply((int)rows, x + begin, w, &run, width, sums);
      finish_tile(sums, rows, width, bias, run.from == 0, y + begin);
    }
  }
}
#endif
