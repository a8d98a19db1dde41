// Norms over rows, with an optional residual that is added first and put out as `sum`.
#include "include/cpu/pool.h"
#include "norm/norm.h"

INLINE void norm_rows(const launch *l, const worker *w, const int layer, const tensor *bias, const tensor *residual,
                      const tensor *y, const tensor *sum) {
  const tensor *x = &l->args[0], *weight = &l->args[1];
  const int64_t rows = rows_of(w, x), columns = dim_of(w, x->dim[1]), step = chunk_size(w, rows, 4);
  for (int64_t c = claim(w); c * step < rows; c = claim(w)) {
    for (int64_t r = c * step; r < min_of(rows, (c + 1) * step); r++) {
      const float *from = row_of(x, r);
      if (residual != NULL && has(residual)) {
        const float *other = row_of(residual, r);
        float *to = row_of(sum, r);
        int64_t i = 0;
        for (; i + VL <= columns; i += VL) store(to + i, load(from + i) + load(other + i));
        for (; i < columns; i++) to[i] = from[i] + other[i];
        from = to;
      }
      norm_row(layer, from, row_of(y, r), columns, l->floats[0], floats_of(weight), l->floats[1],
               bias == NULL ? NULL : floats_of(bias));
    }
  }
}

// Inputs: x, weight?, residual?; outputs: y, sum?
static void rmsnorm(const launch *l, const worker *w) {
  norm_rows(l, w, 0, NULL, &l->args[2], &l->args[3], &l->args[4]);
}
// Inputs: x, weight?, bias?, residual?; outputs: y, sum?
static void layernorm(const launch *l, const worker *w) {
  norm_rows(l, w, 1, &l->args[2], &l->args[3], &l->args[4], &l->args[5]);
}
