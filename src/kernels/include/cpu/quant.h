// GGUF's block formats, and those of TypeRT's own quantisation, at their own bits, in pairs of panels of 16 rows, group after group of 32 columns. A group holds, of the first panel
// and then of the second,
//   the low bits:  8-bit formats: 8 registers of 64 bytes, register j the columns 4j to 4j+3 of 16 rows (row-major within the register);
//                  others: 4 registers of nibbles, register j the low nibbles of columns 8j to 8j+3 and the high ones of 8j+4 to 8j+7
//   the high bits: in registers of the same bytes, the fifth bit of register j at bit j; two (Q6_K) at bits 2 · (j mod 4), a register for four
//   the scales:    a half a row (and a half of minimum); of the K formats a byte a row (and a byte of minimum), Q6_K two bytes a row
// and in the K formats eight groups follow a header with the halves that their scales are factors of.
#ifndef TYPERT_CPU_QUANT_H
#define TYPERT_CPU_QUANT_H
#include "include/cpu/weights.h"

enum { W_Q8_0 = 3, W_Q4_0, W_Q4_1, W_Q5_0, W_Q5_1, W_Q4_K, W_Q5_K, W_Q6_K, W_Q8_Z };
enum { GROUP_COLUMNS = 32, SUPER_GROUPS = 8, HEADER_BYTES = 64, QUANT_PANELS = 2, PAIR = QUANT_PANELS * PANEL };

INLINE int is_quant(const int f) { return f >= W_Q8_0; }
INLINE int has_header(const int f) { return f >= W_Q4_K && f <= W_Q6_K; }
/// Q8_Z is Q8_0 with a minimum: what a stored 128 means.
INLINE int eight_bits(const int f) { return f == W_Q8_0 || f == W_Q8_Z; }
INLINE int has_minimum(const int f) { return f == W_Q4_1 || f == W_Q5_1 || f == W_Q4_K || f == W_Q5_K || f == W_Q8_Z; }
INLINE int high_planes(const int f) { return f == W_Q6_K ? 2 : f == W_Q5_0 || f == W_Q5_1 || f == W_Q5_K ? 1 : 0; }
/// What a stored number is above the one it means.
INLINE int quant_offset(const int f) { return eight_bits(f) ? 128 : f == W_Q4_0 ? 8 : f == W_Q5_0 ? 16 : f == W_Q6_K ? 32 : 0; }
INLINE int low_bytes(const int f) { return eight_bits(f) ? 512 : 256; }
INLINE int scale_bytes(const int f) { return !has_header(f) && has_minimum(f) ? 64 : 32; }
/// Bytes of a group of both panels: whole lines of 64, so that every register of weights is one.
INLINE int group_bytes(const int f) { return QUANT_PANELS * (low_bytes(f) + 64 * high_planes(f) + scale_bytes(f)); }
INLINE int low_at(const int f, int j) { return j * low_bytes(f); }
INLINE int high_at(const int f, int j) { return QUANT_PANELS * low_bytes(f) + j * 64 * high_planes(f); }
INLINE int scales_at(const int f, int j) { return QUANT_PANELS * (low_bytes(f) + 64 * high_planes(f)) + j * scale_bytes(f); }
/// Bytes of a pair of panels.
INLINE int64_t pair_bytes(const int f, int64_t k) {
  const int64_t groups = k / GROUP_COLUMNS;
  return groups * group_bytes(f) + (has_header(f) ? groups / SUPER_GROUPS * HEADER_BYTES * QUANT_PANELS : 0);
}
/// Where a group is in the pair, and the header of panel j that it belongs to.
INLINE int64_t group_offset(const int f, int64_t g) {
  return g * group_bytes(f) + (has_header(f) ? (g / SUPER_GROUPS + 1) * HEADER_BYTES * QUANT_PANELS : 0);
}
INLINE int64_t header_offset(const int f, int64_t g, int j) {
  return g / SUPER_GROUPS * (SUPER_GROUPS * group_bytes(f) + HEADER_BYTES * QUANT_PANELS) + j * HEADER_BYTES;
}

/// Where column c (0 to 31) of a lane is in the low bytes, and whether in the high nibble.
INLINE int low_place(const int f, int c, int lane) { return eight_bits(f) ? c / 4 * 64 + lane * 4 + c % 4 : c / 8 * 64 + lane * 4 + c % 4; }

/// Where a column's high bits are; they begin at bit c / 4 · high_planes, modulo 8, of that byte.
INLINE int high_place(const int f, int c, int lane) { return c / 4 * high_planes(f) / 8 * 64 + lane * 4 + c % 4; }

INLINE int stored_at(const int f, const uint8_t *group, int j, int c, int lane) {
  int q = group[low_at(f, j) + low_place(f, c, lane)];
  if (eight_bits(f)) return q;
  q = c / 4 % 2 ? q >> 4 : q & 15;
  const int bits = high_planes(f);
  return bits == 0 ? q : q | (group[high_at(f, j) + high_place(f, c, lane)] >> c / 4 * bits % 8 & ((1 << bits) - 1)) << 4;
}

/// Scale and minimum of a lane's columns: w = scale · stored + shift.
INLINE void scale_of(const int f, const char *pair, int64_t g, int j, int lane, int c, float *scale, float *shift) {
  const char *group = pair + group_offset(f, g), *at = group + scales_at(f, j);
  const uint16_t *halves = (const uint16_t *)at, *header = (const uint16_t *)(pair + header_offset(f, g, j));
  const uint8_t *bytes = (const uint8_t *)at;
  if (f == W_Q6_K) {
    *scale = half_to_float(header[lane]) * (int8_t)bytes[c / 16 * 16 + lane];
    *shift = -*scale * 32;
  } else if (has_header(f)) {
    *scale = half_to_float(header[lane]) * bytes[lane];
    *shift = -half_to_float(header[16 + lane]) * bytes[16 + lane];
  } else {
    *scale = half_to_float(halves[lane]);
    *shift = (has_minimum(f) ? half_to_float(halves[16 + lane]) : 0) - *scale * (float)quant_offset(f);
  }
}

/// Columns of one row as floats.
INLINE void quant_row(const int f, const char *w, int64_t columns, int64_t row, float *out) {
  const char *pair = w + row / PAIR * pair_bytes(f, columns);
  const int lane = (int)(row % PANEL), j = (int)(row / PANEL % QUANT_PANELS);
  for (int64_t g = 0; g < columns / GROUP_COLUMNS; g++) {
    for (int c = 0; c < GROUP_COLUMNS; c++) {
      float scale, shift;
      scale_of(f, pair, g, j, lane, c, &scale, &shift);
      *out++ = scale * (float)stored_at(f, (const uint8_t *)pair + group_offset(f, g), j, c, lane) + shift;
    }
  }
}

// Formats without a header may share their scales over some groups of 32: `share` of them.
INLINE int half_bytes(const int f) { return has_minimum(f) ? 4 : 2; }
INLINE int number_block(const int f) { return eight_bits(f) ? 32 : 16 + high_planes(f) * 4; }

/// One group of a row as GGUF stores it: numbers from 0 and the bits of its scales.
typedef struct {
  uint8_t q[32];
  uint16_t scale, minimum; // halves; of the K formats the header's
  uint8_t bytes[2];        // of the K formats
} gguf_group;

INLINE uint16_t half_at(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }

static void read_gguf(const int f, int share, const uint8_t *row, int64_t g, gguf_group *out) {
  const int64_t in = g % SUPER_GROUPS;
  if (!has_header(f)) {
    const int high = high_planes(f) * 4;
    const uint8_t *b = row + g / share * (half_bytes(f) + share * number_block(f)), *bits = b + half_bytes(f) + g % share * number_block(f), *low = bits + high;
    out->scale = half_at(b);
    out->minimum = has_minimum(f) ? half_at(b + 2) : 0;
    for (int i = 0; i < 32; i++) {
      if (eight_bits(f)) {
        out->q[i] = low[i] ^ 0x80;
        continue;
      }
      out->q[i] = i < 16 ? low[i] & 15 : low[i - 16] >> 4;
      if (high) out->q[i] |= (uint8_t)((bits[i / 8] >> i % 8 & 1) << 4);
    }
  } else if (f == W_Q6_K) {
    const uint8_t *b = row + g / SUPER_GROUPS * 210, *scales = b + 192;
    out->scale = half_at(b + 208);
    out->bytes[0] = scales[in * 2];
    out->bytes[1] = scales[in * 2 + 1];
    // Groups of a half (128 columns) share bytes: the first two their low nibbles, the last two their high ones.
    const uint8_t *low = b + in / 4 * 64 + in % 2 * 32, *high = b + 128 + in / 4 * 32;
    for (int i = 0; i < 32; i++) out->q[i] = (uint8_t)((in % 4 < 2 ? low[i] & 15 : low[i] >> 4) | (high[i] >> in % 4 * 2 & 3) << 4);
  } else {
    const int bytes = f == W_Q4_K ? 144 : 176;
    const uint8_t *b = row + g / SUPER_GROUPS * bytes, *s = b + 4, *low = b + bytes - 128 + in / 2 * 32;
    out->scale = half_at(b);
    out->minimum = half_at(b + 2);
    out->bytes[0] = in < 4 ? s[in] & 63 : (uint8_t)((s[in + 4] & 15) | s[in - 4] >> 6 << 4);
    out->bytes[1] = in < 4 ? s[in + 4] & 63 : (uint8_t)(s[in + 4] >> 4 | s[in] >> 6 << 4);
    for (int i = 0; i < 32; i++) {
      out->q[i] = in % 2 ? low[i] >> 4 : low[i] & 15;
      if (f == W_Q5_K) out->q[i] |= (uint8_t)((b[16 + i] >> in & 1) << 4);
    }
  }
}

INLINE int64_t gguf_row_bytes(const int f, int share, int64_t k) {
  switch (f) {
    case W_Q4_K: return k / 256 * 144;
    case W_Q5_K: return k / 256 * 176;
    case W_Q6_K: return k / 256 * 210;
    default: return k / 32 * number_block(f) + k / (32 * share) * half_bytes(f);
  }
}

/// Lays rows of GGUF blocks out in panels; rows past the last have scale 0.
__attribute__((unused)) static void pack_quant(const int f, int share, const uint8_t *from, char *to, int64_t rows, int64_t columns) {
  const int64_t bytes = pair_bytes(f, columns), row_bytes = gguf_row_bytes(f, share, columns);
  memset(to, 0, (size_t)(ceil_div(rows, PAIR) * bytes));
  for (int64_t r = 0; r < rows; r++) {
    char *pair = to + r / PAIR * bytes;
    const int lane = (int)(r % PANEL), j = (int)(r / PANEL % QUANT_PANELS);
    for (int64_t g = 0; g < columns / GROUP_COLUMNS; g++) {
      gguf_group one = {0};
      read_gguf(f, share, from + r * row_bytes, g, &one);
      uint8_t *group = (uint8_t *)pair + group_offset(f, g), *bytes_at = group + scales_at(f, j);
      for (int c = 0; c < GROUP_COLUMNS; c++) {
        uint8_t *low = group + low_at(f, j) + low_place(f, c, lane);
        if (eight_bits(f)) *low = one.q[c];
        else *low |= (uint8_t)((one.q[c] & 15) << (c / 4 % 2 * 4));
        if (high_planes(f) > 0) group[high_at(f, j) + high_place(f, c, lane)] |= (uint8_t)(one.q[c] >> 4 << c / 4 * high_planes(f) % 8);
      }
      if (has_header(f)) {
        uint16_t *header = (uint16_t *)(pair + header_offset(f, g, j));
        header[lane] = one.scale;
        header[16 + lane] = one.minimum;
        bytes_at[lane] = one.bytes[0];
        bytes_at[16 + lane] = one.bytes[1];
      } else {
        ((uint16_t *)bytes_at)[lane] = one.scale;
        if (has_minimum(f)) ((uint16_t *)bytes_at)[16 + lane] = one.minimum;
      }
    }
  }
}
#endif
