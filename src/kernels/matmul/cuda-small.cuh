// Products of 1 to 16 rows of x: bound by reading the weight once. Each lane reads 16 bytes of a weight row and the same k of x, which are the
// fragments of m16n8k16 under a permutation of k that both operands share, so that nothing passes through shared memory. Warps split k.
// Normed: x · norm weight is multiplied as it is read, while squares of x are summed; the sums are divided by the row's root mean square at the end.
#pragma once
#include "matmul/cuda-epilogue.cuh"

namespace typert {

// TokenTiles: 8 rows of x each. RowTiles: 16 weight rows each. Unroll: steps of 32 k a warp has in flight.
template <class T, i32 TokenTiles, i32 RowTiles, i32 Warps, i32 Unroll, i32 Blocks, bool Normed, bool Gated, Act A>
struct SmallMatmul {
  static constexpr i32 threads = Warps * 32;
  static constexpr i32 minBlocks = Blocks;
  static constexpr i32 rows = RowTiles * 16;
  static constexpr i32 tokens = TokenTiles * 8;

  struct Params {
    const T* x;
    const T* w;
    MatmulOut<T> out;
    float* partial;  // [splits, tokens, physical rows], when splits > 1
    u32* counters;   // [row blocks], zero before and after
    i32 m, n, k, ldx, splits;
    const T* norm;  // [k] or null, when Normed
    float eps, weightOffset;
  };

  TYPERT_DEVICE static void run(const Params& p) {
    const i32 lane = laneId(), warp = uniformWarpId();
    const i32 g = lane >> 2, t = lane & 3;
    const i32 split = blockIdx.y;
    const i32 firstRow = blockIdx.x * rows;
    const i32 physicalRows = Gated ? 2 * p.n : p.n;

    const T* weight[RowTiles][2];
#pragma unroll
    for (i32 r = 0; r < RowTiles; r++) {
#pragma unroll
      for (i32 h = 0; h < 2; h++) {
        const i32 physical = minimum(firstRow + r * 16 + h * 8 + g, physicalRows - 1);
        weight[r][h] = p.w + i64(weightRow<Gated>(physical, p.n)) * p.k + t * 8;
      }
    }
    const T* x[TokenTiles];
    bool live[TokenTiles];
#pragma unroll
    for (i32 i = 0; i < TokenTiles; i++) {
      live[i] = i * 8 + g < p.m;
      x[i] = p.x + i64(live[i] ? i * 8 + g : 0) * p.ldx + t * 8;
    }

    float acc[RowTiles][TokenTiles][4] = {};
    float squares[TokenTiles] = {};
    uint4 w[Unroll][RowTiles][2];
    const i32 stride = Warps * p.splits * Unroll * 32;
    i32 at = (split * Warps + warp) * Unroll * 32;
    const auto loadWeights = [&](i32 k0) {
#pragma unroll
      for (i32 u = 0; u < Unroll; u++) {
        const bool inside = k0 + u * 32 + t * 8 < p.k;
#pragma unroll
        for (i32 r = 0; r < RowTiles; r++) {
#pragma unroll
          for (i32 h = 0; h < 2; h++)
            w[u][r][h] = inside ? ptx::loadStreaming(weight[r][h] + k0 + u * 32) : make_uint4(0, 0, 0, 0);
        }
      }
    };
    loadWeights(at);
    // The weights do not depend on the kernel before; x does.
    ptx::waitForPrevious();
    ptx::letNextBegin();
    const float firstResidual = residualOf(p, firstRow, threadIdx.x);
    while (at < p.k) {
      uint4 xs[Unroll][TokenTiles], norms[Normed ? Unroll : 1];
#pragma unroll
      for (i32 u = 0; u < Unroll; u++) {
        const bool inside = at + u * 32 + t * 8 < p.k;
#pragma unroll
        for (i32 i = 0; i < TokenTiles; i++)
          xs[u][i] = inside && live[i] ? *reinterpret_cast<const uint4*>(x[i] + at + u * 32) : make_uint4(0, 0, 0, 0);
        if constexpr (Normed)
          norms[u] = inside && p.norm ? *reinterpret_cast<const uint4*>(p.norm + t * 8 + at + u * 32) : make_uint4(0, 0, 0, 0);
      }
#pragma unroll
      for (i32 u = 0; u < Unroll; u++) {
        if constexpr (Normed) {
          const Vector<T> weights = Vector<T>::unpack(norms[u]);
#pragma unroll
          for (i32 i = 0; i < TokenTiles; i++) {
            Vector<T> values = Vector<T>::unpack(xs[u][i]);
#pragma unroll
            for (i32 e = 0; e < 8; e++) {
              squares[i] = fmaf(values.v[e], values.v[e], squares[i]);
              if (p.norm) values.v[e] *= weights.v[e] + p.weightOffset;
            }
            if (p.norm) xs[u][i] = values.pack();
          }
        }
#pragma unroll
        for (i32 r = 0; r < RowTiles; r++) {
          const uint4 a = w[u][r][0], b = w[u][r][1];
#pragma unroll
          for (i32 i = 0; i < TokenTiles; i++) {
            Number<T>::mma(acc[r][i], a.x, b.x, a.y, b.y, xs[u][i].x, xs[u][i].y);
            Number<T>::mma(acc[r][i], a.z, b.z, a.w, b.w, xs[u][i].z, xs[u][i].w);
          }
        }
      }
      at += stride;
      if (at < p.k) loadWeights(at);
    }

    __shared__ float sums[Warps][tokens][rows + 4];
#pragma unroll
    for (i32 r = 0; r < RowTiles; r++) {
#pragma unroll
      for (i32 i = 0; i < TokenTiles; i++) {
#pragma unroll
        for (i32 e = 0; e < 4; e++) sums[warp][i * 8 + t * 2 + (e & 1)][r * 16 + g + (e >> 1) * 8] = acc[r][i][e];
      }
    }
    __shared__ float squareSums[Normed ? Warps : 1][tokens];
    if constexpr (Normed) {
#pragma unroll
      for (i32 i = 0; i < TokenTiles; i++) {
        const float sum = quadSum(squares[i]);
        if (t == 0) squareSums[warp][i * 8 + g] = sum;
      }
    }
    __syncthreads();
    const auto blockSum = [&](i32 token, i32 row) {
      float sum = 0.f;
#pragma unroll
      for (i32 s = 0; s < Warps; s++) sum += sums[s][token][row];
      return sum;
    };
    const auto scale = [&](i32 token) {
      if constexpr (!Normed) return 1.f;
      float sum = 0.f;
#pragma unroll
      for (i32 s = 0; s < (Normed ? Warps : 1); s++) sum += squareSums[s][token];
      return rsqrtf(sum / p.k + p.eps);
    };
    if (p.splits > 1) {
      const i32 live = minimum(tokens, p.m);
      for (i32 i = threadIdx.x; i < live * rows; i += threads)
        p.partial[(i64(split) * tokens + i / rows) * physicalRows + minimum(firstRow + i % rows, physicalRows - 1)] =
            blockSum(i / rows, i % rows);
      __shared__ bool last;
      __syncthreads();
      if (threadIdx.x == 0) {
        __threadfence();
        last = ptx::atomicAddAcquireRelease(p.counters + blockIdx.x, 1) == u32(p.splits - 1);
        if (last) p.counters[blockIdx.x] = 0;
      }
      __syncthreads();
      if (!last) return;
      __threadfence();
      const auto gridSum = [&](i32 token, i32 row) {
        float sum = 0.f;
        for (i32 s = 0; s < p.splits; s++)
          sum += __ldcg(p.partial + (i64(s) * tokens + token) * physicalRows + minimum(firstRow + row, physicalRows - 1));
        return sum;
      };
      store(p, firstRow, firstResidual, gridSum, scale);
    } else {
      store(p, firstRow, firstResidual, blockSum, scale);
    }
  }

  static constexpr i32 columns = Gated ? rows / 2 : rows;

  // What is added to the block's result `i`; the first of each thread is read before it is needed.
  TYPERT_DEVICE static float residualOf(const Params& p, i32 firstRow, i32 i) {
    const i32 token = i / columns, column = (Gated ? firstRow / 2 : firstRow) + i % columns;
    if (!p.out.residual || token >= minimum(tokens, p.m) || column >= p.n) return 0.f;
    return toFloat(p.out.residual[i64(token) * p.out.ldr + column]);
  }

  template <class Sum, class Scale>
  TYPERT_DEVICE static void store(const Params& p, i32 firstRow, float firstResidual, const Sum& sum, const Scale& scale) {
    const i32 firstColumn = Gated ? firstRow / 2 : firstRow;
    for (i32 i = threadIdx.x; i < minimum(tokens, p.m) * columns; i += threads) {
      const i32 token = i / columns, c = i % columns;
      if (firstColumn + c >= p.n) continue;
      const i32 row = Gated ? (c >> 3) * 16 + (c & 7) : c;
      const float factor = scale(token);
      const float up = Gated ? sum(token, row + 8) * factor : 0.f;
      const float value = finish<T, Gated, A>(p.out, sum(token, row) * factor, up, firstColumn + c, p.n);
      const float residual = i < threads ? firstResidual : residualOf(p, firstRow, i);
      p.out.y[i64(token) * p.out.ldy + firstColumn + c] = fromFloat<T>(value + residual);
    }
  }
};

}  // namespace typert
