// y[t] = table[ids[t]], from a table in panels.
#include "include/cpu/pool.h"
#include "include/cpu/quant.h"

enum { EMBEDDING_IDS, EMBEDDING_TABLE, EMBEDDING_Y };

INLINE void embedding(const launch *l, const worker *w, const int format) {
  const tensor *ids = &l->args[EMBEDDING_IDS], *table = &l->args[EMBEDDING_TABLE], *y = &l->args[EMBEDDING_Y];
  const int64_t rows = rows_of(w, ids), columns = dim_of(w, table->dim[1]);
  for (int64_t t = claim(w); t < rows; t = claim(w)) {
    float *to = row_of(y, t);
    if (is_quant(format)) quant_row(format, table->data, columns, ints_of(ids)[t], to);
    else for (int64_t k = 0; k < columns; k++) to[k] = weight_at(format, table->data, columns, ints_of(ids)[t], k);
  }
}

#define EMBEDDING(name, format) \
  static void name(const launch *l, const worker *w) { embedding(l, w, format); }
