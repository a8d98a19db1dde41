// Products on mma.sync with tiles copied asynchronously into shared memory: any tensor-core GPU from sm_80, any number of rows.
// 16-byte chunks of a tile's rows are permuted by row (chunk ^ row % 8), so that neither copies nor ldmatrix meet in a bank.
#pragma once
#include "matmul/cuda-epilogue.cuh"

namespace typert {

// The sums of one tile of BM rows of x by BN rows of w: sources give the address of a row (a
// thread's i-th), and say where there is none.
template <class T, i32 BM, i32 BN, i32 Stages, i32 WarpsM, i32 WarpsN>
struct TileLoop {
  static constexpr i32 threads = WarpsM * WarpsN * 32;
  static constexpr i32 BK = 64;
  static constexpr i32 stageBytes = (BM + BN) * BK * 2;
  static constexpr i32 WM = BM / WarpsM, WN = BN / WarpsN;
  static constexpr i32 MT = WM / 16, NT = WN / 8;
  static_assert(WM % 16 == 0 && WN % 16 == 0);

  TYPERT_DEVICE static u32 chunk(i32 row, i32 c) { return u32(row * (BK * 2) + ((c ^ (row & 7)) << 4)); }

  template <i32 Rows, class Source>
  TYPERT_DEVICE static void copyTile(u32 shared, const Source& source, i32 k0, i32 k) {
    constexpr i32 perRow = BK / 8;
#pragma unroll
    for (i32 i = 0; i < ceilDiv(Rows * perRow, threads); i++) {
      const i32 id = i * threads + threadIdx.x;
      if (Rows * perRow % threads != 0 && id >= Rows * perRow) break;
      const i32 row = id / perRow, c = id % perRow;
      bool valid = k0 + c * 8 < k;
      const T* from = source(i, row, valid);
      ptx::copyAsync16(shared + chunk(row, c), from + (valid ? k0 + c * 8 : 0), valid);
    }
  }

  template <class SourceX, class SourceW>
  TYPERT_DEVICE static void run(u32 shared, const SourceX& sourceX, const SourceW& sourceW, i32 k, float (&acc)[MT][NT][4]) {
    const i32 lane = laneId(), warp = uniformWarpId();
    const i32 warpM = warp % WarpsM, warpN = warp / WarpsM;
    const auto load = [&](i32 stage, i32 k0) {
      const u32 base = shared + stage * stageBytes;
      copyTile<BN>(base + BM * BK * 2, sourceW, k0, k);
      copyTile<BM>(base, sourceX, k0, k);
    };
    const i32 steps = ceilDiv(k, BK);
#pragma unroll
    for (i32 s = 0; s < Stages - 1; s++) {
      if (s < steps) load(s, s * BK);
      ptx::copyCommit();
    }
    for (i32 step = 0; step < steps; step++) {
      ptx::copyWait<Stages - 2>();
      __syncthreads();
      if (step + Stages - 1 < steps) load((step + Stages - 1) % Stages, (step + Stages - 1) * BK);
      ptx::copyCommit();
      const u32 tileX = shared + step % Stages * stageBytes;
      const u32 tileW = tileX + BM * BK * 2;
#pragma unroll
      for (i32 kk = 0; kk < BK / 16; kk++) {
        u32 a[MT][4], b[NT / 2][4];
#pragma unroll
        for (i32 i = 0; i < MT; i++)
          ptx::loadMatrix4(a[i], tileX + chunk(warpM * WM + i * 16 + (lane & 15), kk * 2 + (lane >> 4)));
#pragma unroll
        for (i32 j = 0; j < NT / 2; j++)
          ptx::loadMatrix4(b[j], tileW + chunk(warpN * WN + j * 16 + (lane & 7) + ((lane >> 4) << 3), kk * 2 + ((lane >> 3) & 1)));
#pragma unroll
        for (i32 i = 0; i < MT; i++) {
#pragma unroll
          for (i32 j = 0; j < NT; j++)
            Number<T>::mma(acc[i][j], a[i][0], a[i][1], a[i][2], a[i][3], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
        }
      }
    }
    ptx::copyWait<0>();
  }
};

template <class T, i32 BM, i32 BN, i32 Stages, i32 WarpsM, i32 WarpsN, bool Gated, Act A>
struct TileMatmul {
  using Loop = TileLoop<T, BM, BN, Stages, WarpsM, WarpsN>;
  static constexpr i32 threads = Loop::threads, minBlocks = 1;
  static_assert(Loop::WN % (Gated ? 64 : 32) == 0);

  struct Params {
    const T* x;
    const T* w;
    MatmulOut<T> out;
    i32 m, n, k, ldx;
  };

  TYPERT_DEVICE static void run(const Params& p) {
    extern __shared__ __align__(128) u8 dynamicShared[];
    const i32 lane = laneId(), warp = uniformWarpId();
    const i32 physicalN = Gated ? 2 * p.n : p.n;

    // Blocks that run together share rows of x and of w: columns of eight row tiles.
    const i32 tilesM = ceilDiv(p.m, BM), tilesN = ceilDiv(physicalN, BN);
    const i32 group = 8 * tilesN;
    const i32 firstM = blockIdx.x / group * 8;
    const i32 sizeM = minimum(tilesM - firstM, 8);
    const i32 m0 = (firstM + blockIdx.x % group % sizeM) * BM;
    const i32 n0 = blockIdx.x % group / sizeM * BN;

    const auto sourceX = [&](i32, i32 row, bool& valid) {
      valid = valid && m0 + row < p.m;
      return p.x + i64(minimum(m0 + row, p.m - 1)) * p.ldx;
    };
    const auto sourceW = [&](i32, i32 row, bool& valid) {
      valid = valid && n0 + row < physicalN;
      return p.w + i64(weightRow<Gated>(minimum(n0 + row, physicalN - 1), p.n)) * p.k;
    };
    ptx::waitForPrevious();
    ptx::letNextBegin();
    float acc[Loop::MT][Loop::NT][4] = {};
    Loop::run(ptx::sharedAddress(dynamicShared), sourceX, sourceW, p.k, acc);
    const i32 col = (n0 + warp / WarpsM * Loop::WN) / (Gated ? 2 : 1);
#pragma unroll
    for (i32 i = 0; i < Loop::MT; i++) {
      const i32 row = m0 + warp % WarpsM * Loop::WM + i * 16 + (lane >> 2);
      finishFragments<T, Gated, A, Loop::WN>(p.out, &acc[i][0][0], row, col, p.m, p.n);
    }
  }
};

}  // namespace typert
