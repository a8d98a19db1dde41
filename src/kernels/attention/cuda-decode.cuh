// Attention of requests with few new tokens (tokens × query heads a kv head ≤ 16): bound by reading the cache once. A block takes one kv head of one
// request, or a split of its keys; its four warps take 16 keys each of every 64 copied, keep their own softmax, and merge. Splits merge in the block
// that ends last.
#pragma once
#include "attention/cuda-common.cuh"

namespace typert {

template <class T, i32 D, i32 Stages, i32 Features>
struct DecodeAttention {
  static constexpr i32 threads = 128, minBlocks = 1;
  static constexpr i32 rows = 16, BN = 64;
  static constexpr i32 pitch = D * 2 + 16;  // an odd number of 16-byte pieces: ldmatrix meets no bank twice
  static constexpr i32 stageBytes = 2 * BN * pitch;
  static constexpr i32 minTiles = 4;
  struct Params {
    AttentionIn<T> in;
    float* partial;  // [request, kv head, split, 16, D + 2]
    u32* counters;   // [request, kv head], zero before and after
  };

  TYPERT_DEVICE static void run(const Params& p) {
    extern __shared__ __align__(128) u8 dynamicShared[];
    const AttentionIn<T>& in = p.in;
    const i32 kvHead = blockIdx.x, request = blockIdx.y, split = blockIdx.z, splits = gridDim.z;
    const i32 group = in.group();
    // What describes the step was there before its first kernel, and all keys but the step's own were written by earlier steps: both are read while
    // the kernel before still runs. Loads that do not need each other's results go out together.
    const i32 begin = in.requestOffsets[request], next = in.requestOffsets[request + 1];
    const i32 length = in.contextLengths[request];
    const i32 touched = in.blockTables[i64(request) * in.maxBlocks + minimum(i32(threadIdx.x & 31), in.maxBlocks - 1)];
    asm volatile("" ::"r"(touched));
    const i32 live = (next - begin) * group, past = length - (next - begin);
    // No block may end before the kernel before it: the kernel after waits for this one alone.
    if (live == 0 || live > rows) return ptx::waitForPrevious();
    const i32 first = in.firstKey(past) / BN * BN;
    const i32 tiles = ceilDiv(length - first, BN);
    const i32 perSplit = maximum(ceilDiv(tiles, splits), minTiles);
    const i32 active = ceilDiv(tiles, perSplit);
    if (split >= active) return ptx::waitForPrevious();
    const i32 firstTile = split * perSplit, count = minimum(perSplit, tiles - firstTile);

    const i32 lane = laneId(), warp = uniformWarpId(), g = lane >> 2, t = lane & 3;
    const u32 shared = ptx::sharedAddress(dynamicShared);
    const auto load = [&](i32 stage, i32 tile) {
      constexpr i32 chunks = D / 8;
      const i32 key0 = first + tile * BN;
#pragma unroll
      for (i32 i = 0; i < ceilDiv(BN * chunks, threads); i++) {
        const i32 id = i * threads + threadIdx.x;
        if (BN * chunks % threads != 0 && id >= BN * chunks) break;
        const i32 row = id / chunks, c = id % chunks;
        const bool valid = key0 + row < length;
        const T* key = in.cache + in.template cacheRow<D>(request, kvHead, 0, minimum(key0 + row, length - 1)) + c * 8;
        const u32 to = shared + stage * stageBytes + row * pitch + c * 16;
        ptx::copyAsync16(to, key, valid);
        ptx::copyAsync16(to + BN * pitch, key + (i64(in.kvHeads) << in.blockShift) * D, valid);
      }
    };
    i32 ready = 0;
    for (; ready < Stages - 1 && ready < count && first + (firstTile + ready + 1) * BN <= past; ready++) {
      load(ready, firstTile + ready);
      ptx::copyCommit();
    }
    ptx::waitForPrevious();
    ptx::letNextBegin();
    for (; ready < Stages - 1; ready++) {
      if (ready < count) load(ready, firstTile + ready);
      ptx::copyCommit();
    }

    // Rows g and g + 8: token row / group, head row % group.
    i32 position[2], lowest[2];
    float slope[2];
    u32 q[D / 16][4];
#pragma unroll
    for (i32 h = 0; h < 2; h++) {
      const i32 row = minimum(g + h * 8, live - 1);
      const i32 token = begin + row / group, head = kvHead * group + row % group;
      position[h] = past + row / group;
      lowest[h] = in.firstKey(position[h]);
      slope[h] = Features & withAlibi ? in.slopes[head] : 0.f;
      const T* from = in.q + i64(token) * in.ldq + head * D + t * 2;
#pragma unroll
      for (i32 k = 0; k < D / 16; k++) {
        q[k][h] = *reinterpret_cast<const u32*>(from + k * 16);
        q[k][h + 2] = *reinterpret_cast<const u32*>(from + k * 16 + 8);
      }
    }
    float out[D / 8][4] = {};
    RowState state[2];
    for (i32 i = 0; i < count; i++) {
      ptx::copyWait<Stages - 2>();
      __syncthreads();
      if (i + Stages - 1 < count) load((i + Stages - 1) % Stages, firstTile + i + Stages - 1);
      ptx::copyCommit();
      const u32 keys = shared + i % Stages * stageBytes + warp * 16 * pitch, values = keys + BN * pitch;
      float s[2][4] = {};
#pragma unroll
      for (i32 k = 0; k < D / 16; k++) {
        u32 b[4];
        ptx::loadMatrix4(b, keys + ((lane & 7) + ((lane >> 4) << 3)) * pitch + (k * 2 + ((lane >> 3) & 1)) * 16);
        Number<T>::mma(s[0], q[k][0], q[k][1], q[k][2], q[k][3], b[0], b[1]);
        Number<T>::mma(s[1], q[k][0], q[k][1], q[k][2], q[k][3], b[2], b[3]);
      }
      const i32 key0 = first + (firstTile + i) * BN + warp * 16 + t * 2;
      float shrink[2];
#pragma unroll
      for (i32 h = 0; h < 2; h++) {
        float max = state[h].max;
#pragma unroll
        for (i32 j = 0; j < 4; j++) {
          const i32 key = key0 + (j >> 1) * 8 + (j & 1);
          float& score = s[j >> 1][h * 2 + (j & 1)];
          score = logit<Features>(in, score, key, position[h], slope[h]);
          if (key > position[h] || key < lowest[h]) score = -infinity();
          max = fmaxf(max, score);
        }
        max = quadMax(max);
        const float safe = max == -infinity() ? 0.f : max;
        shrink[h] = ptx::exp2Fast(state[h].max - safe);
        float sum = 0.f;
#pragma unroll
        for (i32 j = 0; j < 4; j++) {
          float& score = s[j >> 1][h * 2 + (j & 1)];
          score = ptx::exp2Fast(score - safe);
          sum += score;
        }
        state[h].sum = state[h].sum * shrink[h] + sum;
        state[h].max = max;
      }
      const u32 weights[4] = {Number<T>::pack(s[0][0], s[0][1]), Number<T>::pack(s[0][2], s[0][3]),
                              Number<T>::pack(s[1][0], s[1][1]), Number<T>::pack(s[1][2], s[1][3])};
#pragma unroll
      for (i32 d = 0; d < D / 16; d++) {
        u32 b[4];
        ptx::loadMatrix4Transposed(b, values + (lane & 15) * pitch + (d * 2 + (lane >> 4)) * 16);
#pragma unroll
        for (i32 e = 0; e < 2; e++) {
          float(&o)[4] = out[d * 2 + e];
          o[0] *= shrink[0], o[1] *= shrink[0], o[2] *= shrink[1], o[3] *= shrink[1];
          Number<T>::mma(o, weights[0], weights[1], weights[2], weights[3], b[e * 2], b[e * 2 + 1]);
        }
      }
    }
    ptx::copyWait<0>();
    __syncthreads();
    merge(p, dynamicShared, out, state, begin, live, kvHead, request, split, active);
  }

  // Warps' results meet in shared memory; then the block stores, or leaves its part for the last block of the splits.
  TYPERT_DEVICE static void merge(const Params& p, u8* shared, const float (&out)[D / 8][4], const RowState (&state)[2], i32 begin,
                                  i32 live, i32 kvHead, i32 request, i32 split, i32 active) {
    const AttentionIn<T>& in = p.in;
    const i32 lane = laneId(), warp = uniformWarpId(), g = lane >> 2, t = lane & 3;
    const i32 group = in.group();
    constexpr i32 width = D + 2;
    float* const parts = reinterpret_cast<float*>(shared);  // [4][rows][width]: sums, then max and sum of weights
    static_assert(4 * rows * width * 4 <= Stages * stageBytes);
#pragma unroll
    for (i32 h = 0; h < 2; h++) {
      float* const row = parts + (warp * rows + g + h * 8) * width;
      const float sum = quadSum(state[h].sum);
      if (t == 0) row[D] = state[h].max, row[D + 1] = sum;
#pragma unroll
      for (i32 d = 0; d < D / 8; d++) row[d * 8 + t * 2] = out[d][h * 2], row[d * 8 + t * 2 + 1] = out[d][h * 2 + 1];
    }
    __syncthreads();
    const i64 slot = i64(request) * in.kvHeads + kvHead;
    if (active == 1) {
      finish(p, parts, 4, rows * width, begin, live, kvHead, group);
      return;
    }
    float* const mine = p.partial + (slot * gridDim.z + split) * (rows * width);
    for (i32 row = warp; row < live; row += 4) {
      float weights[4], max, sum;
      weigh(parts + row * width, 4, rows * width, weights, max, sum);
      for (i32 d = lane; d < D; d += 32) {
        float value = 0.f;
#pragma unroll
        for (i32 w = 0; w < 4; w++) value += weights[w] * parts[(w * rows + row) * width + d];
        mine[row * width + d] = value;
      }
      if (lane == 0) mine[row * width + D] = max, mine[row * width + D + 1] = sum;
    }
    __shared__ bool last;
    __syncthreads();
    if (threadIdx.x == 0) {
      __threadfence();
      last = ptx::atomicAddAcquireRelease(p.counters + slot, 1) == u32(active - 1);
      if (last) p.counters[slot] = 0;
    }
    __syncthreads();
    if (!last) return;
    __threadfence();
    finish(p, p.partial + slot * gridDim.z * (rows * width), active, rows * width, begin, live, kvHead, group);
  }

  // Factors that bring four parts of a row to their common maximum.
  TYPERT_DEVICE static void weigh(const float* row, i32 count, i32 stride, float (&weights)[4], float& max, float& sum) {
    max = -infinity(), sum = 0.f;
#pragma unroll
    for (i32 w = 0; w < 4; w++) max = fmaxf(max, row[w * stride + D]);
#pragma unroll
    for (i32 w = 0; w < 4; w++) {
      weights[w] = row[w * stride + D] == -infinity() ? 0.f : exp2f(row[w * stride + D] - max);
      sum += weights[w] * row[w * stride + D + 1];
    }
  }

  TYPERT_DEVICE static void finish(const Params& p, const float* parts, i32 count, i32 stride, i32 begin, i32 live,
                                   i32 kvHead, i32 group) {
    const AttentionIn<T>& in = p.in;
    constexpr i32 width = D + 2;
    for (i32 i = threadIdx.x; i < live * (D / 2); i += threads) {
      const i32 row = i / (D / 2), d = i % (D / 2) * 2;
      const i32 head = kvHead * group + row % group;
      float max = -infinity();
      if constexpr (Features & withSinks) max = in.sinks[head] * log2e;
      float sum = Features & withSinks ? 1.f : 0.f, a = 0.f, b = 0.f;
      for (i32 s = 0; s < count; s++) {
        const float* part = parts + i64(s) * stride + row * width;
        if (part[D] == -infinity()) continue;
        const float next = fmaxf(max, part[D]);
        const float old = exp2f(max - next), weight = exp2f(part[D] - next);
        sum = sum * old + weight * part[D + 1];
        a = a * old + weight * part[d];
        b = b * old + weight * part[d + 1];
        max = next;
      }
      *reinterpret_cast<u32*>(in.y + i64(begin + row / group) * in.ldy + head * D + d) = Number<T>::pack(a / sum, b / sum);
    }
  }
};

}  // namespace typert
