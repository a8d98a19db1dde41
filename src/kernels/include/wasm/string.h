// What kernels need of <string.h>, as instructions of WebAssembly.
#ifndef TYPERT_WASM_STRING_H
#define TYPERT_WASM_STRING_H
#include <stddef.h>

#define memcpy(to, from, bytes) __builtin_memcpy(to, from, bytes)
#define memset(to, value, bytes) __builtin_memset(to, value, bytes)
#endif
