// Attention of many new tokens on Hopper (head dim 64 or 128): 128 rows a block, one warp that copies the cache's blocks with the tensor memory
// accelerator, two warpgroups that multiply with wgmma and overlap the next scores with the last values (FlashAttention-3; Shah et al. 2024).
#pragma once
#include "attention/cuda-common.cuh"
#include "include/cuda/ptx-wgmma.cuh"

namespace typert {

template <class T, i32 D, i32 BN, i32 Features>
struct WgmmaAttention {
  static constexpr i32 threads = 384, minBlocks = 1;
  static constexpr i32 BM = 128, stages = 2;
  static constexpr i32 slabs = D / 64;  // tiles are [slab of 64 columns][row][64], each row 128 bytes, swizzled
  static constexpr i32 tileBytes = BN * D * 2, queryBytes = BM * D * 2;
  struct Params {
    TensorMap cache;  // [rows of all blocks, D], box 64 × min(tokens per block, BN)
    AttentionIn<T> in;
    i32 skip;
  };

#if !defined(__CUDA_ARCH_FEAT_SM90_ALL)
  TYPERT_DEVICE static void run(const Params&) {}
#else
  struct Barriers {
    u64 keyFull[stages], keyEmpty[stages], valueFull[stages], valueEmpty[stages];
  };
  struct Work {
    i32 request, kvHead, group, begin, length, rows, row0, firstTile, count, sharedLow, sharedHigh;
  };

  TYPERT_DEVICE static void run(const Params& p) {
    extern __shared__ __align__(1024) u8 dynamicShared[];
    __shared__ __align__(8) Barriers barriers;
    u8* const shared = dynamicShared + ((1024 - (ptx::sharedAddress(dynamicShared) & 1023)) & 1023);
    const AttentionIn<T>& in = p.in;
    if (threadIdx.x == 0) {
      ptx::prefetchMap(&p.cache);
#pragma unroll
      for (i32 s = 0; s < stages; s++) {
        ptx::barrierInit(&barriers.keyFull[s], 1), ptx::barrierInit(&barriers.valueFull[s], 1);
        ptx::barrierInit(&barriers.keyEmpty[s], 2), ptx::barrierInit(&barriers.valueEmpty[s], 2);
      }
      ptx::barrierInitFence();
    }
    __syncthreads();
    // What describes the step was there before its first kernel; queries and the step's own keys are waited for below.
    const TileOf of(in, gridDim.y - 1 - blockIdx.y, BM, p.skip);
    // No block may end before the kernel before it: the kernel after waits for this one alone.
    if (of.request < 0) return ptx::waitForPrevious();
    Work w;
    w.request = of.request, w.kvHead = blockIdx.x, w.group = in.group();
    w.begin = in.requestOffsets[w.request], w.length = in.contextLengths[w.request];
    w.rows = (in.requestOffsets[w.request + 1] - w.begin) * w.group;
    w.row0 = of.tile * BM;
    const i32 low = in.positions[w.begin + w.row0 / w.group];
    const i32 high = in.positions[w.begin + minimum(w.row0 + BM - 1, w.rows - 1) / w.group];
    w.firstTile = in.firstKey(low) / BN;
    w.count = minimum(high, w.length - 1) / BN + 1 - w.firstTile;
    w.sharedLow = in.firstKey(high), w.sharedHigh = minimum(low, w.length - 1);
    const i32 warpgroup = __shfl_sync(fullMask, threadIdx.x >> 7, 0);
    if (warpgroup == 2) {
      ptx::registersDown<24>();
      if (uniformWarpId() == 8) produce(p, w, shared, barriers);
    } else {
      ptx::registersUp<240>();
      consume(p, w, shared, barriers, warpgroup);
    }
  }

  // One lane a box: the lanes share a tile's cache blocks and slabs.
  TYPERT_DEVICE static void produce(const Params& p, const Work& w, u8* shared, Barriers& barriers) {
    const AttentionIn<T>& in = p.in;
    ptx::waitForPrevious();
    ptx::letNextBegin();
    const i32 perBox = minimum(in.tokensPerBlock(), BN), boxes = BN / perBox;
    u8* const keys = shared + queryBytes;
    u8* const values = keys + stages * tileBytes;
    const auto load = [&](u8* to, u64* full, i32 tile, i32 part) {
      if (laneId() == 0) ptx::barrierExpect(full, tileBytes);
      __syncwarp();
      for (i32 i = laneId(); i < boxes * slabs; i += 32) {
        const i32 box = i / slabs, slab = i % slabs;
        const i32 key = minimum((w.firstTile + tile) * BN + box * perBox, w.length - 1);
        const i32 block = in.blockTables[i64(w.request) * in.maxBlocks + (key >> in.blockShift)];
        const i32 row = ((block * 2 + part) * in.kvHeads + w.kvHead << in.blockShift) + (key & in.tokensPerBlock() - 1 & -perBox);
        ptx::loadBox2(to + slab * (BN * 128) + box * perBox * 128, &p.cache, full, slab * 64, row, ptx::evictNormal);
      }
    };
    for (i32 i = 0; i < w.count; i++) {
      const i32 s = i % stages, phase = (i / stages + 1) & 1;
      ptx::barrierWait(&barriers.keyEmpty[s], phase);
      load(keys + s * tileBytes, &barriers.keyFull[s], i, 0);
      ptx::barrierWait(&barriers.valueEmpty[s], phase);
      load(values + s * tileBytes, &barriers.valueFull[s], i, 1);
    }
  }

  template <i32 N>
  TYPERT_DEVICE static void hold(float (&d)[N]) {
#pragma unroll
    for (i32 i = 0; i < N; i++) asm volatile("" : "+f"(d[i])::"memory");
  }

  TYPERT_DEVICE static void consume(const Params& p, const Work& w, u8* shared, Barriers& barriers, i32 warpgroup) {
    const AttentionIn<T>& in = p.in;
    const i32 thread = threadIdx.x & 127, lane = laneId(), g = lane >> 2, t = lane & 3;
    const u32 queries = ptx::sharedAddress(shared);
    const u32 keys = queries + queryBytes, values = keys + stages * tileBytes;
    ptx::waitForPrevious();
    // This warpgroup's 64 rows of queries, swizzled as the copy engine would.
    for (i32 i = thread; i < 64 * (D / 8); i += 128) {
      const i32 r = i / (D / 8), c = i % (D / 8), row = w.row0 + warpgroup * 64 + r;
      uint4 v = make_uint4(0, 0, 0, 0);
      if (row < w.rows)
        v = *reinterpret_cast<const uint4*>(in.q + i64(w.begin + row / w.group) * in.ldq + (w.kvHead * w.group + row % w.group) * D + c * 8);
      const i32 tileRow = warpgroup * 64 + r;
      *reinterpret_cast<uint4*>(shared + (c >> 3) * (BM * 128) + tileRow * 128 + (((c & 7) ^ (tileRow & 7)) << 4)) = v;
    }
    ptx::fenceAsyncShared();
    ptx::namedBarrier(1 + warpgroup, 128);

    const i32 firstRow = w.row0 + warpgroup * 64 + (thread >> 5) * 16 + g;
    i32 position[2], lowest[2];
    float slope[2];
#pragma unroll
    for (i32 h = 0; h < 2; h++) {
      const i32 row = minimum(firstRow + h * 8, w.rows - 1);
      position[h] = minimum(in.positions[w.begin + row / w.group], w.length - 1);
      lowest[h] = in.firstKey(in.positions[w.begin + row / w.group]);
      slope[h] = Features & withAlibi ? in.slopes[w.kvHead * w.group + row % w.group] : 0.f;
    }
    constexpr bool plain = (Features & (withSoftcap | withAlibi)) == 0;
    const float unit = plain ? in.scale * log2e : 1.f;
    float s[BN / 2], out[D / 2];
    u32 weights[BN / 4];
    RowState state[2];
#pragma unroll
    for (i32 i = 0; i < D / 2; i++) out[i] = 0.f;

    const auto multiplyKeys = [&](i32 stage) {
      ptx::wgmmaFence();
#pragma unroll
      for (i32 k = 0; k < D / 16; k++) {
        const u64 a = ptx::wgmmaTile(queries + (k >> 2) * (BM * 128) + warpgroup * (64 * 128) + (k & 3) * 32);
        const u64 b = ptx::wgmmaTile(keys + stage * tileBytes + (k >> 2) * (BN * 128) + (k & 3) * 32);
        ptx::Wgmma<T, BN>::shared(s, a, b, k > 0);
      }
      ptx::wgmmaCommit();
    };
    const auto multiplyValues = [&](i32 stage) {
      ptx::wgmmaFence();
#pragma unroll
      for (i32 k = 0; k < BN / 16; k++) {
        const u32 a[4] = {weights[k * 4], weights[k * 4 + 1], weights[k * 4 + 2], weights[k * 4 + 3]};
        const u64 b = ptx::wgmmaTile(values + stage * tileBytes + k * (16 * 128), BN * 128);
        ptx::Wgmma<T, D, true>::registers(out, a, b, 1);
      }
      ptx::wgmmaCommit();
    };
    // Scores of tile `i` become weights; returns what the sums so far shrink by.
    float shrink[2];
    const auto softmax = [&](i32 i) {
      const i32 key0 = (w.firstTile + i) * BN;
      const bool masked = key0 < w.sharedLow || key0 + BN - 1 > w.sharedHigh;
      if (masked || !plain) {
#pragma unroll
        for (i32 j = 0; j < BN / 2; j++) {
          const i32 h = (j >> 1) & 1, key = key0 + (j >> 2) * 8 + t * 2 + (j & 1);
          if constexpr (!plain) s[j] = logit<Features>(in, s[j], key, position[h], slope[h]);
          if (key > position[h] || key < lowest[h]) s[j] = -infinity();
        }
      }
#pragma unroll
      for (i32 h = 0; h < 2; h++) {
        float max = state[h].max;
#pragma unroll
        for (i32 j = 0; j < BN / 4; j++) max = fmaxf(max, s[(j >> 1) * 4 + h * 2 + (j & 1)]);
        max = quadMax(max);
        const float safe = max == -infinity() ? 0.f : max * unit;
        shrink[h] = ptx::exp2Fast(state[h].max * unit - safe);
        float sum = 0.f;
#pragma unroll
        for (i32 j = 0; j < BN / 4; j++) {
          float& score = s[(j >> 1) * 4 + h * 2 + (j & 1)];
          score = ptx::exp2Fast(fmaf(score, unit, -safe));
          sum += score;
        }
        state[h].sum = state[h].sum * shrink[h] + sum;
        state[h].max = max;
      }
    };
    const auto packWeights = [&] {
#pragma unroll
      for (i32 k = 0; k < BN / 16; k++) {
#pragma unroll
        for (i32 e = 0; e < 4; e++) weights[k * 4 + e] = Number<T>::pack(s[k * 8 + e * 2], s[k * 8 + e * 2 + 1]);
      }
    };
    // Rows past the sequence's end hold what was there before: weight zero times NaN would be NaN.
    const auto clearTail = [&](i32 i) {
      const i32 stage = i % stages, live = w.length - (w.firstTile + i) * BN;
      if (live >= BN) return;
      u8* const tile = shared + queryBytes + stages * tileBytes + stage * tileBytes;
      ptx::namedBarrier(3, 256);
      for (i32 j = threadIdx.x; j < (BN - live) * slabs * 8; j += 256) {
        const i32 row = live + j / (slabs * 8), c = j % (slabs * 8);
        *reinterpret_cast<uint4*>(tile + (c >> 3) * (BN * 128) + row * 128 + (c & 7) * 16) = make_uint4(0, 0, 0, 0);
      }
      ptx::fenceAsyncShared();
      ptx::namedBarrier(3, 256);
    };
    const auto release = [&](u64* barrier) {
      if (thread == 0) ptx::barrierArrive(barrier);
    };

    ptx::barrierWait(&barriers.keyFull[0], 0);
    multiplyKeys(0);
    ptx::wgmmaWait<0>();
    hold(s);
    release(&barriers.keyEmpty[0]);
    softmax(0);
    packWeights();
    for (i32 i = 1; i < w.count; i++) {
      const i32 stage = i % stages, before = (i - 1) % stages;
      ptx::barrierWait(&barriers.keyFull[stage], (i / stages) & 1);
      multiplyKeys(stage);
      ptx::barrierWait(&barriers.valueFull[before], ((i - 1) / stages) & 1);
      multiplyValues(before);
      ptx::wgmmaWait<1>();
      hold(s);
      release(&barriers.keyEmpty[stage]);
      softmax(i);
      ptx::wgmmaWait<0>();
      hold(out);
      release(&barriers.valueEmpty[before]);
#pragma unroll
      for (i32 j = 0; j < D / 2; j++) out[j] *= shrink[(j >> 1) & 1];
      packWeights();
    }
    const i32 last = w.count - 1;
    ptx::barrierWait(&barriers.valueFull[last % stages], (last / stages) & 1);
    clearTail(last);
    multiplyValues(last % stages);
    ptx::wgmmaWait<0>();
    hold(out);
#pragma unroll
    for (i32 h = 0; h < 2; h++) {
      const i32 row = firstRow + h * 8, head = w.kvHead * w.group + row % w.group;
      float sum = quadSum(state[h].sum), factor = 1.f;
      if constexpr (Features & withSinks) {
        const float sink = row < w.rows ? in.sinks[head] * log2e : 0.f, top = state[h].max * unit;
        const float max = fmaxf(sink, top);
        factor = exp2f(top - max);
        sum = sum * factor + exp2f(sink - max);
      }
      factor /= sum;
      if (row >= w.rows) continue;
      T* const to = in.y + i64(w.begin + row / w.group) * in.ldy + head * D + t * 2;
#pragma unroll
      for (i32 d = 0; d < D / 8; d++)
        *reinterpret_cast<u32*>(to + d * 8) = Number<T>::pack(out[d * 4 + h * 2] * factor, out[d * 4 + h * 2 + 1] * factor);
    }
  }
#endif
};

}  // namespace typert
