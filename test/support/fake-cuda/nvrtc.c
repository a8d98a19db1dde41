// A stand-in for libnvrtc.so.13 in tests: a "binary" is an ELF mark, the architecture and the kernel's stub. FAKE_NVRTC_FAIL names a kernel
// that does not compile.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t u64;
typedef struct { char *source, *name, *arch; int failed; } Program;

int nvrtcVersion(int *major, int *minor) { *major = 13; *minor = 0; return 0; }
const char *nvrtcGetErrorString(int code) { return code == 6 ? "NVRTC_ERROR_COMPILATION" : "NVRTC_ERROR"; }
int nvrtcCreateProgram(Program **out, const char *source, const char *name, int headers, void *texts, void *names) {
  Program *program = calloc(1, sizeof *program);
  program->source = strdup(source);
  program->name = strdup(name);
  *out = program;
  return 0;
}
int nvrtcDestroyProgram(Program **program) { return 0; }
int nvrtcCompileProgram(Program *program, int count, const char **options) {
  const char *failing = getenv("FAKE_NVRTC_FAIL");
  for (int i = 0; i < count; i++)
    if (strncmp(options[i], "--gpu-architecture=", 19) == 0) program->arch = strdup(options[i] + 19);
  program->failed = failing && *failing && strstr(program->name, failing) != 0;
  return program->failed ? 6 : 0;
}
static const char *message = "error: identifier \"nothing\" is undefined";
int nvrtcGetProgramLogSize(Program *program, u64 *out) { *out = program->failed ? strlen(message) + 1 : 1; return 0; }
int nvrtcGetProgramLog(Program *program, char *out) { strcpy(out, program->failed ? message : ""); return 0; }
int nvrtcGetCUBINSize(Program *program, u64 *out) { *out = 32 + strlen(program->source) + 1; return 0; }
int nvrtcGetCUBIN(Program *program, char *out) {
  memset(out, 0, 32);
  snprintf(out, 32, "\177ELFFAKE%s", program->arch);
  strcpy(out + 32, program->source);
  return 0;
}
