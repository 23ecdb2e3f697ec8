/* Included before anything is compiled for an instruction set: inline functions of the standard
   library must stay portable, because the linker keeps one copy of them for all translation units.
   For the same reason the loops themselves stand in unnamed namespaces. */
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <thread>

#define KBPTT_INLINE inline __attribute__((always_inline))
/* What is compiled once however often it is called: it is long or seldom needed. */
#define KBPTT_APART __attribute__((noinline))

/* The iterations of the loop that follows do not depend on each other. */
#ifdef __clang__
/* Nor does it matter that clang leaves some scalar: those that ask for the activation. */
#pragma clang diagnostic ignored "-Wpass-failed"
#define KBPTT_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define KBPTT_INDEPENDENT _Pragma("GCC ivdep")
#endif

/* The loop that follows has a constant number of iterations, 8 at most, and becomes their sequence. */
#ifdef __clang__
#define KBPTT_UNROLLED _Pragma("clang loop unroll(full)")
#else
#define KBPTT_UNROLLED _Pragma("GCC unroll 8")
#endif

/* A moment's rest of a thread that waits awake. */
KBPTT_INLINE void rest() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

/* KBPTT_BASELINE_ONLY: a quick build, without the loops for AVX. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(KBPTT_BASELINE_ONLY)
#define KBPTT_AVX 1
#endif
