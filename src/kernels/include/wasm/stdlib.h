// What kernels need of <stdlib.h>: sorting, as a heap.
#ifndef TYPERT_WASM_STDLIB_H
#define TYPERT_WASM_STDLIB_H
#include <stddef.h>
#include <stdint.h>

static void sort_sift(int32_t *items, size_t count, size_t at, int (*compare)(const void *, const void *)) {
  const int32_t item = items[at];
  for (size_t child; (child = 2 * at + 1) < count; at = child) {
    if (child + 1 < count && compare(&items[child], &items[child + 1]) < 0) child++;
    if (compare(&item, &items[child]) >= 0) break;
    items[at] = items[child];
  }
  items[at] = item;
}
/// Of 32-bit numbers only, which is all that kernels sort.
static inline void qsort(void *base, size_t count, size_t size, int (*compare)(const void *, const void *)) {
  int32_t *items = base;
  (void)size;
  for (size_t i = count / 2; i-- > 0;) sort_sift(items, count, i, compare);
  for (size_t end = count; end-- > 1;) {
    const int32_t last = items[end];
    items[end] = items[0];
    items[0] = last;
    sort_sift(items, end, 0, compare);
  }
}
#endif
