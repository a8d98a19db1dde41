// Inline PTX for every architecture from sm_80: conversions, asynchronous copies, matrix fragments, grid overlap.
#pragma once
#include "include/cuda/common.cuh"

namespace typert::ptx {

TYPERT_DEVICE u32 sharedAddress(const void* pointer) { return static_cast<u32>(__cvta_generic_to_shared(pointer)); }

// --- numbers ---------------------------------------------------------------------------------------------------

TYPERT_DEVICE u32 packBf16(float low, float high) {
  u32 word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
}
TYPERT_DEVICE u32 packF16(float low, float high) {
  u32 word;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
}
TYPERT_DEVICE float fromF16(u16 bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}
TYPERT_DEVICE float exp2Fast(float value) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(value));
  return result;
}
TYPERT_DEVICE float tanhFast(float value) {
  float result;
  asm("tanh.approx.f32 %0, %1;" : "=f"(result) : "f"(value));
  return result;
}

// --- warps ------------------------------------------------------------------------------------------------------

TYPERT_DEVICE u32 warpAdd(u32 value) {
  u32 sum;
  asm volatile("redux.sync.add.u32 %0, %1, 0xffffffff;" : "=r"(sum) : "r"(value));
  return sum;
}

// --- global memory ---------------------------------------------------------------------------------------------

// Read once: weights pass through the L1 without staying there.
TYPERT_DEVICE uint4 loadStreaming(const void* pointer) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(pointer));
  return v;
}

TYPERT_DEVICE u32 atomicAddAcquireRelease(u32* pointer, u32 value) {
  u32 old;
  asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], %2;" : "=r"(old) : "l"(pointer), "r"(value) : "memory");
  return old;
}

// --- asynchronous copies into shared memory (sm_80) --------------------------------------------------------------

// 16 bytes; reads none and writes zeros when `valid` is false.
TYPERT_DEVICE void copyAsync16(u32 shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(shared), "l"(global), "r"(valid ? 16 : 0)
               : "memory");
}
TYPERT_DEVICE void copyCommit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int Pending>
TYPERT_DEVICE void copyWait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

// --- matrix fragments ------------------------------------------------------------------------------------------

// Four 8×8 matrices of 16-bit elements; lane l gives the address of row l % 8 of matrix l / 8.
TYPERT_DEVICE void loadMatrix4(u32 (&r)[4], u32 shared) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared)
               : "memory");
}
TYPERT_DEVICE void loadMatrix4Transposed(u32 (&r)[4], u32 shared) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared)
               : "memory");
}
TYPERT_DEVICE void mmaBf16(float (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
TYPERT_DEVICE void mmaF16(float (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// --- overlap with the kernels before and after (sm_90) -----------------------------------------------------------

// Returns when all memory of the kernel before is visible. The branch is never taken: it keeps ptxas from moving the wait to the start of the kernel,
// before the loads that are meant to overlap with it (an acquire may move up).
TYPERT_DEVICE void waitForPrevious() {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "{\n"
      ".reg .pred never;\n"
      ".reg .b32 blocks;\n"
      "mov.u32 blocks, %nctaid.x;\n"
      "setp.eq.u32 never, blocks, 0;\n"
      "@never bra past;\n"
      "griddepcontrol.wait;\n"
      "past:\n"
      "}" ::
          : "memory");
#endif
}
// The kernel after may begin as soon as every block has said so.
TYPERT_DEVICE void letNextBegin() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

}  // namespace typert::ptx
