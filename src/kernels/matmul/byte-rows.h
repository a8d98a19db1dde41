// Activations for products with quantised weights: whole numbers in groups of 32 columns with a scale, laid out as the tiles of the product read them.
// A tile's rows stand beside each other, group after group; a group of `rows` rows is a slot:
//   numbers  [8 quads][rows][4 columns], bytes or 16-bit words (these in the order 0, 2, 1, 3)
//   scale    [rows] floats
//   start    [rows] where the sums of products begin: what the weights' offset takes away
//   second   [rows] of formats with a minimum the scaled sum of the row's numbers (a float), of Q6_K the start of the second half
#ifndef TYPERT_CPU_BYTE_ROWS_H
#define TYPERT_CPU_BYTE_ROWS_H
#include "include/cpu/quant.h"

typedef int8_t vb __attribute__((vector_size(VL * 4)));
typedef int16_t vw __attribute__((vector_size(VL * 4)));
typedef int8_t vb_loose __attribute__((vector_size(VL * 4), aligned(1), may_alias));

// How products of bytes are summed: four in an instruction; two into 16 bits, which are summed as such over a group; or two of 16 bits.
enum { BY_FOURS, BY_PAIRS, BY_WORDS };
#if (VL == 16 && defined(__AVX512VNNI__)) || (VL == 8 && defined(__AVXVNNI__))
#define HAS_FOURS 1
#define FOURS_SIGNED 0
#elif defined(__ARM_FEATURE_DOTPROD)
#define HAS_FOURS 1
#define FOURS_SIGNED 1
#else
#define HAS_FOURS 0
#define FOURS_SIGNED 0
#endif

/// Pairs need numbers of the weight below 7 bits, which all but those of eight bits have.
INLINE int dot_way(const int f) { return HAS_FOURS ? BY_FOURS : VL >= 8 && !eight_bits(f) ? BY_PAIRS : BY_WORDS; }
INLINE int number_bytes(const int f) { return dot_way(f) == BY_WORDS ? 2 : 1; }
/// What is taken from a stored number so that sums of a whole group, by pairs in 16 bits, never overflow: for Q5_1 and Q5_K more than their offset.
INLINE int sum_offset(const int f) {
  if (eight_bits(f) && FOURS_SIGNED) return 0;
  return dot_way(f) == BY_PAIRS && (f == W_Q5_1 || f == W_Q5_K) ? 16 : quant_offset(f);
}
INLINE int64_t slot_bytes(const int f, int64_t rows) { return rows * (GROUP_COLUMNS * number_bytes(f) + 12); }

/// Rows of x that a tile of the product holds.
enum { BYTE_TILE = VL == 16 ? 6 : 4 };
INLINE int64_t tile_rows(int64_t rows, int64_t tile) { return min_of(BYTE_TILE, rows - tile * BYTE_TILE); }
INLINE char *tile_slots(const int f, char *memory, int64_t tile, int64_t k) {
  return memory + tile * slot_bytes(f, BYTE_TILE) * (k / GROUP_COLUMNS);
}

typedef union {
  int32_t bits;
  float number;
  int16_t words[2];
} start_value;

/// Sum of a group's numbers as the way of summing wants it: whole, or apart by the pairs that columns are in.
INLINE int32_t start_of(const int f, vi numbers) {
  int32_t sums[2] = {0, 0};
  for (int i = 0; i < VL; i++) sums[i / 2 % 2] += numbers[i];
  const int32_t offset = -sum_offset(f);
  if (dot_way(f) == BY_PAIRS) return ((start_value){.words = {(int16_t)(offset * sums[0]), (int16_t)(offset * sums[1])}}).bits;
  return offset * (sums[0] + sums[1]);
}

/// One group of one row into its slot.
INLINE void quantise_group(const int f, const float *x, char *slot, int64_t rows, int64_t row) {
  enum { VECTORS = GROUP_COLUMNS / VL };
  vf v[VECTORS], top = set(0);
  for (int i = 0; i < VECTORS; i++) {
    v[i] = load(x + i * VL);
    top = vmax(vabs(v[i]), top);
  }
  const float most = max_in(top), scale = most / 127;
  // Adding this number leaves the nearest whole one in the low bits.
  const vf inverse = set(most > 0 ? 127 / most : 0), shift = set(0x1.8p23f);
  vi half[2] = {set_i(0), set_i(0)};
  _Alignas(64) int32_t q[GROUP_COLUMNS];
  for (int i = 0; i < VECTORS; i++) {
    const vi whole = (vi)(v[i] * inverse + shift) - (vi)shift;
    *(vi *)(q + i * VL) = whole;
    half[i * 2 / VECTORS] += whole;
  }
  for (int quad = 0; quad < 8; quad++) {
    const int32_t *from = q + quad * 4;
    if (number_bytes(f) == 2) {
      const int16_t words[4] = {(int16_t)from[0], (int16_t)from[2], (int16_t)from[1], (int16_t)from[3]};
      memcpy(slot + (quad * rows + row) * 8, words, 8);
    } else {
      const int8_t bytes[4] = {(int8_t)from[0], (int8_t)from[1], (int8_t)from[2], (int8_t)from[3]};
      memcpy(slot + (quad * rows + row) * 4, bytes, 4);
    }
  }
  char *after = slot + rows * GROUP_COLUMNS * number_bytes(f);
  start_value start = {.bits = start_of(f, f == W_Q6_K ? half[0] : half[0] + half[1])}, second = {.bits = 0};
  if (f == W_Q6_K) second.bits = start_of(f, half[1]);
  if (has_minimum(f)) {
    int32_t sum = 0;
    for (int i = 0; i < VL; i++) sum += half[0][i] + half[1][i];
    second.number = scale * (float)sum;
  }
  memcpy(after + row * 4, &scale, 4);
  memcpy(after + (rows + row) * 4, &start, 4);
  memcpy(after + (2 * rows + row) * 4, &second, 4);
}
#endif
