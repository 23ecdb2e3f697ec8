/* Layer normalization (Ba, Kiros & Hinton, 2016): LN(x) = gain ⊙ x̂ + bias, x̂ = (x − mean x)/σ(x).
   Of x·W and h·U the mean is 0 already, because the columns of the kernels are centred. RMS
   normalization (Zhang & Sennrich, 2019) is the same without the mean. */
#pragma once
#include "products.hpp"

namespace kbptt {
namespace {

/* Residuals of one normalised row: x̂, and 1/σ of the columns `together` and of the rest. */
template <class T> struct Standardized {
    T *values;
    T inverse[2];
};

/* Residuals of all normalizations in a step. */
template <class T> struct NormalizedStep {
    Standardized<T> inputs, recurrent, state;
};

/* x̂ of centred x; returns 1/σ. */
template <class Isa, class T>
T standardize(const T *x, int64_t n, double epsilon, T *out) {
    const T inverse = 1 / T(std::sqrt(double(dot<Isa>(x, x, n) / n) + epsilon));
    KBPTT_INDEPENDENT
    for (int64_t j = 0; j < n; j++) out[j] = x[j] * inverse;
    return inverse;
}

/* ∂L/∂x̂ becomes ∂L/∂x of centred x: (d − x̂·mean(d ⊙ x̂))/σ. */
template <class Isa, class T>
void standardize_vjp(T *d, const T *values, T inverse, int64_t n) {
    const T average = dot<Isa>(d, values, n) / n;
    KBPTT_INDEPENDENT
    for (int64_t j = 0; j < n; j++) d[j] = inverse * (d[j] - values[j] * average);
}

/* z becomes gain ⊙ ẑ + bias. The first `together` of the n columns are normalised together, the
   rest apart from them. */
template <class Isa, class T>
void normalize(T *z, int64_t n, int64_t together, double epsilon, const T *gain,
                            const T *bias, Standardized<T> &s) {
    s.inverse[0] = standardize<Isa>(z, together, epsilon, s.values);
    if (n > together)
        s.inverse[1] =
            standardize<Isa>(z + together, n - together, epsilon, s.values + together);
    KBPTT_INDEPENDENT
    for (int64_t j = 0; j < n; j++) z[j] = gain[j] * s.values[j] + (bias ? bias[j] : 0);
}

/* ∂L/∂z of the result of `normalize` becomes that of its argument; adds up the gain's gradient. */
template <class Isa, class T>
void normalize_vjp(T *d, int64_t n, int64_t together, const T *gain,
                                const Standardized<T> &s, T *d_gain) {
    KBPTT_INDEPENDENT
    for (int64_t j = 0; j < n; j++) {
        d_gain[j] += d[j] * s.values[j];
        d[j] *= gain[j];
    }
    standardize_vjp<Isa>(d, s.values, s.inverse[0], together);
    if (n > together)
        standardize_vjp<Isa>(d + together, s.values + together, s.inverse[1], n - together);
}

}  // namespace
}  // namespace kbptt
