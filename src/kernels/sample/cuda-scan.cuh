// Sampling's first kernel: reads every logit once. A block takes a chunk of a row's tokens and leaves its maximum, its sums of exponentials and the maxima
// of small groups, by which the second kernel knows where to look.
#pragma once
#include "sample/cuda-common.cuh"

namespace typert {

template <class T>
struct SampleScan {
  static constexpr i32 threads = 256, minBlocks = 3, warps = threads / 32;
  static constexpr i32 size = Vector<T>::size, vectors = chunkSize / threads / size;
  using Params = SampleParams<T>;

  TYPERT_DEVICE static void run(const Params& p) {
    const i32 chunk = blockIdx.x, row = blockIdx.y, first = chunk * chunkSize;
    const float temperature = p.temperature[row];
    const bool heats = temperature != 0.f && temperature != 1.f;
    ptx::waitForPrevious();
    ptx::letNextBegin();
    const T* const from = p.logits + i64(row) * p.ld + first;
    const i32 count = minimum(chunkSize, p.vocab - first);
    const bool aligned = (reinterpret_cast<u64>(from) & 15) == 0;
    // Banned tokens are -infinity, and so is what is not a number.
    uint4 raw[vectors];
    if (aligned && count == chunkSize) {
#pragma unroll
      for (i32 v = 0; v < vectors; v++)
        raw[v] = *reinterpret_cast<const uint4*>(from + (v * threads + threadIdx.x) * size);
    } else {
#pragma unroll
      for (i32 v = 0; v < vectors; v++) {
        const i32 at = (v * threads + threadIdx.x) * size;
        Vector<T> loaded;
#pragma unroll
        for (i32 e = 0; e < size; e++) loaded.v[e] = at + e < count ? toFloat(from[at + e]) : -infinity();
        raw[v] = loaded.pack();
      }
    }
    const auto values = [&](i32 v) {
      Vector<T> x = Vector<T>::unpack(raw[v]);
#pragma unroll
      for (i32 e = 0; e < size; e++) x.v[e] = fmaxf(x.v[e], -infinity());
      return x;
    };
    float mine = -infinity();
    u32* const groups = p.groups + (i64(row) * gridDim.x + chunk) * groupsPerChunk;
    constexpr i32 lanes = groupSize / size;
#pragma unroll
    for (i32 v = 0; v < vectors; v++) {
      const Vector<T> x = values(v);
      float max = x.v[0];
#pragma unroll
      for (i32 e = 1; e < size; e++) max = fmaxf(max, x.v[e]);
      mine = fmaxf(mine, max);
#pragma unroll
      for (i32 d = 1; d < lanes; d <<= 1) max = fmaxf(max, __shfl_xor_sync(fullMask, max, d));
      if (threadIdx.x % lanes == 0) groups[(v * threads + threadIdx.x) / lanes] = orderedBits(max);
    }
    __shared__ float maxima[warps];
    __shared__ float2 sums[warps];
    __shared__ i32 token;
    const float warpTop = warpMax(mine);
    if (laneId() == 0) maxima[warpId()] = warpTop;
    if (threadIdx.x == 0) token = p.vocab;
    __syncthreads();
    float max = maxima[0];
#pragma unroll
    for (i32 i = 1; i < warps; i++) max = fmaxf(max, maxima[i]);
    const float safe = max == -infinity() ? 0.f : max;
    const float heat = heatScale(temperature);
    float sum = 0.f, heated = 0.f;
#pragma unroll
    for (i32 v = 0; v < vectors; v++) {
      const Vector<T> x = values(v);
#pragma unroll
      for (i32 e = 0; e < size; e++) sum += ptx::exp2Fast((x.v[e] - safe) * log2e);
    }
    if (heats) {
#pragma unroll
      for (i32 v = 0; v < vectors; v++) {
        const Vector<T> x = values(v);
#pragma unroll
        for (i32 e = 0; e < size; e++) heated += ptx::exp2Fast((x.v[e] - safe) * heat);
      }
    }
    if (mine == max && max > -infinity()) {
      i32 lowest = p.vocab;
#pragma unroll
      for (i32 v = 0; v < vectors; v++) {
        const Vector<T> x = values(v);
#pragma unroll
        for (i32 e = 0; e < size; e++)
          if (x.v[e] == max) lowest = minimum(lowest, first + (v * threads + i32(threadIdx.x)) * size + e);
      }
      atomicMin(&token, lowest);
    }
    sum = warpSum(sum), heated = warpSum(heated);
    if (laneId() == 0) sums[warpId()] = make_float2(sum, heated);
    __syncthreads();
    if (threadIdx.x != 0) return;
    sum = heated = 0.f;
#pragma unroll
    for (i32 i = 0; i < warps; i++) sum += sums[i].x, heated += sums[i].y;
    p.chunks[i64(row) * gridDim.x + chunk] = ChunkSum{max, sum, heats ? heated : sum, token};
  }
};

}  // namespace typert
