/* Activations and their derivatives, for one TYPE and one instruction set (see native.c).

   tanh and σ are at most 2 units in the last place from the correctly rounded value.

   Both come from exp(2y) = 2ⁿ·(1 + 2p), n = round(2y/ln 2), 2p = expm1(2y − n·ln 2): Cody and
   Waite's reduction and a minimax polynomial (relative error 2^-26 for float, 2^-55 for double).
   Without branches and tables the compiler can vectorize them. NaN passes through: every comparison
   is false for it. Where the true value rounds to ±1 or 0 the result is exactly that, and so is the
   derivative computed from it: otherwise a cell would leak through an open forget gate.
   Checked over all floats by tests/engine/csrc/accuracy.c. */

#define INLINE static inline __attribute__((always_inline))

/* Adding MAGIC rounds a number to an integer n and leaves n + BIAS in the low bits. */
#define MAGIC ((TYPE)1.5 * (1ll << (DIGITS - 1)) + BIAS)
#if DIGITS == 24
#define BITS uint32_t
#define BIAS 127
/* (ln 2)/2 in two parts; n times the first is exact. */
#define HALF_LN2_HIGH 0x1.62e4p-2f
#define HALF_LN2_LOW 0x1.7f7d1cp-21f
#define TWO_LOG2_E 0x1.715476p1f
#define SIGMOID_IS_0 -105.0f
/* (expm1(2r)/2 − r)/r² */
#define POLYNOMIAL                             \
    (9.9999996288e-1f + 6.6666172706e-1f * r) + \
        r2 * ((3.3333761453e-1f + 1.3386528761e-1f * r) + r2 * 4.4424024265e-2f)
#else
#define BITS uint64_t
#define BIAS 1023
#define HALF_LN2_HIGH 0x1.62e42feep-2
#define HALF_LN2_LOW 0x1.a39ef35793c76p-34
#define TWO_LOG2_E 0x1.71547652b82fep1
#define SIGMOID_IS_0 -746.0
#define POLYNOMIAL                                                                       \
    (1.000000000000001045 + 6.6666666666666355778e-1 * r) +                              \
        r2 * ((3.3333333333260913794e-1 + 1.3333333333423402981e-1 * r) +                \
              r2 * ((4.4444444581698386e-2 + 1.26984126202890987e-2 * r) +               \
                    r2 * ((3.1745926396840099e-3 + 7.0546961950192021e-4 * r) +          \
                          r2 * (1.4144590676077491e-4 + 2.5655362773607769e-5 * r))))
#endif

INLINE BITS NAME(bits)(TYPE x) {
    BITS bits;
    memcpy(&bits, &x, sizeof x);
    return bits;
}

/* 2^(k − BIAS), from the low bits of k. */
INLINE TYPE NAME(power)(BITS k) {
    TYPE power;
    k <<= DIGITS - 1;
    memcpy(&power, &k, sizeof power);
    return power;
}

/* expm1(2y − n·ln 2)/2 */
INLINE TYPE NAME(half_expm1)(TYPE y, TYPE n) {
    const TYPE r = (y - n * HALF_LN2_HIGH) - n * HALF_LN2_LOW, r2 = r * r;
    return r + r2 * (POLYNOMIAL);
}

/* tanh y = e/(e + 1), e = expm1(2y)/2, of y = |x|. Written as a + (e − a·(e + 1))/(e + 1), where
   a = min(y, 1) is near, so that the roundings of e + 1 and of the division hardly count. */
INLINE TYPE NAME(tanh)(TYPE x) {
    TYPE y = fabs(x);
    y = y > 20 ? 20 : y;
    const TYPE a = y > 1 ? 1 : y;
    const TYPE rounded = y * TWO_LOG2_E + MAGIC, s = NAME(power)(NAME(bits)(rounded));
    const TYPE half = (TYPE)0.5 * s - (TYPE)0.5;
    const TYPE e = s * NAME(half_expm1)(y, rounded - MAGIC) + half;
    return copysign(a + ((e - a) - a * e) / (e + 1), x);
}

/* σ(x) = 1/(1 + exp(−x)) as a/(a + b), b/a = exp(−x) = 2ⁿ·(1 + 2p): sharing n between the two keeps
   both in range where σ is a subnormal number. Computed with halves of both. */
INLINE TYPE NAME(sigmoid)(TYPE x) {
    x = x < SIGMOID_IS_0 ? SIGMOID_IS_0 : x;
    x = x > 40 ? 40 : x;
    const TYPE rounded = (MAGIC + BIAS) - x * (TWO_LOG2_E / 2); /* n + 2·BIAS in the low bits */
    const TYPE p = NAME(half_expm1)((TYPE)-0.5 * x, rounded - (MAGIC + BIAS));
    const BITS k = NAME(bits)(rounded), share = k >> 1;
    const TYPE b = NAME(power)(share), half_a = NAME(power)(2 * BIAS - 1 - (k - share));
    return half_a / ((half_a + (TYPE)0.5 * b) + b * p);
}

static void NAME(activate)(int64_t kind, TYPE *restrict z, int64_t n) {
    if (kind == TANH)
        for (int64_t j = 0; j < n; j++) z[j] = NAME(tanh)(z[j]);
    else if (kind == SIGMOID)
        for (int64_t j = 0; j < n; j++) z[j] = NAME(sigmoid)(z[j]);
    else if (kind == RELU)
        for (int64_t j = 0; j < n; j++) z[j] = z[j] < 0 ? 0 : z[j];
}
#define activate NAME(activate)

/* The derivative of an activation, from its output. */
INLINE TYPE NAME(slope)(int64_t kind, TYPE y) {
    return kind == TANH ? 1 - y * y : kind == SIGMOID ? y * (1 - y) : kind == RELU ? y > 0 : 1;
}
#define slope NAME(slope)

#undef MAGIC
#undef BITS
#undef BIAS
#undef HALF_LN2_HIGH
#undef HALF_LN2_LOW
#undef TWO_LOG2_E
#undef SIGMOID_IS_0
#undef POLYNOMIAL
