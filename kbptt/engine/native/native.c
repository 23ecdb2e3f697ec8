/* Backpropagation through time on a CPU: picks the loops made for the machine it runs on.

   loops.h is compiled for float and double, and on x86 for AVX-512, AVX2 and the baseline. No
   Python, no TensorFlow: called through ctypes by native.py, which also splits the rows of the
   batch over threads. Rows never meet, so threads never wait for each other. */
#include <stdlib.h>
#include <string.h>
#include <tgmath.h> /* each function for the type of its argument */
#include "problem.h"

#define EACH_TARGET "types.h"
#include "targets.h"

typedef int (*Pass)(const Problem *, int64_t, int64_t, int64_t);

static int level; /* 0: baseline, 1: AVX2, 2: AVX-512 */

/* The instruction set in use; `wanted` >= 0 asks for a lower one, for tests. */
int kbptt_level(int wanted) {
    int best = 0;
#ifdef DISPATCH
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) best = 1;
    if (best && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw"))
        best = 2;
#endif
    level = wanted >= 0 && wanted < best ? wanted : best;
    return level;
}

/* Before any thread can ask for it. */
__attribute__((constructor)) static void choose_level(void) { kbptt_level(-1); }

/* The declaration of `Problem` that the loops were compiled with, and its size: native.py compares
   both with its own before it hands one over. */
const char *kbptt_problem(int64_t *size) {
    *size = sizeof(Problem);
    return declaration;
}

static Pass pick(int is_double, int backward) {
    static const Pass table[][2][2] = {
        {{forward_float_base, backward_float_base}, {forward_double_base, backward_double_base}},
#ifdef DISPATCH
        {{forward_float_avx2, backward_float_avx2}, {forward_double_avx2, backward_double_avx2}},
        {{forward_float_avx512, backward_float_avx512},
         {forward_double_avx512, backward_double_avx512}},
#endif
    };
    return table[level][is_double][backward];
}

/* Forward pass of the samples `first` up to `last`. Returns 0, or 1 if memory ran out. */
int kbptt_forward(const Problem *p, int is_double, int64_t first, int64_t last) {
    return pick(is_double, 0)(p, 0, first, last);
}

/* Backward pass of the rows `first` up to `last` of all (window, sample) pairs, by `thread`. */
int kbptt_backward(const Problem *p, int is_double, int64_t thread, int64_t first, int64_t last) {
    return pick(is_double, 1)(p, thread, first, last);
}
