// A stand-in for libcuda.so.1 in tests: memory is the host's, kernels compute nothing, and a clock of its own says how long they took.
// FAKE_CUDA_SM, FAKE_CUDA_MEMORY (bytes), FAKE_CUDA_DRIVER (13000), FAKE_CUDA_DEVICES; FAKE_CUDA_FAIL=function:calls:code lets a function
// fail with that code once it has been called so often. FAKE_CUDA_LOG names a file that hears of launches.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int CUresult;
typedef uint64_t u64;
typedef uint32_t u32;

static long setting(const char *name, long otherwise) {
  const char *text = getenv(name);
  return text && *text ? atol(text) : otherwise;
}

static int failing(const char *name) {
  static const char *spec;
  static char function[64];
  static int after, code, calls;
  if (!spec) {
    spec = getenv("FAKE_CUDA_FAIL");
    if (!spec) spec = "";
    sscanf(spec, "%63[^:]:%d:%d", function, &after, &code);
  }
  // Errors of the device itself stay until the process ends.
  static int lost;
  if (lost) return lost;
  if (strcmp(function, name) != 0 || calls++ < after) return 0;
  return code >= 700 && code < 800 || code == 214 ? (lost = code) : code;
}
#define TRY                                 \
  do {                                      \
    int code_ = failing(__func__);          \
    if (code_) return code_;                \
  } while (0)

static const struct { int code; const char *name, *text; } errors[] = {
    {1, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {2, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {3, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {46, "CUDA_ERROR_DEVICE_UNAVAILABLE", "CUDA-capable device(s) is/are busy or unavailable"},
    {35, "CUDA_ERROR_INSUFFICIENT_DRIVER", "driver version is insufficient for runtime version"},
    {100, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {200, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {209, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"},
    {214, "CUDA_ERROR_ECC_UNCORRECTABLE", "uncorrectable ECC error encountered"},
    {222, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "the provided PTX was compiled with an unsupported toolchain."},
    {700, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {719, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "system has unsupported display driver / cuda driver combination"},
};

CUresult cuGetErrorName(int code, const char **out) {
  for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
    if (errors[i].code == code) return *out = errors[i].name, 0;
  return 1;
}
CUresult cuGetErrorString(int code, const char **out) {
  for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
    if (errors[i].code == code) return *out = errors[i].text, 0;
  return 1;
}

CUresult cuInit(u32 flags) { TRY; return 0; }
CUresult cuDriverGetVersion(int *out) { *out = setting("FAKE_CUDA_DRIVER", 13000); return 0; }
CUresult cuDeviceGetCount(int *out) { TRY; *out = setting("FAKE_CUDA_DEVICES", 1); return 0; }
CUresult cuDeviceGet(int *out, int ordinal) { *out = ordinal; return 0; }
CUresult cuDeviceGetName(char *out, int size, int device) {
  snprintf(out, size, "Fake GPU");
  return 0;
}
CUresult cuDeviceGetUuid_v2(void *out, int device) { memset(out, 7, 16); return 0; }
static u64 total(void) { return setting("FAKE_CUDA_MEMORY", 1L << 30); }
CUresult cuDeviceTotalMem_v2(u64 *out, int device) { *out = total(); return 0; }
CUresult cuDeviceGetAttribute(int *out, int attribute, int device) {
  TRY;
  long sm = setting("FAKE_CUDA_SM", 90);
  switch (attribute) {
    case 97: *out = sm == 80 ? 166912 : sm == 90 || sm == 100 ? 232448 : 101376; return 0;
    case 16: *out = 132; return 0;
    case 38: *out = 1 << 20; return 0;
    case 39: *out = 2048; return 0;
    case 75: *out = sm / 10; return 0;
    case 76: *out = sm % 10; return 0;
    case 81: *out = 233472; return 0;
    case 13: *out = 1000000; return 0;
    case 36: *out = 2000000; return 0;
    default: *out = 1; return 0;
  }
}
CUresult cuDevicePrimaryCtxRetain(u64 *out, int device) { TRY; *out = 1; return 0; }
CUresult cuDevicePrimaryCtxRelease_v2(int device) { return 0; }
CUresult cuCtxSetCurrent(u64 context) { TRY; return 0; }
CUresult cuCtxSynchronize(void) { TRY; return 0; }

static u64 used;
CUresult cuMemGetInfo_v2(u64 *free_, u64 *all) {
  *all = total();
  *free_ = *all - used;
  return 0;
}
CUresult cuMemAlloc_v2(u64 *out, u64 bytes) {
  TRY;
  if (used + bytes > total()) return 2;
  u64 *block = aligned_alloc(256, (bytes + 256 + 255) & ~255ull);
  memset(block, 0, (bytes + 256 + 255) & ~255ull);
  block[0] = bytes;
  used += bytes;
  *out = (u64)block + 256;
  return 0;
}
CUresult cuMemFree_v2(u64 pointer) {
  TRY;
  u64 *block = (u64 *)(pointer - 256);
  used -= block[0];
  free(block);
  return 0;
}
CUresult cuMemHostAlloc(u64 *out, u64 bytes, u32 flags) {
  TRY;
  *out = (u64)calloc(1, bytes + 64);
  return 0;
}
CUresult cuMemFreeHost(u64 pointer) { TRY; free((void *)pointer); return 0; }
CUresult cuMemcpyHtoD_v2(u64 to, const void *from, u64 bytes) { TRY; memcpy((void *)to, from, bytes); return 0; }
CUresult cuMemcpyDtoH_v2(void *to, u64 from, u64 bytes) { TRY; memcpy(to, (void *)from, bytes); return 0; }
CUresult cuMemcpyHtoDAsync_v2(u64 to, const void *from, u64 bytes, u64 stream) { TRY; memcpy((void *)to, from, bytes); return 0; }
CUresult cuMemcpyDtoHAsync_v2(void *to, u64 from, u64 bytes, u64 stream) { TRY; memcpy(to, (void *)from, bytes); return 0; }
CUresult cuMemcpyDtoDAsync_v2(u64 to, u64 from, u64 bytes, u64 stream) { TRY; memmove((void *)to, (void *)from, bytes); return 0; }
CUresult cuMemsetD8Async(u64 to, u32 value, u64 bytes, u64 stream) { TRY; memset((void *)to, value, bytes); return 0; }
CUresult cuMemsetD32Async(u64 to, u32 value, u64 count, u64 stream) {
  for (u64 i = 0; i < count; i++) ((u32 *)to)[i] = value;
  return 0;
}

// The clock: a launch takes as many microseconds as its kernel's name says (`cost`); launches while capturing go to the graph.
static double clock_us, *capturing;
void fake_cuda_spend(double us) { *(capturing ? capturing : &clock_us) += us; }

CUresult cuStreamCreate(u64 *out, u32 flags) { TRY; *out = 0x5000; return 0; }
CUresult cuStreamDestroy_v2(u64 stream) { return 0; }
CUresult cuStreamSynchronize(u64 stream) { TRY; return 0; }
CUresult cuStreamQuery(u64 stream) { TRY; return 0; }
CUresult cuStreamWaitEvent(u64 stream, u64 event, u32 flags) { return 0; }
CUresult cuEventCreate(u64 *out, u32 flags) { *out = (u64)calloc(1, sizeof(double)); return 0; }
CUresult cuEventDestroy_v2(u64 event) { free((void *)event); return 0; }
CUresult cuEventRecord(u64 event, u64 stream) { TRY; *(double *)event = clock_us; return 0; }
CUresult cuEventSynchronize(u64 event) { TRY; return 0; }
CUresult cuEventQuery(u64 event) { TRY; return 0; }
CUresult cuEventElapsedTime(float *out, u64 start, u64 end) {
  *out = (*(double *)end - *(double *)start) / 1000;
  return 0;
}
CUresult cuEventElapsedTime_v2(float *out, u64 start, u64 end) { return cuEventElapsedTime(out, start, end); }

// A binary of the stand-in for NVRTC begins with "\177ELFFAKE" and the architecture; other ELF files are taken as they are.
CUresult cuModuleLoadData(u64 *out, const char *image) {
  TRY;
  if (memcmp(image, "\177ELF", 4) != 0) return 200;
  if (memcmp(image + 4, "FAKE", 4) == 0 && atol(image + 11) != setting("FAKE_CUDA_SM", 90)) return 209;
  *out = 0x6000;
  return 0;
}
CUresult cuModuleUnload(u64 module) { TRY; return 0; }
CUresult cuModuleGetFunction(u64 *out, u64 module, const char *name) {
  TRY;
  *out = (u64)strdup(name);
  return 0;
}
CUresult cuFuncGetAttribute(int *out, int attribute, u64 function) { *out = attribute == 4 ? 32 : 0; return 0; }
CUresult cuFuncSetAttribute(u64 function, int attribute, int value) { return 0; }
CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *out, u64 function, int threads, u64 shared) { *out = 2; return 0; }

static double cost(const char *name) {
  u32 hash = 5381;
  for (; *name; name++) hash = hash * 33 + (unsigned char)*name;
  return 1 + hash % 997;
}
static CUresult launch(u64 function) {
  const char *name = (const char *)function, *path = getenv("FAKE_CUDA_LOG");
  fake_cuda_spend(cost(name));
  if (path) {
    FILE *log = fopen(path, "a");
    fprintf(log, "%s\n", name);
    fclose(log);
  }
  return 0;
}
CUresult cuLaunchKernel(u64 f, u32 gx, u32 gy, u32 gz, u32 bx, u32 by, u32 bz, u32 shared, u64 stream, void *p, void *e) {
  int code = failing("cuLaunch");
  return code ? code : launch(f);
}
CUresult cuLaunchKernelEx(void *config, u64 f, void *p, void *e) {
  int code = failing("cuLaunch");
  return code ? code : launch(f);
}

CUresult cuStreamBeginCapture_v2(u64 stream, int mode) { TRY; capturing = calloc(1, sizeof(double)); return 0; }
CUresult cuStreamEndCapture(u64 stream, u64 *out) { TRY; *out = (u64)capturing; capturing = 0; return 0; }
CUresult cuGraphInstantiateWithFlags(u64 *out, u64 graph, u64 flags) {
  TRY;
  double *exec = malloc(sizeof(double));
  *exec = *(double *)graph;
  *out = (u64)exec;
  return 0;
}
CUresult cuGraphExecUpdate_v2(u64 exec, u64 graph, void *info) { *(double *)exec = *(double *)graph; return 0; }
CUresult cuGraphLaunch(u64 exec, u64 stream) { TRY; fake_cuda_spend(*(double *)exec); return 0; }
CUresult cuGraphDestroy(u64 graph) { free((void *)graph); return 0; }
CUresult cuGraphExecDestroy(u64 exec) { free((void *)exec); return 0; }
CUresult cuTensorMapEncodeTiled(void *map, int type, u32 rank, u64 address, void *dims, void *strides, void *box, void *steps,
                                int interleave, int swizzle, int promotion, int fill) {
  return address % 16 ? 1 : 0;
}
