// The experts' products on tensor cores (any GPU from sm_80): tokens sorted by expert on the device, tiles that never mix experts, then each token's
// results added up. A chosen expert's weights are read once for all its tokens, the others' not at all.
#pragma once
#include "matmul/cuda-tile.cuh"

namespace typert {

// A slot is a token's k-th choice, token · topK + k. One block counts and orders all slots.
struct MoeSort {
  static constexpr i32 threads = 1024, minBlocks = 1, maxExperts = 512;
  struct Params {
    const i32* experts;  // [slots]
    i32* order;          // [slots]: slots by expert
    i32* begins;         // [count + 1]: where an expert's slots begin in `order`
    i32* tiles;          // [count]: tiles of `tileRows` rows that this expert and those before it fill
    i32 slots, count, tileRows;
  };

  TYPERT_DEVICE static void run(const Params& p) {
    __shared__ i32 counts[maxExperts], next[maxExperts], sums[2][threads / 32];
    ptx::waitForPrevious();
    ptx::letNextBegin();
    const i32 e = threadIdx.x;
    if (e < maxExperts) counts[e] = 0;
    __syncthreads();
    for (i32 s = threadIdx.x; s < p.slots; s += threads) atomicAdd(&counts[p.experts[s]], 1);
    __syncthreads();
    const i32 mine = e < p.count ? counts[e] : 0, filled = ceilDiv(mine, p.tileRows);
    i32 slots = mine, tiles = filled;
#pragma unroll
    for (i32 d = 1; d < 32; d <<= 1) {
      const i32 lowerSlots = __shfl_up_sync(fullMask, slots, d), lowerTiles = __shfl_up_sync(fullMask, tiles, d);
      if (laneId() >= d) slots += lowerSlots, tiles += lowerTiles;
    }
    if (laneId() == 31) sums[0][warpId()] = slots, sums[1][warpId()] = tiles;
    __syncthreads();
    for (i32 w = 0; w < warpId(); w++) slots += sums[0][w], tiles += sums[1][w];
    if (e < p.count) {
      p.begins[e] = next[e] = slots - mine;
      p.tiles[e] = tiles;
      if (e == p.count - 1) p.begins[p.count] = slots;
    }
    __syncthreads();
    for (i32 s = threadIdx.x; s < p.slots; s += threads) p.order[atomicAdd(&next[p.experts[s]], 1)] = s;
  }
};

// One product of all experts. First: rows of x are those of the slots' tokens, results stand in the order of slots sorted; else the other way round.
template <class T, i32 BM, i32 BN, i32 Stages, i32 WarpsM, i32 WarpsN, bool First, Act A>
struct MoeProduct {
  using Loop = TileLoop<T, BM, BN, Stages, WarpsM, WarpsN>;
  static constexpr bool gated = First;
  static constexpr i32 threads = Loop::threads, minBlocks = 1;
  static_assert(Loop::WN % (gated ? 64 : 32) == 0);
  struct Params {
    const T* x;
    const T* w;  // [count, physical n, k]
    T* y;
    const i32* order;
    const i32* begins;
    const i32* tiles;
    i32 count, n, k, ldx, ldy, topK;
  };

  TYPERT_DEVICE static void run(const Params& p) {
    extern __shared__ __align__(128) u8 dynamicShared[];
    const i32 lane = laneId(), warp = uniformWarpId();
    const i32 physicalN = gated ? 2 * p.n : p.n, tilesN = ceilDiv(physicalN, BN);
    ptx::waitForPrevious();
    ptx::letNextBegin();
    // Tiles of one expert follow each other, and of these the ones that share rows of its weight.
    i32 expert = 0;
    for (i32 first = 0; first < p.count; first += 32) {
      const bool passed = first + lane < p.count && i64(p.tiles[first + lane]) * tilesN <= i64(blockIdx.x);
      expert += __popc(__ballot_sync(fullMask, passed));
    }
    if (expert >= p.count) return;
    const i32 before = expert == 0 ? 0 : p.tiles[expert - 1], tilesM = p.tiles[expert] - before;
    const i32 index = i32(blockIdx.x) - before * tilesN;
    const i32 begin = p.begins[expert] + index % tilesM * BM, end = p.begins[expert + 1];
    const i32 n0 = index / tilesM * BN;
    const T* const weight = p.w + i64(expert) * physicalN * p.k;

    // A thread copies the same rows at each step: their addresses are looked up once.
    constexpr i32 perRow = Loop::BK / 8, copies = ceilDiv(BM * perRow, threads);
    static_assert(threads % perRow == 0);
    const T* from[copies];
#pragma unroll
    for (i32 i = 0; i < copies; i++) {
      const i32 row = minimum(begin + (i * threads + i32(threadIdx.x)) / perRow, end - 1);
      from[i] = p.x + i64(First ? p.order[row] / p.topK : row) * p.ldx;
    }
    const auto sourceX = [&](i32 i, i32 row, bool& valid) {
      valid = valid && begin + row < end;
      return from[i];
    };
    const auto sourceW = [&](i32, i32 row, bool& valid) {
      valid = valid && n0 + row < physicalN;
      return weight + i64(weightRow<gated>(minimum(n0 + row, physicalN - 1), p.n)) * p.k;
    };
    float acc[Loop::MT][Loop::NT][4] = {};
    Loop::run(ptx::sharedAddress(dynamicShared), sourceX, sourceW, p.k, acc);
    const MatmulOut<T> out{nullptr, nullptr, p.y, 0, p.ldy};
    const i32 col = (n0 + warp / WarpsM * Loop::WN) / (gated ? 2 : 1);
#pragma unroll
    for (i32 i = 0; i < Loop::MT; i++) {
      const i32 row = begin + warp % WarpsM * Loop::WM + i * 16 + (lane >> 2);
      i32 rows[2];
#pragma unroll
      for (i32 h = 0; h < 2; h++) rows[h] = row + h * 8 >= end ? 0x7fffffff : First ? row + h * 8 : p.order[row + h * 8];
      finishFragments<T, gated, A, Loop::WN>(out, &acc[i][0][0], rows, col, 0x7fffffff, p.n);
    }
  }
};

// y[t] = Σₖ weights[t, k] · parts[t · topK + k].
template <class T>
struct MoeCombine {
  static constexpr i32 threads = 256, minBlocks = 4, size = Vector<T>::size;
  struct Params {
    const T* parts;
    const float* weights;
    T* y;
    i32 tokens, columns, ldy, topK;
  };
  TYPERT_DEVICE static void run(const Params& p) {
    ptx::waitForPrevious();
    ptx::letNextBegin();
    const i32 perRow = p.columns / size;
    const i64 item = i64(blockIdx.x) * threads + threadIdx.x;
    const i32 token = i32(item / perRow), c = i32(item % perRow) * size;
    if (token >= p.tokens) return;
    Vector<T> sum{};
    for (i32 k = 0; k < p.topK; k++) {
      const i64 slot = i64(token) * p.topK + k;
      const float weight = p.weights[slot];
      const Vector<T> part = Vector<T>::load(p.parts + slot * p.columns + c);
#pragma unroll
      for (i32 e = 0; e < size; e++) sum.v[e] = fmaf(weight, part.v[e], sum.v[e]);
    }
    sum.store(p.y + i64(token) * p.ldy + c);
  }
};

}  // namespace typert
