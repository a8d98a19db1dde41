// Ops on elements of rows, two inputs at most: activations, gated activations, sums, products, factors, soft caps.
#pragma once
#include "include/cuda/number.cuh"

namespace typert {

enum class PointOp { activation, gated, add, mul, scale, softcap };

template <class T, PointOp Op, Act A>
struct Pointwise {
  static constexpr i32 threads = 256, minBlocks = 4;
  struct Params {
    const T* a;
    const T* b;
    T* y;
    i32 rows, columns, lda, ldb, ldy;
    float factor;
  };

  TYPERT_DEVICE static float apply(float a, float b, float factor) {
    if constexpr (Op == PointOp::activation) return activate<A>(a);
    if constexpr (Op == PointOp::gated) return activate<A>(a) * b;
    if constexpr (Op == PointOp::add) return a + b;
    if constexpr (Op == PointOp::mul) return a * b;
    if constexpr (Op == PointOp::scale) return a * factor;
    if constexpr (Op == PointOp::softcap) return factor * tanhf(a / factor);
  }

  TYPERT_DEVICE static void run(const Params& p) {
    ptx::waitForPrevious();
    ptx::letNextBegin();
    constexpr i32 size = Vector<T>::size;
    constexpr bool two = Op == PointOp::gated || Op == PointOp::add || Op == PointOp::mul;
    if (p.columns % size == 0 && p.lda % size == 0 && p.ldb % size == 0 && p.ldy % size == 0) {
      const i32 perRow = p.columns / size;
      for (i64 i = i64(blockIdx.x) * threads + threadIdx.x; i < i64(p.rows) * perRow; i += i64(gridDim.x) * threads) {
        const i64 row = i / perRow, c = i % perRow * size;
        Vector<T> a = Vector<T>::load(p.a + row * p.lda + c), b = a;
        if constexpr (two) b = Vector<T>::load(p.b + row * p.ldb + c);
#pragma unroll
        for (i32 e = 0; e < size; e++) a.v[e] = apply(a.v[e], b.v[e], p.factor);
        a.store(p.y + row * p.ldy + c);
      }
      return;
    }
    for (i64 i = i64(blockIdx.x) * threads + threadIdx.x; i < i64(p.rows) * p.columns; i += i64(gridDim.x) * threads) {
      const i64 row = i / p.columns, c = i % p.columns;
      const float a = toFloat(p.a[row * p.lda + c]), b = two ? toFloat(p.b[row * p.ldb + c]) : 0.f;
      p.y[row * p.ldy + c] = fromFloat<T>(apply(a, b, p.factor));
    }
  }
};

}  // namespace typert
