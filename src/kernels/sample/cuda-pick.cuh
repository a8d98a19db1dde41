// Sampling's second kernel, one block a row: greedy rows take the best chunk's token, rows without filters find the chunk and then the token that the draw
// falls into, filtered rows gather the tokens that may stay (a floor under them follows from the groups' maxima) and decide among those.
// Temperature → topK → topP → minP and one draw in token order: sample/reference.ts says what is meant.
#pragma once
#include "sample/cuda-whole.cuh"

namespace typert {

template <class T>
struct SamplePick {
  static constexpr i32 threads = 1024, minBlocks = 1, warps = threads / 32;
  static constexpr i32 most = 8192, each = most / threads;  // candidates, and those of a thread
  static constexpr i32 groupsEach = 8;                      // group maxima that a thread holds
  using Params = SampleParams<T>;
  struct Shared {
    u32 keys[most];
    i32 tokens[most];
    u16 groups[most];
    BlockScan<warps> scan;
    u64 warpSums[2][warps];
    i32 winner;
  };
  static_assert(sizeof(Shared) <= 90 * 1024 && sizeof(typename WholeRow<T>::Shared) <= sizeof(Shared));

  // The sum over a warp, in every lane; Wide: of 53 bits, in halves.
  template <bool Wide>
  TYPERT_DEVICE static u64 warpTotal(u64 value) {
    const u64 low = ptx::warpAdd(u32(value) & 0xffffffu);
    if constexpr (!Wide) return low;
    return low + (u64(ptx::warpAdd(u32(value >> 24))) << 24);
  }
  // The sum over the block, by turns in two places so that one barrier is enough.
  template <bool Wide>
  TYPERT_DEVICE static u64 blockTotal(u64 value, Shared& s, i32 turn) {
    value = warpTotal<Wide>(value);
    if (laneId() == 0) s.warpSums[turn & 1][warpId()] = value;
    __syncthreads();
    return warpTotal<Wide>(s.warpSums[turn & 1][laneId()]);
  }

  // Bits at the end that a number of this type does not use.
  static constexpr i32 spareBits = Same<T, bf16>::value ? 16 : Same<T, f16>::value ? 13 : 0;

  // The greatest key such that what has it or a greater one amounts to at least `target`; 0 when all do not. `amount(i)` is that of the thread's key i,
  // of which there are `count`; Wide where amounts are weights.
  template <bool Wide, i32 Count, class Amount>
  TYPERT_DEVICE static u32 select(const u32 (&keys)[Count], i32 count, const Amount& amount, u64 target, Shared& s) {
    u32 prefix = 0;
    __syncthreads();
#pragma unroll 1
    for (i32 bit = 31; bit >= spareBits; bit--) {
      const u32 pivot = prefix | 1u << bit;
      u64 mine = 0;
#pragma unroll
      for (i32 i = 0; i < Count; i++) {
        if (i >= count) break;
        mine += keys[i] >= pivot ? u64(amount(i)) : 0;
      }
      if (blockTotal<Wide>(mine, s, bit) >= target) prefix = pivot;
    }
    // The unused bits of a negative number are ones.
    return prefix == 0 || prefix & 0x80000000u ? prefix : prefix | (1u << spareBits) - 1;
  }

  // The tokens whose keys reach `floor`, in token order; how many, or -1 when there is no room for them.
  TYPERT_DEVICE static i32 gather(const Params& p, Shared& s, i32 r, const u32 (&groups)[groupsEach], i32 perThread, u32 floor) {
    u64 total;
    u32 mine = 0;
#pragma unroll
    for (i32 i = 0; i < groupsEach; i++) mine += groups[i] >= floor;
    u64 at = s.scan.before(mine, total);
    const i32 count = i32(total);
    if (count > most) return -1;
#pragma unroll
    for (i32 i = 0; i < groupsEach; i++)
      if (groups[i] >= floor) s.groups[at++] = u16(i32(threadIdx.x) * perThread + i);
    __syncthreads();
    const T* const row = p.logits + i64(r) * p.ld;
    constexpr i32 lanes = groupSize / 8;
    i32 found = 0;
    for (i32 first = 0; first < count; first += threads / lanes) {
      const i32 index = first + i32(threadIdx.x) / lanes;
      const i32 token = index < count ? s.groups[index] * groupSize + i32(threadIdx.x) % lanes * 8 : p.vocab;
      u32 keys[8];
      u32 reaching = 0;
#pragma unroll
      for (i32 e = 0; e < 8; e++) {
        keys[e] = token + e < p.vocab ? orderedBits(toFloat(row[token + e])) : 0;
        reaching += keys[e] >= floor;
      }
      i32 to = found + i32(s.scan.before(reaching, total));
      found += i32(total);
      if (found > most) return -1;
#pragma unroll
      for (i32 e = 0; e < 8; e++)
        if (keys[e] >= floor) s.keys[to] = keys[e], s.tokens[to] = token + e, to++;
    }
    __syncthreads();
    return found;
  }

  // Of candidates with the key `key`, those beyond the first `count` are dropped.
  TYPERT_DEVICE static void keepFirst(const u32 (&keys)[each], u64 (&weights)[each], u32 key, u64 count, Shared& s) {
    u32 equals = 0;
#pragma unroll
    for (i32 i = 0; i < each; i++) equals += keys[i] == key && weights[i] > 0;
    u64 total;
    u64 rank = s.scan.before(equals, total);
#pragma unroll
    for (i32 i = 0; i < each; i++)
      if (keys[i] == key && weights[i] > 0 && rank++ >= count) weights[i] = 0;
  }

  // A draw among the candidates; -1 when they are not enough to fill the nucleus. `heatedSum` is the sum of weights of all tokens.
  TYPERT_DEVICE static i32 drawAmong(const Params& p, Shared& s, i32 r, i32 found, float max, i32 topK, float topP, float minP,
                                     float heatedSum, bool complete, float uniform) {
    const float temperature = p.temperature[r];
    const i32 perThread = ceilDiv(found, threads);
    u32 keys[each];
    u64 weights[each];
#pragma unroll
    for (i32 i = 0; i < each; i++) {
      const i32 at = i32(threadIdx.x) * perThread + i;
      keys[i] = i < perThread && at < found ? s.keys[at] : 0;
      const float weight = keys[i] == 0 ? 0.f : expf((fromOrderedBits(keys[i]) - max) / temperature);
      weights[i] = fixedWeight(weight);
    }
    u64 total;
    if (topK > 0) {
      const u32 key = select<false>(keys, perThread, [](i32) { return 1u; }, topK, s);
      u64 more = 0;
#pragma unroll
      for (i32 i = 0; i < each; i++) more += keys[i] > key;
      s.scan.before(more, total);
      // A weight too small for its fixed point is dropped before its turn: it could not be drawn.
#pragma unroll
      for (i32 i = 0; i < each; i++)
        if (keys[i] < key) weights[i] = 0;
      keepFirst(keys, weights, key, u64(topK) - total, s);
    }
    u64 mine = 0;
    if (topP < 1.f) {
#pragma unroll
      for (i32 i = 0; i < each; i++) mine += weights[i];
      s.scan.before(mine, total);
      const u64 all = topK > 0 ? total : u64(double(heatedSum) * 0x1p40);
      const u64 target = maximum(u64(1), u64(double(all) * double(topP)));
      if (total < target && !complete) return -1;
      if (total >= target) {
        const u32 key = select<true>(keys, perThread, [&](i32 i) { return weights[i]; }, target, s);
        u64 above = 0, least = 0;
#pragma unroll
        for (i32 i = 0; i < each; i++) {
          above += keys[i] > key ? weights[i] : 0;
          if (keys[i] < key) weights[i] = 0;
        }
        s.scan.before(above, total);
        least = maximum(u64(1), fixedWeight(expf((fromOrderedBits(key) - max) / temperature)));
        keepFirst(keys, weights, key, (target - total + least - 1) / least, s);
      }
    }
    mine = 0;
#pragma unroll
    for (i32 i = 0; i < each; i++) {
      if (weights[i] > 0 && expf((fromOrderedBits(keys[i]) - max) / temperature) < minP) weights[i] = 0;
      mine += weights[i];
    }
    u64 before = s.scan.before(mine, total);
    const u64 target = u64(double(total) * double(uniform));
    if (mine > 0 && before <= target && before + mine > target) {
#pragma unroll
      for (i32 i = 0; i < each; i++) {
        if (before <= target && before + weights[i] > target) s.winner = s.tokens[i32(threadIdx.x) * perThread + i];
        before += weights[i];
      }
    }
    __syncthreads();
    return s.winner;
  }

  // A draw among all tokens: the chunk that the draw falls into, then the token in it.
  TYPERT_DEVICE static i32 drawUnfiltered(const Params& p, Shared& s, i32 r, const ChunkSum* chunks, float max, float uniform) {
    const i32 count = p.chunkCount();
    const float heat = heatScale(p.temperature[r]);
    // Few chunks: every thread walks them alike.
    double total = 0.;
    const auto weigh = [&](const ChunkSum& chunk) {
      return chunk.sum > 0.f ? double(ptx::exp2Fast((chunk.max - max) * heat)) * double(chunk.heated) : 0.;
    };
    for (i32 i = 0; i < count; i++) total += weigh(chunks[i]);
    const double target = total * double(uniform);
    double before = 0., here = 0.;
    i32 chosen = -1;
    for (i32 i = 0; i < count; i++) {
      const double weight = weigh(chunks[i]);
      if (weight <= 0.) continue;
      if (chosen >= 0 && before + here > target) break;
      if (chosen >= 0) before += here;
      chosen = i, here = weight;
    }
    if (chosen < 0) return s.winner;
    const float top = chunks[chosen].max;
    const T* const row = p.logits + i64(r) * p.ld;
    const i32 first = chosen * chunkSize + i32(threadIdx.x) * 8;
    u64 weights[8], mine = 0;
#pragma unroll
    for (i32 e = 0; e < 8; e++) {
      const float logit = first + e < p.vocab ? fmaxf(toFloat(row[first + e]), -infinity()) : -infinity();
      weights[e] = fixedWeight(ptx::exp2Fast((logit - top) * heat));
      mine += weights[e];
    }
    u64 sum;
    u64 passed = s.scan.before(mine, sum);
    const double share = fmin(fmax((target - before) / here, 0.), 1.);
    const u64 wanted = minimum(u64(double(sum) * share), sum - 1);
    if (mine > 0 && passed <= wanted && passed + mine > wanted) {
#pragma unroll
      for (i32 e = 0; e < 8; e++) {
        if (passed <= wanted && passed + weights[e] > wanted) s.winner = first + e;
        passed += weights[e];
      }
    }
    __syncthreads();
    return s.winner;
  }

  TYPERT_DEVICE static i32 drawFiltered(const Params& p, Shared& s, i32 r, float max, i32 best, float heatedSum, float uniform) {
    const float temperature = p.temperature[r], topP = p.topP[r], minP = p.minP[r];
    const i32 topK = p.topK[r] < p.vocab ? maximum(p.topK[r], 0) : 0;
    const i32 groupCount = ceilDiv(p.vocab, groupSize), perThread = ceilDiv(groupCount, threads);
    if (perThread <= groupsEach) {
      u32 groups[groupsEach];
      const u32* const from = p.groups + i64(r) * p.chunkCount() * groupsPerChunk;
#pragma unroll
      for (i32 i = 0; i < groupsEach; i++) {
        const i32 at = i32(threadIdx.x) * perThread + i;
        groups[i] = i < perThread && at < groupCount ? from[at] : 0;
      }
      // No token under minP stays, a little slack for rounding; but topP counts what topK left, minP's share included.
      u32 leastKey = 1;
      if (minP > 0.f && !(topK > 0 && topP < 1.f)) leastKey = maximum(1u, orderedBits(max + temperature * (logf(minP) - 1e-3f) - fabsf(max) * 1e-5f));
      const bool small = p.vocab <= most;
      // Ranks of groups whose maximum may be the floor: at least so many tokens reach it.
      const i32 ranks[2] = {topK > 0 ? topK : minimum(groupCount, 1024), topK > 0 ? 0 : groupCount / 10 * 9};
      for (i32 attempt = 0; attempt < 2; attempt++) {
        const i32 rank = ranks[attempt];
        if (rank == 0 && !small) break;
        u32 floor = leastKey;
        // Only a nucleus or the likeliest k need a floor of their own, and what minP leaves may be less.
        const bool limited = !small && (topK > 0 || topP < 1.f);
        if (limited && rank <= groupCount) floor = maximum(floor, select<false>(groups, perThread, [](i32) { return 1u; }, rank, s));
        else if (limited) break;
        const i32 found = gather(p, s, r, groups, perThread, floor);
        if (found < 0) break;
        const i32 token = drawAmong(p, s, r, found, max, topK, topP, minP, heatedSum, floor == leastKey, uniform);
        if (token >= 0) return token;
        __syncthreads();
      }
    }
    __syncthreads();
    extern __shared__ __align__(16) u8 dynamicShared[];
    return WholeRow<T>::draw(p, *reinterpret_cast<typename WholeRow<T>::Shared*>(dynamicShared), r, max, best);
  }

  TYPERT_DEVICE static void run(const Params& p) {
    extern __shared__ __align__(16) u8 dynamicShared[];
    Shared& s = *reinterpret_cast<Shared*>(dynamicShared);
    const i32 r = blockIdx.x;
    const float temperature = p.temperature[r], topP = p.topP[r], minP = p.minP[r];
    const i32 topK = p.topK[r];
    const float uniform = float(philoxFirst(p.counter[r], p.seedLow[r], p.seedHigh[r]) >> 8) * 0x1p-24f;
    ptx::waitForPrevious();
    ptx::letNextBegin();
    const i32 count = p.chunkCount();
    const ChunkSum* const chunks = p.chunks + i64(r) * count;
    float mine = -infinity();
    i32 best = p.vocab;
    for (i32 i = laneId(); i < count; i += 32)
      if (chunks[i].max > mine) mine = chunks[i].max, best = chunks[i].token;
    const float max = warpMax(mine);
    best = mine == max ? best : p.vocab;
#pragma unroll
    for (i32 d = 16; d > 0; d >>= 1) best = minimum(best, __shfl_xor_sync(fullMask, best, d));
    if (max == -infinity()) {
      if (threadIdx.x == 0) p.token[r] = 0, p.logprob[r] = __int_as_float(0x7fc00000);
      return;
    }
    const float heat = heatScale(temperature);
    float sum = 0.f, heatedSum = 0.f;
    for (i32 i = laneId(); i < count; i += 32) {
      const ChunkSum chunk = chunks[i];
      sum += chunk.sum * ptx::exp2Fast((chunk.max - max) * log2e);
      heatedSum += chunk.heated * ptx::exp2Fast((chunk.max - max) * heat);
    }
    sum = warpSum(sum), heatedSum = warpSum(heatedSum);
    const float norm = max + logf(sum);
    if (temperature == 0.f || topK == 1 || topP == 0.f) {
      if (threadIdx.x == 0) p.token[r] = best, p.logprob[r] = max - norm;
      return;
    }
    if (threadIdx.x == 0) s.winner = best;
    __syncthreads();
    const bool filtered = (topK > 0 && topK < p.vocab) || topP < 1.f || minP > 0.f;
    const i32 token = filtered ? drawFiltered(p, s, r, max, best, heatedSum, uniform)
                               : drawUnfiltered(p, s, r, chunks, max, uniform);
    if (threadIdx.x == 0) p.token[r] = token, p.logprob[r] = toFloat(p.logits[i64(r) * p.ld + token]) - norm;
  }
};

}  // namespace typert
