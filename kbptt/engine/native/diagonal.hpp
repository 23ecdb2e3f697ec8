/* SnAp-1 (Menick et al., 2020): of U the diagonal of each gate's block alone, from each unit to itself. */
#pragma once
#include "step.hpp"

namespace kbptt {
namespace {

/* The diagonals of the slice's units, gate after gate. */
template <class CellStep, class T> void pack_diagonals(const CellStep &step, T *out) {
    const T *const kernel = step.whole.recurrent_kernel;
    for (int64_t i = 0; i < step.n; i++)
        out[i] = kernel[(step.slice.first + i % step.w) * step.N + step.columns[i]];
}

/* Adds what of a row of ∂L/∂(h_{t−1}·U) reaches each unit's own h_{t−1}. */
template <class CellStep, class T>
void back_through_diagonals(const CellStep &step, const T *dhu, const T *diagonals, int64_t b, T *dh) {
    const int64_t w = step.w, u = step.u;
    const T *const masks = step.whole.h_masks;
    for (int64_t i = 0; i < step.n; i++) {
        const int64_t g = i / w, j = i % w;
        const T mask = masks ? step.mask_of(masks, b, g, u)[step.slice.first + j] : T(1);
        dh[j] += dhu[i] * diagonals[i] * mask;
    }
}

}  // namespace
}  // namespace kbptt
