// Products and matrix-vector products of the CPU target beside what the machine can do at most, measured in turns in the same run. Compiled and
// started by kernels.mjs; a line of JSON a figure.
#include "matmul/cpu.c"
#include <stdio.h>

MATMUL(f32, W_F32)
MATMUL(bf16, W_BF16)
MATMUL(q8_0, W_Q8_0)
MATMUL(q4_0, W_Q4_0)
MATMUL(q4_1, W_Q4_1)
MATMUL(q4_k, W_Q4_K)
MATMUL(q6_k, W_Q6_K)

enum { CEILING_FLOAT = 7, CEILING_READ, CEILING_DOTS };
enum { CEILING_ROUNDS = 2000000, CEILING_SUMS = 12 * CEILING_ROUNDS, READ_BYTES = 256 << 20 };
static volatile float sink;

/// Independent multiplications and additions in registers.
static void ceiling_float(const launch *l, const worker *w) {
  (void)l, (void)w;
  vf sums[12];
  for (int i = 0; i < 12; i++) sums[i] = set((float)i);
  for (int r = 0; r < CEILING_ROUNDS; r++)
#pragma GCC unroll 12
    for (int i = 0; i < 12; i++) sums[i] = sums[i] * set(0.999f) + set(0.001f);
  vf all = sums[0];
  for (int i = 1; i < 12; i++) all += sums[i];
  sink = sum_of(all);
}
// What the compiler may not see through: it would take equal products out of the loop.
#ifdef __x86_64__
#define OPAQUE(v) __asm__ volatile("" : "+v"(v))
#else
#define OPAQUE(v) __asm__ volatile("" : "+w"(v))
#endif

/// Sums of products of whole numbers in registers.
INLINE void ceiling_dots(const int way) {
  enum { LEFT = VL == 8 ? 2 : 4, RIGHT = 4 };
  vi sums[LEFT][RIGHT], weights[LEFT][2], x[RIGHT][2];
#pragma GCC unroll 4
  for (int i = 0; i < LEFT; i++) {
    weights[i][0] = weights[i][1] = set_i(0x03010201);
#pragma GCC unroll 4
    for (int j = 0; j < RIGHT; j++) sums[i][j] = set_i(i + j);
  }
#pragma GCC unroll 4
  for (int j = 0; j < RIGHT; j++) x[j][0] = x[j][1] = set_i(0x01010101);
  for (int r = 0; r < CEILING_SUMS / (LEFT * RIGHT); r++) {
#pragma GCC unroll 4
    for (int i = 0; i < LEFT; i++) OPAQUE(weights[i][0]);
#pragma GCC unroll 4
    for (int j = 0; j < RIGHT; j++) OPAQUE(x[j][0]);
#pragma GCC unroll 4
    for (int i = 0; i < LEFT; i++)
#pragma GCC unroll 4
      for (int j = 0; j < RIGHT; j++) sums[i][j] = way == BY_WORDS ? dot_words(sums[i][j], weights[i][0], x[j][0]) : dot(way, sums[i][j], weights[i], x[j]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < LEFT; i++)
#pragma GCC unroll 4
    for (int j = 0; j < RIGHT; j++) sums[0][0] += sums[i][j];
  sink = (float)sums[0][0][0];
}
static void ceiling_fours(const launch *l, const worker *w) { (void)l, (void)w, ceiling_dots(BY_FOURS); }
static void ceiling_pairs(const launch *l, const worker *w) { (void)l, (void)w, ceiling_dots(BY_PAIRS); }
static void ceiling_words(const launch *l, const worker *w) { (void)l, (void)w, ceiling_dots(BY_WORDS); }
static void ceiling_read(const launch *l, const worker *w) {
  const int64_t share = READ_BYTES / w->count;
  const char *from = l->args[0].data + share * w->index;
  vu sums[4] = {0};
  for (int64_t i = 0; i + 4 * VL * 4 <= share; i += 4 * VL * 4) {
    for (int line = 0; line < 4 * VL * 4; line += 64) __builtin_prefetch(from + i + 4096 + line);
    for (int j = 0; j < 4; j++) sums[j] += load_u(from + i + j * VL * 4);
  }
  sink = sum_of((vf)(sums[0] ^ sums[1] ^ sums[2] ^ sums[3]));
}

static const kernel_fn typert_kernels[] = {f32, bf16, q8_0, q4_0, q4_1, q4_k, q6_k, ceiling_float, ceiling_read, ceiling_fours, ceiling_pairs, ceiling_words};
#include "include/cpu/step.h"

static const struct { const char *name; int format; } formats[] = {{"float32", W_F32}, {"bfloat16", W_BF16}, {"q8_0", W_Q8_0}, {"q4_0", W_Q4_0},
                                                                   {"q4_1", W_Q4_1},  {"q4_k", W_Q4_K},     {"q6_k", W_Q6_K}};

static double run(pool *p, const launch *l, int count, char *scratch) {
  // All threads, even where others hold a core: the ceiling is measured so too.
  p->alone_until = 0;
  const int64_t dims[1] = {0}, begin = nanoseconds();
  typert_step(p, l, count, dims, scratch, NULL);
  return (double)(nanoseconds() - begin);
}

static void measure(pool *p, int index, int m, int k, int n, int copies, const char *what) {
  const int f = formats[index].format;
  const int64_t bytes = typert_packed_bytes(f, n, k);
  const uint64_t total = (uint64_t)(bytes * copies) + 65536;
  char *w = typert_alloc(total, 1), *memory = typert_alloc(READ_BYTES + 65536, 1), *scratch = typert_alloc((uint64_t)m * k * 4 + 4096, 1);
  memset(w, 0x11, total);
  memset(memory, 1, READ_BYTES);
  float *x = aligned_alloc(64, (size_t)m * k * 4), *y = aligned_alloc(64, (size_t)m * n * 4);
  for (int i = 0; i < m * k; i++) x[i] = sinf((float)i);
  launch *l = calloc((size_t)copies, sizeof(launch)), ceiling = {0};
  for (int i = 0; i < copies; i++) {
    l[i].kernel = index;
    l[i].args[MATMUL_X] = (tensor){(char *)x, k, 2, {m, k}};
    l[i].args[MATMUL_WEIGHT] = (tensor){w + bytes * i, k, 2, {n, k}};
    l[i].args[MATMUL_Y] = (tensor){(char *)y, n, 2, {m, n}};
  }
  const int is_read = m == 1;
  ceiling.kernel = is_read ? CEILING_READ : is_quant(f) ? CEILING_DOTS + dot_way(f) : CEILING_FLOAT;
  ceiling.args[0].data = memory;
  const double per_round = is_quant(f) ? dot_way(f) == BY_WORDS ? 4 : 8 : 2;
  const double most = is_read ? READ_BYTES : (double)CEILING_ROUNDS * 12 * VL * per_round * p->count;
  double best = 1e18, best_ceiling = 1e18;
  for (int i = 0; i < 12; i++) {
    best = fmin(best, run(p, l, copies, scratch));
    best_ceiling = fmin(best_ceiling, run(p, &ceiling, 1, scratch));
  }
  const double figure = is_read ? (double)bytes * copies / best : 2.0 * m * k * n * copies / best;
  printf("{\"kernel\":\"%s %s\",\"shape\":\"%dx%dx%d\",\"threads\":%d,\"figure\":%.1f,\"ceiling\":%.1f,\"unit\":\"%s\"}\n", formats[index].name, what, m, k,
         n, p->count, figure, most / best_ceiling, is_read ? "GB/s" : "GOP/s");
  fflush(stdout);
  typert_free(w, total);
  typert_free(memory, READ_BYTES + 65536);
  typert_free(scratch, (uint64_t)m * k * 4 + 4096);
  free(x);
  free(y);
  free(l);
}

/// Arguments: numbers of threads; letters: only formats whose name begins so.
int main(int argc, char **argv) {
  const char *only = argc > 1 && argv[argc - 1][0] > '9' ? argv[--argc] : "";
  for (int i = 1; i < argc; i++) {
    const int threads = atoi(argv[i]);
    int32_t *cpus = malloc((size_t)threads * sizeof(int32_t));
    for (int t = 0; t < threads; t++) cpus[t] = -1;
    pool *p = typert_pool_open(threads, cpus);
    for (int f = 0; f < (int)(sizeof formats / sizeof *formats); f++) {
      if (strncmp(formats[f].name, only, strlen(only)) != 0) continue;
      measure(p, f, 1, 4096, 4096, f == 0 ? 4 : 12, "matrix-vector");
      measure(p, f, 1, 768, 768, f == 0 ? 60 : 200, "matrix-vector");
      measure(p, f, 8, 4096, 4096, 2, "product");
      measure(p, f, 128, 2048, 8192, 1, "product");
    }
    typert_pool_close(p);
    free(cpus);
  }
}
