// Products of 1 to 16 rows of x on Hopper, bound by reading the weight once: a persistent block a multiprocessor, one warp that copies weights and x with
// the tensor memory accelerator, four that multiply with mma.sync, each a quarter of every stage's k. Shared memory is left for a block of the kernel after
// it, which begins at once and fills its own stages while this one ends: the memory never idles between products.
#pragma once
#include "include/cuda/ptx-hopper.cuh"
#include "matmul/cuda-epilogue.cuh"

namespace typert {

// TokenTiles: 8 rows of x each. RowTiles: 16 weight rows each.
template <class T, i32 TokenTiles, i32 RowTiles, i32 Stages, bool Gated, Act A>
struct StreamMatmul {
  static constexpr i32 consumers = 4, threads = consumers * 32 + 32, minBlocks = 2;
  static constexpr i32 rows = RowTiles * 16, tokens = TokenTiles * 8;
  static constexpr i32 part = 64, BK = consumers * part;
  static constexpr i32 bytesW = rows * BK * 2, bytesX = tokens * BK * 2, stageBytes = bytesW + bytesX;
  static constexpr i32 columns = Gated ? rows / 2 : rows;
  static constexpr i32 perThread = ceilDiv(tokens * columns, consumers * 32);

  struct Params {
    TensorMap x;  // box 64 k × tokens × 4: rows of 128 bytes, a box a consumer
    TensorMap w;  // box 64 k × rows × 4
    MatmulOut<T> out;
    i32 m, n, k;
  };

#if __CUDA_ARCH__ < 900
  TYPERT_DEVICE static void run(const Params&) {}
#else
  TYPERT_DEVICE static void loadWeights(const Params& p, u8* to, u64* barrier, i32 step, i32 row) {
    if constexpr (Gated)
      ptx::loadBox5(to, &p.w, barrier, 0, 0, 0, row / 16, step * consumers, ptx::evictFirst);
    else
      ptx::loadBox3(to, &p.w, barrier, 0, row, step * consumers, ptx::evictFirst);
  }

  TYPERT_DEVICE static void run(const Params& p) {
    extern __shared__ __align__(1024) u8 dynamicShared[];
    __shared__ __align__(8) u64 full[Stages], empty[Stages];
    __shared__ float sums[consumers][tokens][rows + 4];
    u8* const stages = dynamicShared + ((1024 - (ptx::sharedAddress(dynamicShared) & 1023)) & 1023);
    const i32 warp = uniformWarpId();
    const i32 tiles = ceilDiv(Gated ? 2 * p.n : p.n, rows), steps = ceilDiv(p.k, BK);
    if (threadIdx.x == 0) {
#pragma unroll
      for (i32 s = 0; s < Stages; s++) {
        ptx::barrierInit(&full[s], 1);
        ptx::barrierInit(&empty[s], consumers);
      }
      ptx::barrierInitFence();
    }
    __syncthreads();
    // All blocks of this kernel have their places: the kernel after may take what is left.
    ptx::letNextBegin();
    if (warp == consumers) {
      if (laneId() == 0) produce(p, stages, full, empty, tiles, steps);
      return;
    }
    ptx::waitForPrevious();
    const u32 base = ptx::sharedAddress(stages);
    i32 stage = 0;
    u32 phase = 0;
    for (i32 tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
      const i32 firstColumn = tile * columns;
      // Read before they are needed, at the end.
      float residual[perThread];
#pragma unroll
      for (i32 j = 0; j < perThread; j++) {
        const i32 i = j * consumers * 32 + threadIdx.x, token = i / columns, column = firstColumn + i % columns;
        const bool inside = p.out.residual && token < p.m && token < tokens && column < p.n;
        residual[j] = inside ? toFloat(p.out.residual[i64(token) * p.out.ldr + column]) : 0.f;
      }
      float acc[RowTiles][TokenTiles][4] = {};
      for (i32 i = 0; i < steps; i++) {
        ptx::barrierWait(&full[stage], phase);
        const u32 at = base + stage * stageBytes;
        multiply(acc, at + warp * (rows * 128), at + bytesW + warp * (tokens * 128));
        __syncwarp();
        if (laneId() == 0) ptx::barrierArrive(&empty[stage]);
        if (++stage == Stages) stage = 0, phase ^= 1;
      }
      const i32 g = laneId() >> 2, t = laneId() & 3;
#pragma unroll
      for (i32 r = 0; r < RowTiles; r++) {
#pragma unroll
        for (i32 i = 0; i < TokenTiles; i++) {
#pragma unroll
          for (i32 e = 0; e < 4; e++) sums[warp][i * 8 + t * 2 + (e & 1)][r * 16 + g + (e >> 1) * 8] = acc[r][i][e];
        }
      }
      ptx::namedBarrier(1, consumers * 32);
#pragma unroll
      for (i32 j = 0; j < perThread; j++) {
        const i32 i = j * consumers * 32 + threadIdx.x, token = i / columns, c = i % columns, column = firstColumn + c;
        if (token >= minimum(tokens, p.m) || column >= p.n) continue;
        const i32 row = Gated ? (c >> 3) * 16 + (c & 7) : c;
        float sum = 0.f, up = 0.f;
#pragma unroll
        for (i32 s = 0; s < consumers; s++) {
          sum += sums[s][token][row];
          if constexpr (Gated) up += sums[s][token][row + 8];
        }
        const float value = finish<T, Gated, A>(p.out, sum, up, column, p.n);
        p.out.y[i64(token) * p.out.ldy + column] = fromFloat<T>(value + residual[j]);
      }
      // The sums have been read.
      ptx::namedBarrier(1, consumers * 32);
    }
  }

  // Weights do not wait for the kernel before; x does.
  TYPERT_DEVICE static void produce(const Params& p, u8* stages, u64* full, u64* empty, i32 tiles, i32 steps) {
    const i32 mine = (tiles - i32(blockIdx.x) + i32(gridDim.x) - 1) / i32(gridDim.x), total = mine * steps;
    const i32 early = minimum(total, Stages);
    i32 tile = blockIdx.x, step = 0;
    const auto next = [&] {
      if (++step == steps) step = 0, tile += gridDim.x;
    };
    for (i32 i = 0; i < early; i++, next()) {
      ptx::barrierExpect(&full[i], stageBytes);
      loadWeights(p, stages + i * stageBytes, &full[i], step, tile * rows);
    }
    ptx::waitForPrevious();
    for (i32 i = 0; i < early; i++)
      ptx::loadBox3(stages + i * stageBytes + bytesW, &p.x, &full[i], 0, 0, i % steps * consumers, ptx::evictLast);
    i32 stage = 0;
    u32 phase = 0;
    for (i32 i = early; i < total; i++, next()) {
      ptx::barrierWait(&empty[stage], phase);
      ptx::barrierExpect(&full[stage], stageBytes);
      u8* const to = stages + stage * stageBytes;
      loadWeights(p, to, &full[stage], step, tile * rows);
      ptx::loadBox3(to + bytesW, &p.x, &full[stage], 0, 0, step * consumers, ptx::evictLast);
      if (++stage == Stages) stage = 0, phase ^= 1;
    }
  }

  // A quarter of a stage's k: 64 of every row, in the 128-byte swizzle.
  TYPERT_DEVICE static void multiply(float (&acc)[RowTiles][TokenTiles][4], u32 w, u32 x) {
    const i32 lane = laneId(), q = lane >> 3, r = lane & 7;
    u32 b[TokenTiles][2][4];
#pragma unroll
    for (i32 i = 0; i < TokenTiles; i++) {
#pragma unroll
      for (i32 h = 0; h < 2; h++) ptx::loadMatrix4(b[i][h], x + (i * 8 + r) * 128 + (((h * 4 + q) ^ r) << 4));
    }
#pragma unroll
    for (i32 j = 0; j < RowTiles; j++) {
#pragma unroll
      for (i32 s = 0; s < part / 16; s++) {
        u32 a[4];
        ptx::loadMatrix4(a, w + (j * 16 + (q & 1) * 8 + r) * 128 + (((s * 2 + (q >> 1)) ^ r) << 4));
#pragma unroll
        for (i32 i = 0; i < TokenTiles; i++)
          Number<T>::mma(acc[j][i], a[0], a[1], a[2], a[3], b[i][s >> 1][(s & 1) * 2], b[i][s >> 1][(s & 1) * 2 + 1]);
      }
    }
  }
#endif
};

}  // namespace typert
