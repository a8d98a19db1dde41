// Attention of many new tokens on mma.sync (any GPU from sm_80, head dims in multiples of 16): 16 rows a warp, keys and values copied
// asynchronously in tiles of 64, softmax online (FlashAttention-2's schedule; Dao 2023).
#pragma once
#include "attention/cuda-common.cuh"

namespace typert {

template <class T, i32 D, i32 DV, i32 Warps, i32 Features>
struct TileAttention {
  static constexpr i32 threads = Warps * 32, minBlocks = 1;
  static constexpr i32 BM = Warps * 16, BN = 64;
  static constexpr i32 pitch = D * 2 + 16, valuePitch = DV * 2 + 16;
  static constexpr i32 stages = 2, stageBytes = tileBytes<BN, D, DV>;
  struct Params {
    AttentionIn<T> in;
    i32 skip;  // requests of at most so many rows are computed elsewhere
  };

  TYPERT_DEVICE static void run(const Params& p) {
    extern __shared__ __align__(128) u8 dynamicShared[];
    const AttentionIn<T>& in = p.in;
    ptx::waitForPrevious();
    ptx::letNextBegin();
    const i32 kvHead = blockIdx.y, group = in.group();
    // Late tiles see the most keys: they begin first.
    const TileOf of(in, gridDim.x - 1 - blockIdx.x, BM, p.skip);
    const i32 request = of.request;
    if (request < 0) return;
    const i32 begin = in.requestOffsets[request], length = in.contextLengths[request];
    const i32 rows = (in.requestOffsets[request + 1] - begin) * group;
    const i32 row0 = of.tile * BM;
    const i32 lowToken = begin + row0 / group, highToken = begin + minimum(row0 + BM - 1, rows - 1) / group;
    const i32 firstTile = in.firstKey(in.positions[lowToken]) / BN;
    const i32 lastKey = minimum(in.positions[highToken], length - 1);
    const i32 count = lastKey / BN + 1 - firstTile;
    // Tiles all of whose keys every row sees need no mask.
    const i32 sharedLow = in.firstKey(in.positions[highToken]), sharedHigh = minimum(in.positions[lowToken], length - 1);

    const i32 lane = laneId(), warp = uniformWarpId(), g = lane >> 2, t = lane & 3;
    const u32 shared = ptx::sharedAddress(dynamicShared);
    const auto load = [&](i32 stage, i32 tile) {
      copyTile<T, BN, D, DV, threads>(in, request, kvHead, (firstTile + tile) * BN, length, length, shared + stage * stageBytes);
    };
    load(0, 0);
    ptx::copyCommit();

    i32 position[2], lowest[2];
    float slope[2];
    u32 q[D / 16][4];
    const i32 firstRow = row0 + warp * 16 + g;
#pragma unroll
    for (i32 h = 0; h < 2; h++) {
      const i32 row = minimum(firstRow + h * 8, rows - 1);
      const i32 token = begin + row / group, head = kvHead * group + row % group;
      position[h] = minimum(in.positions[token], length - 1);
      lowest[h] = in.firstKey(in.positions[token]);
      slope[h] = Features & withAlibi ? in.slopes[head] : 0.f;
      const T* from = in.q + i64(token) * in.ldq + head * D + t * 2;
#pragma unroll
      for (i32 k = 0; k < D / 16; k++) {
        q[k][h] = *reinterpret_cast<const u32*>(from + k * 16);
        q[k][h + 2] = *reinterpret_cast<const u32*>(from + k * 16 + 8);
      }
    }
    float out[DV / 8][4] = {};
    RowState state[2];
    for (i32 i = 0; i < count; i++) {
      __syncthreads();
      if (i + 1 < count) load((i + 1) % stages, i + 1);
      ptx::copyCommit();
      ptx::copyWait<1>();
      __syncthreads();
      const u32 keys = shared + i % stages * stageBytes, values = keys + BN * pitch;
      float s[BN / 8][4] = {};
#pragma unroll
      for (i32 k = 0; k < D / 16; k++) {
#pragma unroll
        for (i32 j = 0; j < BN / 16; j++) {
          u32 b[4];
          ptx::loadMatrix4(b, keys + (j * 16 + (lane & 7) + ((lane >> 4) << 3)) * pitch + (k * 2 + ((lane >> 3) & 1)) * 16);
          Number<T>::mma(s[2 * j], q[k][0], q[k][1], q[k][2], q[k][3], b[0], b[1]);
          Number<T>::mma(s[2 * j + 1], q[k][0], q[k][1], q[k][2], q[k][3], b[2], b[3]);
        }
      }
      const i32 key0 = (firstTile + i) * BN;
      const bool masked = key0 < sharedLow || key0 + BN - 1 > sharedHigh;
#pragma unroll
      for (i32 h = 0; h < 2; h++) {
        float max = state[h].max;
#pragma unroll
        for (i32 j = 0; j < BN / 4; j++) {
          float& score = s[j >> 1][h * 2 + (j & 1)];
          const i32 key = key0 + t * 2 + (j >> 1) * 8 + (j & 1);
          score = logit<Features>(in, score, key, position[h], slope[h]);
          if (masked && (key > position[h] || key < lowest[h])) score = -infinity();
          max = fmaxf(max, score);
        }
        max = quadMax(max);
        const float safe = max == -infinity() ? 0.f : max;
        const float shrink = ptx::exp2Fast(state[h].max - safe);
        float sum = 0.f;
#pragma unroll
        for (i32 j = 0; j < BN / 4; j++) {
          float& score = s[j >> 1][h * 2 + (j & 1)];
          score = ptx::exp2Fast(score - safe);
          sum += score;
        }
        state[h].sum = state[h].sum * shrink + sum;
        state[h].max = max;
#pragma unroll
        for (i32 d = 0; d < DV / 8; d++) out[d][h * 2] *= shrink, out[d][h * 2 + 1] *= shrink;
      }
#pragma unroll
      for (i32 j = 0; j < BN / 16; j++) {
        const u32 w0 = Number<T>::pack(s[2 * j][0], s[2 * j][1]), w1 = Number<T>::pack(s[2 * j][2], s[2 * j][3]);
        const u32 w2 = Number<T>::pack(s[2 * j + 1][0], s[2 * j + 1][1]), w3 = Number<T>::pack(s[2 * j + 1][2], s[2 * j + 1][3]);
#pragma unroll
        for (i32 d = 0; d < DV / 16; d++) {
          u32 b[4];
          ptx::loadMatrix4Transposed(b, values + (j * 16 + (lane & 15)) * valuePitch + (d * 2 + (lane >> 4)) * 16);
          Number<T>::mma(out[2 * d], w0, w1, w2, w3, b[0], b[1]);
          Number<T>::mma(out[2 * d + 1], w0, w1, w2, w3, b[2], b[3]);
        }
      }
    }
#pragma unroll
    for (i32 h = 0; h < 2; h++) {
      const i32 row = firstRow + h * 8, head = kvHead * group + row % group;
      float sum = quadSum(state[h].sum), factor = 1.f;
      if constexpr (Features & withSinks) {
        const float sink = row < rows ? in.sinks[head] * log2e : 0.f;
        const float max = fmaxf(sink, state[h].max);
        factor = exp2f(state[h].max - max);
        sum = sum * factor + exp2f(sink - max);
      }
      factor /= sum;
      if (row >= rows) continue;
      T* const to = in.y + i64(begin + row / group) * in.ldy + head * DV + t * 2;
#pragma unroll
      for (i32 d = 0; d < DV / 8; d++)
        *reinterpret_cast<u32*>(to + d * 8) = Number<T>::pack(out[d][h * 2] * factor, out[d][h * 2 + 1] * factor);
    }
  }
};

}  // namespace typert
