// Mixture of experts: the choice of each token's experts, and their products in plain form (a warp a column), for any number of tokens.
#pragma once
#include "include/cuda/number.cuh"

namespace typert {

enum class Scoring { softmax, sigmoid };

// One warp a token: scores of all experts, then the best k one after the other.
template <class T, Scoring S>
struct MoeRoute {
  static constexpr i32 threads = 128, minBlocks = 4, maxExperts = 512;
  struct Params {
    const T* logits;
    const T* bias;  // takes part in the choice only
    float* weights;
    i32* experts;
    i32 tokens, count, ld, topK, normalize;
    float scale;
  };
  TYPERT_DEVICE static void run(const Params& p) {
    __shared__ float scores[threads / 32][maxExperts], ranks[threads / 32][maxExperts];
    const i32 lane = laneId(), warp = warpId(), token = blockIdx.x * (threads / 32) + warp;
    ptx::waitForPrevious();
    ptx::letNextBegin();
    if (token >= p.tokens) return;
    const T* const row = p.logits + i64(token) * p.ld;
    float max = -infinity(), total = 0.f;
    for (i32 e = lane; e < p.count; e += 32) max = fmaxf(max, toFloat(row[e]));
    max = warpMax(max);
    for (i32 e = lane; e < p.count; e += 32) {
      const float x = toFloat(row[e]);
      const float score = S == Scoring::softmax ? expf(x - max) : 1.f / (1.f + expf(-x));
      scores[warp][e] = score;
      total += score;
    }
    total = S == Scoring::softmax ? warpSum(total) : 1.f;
    for (i32 e = lane; e < p.count; e += 32) {
      scores[warp][e] /= total;
      ranks[warp][e] = scores[warp][e] + (p.bias ? toFloat(p.bias[e]) : 0.f);
    }
    __syncwarp();
    float sum = 0.f;
    for (i32 k = 0; k < p.topK; k++) {
      float best = -infinity();
      i32 expert = 0x7fffffff;
      for (i32 e = lane; e < p.count; e += 32)
        if (ranks[warp][e] > best) best = ranks[warp][e], expert = e;
#pragma unroll
      for (i32 mask = 16; mask > 0; mask >>= 1) {
        const float other = __shfl_xor_sync(fullMask, best, mask);
        const i32 id = __shfl_xor_sync(fullMask, expert, mask);
        if (other > best || (other == best && id < expert)) best = other, expert = id;
      }
      const float score = scores[warp][expert];
      sum += score;
      if (lane == 0) {
        p.experts[i64(token) * p.topK + k] = expert, p.weights[i64(token) * p.topK + k] = score * p.scale;
        ranks[warp][expert] = -infinity();
      }
      __syncwarp();
    }
    if (p.normalize)
      for (i32 k = lane; k < p.topK; k += 32) p.weights[i64(token) * p.topK + k] /= sum;
  }
};

// inner[t, k, i] = act(gate_e(x[t])) · up_e(x[t]) for e = experts[t, k].
template <class T, Act A>
struct MoeInner {
  static constexpr i32 threads = 256, minBlocks = 2;
  struct Params {
    const T* x;
    const T* gateUp;  // [E, 2I, H]
    const i32* experts;
    T* inner;  // [tokens · topK, I]
    i32 hidden, size, ldx, topK;
  };
  TYPERT_DEVICE static void run(const Params& p) {
    ptx::waitForPrevious();
    ptx::letNextBegin();
    const i32 slot = blockIdx.x, column = blockIdx.y * (threads / 32) + warpId();
    if (column >= p.size) return;
    const T* const x = p.x + i64(slot / p.topK) * p.ldx;
    const T* const gate = p.gateUp + (i64(p.experts[slot]) * 2 * p.size + column) * p.hidden;
    const T* const up = gate + i64(p.size) * p.hidden;
    float a = 0.f, b = 0.f;
    for (i32 k = laneId(); k < p.hidden; k += 32) {
      const float v = toFloat(x[k]);
      a = fmaf(v, toFloat(gate[k]), a), b = fmaf(v, toFloat(up[k]), b);
    }
    a = warpSum(a), b = warpSum(b);
    if (laneId() == 0) p.inner[i64(slot) * p.size + column] = fromFloat<T>(activate<A>(a) * b);
  }
};

// y[t] = Σₖ weights[t, k] · down_e(inner[t, k]).
template <class T>
struct MoeDown {
  static constexpr i32 threads = 256, minBlocks = 2;
  struct Params {
    const T* inner;
    const T* down;  // [E, H, I]
    const i32* experts;
    const float* weights;
    T* y;
    i32 hidden, size, ldy, topK;
  };
  TYPERT_DEVICE static void run(const Params& p) {
    ptx::waitForPrevious();
    ptx::letNextBegin();
    const i32 token = blockIdx.x, column = blockIdx.y * (threads / 32) + warpId();
    if (column >= p.hidden) return;
    float total = 0.f;
    for (i32 k = 0; k < p.topK; k++) {
      const i64 slot = i64(token) * p.topK + k;
      const T* const inner = p.inner + slot * p.size;
      const T* const down = p.down + (i64(p.experts[slot]) * p.hidden + column) * p.size;
      float sum = 0.f;
      for (i32 i = laneId(); i < p.size; i += 32) sum = fmaf(toFloat(inner[i]), toFloat(down[i]), sum);
      total = fmaf(p.weights[slot], sum, total);
    }
    total = warpSum(total);
    if (laneId() == 0) p.y[i64(token) * p.ldy + column] = fromFloat<T>(total);
  }
};

}  // namespace typert
