// A pool of threads that walks a list of launches together: every thread calls every kernel, and a barrier ends each. Waiting spins for a while and
// then sleeps, so that an idle engine costs nothing and a busy one never enters the kernel.
#ifndef TYPERT_CPU_POOL_H
#define TYPERT_CPU_POOL_H
#include <stdlib.h>
#include "include/cpu/launch.h"
#include "include/cpu/threads.h"

// Spinning threads hold a core that others may want: where threads were kept waiting lately, they give it back early.
enum { SPIN_BARRIER = 8000, SPIN_CONTENDED = 500, SPIN_IDLE = 6000 };

typedef struct {
  _Alignas(64) _Atomic uint32_t value;
  _Atomic uint32_t sleepers;
} gate;

typedef struct pool {
  gate phase; // passed at the end of each launch
  gate job;   // passed at the start of each step
  _Alignas(64) _Atomic int32_t arrived;
  _Alignas(64) _Atomic int32_t claimed;
  _Atomic int64_t slept; // nanoseconds that threads slept at barriers of this step
  _Alignas(64) int32_t count;
  int64_t contended_until; // nanoseconds of the clock
  int64_t alone_until;
  int32_t spins;         // at a barrier of this step
  int32_t stop;
  const launch *launches;
  int32_t launch_count;
  const int64_t *dims;
  char *scratch;
  char *local;
  int64_t *times;
  const kernel_fn *kernels;
  void *threads;
} pool;

/// Waits until the gate's value is no longer `old`. Returns the nanoseconds slept, which is 0 when spinning was enough.
static int64_t gate_wait(gate *g, uint32_t old, int spins) {
  for (int i = 0; i < spins; i++) {
    if (atomic_load_explicit(&g->value, memory_order_acquire) != old) return 0;
    pause_cpu();
  }
  const int64_t begin = nanoseconds();
  atomic_fetch_add(&g->sleepers, 1);
  while (atomic_load(&g->value) == old) {
    sleep_while(&g->value, old);
  }
  atomic_fetch_sub(&g->sleepers, 1);
  return nanoseconds() - begin;
}

static void gate_open(gate *g) {
  atomic_fetch_add(&g->value, 1);
  if (atomic_load(&g->sleepers) != 0) wake_all(&g->value);
}

/// All threads meet; the chunks to claim begin at 0 again.
static void barrier(const worker *w) {
  pool *p = w->pool;
  if (w->count == 1) {
    atomic_store_explicit(&p->claimed, 0, memory_order_relaxed);
    return;
  }
  const uint32_t phase = atomic_load_explicit(&p->phase.value, memory_order_acquire);
  if (atomic_fetch_add_explicit(&p->arrived, 1, memory_order_acq_rel) == w->count - 1) {
    atomic_store_explicit(&p->arrived, 0, memory_order_relaxed);
    atomic_store_explicit(&p->claimed, 0, memory_order_relaxed);
    gate_open(&p->phase);
  } else {
    const int64_t slept = gate_wait(&p->phase, phase, p->spins);
    if (slept > 0) atomic_fetch_add_explicit(&p->slept, slept, memory_order_relaxed);
#ifdef __wasm__
    // Closed within a step: another thread has trapped and will never come.
    if (p->stop) __builtin_trap();
#endif
  }
}

/// The next chunk of work that no thread has taken; a kernel ends when this is past its last.
INLINE int64_t claim(const worker *w) {
  return atomic_fetch_add_explicit(&w->pool->claimed, 1, memory_order_relaxed);
}

/// Items [begin, end).
typedef struct {
  int64_t begin, end;
} span;

/// The next run of `items`: each thread first takes one of three quarters of its share, so that it reads memory in one stretch; what is left is
/// taken one by one, by whoever is ahead. Empty when all is taken.
INLINE span claim_span(const worker *w, int64_t items) {
  const int64_t large = items * 3 / (4 * (int64_t)w->count), c = claim(w);
  if (c < w->count) {
    if (large > 0) return (span){c * large, (c + 1) * large};
  }
  const int64_t at = w->count * large + (large > 0 ? c - w->count : c);
  return at < items ? (span){at, at + 1} : (span){items, items};
}

/// How many items to take at a time so that each thread comes `rounds` times.
INLINE int64_t chunk_size(const worker *w, int64_t items, int rounds) {
  return max_of(1, items / ((int64_t)w->count * rounds));
}

/// Numbers below the normal range count as zero: they mean nothing here and slow arithmetic down.
INLINE uint32_t flush_subnormals(void) {
#ifdef __x86_64__
  const uint32_t old = _mm_getcsr();
  _mm_setcsr(old | 0x8040);
  return old;
#else
  return 0;
#endif
}

static void walk(pool *p, int32_t index, int32_t threads) {
  const worker w = {p, p->dims, p->scratch, p->local + (int64_t)index * LOCAL_BYTES, index, threads};
  // Read once: when the last barrier is passed the caller may already be setting the next step up.
  const launch *launches = p->launches;
  const int32_t count = p->launch_count;
  const kernel_fn *kernels = p->kernels;
  int64_t *times = index == 0 ? p->times : NULL;
  int64_t begin = times == NULL ? 0 : nanoseconds();
  for (int32_t i = 0; i < count; i++) {
    kernels[launches[i].kernel](&launches[i], &w);
    barrier(&w);
    if (times != NULL) {
      const int64_t end = nanoseconds();
      times[i] += end - begin;
      begin = end;
    }
  }
}

/// What every thread but the caller of a step does until the pool is closed.
static void serve(pool *p, int32_t index) {
  flush_subnormals();
  for (uint32_t job = 0;; job++) {
    gate_wait(&p->job, job, SPIN_IDLE);
    if (p->stop) return;
    walk(p, index, p->count);
  }
}
#endif
