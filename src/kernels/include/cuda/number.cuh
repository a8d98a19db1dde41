// Conversions between a kernel's storage types and float, one value, two in a word, or sixteen bytes at a time.
#pragma once
#include "include/cuda/ptx.cuh"

namespace typert {

template <class T>
struct Number;

template <>
struct Number<float> {
  static constexpr i32 perVector = 4;
  TYPERT_DEVICE static float load(float value) { return value; }
  TYPERT_DEVICE static float store(float value) { return value; }
};

template <>
struct Number<bf16> {
  static constexpr i32 perVector = 8;
  TYPERT_DEVICE static float low(u32 word) { return __uint_as_float(word << 16); }
  TYPERT_DEVICE static float high(u32 word) { return __uint_as_float(word & 0xffff0000u); }
  TYPERT_DEVICE static u32 pack(float a, float b) { return ptx::packBf16(a, b); }
  TYPERT_DEVICE static float load(bf16 value) { return __uint_as_float(u32(value.bits) << 16); }
  TYPERT_DEVICE static bf16 store(float value) { return bf16{u16(pack(value, 0.f))}; }
  TYPERT_DEVICE static void mma(float (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    ptx::mmaBf16(d, a0, a1, a2, a3, b0, b1);
  }
};

template <>
struct Number<f16> {
  static constexpr i32 perVector = 8;
  TYPERT_DEVICE static float low(u32 word) { return ptx::fromF16(u16(word)); }
  TYPERT_DEVICE static float high(u32 word) { return ptx::fromF16(u16(word >> 16)); }
  TYPERT_DEVICE static u32 pack(float a, float b) { return ptx::packF16(a, b); }
  TYPERT_DEVICE static float load(f16 value) { return ptx::fromF16(value.bits); }
  TYPERT_DEVICE static f16 store(float value) { return f16{u16(pack(value, 0.f))}; }
  TYPERT_DEVICE static void mma(float (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    ptx::mmaF16(d, a0, a1, a2, a3, b0, b1);
  }
};

template <class T>
TYPERT_DEVICE float toFloat(T value) {
  return Number<T>::load(value);
}
template <class T>
TYPERT_DEVICE T fromFloat(float value) {
  return Number<T>::store(value);
}

// Sixteen bytes of T as floats.
template <class T>
struct Vector {
  static constexpr i32 size = Number<T>::perVector;
  float v[size];

  TYPERT_DEVICE static Vector unpack(uint4 w) {
    Vector out;
    if constexpr (size == 4) {
      out.v[0] = __uint_as_float(w.x), out.v[1] = __uint_as_float(w.y);
      out.v[2] = __uint_as_float(w.z), out.v[3] = __uint_as_float(w.w);
    } else {
      const u32 words[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
      for (i32 i = 0; i < 4; i++) {
        out.v[2 * i] = Number<T>::low(words[i]);
        out.v[2 * i + 1] = Number<T>::high(words[i]);
      }
    }
    return out;
  }
  TYPERT_DEVICE uint4 pack() const {
    if constexpr (size == 4) {
      return make_uint4(__float_as_uint(v[0]), __float_as_uint(v[1]), __float_as_uint(v[2]), __float_as_uint(v[3]));
    } else {
      return make_uint4(Number<T>::pack(v[0], v[1]), Number<T>::pack(v[2], v[3]), Number<T>::pack(v[4], v[5]),
                        Number<T>::pack(v[6], v[7]));
    }
  }
  TYPERT_DEVICE static Vector load(const T* p) { return unpack(*reinterpret_cast<const uint4*>(p)); }
  TYPERT_DEVICE void store(T* p) const { *reinterpret_cast<uint4*>(p) = pack(); }
};

// Activation functions by name, as template arguments.
enum class Act { none, silu, gelu, geluTanh, quickGelu, relu, relu2, sigmoid, tanh };

template <Act A>
TYPERT_DEVICE float activate(float x) {
  if constexpr (A == Act::relu) return fmaxf(x, 0.f);
  if constexpr (A == Act::relu2) return fmaxf(x, 0.f) * fmaxf(x, 0.f);
  if constexpr (A == Act::silu) return __fdividef(x, 1.f + __expf(-x));
  if constexpr (A == Act::quickGelu) return __fdividef(x, 1.f + __expf(-1.702f * x));
  if constexpr (A == Act::tanh) return tanhf(x);
  if constexpr (A == Act::sigmoid) return __fdividef(1.f, 1.f + __expf(-x));
  if constexpr (A == Act::gelu) return 0.5f * x * (1.f + erff(x * 0.70710678118654752f));
  if constexpr (A == Act::geluTanh) {
    const float inner = 0.7978845608028654f * (x + 0.044715f * x * x * x);
    return 0.5f * x * (1.f + tanhf(inner));
  }
  return x;
}

}  // namespace typert
