// Attention without tensor cores, one warp a query head: float32, head dims the others refuse, and what they are checked against.
#pragma once
#include "attention/cuda-common.cuh"

namespace typert {

template <class T, i32 D, i32 DV, i32 Features>
struct PlainAttention {
  static constexpr i32 threads = 128, minBlocks = 4;
  static constexpr i32 perLane = (DV + 31) / 32;
  struct Params {
    AttentionIn<T> in;
    i32 tokens;
  };

  TYPERT_DEVICE static void run(const Params& p) {
    const AttentionIn<T>& in = p.in;
    __shared__ float queries[4][D];
    const i32 lane = laneId(), warp = uniformWarpId();
    const i32 token = blockIdx.x, head = blockIdx.y * 4 + warp;
    ptx::waitForPrevious();
    ptx::letNextBegin();
    if (head >= in.heads) return;
    i32 request = 0;
    while (request + 1 < in.requests && in.requestOffsets[request + 1] <= token) request++;
    const i32 position = in.positions[token], kvHead = head / in.group();
    const i32 last = minimum(position, in.contextLengths[request] - 1);
    const float slope = Features & withAlibi ? in.slopes[head] : 0.f;
    for (i32 d = lane; d < D; d += 32) queries[warp][d] = toFloat(in.q[i64(token) * in.ldq + head * D + d]);
    __syncwarp();
    float out[perLane] = {};
    RowState state;
    if constexpr (Features & withSinks) state.max = in.sinks[head] * log2e, state.sum = 1.f;
    // The first tokens, as far as the window does not have them; then the window.
    const i32 begin = in.firstKey(position), sinks = minimum(in.sinkTokens, begin), skipped = ceilDiv(sinks, 32) * 32;
    for (i32 at = 0; at < skipped + last + 1 - begin; at += 32) {
      const bool sink = at < skipped;
      const i32 first = sink ? at : begin + at - skipped, end = sink ? sinks - 1 : last;
      float score = -infinity();
      if (first + lane <= end) {
        const T* key = in.cache + in.template cacheRow<D, DV>(request, kvHead, first + lane).key;
        float raw = 0.f;
        for (i32 d = 0; d < D; d++) raw = fmaf(queries[warp][d], toFloat(key[d]), raw);
        score = logit<Features>(in, raw, first + lane, position, slope);
      }
      const float max = fmaxf(state.max, warpMax(score));
      const float shrink = exp2f(state.max - max), weight = exp2f(score - max);
      state.sum = state.sum * shrink + warpSum(weight);
      state.max = max;
#pragma unroll
      for (i32 i = 0; i < perLane; i++) out[i] *= shrink;
      for (i32 j = 0; j < minimum(32, end - first + 1); j++) {
        const float w = __shfl_sync(fullMask, weight, j);
        const T* value = in.cache + in.template cacheRow<D, DV>(request, kvHead, first + j).value;
#pragma unroll
        for (i32 i = 0; i < perLane; i++)
          if (i * 32 + lane < DV) out[i] = fmaf(w, toFloat(value[i * 32 + lane]), out[i]);
      }
    }
#pragma unroll
    for (i32 i = 0; i < perLane; i++)
      if (i * 32 + lane < DV) in.y[i64(token) * in.ldy + head * DV + i * 32 + lane] = fromFloat<T>(out[i] / state.sum);
  }
};

}  // namespace typert
