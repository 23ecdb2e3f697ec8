/* The vanishing-gradient regularizer Ω (Pascanu et al., 2013): how much ‖Jᵀv‖ differs from ‖v‖. */
#pragma once
#include "products.hpp"
#include "problem.hpp"

namespace kbptt {
namespace {

/* One sample's part of Ω at one timestep, of v = ∂L/∂h_t with its norm, and `vjp` = Jᵀv. Its gradient
   goes to the recurrent kernel: ∂L/∂U = Σ h_{t−1}ᵀ·dhu, and of a function of Jᵀv = dhu·Uᵀ it is
   Σ dᵀ·dhu, so that adding d to the h that is multiplied serves both. */
template <class Isa, class T> double omega(const Problem<T> &p, double v, const T *vjp, T *h) {
    if (!(v > p.smallest_norm && v < INFINITY)) return 0;
    const double length = norm<Isa>(vjp, p.units), ratio = length / v;
    const bool squared = p.penalty == SQUARED_RATIO;
    const double error = (squared ? ratio * ratio : ratio) - 1;
    const double scale = squared      ? 4 * error / (v * v)
                         : length > 0 ? 2 * error / (v * length)
                                      : 0;
    const T factor = T(*p.penalty_weight * scale / p.batch);
    for (int64_t j = 0; j < p.units; j++) h[j] += factor * vjp[j];
    return error * error / p.batch;
}

}  // namespace
}  // namespace kbptt
