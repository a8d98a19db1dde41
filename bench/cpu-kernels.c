// Products and matrix-vector products of the CPU target beside what the machine can do at most, measured in turns in the same run. Compiled and
// started by cpu.mjs; a line of JSON a figure.
#include "matmul/cpu.c"
#include <stdio.h>

MATMUL(f32, W_F32)
MATMUL(bf16, W_BF16)
MATMUL(q8_0, W_Q8_0)
MATMUL(q4_0, W_Q4_0)
MATMUL(q4_1, W_Q4_1)
MATMUL(q4_k, W_Q4_K)
MATMUL(q6_k, W_Q6_K)

enum { CEILING_ROUNDS = 2000000, READ_BYTES = 256 << 20 };
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
static void ceiling_bytes(const launch *l, const worker *w) {
  (void)l, (void)w;
#if HAS_VNNI
  __m512i sums[12];
  const __m512i a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(1);
#pragma GCC unroll 12
  for (int i = 0; i < 12; i++) sums[i] = _mm512_set1_epi32(i);
  for (int r = 0; r < CEILING_ROUNDS; r++) {
#pragma GCC unroll 12
    for (int i = 0; i < 12; i++) DOT(sums[i], a, b);
  }
#pragma GCC unroll 12
  for (int i = 1; i < 12; i++) sums[0] = _mm512_add_epi32(sums[0], sums[i]);
  sink = (float)_mm512_reduce_add_epi32(sums[0]);
#endif
}
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

static const kernel_fn typert_kernels[] = {f32, bf16, q8_0, q4_0, q4_1, q4_k, q6_k, ceiling_float, ceiling_bytes, ceiling_read};
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
  char *w = typert_alloc(total, 1), *memory = typert_alloc(READ_BYTES + 65536, 1), *scratch = typert_alloc((uint64_t)m * k * 2 + 4096, 1);
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
  const int is_read = m == 1, is_bytes = is_quant(f) && HAS_VNNI;
  ceiling.kernel = is_read ? 9 : is_bytes ? 8 : 7;
  ceiling.args[0].data = memory;
  const double most = is_read ? READ_BYTES : (double)CEILING_ROUNDS * 12 * VL * (is_bytes ? 8 : 2) * p->count;
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
  typert_free(scratch, (uint64_t)m * k * 2 + 4096);
  free(x);
  free(y);
  free(l);
}

int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++) {
    const int threads = atoi(argv[i]);
    int32_t *cpus = malloc((size_t)threads * sizeof(int32_t));
    for (int t = 0; t < threads; t++) cpus[t] = -1;
    pool *p = typert_pool_open(threads, cpus);
    for (int f = 0; f < (int)(sizeof formats / sizeof *formats); f++) {
      measure(p, f, 1, 4096, 4096, f == 0 ? 4 : 12, "matrix-vector");
      measure(p, f, 1, 768, 768, f == 0 ? 60 : 200, "matrix-vector");
      measure(p, f, 128, 2048, 8192, 1, "product");
    }
    typert_pool_close(p);
    free(cpus);
  }
}
