/* The vanishing-gradient regularizer Ω (Pascanu et al., 2013): how much ‖Jᵀv‖ differs from ‖v‖. */
#pragma once
#include "products.hpp"
#include "problem.hpp"

namespace kbptt {
namespace {

/* Its gradient goes to the recurrent kernel: ∂L/∂U = Σ h_{t−1}ᵀ·dhu, and of a function of
   Jᵀv = dhu·Uᵀ it is Σ dᵀ·dhu, so that adding d = `factor`·Jᵀv to the h that is multiplied serves
   both. */
template <class T> struct Omega {
    double value;
    T factor;
};

/* One sample's part of Ω at one timestep, of v = ∂L/∂h_t with its norm, and `vjp` = Jᵀv. */
template <class Isa, class T> Omega<T> omega(const Problem<T> &p, double v, const T *vjp) {
    if (!(v > p.smallest_norm && v < INFINITY)) return {0, 0};
    const double length = norm<Isa>(vjp, p.units), ratio = length / v;
    const bool squared = p.penalty == SQUARED_RATIO;
    const double error = (squared ? ratio * ratio : ratio) - 1;
    const double scale = squared      ? 4 * error / (v * v)
                         : length > 0 ? 2 * error / (v * length)
                                      : 0;
    return {error * error / p.batch, T(*p.penalty_weight * scale / p.batch)};
}

}  // namespace
}  // namespace kbptt
