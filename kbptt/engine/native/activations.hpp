/* Activations and their derivatives.

   tanh and σ are at most 2 units in the last place from the correctly rounded value.

   Both come from exp(2y) = 2ⁿ·(1 + 2p), n = round(2y/ln 2), 2p = expm1(2y − n·ln 2): Cody and
   Waite's reduction and a minimax polynomial (relative error 2^-26 for float, 2^-55 for double).
   Without branches and tables the compiler can vectorize them. NaN passes through: every comparison
   is false for it. Where the true value rounds to ±1 or 0 the result is exactly that, and so is the
   derivative computed from it: otherwise a cell would leak through an open forget gate.
   Checked over all floats by tests/engine/native/accuracy.cpp. */
#pragma once
#include "portable.hpp"
#include "problem.hpp"

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

template <class T> void activate(int64_t kind, T *z, int64_t n) {
    if (kind == TANH)
        for (int64_t j = 0; j < n; j++) z[j] = fast_tanh(z[j]);
    else if (kind == SIGMOID)
        for (int64_t j = 0; j < n; j++) z[j] = fast_sigmoid(z[j]);
    else if (kind == RELU)
        for (int64_t j = 0; j < n; j++) z[j] = z[j] < 0 ? T(0) : z[j];
}

/* The derivative of an activation, from its output y. */
template <class T> KBPTT_INLINE T activation_grad(int64_t kind, T y) {
    return kind == TANH      ? 1 - y * y
           : kind == SIGMOID ? y * (1 - y)
           : kind == RELU    ? T(y > 0)
                             : T(1);
}

/* The activations of a cell: φ of the candidate, σ of the gates. The usual ones are constants, so
   that no loop over the units asks which it has. */
struct Usual {
    static constexpr int64_t phi = TANH, sigma = SIGMOID;
};
struct Chosen {
    int64_t phi, sigma;
};

}  // namespace
}  // namespace kbptt
