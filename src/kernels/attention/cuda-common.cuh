// What the attention kernels share: their inputs, the layer's paged cache, which keys a query sees, and how a raw score becomes a logit.
// Cache: [block][key, value][kv head][token in block][head dim]. A tile's rows are a request's tokens × the query heads of one kv head.
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
  template <i32 D>
  TYPERT_DEVICE i64 cacheRow(i32 request, i32 kvHead, i32 part, i32 key) const {
    const i32 block = blockTables[i64(request) * maxBlocks + (key >> blockShift)];
    return (((i64(block) * 2 + part) * kvHeads + kvHead << blockShift) + (key & tokensPerBlock() - 1)) * D;
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

// The softmax of a row so far.
struct RowState {
  float max = -infinity();
  float sum = 0.f;
};

}  // namespace typert
