// y = x · weightᵀ + bias. A chunk is a group of the weight's panels for a block of rows of x.
#include "include/cpu/pool.h"
#include "matmul/quant-tile.h"

enum { MATMUL_X, MATMUL_WEIGHT, MATMUL_BIAS, MATMUL_Y };
/// Rows of x that a chunk holds: a multiple of the tile's.
enum { MATMUL_ROWS = 96 };

#if HAS_VNNI
/// Up to so many numbers each thread makes bytes of them for itself: that is quicker than to share the work and wait for each other.
enum { QUANTISE_ALONE = 8192 };

static byte_rows quantise_rows(const worker *w, const tensor *x, int64_t m, int64_t k) {
  const int alone = m * k <= QUANTISE_ALONE;
  const byte_rows rows = byte_rows_at(alone ? w->local : w->scratch, m, k);
  const int64_t per_row = k / GROUP_COLUMNS, items = m * per_row, step = alone ? items : chunk_size(w, items, 4);
  for (int64_t c = alone ? 0 : claim(w); c * step < items; c = alone ? 1 : claim(w)) {
    for (int64_t i = c * step; i < min_of(items, (c + 1) * step); i++)
      quantise_group(row_of(x, i / per_row) + i % per_row * GROUP_COLUMNS, rows.q + i * GROUP_COLUMNS, rows.scale + i, rows.sums + 2 * i);
  }
  if (!alone) barrier(w);
  return rows;
}
#endif

INLINE void matmul(const launch *l, const worker *w, const int format) {
  const tensor *x = &l->args[MATMUL_X], *weight = &l->args[MATMUL_WEIGHT], *y = &l->args[MATMUL_Y];
  const float *bias = floats_of(&l->args[MATMUL_BIAS]);
  const int64_t m = rows_of(w, x), n = dim_of(w, weight->dim[0]), k = dim_of(w, weight->dim[1]);
  const int64_t width = weight_block(format), bytes = weight_block_bytes(format, k);
#if HAS_VNNI
  byte_rows quantised = {0};
  if (is_quant(format)) quantised = quantise_rows(w, x, m, k);
#endif
  const int64_t groups = ceil_div(n, width), blocks = ceil_div(m, MATMUL_ROWS);
  for (span part = claim_span(w, groups * blocks); part.begin < part.end;) {
    // Blocks of one group follow each other, so that threads share the weights they bring in.
    const int64_t g = part.begin / blocks, block = part.begin % blocks, begin = m * block / blocks, rows = m * (block + 1) / blocks - begin;
    if (++part.begin == part.end) part = claim_span(w, groups * blocks);
    const int64_t at = g * width, columns = min_of(width, n - at);
    const float *from[MATMUL_ROWS], *add = bias == NULL ? NULL : bias + at;
    float *to[MATMUL_ROWS];
    for (int64_t i = 0; i < rows; i++) {
      from[i] = row_of(x, begin + i);
      to[i] = row_of(y, begin + i) + at;
    }
    const char *block_at = weight->data + g * bytes;
    if (!is_quant(format)) {
      float_group(format, rows, from, block_at, to, k, columns, add);
    } else {
#if HAS_VNNI
      quant_pair(format, &quantised, begin, rows, block_at, to, k, columns, add);
#else
      unpacked_pair(format, rows, from, block_at, to, k, columns, add);
#endif
    }
  }
}

#define MATMUL(name, format) \
  static void name(const launch *l, const worker *w) { matmul(l, w, format); }
