// The native side of a program: included last by the stub, after the kernels and their table `typert_kernels`.
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
  gate_open(&p->job);
  walk(p, 0);
#ifdef __x86_64__
  _mm_setcsr(control);
#else
  (void)control;
#endif
}

/// Zeroed memory at a multiple of 2 MiB, on huge pages where they are wanted and the system gives them; 0 when there is none.
EXPORT char *typert_alloc(uint64_t bytes, int32_t huge) {
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
  munmap(address, (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
}

EXPORT int64_t typert_packed_bytes(int32_t format, int64_t rows, int64_t columns) {
  return ceil_div(rows, PANEL) * (is_quant(format) ? quant_panel_bytes(format, columns) : panel_bytes(format, columns));
}
EXPORT void typert_pack(int32_t format, const char *from, char *to, int64_t rows, int64_t columns) {
  if (is_quant(format)) pack_quant(format, (const uint8_t *)from, to, rows, columns);
  else pack_float(format, from, to, rows, columns);
}
EXPORT void typert_copy_blocks(char *cache, int64_t block_bytes, const int32_t *from, const int32_t *to, int32_t count) {
  for (int32_t i = 0; i < count; i++) memcpy(cache + to[i] * block_bytes, cache + from[i] * block_bytes, (size_t)block_bytes);
}
EXPORT int32_t typert_launch_bytes(void) { return (int32_t)sizeof(launch); }
