// Ops on elements. Rows are cut into pieces of some thousand columns, so that one long row is shared out too.
#include "include/cpu/pool.h"
#include "pointwise/activations.h"

enum { POINT_COLUMNS = 4096 };
enum { POINT_activation, POINT_gated, POINT_add, POINT_mul, POINT_scale, POINT_softcap };

INLINE vf point(const int op, const int kind, vf a, vf b, float f) {
  switch (op) {
    case POINT_activation: return activate(kind, a);
    case POINT_gated: return activate(kind, a) * b;
    case POINT_add: return a + b;
    case POINT_mul: return a * b;
    case POINT_scale: return a * set(f);
    default: return set(f) * vtanh(a / set(f));
  }
}

INLINE void pointwise(const launch *l, const worker *w, const int op, const int kind) {
  const int two = op == POINT_gated || op == POINT_add || op == POINT_mul;
  const tensor *a = &l->args[0], *b = &l->args[two ? 1 : 0], *y = &l->args[two ? 2 : 1];
  const int64_t rows = rows_of(w, a), columns = dim_of(w, a->dim[1]), pieces = ceil_div(columns, POINT_COLUMNS);
  const int64_t step = chunk_size(w, rows * pieces, 4);
  const float f = l->floats[0];
  for (int64_t c = claim(w); c * step < rows * pieces; c = claim(w)) {
    for (int64_t item = c * step; item < min_of(rows * pieces, (c + 1) * step); item++) {
      const int64_t r = item / pieces, from = item % pieces * POINT_COLUMNS, to = min_of(columns, from + POINT_COLUMNS);
      const float *p = row_of(a, r), *q = row_of(b, r);
      float *out = row_of(y, r);
      int64_t i = from;
      for (; i + VL <= to; i += VL) store(out + i, point(op, kind, load(p + i), two ? load(q + i) : set(0), f));
      const int n = (int)(to - i);
      if (n > 0) store_n(out + i, point(op, kind, load_n(p + i, n), two ? load_n(q + i, n) : set(0), f), n);
    }
  }
}

#define POINTWISE(name, op, kind) \
  static void name(const launch *l, const worker *w) { pointwise(l, w, POINT_##op, ACT_##kind); }
