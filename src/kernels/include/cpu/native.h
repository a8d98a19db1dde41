// What native kernels take of the operating system: threads and memory. Included at the end of step.h.
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include "include/cpu/amx.h"
#include "include/cpu/pool.h"

enum { HUGE_PAGE = 2 << 20 };

typedef struct {
  pool *pool;
  int32_t index;
  int32_t cpu;
} thread_start;

static void *thread_main(void *argument) {
  const thread_start start = *(thread_start *)argument;
  free(argument);
#ifdef __linux__
  if (start.cpu >= 0) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(start.cpu, &set);
    pthread_setaffinity_np(pthread_self(), sizeof set, &set);
  }
#endif
  serve(start.pool, start.index);
  return NULL;
}

/// Starts count - 1 threads (the caller of a step is the other one); `cpus[i]` is where thread i is pinned, -1 for nowhere.
EXPORT pool *typert_pool_open(int32_t count, const int32_t *cpus) {
  amx_ask();
  pool *p = aligned_alloc(64, (sizeof(pool) + 63) / 64 * 64);
  if (p == NULL) return NULL;
  memset(p, 0, sizeof *p);
  pthread_t *threads = p->threads = calloc((size_t)count, sizeof(pthread_t));
  p->local = aligned_alloc(64, (size_t)count * LOCAL_BYTES);
  p->count = 1;
  for (int32_t i = 1; i < count && threads != NULL && p->local != NULL; i++) {
    thread_start *start = malloc(sizeof *start);
    if (start == NULL) break;
    *start = (thread_start){p, i, cpus[i]};
    if (pthread_create(&threads[i], NULL, thread_main, start) != 0) {
      free(start);
      break;
    }
    p->count = i + 1;
  }
  return p;
}

EXPORT int32_t typert_pool_count(const pool *p) { return p->count; }

EXPORT void typert_pool_close(pool *p) {
  p->stop = 1;
  gate_open(&p->job);
  for (int32_t i = 1; i < p->count; i++) pthread_join(((pthread_t *)p->threads)[i], NULL);
  free(p->threads);
  free(p->local);
  free(p);
}

/// Zeroed memory at a multiple of 2 MiB, on huge pages where they are wanted and the system gives them; 0 when there is none.
EXPORT char *typert_alloc(uint64_t bytes, int32_t huge) {
#ifdef __SANITIZE_ADDRESS__
  // Under AddressSanitizer every tensor gets fences of its own.
  (void)huge;
  char *fenced = aligned_alloc(64, (bytes + 63) / 64 * 64);
  return fenced == NULL ? NULL : memset(fenced, 0, (bytes + 63) / 64 * 64);
#endif
  const uint64_t whole = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
  char *base = mmap(NULL, whole + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) return NULL;
  char *aligned = (char *)(((uintptr_t)base + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
  if (aligned > base) munmap(base, (size_t)(aligned - base));
  munmap(aligned + whole, (size_t)(HUGE_PAGE - (aligned - base)));
#ifdef MADV_HUGEPAGE
  if (huge && bytes >= HUGE_PAGE) madvise(aligned, whole, MADV_HUGEPAGE);
#endif
  return aligned;
}
EXPORT void typert_free(char *address, uint64_t bytes) {
#ifdef __SANITIZE_ADDRESS__
  free(address);
  return;
#endif
  munmap(address, (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
}

/// A file's first bytes, read-only and shared with every process that maps them; 0 when that cannot be done.
EXPORT char *typert_map(const char *path, uint64_t bytes) {
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return NULL;
  char *base = mmap(NULL, bytes, PROT_READ, MAP_SHARED, file, 0);
  close(file);
  if (base == MAP_FAILED) return NULL;
#ifdef MADV_WILLNEED
  madvise(base, bytes, MADV_WILLNEED);
#endif
  return base;
}
EXPORT void typert_unmap(char *base, uint64_t bytes) { munmap(base, bytes); }

