// What a kernel of the CPU target is: a function that every thread of the pool calls with the same launch. The threads share the work out by
// claiming chunks. This layout is mirrored in src/targets/cpu/table.ts.
#ifndef TYPERT_CPU_LAUNCH_H
#define TYPERT_CPU_LAUNCH_H
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

enum { MAX_ARGS = 10, MAX_INTS = 12, MAX_FLOATS = 8, LOCAL_BYTES = 1 << 20 };

/// A tensor as kernels see it. A dim that is known only in the step is -1 - (its index in the step's dims).
typedef struct {
  char *data;
  int64_t stride; // elements from row to row
  int32_t rank;
  int32_t dim[3];
} tensor;

typedef struct {
  int32_t kernel; // index into the program's kernels
  int32_t reserved;
  char *cache; // the layer's part of the KV pool
  _Alignas(8) int32_t ints[MAX_INTS]; // at the same place where pointers are shorter
  float floats[MAX_FLOATS];
  tensor args[MAX_ARGS];
} launch;

struct pool;

/// One thread of a step.
typedef struct {
  struct pool *pool;
  const int64_t *dims;
  char *scratch; // shared by all threads of a launch
  char *local;   // LOCAL_BYTES of this thread's own: the caller's stack may be a small one
  int32_t index;
  int32_t count;
} worker;

typedef void (*kernel_fn)(const launch *, const worker *);

INLINE int64_t dim_of(const worker *w, int32_t dim) { return dim >= 0 ? dim : w->dims[-1 - dim]; }
INLINE int64_t rows_of(const worker *w, const tensor *t) { return dim_of(w, t->dim[0]); }
INLINE int has(const tensor *t) { return t->data != NULL; }
INLINE float *floats_of(const tensor *t) { return (float *)t->data; }
INLINE int32_t *ints_of(const tensor *t) { return (int32_t *)t->data; }
INLINE float *row_of(const tensor *t, int64_t row) { return (float *)t->data + row * t->stride; }

INLINE int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t max_of(int64_t a, int64_t b) { return a > b ? a : b; }
INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
#endif
