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

/// Positions that are attended to as one: their results are joined in order, whoever computed them, so that a request's numbers do not depend on
/// how many threads or other requests there are. And how many results of such spans a launch has room for.
enum { SPAN_TOKENS = 512, SPANS_MOST = 2048 };

/// What the rows of a work item have in common, and their running state.
typedef struct {
  float q[ATTN_ROWS * HEAD_MAX];
  float out[ATTN_ROWS * HEAD_MAX];    // of the span at hand
  float joined[ATTN_ROWS * HEAD_MAX]; // of the spans before
  float joined_max[ATTN_ROWS], joined_total[ATTN_ROWS];
  float keys[ATTN_GROUPS * VL * HEAD_MAX], values[ATTN_GROUPS * VL * HEAD_MAX]; // of a tile, where the cache has narrow numbers
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
  const int group = key_group(s.cache), per_block = s.cache.block_tokens, dim = s.cache.head_dim, wide = s.cache.value_dim;
  for (int64_t tile = begin / group * group; tile < end; tile += ATTN_GROUPS * group) {
    const float *keys[ATTN_GROUPS], *values[ATTN_GROUPS * VL];
    const int tokens = (int)min_of(ATTN_GROUPS * group, end - tile), skip = (int)max_of(0, begin - tile);
    for (int j = 0; j < ATTN_GROUPS; j++) {
      const int64_t t = tile + j * group;
      if (t >= end) {
        // Groups past the end repeat one: their scores are masked.
        keys[j] = keys[j - 1];
        continue;
      }
      char *place = cache_head(s.cache, cache, table[t / per_block], head);
      const float *value;
      if (s.cache.format == CACHE_float32) {
        keys[j] = (const float *)key_at(s.cache, place, t % per_block);
        value = (const float *)value_at(s.cache, place, t % per_block);
      } else {
        widen_keys(s.cache, place, t % per_block, rows->keys + j * group * dim);
        widen_values(s.cache, place, t % per_block, rows->values + j * group * wide);
        keys[j] = rows->keys + j * group * dim;
        value = rows->values + j * group * wide;
      }
      for (int i = 0; i < group; i++) values[j * group + i] = value + i * wide;
    }
    attend_tile(s, rows, count, keys, values, tile, tokens, skip, scale, cap);
  }
}

INLINE void begin_span(attention_rows *rows, int count, int wide) {
  for (int i = 0; i < count; i++) {
    rows->max[i] = -INFINITY;
    rows->total[i] = 0;
  }
  memset(rows->out, 0, (size_t)(count * wide) * 4);
}
/// Adds the result of a span of a row to what is joined already.
INLINE void join_span(attention_rows *rows, int i, int wide, const float *out, float max, float total) {
  if (max == -INFINITY) return;
  const float most = max > rows->joined_max[i] ? max : rows->joined_max[i], a = expf(rows->joined_max[i] - most), b = expf(max - most);
  float *joined = rows->joined + i * wide;
  for (int d = 0; d < wide; d++) joined[d] = joined[d] * a + out[d] * b;
  rows->joined_total[i] = rows->joined_total[i] * a + total * b;
  rows->joined_max[i] = most;
}

/// What a launch is about, read once.
typedef struct {
  const tensor *q, *y;
  const float *sinks, *slopes;
  const int32_t *positions, *offsets, *lengths, *tables;
  int64_t requests, max_blocks;
  float scale, cap;
} attention_call;

/// Rows [from, from + count) of a request: a token's heads of a kv head after each other. Keys [begin, end) are seen by some of them.
typedef struct {
  int64_t request, from, begin, latest, end;
  int count;
} row_block;

INLINE int64_t blocks_of(const attention_shape s, const attention_call *c, int64_t request) {
  return ceil_div((int64_t)(c->offsets[request + 1] - c->offsets[request]) * (s.heads / s.cache.kv_heads), ATTN_ROWS);
}
INLINE int32_t first_seen(const attention_shape s, int32_t position) {
  int32_t first = 0;
  if (s.window) first = (int32_t)max_of(first, position - s.window + 1);
  if (s.chunk) first = (int32_t)max_of(first, position / s.chunk * s.chunk);
  return first;
}
INLINE row_block block_at(const attention_shape s, const attention_call *c, int64_t request, int64_t block) {
  const int share = s.heads / s.cache.kv_heads;
  const int64_t all = (int64_t)(c->offsets[request + 1] - c->offsets[request]) * share, blocks = blocks_of(s, c, request);
  row_block b = {request, all * block / blocks, INT32_MAX, 0, 0, 0};
  b.count = (int)(all * (block + 1) / blocks - b.from);
  for (int i = 0; i < b.count; i++) {
    const int32_t position = c->positions[c->offsets[request] + (b.from + i) / share], first = first_seen(s, position);
    b.begin = min_of(b.begin, first);
    b.latest = max_of(b.latest, first);
    b.end = max_of(b.end, min_of(position, c->lengths[request] - 1) + 1);
  }
  return b;
}
INLINE int64_t spans_of(const row_block *b) { return max_of(1, ceil_div(b->end, SPAN_TOKENS) - b->begin / SPAN_TOKENS); }

/// Sets the rows of a block up for a kv head; returns how many there are with those that fill the last strip, which are computed along, never read.
INLINE int set_rows(const attention_shape s, const attention_call *c, attention_rows *rows, const row_block *b, int head) {
  const int dim = s.cache.head_dim, wide = s.cache.value_dim, share = s.heads / s.cache.kv_heads, count = b->count;
  for (int i = 0; i < count; i++) {
    const int64_t t = c->offsets[b->request] + (b->from + i) / share;
    const int h = head * share + (int)((b->from + i) % share);
    rows->first[i] = first_seen(s, c->positions[t]);
    rows->last[i] = (int32_t)min_of(c->positions[t], c->lengths[b->request] - 1);
    rows->position[i] = c->positions[t];
    rows->slope[i] = s.slopes ? c->slopes[h] : 0;
    rows->joined_max[i] = c->sinks == NULL ? -INFINITY : c->sinks[h];
    rows->joined_total[i] = c->sinks == NULL ? 0 : 1;
    memcpy(rows->q + i * dim, row_of(c->q, t) + h * dim, (size_t)dim * 4);
  }
  memset(rows->joined, 0, (size_t)(count * wide) * 4);
  const int padded = count < ATTN_STRIP ? (count <= 4 ? count : ATTN_STRIP) : (int)ceil_div(count, ATTN_STRIP) * ATTN_STRIP;
  for (int i = count; i < padded; i++) {
    rows->first[i] = (int32_t)b->begin;
    rows->last[i] = (int32_t)(b->end - 1);
    rows->position[i] = rows->position[0];
    rows->slope[i] = 0;
    memset(rows->q + i * dim, 0, (size_t)dim * 4);
  }
  return padded;
}
INLINE void write_rows(const attention_shape s, const attention_call *c, const attention_rows *rows, const row_block *b, int head) {
  const int wide = s.cache.value_dim, share = s.heads / s.cache.kv_heads;
  for (int i = 0; i < b->count; i++) {
    const int64_t t = c->offsets[b->request] + (b->from + i) / share;
    float *to = row_of(c->y, t) + (head * share + (int)((b->from + i) % share)) * wide;
    const float inverse = 1 / rows->joined_total[i];
    for (int d = 0; d < wide; d++) to[d] = rows->joined[i * wide + d] * inverse;
  }
}

/// The positions [begin, end) of span `index` of a block that are seen by some row.
INLINE void attend_block(const attention_shape s, const attention_call *c, attention_rows *rows, int padded, const row_block *b, int head,
                         int64_t index, char *cache) {
  const int64_t at = (b->begin / SPAN_TOKENS + index) * SPAN_TOKENS;
  begin_span(rows, padded, s.cache.value_dim);
  attend_span(s, rows, padded, cache, c->tables + b->request * c->max_blocks, head, max_of(b->begin, at), min_of(b->end, at + SPAN_TOKENS), c->scale, c->cap);
}
INLINE void join_rows(const attention_shape s, attention_rows *rows, int count) {
  const int wide = s.cache.value_dim;
  for (int i = 0; i < count; i++) join_span(rows, i, wide, rows->out + i * wide, rows->max[i], rows->total[i]);
}

/// A whole block for one kv head.
INLINE void attend_rows(const attention_shape s, const attention_call *c, attention_rows *rows, const row_block *b, int head, char *cache) {
  const int padded = set_rows(s, c, rows, b, head);
  // The first tokens, as far as they are not in a row's window anyway; then the windows.
  if (s.sink_tokens && b->latest > 0) {
    int32_t first[ATTN_ROWS], last[ATTN_ROWS];
    memcpy(first, rows->first, sizeof first);
    memcpy(last, rows->last, sizeof last);
    for (int i = 0; i < padded; i++) {
      rows->first[i] = 0;
      rows->last[i] = (int32_t)min_of(s.sink_tokens, first[i]) - 1;
    }
    begin_span(rows, padded, s.cache.value_dim);
    attend_span(s, rows, padded, cache, c->tables + b->request * c->max_blocks, head, 0, min_of(s.sink_tokens, b->end), c->scale, c->cap);
    join_rows(s, rows, b->count);
    memcpy(rows->first, first, sizeof first);
    memcpy(rows->last, last, sizeof last);
  }
  for (int64_t i = 0; i < spans_of(b); i++) {
    attend_block(s, c, rows, padded, b, head, i, cache);
    join_rows(s, rows, b->count);
  }
  write_rows(s, c, rows, b, head);
}

/// A span's results in scratch: [rows][value columns, maximum, total].
INLINE float *span_results(const attention_shape s, const worker *w, int64_t index) {
  return (float *)w->scratch + index * ATTN_ROWS * (s.cache.value_dim + 2);
}

/// Few blocks over long contexts: each span of each block is computed by whoever comes; then the results are joined.
INLINE void split_attention(const attention_shape s, const worker *w, const attention_call *c, attention_rows *rows, char *cache) {
  const int wide = s.cache.value_dim, kv_heads = s.cache.kv_heads;
  for (int pass = 0; pass < 2; pass++) {
    int64_t item = claim(w), items = 0, spans = 0; // of the blocks before
    for (int64_t request = 0; request < c->requests; request++) {
      for (int64_t block = 0; block < blocks_of(s, c, request); block++) {
        const row_block b = block_at(s, c, request, block);
        const int64_t count = spans_of(&b), each = pass == 0 ? count : 1;
        for (; item < items + each * kv_heads; item = claim(w)) {
          const int head = (int)((item - items) / each);
          const int64_t index = (item - items) % each;
          const int padded = set_rows(s, c, rows, &b, head);
          if (pass == 0) {
            attend_block(s, c, rows, padded, &b, head, index, cache);
            float *to = span_results(s, w, spans + head * count + index);
            for (int i = 0; i < b.count; i++, to += wide + 2) {
              memcpy(to, rows->out + i * wide, (size_t)wide * 4);
              to[wide] = rows->max[i];
              to[wide + 1] = rows->total[i];
            }
          } else {
            for (int64_t span = 0; span < count; span++) {
              const float *from = span_results(s, w, spans + head * count + span);
              for (int i = 0; i < b.count; i++, from += wide + 2) join_span(rows, i, wide, from, from[wide], from[wide + 1]);
            }
            write_rows(s, c, rows, &b, head);
          }
        }
        items += each * kv_heads;
        spans += count * kv_heads;
      }
    }
    if (pass == 0) barrier(w);
  }
}

INLINE void paged_attention(const launch *l, const worker *w, const attention_shape s) {
  const tensor *tables = &l->args[ATTN_TABLES];
  const attention_call c = {
      .q = &l->args[ATTN_Q],
      .y = &l->args[ATTN_Y],
      .sinks = floats_of(&l->args[ATTN_SINKS]),
      .slopes = floats_of(&l->args[ATTN_SLOPES]),
      .positions = ints_of(&l->args[ATTN_POSITIONS]),
      .offsets = ints_of(&l->args[ATTN_OFFSETS]),
      .lengths = ints_of(&l->args[ATTN_LENGTHS]),
      .tables = ints_of(tables),
      .requests = rows_of(w, &l->args[ATTN_OFFSETS]) - 1,
      .max_blocks = dim_of(w, tables->dim[1]),
      .scale = l->floats[0],
      .cap = l->floats[1],
  };
  const int kv_heads = s.cache.kv_heads;
  attention_rows *rows = (attention_rows *)w->local;
  _Static_assert(sizeof(attention_rows) <= LOCAL_BYTES, "rows of attention outgrow a thread's memory");
  int64_t items = 0, spans = 0;
  const int64_t enough = 3 * (int64_t)w->count;
  for (int64_t request = 0; request < c.requests && items < enough; request++) {
    for (int64_t block = 0; block < blocks_of(s, &c, request) && items < enough; block++) {
      const row_block b = block_at(s, &c, request, block);
      items += kv_heads;
      spans += spans_of(&b) * kv_heads;
    }
  }
  if (w->count > 1 && !s.sink_tokens && items < enough && spans > items && spans <= SPANS_MOST) {
    split_attention(s, w, &c, rows, l->cache);
    return;
  }
  int64_t request = 0, before = 0; // work items of the requests before `request`
  for (int64_t item = claim(w);; item = claim(w)) {
    int64_t blocks = 0;
    for (; request < c.requests; request++, before += blocks * kv_heads) {
      blocks = blocks_of(s, &c, request);
      if (item < before + blocks * kv_heads) break;
    }
    if (request >= c.requests) return;
    // Later queries see more keys: they are taken first, so that the last item of a step is a small one.
    const row_block b = block_at(s, &c, request, blocks - 1 - (item - before) / kv_heads);
    attend_rows(s, &c, rows, &b, (int)((item - before) % kv_heads), l->cache);
  }
}

#define PAGED_ATTENTION(name, heads, kv_heads, head_dim, value_dim, block_tokens, format, window, sink_tokens, chunk, softcap, slopes) \
  static void name(const launch *l, const worker *w) {                                                                                \
    const attention_shape shape = {heads,  {kv_heads, head_dim, value_dim, block_tokens, format},                                     \
                                   window, sink_tokens, chunk, softcap, slopes};                                                      \
    paged_attention(l, w, shape);                                                                                                     \
  }
