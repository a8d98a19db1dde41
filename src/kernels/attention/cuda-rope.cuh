// What happens to q, k and v between the projection and attention, in one kernel: norm of each head, rotation, k and v into the layer's cache, q out.
// One warp a head of a token.
#pragma once
#include "include/cuda/number.cuh"

namespace typert {

enum class HeadNorm { none, rms, layer };
enum class Rope { none, half, interleaved };

template <class T, i32 MaxDim, HeadNorm Norm, Rope Style>
struct RopeCache {
  static constexpr i32 threads = 128, minBlocks = 4;
  struct Params {
    const T* q;
    const T* k;
    const T* v;
    const T* qNorm;
    const T* kNorm;
    const float* frequencies;
    const i32* positions;
    const i32* slots;
    T* y;
    T* cache;
    i32 tokens, ldq, ldk, ldv, ldy;
    i32 heads, kvHeads, headDim, valueDim, rotaryDim, tokensPerBlock;
    float eps, weightOffset, factor;
  };

  TYPERT_DEVICE static void run(const Params& p) {
    __shared__ float rows[threads / 32][MaxDim];
    const i32 lane = laneId(), warp = uniformWarpId();
    const i32 token = blockIdx.x, index = blockIdx.y * (threads / 32) + warp;
    // Angles and slots come from the step's description, which was there before its first kernel.
    constexpr i32 perLane = MaxDim / 64;
    float sin[perLane], cos[perLane];
    if constexpr (Style != Rope::none) {
      const float position = float(p.positions[token]);
#pragma unroll
      for (i32 j = 0; j < perLane; j++) {
        const i32 i = j * 32 + lane;
        if (i >= p.rotaryDim / 2) continue;
        sincosf(position * p.frequencies[i], &sin[j], &cos[j]);
        sin[j] *= p.factor, cos[j] *= p.factor;
      }
    }
    const i32 slot = p.slots[token];
    ptx::waitForPrevious();
    ptx::letNextBegin();
    if (index >= p.heads + 2 * p.kvHeads) return;
    const bool query = index < p.heads;
    const bool value = index >= p.heads + p.kvHeads;
    const i32 head = query ? index : value ? index - p.heads - p.kvHeads : index - p.heads;
    const i32 size = value ? p.valueDim : p.headDim;
    const T* const from = query ? p.q + i64(token) * p.ldq + head * size
                          : value ? p.v + i64(token) * p.ldv + head * size : p.k + i64(token) * p.ldk + head * size;
    T* to;
    if (query) {
      to = p.y + i64(token) * p.ldy + head * size;
    } else {
      const i64 block = slot / p.tokensPerBlock, row = head * p.tokensPerBlock + slot % p.tokensPerBlock;
      const i64 perPart = i64(p.kvHeads) * p.tokensPerBlock;
      to = p.cache + block * perPart * (p.headDim + p.valueDim) + (value ? perPart * p.headDim : 0) + row * size;
    }
    if (value) {
      for (i32 i = lane; i < size; i += 32) to[i] = from[i];
      return;
    }
    float* const x = rows[warp];
    float sum = 0.f, squares = 0.f;
    for (i32 i = lane; i < size; i += 32) {
      const float a = toFloat(from[i]);
      x[i] = a, sum += a, squares = fmaf(a, a, squares);
    }
    if constexpr (Norm != HeadNorm::none) {
      float mean = 0.f;
      if constexpr (Norm == HeadNorm::layer) {
        mean = warpSum(sum) / size, squares = 0.f;
        for (i32 i = lane; i < size; i += 32) squares = fmaf(x[i] - mean, x[i] - mean, squares);
      }
      const float inverse = rsqrtf(warpSum(squares) / size + p.eps);
      const T* const weight = query ? p.qNorm : p.kNorm;
      for (i32 i = lane; i < size; i += 32)
        x[i] = (x[i] - mean) * inverse * (weight ? toFloat(weight[i]) + p.weightOffset : 1.f);
    }
    __syncwarp();
    if constexpr (Style == Rope::none) {
      for (i32 i = lane; i < size; i += 32) to[i] = fromFloat<T>(x[i]);
    } else {
      const i32 half = p.rotaryDim / 2;
#pragma unroll
      for (i32 j = 0; j < perLane; j++) {
        const i32 i = j * 32 + lane;
        if (i >= half) continue;
        const i32 a = Style == Rope::half ? i : 2 * i, b = Style == Rope::half ? i + half : 2 * i + 1;
        to[a] = fromFloat<T>(x[a] * cos[j] - x[b] * sin[j]);
        to[b] = fromFloat<T>(x[b] * cos[j] + x[a] * sin[j]);
      }
      for (i32 i = p.rotaryDim + lane; i < size; i += 32) to[i] = fromFloat<T>(x[i]);
    }
  }
};

// The same for whole heads rotated in 16-byte pieces: D / 16 lanes a head, each holding a piece of the head's first half and its partner in the second. Heads
// of a token share the block's angles.
template <class T, i32 D, HeadNorm Norm, Rope Style>
struct RopeCacheVectors {
  static constexpr i32 threads = 128, minBlocks = 8;
  static constexpr i32 lanes = D / 16, perRound = threads / lanes;
  static_assert(D % 64 == 0 && (lanes & (lanes - 1)) == 0 && Style != Rope::none);
  using Params = typename RopeCache<T, D, Norm, Style>::Params;

  TYPERT_DEVICE static void run(const Params& p) {
    const i32 token = blockIdx.x, lane = threadIdx.x % lanes;
    // Pairs of a piece and its partner: the same eight of both halves, or four neighbours in each.
    float sin[8], cos[8];
    const float position = float(p.positions[token]);
#pragma unroll
    for (i32 e = 0; e < 8; e++) {
      const i32 pair = Style == Rope::half ? lane * 8 + e : (e < 4 ? 0 : D / 4) + lane * 4 + (e & 3);
      sincosf(position * p.frequencies[pair], &sin[e], &cos[e]);
      sin[e] *= p.factor, cos[e] *= p.factor;
    }
    const i32 slot = p.slots[token];
    const i64 perPart = i64(p.kvHeads) * p.tokensPerBlock;
    T* const block = p.cache + slot / p.tokensPerBlock * perPart * (p.headDim + p.valueDim);
    const i32 inBlock = slot % p.tokensPerBlock;
    ptx::waitForPrevious();
    ptx::letNextBegin();
    for (i32 index = threadIdx.x / lanes; index < p.heads + 2 * p.kvHeads; index += perRound) {
      const bool query = index < p.heads, value = index >= p.heads + p.kvHeads;
      const i32 head = query ? index : value ? index - p.heads - p.kvHeads : index - p.heads;
      if (value) {
        const T* const from = p.v + i64(token) * p.ldv + head * p.valueDim;
        T* const to = block + perPart * p.headDim + (i64(head) * p.tokensPerBlock + inBlock) * p.valueDim;
        for (i32 c = lane * 8; c < p.valueDim; c += lanes * 8)
          *reinterpret_cast<uint4*>(to + c) = *reinterpret_cast<const uint4*>(from + c);
        continue;
      }
      const T* const from = (query ? p.q + i64(token) * p.ldq : p.k + i64(token) * p.ldk) + head * D + lane * 8;
      T* const to = (query ? p.y + i64(token) * p.ldy + head * D
                           : block + (i64(head) * p.tokensPerBlock + inBlock) * D) + lane * 8;
      Vector<T> a = Vector<T>::load(from), b = Vector<T>::load(from + D / 2);
      if constexpr (Norm != HeadNorm::none) {
        // The lanes of one head are neighbours and go the same way; those of others may not.
        const u32 mask = ((1u << lanes) - 1) << (laneId() / lanes * lanes);
        const auto headSum = [&](float sum) {
#pragma unroll
          for (i32 d = lanes / 2; d > 0; d >>= 1) sum += __shfl_xor_sync(mask, sum, d);
          return sum;
        };
        float mean = 0.f, squares = 0.f;
        if constexpr (Norm == HeadNorm::layer) {
          float sum = 0.f;
#pragma unroll
          for (i32 e = 0; e < 8; e++) sum += a.v[e] + b.v[e];
          mean = headSum(sum) / D;
        }
#pragma unroll
        for (i32 e = 0; e < 8; e++) {
          squares = fmaf(a.v[e] - mean, a.v[e] - mean, squares);
          squares = fmaf(b.v[e] - mean, b.v[e] - mean, squares);
        }
        const float inverse = rsqrtf(headSum(squares) / D + p.eps);
        const T* const weight = query ? p.qNorm : p.kNorm;
#pragma unroll
        for (i32 h = 0; h < 2; h++) {
          Vector<T>& x = h == 0 ? a : b;
          const uint4 raw = weight ? *reinterpret_cast<const uint4*>(weight + h * (D / 2) + lane * 8) : make_uint4(0, 0, 0, 0);
          const Vector<T> w = Vector<T>::unpack(raw);
#pragma unroll
          for (i32 e = 0; e < 8; e++) x.v[e] = (x.v[e] - mean) * inverse * (weight ? w.v[e] + p.weightOffset : 1.f);
        }
      }
#pragma unroll
      for (i32 e = 0; e < 8; e++) {
        float& first = Style == Rope::half ? a.v[e] : e < 4 ? a.v[2 * e] : b.v[2 * (e - 4)];
        float& second = Style == Rope::half ? b.v[e] : e < 4 ? a.v[2 * e + 1] : b.v[2 * (e - 4) + 1];
        const float xa = first, xb = second;
        first = xa * cos[e] - xb * sin[e];
        second = xb * cos[e] + xa * sin[e];
      }
      a.store(to);
      b.store(to + D / 2);
    }
  }
};

}  // namespace typert
