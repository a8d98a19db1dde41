// How weights lie in memory: panels of 16 rows, so that a vector holds the same columns of neighbouring rows and a product needs no sum across
// lanes. Rows are padded with zeros to whole panels. Per format one struct-less description: bytes of a panel, and a row's columns as floats.
#ifndef TYPERT_CPU_WEIGHTS_H
#define TYPERT_CPU_WEIGHTS_H
#include "include/cpu/simd.h"

enum { PANEL = 16, PV = PANEL / VL };

// Float formats.
//   f32, f16: [columns][16 rows]
//   bf16:     [columns / 2][16 rows][2 columns]: one 32-bit lane is a row, and either column is a shift or a mask away
enum { W_F32 = 0, W_BF16 = 1, W_F16 = 2 };

INLINE int64_t element_bytes(const int format) { return format == W_F32 ? 4 : 2; }
/// Columns as stored: bf16 keeps pairs.
INLINE int64_t stored_columns(const int format, int64_t k) { return format == W_BF16 ? (k + 1) / 2 * 2 : k; }
INLINE int64_t panel_bytes(const int format, int64_t k) { return stored_columns(format, k) * PANEL * element_bytes(format); }

/// One element of a panelled matrix.
INLINE float weight_at(const int format, const char *w, int64_t columns, int64_t row, int64_t column) {
  const char *panel = w + row / PANEL * panel_bytes(format, columns);
  const int64_t lane = row % PANEL;
  if (format == W_F32) return ((const float *)panel)[column * PANEL + lane];
  if (format == W_F16) return half_to_float(((const uint16_t *)panel)[column * PANEL + lane]);
  return bfloat_to_float(((const uint16_t *)panel)[(column / 2 * PANEL + lane) * 2 + column % 2]);
}

/// Lays rows × columns elements of `from` out in panels.
__attribute__((unused)) static void pack_float(const int format, const char *from, char *to, int64_t rows, int64_t columns) {
  const int64_t panels = ceil_div(rows, PANEL);
  memset(to, 0, (size_t)(panels * panel_bytes(format, columns)));
  for (int64_t p = 0; p < panels; p++, to += panel_bytes(format, columns)) {
    const int64_t lanes_used = min_of(PANEL, rows - p * PANEL);
    for (int64_t lane = 0; lane < lanes_used; lane++) {
      const char *row = from + (p * PANEL + lane) * columns * element_bytes(format);
      if (format == W_F32) {
        for (int64_t k = 0; k < columns; k++) memcpy(to + (k * PANEL + lane) * 4, row + k * 4, 4);
      } else if (format == W_F16) {
        for (int64_t k = 0; k < columns; k++) memcpy(to + (k * PANEL + lane) * 2, row + k * 2, 2);
      } else {
        int64_t k = 0;
        for (; k + 1 < columns; k += 2) memcpy(to + (k / 2 * PANEL + lane) * 4, row + k * 2, 4);
        if (k < columns) memcpy(to + (k / 2 * PANEL + lane) * 4, row + k * 2, 2);
      }
    }
  }
}
#endif
