// Products of a few tens of rows on Hopper, bound by reading the weight: the weight is wgmma's first operand (64 rows a warpgroup), the rows of x its
// second, so that no lane idles on missing rows. The blocks of a cluster split k and add up through each other's shared memory.
#pragma once
#include "matmul/cuda-wgmma.cuh"

namespace typert {

template <class T, i32 Tokens, i32 Warpgroups, i32 Stages, i32 Splits, i32 Blocks, bool Gated, Act A>
struct SwapMatmul {
  static constexpr i32 threads = Warpgroups * 128 + 32;
  static constexpr i32 minBlocks = Blocks;
  static constexpr i32 rows = Warpgroups * 64, BK = 64;
  static constexpr i32 bytesW = rows * BK * 2, bytesX = Tokens * BK * 2, stageBytes = bytesW + bytesX;
  static constexpr i32 pitch = rows + 4;
  static_assert(Tokens * pitch * 4 <= Stages * stageBytes);

  struct Params {
    TensorMap x;  // box 64 k × Tokens rows
    TensorMap w;  // box 64 k × `rows` physical rows
    MatmulOut<T> out;
    i32 m, n, k;
  };

#if !defined(__CUDA_ARCH_FEAT_SM90_ALL)
  TYPERT_DEVICE static void run(const Params&) {}
#else
  TYPERT_DEVICE static void run(const Params& p) {
    extern __shared__ __align__(1024) u8 dynamicShared[];
    __shared__ __align__(8) u64 full[Stages], empty[Stages];
    u8* const stages = dynamicShared + ((1024 - (ptx::sharedAddress(dynamicShared) & 1023)) & 1023);
    const i32 warp = uniformWarpId();
    const i32 split = blockIdx.x % Splits;
    const i32 physical = blockIdx.x / Splits * rows;
    const i32 token0 = blockIdx.y * Tokens;
    const i32 steps = ceilDiv(p.k, BK);
    const i32 begin = i64(steps) * split / Splits, end = i64(steps) * (split + 1) / Splits;
    if (threadIdx.x == 0) {
#pragma unroll
      for (i32 s = 0; s < Stages; s++) {
        ptx::barrierInit(&full[s], 1);
        ptx::barrierInit(&empty[s], Warpgroups);
      }
      ptx::barrierInitFence();
    }
    __syncthreads();
    float acc[Tokens / 2];
    if (warp == Warpgroups * 4) {
      if (laneId() == 0) {
        // Weights do not wait for the kernel before; x does.
        const i32 early = minimum(end - begin, Stages);
        for (i32 i = 0; i < early; i++) {
          ptx::barrierExpect(&full[i], stageBytes);
          loadWeightBox<Gated>(stages + i * stageBytes, &p.w, &full[i], (begin + i) * BK, physical, ptx::evictFirst);
        }
        ptx::waitForPrevious();
        ptx::letNextBegin();
        for (i32 i = 0; i < early; i++)
          ptx::loadBox2(stages + i * stageBytes + bytesW, &p.x, &full[i], (begin + i) * BK, token0, ptx::evictLast);
        for (i32 i = early; i < end - begin; i++) {
          const i32 stage = i % Stages;
          ptx::barrierWait(&empty[stage], (i / Stages + 1) & 1);
          ptx::barrierExpect(&full[stage], stageBytes);
          u8* const to = stages + stage * stageBytes;
          loadWeightBox<Gated>(to, &p.w, &full[stage], (begin + i) * BK, physical, ptx::evictFirst);
          ptx::loadBox2(to + bytesW, &p.x, &full[stage], (begin + i) * BK, token0, ptx::evictLast);
        }
      }
      __syncwarp();
    } else {
      const u32 base = ptx::sharedAddress(stages) + (warp / 4) * (64 * BK * 2);
#pragma unroll
      for (i32 i = 0; i < Tokens / 2; i++) acc[i] = 0.f;
      for (i32 i = 0; i < end - begin; i++) {
        const i32 stage = i % Stages;
        ptx::barrierWait(&full[stage], (i / Stages) & 1);
        const u64 a = ptx::wgmmaTile(base + stage * stageBytes);
        const u64 b = ptx::wgmmaTile(ptx::sharedAddress(stages) + stage * stageBytes + bytesW);
        ptx::wgmmaFence();
#pragma unroll
        for (i32 kk = 0; kk < BK / 16; kk++) ptx::Wgmma<T, Tokens>::shared(acc, a + kk * 2, b + kk * 2, 1);
        ptx::wgmmaCommit();
        ptx::wgmmaWait<0>();
        if ((threadIdx.x & 127) == 0) ptx::barrierArrive(&empty[stage]);
      }
      wgmmaHold(acc);
    }
    // Every copy has arrived and been read: the stages become room for the sums, [Tokens][rows].
    __syncthreads();
    ptx::waitForPrevious();
    float* const sums = reinterpret_cast<float*>(stages);
    if (warp < Warpgroups * 4) {
      const i32 row = warp * 16 + (laneId() >> 2), t = laneId() & 3;
#pragma unroll
      for (i32 j = 0; j < Tokens / 8; j++) {
#pragma unroll
        for (i32 e = 0; e < 4; e++) sums[(j * 8 + t * 2 + (e & 1)) * pitch + row + (e >> 1) * 8] = acc[j * 4 + e];
      }
    }
    if constexpr (Splits > 1)
      ptx::clusterSync();
    else
      __syncthreads();
    reduce(p, ptx::sharedAddress(sums), split, token0, Gated ? physical / 2 : physical);
    if constexpr (Splits > 1) ptx::clusterSync();
  }

  // Four sums of one token, of all splits.
  TYPERT_DEVICE static void gather(float (&sum)[4], const u32 (&base)[Splits], i32 token, i32 row) {
    sum[0] = sum[1] = sum[2] = sum[3] = 0.f;
#pragma unroll
    for (i32 s = 0; s < Splits; s++) {
      const float4 v = ptx::loadCluster(base[s] + (token * pitch + row) * 4);
      sum[0] += v.x, sum[1] += v.y, sum[2] += v.z, sum[3] += v.w;
    }
  }

  TYPERT_DEVICE static void reduce(const Params& p, u32 sums, i32 split, i32 token0, i32 firstColumn) {
    u32 base[Splits];
#pragma unroll
    for (i32 s = 0; s < Splits; s++) base[s] = Splits > 1 ? ptx::mapShared(sums, s) : sums;
    constexpr i32 columns = (Gated ? rows / 2 : rows) / 4;
    const i32 tokens = minimum(Tokens, p.m - token0);
    for (i32 i = split * threads + threadIdx.x; i < tokens * columns; i += Splits * threads) {
      const i32 token = i / columns, c = i % columns * 4;
      if (firstColumn + c >= p.n) continue;
      float sum[4], up[4] = {};
      gather(sum, base, token, Gated ? (c >> 3) * 16 + (c & 7) : c);
      if constexpr (Gated) gather(up, base, token, (c >> 3) * 16 + (c & 7) + 8);
#pragma unroll
      for (i32 e = 0; e < 4; e++)
        finishOne<T, Gated, A>(p.out, sum[e], up[e], token0 + token, firstColumn + c + e, p.n);
    }
  }
#endif
};

}  // namespace typert
