// Attention of the step's queries over the paged cache, with the softmax computed as the keys go by (Milakov & Gimelshein 2018). The queries of all
// heads that share a kv head are the rows of one small product with a tile of keys, and of another with its values.
#include "attention/rope.h"

enum { ATTN_Q, ATTN_SINKS, ATTN_SLOPES, ATTN_POSITIONS, ATTN_OFFSETS, ATTN_LENGTHS, ATTN_TABLES, ATTN_Y };
/// Rows of queries in a work item, and key groups in a tile.
enum { ATTN_ROWS = 24, ATTN_STRIP = VL == 16 ? 6 : 4, ATTN_GROUPS = VL == 16 ? 4 : 2 };

/// Rows × GROUPS vectors of scores: q · keys.
INLINE void score_strip(const int rows, const int dim, const int group, const float *q, const float *const *keys, float *scores) {
  if (group == VL) {
    vf sums[ATTN_STRIP][ATTN_GROUPS];
    for (int i = 0; i < rows; i++)
      for (int j = 0; j < ATTN_GROUPS; j++) sums[i][j] = set(0);
    for (int d = 0; d < dim; d++) {
      vf key[ATTN_GROUPS];
#pragma GCC unroll 4
      for (int j = 0; j < ATTN_GROUPS; j++) key[j] = load(keys[j] + d * VL);
#pragma GCC unroll 6
      for (int i = 0; i < rows; i++) {
        const vf a = set(q[i * dim + d]);
#pragma GCC unroll 4
        for (int j = 0; j < ATTN_GROUPS; j++) sums[i][j] += key[j] * a;
      }
    }
    for (int i = 0; i < rows; i++)
      for (int j = 0; j < ATTN_GROUPS; j++) store(scores + i * ATTN_GROUPS * VL + j * VL, sums[i][j]);
  } else {
    // Blocks shorter than a vector: right, not fast.
    for (int i = 0; i < rows; i++) {
      for (int j = 0; j < ATTN_GROUPS; j++) {
        for (int t = 0; t < group; t++) {
          float sum = 0;
          for (int d = 0; d < dim; d++) sum += q[i * dim + d] * keys[j][d * group + t];
          scores[i * ATTN_GROUPS * VL + j * group + t] = sum;
        }
      }
    }
  }
}

/// out[row] = out[row] · factors[row] + Σ_t weights[row][t] · values[t], for VECTORS vectors of columns.
INLINE void value_strip(const int rows, const int vectors, const float *weights, const float *factors, const float *const *values,
                        int tokens, float *out, int stride) {
  vf sums[ATTN_STRIP][4];
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < vectors; j++) sums[i][j] = load(out + i * stride + j * VL) * set(factors[i]);
  for (int t = 0; t < tokens; t++) {
    vf v[4];
#pragma GCC unroll 4
    for (int j = 0; j < vectors; j++) v[j] = load(values[t] + j * VL);
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++) {
      const vf p = set(weights[i * ATTN_GROUPS * VL + t]);
#pragma GCC unroll 4
      for (int j = 0; j < vectors; j++) sums[i][j] += v[j] * p;
    }
  }
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < vectors; j++) store(out + i * stride + j * VL, sums[i][j]);
}
INLINE void value_rest(const int rows, const float *weights, const float *factors, const float *const *values, int tokens,
                       float *out, int stride, int columns) {
  for (int i = 0; i < rows; i++) {
    for (int d = 0; d < columns; d++) {
      float sum = out[i * stride + d] * factors[i];
      for (int t = 0; t < tokens; t++) sum += weights[i * ATTN_GROUPS * VL + t] * values[t][d];
      out[i * stride + d] = sum;
    }
  }
}

typedef struct {
  int heads;
  cache_shape cache;
  int window, sink_tokens, chunk; // 0: none
  int softcap, slopes;
} attention_shape;

/// What the rows of a work item have in common, and their running state.
typedef struct {
  float q[ATTN_ROWS * HEAD_MAX];
  float out[ATTN_ROWS * HEAD_MAX];
  float scores[ATTN_ROWS * ATTN_GROUPS * VL];
  float max[ATTN_ROWS], total[ATTN_ROWS], factor[ATTN_ROWS], slope[ATTN_ROWS];
  int32_t first[ATTN_ROWS], last[ATTN_ROWS], position[ATTN_ROWS];
} attention_rows;

/// Masks a row's scores of the tile that begins at `begin`, makes them weights, and moves the row's maximum and total on.
INLINE void soften(const attention_shape s, attention_rows *rows, int i, int64_t begin, int count, float scale, float cap) {
  float *scores = rows->scores + i * ATTN_GROUPS * VL;
  const int64_t first = rows->first[i] - begin, last = rows->last[i] - begin;
  const int inside = first <= 0 && last >= count - 1;
  vf top = set(-INFINITY);
  for (int j = 0; j < count; j += VL) {
    vf v = load(scores + j) * set(scale);
    if (s.softcap) v = set(cap) * vtanh(v / set(cap));
    const vi at = lanes() + set_i(j);
    if (s.slopes) v += set(rows->slope[i]) * to_float(at + set_i((int)(begin - rows->position[i])));
    if (!inside || j + VL > count) {
      const vi seen = (at >= set_i((int)max_of(first, -1))) & (at <= set_i((int)min_of(last, count - 1)));
      v = choose(seen, v, set(-INFINITY));
    }
    store(scores + j, v);
    top = vmax(v, top);
  }
  const float highest = max_in(top), old = rows->max[i], now = highest > old ? highest : old;
  if (now == -INFINITY) {
    rows->factor[i] = 1;
    for (int j = 0; j < count; j += VL) store(scores + j, set(0));
    return;
  }
  vf sum = set(0);
  for (int j = 0; j < count; j += VL) {
    const vf p = vexp(load(scores + j) - set(now));
    store(scores + j, p);
    sum += p;
  }
  // e^-∞ must be nothing at all: a row's first tile finds no old sum to keep.
  rows->factor[i] = old == -INFINITY ? 0 : expf(old - now);
  rows->total[i] = rows->total[i] * rows->factor[i] + sum_of(sum);
  rows->max[i] = now;
}

/// The tile of keys and values that begins at position `begin` (a multiple of the key group), for all rows.
INLINE void attend_tile(const attention_shape s, attention_rows *rows, int count, const float *const *keys,
                        const float *const *values, int64_t begin, int tokens, int skip, float scale, float cap) {
  const int dim = s.cache.head_dim, wide = s.cache.value_dim, group = key_group(s.cache);
  for (int i = 0; i < count; i += ATTN_STRIP) {
    const float *q = rows->q + i * dim;
    float *scores = rows->scores + i * ATTN_GROUPS * VL;
    switch (count - i) {
      case 1: score_strip(1, dim, group, q, keys, scores); break;
      case 2: score_strip(2, dim, group, q, keys, scores); break;
      case 3: score_strip(3, dim, group, q, keys, scores); break;
      default:
        if (count - i < ATTN_STRIP) score_strip(4, dim, group, q, keys, scores);
        else score_strip(ATTN_STRIP, dim, group, q, keys, scores);
    }
  }
  for (int i = 0; i < count; i++) soften(s, rows, i, begin, tokens, scale, cap);
  for (int i = 0; i < count; i += ATTN_STRIP) {
    const float *weights = rows->scores + i * ATTN_GROUPS * VL + skip, *factors = rows->factor + i;
    float *out = rows->out + i * wide;
    int d = 0;
#define VALUES(rows_now)                                                                                             \
  for (; d + 4 * VL <= wide; d += 4 * VL) {                                                                          \
    const float *moved[ATTN_GROUPS * VL];                                                                            \
    for (int t = skip; t < tokens; t++) moved[t - skip] = values[t] + d;                                             \
    value_strip(rows_now, 4, weights, factors, moved, tokens - skip, out + d, wide);                                 \
  }                                                                                                                  \
  for (; d + VL <= wide; d += VL) {                                                                                  \
    const float *moved[ATTN_GROUPS * VL];                                                                            \
    for (int t = skip; t < tokens; t++) moved[t - skip] = values[t] + d;                                             \
    value_strip(rows_now, 1, weights, factors, moved, tokens - skip, out + d, wide);                                 \
  }                                                                                                                  \
  if (d < wide) {                                                                                                    \
    const float *moved[ATTN_GROUPS * VL];                                                                            \
    for (int t = skip; t < tokens; t++) moved[t - skip] = values[t] + d;                                             \
    value_rest(rows_now, weights, factors, moved, tokens - skip, out + d, wide, wide - d);                           \
  }
    switch (count - i) {
      case 1: VALUES(1) break;
      case 2: VALUES(2) break;
      case 3: VALUES(3) break;
      default:
        if (count - i < ATTN_STRIP) { VALUES(4) }
        else { VALUES(ATTN_STRIP) }
    }
#undef VALUES
  }
}

/// The keys and values at positions [begin, end), for all rows.
INLINE void attend_span(const attention_shape s, attention_rows *rows, int count, char *cache, const int32_t *table, int head,
                        int64_t begin, int64_t end, float scale, float cap) {
  const int group = key_group(s.cache), per_block = s.cache.block_tokens;
  for (int64_t tile = begin / group * group; tile < end; tile += ATTN_GROUPS * group) {
    const float *keys[ATTN_GROUPS], *values[ATTN_GROUPS * VL];
    const int tokens = (int)min_of(ATTN_GROUPS * group, end - tile), skip = (int)max_of(0, begin - tile);
    for (int j = 0; j < ATTN_GROUPS; j++) {
      // Groups past the end repeat the last: their scores are masked.
      const int64_t t = min_of(tile + j * group, (end - 1) / group * group);
      float *place = cache_head(s.cache, cache, table[t / per_block], head);
      keys[j] = key_at(s.cache, place, t % per_block);
      if (tile + j * group < end)
        for (int i = 0; i < group; i++) values[j * group + i] = value_at(s.cache, place, t % per_block + i);
    }
    attend_tile(s, rows, count, keys, values, tile, tokens, skip, scale, cap);
  }
}

INLINE void paged_attention(const launch *l, const worker *w, const attention_shape s) {
  const tensor *q = &l->args[ATTN_Q], *y = &l->args[ATTN_Y], *tables = &l->args[ATTN_TABLES];
  const float *sinks = floats_of(&l->args[ATTN_SINKS]), *slopes = floats_of(&l->args[ATTN_SLOPES]);
  const int32_t *positions = ints_of(&l->args[ATTN_POSITIONS]), *offsets = ints_of(&l->args[ATTN_OFFSETS]);
  const int32_t *lengths = ints_of(&l->args[ATTN_LENGTHS]);
  const int64_t requests = rows_of(w, &l->args[ATTN_OFFSETS]) - 1, max_blocks = dim_of(w, tables->dim[1]);
  const float scale = l->floats[0], cap = l->floats[1];
  const int dim = s.cache.head_dim, wide = s.cache.value_dim, kv_heads = s.cache.kv_heads, share = s.heads / kv_heads;
  attention_rows *rows = (attention_rows *)w->local;
  _Static_assert(sizeof(attention_rows) <= LOCAL_BYTES, "rows of attention outgrow a thread's memory");
  int64_t request = 0, before = 0; // work items of the requests before `request`
  for (int64_t item = claim(w);; item = claim(w)) {
    int64_t blocks = 0;
    for (; request < requests; request++, before += blocks * kv_heads) {
      blocks = ceil_div((int64_t)(offsets[request + 1] - offsets[request]) * share, ATTN_ROWS);
      if (item < before + blocks * kv_heads) break;
    }
    if (request >= requests) return;
    // Later queries see more keys: they are taken first, so that the last item of a step is a small one.
    const int64_t within = item - before, block = blocks - 1 - within / kv_heads;
    const int head = (int)(within % kv_heads);
    const int64_t all = (int64_t)(offsets[request + 1] - offsets[request]) * share;
    const int64_t from = all * block / blocks;
    const int count = (int)(all * (block + 1) / blocks - from);
    int64_t begin = INT32_MAX, end = 0, latest = 0;
    for (int i = 0; i < count; i++) {
      const int64_t t = offsets[request] + (from + i) / share;
      const int h = head * share + (int)((from + i) % share);
      const int32_t position = positions[t];
      int32_t first = 0;
      if (s.window) first = (int32_t)max_of(first, position - s.window + 1);
      if (s.chunk) first = (int32_t)max_of(first, position / s.chunk * s.chunk);
      rows->first[i] = first;
      rows->last[i] = (int32_t)min_of(position, lengths[request] - 1);
      rows->position[i] = position;
      rows->slope[i] = s.slopes ? slopes[h] : 0;
      rows->max[i] = sinks == NULL ? -INFINITY : sinks[h];
      rows->total[i] = sinks == NULL ? 0 : 1;
      memcpy(rows->q + i * dim, row_of(q, t) + h * dim, (size_t)dim * 4);
      memset(rows->out + i * wide, 0, (size_t)wide * 4);
      begin = min_of(begin, rows->first[i]);
      latest = max_of(latest, rows->first[i]);
      end = max_of(end, rows->last[i] + 1);
    }
    // Rows that fill the last strip: computed along, never read.
    const int padded = count < ATTN_STRIP ? (count <= 4 ? count : ATTN_STRIP) : (int)ceil_div(count, ATTN_STRIP) * ATTN_STRIP;
    for (int i = count; i < padded; i++) {
      rows->first[i] = (int32_t)begin;
      rows->last[i] = (int32_t)(end - 1);
      rows->position[i] = rows->position[0];
      rows->slope[i] = 0;
      rows->max[i] = -INFINITY;
      rows->total[i] = 0;
      memset(rows->q + i * dim, 0, (size_t)dim * 4);
      memset(rows->out + i * wide, 0, (size_t)wide * 4);
    }
    const int32_t *table = ints_of(tables) + request * max_blocks;
    // The first tokens, as far as they are not in a row's window anyway; then the windows.
    if (s.sink_tokens && latest > 0) {
      int32_t first[ATTN_ROWS], last[ATTN_ROWS];
      memcpy(first, rows->first, sizeof first);
      memcpy(last, rows->last, sizeof last);
      for (int i = 0; i < padded; i++) {
        rows->first[i] = 0;
        rows->last[i] = (int32_t)min_of(s.sink_tokens, first[i]) - 1;
      }
      attend_span(s, rows, padded, l->cache, table, head, 0, min_of(s.sink_tokens, end), scale, cap);
      memcpy(rows->first, first, sizeof first);
      memcpy(rows->last, last, sizeof last);
    }
    attend_span(s, rows, padded, l->cache, table, head, begin, end, scale, cap);
    for (int i = 0; i < count; i++) {
      const int64_t t = offsets[request] + (from + i) / share;
      const int h = head * share + (int)((from + i) % share);
      float *to = row_of(y, t) + h * wide;
      const float inverse = 1 / rows->total[i];
      for (int d = 0; d < wide; d++) to[d] = rows->out[i * wide + d] * inverse;
    }
  }
}

#define PAGED_ATTENTION(name, heads, kv_heads, head_dim, value_dim, block_tokens, window, sink_tokens, chunk, softcap, slopes) \
  static void name(const launch *l, const worker *w) {                                                               \
    const attention_shape shape = {heads,  {kv_heads, head_dim, value_dim, block_tokens},                            \
                                   window, sink_tokens, chunk, softcap, slopes};                                      \
    paged_attention(l, w, shape);                                                                                    \
  }
