/* Includes EACH_TARGET once for every instruction set that the machine may have. */
#define GLUE(a, b, c) a##_##b##_##c
#define NAME3(a, b, c) GLUE(a, b, c)
#define NAME(a) NAME3(a, TYPE, ISA)

#if defined(__x86_64__) && defined(__GNUC__)
#define DISPATCH 1
#ifdef __clang__
#define TARGET(features, gcc) \
    DO(clang attribute push(__attribute__((target(features))), apply_to = function))
#define END_TARGET DO(clang attribute pop)
#else
#define TARGET(features, gcc) DO(GCC push_options) DO(GCC target(features gcc))
#define END_TARGET DO(GCC pop_options)
#endif
#define DO(pragma) _Pragma(#pragma)

TARGET("avx512f,avx512dq,avx512vl,avx512bw,avx2,fma", ",prefer-vector-width=512")
#define ISA avx512
#define VECTOR 64
#define WIDE 4
#include EACH_TARGET
END_TARGET

TARGET("avx2,fma", "")
#define ISA avx2
#define VECTOR 32
#define WIDE 2
#include EACH_TARGET
END_TARGET
#endif

/* What every machine has: SSE2 with 16 registers, NEON with 32. */
#define ISA base
#define VECTOR 16
#ifdef __aarch64__
#define WIDE 4
#else
#define WIDE 2
#endif
#include EACH_TARGET
