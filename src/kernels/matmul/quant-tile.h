// Products with quantised weights over activations in whole numbers (byte-rows.h). One or two rows multiply the weights as they are stored; more
// rows share a run of groups that is laid open once: numbers as the dot product takes them, scales and shifts as floats.
#ifndef TYPERT_CPU_QUANT_TILE_H
#define TYPERT_CPU_QUANT_TILE_H
#include "matmul/open-groups.h"
#include "matmul/tile.h"

/// Rows that read the weights as they are stored; bytes asked for ahead of their use.
enum { DIRECT_ROWS = 2, QUANT_PREFETCH = 8192 };
/// Rows whose sums the registers hold beside what they are made of; folded products need more of these.
enum { ROWS_MOST = VL >= 8 ? 6 : 4, ROWS_FOLDED = VL >= 8 ? 3 : 2 };
INLINE int rows_at_once(const int f) { return folds(f) ? ROWS_FOLDED : ROWS_MOST; }

/// What a thread works in: a run of open groups, and sums of all rows of a chunk.
enum { OPEN_MOST = OPEN_GROUPS * (PAIR * GROUP_COLUMNS * 2 + PAIR * 12), QUANT_ROWS = 144 };
typedef struct {
  _Alignas(64) char open[OPEN_MOST];
  _Alignas(64) float sums[QUANT_ROWS * PAIR];
} quant_room;

/// Rows × TILE_REGS registers over a run of open groups: the first rows of a slot of `of`, from `x` on, whose scales and sums are at `after`. `sums`
/// [rows][PAIR] goes on; it stays in memory, since the sums of a group need the registers.
INLINE void open_tile(const int f, const int rows, int64_t of, const char *x, const char *after, const char *open, int64_t groups, float *sums) {
  const int way = dot_way(f), regs = way == BY_WORDS ? 2 : 1, parts = f == W_Q6_K ? 2 : 1, quads = 8 / parts;
  const int64_t slot = slot_bytes(f, of);
  for (int64_t g = 0; g < groups; g++, x += slot, after += slot, open += open_bytes(f)) {
    const float *scales = (const float *)(open + open_numbers(f));
#pragma GCC unroll 2
    for (int part = 0; part < parts; part++) {
      vi sum[ROWS_MOST][TILE_REGS];
#pragma GCC unroll 6
      for (int i = 0; i < rows; i++) {
        const vi start = start_at(after + (of * (folds(f) ? 3 : part + 1) + i) * 4);
#pragma GCC unroll 4
        for (int y = 0; y < TILE_REGS; y++) sum[i][y] = folds(f) ? start + (vi)load(scales + 2 * TILE_LANES + y * VL) : start;
      }
#pragma GCC unroll 8
      for (int quad = part * quads; quad < (part + 1) * quads; quad++) {
        vi numbers[TILE_REGS][2];
#pragma GCC unroll 4
        for (int y = 0; y < TILE_REGS; y++)
          for (int r = 0; r < regs; r++) {
            numbers[y][r] = *(const vi *)(open + ((quad * regs + r) * TILE_REGS + y) * VL * 4);
            keep(&numbers[y][r]);
          }
#pragma GCC unroll 6
        for (int i = 0; i < rows; i++) {
          vi four[2];
          four_numbers(way, x + (i * 8 + quad) * 4 * number_bytes(f), four);
#pragma GCC unroll 4
          for (int y = 0; y < TILE_REGS; y++) sum[i][y] = folds(f) ? dot_folded(sum[i][y], numbers[y], four) : dot(way, sum[i][y], numbers[y], four);
        }
      }
      // Totals are not to be loaded before here.
      __asm__ volatile("" ::: "memory");
#pragma GCC unroll 6
      for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int y = 0; y < TILE_REGS; y++) {
          float *total = sums + i * PAIR + y * VL;
          const vf second = load(scales + TILE_LANES + y * VL);
          store(total, add_group(f, load(total), sum[i][y], part == 0 ? load(scales + y * VL) : second, second, after + i * 4, of));
        }
    }
  }
}

/// All groups of a pair of panels, as they are stored, for a row or two.
INLINE void direct_tile(const int f, const int rows, const char *x, const char *pair, int64_t groups, float *sums) {
  const int way = dot_way(f), parts = f == W_Q6_K ? 2 : 1, quads = 8 / parts, lines = (group_bytes(f) + 511) / 512;
  vf total[DIRECT_ROWS][PAIR_REGS];
#pragma GCC unroll 2
  for (int i = 0; i < rows; i++)
#pragma GCC unroll 8
    for (int y = 0; y < PAIR_REGS; y++) total[i][y] = set(0);
  for (int64_t g = 0; g < groups; g++, x += slot_bytes(f, rows)) {
    const char *after = x + rows * GROUP_COLUMNS * number_bytes(f), *group = pair + group_offset(f, g);
#pragma GCC unroll 2
    for (int part = 0; part < parts; part++) {
      vi sum[DIRECT_ROWS][PAIR_REGS];
#pragma GCC unroll 2
      for (int i = 0; i < rows; i++) {
        const vi start = start_at(after + (rows * (part + 1) + i) * 4);
#pragma GCC unroll 8
        for (int y = 0; y < PAIR_REGS; y++) sum[i][y] = start;
      }
#pragma GCC unroll 8
      for (int quad = part * quads; quad < (part + 1) * quads; quad++) {
        // Into the second cache only, and a few lines at a time: the first one has too few places for lines under way to keep memory busy.
#pragma GCC unroll 3
        for (int line = quad * lines; line < (quad + 1) * lines; line++) __builtin_prefetch(group + line * 64 + QUANT_PREFETCH, 0, 2);
        vi four[DIRECT_ROWS][2];
#pragma GCC unroll 2
        for (int i = 0; i < rows; i++) four_numbers(way, x + (i * 8 + quad) * 4 * number_bytes(f), four[i]);
#pragma GCC unroll 8
        for (int y = 0; y < PAIR_REGS; y++) {
          vi numbers[2];
          numbers_of(f, group, y, quad, numbers);
#pragma GCC unroll 2
          for (int i = 0; i < rows; i++) sum[i][y] = dot(way, sum[i][y], numbers, four[i]);
        }
      }
#pragma GCC unroll 8
      for (int y = 0; y < PAIR_REGS; y++) {
        vf scale, second;
        scales_of(f, pair, g, y, &scale, &second);
#pragma GCC unroll 2
        for (int i = 0; i < rows; i++) total[i][y] = add_group(f, total[i][y], sum[i][y], part == 0 ? scale : second, second, after + i * 4, rows);
      }
    }
  }
#pragma GCC unroll 2
  for (int i = 0; i < rows; i++)
#pragma GCC unroll 8
    for (int y = 0; y < PAIR_REGS; y++) store(sums + i * PAIR + y * VL, total[i][y]);
}

/// Adds the bias to sums [rows][PAIR] and puts the real ones out.
__attribute__((noinline, unused)) static void finish_pair(const float *sums, int64_t rows, int64_t columns, const float *bias, float *const *y) {
  for (int64_t i = 0; i < rows; i++, sums += PAIR) {
    int64_t c = 0;
    for (; c + VL <= columns; c += VL) store(y[i] + c, bias == NULL ? load(sums + c) : load(sums + c) + load(bias + c));
    for (; c < columns; c++) y[i][c] = bias == NULL ? sums[c] : sums[c] + bias[c];
  }
}

typedef void (*open_fn)(int64_t rows, int64_t of, const char *x, const char *after, const char *open, int64_t groups, float *sums);
typedef void (*direct_fn)(int64_t rows, const char *x, const char *pair, int64_t groups, float *sums);

/// Rows [first, first + count), `first` a multiple of the tile's, times one pair of panels of whose rows `columns` are real. `slots` holds `total` rows.
INLINE void quant_rows(const int f, open_fn multiply, direct_fn multiply_direct, quant_room *room, char *slots, int64_t total, int64_t first,
                       int64_t count, const char *pair, float *const *y, int64_t k, int64_t columns, const float *bias) {
  const int64_t groups = k / GROUP_COLUMNS, tiles = ceil_div(count, BYTE_TILE), begin = first / BYTE_TILE;
  if (count <= DIRECT_ROWS) {
    multiply_direct(count, tile_slots(f, slots, begin, k), pair, groups, room->sums);
  } else {
    memset(room->sums, 0, (size_t)(count * PAIR) * 4);
    for (int64_t g = 0; g < groups; g += OPEN_GROUPS) {
      const int64_t run = min_of(OPEN_GROUPS, groups - g);
      for (int64_t i = 0; i < run; i++) {
        const char *ahead = pair + group_offset(f, g + i) + QUANT_PREFETCH;
        for (int line = 0; line < group_bytes(f); line += 64) __builtin_prefetch(ahead + line, 0, 2);
        lay_open(f, pair, g + i, room->open + i * open_bytes(f));
      }
      for (int part = 0; part < OPEN_TILES; part++) {
        for (int64_t t = 0; t < tiles; t++) {
          const int64_t rows = tile_rows(total, begin + t);
          const char *x = tile_slots(f, slots, begin + t, k) + g * slot_bytes(f, rows);
          float *sums = room->sums + t * BYTE_TILE * PAIR + part * TILE_LANES;
          const char *after = x + rows * number_row(f), *open = room->open + part * open_run(f);
          const int64_t step = rows_at_once(f);
          for (int64_t i = 0; i < rows; i += step)
            multiply(min_of(rows - i, step), rows, x + i * number_row(f), after + i * 4, open, run, sums + i * PAIR);
        }
      }
    }
  }
  finish_pair(room->sums, count, min_of(columns, PAIR), bias, y);
}

/// The functions of a format: a loop for each number of rows.
#define QUANT_FORMAT(name, f)                                                                                                                  \
  __attribute__((noinline, unused)) static void name##_open(int64_t rows, int64_t of, const char *x, const char *after, const char *open,      \
                                                            int64_t groups, float *sums) {                                                     \
    switch (rows) {                                                                                                                            \
      case 1: open_tile(f, 1, of, x, after, open, groups, sums); break;                                                                        \
      case 2: open_tile(f, 2, of, x, after, open, groups, sums); break;                                                                        \
      case 3: open_tile(f, min_of(3, rows_at_once(f)), of, x, after, open, groups, sums); break;                                               \
      case 4: open_tile(f, min_of(4, rows_at_once(f)), of, x, after, open, groups, sums); break;                                               \
      case 5: open_tile(f, min_of(5, rows_at_once(f)), of, x, after, open, groups, sums); break;                                               \
      default: open_tile(f, rows_at_once(f), of, x, after, open, groups, sums);                                                                \
    }                                                                                                                                          \
  }                                                                                                                                            \
  __attribute__((noinline, unused)) static void name##_direct(int64_t rows, const char *x, const char *pair, int64_t groups, float *sums) {    \
    if (rows == 1) direct_tile(f, 1, x, pair, groups, sums);                                                                                   \
    else direct_tile(f, 2, x, pair, groups, sums);                                                                                             \
  }                                                                                                                                            \
  __attribute__((noinline, unused)) static void name(quant_room *room, char *slots, int64_t total, int64_t first, int64_t count,               \
                                                     const char *pair, float *const *y, int64_t k, int64_t columns, const float *bias) {       \
    quant_rows(f, name##_open, name##_direct, room, slots, total, first, count, pair, y, k, columns, bias);                                    \
  }
QUANT_FORMAT(quant_q8_0, W_Q8_0)
QUANT_FORMAT(quant_q4_0, W_Q4_0)
QUANT_FORMAT(quant_q4_1, W_Q4_1)
QUANT_FORMAT(quant_q5_0, W_Q5_0)
QUANT_FORMAT(quant_q5_1, W_Q5_1)
QUANT_FORMAT(quant_q4_k, W_Q4_K)
QUANT_FORMAT(quant_q5_k, W_Q5_K)
QUANT_FORMAT(quant_q6_k, W_Q6_K)
QUANT_FORMAT(quant_q8_z, W_Q8_Z)

typedef void (*quant_fn)(quant_room *, char *, int64_t, int64_t, int64_t, const char *, float *const *, int64_t, int64_t, const float *);
INLINE quant_fn quant_of(const int f) {
  return f == W_Q8_0   ? quant_q8_0
         : f == W_Q4_0 ? quant_q4_0
         : f == W_Q4_1 ? quant_q4_1
         : f == W_Q5_0 ? quant_q5_0
         : f == W_Q5_1 ? quant_q5_1
         : f == W_Q4_K ? quant_q4_k
         : f == W_Q5_K ? quant_q5_k
         : f == W_Q8_Z ? quant_q8_z
                       : quant_q6_k;
}

/// Rows of a weight that lie together, and their bytes.
INLINE int64_t weight_block(const int format) { return is_quant(format) ? PAIR : GROUP; }
INLINE int64_t weight_block_bytes(const int format, int64_t k) { return is_quant(format) ? pair_bytes(format, k) : block_bytes(format, k); }
#endif
