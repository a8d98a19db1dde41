// Inline PTX of sm_90 and newer: transaction barriers, the tensor memory accelerator, clusters; wgmma's fences (sm_90a alone).
#pragma once
#include "include/cuda/ptx.cuh"

namespace typert::ptx {

// --- transaction barriers --------------------------------------------------------------------------------------

TYPERT_DEVICE void barrierInit(u64* barrier, u32 arrivals) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(sharedAddress(barrier)), "r"(arrivals) : "memory");
}
// Makes initialised barriers visible to the copy engine and, with a cluster barrier after it, to the cluster.
TYPERT_DEVICE void barrierInitFence() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
TYPERT_DEVICE void barrierExpect(u64* barrier, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(sharedAddress(barrier)), "r"(bytes)
               : "memory");
}
TYPERT_DEVICE void barrierArrive(u64* barrier) {
  asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(sharedAddress(barrier)) : "memory");
}
// Arrives at the same barrier of the block with rank `rank` in the cluster. No `.release.cluster`: it costs a fence of all memory, and a reader of
// shared memory that wgmma has finished with has nothing to publish.
TYPERT_DEVICE void barrierArriveRemote(u64* barrier, u32 rank) {
  asm volatile(
      "{\n"
      ".reg .b32 remote;\n"
      "mapa.shared::cluster.u32 remote, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [remote];\n"
      "}" ::"r"(sharedAddress(barrier)),
      "r"(rank)
      : "memory");
}
TYPERT_DEVICE void barrierWait(u64* barrier, u32 parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}" ::"r"(sharedAddress(barrier)),
      "r"(parity)
      : "memory");
}

// --- clusters --------------------------------------------------------------------------------------------------

TYPERT_DEVICE u32 clusterRank() {
  u32 rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
TYPERT_DEVICE void clusterSync() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
// The address of `shared` in the block with rank `rank` of the cluster.
TYPERT_DEVICE u32 mapShared(u32 shared, u32 rank) {
  u32 address;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(shared), "r"(rank));
  return address;
}
TYPERT_DEVICE float4 loadCluster(u32 address) {
  float4 v;
  asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
               : "r"(address)
               : "memory");
  return v;
}

// --- tensor memory accelerator ---------------------------------------------------------------------------------

TYPERT_DEVICE void prefetchMap(const TensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}
// Weights are read once (first), activations again and again (last): hints of what the L2 should keep.
constexpr u64 evictFirst = 0x12F0000000000000ull;
constexpr u64 evictNormal = 0x1000000000000000ull;
constexpr u64 evictLast = 0x14F0000000000000ull;

TYPERT_DEVICE void loadBox2(void* shared, const TensorMap* map, u64* barrier, i32 x, i32 y, u64 hint) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%3, %4}], "
      "[%2], %5;" ::"r"(sharedAddress(shared)),
      "l"(map), "r"(sharedAddress(barrier)), "r"(x), "r"(y), "l"(hint)
      : "memory");
}
TYPERT_DEVICE void loadBox2Multicast(void* shared, const TensorMap* map, u64* barrier, i32 x, i32 y, u16 blocks,
                                     u64 hint) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster.L2::cache_hint "
      "[%0], [%1, {%3, %4}], [%2], %5, %6;" ::"r"(sharedAddress(shared)),
      "l"(map), "r"(sharedAddress(barrier)), "r"(x), "r"(y), "h"(blocks), "l"(hint)
      : "memory");
}
TYPERT_DEVICE void loadBox3(void* shared, const TensorMap* map, u64* barrier, i32 x, i32 y, i32 z, u64 hint) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], "
      "[%1, {%3, %4, %5}], [%2], %6;" ::"r"(sharedAddress(shared)),
      "l"(map), "r"(sharedAddress(barrier)), "r"(x), "r"(y), "r"(z), "l"(hint)
      : "memory");
}
TYPERT_DEVICE void loadBox4(void* shared, const TensorMap* map, u64* barrier, i32 x, i32 y, i32 z, i32 w, u64 hint) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], "
      "[%1, {%3, %4, %5, %6}], [%2], %7;" ::"r"(sharedAddress(shared)),
      "l"(map), "r"(sharedAddress(barrier)), "r"(x), "r"(y), "r"(z), "r"(w), "l"(hint)
      : "memory");
}
TYPERT_DEVICE void loadBox5(void* shared, const TensorMap* map, u64* barrier, i32 x, i32 y, i32 z, i32 w, i32 v, u64 hint) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], "
      "[%1, {%3, %4, %5, %6, %7}], [%2], %8;" ::"r"(sharedAddress(shared)),
      "l"(map), "r"(sharedAddress(barrier)), "r"(x), "r"(y), "r"(z), "r"(w), "r"(v), "l"(hint)
      : "memory");
}
TYPERT_DEVICE void loadBox4Multicast(void* shared, const TensorMap* map, u64* barrier, i32 x, i32 y, i32 z, i32 w,
                                     u16 blocks, u64 hint) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster.L2::cache_hint "
      "[%0], [%1, {%3, %4, %5, %6}], [%2], %7, %8;" ::"r"(sharedAddress(shared)),
      "l"(map), "r"(sharedAddress(barrier)), "r"(x), "r"(y), "r"(z), "r"(w), "h"(blocks), "l"(hint)
      : "memory");
}
// Ordinary writes to shared memory become visible to the copy engine and the tensor cores.
TYPERT_DEVICE void fenceAsyncShared() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// --- warpgroups ------------------------------------------------------------------------------------------------

// A barrier of some of the block's threads; 0 is __syncthreads.
TYPERT_DEVICE void namedBarrier(u32 id, u32 threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
TYPERT_DEVICE void namedArrive(u32 id, u32 threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
template <int Registers>
TYPERT_DEVICE void registersUp() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Registers));
}
template <int Registers>
TYPERT_DEVICE void registersDown() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Registers));
}
TYPERT_DEVICE void wgmmaFence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
TYPERT_DEVICE void wgmmaCommit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int Pending>
TYPERT_DEVICE void wgmmaWait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory");
}
#endif

}  // namespace typert::ptx
