// One layer's KV cache: blocks of tokens; in a block, head after head, its keys then its values. Keys stand in groups of KEYS tokens, column by
// column, so that a vector holds one column of neighbouring tokens and scores need no sum across lanes; values stand token by token.
#ifndef TYPERT_CPU_CACHE_H
#define TYPERT_CPU_CACHE_H
#include "include/cpu/simd.h"

/// Shape of a cache; all of it constant where it is used.
typedef struct {
  int kv_heads, head_dim, value_dim, block_tokens;
} cache_shape;

/// Tokens of a key group: a vector's, or a block's when that is less.
INLINE int key_group(const cache_shape s) { return s.block_tokens < VL ? s.block_tokens : VL; }
INLINE int64_t head_floats(const cache_shape s) { return (int64_t)s.block_tokens * (s.head_dim + s.value_dim); }
INLINE float *cache_head(const cache_shape s, char *cache, int64_t block, int head) {
  return (float *)cache + (block * s.kv_heads + head) * head_floats(s);
}
/// Where column 0 of a token's key is; the next columns follow `key_group` floats apart.
INLINE float *key_at(const cache_shape s, float *head, int64_t token) {
  const int g = key_group(s);
  return head + token / g * g * s.head_dim + token % g;
}
INLINE float *value_at(const cache_shape s, float *head, int64_t token) {
  return head + (int64_t)s.block_tokens * s.head_dim + token * s.value_dim;
}
#endif
