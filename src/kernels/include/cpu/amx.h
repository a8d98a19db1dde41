// Whether AMX is there: what was compiled for, and what the system allows this process.
#ifndef TYPERT_CPU_AMX_ASK_H
#define TYPERT_CPU_AMX_ASK_H
#include "include/cpu/simd.h"

#if VL == 16 && defined(__AMX_INT8__) && defined(__AMX_BF16__) && defined(__AVX512VNNI__) && defined(__AVX512BF16__) && defined(__linux__)
#define HAS_AMX 1
#include <sys/syscall.h>
#include <unistd.h>
/// Rows of a tile; products of fewer than the least are quicker without.
enum { AMX_ROWS = 16, AMX_LEAST = 4 };
static int amx_allowed;
/// Asks the system for the tiles' memory in this process's threads: ARCH_REQ_XCOMP_PERM of XTILEDATA.
INLINE void amx_ask(void) { amx_allowed = syscall(SYS_arch_prctl, 0x1023, 18) == 0; }
#else
#define HAS_AMX 0
INLINE void amx_ask(void) {}
#endif
#endif
