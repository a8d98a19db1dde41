// Root-mean-square and layer norm of rows, with an optional residual that is added first and stored as `sum`: one block a row, the row in registers.
#pragma once
#include "include/cuda/number.cuh"

namespace typert {

enum class NormKind { rms, layer };

// Vectors: 16-byte pieces of a row that a thread holds.
template <class T, NormKind Kind, i32 Threads, i32 Vectors>
struct NormRows {
  static constexpr i32 threads = Threads, minBlocks = 1;
  static constexpr i32 size = Vector<T>::size;
  struct Params {
    const T* x;
    const T* residual;
    const T* weight;
    const T* bias;
    T* sum;
    T* y;
    i32 columns, ldx, ldr, lds, ldy;
    float eps, weightOffset;
  };

  // Sums of a and b over the block.
  TYPERT_DEVICE static float2 blockSum(float a, float b, float2* shared) {
    a = warpSum(a), b = warpSum(b);
    if (laneId() == 0) shared[warpId()] = make_float2(a, b);
    __syncthreads();
    float2 total = make_float2(0.f, 0.f);
#pragma unroll
    for (i32 i = 0; i < Threads / 32; i++) total.x += shared[i].x, total.y += shared[i].y;
    return total;
  }

  TYPERT_DEVICE static void run(const Params& p) {
    __shared__ float2 shared[2][Threads / 32];
    const i64 row = blockIdx.x;
    // Weights do not wait for the kernel before.
    uint4 weight[Vectors];
#pragma unroll
    for (i32 i = 0; i < Vectors; i++) {
      const i32 c = (i * Threads + threadIdx.x) * size;
      weight[i] = p.weight && c < p.columns ? *reinterpret_cast<const uint4*>(p.weight + c) : make_uint4(0, 0, 0, 0);
    }
    ptx::waitForPrevious();
    ptx::letNextBegin();
    Vector<T> v[Vectors];
    float total = 0.f, squares = 0.f;
#pragma unroll
    for (i32 i = 0; i < Vectors; i++) {
      const i32 c = (i * Threads + threadIdx.x) * size;
      if (c >= p.columns) continue;
      v[i] = Vector<T>::load(p.x + row * p.ldx + c);
      if (p.residual) {
        const Vector<T> r = Vector<T>::load(p.residual + row * p.ldr + c);
#pragma unroll
        for (i32 e = 0; e < size; e++) v[i].v[e] += r.v[e];
        // What is normed is the sum as it is stored.
        const uint4 packed = v[i].pack();
        *reinterpret_cast<uint4*>(p.sum + row * p.lds + c) = packed;
        v[i] = Vector<T>::unpack(packed);
      }
#pragma unroll
      for (i32 e = 0; e < size; e++) total += v[i].v[e], squares = fmaf(v[i].v[e], v[i].v[e], squares);
    }
    float2 sums = blockSum(total, squares, shared[0]);
    float mean = 0.f, variance = sums.y / p.columns;
    if constexpr (Kind == NormKind::layer) {
      // A second pass over registers: the difference of large squares would lose the variance.
      mean = sums.x / p.columns;
      float centered = 0.f;
#pragma unroll
      for (i32 i = 0; i < Vectors; i++) {
        if ((i * Threads + i32(threadIdx.x)) * size >= p.columns) continue;
#pragma unroll
        for (i32 e = 0; e < size; e++) centered = fmaf(v[i].v[e] - mean, v[i].v[e] - mean, centered);
      }
      variance = blockSum(centered, 0.f, shared[1]).x / p.columns;
    }
    const float inverse = rsqrtf(variance + p.eps);
#pragma unroll
    for (i32 i = 0; i < Vectors; i++) {
      const i32 c = (i * Threads + threadIdx.x) * size;
      if (c >= p.columns) continue;
      const Vector<T> w = Vector<T>::unpack(weight[i]);
#pragma unroll
      for (i32 e = 0; e < size; e++) {
        v[i].v[e] = (v[i].v[e] - mean) * inverse;
        if (p.weight) v[i].v[e] *= w.v[e] + p.weightOffset;
      }
      if (p.bias) {
        const Vector<T> b = Vector<T>::load(p.bias + c);
#pragma unroll
        for (i32 e = 0; e < size; e++) v[i].v[e] += b.v[e];
      }
      v[i].store(p.y + row * p.ldy + c);
    }
  }
};

// Rows that are not made of whole 16-byte pieces: the same, element by element through memory.
template <class T, NormKind Kind>
struct NormAnyRows {
  static constexpr i32 threads = 256, minBlocks = 1;
  using Params = typename NormRows<T, Kind, 256, 1>::Params;
  TYPERT_DEVICE static void run(const Params& p) {
    __shared__ float2 shared[2][8];
    const i64 row = blockIdx.x;
    ptx::waitForPrevious();
    ptx::letNextBegin();
    const auto at = [&](i32 c) {
      float value = toFloat(p.x[row * p.ldx + c]);
      if (p.residual) value = toFloat(fromFloat<T>(value + toFloat(p.residual[row * p.ldr + c])));
      return value;
    };
    float total = 0.f, squares = 0.f;
    for (i32 c = threadIdx.x; c < p.columns; c += threads) {
      const float value = at(c);
      total += value, squares = fmaf(value, value, squares);
    }
    const float2 sums = NormRows<T, Kind, 256, 1>::blockSum(total, squares, shared[0]);
    float mean = 0.f, variance = sums.y / p.columns;
    if constexpr (Kind == NormKind::layer) {
      mean = sums.x / p.columns;
      float centered = 0.f;
      for (i32 c = threadIdx.x; c < p.columns; c += threads) centered = fmaf(at(c) - mean, at(c) - mean, centered);
      variance = NormRows<T, Kind, 256, 1>::blockSum(centered, 0.f, shared[1]).x / p.columns;
    }
    const float inverse = rsqrtf(variance + p.eps);
    for (i32 c = threadIdx.x; c < p.columns; c += threads) {
      const float value = at(c);
      float normed = (value - mean) * inverse;
      if (p.weight) normed *= toFloat(p.weight[c]) + p.weightOffset;
      if (p.bias) normed += toFloat(p.bias[c]);
      // The sum may take the place of the residual, so each element is stored after its last use.
      if (p.residual) p.sum[row * p.lds + c] = fromFloat<T>(value);
      p.y[row * p.ldy + c] = fromFloat<T>(normed);
    }
  }
};

}  // namespace typert
