/* Exponentials, and what is made of them: tanh, σ, logarithm, the normal distribution.

   tanh and σ are at most 2 units in the last place from the correctly rounded value.

   All come from exp(2y) = 2ⁿ·(1 + 2p), n = round(2y/ln 2), 2p = expm1(2y − n·ln 2): Cody and
   Waite's reduction and a minimax polynomial (relative error 2^-26 for float, 2^-55 for double).
   Without branches and tables the compiler can vectorize them. NaN passes through: every comparison
   is false for it. Where the true value rounds to ±1 or 0 the result is exactly that, and so is the
   derivative computed from it: otherwise a cell would leak through an open forget gate.
   Checked over all floats by tests/engine/native/accuracy.cpp. */
#pragma once
#include "portable.hpp"

namespace kbptt {
namespace {

/* Constants of the reduction: (ln 2)/2 in two parts, n times the first being exact, and 2/ln 2.
   The polynomial is (expm1(2r)/2 − r)/r². */
template <class T> struct Exponential;

template <> struct Exponential<float> {
    using Bits = uint32_t;
    static constexpr int digits = 24, bias = 127; /* of the significand, of the exponent */
    static constexpr float half_ln2_high = 0x1.62e4p-2f, half_ln2_low = 0x1.7f7d1cp-21f;
    static constexpr float two_log2_e = 0x1.715476p1f, sigmoid_is_0 = -105;
    static constexpr float exp_is_infinite = 89, normal_is_0 = 14.5f;
    static KBPTT_INLINE float polynomial(float r, float r2) {
        return (9.9999996288e-1f + 6.6666172706e-1f * r) +
               r2 * ((3.3333761453e-1f + 1.3386528761e-1f * r) + r2 * 4.4424024265e-2f);
    }
};

template <> struct Exponential<double> {
    using Bits = uint64_t;
    static constexpr int digits = 53, bias = 1023;
    static constexpr double half_ln2_high = 0x1.62e42feep-2, half_ln2_low = 0x1.a39ef35793c76p-34;
    static constexpr double two_log2_e = 0x1.71547652b82fep1, sigmoid_is_0 = -746;
    static constexpr double exp_is_infinite = 710, normal_is_0 = 39;
    static KBPTT_INLINE double polynomial(double r, double r2) {
        return (1.000000000000001045 + 6.6666666666666355778e-1 * r) +
               r2 * ((3.3333333333260913794e-1 + 1.3333333333423402981e-1 * r) +
                     r2 * ((4.4444444581698386e-2 + 1.26984126202890987e-2 * r) +
                           r2 * ((3.1745926396840099e-3 + 7.0546961950192021e-4 * r) +
                                 r2 * (1.4144590676077491e-4 + 2.5655362773607769e-5 * r))));
    }
};

/* Adding it rounds a number to an integer n and leaves n + bias in the low bits. */
template <class T>
constexpr T magic = T(1.5) * (1ll << (Exponential<T>::digits - 1)) + Exponential<T>::bias;

template <class T> KBPTT_INLINE auto bits_of(T x) {
    typename Exponential<T>::Bits bits;
    memcpy(&bits, &x, sizeof x);
    return bits;
}

/* 2^(k − bias), from the low bits of k. */
template <class T> KBPTT_INLINE T power_of_2(typename Exponential<T>::Bits k) {
    T power;
    k <<= Exponential<T>::digits - 1;
    memcpy(&power, &k, sizeof power);
    return power;
}

/* expm1(2y − n·ln 2)/2 */
template <class T> KBPTT_INLINE T half_expm1(T y, T n) {
    using E = Exponential<T>;
    const T r = (y - n * E::half_ln2_high) - n * E::half_ln2_low, r2 = r * r;
    return r + r2 * E::polynomial(r, r2);
}

/* The same of y + low. */
template <class T> KBPTT_INLINE T half_expm1(T y, T low, T n) {
    using E = Exponential<T>;
    const T r = ((y - n * E::half_ln2_high) - n * E::half_ln2_low) + low, r2 = r * r;
    return r + r2 * E::polynomial(r, r2);
}

/* tanh y = e/(e + 1), e = expm1(2y)/2, of y = |x|. Written as a + (e − a·(e + 1))/(e + 1), where
   a = min(y, 1) is near, so that the roundings of e + 1 and of the division hardly count. */
template <class T> KBPTT_INLINE T fast_tanh(T x) {
    T y = std::fabs(x);
    y = y > 20 ? T(20) : y;
    const T a = y > 1 ? T(1) : y;
    const T rounded = y * Exponential<T>::two_log2_e + magic<T>;
    const T s = power_of_2<T>(bits_of(rounded)), half = T(0.5) * s - T(0.5);
    const T e = s * half_expm1(y, rounded - magic<T>) + half;
    return std::copysign(a + ((e - a) - a * e) / (e + 1), x);
}

/* σ(x) = 1/(1 + exp(−x)) as a/(a + b), b/a = exp(−x) = 2ⁿ·(1 + 2p): sharing n between the two keeps
   both in range where σ is a subnormal number. Computed with halves of both. */
template <class T> KBPTT_INLINE T fast_sigmoid(T x) {
    using E = Exponential<T>;
    constexpr T twice_biased = magic<T> + E::bias; /* leaves n + 2·bias in the low bits */
    x = x < E::sigmoid_is_0 ? E::sigmoid_is_0 : x;
    x = x > 40 ? T(40) : x;
    const T rounded = twice_biased - x * (E::two_log2_e / 2);
    const T p = half_expm1(T(-0.5) * x, rounded - twice_biased);
    const auto k = bits_of(rounded), share = k >> 1;
    const T b = power_of_2<T>(share), half_a = power_of_2<T>(2 * E::bias - 1 - (k - share));
    return half_a / ((half_a + T(0.5) * b) + b * p);
}

/* 2^k·value for k = n + 2·bias in the low bits: as two factors, because a result may be subnormal or
   infinite while neither is. */
template <class T> KBPTT_INLINE T scale_by_power(T value, typename Exponential<T>::Bits k) {
    const auto share = k >> 1;
    return (value * power_of_2<T>(share)) * power_of_2<T>(k - share);
}

template <class T> KBPTT_INLINE T fast_exp(T x) {
    using E = Exponential<T>;
    constexpr T twice_biased = magic<T> + E::bias;
    x = x < E::sigmoid_is_0 ? E::sigmoid_is_0 : x;
    x = x > E::exp_is_infinite ? E::exp_is_infinite : x;
    const T rounded = twice_biased + x * (E::two_log2_e / 2);
    const T p = half_expm1(T(0.5) * x, rounded - twice_biased);
    return scale_by_power(1 + 2 * p, bits_of(rounded));
}

/* exp(x) − 1 of x ≤ 0. */
template <class T> KBPTT_INLINE T fast_expm1(T x) {
    x = x < -40 ? T(-40) : x;
    const T rounded = x * (Exponential<T>::two_log2_e / 2) + magic<T>;
    const T s = power_of_2<T>(bits_of(rounded));
    return 2 * (s * half_expm1(T(0.5) * x, rounded - magic<T>) + (T(0.5) * s - T(0.5)));
}

/* c₀xⁿ + … + cₙ */
template <class T, class... C> KBPTT_INLINE T horner(T x, T first, C... rest) {
    ((first = first * x + T(rest)), ...);
    return first;
}

/* log(1 + u) of 0 ≤ u ≤ 1: 2·atanh s = 2s + 2s³·P(s²), of 1 + u or (1 + u)/2, whichever is nearer
   to 1. */
template <class T> KBPTT_INLINE T fast_log1p(T u) {
    const bool halved = u > T(0.41421356);
    const T s = (halved ? u - 1 : u) / (halved ? u + 3 : u + 2), s2 = s * s;
    T p;
    if constexpr (sizeof(T) == 4)
        p = horner(s2, 1.4792840e-1f, 1.9994327e-1f, 3.3333343e-1f);
    else
        p = horner(s2, 7.3119783041059394e-2, 7.6655562939800838e-2, 9.0914537488356089e-2,
                   1.1111105440966464e-1, 1.4285714313764398e-1, 1.9999999999948035e-1,
                   3.3333333333333349e-1);
    return (halved ? T(0.693147180559945309417) : T(0)) + (2 * s + 2 * s * (s2 * p));
}

/* The normal distribution at −(t + rest), t ≥ 0: its integral Φ and its density φ.

   Φ(−t) = exp(−t²/2)·P((t − c)/(t + c))/(t + c), a Chebyshev fit of Mills' ratio (relative error
   2^-29, double 2^-56). What t² lost by rounding would be a relative error of the exponential: its
   lower half is carried along. */
template <class T> struct Normal {
    T integral, density;
};

template <class T> KBPTT_INLINE Normal<T> fast_normal(T t, T rest) {
    using E = Exponential<T>;
    constexpr T twice_biased = magic<T> + E::bias, c = sizeof(T) == 4 ? 3 : 5;
    rest = t > E::normal_is_0 ? T(0) : rest;
    t = t > E::normal_is_0 ? E::normal_is_0 : t;
    T upper;
    const auto upper_bits = bits_of(t) >> (E::digits + 1) / 2 << (E::digits + 1) / 2;
    memcpy(&upper, &upper_bits, sizeof upper);
    const T y = T(-0.25) * (upper * upper);
    const T low = T(-0.25) * ((t - upper) * (t + upper)) - T(0.5) * (rest * (t + T(0.5) * rest));
    t += rest;
    const T rounded = twice_biased + (y + low) * E::two_log2_e;
    const T q = 1 + 2 * half_expm1(y, low, rounded - twice_biased);
    const T inverse = 1 / (t + c), w = (t - c) * inverse, w2 = w * w;
    T p;
    if constexpr (sizeof(T) == 4)
        p = horner(w2, 5.5355966e-5f, -2.4458497e-4f, 1.0241357e-3f, -1.0462294e-2f, 2.3001768e-1f,
                   7.2908369e-1f) +
            w * horner(w2, 1.3312591e-4f, -1.0342221e-3f, 6.9698131e-3f, -4.7262745e-2f,
                       -5.0933199e-1f);
    else
        p = horner(w2, -1.5877468827473365e-10, 7.6630718007600410e-9, -6.5942216624772230e-8,
                   4.3314103568625850e-7, -2.7692670959974302e-6, 1.6681213742042061e-5,
                   -5.9375728009915864e-5, -7.9786939846607010e-4, 2.0795066799883180e-2,
                   1.6502036617038472e-1, 4.9530561596997641e-1, 7.6919304975006296e-1) +
            w * horner(w2, 1.7530484014082320e-9, -9.3135609943260591e-9, 4.2274993740065348e-8,
                       -3.3661536810124712e-7, 3.9809021578680411e-6, -4.9762814270585805e-5,
                       5.4489906477312990e-4, -2.9933767705085424e-3, -6.9118638706310164e-2,
                       -3.1353315667130454e-1, -6.6538250289005670e-1);
    const auto k = bits_of(rounded);
    return {scale_by_power(q * (p * inverse), k),
            scale_by_power(q * T(0.398942280401432677940), k)};
}

}  // namespace
}  // namespace kbptt
