/* How far tanh and σ of the C loops are from the correctly rounded values.

       accuracy [step]     every step-th of the 2^32 floats, and a sample of as many doubles

   Prints one line for each instruction set, type and function: the largest distance in units in the
   last place (steps between adjacent numbers), and how many special values are wrong. The reference
   is the C library in the next wider type. `make exhaustive` compiles it with the options of setup.py
   and runs it over everything. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tgmath.h>
#include "problem.h"

#define MANY 4096

typedef struct {
    long long distance, special, inexact;
    double where;
} Worst;

static uint64_t draw(void) { /* splitmix64 */
    static uint64_t seed;
    uint64_t z = seed += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

static float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* One third of all exponents, the rest where the functions are neither linear nor constant. */
static double any_double(void) {
    const uint64_t bits = draw();
    double x;
    if (bits % 3) return ((bits >> 11) * 0x1p-53 - 0.5) * (bits % 3 == 1 ? 2 : 1500);
    const uint64_t any = draw();
    memcpy(&x, &any, sizeof x);
    return x;
}

/* Position among all numbers of the type. */
static long long position_float(float x) {
    int32_t i;
    memcpy(&i, &x, sizeof i);
    return i < 0 ? -(int64_t)(i & INT32_MAX) : i;
}

static long long position_double(double x) {
    int64_t i;
    memcpy(&i, &x, sizeof i);
    return i < 0 ? -(i & INT64_MAX) : i;
}

#define position(x) _Generic(x, float: position_float, double: position_double)(x)

#define TEXT(name) TEXT_OF(name)
#define TEXT_OF(name) #name

#define EACH_TARGET "accuracy_types.h"
#include "targets.h"

#define RUN(T, WIDER, NEXT, SETS)                                                                \
    for (uint64_t i = 0; i < (uint64_t)1 << 32;) {                                               \
        static T x[MANY];                                                                        \
        static WIDER exact[2][MANY];                                                             \
        int n = 0;                                                                               \
        for (; n < MANY && i < (uint64_t)1 << 32; i += step, n++) x[n] = NEXT;                   \
        for (int j = 0; j < n; j++) {                                                            \
            exact[0][j] = tanh((WIDER)x[j]);                                                     \
            exact[1][j] = 1 / (1 + exp(-(WIDER)x[j]));                                           \
        }                                                                                        \
        SETS                                                                                     \
    }

int main(int count, char **arguments) {
    uint64_t step = count > 1 ? strtoull(arguments[1], NULL, 10) : 1;
    int level = 0;
#ifdef DISPATCH
    level = __builtin_cpu_supports("avx512dq") ? 2 : __builtin_cpu_supports("avx2") ? 1 : 0;
#define SET(T)                                        \
    compare_##T##_base(x, exact, n);                  \
    if (level > 0) compare_##T##_avx2(x, exact, n);   \
    if (level > 1) compare_##T##_avx512(x, exact, n);
#else
#define SET(T) compare_##T##_base(x, exact, n);
#endif
    RUN(float, double, float_of((uint32_t)i), SET(float))
    if (step < 97) step = 97; /* of 2^64 no more than a sample in any case */
    RUN(double, long double, any_double(), SET(double))
    report_float_base();
    report_double_base();
#ifdef DISPATCH
    if (level > 0) report_float_avx2(), report_double_avx2();
    if (level > 1) report_float_avx512(), report_double_avx512();
#endif
    return 0;
}
