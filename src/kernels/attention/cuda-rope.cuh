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

}  // namespace typert
