// Products with weights in bfloat16 by AMX: registers that hold 16 rows of 64 bytes, multiplied in one instruction. Weights are stored as these registers
// want them. Whole numbers have no way of this kind: the sums of each group of 32 columns must leave the registers to be scaled, which makes it slower
// than VNNI (0.7 × of it on a Xeon, measured).
#ifndef TYPERT_CPU_AMX_H
#define TYPERT_CPU_AMX_H
#include "include/cpu/amx.h"
#include "matmul/tile.h"
#if HAS_AMX

/// A tile's shape in the registers' configuration: rows, and bytes of a row.
typedef struct {
  uint8_t palette, first_row, reserved[14];
  uint16_t bytes[16];
  uint8_t rows[16];
} amx_shapes;
INLINE void amx_shape(amx_shapes *s, int tile, int64_t rows, int64_t bytes) {
  s->rows[tile] = (uint8_t)rows;
  s->bytes[tile] = (uint16_t)bytes;
}

/// The compiler does not know that tiles are loaded from memory.
INLINE void amx_configure(const amx_shapes *shapes) {
  __asm__ volatile("" : : "r"(shapes) : "memory");
  _tile_loadconfig(shapes);
}

// A float is the sum of two numbers in bfloat16, but for its last bits: products of both with the weight lose no more than the sums of floats do.
// Rows of x are laid out so: [16 rows together][32 columns together][the first numbers, then the second][16 rows][32 columns], with zeros where there
// are no more.
enum { SPLIT_COLUMNS = 32, SPLIT_BYTES = 2 * AMX_ROWS * SPLIT_COLUMNS * 2 };
INLINE int64_t split_tile(int64_t k) { return ceil_div(k, SPLIT_COLUMNS) * SPLIT_BYTES; }

/// Columns c to c + 31 of a row into its place; of no row, zeros.
INLINE void split_row(const float *x, int64_t columns, char *to) {
  for (int half = 0; half < 2; half++) {
    const int64_t left = columns - half * VL;
    const __m512 v = x == NULL || left <= 0 ? _mm512_setzero_ps() : (__m512)load_n(x + half * VL, left < VL ? (int)left : VL);
    const __m256bh first = _mm512_cvtneps_pbh(v);
    const __m512 back = (__m512)(_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)first), 16));
    const __m256bh second = _mm512_cvtneps_pbh(_mm512_sub_ps(v, back));
    _mm256_storeu_si256((__m256i *)(to + half * 32), (__m256i)first);
    _mm256_storeu_si256((__m256i *)(to + SPLIT_BYTES / 2 + half * 32), (__m256i)second);
  }
}

/// Registers 0 to 3 += two tiles of 16 rows of x times two panels of the weight, 32 columns or fewer.
INLINE void amx_step(const char *x, int64_t next, const char *w) {
  _tile_loadd(6, w, GROUP * 4);
  _tile_loadd(7, w + PANEL * 4, GROUP * 4);
  _tile_loadd(4, x, SPLIT_COLUMNS * 2);
  _tile_loadd(5, x + SPLIT_BYTES / 2, SPLIT_COLUMNS * 2);
  _tile_dpbf16ps(0, 4, 6);
  _tile_dpbf16ps(1, 4, 7);
  _tile_dpbf16ps(0, 5, 6);
  _tile_dpbf16ps(1, 5, 7);
  if (next == 0) return;
  _tile_loadd(4, x + next, SPLIT_COLUMNS * 2);
  _tile_loadd(5, x + next + SPLIT_BYTES / 2, SPLIT_COLUMNS * 2);
  _tile_dpbf16ps(2, 4, 6);
  _tile_dpbf16ps(3, 4, 7);
  _tile_dpbf16ps(2, 5, 6);
  _tile_dpbf16ps(3, 5, 7);
}

/// As float_group, of a weight in bfloat16 and rows that are split; `x` is the first of their tiles.
static void amx_group(float_room *room, int64_t count, const char *x, const char *w, float *const *y, int64_t k, int64_t columns, const float *bias) {
  const int64_t tiles = ceil_div(count, AMX_ROWS), width = min_of(columns, GROUP), tail = k % SPLIT_COLUMNS, whole = k - tail;
  amx_shapes shapes = {.palette = 1}, last = {.palette = 1};
  for (int t = 0; t < 8; t++) {
    amx_shape(&shapes, t, AMX_ROWS, 64);
    if (t < 4) amx_shape(&last, t, AMX_ROWS, 64);
    else if (t < 6) amx_shape(&last, t, AMX_ROWS, (tail + 1) / 2 * 4);
    else amx_shape(&last, t, (tail + 1) / 2, 64);
  }
  amx_configure(&shapes);
  for (int64_t p = 0; p * PANEL < width; p += 2) {
    const char *panel = w + p * PANEL * 4;
    for (int64_t t = 0; t < tiles; t += 2) {
      const char *rows = x + t * split_tile(k);
      const int64_t next = t + 1 < tiles ? split_tile(k) : 0;
      float *sums = room->sums + t * AMX_ROWS * GROUP + p * PANEL, *other = sums + AMX_ROWS * GROUP;
      _tile_zero(0);
      _tile_zero(1);
      _tile_zero(2);
      _tile_zero(3);
      for (int64_t c = 0; c < whole; c += SPLIT_COLUMNS) {
        const char *from = panel + c * GROUP * 2;
        if (t == 0)
          for (int line = 0; line < AMX_ROWS * 2; line++) __builtin_prefetch(from + line / 2 * GROUP * 4 + line % 2 * 64 + 4 * PREFETCH_BYTES, 0, 2);
        amx_step(rows + c / SPLIT_COLUMNS * SPLIT_BYTES, next, from);
      }
      _tile_stored(0, sums, GROUP * 4);
      _tile_stored(1, sums + PANEL, GROUP * 4);
      if (next) {
        _tile_stored(2, other, GROUP * 4);
        _tile_stored(3, other + PANEL, GROUP * 4);
      }
      if (tail == 0) continue;
      amx_configure(&last);
      _tile_loadd(0, sums, GROUP * 4);
      _tile_loadd(1, sums + PANEL, GROUP * 4);
      if (next) {
        _tile_loadd(2, other, GROUP * 4);
        _tile_loadd(3, other + PANEL, GROUP * 4);
      }
      amx_step(rows + whole / SPLIT_COLUMNS * SPLIT_BYTES, next, panel + whole * GROUP * 2);
      _tile_stored(0, sums, GROUP * 4);
      _tile_stored(1, sums + PANEL, GROUP * 4);
      if (next) {
        _tile_stored(2, other, GROUP * 4);
        _tile_stored(3, other + PANEL, GROUP * 4);
      }
      amx_configure(&shapes);
    }
  }
  _tile_release();
  finish_tile(room->sums, count, width, bias, 1, y);
}
#endif
#endif
