// The side of a program that is compiled: included last by the stub, after the kernels and their table `typert_kernels`.
#include "include/cpu/pool.h"
#include "include/cpu/quant.h"

/// Walks a list of launches on the pool. Blocks until the last is done.
EXPORT void typert_step(pool *p, const launch *launches, int32_t count, const int64_t *dims, char *scratch, int64_t *times) {
  p->launches = launches;
  p->launch_count = count;
  p->dims = dims;
  p->scratch = scratch;
  p->times = times;
  p->kernels = typert_kernels;
  atomic_store(&p->claimed, 0);
  const uint32_t control = flush_subnormals();
  const int64_t begin = nanoseconds();
  if (p->count == 1 || begin < p->alone_until) {
    walk(p, 0, 1);
  } else {
    atomic_store_explicit(&p->slept, 0, memory_order_relaxed);
    p->spins = begin < p->contended_until ? SPIN_CONTENDED : SPIN_BARRIER;
    gate_open(&p->job);
    walk(p, 0, p->count);
    // Where other programs hold a core, its thread stands in a queue at every barrier and the others with it. Spinning then takes from those who would let it go on; and where
    // all but one thread's worth of a step is waiting, one thread is quicker than all. They are tried again after a while.
    const int64_t took = nanoseconds() - begin, slept = atomic_load(&p->slept);
    if (slept > took / 16) p->contended_until = begin + took + 100000000;
    if (slept > (p->count - 1) * took / 4 * 3 && slept > 500000) p->alone_until = begin + took + min_of(max_of(took * 16, 50000000), 300000000);
  }
#ifdef __x86_64__
  _mm_setcsr(control);
#else
  (void)control;
#endif
}

EXPORT int64_t typert_packed_bytes(int32_t format, int64_t rows, int64_t columns) {
  return is_quant(format) ? ceil_div(rows, PAIR) * pair_bytes(format, columns) : ceil_div(rows, GROUP) * block_bytes(format, columns);
}
/// `share`: groups of 32 columns that have one scale.
EXPORT void typert_pack(int32_t format, int32_t share, const char *from, char *to, int64_t rows, int64_t columns) {
  if (is_quant(format)) pack_quant(format, share, (const uint8_t *)from, to, rows, columns);
  else pack_float(format, from, to, rows, columns);
}
EXPORT void typert_copy_blocks(const char *source, char *target, int64_t block_bytes, const int32_t *from, const int32_t *to, int32_t count) {
  for (int32_t i = 0; i < count; i++) memcpy(target + to[i] * block_bytes, source + from[i] * block_bytes, (size_t)block_bytes);
}
EXPORT int32_t typert_launch_bytes(void) { return (int32_t)sizeof(launch); }

#ifndef __wasm__
#include "include/cpu/native.h"
#endif
