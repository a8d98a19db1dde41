// What every product does with its sums: bias, activation (of one column, or of a gate that multiplies its partner), residual, store.
// A gated product computes weight rows in groups of sixteen: eight of the gate, then the eight of the up projection they belong to, so
// that one thread holds both; `weightRow` maps such a physical row to the row in the stacked weight [gate; up].
#pragma once
#include "include/cuda/number.cuh"

namespace typert {

template <class T>
struct MatmulOut {
  const T* bias;      // [n], or [2n] when gated
  const T* residual;  // [m, n] rows ldr apart
  T* y;               // [m, n] rows ldy apart
  i32 ldr;
  i32 ldy;
};

template <bool Gated>
TYPERT_DEVICE i32 weightRow(i32 physical, i32 n) {
  if constexpr (Gated) return (physical >> 4) * 8 + (physical & 7) + ((physical & 8) ? n : 0);
  return physical;
}

template <class T, bool Gated, Act A>
TYPERT_DEVICE float finish(const MatmulOut<T>& out, float sum, float up, i32 col, i32 n) {
  if (out.bias) {
    sum += toFloat(out.bias[col]);
    if constexpr (Gated) up += toFloat(out.bias[n + col]);
  }
  sum = activate<A>(sum);
  if constexpr (Gated) sum *= up;
  return sum;
}

template <class T, bool Gated, Act A>
TYPERT_DEVICE void finishOne(const MatmulOut<T>& out, float sum, float up, i32 row, i32 col, i32 n) {
  float value = finish<T, Gated, A>(out, sum, up, col, n);
  if (out.residual) value += toFloat(out.residual[i64(row) * out.ldr + col]);
  out.y[i64(row) * out.ldy + col] = fromFloat<T>(value);
}

// Lane t of a quad gets word t of its four lanes' words, in lane order: an involution.
TYPERT_DEVICE void quadTranspose(u32 (&w)[4]) {
  const bool odd = threadIdx.x & 1, upper = threadIdx.x & 2;
#pragma unroll
  for (i32 i = 0; i < 4; i += 2) {
    const u32 got = __shfl_xor_sync(fullMask, odd ? w[i] : w[i + 1], 1);
    (odd ? w[i] : w[i + 1]) = got;
  }
#pragma unroll
  for (i32 i = 0; i < 2; i++) {
    const u32 got = __shfl_xor_sync(fullMask, upper ? w[i] : w[i + 2], 2);
    (upper ? w[i] : w[i + 2]) = got;
  }
}

// What is added to 8 of a row's 32 columns from `col`; zeros where nothing is.
template <class T>
TYPERT_DEVICE uint4 residualOf(const MatmulOut<T>& out, i32 row, i32 col, i32 m, i32 n) {
  const i32 mine = col + (threadIdx.x & 3) * 8;
  if (!out.residual || row >= m || mine >= n) return make_uint4(0, 0, 0, 0);
  return *reinterpret_cast<const uint4*>(out.residual + i64(row) * out.ldr + mine);
}

// One row's 32 columns from `col`, held by a quad as matrix fragments (lane t: columns 8j + 2t and 8j + 2t + 1), stored 16 bytes a lane.
template <class T, bool Gated, Act A>
TYPERT_DEVICE void finishRow32(const MatmulOut<T>& out, const float (&sums)[8], const float (&ups)[8], uint4 added, i32 row,
                               i32 col, i32 m, i32 n) {
  const i32 t = threadIdx.x & 3;
  const i32 mine = col + t * 8;
  u32 residual[4] = {added.x, added.y, added.z, added.w};
  if (out.residual) quadTranspose(residual);
  u32 words[4];
#pragma unroll
  for (i32 j = 0; j < 4; j++) {
    const i32 c = minimum(col + j * 8 + t * 2, n - 2);
    float a = finish<T, Gated, A>(out, sums[2 * j], ups[2 * j], c, n);
    float b = finish<T, Gated, A>(out, sums[2 * j + 1], ups[2 * j + 1], c + 1, n);
    if (out.residual) a += Number<T>::low(residual[j]), b += Number<T>::high(residual[j]);
    words[j] = Number<T>::pack(a, b);
  }
  quadTranspose(words);
  if (row < m && mine < n)
    *reinterpret_cast<uint4*>(out.y + i64(row) * out.ldy + mine) = make_uint4(words[0], words[1], words[2], words[3]);
}

// A warp's accumulators of 16 rows × Columns physical columns, as m16n8 fragments (or wgmma's, which are the same): stores rows `rows[0]` and `rows[1]`.
template <class T, bool Gated, Act A, i32 Columns>
TYPERT_DEVICE void finishFragments(const MatmulOut<T>& out, const float* acc, const i32 (&rows)[2], i32 col, i32 m, i32 n) {
  constexpr i32 step = Gated ? 64 : 32, pieces = Columns / step;
  static_assert(Columns % step == 0);
  // The residual may be where y is, so that no load passes a store by itself: several are brought at a time, for one latency.
  constexpr i32 ahead = pieces < 4 ? pieces : 4;
#pragma unroll
  for (i32 c0 = 0; c0 < pieces; c0 += ahead) {
    uint4 added[ahead][2];
#pragma unroll
    for (i32 c = 0; c < ahead && c0 + c < pieces; c++) {
#pragma unroll
      for (i32 half = 0; half < 2; half++) added[c][half] = residualOf(out, rows[half], col + (c0 + c) * 32, m, n);
    }
#pragma unroll
    for (i32 c = 0; c < ahead && c0 + c < pieces; c++) {
#pragma unroll
      for (i32 half = 0; half < 2; half++) {
        float sums[8], ups[8];
#pragma unroll
        for (i32 j = 0; j < 4; j++) {
          const i32 block = Gated ? (c0 + c) * 8 + 2 * j : (c0 + c) * 4 + j;
#pragma unroll
          for (i32 e = 0; e < 2; e++) {
            sums[2 * j + e] = acc[block * 4 + half * 2 + e];
            ups[2 * j + e] = Gated ? acc[(block + 1) * 4 + half * 2 + e] : 0.f;
          }
        }
        finishRow32<T, Gated, A>(out, sums, ups, added[c][half], rows[half], col + (c0 + c) * 32, m, n);
      }
    }
  }
}
template <class T, bool Gated, Act A, i32 Columns>
TYPERT_DEVICE void finishFragments(const MatmulOut<T>& out, const float* acc, i32 row, i32 col, i32 m, i32 n) {
  const i32 rows[2] = {row, row + 8};
  finishFragments<T, Gated, A, Columns>(out, acc, rows, col, m, n);
}

}  // namespace typert
