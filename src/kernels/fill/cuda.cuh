// Random weights made on the device (loadFormat 'dummy'), and what checks and benches need: a comparison of two tensors, and the device's read rate.
#pragma once
#include "include/cuda/number.cuh"

namespace typert {

// Uniform values in [low, high), a hash of seed and index: the same in any launch shape.
template <class T>
struct FillRandom {
  static constexpr i32 threads = 256, minBlocks = 1;
  struct Params {
    T* y;
    i64 count;
    u32 seed;
    float low, high;
  };
  TYPERT_DEVICE static void run(const Params& p) {
    for (i64 i = i64(blockIdx.x) * threads + threadIdx.x; i < p.count; i += i64(gridDim.x) * threads) {
      u32 h = u32(i) * 0x9E3779B1u ^ u32(i >> 32) * 0x85EBCA77u ^ p.seed * 0xC2B2AE3Du;
      h ^= h >> 16, h *= 0x7feb352du, h ^= h >> 15, h *= 0x846ca68bu, h ^= h >> 16;
      p.y[i] = fromFloat<T>(p.low + (p.high - p.low) * (float(h >> 8) * 0x1p-24f));
    }
  }
};

// Adds Σ(a − b)², Σb², the largest |a − b| (as ordered bits) and the number of elements that are not finite in `a` to result[0..3].
template <class T>
struct CompareTensors {
  static constexpr i32 threads = 256, minBlocks = 1;
  struct Params {
    const T* a;
    const T* b;
    float* result;
    i32 rows, columns, lda, ldb;
  };
  TYPERT_DEVICE static void run(const Params& p) {
    float difference = 0.f, square = 0.f, worst = 0.f, broken = 0.f;
    for (i64 i = i64(blockIdx.x) * threads + threadIdx.x; i < i64(p.rows) * p.columns; i += i64(gridDim.x) * threads) {
      const i64 r = i / p.columns, c = i % p.columns;
      const float a = toFloat(p.a[r * p.lda + c]), b = toFloat(p.b[r * p.ldb + c]);
      if (!(fabsf(a) < infinity())) {
        broken += 1.f;
        continue;
      }
      difference += (a - b) * (a - b), square += b * b, worst = fmaxf(worst, fabsf(a - b));
    }
    difference = warpSum(difference), square = warpSum(square), broken = warpSum(broken), worst = warpMax(worst);
    if (laneId() == 0) {
      atomicAdd(p.result, difference), atomicAdd(p.result + 1, square), atomicAdd(p.result + 3, broken);
      atomicMax(reinterpret_cast<i32*>(p.result + 2), __float_as_int(worst));
    }
  }
};

// Reads everything once: the ceiling of memory-bound kernels.
struct ReadAll {
  static constexpr i32 threads = 512, minBlocks = 4;
  struct Params {
    const uint4* x;
    u32* y;
    i64 count;  // vectors of 16 bytes
  };
  TYPERT_DEVICE static void run(const Params& p) {
    constexpr i32 unroll = 8;
    u32 sum = 0;
    const i64 stride = i64(gridDim.x) * threads * unroll;
    for (i64 i = i64(blockIdx.x) * threads * unroll + threadIdx.x; i < p.count; i += stride) {
      uint4 v[unroll];
#pragma unroll
      for (i32 u = 0; u < unroll; u++)
        v[u] = i + u * threads < p.count ? ptx::loadStreaming(p.x + i + u * threads) : make_uint4(0, 0, 0, 0);
#pragma unroll
      for (i32 u = 0; u < unroll; u++) sum ^= v[u].x ^ v[u].y ^ v[u].z ^ v[u].w;
    }
    if (sum == 0x12345678u) *p.y = sum;
  }
};

}  // namespace typert
