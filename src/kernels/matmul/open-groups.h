// Groups of quantised weights laid open, for many rows to share: numbers as the dot product takes them, scales and shifts as floats; and what the sums
// of a group's products come to.
#ifndef TYPERT_CPU_OPEN_GROUPS_H
#define TYPERT_CPU_OPEN_GROUPS_H
#include "matmul/dots.h"

/// Registers of VL rows × 4 columns that a pair of panels is, and those of a tile.
enum { PAIR_REGS = PAIR / VL };
#if defined(__aarch64__)
enum { TILE_REGS = 4 };
#else
enum { TILE_REGS = 2 };
#endif
/// Groups that are laid open together.
enum { OPEN_GROUPS = 8 };

/// The weight's rows of a tile. The run of groups laid open lies tile by tile, so that what a tile reads again and again is one stretch.
enum { TILE_LANES = TILE_REGS * VL, OPEN_TILES = PAIR_REGS / TILE_REGS };
/// A group of a tile laid open: [8 quads][1, or 2 of words][registers], then of all rows the scales, the second factors, and what is to be taken
/// from folded sums.
INLINE int64_t open_numbers(const int f) { return TILE_LANES * GROUP_COLUMNS * number_bytes(f); }
INLINE int64_t open_bytes(const int f) { return open_numbers(f) + TILE_LANES * (folds(f) ? 12 : 8); }
INLINE int64_t open_run(const int f) { return OPEN_GROUPS * open_bytes(f); }

/// Group g of a pair of panels into its place of each tile's run; `to` is that of the first.
INLINE void lay_open(const int f, const char *pair, int64_t g, char *to) {
  const int regs = dot_way(f) == BY_WORDS ? 2 : 1;
  const char *group = pair + group_offset(f, g);
  vi folded[PAIR_REGS];
  for (int y = 0; y < PAIR_REGS; y++) folded[y] = set_i(0);
#pragma GCC unroll 8
  for (int quad = 0; quad < 8; quad++) {
#pragma GCC unroll 8
    for (int y = 0; y < PAIR_REGS; y++) {
      vi numbers[2], *open = (vi *)(to + y / TILE_REGS * open_run(f));
      numbers_of(f, group, y, quad, numbers);
      for (int r = 0; r < regs; r++) open[(quad * regs + r) * TILE_REGS + y % TILE_REGS] = numbers[r];
      if (folds(f)) folded[y] = dot_words(folded[y], numbers[0], numbers[1]);
    }
  }
  for (int y = 0; y < PAIR_REGS; y++) {
    float *scales = (float *)(to + y / TILE_REGS * open_run(f) + open_numbers(f)) + y % TILE_REGS * VL;
    vf scale, second;
    scales_of(f, pair, g, y, &scale, &second);
    store(scales, scale);
    store(scales + TILE_LANES, second);
    if (folds(f)) store(scales + 2 * TILE_LANES, (vf)(-folded[y]));
  }
}

INLINE float number_at(const char *p) {
  float number;
  memcpy(&number, p, 4);
  return number;
}
INLINE vi start_at(const char *p) {
  int32_t bits;
  memcpy(&bits, p, 4);
  return set_i(bits);
}

/// sums of a row's group, `sum`, to its total: times the scales of both; `after` is what stands behind the numbers of the slot, for row i of it.
INLINE vf add_group(const int f, vf total, vi sum, vf scale, vf second, const char *after, int64_t rows) {
  if (dot_way(f) == BY_PAIRS) sum = join_pairs(sum);
  total += to_float(sum) * (scale * set(number_at(after)));
  if (has_minimum(f)) total += second * set(number_at(after + rows * 8));
  return total;
}
#endif
