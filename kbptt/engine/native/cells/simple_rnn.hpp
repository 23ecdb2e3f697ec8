/* Elman's network (1990): h_t = φ(x_t·W + h_{t−1}·U + b).
   Layer-normalised: h_t = φ(LN(x_t·W + h_{t−1}·U)). */
#pragma once
#include "cell.hpp"

namespace kbptt {
namespace {

struct SimpleRNN {
    static constexpr const char *name = "SimpleRNN";
    static constexpr int gates = 1, states = 1, residuals = 0;
    static constexpr bool separate_hu(bool) { return false; }

    template <class Isa, bool normalized, class T, class A>
    static KBPTT_INLINE void forward(const Problem<T> &p, A a, T *z, T *, T *h,
                                     T *, NormalizedStep<T> &norm) {
        const int64_t u = p.units;
        if constexpr (normalized)
            normalize<Isa>(z, u, u, p.epsilon, p.recurrent_gain, p.bias, norm.recurrent);
        activate_gate(a.phi, z, u);
        copy(h, z, u);
    }

    template <class Isa, bool normalized, class T, class A>
    static KBPTT_INLINE void vjp(const Problem<T> &p, A a, const Residuals<T> &s,
                                 const NormalizedStep<T> &norm, T *dh, T *,
                                 T *dz, T *, const VectorGrads<T> &d) {
        const int64_t u = p.units;
        T *h = s.gates;
        restore_gate(a.phi, h, u);
        KBPTT_INDEPENDENT
        for (int64_t j = 0; j < u; j++) {
            dz[j] = dh[j] * activation_grad(a.phi, h + j); /* ∂L/∂z_t = ∂L/∂h_t ⊙ φ′(z_t) */
            dh[j] = 0;
        }
        accumulate(d.bias, dz, u);
        if constexpr (normalized)
            normalize_vjp<Isa>(dz, u, u, p.recurrent_gain, norm.recurrent, d.recurrent_gain);
    }
};

}  // namespace
}  // namespace kbptt
