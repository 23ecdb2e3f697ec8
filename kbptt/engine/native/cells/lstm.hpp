/* Long short-term memory (Hochreiter & Schmidhuber, 1997; Gers et al., 2000). With the four blocks of
   x_t·W + h_{t−1}·U + b:

       i = σ(·)    f = σ(·)    g = φ(·)    o = σ(·)
       c_t = f ⊙ c_{t−1} + i ⊙ g
       h_t = o ⊙ φ(c_t)

   Layer-normalised: LN(x_t·W) + LN(h_{t−1}·U) + b, and h_t = o ⊙ φ(LN(c_t)); `carry_normalized`:
   LN(c_t) is the state, too. */
#pragma once
#include "cell.hpp"

namespace kbptt {
namespace {

struct LSTM {
    static constexpr const char *name = "LSTM";
    static constexpr int gates = 4, states = 2, residuals = 4; /* i f g o */
    static constexpr bool separate_hu(bool normalized) { return normalized; }

    template <class Isa, bool normalized, class T, class A>
    static KBPTT_INLINE void forward(const Problem<T> &p, A a, T *z, T *hu,
                                     T *h, T *c, NormalizedStep<T> &norm) {
        const int64_t u = p.units, N = 4 * u;
        if constexpr (normalized) {
            normalize<Isa>(z, N, N, p.epsilon, p.input_gain, p.bias, norm.inputs);
            normalize<Isa>(hu, N, N, p.epsilon, p.recurrent_gain, {}, norm.recurrent);
            accumulate(z, hu, N);
        }
        activate_gate(a.sigma, z, 2 * u);
        activate_gate(a.phi, z + 2 * u, u);
        activate_gate(a.sigma, z + 3 * u, u);
        KBPTT_INDEPENDENT
        for (int64_t j = 0; j < u; j++) h[j] = c[j] = z[u + j] * c[j] + z[j] * z[2 * u + j];
        if constexpr (normalized) {
            const T average = p.centred ? mean<Isa>(c, u) : T(0);
            KBPTT_INDEPENDENT
            for (int64_t j = 0; j < u; j++) h[j] -= average;
            norm.state.inverse[0] = standardize<Isa>(h, u, p.epsilon, norm.state.values);
            normalized_state(p, norm, h);
            if (p.carry_normalized) copy(c, h, u);
        }
        activate(a.phi, h, u);
        KBPTT_INDEPENDENT
        for (int64_t j = 0; j < u; j++) h[j] *= z[3 * u + j];
    }

    template <class Isa, bool normalized, class T, class A>
    static KBPTT_INLINE void vjp(const Problem<T> &p, A a, const Residuals<T> &s,
                                 const NormalizedStep<T> &norm, T *dh, T *dc,
                                 T *dz, T *dhu, const VectorGrads<T> &d) {
        const int64_t u = p.units, N = 4 * u;
        T *i = s.gates, *f = i + u, *g = f + u, *o = g + u;
        const T *c_before = s.c_before;
        restore_gate(a.sigma, i, 2 * u);
        restore_gate(a.phi, g, u);
        restore_gate(a.sigma, o, u);
        T *y = dz; /* φ(c_t), until dz is written */
        if constexpr (normalized)
            normalized_state(p, norm, y);
        else if (s.c)
            copy(y, s.c, u);
        else
            KBPTT_INDEPENDENT
            for (int64_t j = 0; j < u; j++) y[j] = f[j] * c_before[j] + i[j] * g[j];
        const auto outer = activate_anew(a.phi, y, dz + 2 * u, u);
        /* ∂L/∂c_t += ∂L/∂h_t ⊙ o ⊙ φ′(c_t) */
        if constexpr (normalized)
            state_vjp<Isa>(p, outer, norm, o, y, dh, dc, dz + u, d);
        else
            KBPTT_INDEPENDENT
            for (int64_t j = 0; j < u; j++) dc[j] += dh[j] * o[j] * activation_grad(outer, y + j);
        KBPTT_INDEPENDENT
        for (int64_t j = 0; j < u; j++) {
            const T out = y[j], e = dc[j];
            dz[j] = e * g[j] * activation_grad(a.sigma, i + j);
            dz[u + j] = e * c_before[j] * activation_grad(a.sigma, f + j);
            dz[2 * u + j] = e * i[j] * activation_grad(a.phi, g + j);
            dz[3 * u + j] = dh[j] * out * activation_grad(a.sigma, o + j);
            dc[j] = e * f[j]; /* the direct path from c_{t−1} to c_t */
            dh[j] = 0;
        }
        accumulate(d.bias, dz, N);
        if constexpr (normalized) {
            copy(dhu, dz, N);
            normalize_vjp<Isa>(dz, N, N, p.input_gain, norm.inputs, d.input_gain);
            normalize_vjp<Isa>(dhu, N, N, p.recurrent_gain, norm.recurrent, d.recurrent_gain);
        }
    }

  private:
    /* LN(c_t), from its residuals. */
    template <class T>
    static KBPTT_INLINE void normalized_state(const Problem<T> &p, const NormalizedStep<T> &norm,
                                              T *out) {
        const T *gain = p.state_gain, *bias = p.state_bias, *values = norm.state.values;
        KBPTT_INDEPENDENT
        for (int64_t j = 0; j < p.units; j++) out[j] = gain[j] * values[j] + bias[j];
    }

    /* Adds to dc what reaches c_t through LN and φ; `scratch` holds u numbers. */
    template <class Isa, class T, class Phi>
    static KBPTT_INLINE void state_vjp(const Problem<T> &p, Phi phi, const NormalizedStep<T> &norm,
                                       const T *o, const T *y, const T *dh,
                                       T *dc, T *scratch, const VectorGrads<T> &sums) {
        const int64_t u = p.units;
        const T *gain = p.state_gain, *values = norm.state.values;
        T *d_gain = sums.state_gain, *d_bias = sums.state_bias;
        KBPTT_INDEPENDENT
        for (int64_t j = 0; j < u; j++) {
            T d = dh[j] * o[j] * activation_grad(phi, y + j);
            if (p.carry_normalized) d += dc[j], dc[j] = 0;
            d_gain[j] += d * values[j];
            d_bias[j] += d;
            scratch[j] = d * gain[j];
        }
        standardize_vjp<Isa>(scratch, values, norm.state.inverse[0], u);
        /* unlike h·U, c is centred in the step */
        const T average = p.centred ? mean<Isa>(scratch, u) : T(0);
        KBPTT_INDEPENDENT
        for (int64_t j = 0; j < u; j++) dc[j] += scratch[j] - average;
    }
};

}  // namespace
}  // namespace kbptt
