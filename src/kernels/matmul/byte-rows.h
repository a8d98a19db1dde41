// Activations for products with quantised weights: whole numbers in groups of 32 columns with a scale, laid out as the tiles of the product read them.
// A tile's rows stand beside each other, group after group; a group of `rows` rows is a slot:
//   numbers  [rows][32 columns], bytes or 16-bit words (of these every four in the order 0, 2, 1, 3)
//   scale    [rows] floats
//   start    [rows] where the sums of products begin: what the weights' offset takes away
//   second   [rows] of formats with a minimum the scaled sum of the row's numbers (a float), of Q6_K the start of the second half
//   folded   [rows] where sums of folded products begin (dots.h)
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
/// Whether products of words are folded where weights are laid open: half the multiplications, as many additions more, and these are cheaper.
#if defined(__x86_64__) || defined(__wasm_simd128__)
INLINE int folds(const int f) { return dot_way(f) == BY_WORDS && f != W_Q6_K; }
#else
INLINE int folds(const int f) { return (void)f, 0; }
#endif
INLINE int64_t slot_bytes(const int f, int64_t rows) { return rows * (GROUP_COLUMNS * number_bytes(f) + 12 + 4 * folds(f)); }

/// Bytes of a row's numbers in a group.
INLINE int64_t number_row(const int f) { return GROUP_COLUMNS * number_bytes(f); }

/// Rows of x that share a slot.
enum { BYTE_TILE = VL >= 8 ? 6 : 4 };
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

/// What the number farthest from zero becomes: words have room for more than bytes, and sums by pairs of numbers of five or six bits need the last one.
INLINE int top_number(const int f) { return dot_way(f) == BY_WORDS ? 4095 : dot_way(f) == BY_PAIRS && high_planes(f) > 0 ? 127 : 128; }

/// One group of one row into its slot.
INLINE void quantise_group(const int f, const float *x, char *slot, int64_t rows, int64_t row) {
  enum { VECTORS = GROUP_COLUMNS / VL };
  vf v[VECTORS], top = set(0), bottom = set(0);
  for (int i = 0; i < VECTORS; i++) {
    v[i] = load(x + i * VL);
    top = vmax(v[i], top);
    bottom = vmin(v[i], bottom);
  }
  // The farthest one becomes the negative end, of which bytes have one more.
  const float highest = max_in(top), lowest = -max_in(-bottom), most = highest > -lowest ? highest : lowest;
  const float scale = -most / top_number(f);
  // Adding this number leaves the nearest whole one in the low bits.
  const vf inverse = set(most != 0 ? -top_number(f) / most : 0), shift = set(0x1.8p23f), end = set(127);
  vi half[2] = {set_i(0), set_i(0)};
  _Alignas(64) int32_t q[GROUP_COLUMNS];
  for (int i = 0; i < VECTORS; i++) {
    const vf wanted = number_bytes(f) == 1 ? vmin(v[i] * inverse, end) : v[i] * inverse;
    const vi whole = (vi)(wanted + shift) - (vi)shift;
    *(vi *)(q + i * VL) = whole;
    half[i * 2 / VECTORS] += whole;
  }
  for (int quad = 0; quad < 8; quad++) {
    const int32_t *from = q + quad * 4;
    if (number_bytes(f) == 2) {
      const int16_t words[4] = {(int16_t)from[0], (int16_t)from[2], (int16_t)from[1], (int16_t)from[3]};
      memcpy(slot + (row * 8 + quad) * 8, words, 8);
    } else {
      const int8_t bytes[4] = {(int8_t)from[0], (int8_t)from[1], (int8_t)from[2], (int8_t)from[3]};
      memcpy(slot + (row * 8 + quad) * 4, bytes, 4);
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
  if (folds(f)) {
    int32_t folded = start.bits;
    for (int i = 0; i < GROUP_COLUMNS; i += 2) folded -= q[i] * q[i + 1];
    memcpy(after + (3 * rows + row) * 4, &folded, 4);
  }
}
#endif
