// Sampling on the device, one block a row of logits: greedy, or temperature → topK → topP → minP and one draw by the inverse of the distribution's sum
// in token order (sample/reference.ts says what is meant). Thresholds are found by radix selection over ordered bits; sums of weights that decide a
// threshold are in fixed point, so that they do not depend on the order of additions.
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

template <class T>
struct SampleRows {
  static constexpr i32 threads = 1024, minBlocks = 1, warps = threads / 32, bins = 2048;
  struct Params {
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
    i32 vocab, ld;
  };
  struct Shared {
    u64 warpKeys[warps];
    float warpSums[warps];
    u64 mass[bins];
    u32 count[bins];
    u64 scan[warps];
    u64 found[2];
    i32 winner;
  };

  template <class Visit>
  TYPERT_DEVICE static void each(const T* row, i32 vocab, const Visit& visit) {
    constexpr i32 size = Vector<T>::size;
    if ((reinterpret_cast<u64>(row) & 15) == 0) {
      const i32 whole = vocab / size * size;
      for (i32 i = threadIdx.x * size; i < whole; i += threads * size) {
        const Vector<T> v = Vector<T>::load(row + i);
#pragma unroll
        for (i32 e = 0; e < size; e++) visit(i + e, v.v[e]);
      }
      for (i32 i = whole + threadIdx.x; i < vocab; i += threads) visit(i, toFloat(row[i]));
    } else {
      for (i32 i = threadIdx.x; i < vocab; i += threads) visit(i, toFloat(row[i]));
    }
  }

  TYPERT_DEVICE static float blockSum(float value, float* shared) {
    value = warpSum(value);
    __syncthreads();
    if (laneId() == 0) shared[warpId()] = value;
    __syncthreads();
    float total = 0.f;
#pragma unroll
    for (i32 i = 0; i < warps; i++) total += shared[i];
    return total;
  }
  // Sums of the threads before this one; `total` of all.
  TYPERT_DEVICE static u64 blockScan(u64 value, u64* shared, u64& total) {
    u64 sum = value;
#pragma unroll
    for (i32 d = 1; d < 32; d <<= 1) {
      const u64 lower = __shfl_up_sync(fullMask, sum, d);
      if (laneId() >= d) sum += lower;
    }
    __syncthreads();
    if (laneId() == 31) shared[warpId()] = sum;
    __syncthreads();
    u64 before = 0;
    total = 0;
    for (i32 i = 0; i < warps; i++) {
      if (i < warpId()) before += shared[i];
      total += shared[i];
    }
    return before + sum - value;
  }

  // Weights in fixed point: the likeliest token is 2^40, so that a million of them cannot overflow.
  TYPERT_DEVICE static u64 fixed(float weight) { return u64(weight * 0x1p40f); }

  // The key such that the tokens above it amount to less than `target`, and those at or above it to at least that; `above` is what the tokens above amount
  // to. Amounts are counts (ByMass false) or weights. Keys below `floor` do not take part, and `atFloor` tokens of the floor itself do.
  template <bool ByMass, class Weigh>
  TYPERT_DEVICE static u32 select(const T* row, i32 vocab, Shared& s, u64 target, u32 floor, u32 atFloor, const Weigh& weigh,
                                  u64& above) {
    u32 prefix = 0;
    above = 0;
    constexpr i32 shifts[3] = {21, 10, 0};
#pragma unroll
    for (i32 round = 0; round < 3; round++) {
      const i32 shift = shifts[round];
      const i32 width = round == 2 ? 10 : 11;
      for (i32 i = threadIdx.x; i < bins; i += threads) s.mass[i] = 0;
      __syncthreads();
      const u32 high = round == 0 ? 0 : prefix >> (shift + width);
      each(row, vocab, [&](i32, float logit) {
        const u32 key = orderedBits(logit);
        if (key <= floor || (round > 0 && key >> (shift + width) != high)) return;
        const u64 amount = ByMass ? fixed(weigh(logit)) : 1;
        if (amount > 0) atomicAdd(&s.mass[key >> shift & (1u << width) - 1], amount);
      });
      if (threadIdx.x == 0 && floor > 0 && atFloor > 0 && (round == 0 || floor >> (shift + width) == high)) {
        const u64 amount = ByMass ? fixed(weigh(fromOrderedBits(floor))) : 1;
        atomicAdd(&s.mass[floor >> shift & (1u << width) - 1], amount * atFloor);
      }
      __syncthreads();
      // Two bins a thread, from the highest.
      const i32 top = bins - 1 - 2 * threadIdx.x;
      const u64 first = s.mass[top], second = s.mass[top - 1];
      u64 total;
      const u64 before = blockScan(first + second, s.scan, total) + above;
      if (threadIdx.x == 0) s.found[0] = 0, s.found[1] = above;
      __syncthreads();
      if (before < target && before + first + second >= target) {
        const bool one = before + first >= target;
        s.found[0] = one ? top : top - 1;
        s.found[1] = one ? before : before + first;
      }
      __syncthreads();
      prefix |= u32(s.found[0]) << shift;
      above = s.found[1];
      __syncthreads();
    }
    return prefix;
  }

  // The tokens of [begin, end) that are kept, with their weights, until `visit` says that it has enough.
  template <class Weigh, class Visit>
  TYPERT_DEVICE static void walk(const T* row, i32 begin, i32 end, u64 rank, u32 floor, u32 atFloor, float minP,
                                 const Weigh& weigh, const Visit& visit) {
    for (i32 i = begin; i < end; i++) {
      const float logit = toFloat(row[i]);
      const u32 key = orderedBits(logit);
      const float weight = weigh(logit);
      bool kept = key > floor && weight > 0.f;
      if (key == floor && floor > 0) kept = rank++ < atFloor;
      if (kept && weight >= minP && visit(i, fixed(weight))) return;
    }
  }

  TYPERT_DEVICE static void run(const Params& p) {
    __shared__ Shared s;
    const i32 r = blockIdx.x;
    ptx::waitForPrevious();
    ptx::letNextBegin();
    const T* const row = p.logits + i64(r) * p.ld;
    // The greatest logit, the lowest id of equals; then the sum of exponentials for log-probabilities.
    u64 best = 0;
    each(row, p.vocab, [&](i32 i, float logit) {
      const u64 key = u64(orderedBits(logit)) << 32 | u32(~i);
      best = key > best ? key : best;
    });
#pragma unroll
    for (i32 d = 16; d > 0; d >>= 1) {
      const u64 other = __shfl_xor_sync(fullMask, best, d);
      best = other > best ? other : best;
    }
    if (laneId() == 0) s.warpKeys[warpId()] = best;
    __syncthreads();
    for (i32 i = 0; i < warps; i++) best = s.warpKeys[i] > best ? s.warpKeys[i] : best;
    const u32 bestKey = u32(best >> 32);
    const i32 bestToken = ~u32(best);
    if (bestKey == 0) {
      if (threadIdx.x == 0) p.token[r] = 0, p.logprob[r] = __int_as_float(0x7fc00000);
      return;
    }
    const float max = fromOrderedBits(bestKey);
    float sum = 0.f;
    each(row, p.vocab, [&](i32, float logit) { sum += logit > -infinity() ? __expf(logit - max) : 0.f; });
    const float norm = max + logf(blockSum(sum, s.warpSums));
    const float temperature = p.temperature[r], topP = p.topP[r], minP = p.minP[r];
    const i32 topK = p.topK[r];
    if (temperature == 0.f || topK == 1 || topP == 0.f) {
      if (threadIdx.x == 0) p.token[r] = bestToken, p.logprob[r] = max - norm;
      return;
    }
    const auto weigh = [&](float logit) { return logit > -infinity() ? expf((logit - max) / temperature) : 0.f; };
    // Kept: keys above `floor`, and the first `atFloor` tokens with the key `floor` itself.
    u32 floor = 0, atFloor = 0;
    u64 above;
    if (topK > 0 && topK < p.vocab) {
      floor = select<false>(row, p.vocab, s, topK, 0, 0, weigh, above);
      atFloor = u32(topK - above);
    }
    if (topP < 1.f) {
      u64 mine = 0, total;
      each(row, p.vocab, [&](i32, float logit) {
        if (orderedBits(logit) > floor) mine += fixed(weigh(logit));
      });
      if (threadIdx.x == 0 && floor > 0) mine += fixed(weigh(fromOrderedBits(floor))) * atFloor;
      blockScan(mine, s.scan, total);
      const u64 target = maximum(u64(1), u64(double(total) * double(topP)));
      const u32 nucleus = select<true>(row, p.vocab, s, target, floor, atFloor, weigh, above);
      const u64 each = maximum(u64(1), fixed(weigh(fromOrderedBits(nucleus))));
      const u32 needed = u32(minimum((target - above + each - 1) / each, u64(0x7fffffff)));
      atFloor = nucleus == floor ? minimum(needed, atFloor) : needed;
      floor = nucleus;
    }
    // A contiguous piece a thread: ranks among equals and sums in token order.
    const i32 piece = ceilDiv(p.vocab, threads);
    const i32 begin = minimum(i32(threadIdx.x) * piece, p.vocab), end = minimum(begin + piece, p.vocab);
    u64 equals = 0, allEquals;
    if (atFloor > 0 && floor > 0)
      for (i32 i = begin; i < end; i++) equals += orderedBits(toFloat(row[i])) == floor;
    const u64 rank = blockScan(equals, s.scan, allEquals);
    u64 mine = 0, total;
    walk(row, begin, end, rank, floor, atFloor, minP, weigh, [&](i32, u64 weight) {
      mine += weight;
      return false;
    });
    const u64 before = blockScan(mine, s.scan, total);
    const float u = float(philoxFirst(p.counter[r], p.seedLow[r], p.seedHigh[r]) >> 8) * 0x1p-24f;
    const u64 target = u64(double(total) * double(u));
    if (threadIdx.x == 0) s.winner = bestToken;
    __syncthreads();
    if (mine > 0 && before <= target && before + mine > target) {
      u64 sumSoFar = before;
      walk(row, begin, end, rank, floor, atFloor, minP, weigh, [&](i32 i, u64 weight) {
        sumSoFar += weight;
        if (sumSoFar <= target) return false;
        s.winner = i;
        return true;
      });
    }
    __syncthreads();
    if (threadIdx.x == 0) p.token[r] = s.winner, p.logprob[r] = toFloat(row[s.winner]) - norm;
  }
};

}  // namespace typert
