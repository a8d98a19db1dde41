// y[i] = table[ids[i]]: embedding and the choice of rows that want logits. Also whole blocks of the KV cache, copied before a step.
#pragma once
#include "include/cuda/number.cuh"

namespace typert {

template <class T, class From>
struct GatherRows {
  static constexpr i32 threads = 128, minBlocks = 4;
  struct Params {
    const i32* ids;
    const i32* sampled;  // what ids below zero name, or null
    const From* table;
    T* y;
    i32 columns, ldt, ldy, tableRows;
  };
  TYPERT_DEVICE static void run(const Params& p) {
    ptx::waitForPrevious();
    ptx::letNextBegin();
    i32 id = p.ids[blockIdx.x];
    if (id < 0 && p.sampled != nullptr) id = p.sampled[-1 - id];
    id = maximum(0, minimum(id, p.tableRows - 1));
    const From* const from = p.table + i64(id) * p.ldt;
    T* const to = p.y + i64(blockIdx.x) * p.ldy;
    constexpr i32 size = Vector<T>::size;
    if constexpr (Same<T, From>::value) {
      if (p.columns % size == 0 && p.ldt % size == 0 && p.ldy % size == 0) {
        for (i32 c = (blockIdx.y * threads + threadIdx.x) * size; c < p.columns; c += gridDim.y * threads * size)
          *reinterpret_cast<uint4*>(to + c) = *reinterpret_cast<const uint4*>(from + c);
        return;
      }
    }
    for (i32 c = blockIdx.y * threads + threadIdx.x; c < p.columns; c += gridDim.y * threads)
      to[c] = fromFloat<T>(toFloat(from[c]));
  }
};

// Block `from[i]` of a layer's cache to block `to[i]`; blocks are `vectors` pieces of 16 bytes.
struct CopyBlocks {
  static constexpr i32 threads = 256, minBlocks = 2;
  struct Params {
    const i32* from;
    const i32* to;
    uint4* cache;
    i32 vectors;
  };
  TYPERT_DEVICE static void run(const Params& p) {
    const uint4* const source = p.cache + i64(p.from[blockIdx.x]) * p.vectors;
    uint4* const target = p.cache + i64(p.to[blockIdx.x]) * p.vectors;
    for (i32 i = blockIdx.y * threads + threadIdx.x; i < p.vectors; i += gridDim.y * threads) target[i] = source[i];
  }
};

}  // namespace typert
