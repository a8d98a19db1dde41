// y[l] = x[rows[l]]
#include "include/cpu/pool.h"

enum { GATHER_X, GATHER_ROWS, GATHER_Y };

static void gather_rows(const launch *l, const worker *w) {
  const tensor *x = &l->args[GATHER_X], *rows = &l->args[GATHER_ROWS], *y = &l->args[GATHER_Y];
  const int64_t count = rows_of(w, rows), columns = dim_of(w, x->dim[1]);
  for (int64_t r = claim(w); r < count; r = claim(w))
    memcpy(row_of(y, r), row_of(x, ints_of(rows)[r]), (size_t)columns * 4);
}
