// One token a row of logits: temperature → top k → top p → min p, then one draw by the inverse of the distribution's sum in token order.
// What it means in full: sample/reference.ts.
#include "include/cpu/pool.h"
#include "include/cpu/vmath.h"

enum { SAMPLE_LOGITS, SAMPLE_TEMPERATURE, SAMPLE_TOP_K, SAMPLE_TOP_P, SAMPLE_MIN_P, SAMPLE_SEED_LOW, SAMPLE_SEED_HIGH, SAMPLE_COUNTER, SAMPLE_TOKEN, SAMPLE_LOGPROB };

/// Index of the greatest logit, the lowest of equals; -1 when none is above -infinity.
static int64_t best_of(const float *logits, int64_t n) {
  vf top = set(-INFINITY);
  int64_t i = 0;
  // The running maximum stands second: a lane that is not a number then leaves it as it was.
  for (; i + VL <= n; i += VL) top = vmax(load(logits + i), top);
  float max = max_in(top);
  for (; i < n; i++) max = logits[i] > max ? logits[i] : max;
  if (!(max > -INFINITY)) return -1;
  for (i = 0; logits[i] != max; i++) {}
  return i;
}

/// Σ e^((logit - max) / temperature); logits that are not numbers are left out.
static double sum_exp(const float *logits, int64_t n, float max, float temperature) {
  double total = 0;
  int64_t i = 0;
  // Pieces are summed in float32 lanes and added up in float64.
  while (i + VL <= n) {
    vf sum = set(0);
    for (int j = 0; j < 64 && i + VL <= n; j++, i += VL) {
      const vf e = vexp((load(logits + i) - set(max)) / set(temperature));
      sum += choose(e > set(0), e, set(0));
    }
    total += sum_of(sum);
  }
  for (; i < n; i++) {
    const double e = exp(((double)logits[i] - max) / temperature);
    if (e > 0) total += e;
  }
  return total;
}

/// Random bits: Philox 4x32-10 (Salmon et al. 2011); the upper 24 bits of its first word as a number in [0, 1).
static double uniform(uint32_t low, uint32_t high, uint32_t counter) {
  uint32_t c[4] = {counter, 0, 0, 0};
  for (int round = 0; round < 10; round++) {
    const uint64_t a = (uint64_t)0xd2511f53u * c[0], b = (uint64_t)0xcd9e8d57u * c[2];
    const uint32_t next[4] = {(uint32_t)(b >> 32) ^ c[1] ^ low, (uint32_t)b, (uint32_t)(a >> 32) ^ c[3] ^ high, (uint32_t)a};
    memcpy(c, next, sizeof c);
    low += 0x9e3779b9u;
    high += 0xbb67ae85u;
  }
  return (c[0] >> 8) * 0x1p-24;
}

/// The worst of two tokens: the lower logit, of equals the higher id.
INLINE int worse(const float *logits, int32_t a, int32_t b) { return logits[a] < logits[b] || (logits[a] == logits[b] && a > b); }

static void sift_down(const float *logits, int32_t *heap, int64_t size, int64_t at) {
  const int32_t token = heap[at];
  for (;;) {
    int64_t child = 2 * at + 1;
    if (child >= size) break;
    if (child + 1 < size && worse(logits, heap[child + 1], heap[child])) child++;
    if (!worse(logits, heap[child], token)) break;
    heap[at] = heap[child];
    at = child;
  }
  heap[at] = token;
}

/// The `count` likeliest tokens into `heap`, likeliest first; returns how many there are.
static int64_t top_tokens(const float *logits, int64_t n, int64_t count, int32_t *heap) {
  int64_t size = 0;
  for (int32_t token = 0; token < n; token++) {
    if (!(logits[token] > -INFINITY)) continue;
    if (size < count) {
      heap[size++] = token;
      if (size == count)
        for (int64_t i = size / 2 - 1; i >= 0; i--) sift_down(logits, heap, size, i);
    } else if (worse(logits, heap[0], token)) {
      heap[0] = token;
      sift_down(logits, heap, size, 0);
    }
  }
  if (size < count)
    for (int64_t i = size / 2 - 1; i >= 0; i--) sift_down(logits, heap, size, i);
  // The worst goes to the end, again and again.
  for (int64_t end = size - 1; end > 0; end--) {
    const int32_t token = heap[0];
    heap[0] = heap[end];
    heap[end] = token;
    sift_down(logits, heap, end, 0);
  }
  return size;
}

static int ascending(const void *a, const void *b) {
  const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
  return (x > y) - (x < y);
}

typedef struct {
  float temperature, top_p, min_p;
  int64_t top_k;
} filters;

INLINE double weight_of(const float *logits, int64_t token, float max, float temperature) {
  return exp(((double)logits[token] - max) / temperature);
}

/// The tokens that the filters keep, ascending, in `tokens`; -1 when only min p filters.
static int64_t filter_tokens(const float *logits, int64_t n, float max, const filters *f, int32_t *tokens) {
  const int limited = f->top_k > 0 && f->top_k < n;
  if (!limited && f->top_p >= 1) return -1;
  for (int64_t count = limited ? f->top_k : 64;; count *= 8) {
    const int64_t found = top_tokens(logits, n, min_of(count, n), tokens);
    const int complete = limited || found < count;
    double total = 0, mass = 0;
    if (limited) for (int64_t i = 0; i < found; i++) total += weight_of(logits, tokens[i], max, f->temperature);
    else total = sum_exp(logits, n, max, f->temperature);
    int64_t kept = -1;
    for (int64_t i = 0; i < found && kept < 0; i++) {
      const double weight = weight_of(logits, tokens[i], max, f->temperature);
      if (i > 0 && ((f->top_p < 1 && mass >= f->top_p * total) || weight < f->min_p)) kept = i;
      mass += weight;
    }
    if (kept < 0 && complete) kept = found;
    if (kept >= 0) {
      qsort(tokens, (size_t)kept, sizeof(int32_t), ascending);
      return kept;
    }
  }
}

static int64_t draw(const float *logits, int64_t n, float max, int64_t best, const filters *f, double u, int32_t *tokens) {
  const int64_t kept = filter_tokens(logits, n, max, f, tokens), count = kept < 0 ? n : kept;
  double total = 0, sum = 0;
  for (int pass = 0; pass < 2; pass++) {
    for (int64_t i = 0; i < count; i++) {
      const int64_t token = kept < 0 ? i : tokens[i];
      const double weight = weight_of(logits, token, max, f->temperature);
      if (!(weight > 0) || weight < f->min_p) continue;
      if (pass == 0) total += weight;
      else if ((sum += weight) > u * total) return token;
    }
  }
  return best;
}

/// Scratch: a list of tokens for each thread.
static void sample(const launch *l, const worker *w) {
  const tensor *logits = &l->args[SAMPLE_LOGITS];
  const int64_t rows = rows_of(w, logits), n = dim_of(w, logits->dim[1]);
  int32_t *tokens = (int32_t *)w->scratch + w->index * ((n + 15) / 16 * 16);
  for (int64_t r = claim(w); r < rows; r = claim(w)) {
    const float *row = row_of(logits, r);
    const int64_t best = best_of(row, n);
    int64_t token = best < 0 ? 0 : best;
    float logprob = NAN;
    if (best >= 0) {
      const float max = row[best];
      const double norm = max + log(sum_exp(row, n, max, 1));
      const filters f = {floats_of(&l->args[SAMPLE_TEMPERATURE])[r], floats_of(&l->args[SAMPLE_TOP_P])[r],
                         floats_of(&l->args[SAMPLE_MIN_P])[r], ints_of(&l->args[SAMPLE_TOP_K])[r]};
      if (f.temperature != 0 && f.top_k != 1 && f.top_p != 0) {
        const double u = uniform((uint32_t)ints_of(&l->args[SAMPLE_SEED_LOW])[r], (uint32_t)ints_of(&l->args[SAMPLE_SEED_HIGH])[r],
                                 (uint32_t)ints_of(&l->args[SAMPLE_COUNTER])[r]);
        token = draw(row, n, max, best, &f, u, tokens);
      }
      logprob = (float)(row[token] - norm);
    }
    ints_of(&l->args[SAMPLE_TOKEN])[r] = (int32_t)token;
    floats_of(&l->args[SAMPLE_LOGPROB])[r] = logprob;
  }
}
