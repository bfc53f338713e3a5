// Before a loop: nvcc writes out all of its rounds, whose number it must know, or so many at a time, with their loads
// first. Nothing for the host's compiler.
#pragma once

#define TY_PRAGMA_(text) _Pragma(#text)
#if defined(__CUDACC__)
#define TY_UNROLL TY_PRAGMA_(unroll)
#define TY_UNROLL_BY(rounds) TY_PRAGMA_(unroll rounds)
#else
#define TY_UNROLL
#define TY_UNROLL_BY(rounds)
#endif
