// y = x · weightᵀ + bias. A chunk is a group of the weight's panels for a block of rows of x.
#include "include/cpu/pool.h"
#include "matmul/amx.h"
#include "matmul/exact-tile.h"
#include "matmul/quant-tile.h"

enum { MATMUL_X, MATMUL_WEIGHT, MATMUL_BIAS, MATMUL_Y };
/// Rows of x that a chunk holds, and what their number is a multiple of: the tiles of both kinds.
enum { MATMUL_ROWS = QUANT_ROWS, MATMUL_STEP = HAS_AMX ? 48 : 12 };
_Static_assert(MATMUL_ROWS % MATMUL_STEP == 0 && MATMUL_STEP % BYTE_TILE == 0 && MATMUL_STEP % TILE_ROWS == 0, "chunks are whole tiles");

/// Up to so many numbers each thread makes whole numbers of them for itself: that is quicker than to share the work and wait for each other.
enum { QUANTISE_ALONE = 8192 };

/// What a thread works in besides: rows that it quantised alone.
typedef struct {
  union {
    quant_room whole;
    float_room floats;
  } room;
  _Alignas(64) char slots[QUANTISE_ALONE * 3];
} matmul_local;
_Static_assert(sizeof(matmul_local) <= LOCAL_BYTES, "a product outgrows a thread's memory");

INLINE char *quantise_rows(const int f, const worker *w, const tensor *x, int64_t m, int64_t k) {
  const int alone = m * k <= QUANTISE_ALONE;
  char *slots = alone ? ((matmul_local *)w->local)->slots : w->scratch;
  const int64_t per_row = k / GROUP_COLUMNS, items = m * per_row, step = alone ? items : chunk_size(w, items, 4);
  for (int64_t c = alone ? 0 : claim(w); c * step < items; c = alone ? 1 : claim(w)) {
    for (int64_t i = c * step; i < min_of(items, (c + 1) * step); i++) {
      const int64_t row = i / per_row, g = i % per_row, rows = tile_rows(m, row / BYTE_TILE);
      quantise_group(f, row_of(x, row) + g * GROUP_COLUMNS, tile_slots(f, slots, row / BYTE_TILE, k) + g * slot_bytes(f, rows), rows, row % BYTE_TILE);
    }
  }
  if (!alone) barrier(w);
  return slots;
}

#if HAS_AMX
/// The rows of x as sums of two numbers in bfloat16.
INLINE char *split_rows(const worker *w, const tensor *x, int64_t m, int64_t k) {
  const int64_t rows = ceil_div(m, AMX_ROWS) * AMX_ROWS, step = chunk_size(w, rows, 4);
  for (int64_t c = claim(w); c * step < rows; c = claim(w)) {
    for (int64_t i = c * step; i < min_of(rows, (c + 1) * step); i++) {
      char *to = w->scratch + i / AMX_ROWS * split_tile(k) + i % AMX_ROWS * SPLIT_COLUMNS * 2;
      for (int64_t at = 0; at < k; at += SPLIT_COLUMNS, to += SPLIT_BYTES) split_row(i < m ? row_of(x, i) + at : NULL, k - at, to);
    }
  }
  barrier(w);
  return w->scratch;
}
#endif

/// `exact`: activations stay floats where the weights are quantised.
INLINE void matmul(const launch *l, const worker *w, const int format, const int exact) {
  const tensor *x = &l->args[MATMUL_X], *weight = &l->args[MATMUL_WEIGHT], *y = &l->args[MATMUL_Y];
  const float *bias = floats_of(&l->args[MATMUL_BIAS]);
  const int64_t m = rows_of(w, x), n = dim_of(w, weight->dim[0]), k = dim_of(w, weight->dim[1]);
  const int64_t width = weight_block(format), bytes = weight_block_bytes(format, k);
  matmul_local *local = (matmul_local *)w->local;
  char *slots = is_quant(format) && !exact ? quantise_rows(format, w, x, m, k) : NULL;
#if HAS_AMX
  if (format == W_BF16 && amx_allowed && m >= AMX_LEAST) slots = split_rows(w, x, m, k);
#endif
  const int64_t groups = ceil_div(n, width), blocks = ceil_div(m, MATMUL_ROWS);
  const int64_t rows_each = ceil_div(ceil_div(m, blocks), MATMUL_STEP) * MATMUL_STEP;
  for (span part = claim_span(w, groups * blocks); part.begin < part.end;) {
    // Blocks of one group follow each other, so that threads share the weights they bring in.
    const int64_t g = part.begin / blocks, block = part.begin % blocks, begin = block * rows_each, rows = min_of(rows_each, m - begin);
    if (++part.begin == part.end) part = claim_span(w, groups * blocks);
    const int64_t at = g * width, columns = min_of(width, n - at);
    const float *from[MATMUL_ROWS], *add = bias == NULL ? NULL : bias + at;
    float *to[MATMUL_ROWS];
    for (int64_t i = 0; i < rows; i++) {
      from[i] = row_of(x, begin + i);
      to[i] = row_of(y, begin + i) + at;
    }
    const char *block_at = weight->data + g * bytes;
#if HAS_AMX
    if (format == W_BF16 && slots != NULL) {
      amx_group(&local->room.floats, rows, slots + begin / AMX_ROWS * split_tile(k), block_at, to, k, columns, add);
      continue;
    }
#endif
    if (!is_quant(format)) {
      float_group(format, &local->room.floats, rows, from, block_at, to, k, columns, add);
    } else if (exact) {
      exact_pair(format, &local->room.floats, rows, from, block_at, to, k, columns, add);
    } else {
      quant_of(format)(&local->room.whole, slots, m, begin, rows, block_at, to, k, columns, add);
    }
  }
}

#define MATMUL(name, format) \
  static void name(const launch *l, const worker *w) { matmul(l, w, format, 0); }
#define MATMUL_EXACT(name, format) \
  static void name(const launch *l, const worker *w) { matmul(l, w, format, 1); }
