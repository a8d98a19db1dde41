// Norm, rotation and cache write of each head; puts out the rotated queries.
#ifndef TYPERT_CPU_ROPE_H
#define TYPERT_CPU_ROPE_H
#include "attention/cache.h"
#include "include/cpu/pool.h"
#include "include/cpu/vmath.h"
#include "norm/norm.h"

enum { ROPE_Q, ROPE_K, ROPE_V, ROPE_QNORM, ROPE_KNORM, ROPE_FREQUENCIES, ROPE_POSITIONS, ROPE_SLOTS, ROPE_Y };
enum { NORM_NONE, NORM_RMS, NORM_LAYER };
enum { STYLE_HALF, STYLE_INTERLEAVED };
/// Largest head that any family has.
enum { HEAD_MAX = 1024 };

INLINE void rotate(const int style, float *x, int half, const float *cosine, const float *sine) {
  int i = 0;
  if (style == STYLE_HALF) {
    for (; i + VL <= half; i += VL) {
      const vf a = load(x + i), b = load(x + half + i), c = load(cosine + i), s = load(sine + i);
      store(x + i, a * c - b * s);
      store(x + half + i, b * c + a * s);
    }
  }
  for (; i < half; i++) {
    const int p = style == STYLE_HALF ? i : 2 * i, q = style == STYLE_HALF ? half + i : 2 * i + 1;
    const float a = x[p], b = x[q];
    x[p] = a * cosine[i] - b * sine[i];
    x[q] = b * cosine[i] + a * sine[i];
  }
}

INLINE void rope_cache(const launch *l, const worker *w, const int heads, const cache_shape shape, const int norm,
                       const int rotary, const int style) {
  const int dim = shape.head_dim, half = rotary / 2;
  const tensor *q = &l->args[ROPE_Q], *k = &l->args[ROPE_K], *v = &l->args[ROPE_V], *y = &l->args[ROPE_Y];
  const int32_t *positions = ints_of(&l->args[ROPE_POSITIONS]), *slots = ints_of(&l->args[ROPE_SLOTS]);
  const float *frequencies = floats_of(&l->args[ROPE_FREQUENCIES]);
  const float eps = l->floats[0], offset = l->floats[1], factor = l->floats[2];
  const int64_t per_token = heads + shape.kv_heads, items = rows_of(w, q) * per_token, step = chunk_size(w, items, 2);
  float cosine[HEAD_MAX / 2], sine[HEAD_MAX / 2], head[HEAD_MAX];
  int64_t angles_of = -1;
  for (int64_t c = claim(w); c * step < items; c = claim(w)) {
    for (int64_t item = c * step; item < min_of(items, (c + 1) * step); item++) {
      const int64_t t = item / per_token;
      const int h = (int)(item % per_token), key = h >= heads;
      if (half > 0 && frequencies != NULL && angles_of != t) {
        angles_of = t;
        const vf position = set((float)positions[t]), scale = set(factor);
        for (int i = 0; i < half; i += VL) {
          const int n = half - i < VL ? half - i : VL;
          vf s, co;
          vsincos(position * (n < VL ? load_n(frequencies + i, n) : load(frequencies + i)), &s, &co);
          store_n(sine + i, s * scale, n);
          store_n(cosine + i, co * scale, n);
        }
      }
      const float *from = key ? row_of(k, t) + (h - heads) * dim : row_of(q, t) + h * dim;
      float *to = key ? head : row_of(y, t) + h * dim;
      const float *weight = floats_of(&l->args[key ? ROPE_KNORM : ROPE_QNORM]);
      if (norm == NORM_NONE || weight == NULL) memcpy(to, from, (size_t)dim * 4);
      else norm_row(norm == NORM_LAYER, from, to, dim, eps, weight, offset, NULL);
      if (half > 0 && frequencies != NULL) rotate(style, to, half, cosine, sine);
      if (key) {
        const int64_t slot = slots[t];
        char *place = cache_head(shape, l->cache, slot / shape.block_tokens, h - heads);
        write_key(shape, place, slot % shape.block_tokens, head);
        write_value(shape, place, slot % shape.block_tokens, row_of(v, t) + (h - heads) * shape.value_dim);
      }
    }
  }
}

#define ROPE_CACHE(name, heads, kv_heads, head_dim, value_dim, block_tokens, format, norm, rotary, style) \
  static void name(const launch *l, const worker *w) {                                                   \
    const cache_shape shape = {kv_heads, head_dim, value_dim, block_tokens, format};                     \
    rope_cache(l, w, heads, shape, NORM_##norm, rotary, STYLE_##style);                                  \
  }
#endif
