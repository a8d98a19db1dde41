// A stand-in for libcublasLt.so.13 in tests: products compute nothing; algorithm i takes FAKE_LT_US + i microseconds of the stand-in driver's
// clock. FAKE_LT_VERSION.
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t u64;

static long setting(const char *name, long otherwise) {
  const char *text = getenv(name);
  return text && *text ? atol(text) : otherwise;
}
int cublasLtCreate(u64 *out) { *out = 1; return 0; }
int cublasLtDestroy(u64 handle) { return 0; }
u64 cublasLtGetVersion(void) { return setting("FAKE_LT_VERSION", 130100); }
static long open_;
static int make(u64 *out) { *out = ++open_; return 0; }
int cublasLtMatmulDescCreate(u64 *out, int compute, int scale) { return make(out); }
int cublasLtMatmulDescDestroy(u64 desc) { return 0; }
int cublasLtMatmulDescSetAttribute(u64 desc, int attribute, void *value, u64 bytes) { return 0; }
int cublasLtMatrixLayoutCreate(u64 *out, int type, u64 rows, u64 columns, int64_t ld) { return ld < (int64_t)rows ? 7 : make(out); }
int cublasLtMatrixLayoutDestroy(u64 layout) { return 0; }
int cublasLtMatmulPreferenceCreate(u64 *out) { return make(out); }
int cublasLtMatmulPreferenceDestroy(u64 preference) { return 0; }
int cublasLtMatmulPreferenceSetAttribute(u64 preference, int attribute, void *value, u64 bytes) { return 0; }
int cublasLtMatmulAlgoGetHeuristic(u64 handle, u64 desc, u64 a, u64 b, u64 c, u64 d, u64 preference, int count, unsigned char *results,
                                   int *found) {
  for (int i = 0; i < count; i++) {
    memset(results + i * 96, 0, 96);
    results[i * 96] = i;
  }
  *found = count;
  return 0;
}
int cublasLtMatmulAlgoCheck(u64 handle, u64 desc, u64 a, u64 b, u64 c, u64 d, unsigned char *algorithm, void *result) {
  return algorithm[0] > 8 ? 15 : 0;
}
int cublasLtMatmul(u64 handle, u64 desc, void *alpha, u64 a, u64 la, u64 b, u64 lb, void *beta, u64 c, u64 lc, u64 d, u64 ld,
                   unsigned char *algorithm, u64 workspace, u64 bytes, u64 stream) {
  static void (*spend)(double);
  if (!spend) spend = (void (*)(double))dlsym(dlopen("libcuda.so.1", RTLD_NOW), "fake_cuda_spend");
  const char *path = getenv("FAKE_CUDA_LOG");
  spend(setting("FAKE_LT_US", 1) + algorithm[0]);
  if (path) {
    FILE *log = fopen(path, "a");
    fprintf(log, "cublaslt\n");
    fclose(log);
  }
  return 0;
}
