/* What a cell consists of. For its equations it is given one row of one timestep:

       forward(p, a, z, hu, h, c, norm)     z = x_t·W + b and hu = h_{t−1}·U become the gates, in
                                            place; h and c those of t
       vjp(p, a, s, norm, dh, dc, dz, dhu, d)
                                            the vector-Jacobian product: ∂L/∂h_t and ∂L/∂c_t become
                                            what reaches h_{t−1} and c_{t−1} other than through U;
                                            dz, dhu: ∂L/∂(x_t·W) and ∂L/∂(h_{t−1}·U)

   and says

       name             of the layer
       gates            blocks of u columns in the kernels
       states           1: h, 2: h and c
       residuals        blocks of u numbers that the forward pass keeps for the vjp beside h and c: the
                        gates and, if more, the last ones of hu; 0: h is the one gate
       separate_hu      whether dz and dhu differ, given whether the cell is normalized. If not, hu is
                        part of z, and dhu is dz */
#pragma once
#include "../activations.hpp"
#include "../normalization.hpp"
#include "../problem.hpp"

namespace kbptt {
namespace {

/* What a vjp reads: the gates, after `restore_gate`, h·U as `forward` leaves it, and states. c may be
   NULL: then it is computed again. */
template <class T> struct Residuals {
    T *gates;
    const T *hu_kept, *h_before, *c_before, *c;
};

/* Sums over rows: the gradients of biases and gains. */
template <class T> struct VectorGrads {
    T *bias, *recurrent_bias, *input_gain, *recurrent_gain, *state_gain, *state_bias;
};

template <class T> void accumulate(T *to, const T *from, int64_t n) {
    KBPTT_INDEPENDENT
    for (int64_t j = 0; j < n; j++) to[j] += from[j];
}

}  // namespace
}  // namespace kbptt
