/* Distances of one type and instruction set (see accuracy.c). */
#include "activations.h"

static Worst NAME(worst)[2];

/* Special: NaN, zero with its sign, ±1. */
static void NAME(compare)(const TYPE *x, WIDER exact[2][MANY], int n) {
    static TYPE y[MANY];
    for (int f = 0; f < 2; f++) {
        Worst *w = NAME(worst) + f;
        memcpy(y, x, n * sizeof *x);
        activate(f ? SIGMOID : TANH, y, n);
        for (int j = 0; j < n; j++) {
            const TYPE right = (TYPE)exact[f][j];
            if (x[j] != x[j]) {
                w->special += y[j] == y[j];
                continue;
            }
            /* A tie may be one only because `exact` is rounded as well. */
            if (right == 0 || (fabs(right) == 1 && fabs(exact[f][j]) != 1 - ldexp((WIDER)0.5, -DIGITS)))
                w->special += y[j] != right || !signbit(y[j]) != !signbit(right);
            const long long distance = llabs(position(y[j]) - position(right));
            w->inexact += distance > 0;
            if (distance > w->distance) w->distance = distance, w->where = (double)x[j];
        }
    }
}

static void NAME(report)(void) {
    for (int f = 0; f < 2; f++) {
        const Worst *w = NAME(worst) + f;
        printf("%s %s %s: at most %lld ulp (at %a), %lld special values wrong, %lld not nearest\n",
               TEXT(ISA), TEXT(TYPE), f ? "sigmoid" : "tanh", w->distance, w->where, w->special,
               w->inexact);
    }
}

#undef activate
#undef slope
#undef INLINE
