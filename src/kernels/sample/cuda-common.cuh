// What the sampling kernels share: the generator, floats in the order of integers, sums over a block, and what the first kernel leaves for the second.
#pragma once
#include "include/cuda/number.cuh"

namespace typert {

// Philox4x32-10 (Salmon et al. 2011): the first word of counter (c, 0, 0, 0).
TYPERT_DEVICE u32 philoxFirst(u32 counter, u32 k0, u32 k1) {
  u32 c0 = counter, c1 = 0, c2 = 0, c3 = 0;
#pragma unroll
  for (i32 round = 0; round < 10; round++) {
    const u32 high0 = __umulhi(0xd2511f53u, c0), low0 = 0xd2511f53u * c0;
    const u32 high1 = __umulhi(0xcd9e8d57u, c2), low1 = 0xcd9e8d57u * c2;
    c0 = high1 ^ c1 ^ k0, c1 = low1, c2 = high0 ^ c3 ^ k1, c3 = low0;
    k0 += 0x9e3779b9u, k1 += 0xbb67ae85u;
  }
  return c0;
}

// Unsigned integers in the order of floats; NaN comes last, as -infinity does.
TYPERT_DEVICE u32 orderedBits(float value) {
  if (!(value > -infinity())) return 0;
  const u32 bits = __float_as_uint(value);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
TYPERT_DEVICE float fromOrderedBits(u32 key) {
  return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

// Weights in fixed point: the likeliest token is 2^40, so that a million of them cannot overflow; sums do not depend on their order.
TYPERT_DEVICE u64 fixedWeight(float weight) { return u64(weight * 0x1p40f); }

// A row is scanned in chunks of chunkSize tokens, and the greatest logit kept of every groupSize.
constexpr i32 chunkSize = 8192, groupSize = 64, groupsPerChunk = chunkSize / groupSize;

// Of a chunk: its greatest logit, the lowest token that has it, and the sums of exp(logit - max) and exp((logit - max) / temperature).
struct alignas(16) ChunkSum {
  float max, sum, heated;
  i32 token;
};

template <class T>
struct SampleParams {
  const T* logits;
  const float* temperature;
  const i32* topK;
  const float* topP;
  const float* minP;
  const u32* seedLow;
  const u32* seedHigh;
  const u32* counter;
  i32* token;
  float* logprob;
  ChunkSum* chunks;  // [rows, chunks]
  u32* groups;       // [rows, chunks, groupsPerChunk]: ordered bits
  i32 vocab, ld;

  TYPERT_DEVICE i32 chunkCount() const { return ceilDiv(vocab, chunkSize); }
};

// Factor on a difference of logits that makes it an exponent of two; a temperature next to zero must not make it infinite.
TYPERT_DEVICE float heatScale(float temperature) { return fminf(log2e / temperature, 1e30f); }

template <i32 Warps>
struct BlockScan {
  u64 sums[Warps];
  // Sums of the threads before this one; `total` of all.
  TYPERT_DEVICE u64 before(u64 value, u64& total) {
    u64 sum = value;
#pragma unroll
    for (i32 d = 1; d < 32; d <<= 1) {
      const u64 lower = __shfl_up_sync(fullMask, sum, d);
      if (laneId() >= d) sum += lower;
    }
    __syncthreads();
    if (laneId() == 31) sums[warpId()] = sum;
    __syncthreads();
    u64 earlier = 0;
    total = 0;
#pragma unroll 8
    for (i32 i = 0; i < Warps; i++) {
      const u64 other = sums[i];
      if (i < warpId()) earlier += other;
      total += other;
    }
    return earlier + sum - value;
  }
};

}  // namespace typert
