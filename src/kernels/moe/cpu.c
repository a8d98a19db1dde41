// Mixture of experts: routing of each token; then the experts' products, each expert over all the tokens that chose it.
#include "include/cpu/pool.h"
#include "matmul/exact-tile.h"
#include "matmul/quant-tile.h"
#include "pointwise/activations.h"

enum { ROUTE_LOGITS, ROUTE_BIAS, ROUTE_WEIGHTS, ROUTE_EXPERTS };
enum { MOE_X, MOE_WEIGHTS, MOE_EXPERTS, MOE_GATE_UP, MOE_DOWN, MOE_Y };
enum { EXPERTS_MAX = 1024, MOE_ROWS = QUANT_ROWS };

/// ints: top k, scoring by sigmoid, normalize; floats: scale.
static void moe_route(const launch *l, const worker *w) {
  const tensor *logits = &l->args[ROUTE_LOGITS], *weights = &l->args[ROUTE_WEIGHTS], *experts = &l->args[ROUTE_EXPERTS];
  const float *bias = floats_of(&l->args[ROUTE_BIAS]);
  const int64_t rows = rows_of(w, logits);
  const int count = (int)dim_of(w, logits->dim[1]), top = l->ints[0];
  for (int64_t t = claim(w); t < rows; t = claim(w)) {
    const float *row = row_of(logits, t);
    float scores[EXPERTS_MAX];
    char taken[EXPERTS_MAX] = {0};
    float max = row[0], total = 0;
    for (int e = 1; e < count; e++) max = row[e] > max ? row[e] : max;
    for (int e = 0; e < count; e++) {
      scores[e] = l->ints[1] ? 1 / (1 + expf(-row[e])) : expf(row[e] - max);
      total += scores[e];
    }
    if (!l->ints[1])
      for (int e = 0; e < count; e++) scores[e] /= total;
    float sum = 0;
    for (int i = 0; i < top; i++) {
      // The bias takes part in the choice only; ties go to the lower id.
      int best = -1;
      for (int e = 0; e < count; e++) {
        if (taken[e]) continue;
        if (best < 0 || scores[e] + (bias ? bias[e] : 0) > scores[best] + (bias ? bias[best] : 0)) best = e;
      }
      taken[best] = 1;
      ints_of(experts)[t * top + i] = best;
      floats_of(weights)[t * top + i] = scores[best];
      sum += scores[best];
    }
    const float factor = l->floats[0] / (l->ints[2] ? sum : 1);
    for (int i = 0; i < top; i++) floats_of(weights)[t * top + i] *= factor;
  }
}

/// Where each expert's pairs of token and place begin in the list of all pairs.
typedef struct {
  int32_t begin[EXPERTS_MAX + 1];
} expert_lists;

/// The rows of all experts as whole numbers, an expert's tiles after another's; ends with a barrier.
INLINE void quantise_lists(const worker *w, const int f, const expert_lists *lists, int64_t experts, const int32_t *pairs, const float *x,
                           int64_t x_stride, int top, int64_t k, char *slots) {
  int64_t expert = 0;
  for (int64_t i = claim(w); i < lists->begin[experts]; i = claim(w)) {
    while (lists->begin[expert + 1] <= i) expert++;
    const int64_t begin = lists->begin[expert], row = i - begin, tile = row / BYTE_TILE, rows = tile_rows(lists->begin[expert + 1] - begin, tile);
    char *to = tile_slots(f, slots + begin * (k / GROUP_COLUMNS) * slot_bytes(f, 1), tile, k);
    const float *from = x + pairs[i] / top * x_stride;
    for (int64_t g = 0; g < k / GROUP_COLUMNS; g++) quantise_group(f, from + g * GROUP_COLUMNS, to + g * slot_bytes(f, rows), rows, row % BYTE_TILE);
  }
  barrier(w);
}

/// A product of every expert with its rows: chunks are (expert, group of panels, block of rows).
INLINE void expert_product(const worker *w, const int format, const int exact, const expert_lists *lists, const int32_t *pairs, const tensor *weight,
                           const float *x, int64_t x_stride, int top, float *y, int64_t y_stride, char *slots) {
  const int64_t experts = dim_of(w, weight->dim[0]), n = dim_of(w, weight->dim[1]), k = dim_of(w, weight->dim[2]);
  const int64_t width = weight_block(format), bytes = weight_block_bytes(format, k), groups = ceil_div(n, width), matrix = groups * bytes;
  if (is_quant(format) && !exact) quantise_lists(w, format, lists, experts, pairs, x, x_stride, top, k, slots);
  int64_t expert = 0, before = 0, chunks = 0;
  for (int64_t c = claim(w);; c = claim(w)) {
    for (; expert < experts; expert++, before += chunks) {
      chunks = ceil_div(lists->begin[expert + 1] - lists->begin[expert], MOE_ROWS) * groups;
      if (c < before + chunks) break;
    }
    if (expert >= experts) return;
    const int64_t all = lists->begin[expert + 1] - lists->begin[expert], blocks = chunks / groups;
    const int64_t g = (c - before) / blocks, from = (c - before) % blocks * MOE_ROWS, rows = min_of(MOE_ROWS, all - from);
    const float *in[MOE_ROWS];
    float *out[MOE_ROWS];
    for (int64_t i = 0; i < rows; i++) {
      const int32_t pair = pairs[lists->begin[expert] + from + i];
      in[i] = x + pair / top * x_stride;
      out[i] = y + pair * y_stride + g * width;
    }
    const char *block_at = weight->data + expert * matrix + g * bytes;
    if (is_quant(format) && exact) {
      exact_pair(format, (float_room *)w->local, rows, in, block_at, out, k, n - g * width, NULL);
      continue;
    }
    if (is_quant(format)) {
      char *of_expert = slots + lists->begin[expert] * (k / GROUP_COLUMNS) * slot_bytes(format, 1);
      quant_of(format)((quant_room *)w->local, of_expert, all, from, rows, block_at, out, k, n - g * width, NULL);
      continue;
    }
    float_group(format, (float_room *)w->local, rows, in, block_at, out, k, n - g * width, NULL);
  }
}

INLINE void moe_experts(const launch *l, const worker *w, const int kind, const int up_format, const int down_format, const int exact) {
  const tensor *x = &l->args[MOE_X], *experts = &l->args[MOE_EXPERTS], *down = &l->args[MOE_DOWN], *y = &l->args[MOE_Y];
  const int64_t rows = rows_of(w, x), count = dim_of(w, down->dim[0]), hidden = dim_of(w, down->dim[1]), inner = dim_of(w, down->dim[2]);
  const int top = (int)dim_of(w, experts->dim[1]);
  const int64_t pairs_count = rows * top;
  // Scratch: lists, pairs, [pairs][2 · inner] of gate and up, [pairs][hidden] of results, rows as whole numbers.
  expert_lists *lists = (expert_lists *)w->scratch;
  int32_t *pairs = (int32_t *)(w->scratch + (sizeof(expert_lists) + 63) / 64 * 64);
  float *both = (float *)(pairs + (pairs_count + 15) / 16 * 16);
  float *results = both + pairs_count * 2 * inner;
  char *slots = (char *)(results + pairs_count * hidden);
  if (w->index == 0) {
    int32_t next[EXPERTS_MAX + 1] = {0};
    for (int64_t i = 0; i < pairs_count; i++) next[ints_of(experts)[i] + 1]++;
    for (int64_t e = 0; e < count; e++) next[e + 1] += next[e];
    memcpy(lists->begin, next, sizeof next);
    for (int64_t i = 0; i < pairs_count; i++) pairs[next[ints_of(experts)[i]]++] = (int32_t)i;
  }
  barrier(w);
  expert_product(w, up_format, exact, lists, pairs, &l->args[MOE_GATE_UP], floats_of(x), x->stride, top, both, 2 * inner, slots);
  barrier(w);
  for (int64_t i = claim(w); i < pairs_count; i = claim(w)) gate_row(kind, both + i * 2 * inner, both + i * 2 * inner + inner, both + i * 2 * inner, inner);
  barrier(w);
  expert_product(w, down_format, exact, lists, pairs, down, both, 2 * inner, 1, results, hidden, slots);
  barrier(w);
  const float *weights = floats_of(&l->args[MOE_WEIGHTS]);
  for (int64_t t = claim(w); t < rows; t = claim(w)) {
    float *to = row_of(y, t);
    for (int64_t j = 0; j < hidden; j++) {
      float sum = 0;
      for (int i = 0; i < top; i++) sum += weights[t * top + i] * results[(t * top + i) * hidden + j];
      to[j] = sum;
    }
  }
}

#define MOE_EXPERTS_KERNEL(name, kind, up_format, down_format, exact) \
  static void name(const launch *l, const worker *w) { moe_experts(l, w, ACT_##kind, up_format, down_format, exact); }
