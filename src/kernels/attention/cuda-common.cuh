// What the attention kernels share: their inputs, the layer's paged cache, which keys a query sees, and how a raw score becomes a logit.
// Cache: [block][keys, then values][kv head][token in block][head dim]. A tile's rows are a request's tokens × the query heads of one kv head.
#pragma once
#include "include/cuda/number.cuh"

namespace typert {

// Template flags.
constexpr i32 withSoftcap = 1, withAlibi = 2, withSinks = 4;

template <class T>
struct AttentionIn {
  const T* q;
  T* y;
  const T* cache;
  const i32* positions;       // [T]
  const i32* requestOffsets;  // [R + 1]
  const i32* contextLengths;  // [R]
  const i32* blockTables;     // [R, maxBlocks]
  const float* sinks;         // [heads]
  const float* slopes;        // [heads]
  i32 requests, ldq, ldy, heads, kvHeads;
  i32 blockShift;  // log2 of tokens per block
  i32 maxBlocks;
  i32 window, chunk, sinkTokens;  // 0 = none
  float scale, softcap;

  TYPERT_DEVICE i32 tokensPerBlock() const { return 1 << blockShift; }
  TYPERT_DEVICE i32 group() const { return heads / kvHeads; }
  // The first key that the query at `position` sees; the last is `position` itself.
  TYPERT_DEVICE i32 firstKey(i32 position) const {
    i32 first = window > 0 ? maximum(0, position - window + 1) : 0;
    if (chunk > 0) first = maximum(first, position / chunk * chunk);
    return first;
  }
  // Where a key of D columns, and the value of DV columns that belongs to it, begin in the cache.
  struct Row {
    i64 key, value;
  };
  template <i32 D, i32 DV>
  TYPERT_DEVICE Row cacheRow(i32 request, i32 kvHead, i32 key) const {
    const i32 block = blockTables[i64(request) * maxBlocks + (key >> blockShift)];
    return slotRow<D, DV>(block, kvHead, key & tokensPerBlock() - 1);
  }
  template <i32 D, i32 DV>
  TYPERT_DEVICE Row slotRow(i32 block, i32 kvHead, i32 inBlock) const {
    const i64 base = i64(block) * kvHeads * (D + DV) << blockShift;
    const i64 row = (i64(kvHead) << blockShift) + inBlock;
    return {base + row * D, base + (i64(kvHeads) * D << blockShift) + row * DV};
  }
};

// A score in units of log2: exp2 of it is the weight.
template <i32 Features, class T>
TYPERT_DEVICE float logit(const AttentionIn<T>& in, float raw, i32 key, i32 position, float slope) {
  if constexpr ((Features & (withSoftcap | withAlibi)) == 0) return raw * (in.scale * log2e);
  float score = raw * in.scale;
  if constexpr (Features & withSoftcap) score = in.softcap * tanhf(score / in.softcap);
  if constexpr (Features & withAlibi) score += slope * float(key - position);
  return score * log2e;
}

// Which tile of which request a block computes, where requests are cut into tiles of `perTile` rows (tokens × group); requests of at most `skip` rows
// have none. Tiles are counted by a warp; `request` is -1 past the last tile.
struct TileOf {
  i32 request, tile;
  template <class T>
  TYPERT_DEVICE TileOf(const AttentionIn<T>& in, i32 index, i32 perTile, i32 skip) : request(-1), tile(0) {
    i32 before = 0;
    for (i32 first = 0; first < in.requests; first += 32) {
      const i32 r = first + laneId();
      i32 rows = r < in.requests ? (in.requestOffsets[r + 1] - in.requestOffsets[r]) * in.group() : 0;
      i32 tiles = rows > skip ? ceilDiv(rows, perTile) : 0;
#pragma unroll
      for (i32 d = 1; d < 32; d <<= 1) {
        const i32 lower = __shfl_up_sync(fullMask, tiles, d);
        if (laneId() >= d) tiles += lower;
      }
      const u32 passed = __ballot_sync(fullMask, before + tiles > index);
      if (passed != 0) {
        const i32 lane = __ffs(passed) - 1;
        const i32 lower = lane == 0 ? 0 : __shfl_sync(fullMask, tiles, lane - 1);
        request = first + lane;
        tile = index - before - lower;
        return;
      }
      before += __shfl_sync(fullMask, tiles, 31);
    }
  }
};

// A tile of BN keys and values from `key0`, copied asynchronously to `to`: keys D * 2 + 16 bytes apart (an odd number of 16-byte pieces, so that ldmatrix
// meets no bank twice), then values alike. Rows from `end` on become zeros.
template <i32 BN, i32 D, i32 DV>
constexpr i32 tileBytes = BN * (2 * D + 2 * DV + 32);
template <class T, i32 BN, i32 D, i32 DV, i32 Threads>
TYPERT_DEVICE void copyTile(const AttentionIn<T>& in, i32 request, i32 kvHead, i32 key0, i32 length, i32 end, u32 to) {
  constexpr i32 chunks = maximum(D, DV) / 8, pitch = D * 2 + 16, valuePitch = DV * 2 + 16;
#pragma unroll
  for (i32 i = 0; i < ceilDiv(BN * chunks, Threads); i++) {
    const i32 id = i * Threads + threadIdx.x;
    if (BN * chunks % Threads != 0 && id >= BN * chunks) break;
    const i32 row = id / chunks, c = id % chunks;
    const bool valid = key0 + row < end;
    const auto at = in.template cacheRow<D, DV>(request, kvHead, minimum(key0 + row, length - 1));
    if (D >= DV || c < D / 8) ptx::copyAsync16(to + row * pitch + c * 16, in.cache + at.key + c * 8, valid);
    if (DV >= D || c < DV / 8)
      ptx::copyAsync16(to + BN * pitch + row * valuePitch + c * 16, in.cache + at.value + c * 8, valid);
  }
}

// The softmax of a row so far.
struct RowState {
  float max = -infinity();
  float sum = 0.f;
};

}  // namespace typert
