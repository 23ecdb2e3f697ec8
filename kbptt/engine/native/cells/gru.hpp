/* Gated recurrent unit (Cho et al., 2014), in the form that applies r after the product with U
   (Keras: `reset_after`). With zx, rx, nx = x_t·W + b and zh, rh, nh = h_{t−1}·U:

       z = σ(zx + zh)    r = σ(rx + rh)    n = φ(nx + r ⊙ (nh + b_h))
       h_t = z ⊙ h_{t−1} + (1 − z) ⊙ n

   Layer-normalised: LN of x_t·W and of h_{t−1}·U, the columns of z and r together. */
#pragma once
#include "cell.hpp"

namespace kbptt {
namespace {

struct GRU {
    static constexpr const char *name = "GRU";
    static constexpr int gates = 3, states = 1, residuals = 4; /* z r n, nh + b_h */
    static constexpr bool separate_hu(bool) { return true; }

    template <class Isa, bool normalized, class T, class A>
    static KBPTT_INLINE void forward(const Problem<T> &p, A a, T *z, T *hu,
                                     T *h, T *, NormalizedStep<T> &norm) {
        const int64_t u = p.units;
        if constexpr (normalized) {
            normalize<Isa>(z, 3 * u, 2 * u, p.epsilon, p.input_gain, p.bias, norm.inputs);
            normalize<Isa>(hu, 3 * u, 2 * u, p.epsilon, p.recurrent_gain, {}, norm.recurrent);
            if (p.recurrent_bias) accumulate(hu + 2 * u, p.recurrent_bias, u);
        }
        accumulate(z, hu, 2 * u);
        activate_gate(a.sigma, z, 2 * u);
        KBPTT_INDEPENDENT
        for (int64_t j = 0; j < u; j++) z[2 * u + j] += z[u + j] * hu[2 * u + j];
        activate_gate(a.phi, z + 2 * u, u);
        KBPTT_INDEPENDENT
        for (int64_t j = 0; j < u; j++) h[j] = z[j] * h[j] + (1 - z[j]) * z[2 * u + j];
    }

    template <class Isa, bool normalized, class T, class A>
    static KBPTT_INLINE void vjp(const Problem<T> &p, A a, const Residuals<T> &s,
                                 const NormalizedStep<T> &norm, T *dh, T *,
                                 T *dz, T *dhu, const VectorGrads<T> &d) {
        const int64_t u = p.units;
        T *z = s.gates, *r = z + u, *n = r + u;
        const T *hn = s.hu_kept, *before = s.h_before;
        restore_gate(a.sigma, z, 2 * u);
        restore_gate(a.phi, n, u);
        KBPTT_INDEPENDENT
        for (int64_t j = 0; j < u; j++) {
            const T dn = dh[j] * (1 - z[j]) * activation_grad(a.phi, n + j);
            dz[j] = dhu[j] = dh[j] * (before[j] - n[j]) * activation_grad(a.sigma, z + j);
            dz[u + j] = dhu[u + j] = dn * hn[j] * activation_grad(a.sigma, r + j);
            dz[2 * u + j] = dn;
            dhu[2 * u + j] = dn * r[j];
            dh[j] *= z[j]; /* the direct path from h_{t−1} to h_t */
        }
        accumulate(d.bias, dz, 3 * u);
        accumulate(d.recurrent_bias, dhu + 2 * u, u);
        if constexpr (normalized) {
            normalize_vjp<Isa>(dz, 3 * u, 2 * u, p.input_gain, norm.inputs, d.input_gain);
            normalize_vjp<Isa>(dhu, 3 * u, 2 * u, p.recurrent_gain, norm.recurrent,
                               d.recurrent_gain);
        }
    }
};

}  // namespace
}  // namespace kbptt
