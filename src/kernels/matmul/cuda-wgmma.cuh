// Products of many rows on Hopper: persistent blocks in clusters of two that share the weight tile, one warp that copies with the tensor memory
// accelerator, two warpgroups that multiply with wgmma. Tiles are 128 rows of x by BN physical rows of w, 64 k a stage.
#pragma once
#include "include/cuda/ptx-wgmma.cuh"
#include "matmul/cuda-epilogue.cuh"

namespace typert {

// A tile's rows of w: a plain box, or eight rows of the gate and eight of up in turn through a map of four dimensions.
template <bool Gated>
TYPERT_DEVICE void loadWeightBox(void* to, const TensorMap* map, u64* barrier, i32 k, i32 physicalRow, u64 hint) {
  if constexpr (Gated)
    ptx::loadBox4(to, map, barrier, k, 0, 0, physicalRow / 16, hint);
  else
    ptx::loadBox2(to, map, barrier, k, physicalRow, hint);
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
template <i32 Registers>
TYPERT_DEVICE void wgmmaHold(float (&d)[Registers]) {
#pragma unroll
  for (i32 i = 0; i < Registers; i++) asm volatile("" : "+f"(d[i])::"memory");
}
#endif

template <class T, i32 BN, i32 Stages, i32 Cluster, bool Gated, Act A>
struct WgmmaMatmul {
  static constexpr i32 consumers = 2;
  static constexpr i32 threads = (consumers + 1) * 128;
  static constexpr i32 minBlocks = 1;
  static constexpr i32 BM = consumers * 64, BK = 64;
  static constexpr i32 bytesX = BM * BK * 2, bytesW = BN * BK * 2, stageBytes = bytesX + bytesW;

  struct Params {
    TensorMap x;  // box 64 k × 128 rows
    TensorMap w;  // box 64 k × BN / Cluster physical rows
    MatmulOut<T> out;
    i32 m, n, k;
  };

#if !defined(__CUDA_ARCH_FEAT_SM90_ALL)
  TYPERT_DEVICE static void run(const Params&) {}
#else
  struct Tiles {
    i32 tilesM, tilesN, count;
    TYPERT_DEVICE Tiles(const Params& p)
        : tilesM(ceilDiv(p.m, BM * Cluster)), tilesN(ceilDiv(Gated ? 2 * p.n : p.n, BN)), count(tilesM * tilesN) {}
    // Clusters that run together cover a patch of up to eight row tiles, so that both operands are found in the L2.
    TYPERT_DEVICE void at(i32 tile, i32& m, i32& n) const {
      constexpr i32 rows = 16 / Cluster;
      const i32 group = rows * tilesN;
      const i32 first = tile / group * rows;
      const i32 size = minimum(tilesM - first, rows);
      m = first + tile % group % size;
      n = tile % group / size;
    }
  };

  TYPERT_DEVICE static void run(const Params& p) {
    extern __shared__ __align__(1024) u8 dynamicShared[];
    __shared__ __align__(8) u64 full[Stages], empty[Stages];
    u8* const stages = dynamicShared + ((1024 - (ptx::sharedAddress(dynamicShared) & 1023)) & 1023);
    const i32 warpgroup = __shfl_sync(fullMask, threadIdx.x >> 7, 0);
    const u32 rank = Cluster == 1 ? 0 : ptx::clusterRank();
    if (threadIdx.x == 0) {
      ptx::prefetchMap(&p.x);
      ptx::prefetchMap(&p.w);
#pragma unroll
      for (i32 s = 0; s < Stages; s++) {
        ptx::barrierInit(&full[s], 1);
        ptx::barrierInit(&empty[s], consumers * Cluster);
      }
      ptx::barrierInitFence();
    }
    __syncthreads();
    if constexpr (Cluster > 1) ptx::clusterSync();
    ptx::waitForPrevious();
    ptx::letNextBegin();
    const Tiles tiles(p);
    const i32 first = blockIdx.x / Cluster, step = gridDim.x / Cluster;
    const i32 steps = ceilDiv(p.k, BK);
    if (warpgroup == consumers) {
      ptx::registersDown<40>();
      if (threadIdx.x == consumers * 128) produce(p, tiles, stages, full, empty, rank, first, step, steps);
      __syncwarp();
    } else {
      ptx::registersUp<232>();
      consume(p, tiles, stages, full, empty, rank, first, step, steps, warpgroup);
    }
    // No block may end while another still writes to its shared memory or arrives at its barriers.
    if constexpr (Cluster > 1) ptx::clusterSync();
  }

  TYPERT_DEVICE static void produce(const Params& p, const Tiles& tiles, u8* stages, u64* full, u64* empty, u32 rank,
                                    i32 first, i32 step, i32 steps) {
    i32 stage = 0;
    u32 phase = 1;
    for (i32 tile = first; tile < tiles.count; tile += step) {
      i32 tm, tn;
      tiles.at(tile, tm, tn);
      const i32 row = (tm * Cluster + rank) * BM, physical = tn * BN + rank * (BN / Cluster);
      for (i32 i = 0; i < steps; i++) {
        ptx::barrierWait(&empty[stage], phase);
        ptx::barrierExpect(&full[stage], stageBytes);
        u8* const to = stages + stage * stageBytes;
        ptx::loadBox2(to, &p.x, &full[stage], i * BK, row, ptx::evictNormal);
        u8* const toW = to + bytesX + rank * (bytesW / Cluster);
        if constexpr (Cluster == 1)
          loadWeightBox<Gated>(toW, &p.w, &full[stage], i * BK, physical, ptx::evictNormal);
        else if constexpr (Gated)
          ptx::loadBox4Multicast(toW, &p.w, &full[stage], i * BK, 0, 0, physical / 16, (1 << Cluster) - 1,
                                 ptx::evictNormal);
        else
          ptx::loadBox2Multicast(toW, &p.w, &full[stage], i * BK, physical, (1 << Cluster) - 1, ptx::evictNormal);
        if (++stage == Stages) stage = 0, phase ^= 1;
      }
    }
  }

  TYPERT_DEVICE static void release(u64* barrier, u32 rank) {
    const i32 thread = threadIdx.x & 127;
    if constexpr (Cluster == 1) {
      if (thread == 0) ptx::barrierArrive(barrier);
    } else {
      if (thread < Cluster) ptx::barrierArriveRemote(barrier, thread);
    }
  }

  TYPERT_DEVICE static void consume(const Params& p, const Tiles& tiles, u8* stages, u64* full, u64* empty, u32 rank,
                                    i32 first, i32 step, i32 steps, i32 warpgroup) {
    const u32 base = ptx::sharedAddress(stages);
    float acc[BN / 2];
    i32 stage = 0;
    u32 phase = 0;
    for (i32 tile = first; tile < tiles.count; tile += step) {
      i32 before = 0;
      for (i32 i = 0; i < steps; i++) {
        ptx::barrierWait(&full[stage], phase);
        const u64 a = ptx::wgmmaTile(base + stage * stageBytes + warpgroup * (64 * BK * 2));
        const u64 b = ptx::wgmmaTile(base + stage * stageBytes + bytesX);
        ptx::wgmmaFence();
#pragma unroll
        for (i32 kk = 0; kk < BK / 16; kk++) ptx::Wgmma<T, BN>::shared(acc, a + kk * 2, b + kk * 2, i + kk > 0);
        ptx::wgmmaCommit();
        if (i > 0) {
          ptx::wgmmaWait<1>();
          release(&empty[before], rank);
        }
        before = stage;
        if (++stage == Stages) stage = 0, phase ^= 1;
      }
      ptx::wgmmaWait<0>();
      wgmmaHold(acc);
      release(&empty[before], rank);
      i32 tm, tn;
      tiles.at(tile, tm, tn);
      const i32 warp = (threadIdx.x >> 5) & 3;
      const i32 row = (tm * Cluster + rank) * BM + warpgroup * 64 + warp * 16 + (laneId() >> 2);
      finishFragments<T, Gated, A, BN>(p.out, acc, row, tn * (Gated ? BN / 2 : BN), p.m, p.n);
    }
  }
#endif
};

}  // namespace typert
