// Attention of requests with few new tokens (tokens × query heads a kv head ≤ 16): bound by reading the cache once. A block takes one kv head of one
// request, or a split of its keys; its four warps take 16 keys each of every 64 copied, keep their own softmax, and merge. Splits merge in the block
// that ends last. With Fresh = ToRotate it also does what RopeCache does for steps of one token a request: every block norms and rotates the queries it
// uses, and the block with the last keys puts the new key and value into the cache and among its own.
#pragma once
#include "attention/cuda-common.cuh"
#include "attention/cuda-rope.cuh"

namespace typert {

// Queries come rotated, and all keys are in the cache.
struct Ready {
  static constexpr bool rotates = false;
  template <class T>
  struct Params {};
};
// Queries, key and value of one token a request come as the projection made them.
template <HeadNorm Norm, Rope Style>
struct ToRotate {
  static constexpr bool rotates = true;
  static constexpr HeadNorm norm = Norm;
  static constexpr Rope style = Style;
  template <class T>
  struct Params {
    const T* k;
    const T* v;
    const T* qNorm;
    const T* kNorm;
    const float* frequencies;
    const i32* slots;
    T* cache;
    i32 ldk, ldv, rotaryDim;
    float eps, weightOffset, factor;
  };
};

template <class T, i32 D, i32 DV, i32 Stages, i32 Features, class Fresh = Ready>
struct DecodeAttention {
  static constexpr i32 threads = 128, minBlocks = 1;
  static constexpr i32 rows = 16, BN = 64;
  static constexpr i32 pitch = D * 2 + 16, valuePitch = DV * 2 + 16;
  static constexpr i32 stageBytes = tileBytes<BN, D, DV>;
  static constexpr i32 minTiles = 4;
  static_assert(!Fresh::rotates || D == DV);
  struct Params : Fresh::template Params<T> {
    AttentionIn<T> in;
    float* partial;  // [request, kv head, split, 16, DV + 2]
    u32* counters;   // [request, kv head], zero before and after
  };

  // What rotation needs besides q and k, made before the kernel before has ended.
  struct Rotation {
    float sin[D / 2], cos[D / 2];
    float norm[2][D];  // of queries, of keys
  };
  TYPERT_DEVICE static void prepare(const Params& p, Rotation& r, i32 token) {
    const i32 i = threadIdx.x;
    static_assert(D / 2 <= threads);
    if constexpr (Fresh::style != Rope::none) {
      if (i < p.rotaryDim / 2) {
        float sin, cos;
        sincosf(float(p.in.positions[token]) * p.frequencies[i], &sin, &cos);
        r.sin[i] = sin * p.factor, r.cos[i] = cos * p.factor;
      }
    }
    if constexpr (Fresh::norm != HeadNorm::none) {
      for (i32 c = i; c < D; c += threads) {
        r.norm[0][c] = p.qNorm ? toFloat(p.qNorm[c]) + p.weightOffset : 1.f;
        r.norm[1][c] = p.kNorm ? toFloat(p.kNorm[c]) + p.weightOffset : 1.f;
      }
    }
  }

  // Norms and rotates the queries of the kv head's group, and where `newest` the new key, in shared memory; the key and value go into the cache, too.
  TYPERT_DEVICE static void rotateFresh(const Params& p, const Rotation& r, u8* fresh, i32 token, i32 kvHead, bool newest, i32 slot) {
    const AttentionIn<T>& in = p.in;
    const i32 group = in.group(), lane = laneId();
    const auto place = in.template slotRow<D, DV>(slot >> in.blockShift, kvHead, slot & in.tokensPerBlock() - 1);
    constexpr i32 chunks = D / 8;
    for (i32 i = threadIdx.x; i < (group + (newest ? 2 : 0)) * chunks; i += threads) {
      const i32 item = i / chunks, at = i % chunks * 8;
      const T* const from = item < group ? in.q + i64(token) * in.ldq + (kvHead * group + item) * D
                            : item == group ? p.k + i64(token) * p.ldk + kvHead * D : p.v + i64(token) * p.ldv + kvHead * D;
      const uint4 value = *reinterpret_cast<const uint4*>(from + at);
      *reinterpret_cast<uint4*>(fresh + (item < group ? item : rows + item - group) * pitch + at * 2) = value;
      if (item == group + 1) *reinterpret_cast<uint4*>(p.cache + place.value + at) = value;
    }
    __syncthreads();
#pragma unroll 1
    for (i32 item = uniformWarpId(); item < group + (newest ? 1 : 0); item += threads / 32) {
      const bool query = item < group;
      T* const x = reinterpret_cast<T*>(fresh + (query ? item : rows) * pitch);
      float mean = 0.f, inverse = 1.f;
      if constexpr (Fresh::norm != HeadNorm::none) {
        float sum = 0.f, squares = 0.f;
#pragma unroll
        for (i32 c = lane; c < D; c += 32) sum += toFloat(x[c]), squares = fmaf(toFloat(x[c]), toFloat(x[c]), squares);
        if constexpr (Fresh::norm == HeadNorm::layer) {
          mean = warpSum(sum) / D, squares = 0.f;
#pragma unroll
          for (i32 c = lane; c < D; c += 32) squares = fmaf(toFloat(x[c]) - mean, toFloat(x[c]) - mean, squares);
        }
        inverse = rsqrtf(warpSum(squares) / D + p.eps);
      }
      const auto normed = [&](i32 c) {
        if constexpr (Fresh::norm == HeadNorm::none) return toFloat(x[c]);
        return (toFloat(x[c]) - mean) * inverse * r.norm[query ? 0 : 1][c];
      };
      const auto put = [&](i32 c, float value) {
        x[c] = fromFloat<T>(value);
        if (!query) p.cache[place.key + c] = fromFloat<T>(value);
      };
      __syncwarp();
      // A lane reads and writes its own pairs.
      const i32 half = Fresh::style == Rope::none ? 0 : p.rotaryDim / 2;
      for (i32 i = lane; i < half; i += 32) {
        const i32 a = Fresh::style == Rope::half ? i : 2 * i, b = Fresh::style == Rope::half ? i + half : 2 * i + 1;
        const float xa = normed(a), xb = normed(b);
        put(a, xa * r.cos[i] - xb * r.sin[i]);
        put(b, xb * r.cos[i] + xa * r.sin[i]);
      }
      for (i32 c = 2 * half + lane; c < D; c += 32) put(c, normed(c));
    }
  }

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
    if (live == 0 || live > rows || (Fresh::rotates && next - begin > 1)) return ptx::waitForPrevious();
    const i32 first = in.firstKey(past) / BN * BN;
    const i32 tiles = ceilDiv(length - first, BN);
    const i32 perSplit = maximum(ceilDiv(tiles, splits), minTiles);
    const i32 active = ceilDiv(tiles, perSplit);
    if (split >= active) return ptx::waitForPrevious();
    const i32 firstTile = split * perSplit, count = minimum(perSplit, tiles - firstTile);

    const i32 lane = laneId(), warp = uniformWarpId(), g = lane >> 2, t = lane & 3;
    const u32 shared = ptx::sharedAddress(dynamicShared);
    const auto load = [&](i32 stage, i32 tile) {
      const i32 end = Fresh::rotates ? past : length;
      copyTile<T, BN, D, DV, threads>(in, request, kvHead, first + tile * BN, length, end, shared + stage * stageBytes);
    };
    i32 ready = 0;
    for (; ready < Stages - 1 && ready < count; ready++) {
      if (!Fresh::rotates && first + (firstTile + ready + 1) * BN > past) break;
      load(ready, firstTile + ready);
      ptx::copyCommit();
    }
    const bool newest = Fresh::rotates && split == active - 1;
    u8* const fresh = dynamicShared + Stages * stageBytes;  // rows of queries, then the new key and value, `pitch` apart
    if constexpr (Fresh::rotates) {
      __shared__ Rotation rotation;
      prepare(p, rotation, begin);
      const i32 slot = p.slots[begin];
      ptx::waitForPrevious();
      ptx::letNextBegin();
      rotateFresh(p, rotation, fresh, begin, kvHead, newest, slot);
      __syncthreads();
    } else {
      ptx::waitForPrevious();
      ptx::letNextBegin();
    }
    for (; ready < Stages - 1; ready++) {
      if (!Fresh::rotates && ready < count) load(ready, firstTile + ready);
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
      const T* from = Fresh::rotates ? reinterpret_cast<const T*>(fresh + row * pitch) + t * 2
                                     : in.q + i64(token) * in.ldq + head * D + t * 2;
#pragma unroll
      for (i32 k = 0; k < D / 16; k++) {
        q[k][h] = *reinterpret_cast<const u32*>(from + k * 16);
        q[k][h + 2] = *reinterpret_cast<const u32*>(from + k * 16 + 8);
      }
    }
    float out[DV / 8][4] = {};
    RowState state[2];
    for (i32 i = 0; i < count; i++) {
      ptx::copyWait<Stages - 2>();
      __syncthreads();
      if (i + Stages - 1 < count) load((i + Stages - 1) % Stages, firstTile + i + Stages - 1);
      ptx::copyCommit();
      if (Fresh::rotates && newest && i == count - 1) {
        // The token's own key and value, which the copies left out.
        constexpr i32 chunks = D / 8;
        u8* const row = dynamicShared + i % Stages * stageBytes + (past - first - (firstTile + i) * BN) * pitch;
        for (i32 c = threadIdx.x; c < 2 * chunks; c += threads) {
          const i32 part = c / chunks, at = c % chunks * 16;
          *reinterpret_cast<uint4*>(row + part * BN * pitch + at) =
              *reinterpret_cast<const uint4*>(fresh + (rows + part) * pitch + at);
        }
        __syncthreads();
      }
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
      for (i32 d = 0; d < DV / 16; d++) {
        u32 b[4];
        ptx::loadMatrix4Transposed(b, values + (lane & 15) * valuePitch + (d * 2 + (lane >> 4)) * 16);
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
  TYPERT_DEVICE static void merge(const Params& p, u8* shared, const float (&out)[DV / 8][4], const RowState (&state)[2], i32 begin,
                                  i32 live, i32 kvHead, i32 request, i32 split, i32 active) {
    const AttentionIn<T>& in = p.in;
    const i32 lane = laneId(), warp = uniformWarpId(), g = lane >> 2, t = lane & 3;
    const i32 group = in.group();
    constexpr i32 width = DV + 2;
    float* const parts = reinterpret_cast<float*>(shared);  // [4][rows][width]: sums, then max and sum of weights
    static_assert(4 * rows * width * 4 <= Stages * stageBytes);
#pragma unroll
    for (i32 h = 0; h < 2; h++) {
      float* const row = parts + (warp * rows + g + h * 8) * width;
      const float sum = quadSum(state[h].sum);
      if (t == 0) row[DV] = state[h].max, row[DV + 1] = sum;
#pragma unroll
      for (i32 d = 0; d < DV / 8; d++) row[d * 8 + t * 2] = out[d][h * 2], row[d * 8 + t * 2 + 1] = out[d][h * 2 + 1];
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
      for (i32 d = lane; d < DV; d += 32) {
        float value = 0.f;
#pragma unroll
        for (i32 w = 0; w < 4; w++) value += weights[w] * parts[(w * rows + row) * width + d];
        mine[row * width + d] = value;
      }
      if (lane == 0) mine[row * width + DV] = max, mine[row * width + DV + 1] = sum;
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
    for (i32 w = 0; w < 4; w++) max = fmaxf(max, row[w * stride + DV]);
#pragma unroll
    for (i32 w = 0; w < 4; w++) {
      weights[w] = row[w * stride + DV] == -infinity() ? 0.f : exp2f(row[w * stride + DV] - max);
      sum += weights[w] * row[w * stride + DV + 1];
    }
  }

  TYPERT_DEVICE static void finish(const Params& p, const float* parts, i32 count, i32 stride, i32 begin, i32 live,
                                   i32 kvHead, i32 group) {
    const AttentionIn<T>& in = p.in;
    constexpr i32 width = DV + 2;
    for (i32 i = threadIdx.x; i < live * (DV / 2); i += threads) {
      const i32 row = i / (DV / 2), d = i % (DV / 2) * 2;
      const i32 head = kvHead * group + row % group;
      float max = -infinity();
      if constexpr (Features & withSinks) max = in.sinks[head] * log2e;
      float sum = Features & withSinks ? 1.f : 0.f, a = 0.f, b = 0.f;
      for (i32 s = 0; s < count; s++) {
        const float* part = parts + i64(s) * stride + row * width;
        if (part[DV] == -infinity()) continue;
        const float next = fmaxf(max, part[DV]);
        const float old = exp2f(max - next), weight = exp2f(part[DV] - next);
        sum = sum * old + weight * part[DV + 1];
        a = a * old + weight * part[d];
        b = b * old + weight * part[d + 1];
        max = next;
      }
      *reinterpret_cast<u32*>(in.y + i64(begin + row / group) * in.ldy + head * DV + d) = Number<T>::pack(a / sum, b / sum);
    }
  }
};

}  // namespace typert
