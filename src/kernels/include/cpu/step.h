// The native side of a program: included last by the stub, after the kernels and their table `typert_kernels`.
#include <fcntl.h>
#include <sys/mman.h>
#include "include/cpu/pool.h"
#include "include/cpu/quant.h"

enum { HUGE_PAGE = 2 << 20 };

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
    gate_open(&p->job);
    walk(p, 0, p->count);
    // Where other programs hold a core, its thread stands in a queue at every barrier and the others with it: one thread is then quicker than
    // all. They are tried again after a while.
    const int64_t took = nanoseconds() - begin, slept = atomic_load(&p->slept);
    if (slept > took / 3 && slept > 500000) p->alone_until = begin + took + min_of(max_of(took * 16, 50000000), 300000000);
  }
#ifdef __x86_64__
  _mm_setcsr(control);
#else
  (void)control;
#endif
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

EXPORT int64_t typert_packed_bytes(int32_t format, int64_t rows, int64_t columns) {
  return is_quant(format) ? ceil_div(rows, PAIR) * pair_bytes(format, columns) : ceil_div(rows, GROUP) * block_bytes(format, columns);
}
EXPORT void typert_pack(int32_t format, const char *from, char *to, int64_t rows, int64_t columns) {
  if (is_quant(format)) pack_quant(format, (const uint8_t *)from, to, rows, columns);
  else pack_float(format, from, to, rows, columns);
}
EXPORT void typert_copy_blocks(const char *source, char *target, int64_t block_bytes, const int32_t *from, const int32_t *to, int32_t count) {
  for (int32_t i = 0; i < count; i++) memcpy(target + to[i] * block_bytes, source + from[i] * block_bytes, (size_t)block_bytes);
}
EXPORT int32_t typert_launch_bytes(void) { return (int32_t)sizeof(launch); }
