// Every kernel of the CPU target in one module, for machines without a C compiler: what the stub of a plan makes constant comes with each launch
// instead, as its first numbers, in the order of the kernel's macro (src/targets/cpu/wasm-table.ts). Formats and activations stay constant.
#include "attention/cpu.c"
#include "embedding/cpu.c"
#include "gather/cpu.c"
#include "matmul/cpu.c"
#include "moe/cpu.c"
#include "norm/cpu.c"
#include "pointwise/cpu.c"
#include "sample/cpu.c"

#define EACH_FORMAT(CASE) \
  CASE(W_F32) CASE(W_BF16) CASE(W_F16) CASE(W_Q8_0) CASE(W_Q4_0) CASE(W_Q4_1) CASE(W_Q5_0) CASE(W_Q5_1) CASE(W_Q4_K) CASE(W_Q5_K) CASE(W_Q6_K) CASE(W_Q8_Z)
#define EACH_ACTIVATION(CASE) \
  CASE(ACT_silu) CASE(ACT_gelu) CASE(ACT_gelu_tanh) CASE(ACT_quick_gelu) CASE(ACT_relu) CASE(ACT_relu2) CASE(ACT_sigmoid) CASE(ACT_tanh)

static void any_embedding(const launch *l, const worker *w) { embedding(l, w, l->ints[0]); }

// A function for each format keeps stacks small, which join what is inlined.
#define CASE(f) __attribute__((noinline)) MATMUL(matmul_##f, f)
EACH_FORMAT(CASE)
#undef CASE
#define CASE(f) \
  case f: matmul_##f(l, w); break;
static void any_matmul(const launch *l, const worker *w) {
  switch (l->ints[0]) { EACH_FORMAT(CASE) }
}
#undef CASE
static void any_matmul_exact(const launch *l, const worker *w) { matmul(l, w, l->ints[0], 1); }

static void any_pointwise(const launch *l, const worker *w) {
  const int kind = l->ints[1];
  switch (l->ints[0]) {
#define CASE(a) \
  case a: pointwise(l, w, POINT_activation, a); break;
    case POINT_activation: switch (kind) { EACH_ACTIVATION(CASE) } break;
#undef CASE
#define CASE(a) \
  case a: pointwise(l, w, POINT_gated, a); break;
    case POINT_gated: switch (kind) { EACH_ACTIVATION(CASE) } break;
#undef CASE
    case POINT_add: pointwise(l, w, POINT_add, 0); break;
    case POINT_mul: pointwise(l, w, POINT_mul, 0); break;
    case POINT_scale: pointwise(l, w, POINT_scale, 0); break;
    default: pointwise(l, w, POINT_softcap, 0);
  }
}

static void any_rope_cache(const launch *l, const worker *w) {
  const int32_t *i = l->ints;
  const cache_shape shape = {i[1], i[2], i[3], i[4], i[5]};
  rope_cache(l, w, i[0], shape, i[6], i[7], i[8]);
}

#define INT(i) (l->ints[i])
PAGED_ATTENTION(any_paged_attention, INT(0), INT(1), INT(2), INT(3), INT(4), INT(5), INT(6), INT(7), INT(8), INT(9), INT(10))

/// Experts' two weights nearly always have one format.
#define CASE(f)                                                                                 \
  __attribute__((noinline)) static void moe_experts_##f(const launch *l, const worker *w) { \
    moe_experts(l, w, l->ints[0], f, f, 0);                                                      \
  }
EACH_FORMAT(CASE)
#undef CASE
#define CASE(f) \
  case f: moe_experts_##f(l, w); break;
static void any_moe_experts(const launch *l, const worker *w) {
  switch (l->ints[1] == l->ints[2] && !l->ints[3] ? l->ints[1] : -1) {
    EACH_FORMAT(CASE)
    default: moe_experts(l, w, l->ints[0], l->ints[1], l->ints[2], l->ints[3]);
  }
}
#undef CASE

static const kernel_fn typert_kernels[] = {any_embedding, any_matmul, any_pointwise, any_rope_cache, any_paged_attention, any_moe_experts,
                                           moe_route, rmsnorm, layernorm, gather_rows, sample, any_matmul_exact};
#include "include/cpu/step.h"

#ifdef __wasm__
/// Makes a pool of zeroed memory: `count` threads, each with LOCAL_BYTES of `local`.
EXPORT void typert_pool_init(pool *p, int32_t count, char *local) {
  p->count = count;
  p->local = local;
}
EXPORT int32_t typert_pool_bytes(void) { return (int32_t)sizeof(pool); }
EXPORT int32_t typert_local_bytes(void) { return LOCAL_BYTES; }
/// Thread `index` of the pool (not 0, which is the caller of a step): returns when the pool is closed.
EXPORT void typert_thread(pool *p, int32_t index) { serve(p, index); }
/// Ends the threads; within a step, that of a thread that trapped, the step as well.
EXPORT void typert_pool_stop(pool *p) {
  p->stop = 1;
  gate_open(&p->job);
  gate_open(&p->phase);
}
#endif
