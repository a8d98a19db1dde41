// Sampling where filters leave many tokens: one block reads the whole row several times. Thresholds are found by radix selection over ordered bits; sums
// of weights that decide a threshold are in fixed point, so that they do not depend on the order of additions.
#pragma once
#include "sample/cuda-common.cuh"

namespace typert {

template <class T>
struct WholeRow {
  static constexpr i32 threads = 1024, warps = threads / 32, bins = 2048;
  struct Shared {
    u64 mass[bins];
    BlockScan<warps> scan;
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
        const u64 amount = ByMass ? fixedWeight(weigh(logit)) : 1;
        if (amount > 0) atomicAdd(&s.mass[key >> shift & (1u << width) - 1], amount);
      });
      if (threadIdx.x == 0 && floor > 0 && atFloor > 0 && (round == 0 || floor >> (shift + width) == high)) {
        const u64 amount = ByMass ? fixedWeight(weigh(fromOrderedBits(floor))) : 1;
        atomicAdd(&s.mass[floor >> shift & (1u << width) - 1], amount * atFloor);
      }
      __syncthreads();
      // Two bins a thread, from the highest.
      const i32 top = bins - 1 - 2 * threadIdx.x;
      const u64 first = s.mass[top], second = s.mass[top - 1];
      u64 total;
      const u64 before = s.scan.before(first + second, total) + above;
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
      if (kept && weight >= minP && visit(i, fixedWeight(weight))) return;
    }
  }

  // The token that is drawn; `max` is the greatest logit, of `bestToken`.
  TYPERT_DEVICE static i32 draw(const SampleParams<T>& p, Shared& s, i32 r, float max, i32 bestToken) {
    const T* const row = p.logits + i64(r) * p.ld;
    const float temperature = p.temperature[r], topP = p.topP[r], minP = p.minP[r];
    const i32 topK = p.topK[r];
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
        if (orderedBits(logit) > floor) mine += fixedWeight(weigh(logit));
      });
      if (threadIdx.x == 0 && floor > 0) mine += fixedWeight(weigh(fromOrderedBits(floor))) * atFloor;
      s.scan.before(mine, total);
      const u64 target = maximum(u64(1), u64(double(total) * double(topP)));
      const u32 nucleus = select<true>(row, p.vocab, s, target, floor, atFloor, weigh, above);
      const u64 each = maximum(u64(1), fixedWeight(weigh(fromOrderedBits(nucleus))));
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
    const u64 rank = s.scan.before(equals, allEquals);
    u64 mine = 0, total;
    walk(row, begin, end, rank, floor, atFloor, minP, weigh, [&](i32, u64 weight) {
      mine += weight;
      return false;
    });
    const u64 before = s.scan.before(mine, total);
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
    return s.winner;
  }
};

}  // namespace typert
