// Products with quantised weights over activations that stay floats: a run of groups is laid open as floats, which all rows then use. Slower than
// whole numbers (quant-tile.h), and as exact as the weights are.
#ifndef TYPERT_CPU_EXACT_TILE_H
#define TYPERT_CPU_EXACT_TILE_H
#include "matmul/dots.h"
#include "matmul/tile.h"

/// Group g of both panels as floats, columns `at` and on of the open panels.
INLINE void open_group(const int f, const char *pair, int64_t g, int64_t at, float_room *room) {
  const char *group = pair + group_offset(f, g);
  // Where more than the offset is taken from stored numbers, `second` makes up for it.
  const float offset = (float)max_of(quant_offset(f), sum_offset(f));
  for (int y = 0; y < PAIR / VL; y++) {
    vf scale, second;
    scales_of(f, pair, g, y, &scale, &second);
    float *open = room->open[y / PV] + at * PANEL + y % PV * VL;
    for (int quad = 0; quad < 8; quad++) {
      const vu q = stored_numbers(f, group, y, quad);
      const vf factor = f == W_Q6_K && quad >= 4 ? second : scale;
      const vf shift = (has_minimum(f) ? second : set(0)) - factor * set(offset);
      for (int c = 0; c < 4; c++) store(open + (quad * 4 + c) * PANEL, factor * to_float((vi)(q >> (8 * c) & 255u)) + shift);
    }
  }
}

/// y = x · weightᵀ for `count` rows and one pair of panels, of whose rows `columns` are real.
INLINE void exact_pair(const int f, float_room *room, int64_t count, const float *const *x, const char *pair, float *const *y, int64_t k,
                       int64_t columns, const float *bias) {
  const int64_t tiles = ceil_div(count, TILE_ROWS), width = min_of(columns, PAIR);
  memset(room->sums, 0, (size_t)(count * GROUP) * 4);
  for (int64_t from = 0; from < k; from += OPEN_COLUMNS) {
    const int64_t run = min_of(OPEN_COLUMNS, k - from);
    for (int64_t c = 0; c < run; c += GROUP_COLUMNS) open_group(f, pair, (from + c) / GROUP_COLUMNS, c, room);
    for (int64_t p = 0; p * PANEL < width; p++) {
      for (int64_t t = 0; t < tiles; t++) {
        const int64_t begin = count * t / tiles, rows = count * (t + 1) / tiles - begin;
        open_floats_rows(rows, x + begin, from, room->open[p], run, room->sums + begin * GROUP + p * PANEL);
      }
    }
  }
  finish_tile(room->sums, count, width, bias, 1, y);
}
#endif
