// Products without tensor cores: float32 in full precision, and any shape or alignment the others refuse. RowsMatmul serves few rows of x
// (one warp a weight row), GridMatmul many (64×64 tiles).
#pragma once
#include "matmul/cuda-epilogue.cuh"

namespace typert {

template <class T, i32 Tokens, bool Vectors, bool Gated, Act A>
struct RowsMatmul {
  static constexpr i32 threads = 256;
  static constexpr i32 minBlocks = 2;

  struct Params {
    const T* x;
    const T* w;
    MatmulOut<T> out;
    i32 m, n, k, ldx;
  };

  TYPERT_DEVICE static void dot(float (&sums)[Tokens], const Params& p, const T* w, i32 token0, i32 lane) {
#pragma unroll
    for (i32 i = 0; i < Tokens; i++) sums[i] = 0.f;
    if constexpr (Vectors) {
      constexpr i32 size = Vector<T>::size;
#pragma unroll 4
      for (i32 k = lane * size; k < p.k; k += 32 * size) {
        const Vector<T> a = Vector<T>::unpack(ptx::loadStreaming(w + k));
#pragma unroll
        for (i32 i = 0; i < Tokens; i++) {
          if (token0 + i >= p.m) break;
          const Vector<T> b = Vector<T>::load(p.x + i64(token0 + i) * p.ldx + k);
#pragma unroll
          for (i32 e = 0; e < size; e++) sums[i] = fmaf(a.v[e], b.v[e], sums[i]);
        }
      }
    } else {
      for (i32 k = lane; k < p.k; k += 32) {
        const float a = toFloat(w[k]);
#pragma unroll
        for (i32 i = 0; i < Tokens; i++) {
          if (token0 + i >= p.m) break;
          sums[i] = fmaf(a, toFloat(p.x[i64(token0 + i) * p.ldx + k]), sums[i]);
        }
      }
    }
#pragma unroll
    for (i32 i = 0; i < Tokens; i++) sums[i] = warpSum(sums[i]);
  }

  TYPERT_DEVICE static void run(const Params& p) {
    const i32 col = blockIdx.x * (threads / 32) + uniformWarpId();
    const i32 token0 = blockIdx.y * Tokens;
    ptx::waitForPrevious();
    ptx::letNextBegin();
    if (col >= p.n) return;
    float sums[Tokens], ups[Tokens] = {};
    dot(sums, p, p.w + i64(col) * p.k, token0, laneId());
    if constexpr (Gated) dot(ups, p, p.w + i64(p.n + col) * p.k, token0, laneId());
#pragma unroll
    for (i32 i = 0; i < Tokens; i++) {
      if (token0 + i < p.m && laneId() == i) finishOne<T, Gated, A>(p.out, sums[i], ups[i], token0 + i, col, p.n);
    }
  }
};

template <class T, bool Gated, Act A>
struct GridMatmul {
  static constexpr i32 threads = 256;
  static constexpr i32 minBlocks = 2;
  static constexpr i32 tile = 64, depth = 16;
  using Params = typename RowsMatmul<T, 1, false, Gated, A>::Params;

  TYPERT_DEVICE static void run(const Params& p) {
    __shared__ float xs[depth][tile + 4], ws[Gated ? 2 : 1][depth][tile + 4];
    const i32 m0 = blockIdx.y * tile, n0 = blockIdx.x * tile;
    const i32 ty = threadIdx.x / 16, tx = threadIdx.x % 16;
    float acc[4][4] = {}, up[4][4] = {};
    ptx::waitForPrevious();
    ptx::letNextBegin();
    for (i32 k0 = 0; k0 < p.k; k0 += depth) {
      for (i32 i = threadIdx.x; i < tile * depth; i += threads) {
        const i32 row = i / depth, k = i % depth;
        const bool deep = k0 + k < p.k;
        xs[k][row] = deep && m0 + row < p.m ? toFloat(p.x[i64(m0 + row) * p.ldx + k0 + k]) : 0.f;
        ws[0][k][row] = deep && n0 + row < p.n ? toFloat(p.w[i64(n0 + row) * p.k + k0 + k]) : 0.f;
        if constexpr (Gated)
          ws[1][k][row] = deep && n0 + row < p.n ? toFloat(p.w[i64(p.n + n0 + row) * p.k + k0 + k]) : 0.f;
      }
      __syncthreads();
#pragma unroll
      for (i32 k = 0; k < depth; k++) {
        float a[4], b[4], c[4];
#pragma unroll
        for (i32 i = 0; i < 4; i++) {
          a[i] = xs[k][ty * 4 + i];
          b[i] = ws[0][k][tx * 4 + i];
          c[i] = Gated ? ws[Gated ? 1 : 0][k][tx * 4 + i] : 0.f;
        }
#pragma unroll
        for (i32 i = 0; i < 4; i++) {
#pragma unroll
          for (i32 j = 0; j < 4; j++) {
            acc[i][j] = fmaf(a[i], b[j], acc[i][j]);
            if constexpr (Gated) up[i][j] = fmaf(a[i], c[j], up[i][j]);
          }
        }
      }
      __syncthreads();
    }
#pragma unroll
    for (i32 i = 0; i < 4; i++) {
#pragma unroll
      for (i32 j = 0; j < 4; j++) {
        const i32 row = m0 + ty * 4 + i, col = n0 + tx * 4 + j;
        if (row < p.m && col < p.n) finishOne<T, Gated, A>(p.out, acc[i][j], up[i][j], row, col, p.n);
      }
    }
  }
};

}  // namespace typert
