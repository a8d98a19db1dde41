// How weights lie in memory: in blocks of rows, column after column, so that a vector holds one column of neighbouring rows, a product needs no sum
// across lanes, and a block is read as one stretch of memory from its first byte to its last. Rows are padded with zeros to whole blocks.
#ifndef TYPERT_CPU_WEIGHTS_H
#define TYPERT_CPU_WEIGHTS_H
#include "include/cpu/simd.h"

/// Rows of a panel, vectors of one, and rows of a block of float weights.
enum { PANEL = 16, PV = PANEL / VL, GROUP_PANELS = 4, GROUP = GROUP_PANELS * PANEL };

// Float formats, by block:
//   f32, f16: [columns][64 rows]
//   bf16:     [columns / 2][64 rows][2 columns]: one 32-bit lane is a row, and either column is a shift or a mask away
enum { W_F32 = 0, W_BF16 = 1, W_F16 = 2 };

INLINE int64_t element_bytes(const int format) { return format == W_F32 ? 4 : 2; }
/// Columns as stored: bf16 keeps pairs.
INLINE int64_t stored_columns(const int format, int64_t k) { return format == W_BF16 ? (k + 1) / 2 * 2 : k; }
INLINE int64_t block_bytes(const int format, int64_t k) { return stored_columns(format, k) * GROUP * element_bytes(format); }

/// Where an element is, in bytes from the matrix's first.
INLINE int64_t element_offset(const int format, int64_t columns, int64_t row, int64_t column) {
  const int64_t block = row / GROUP * block_bytes(format, columns), lane = row % GROUP;
  return block + (format == W_BF16 ? ((column / 2 * GROUP + lane) * 2 + column % 2) * 2 : (column * GROUP + lane) * element_bytes(format));
}

INLINE float weight_at(const int format, const char *w, int64_t columns, int64_t row, int64_t column) {
  const char *at = w + element_offset(format, columns, row, column);
  if (format == W_F32) return *(const float *)at;
  return format == W_F16 ? half_to_float(*(const uint16_t *)at) : bfloat_to_float(*(const uint16_t *)at);
}

/// Lays rows × columns elements of `from` out in blocks.
__attribute__((unused)) static void pack_float(const int format, const char *from, char *to, int64_t rows, int64_t columns) {
  const int64_t bytes = element_bytes(format);
  memset(to, 0, (size_t)(ceil_div(rows, GROUP) * block_bytes(format, columns)));
  // Rows of a block side by side: what is written then fills whole lines.
  for (int64_t block = 0; block < rows; block += GROUP) {
    for (int64_t k = 0; k < columns; k += 32) {
      for (int64_t r = block; r < min_of(rows, block + GROUP); r++) {
        for (int64_t c = k; c < min_of(columns, k + 32); c++) {
          char *place = to + element_offset(format, columns, r, c);
          const char *element = from + (r * columns + c) * bytes;
          if (bytes == 4) memcpy(place, element, 4);
          else memcpy(place, element, 2);
        }
      }
    }
  }
}
#endif
