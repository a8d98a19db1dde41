// The lowest layer of the CUDA kernels: number types, vectors, and the frame of a kernel. Needs no CUDA header, so that NVRTC alone suffices.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;
typedef int i32;

#define TYPERT_DEVICE __device__ __forceinline__

// One instantiation: the kernel's only argument is its Params struct, which holds tensor maps by value where there are any.
#define TYPERT_KERNEL(name, ...)                                                                              \
  namespace typert {                                                                                          \
  using name##_type = __VA_ARGS__;                                                                            \
  }                                                                                                           \
  extern "C" __global__ void __launch_bounds__(typert::name##_type::threads, typert::name##_type::minBlocks)  \
      name(const __grid_constant__ typert::name##_type::Params params) {                                      \
    typert::name##_type::run(params);                                                                         \
  }

namespace typert {

struct bf16 {
  u16 bits;
};
struct f16 {
  u16 bits;
};

template <class A, class B>
struct Same {
  static constexpr bool value = false;
};
template <class A>
struct Same<A, A> {
  static constexpr bool value = true;
};

// 128 opaque bytes that the driver encodes; the hardware reads them from the parameter space.
struct alignas(64) TensorMap {
  u8 bytes[128];
};

constexpr u32 fullMask = 0xffffffffu;
constexpr float log2e = 1.4426950408889634f;

template <class A>
constexpr TYPERT_DEVICE A minimum(A a, A b) {
  return a < b ? a : b;
}
template <class A>
constexpr TYPERT_DEVICE A maximum(A a, A b) {
  return a > b ? a : b;
}
constexpr TYPERT_DEVICE i32 ceilDiv(i32 a, i32 b) { return (a + b - 1) / b; }

TYPERT_DEVICE i32 laneId() { return threadIdx.x & 31; }
TYPERT_DEVICE i32 warpId() { return threadIdx.x >> 5; }
// The same, as a value that the compiler knows to be one for all lanes. To be called where no lane of the warp is missing.
TYPERT_DEVICE i32 uniformWarpId() { return __shfl_sync(fullMask, threadIdx.x >> 5, 0); }

TYPERT_DEVICE float infinity() { return __int_as_float(0x7f800000); }
TYPERT_DEVICE float warpSum(float value) {
#pragma unroll
  for (i32 mask = 16; mask > 0; mask >>= 1) value += __shfl_xor_sync(fullMask, value, mask);
  return value;
}
TYPERT_DEVICE float warpMax(float value) {
#pragma unroll
  for (i32 mask = 16; mask > 0; mask >>= 1) value = fmaxf(value, __shfl_xor_sync(fullMask, value, mask));
  return value;
}
// Over the four lanes that hold one row of a matrix fragment.
TYPERT_DEVICE float quadSum(float value) {
  value += __shfl_xor_sync(fullMask, value, 1);
  return value + __shfl_xor_sync(fullMask, value, 2);
}
TYPERT_DEVICE float quadMax(float value) {
  value = fmaxf(value, __shfl_xor_sync(fullMask, value, 1));
  return fmaxf(value, __shfl_xor_sync(fullMask, value, 2));
}

}  // namespace typert
