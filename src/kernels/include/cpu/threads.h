// What threads need of the machine: a pause, a clock, and to sleep until a word of memory changes.
#ifndef TYPERT_CPU_THREADS_H
#define TYPERT_CPU_THREADS_H
#include <limits.h>
#include <stdatomic.h>
#include <stdint.h>
#include "include/cpu/launch.h"

#ifdef __wasm__
/// Milliseconds, from the host.
__attribute__((import_module("env"), import_name("now"))) double host_now(void);
static int64_t nanoseconds(void) { return (int64_t)(host_now() * 1e6); }
INLINE void pause_cpu(void) {}
INLINE void sleep_while(_Atomic uint32_t *word, uint32_t value) { __builtin_wasm_memory_atomic_wait32((int32_t *)word, (int32_t)value, -1); }
INLINE void wake_all(_Atomic uint32_t *word) { __builtin_wasm_memory_atomic_notify((int32_t *)word, UINT_MAX); }
#else
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#endif
#ifdef __x86_64__
#include <immintrin.h>
#endif

static int64_t nanoseconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}
INLINE void pause_cpu(void) {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}
INLINE void sleep_while(_Atomic uint32_t *word, uint32_t value) {
#ifdef __linux__
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
#else
  (void)word;
  (void)value;
  usleep(50);
#endif
}
INLINE void wake_all(_Atomic uint32_t *word) {
#ifdef __linux__
  syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
#else
  (void)word;
#endif
}
#endif

#define EXPORT __attribute__((visibility("default")))
#endif
