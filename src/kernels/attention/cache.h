// One layer's KV cache: blocks of tokens; in a block, head after head, its keys then its values. Keys stand in groups of KEYS tokens, column by
// column, so that a vector holds one column of neighbouring tokens and scores need no sum across lanes; values stand token by token. Numbers are
// floats, bfloat16, or bytes with a scale for each token of a head, of its key and of its value, which stand before both.
#ifndef TYPERT_CPU_CACHE_H
#define TYPERT_CPU_CACHE_H
#include "include/cpu/simd.h"

enum { CACHE_float32, CACHE_bfloat16, CACHE_int8 };

/// Shape of a cache; all of it constant where it is used.
typedef struct {
  int kv_heads, head_dim, value_dim, block_tokens, format;
} cache_shape;

/// Tokens of a key group: a vector's, or a block's when that is less.
INLINE int key_group(const cache_shape s) { return s.block_tokens < VL ? s.block_tokens : VL; }
INLINE int cache_bytes(const cache_shape s) { return s.format == CACHE_float32 ? 4 : s.format == CACHE_bfloat16 ? 2 : 1; }
INLINE int64_t scales_bytes(const cache_shape s) { return s.format == CACHE_int8 ? (int64_t)s.block_tokens * 8 : 0; }
/// Bytes of a head in a block: whole floats.
INLINE int64_t head_bytes(const cache_shape s) {
  return (scales_bytes(s) + (int64_t)s.block_tokens * (s.head_dim + s.value_dim) * cache_bytes(s) + 3) / 4 * 4;
}
INLINE char *cache_head(const cache_shape s, char *cache, int64_t block, int head) { return cache + (block * s.kv_heads + head) * head_bytes(s); }
/// Where column 0 of a token's key is; the next columns follow `key_group` numbers apart.
INLINE char *key_at(const cache_shape s, char *head, int64_t token) {
  const int g = key_group(s);
  return head + scales_bytes(s) + (token / g * g * s.head_dim + token % g) * cache_bytes(s);
}
INLINE char *value_at(const cache_shape s, char *head, int64_t token) {
  return head + scales_bytes(s) + ((int64_t)s.block_tokens * s.head_dim + token * s.value_dim) * cache_bytes(s);
}
INLINE float *key_scale(char *head, int64_t token) { return (float *)head + token; }
INLINE float *value_scale(const cache_shape s, char *head, int64_t token) { return (float *)head + s.block_tokens + token; }

/// Writes n numbers `step` numbers apart; of bytes, returns the scale that they have.
INLINE float write_numbers(const cache_shape s, const float *from, char *to, int n, int step) {
  if (s.format == CACHE_float32) {
    for (int i = 0; i < n; i++) ((float *)to)[i * step] = from[i];
    return 1;
  }
  if (s.format == CACHE_bfloat16) {
    for (int i = 0; i < n; i++) ((uint16_t *)to)[i * step] = float_to_bfloat(from[i]);
    return 1;
  }
  float most = 0;
  for (int i = 0; i < n; i++) {
    const float size = from[i] < 0 ? -from[i] : from[i];
    most = size > most ? size : most;
  }
  const float inverse = most > 0 ? 127 / most : 0;
  for (int i = 0; i < n; i++) ((int8_t *)to)[i * step] = (int8_t)((int32_t)(from[i] * inverse + 127.5f) - 127);
  return most / 127;
}
INLINE void write_key(const cache_shape s, char *head, int64_t token, const float *key) {
  const float scale = write_numbers(s, key, key_at(s, head, token), s.head_dim, key_group(s));
  if (s.format == CACHE_int8) *key_scale(head, token) = scale;
}
INLINE void write_value(const cache_shape s, char *head, int64_t token, const float *value) {
  const float scale = write_numbers(s, value, value_at(s, head, token), s.value_dim, 1);
  if (s.format == CACHE_int8) *value_scale(s, head, token) = scale;
}

/// n numbers that stand together, as floats.
INLINE void widen(const cache_shape s, const char *from, float *to, int n) {
  int i = 0;
  if (s.format == CACHE_bfloat16) {
    for (; i + VL <= n; i += VL) store(to + i, load_bfloat(from + i * 2));
    for (; i < n; i++) to[i] = bfloat_to_float(((const uint16_t *)from)[i]);
  } else {
    for (; i + VL <= n; i += VL) store(to + i, load_bytes(from + i, 1));
    for (; i < n; i++) to[i] = ((const int8_t *)from)[i];
  }
}
/// A group of keys, beginning with `token`, as floats in the same order; and its values.
INLINE void widen_keys(const cache_shape s, char *head, int64_t token, float *to) {
  const int g = key_group(s);
  widen(s, key_at(s, head, token), to, g * s.head_dim);
  if (s.format != CACHE_int8) return;
  const float *scales = key_scale(head, token);
  if (g == VL) {
    const vf scale = load(scales);
    for (int d = 0; d < s.head_dim; d++) store(to + d * VL, load(to + d * VL) * scale);
  } else {
    for (int i = 0; i < g * s.head_dim; i++) to[i] *= scales[i % g];
  }
}
INLINE void widen_values(const cache_shape s, char *head, int64_t token, float *to) {
  const int g = key_group(s);
  widen(s, value_at(s, head, token), to, g * s.value_dim);
  if (s.format != CACHE_int8) return;
  for (int t = 0; t < g; t++) {
    const float scale = *value_scale(s, head, token + t);
    for (int d = 0; d < s.value_dim; d++) to[t * s.value_dim + d] *= scale;
  }
}
#endif
