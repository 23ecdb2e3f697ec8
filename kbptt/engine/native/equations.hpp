/* The equations of the cells (cells.hpp) as the passes call them: by address, a row at a time. So the
   passes are compiled once for a type of numbers and not once for each cell, and the call costs
   nothing beside the row. */
#pragma once
#include "cells.hpp"

namespace kbptt {
namespace {

/* A cell with or without normalization, with its usual activations or any. */
template <class T> struct Equations {
    int gates, states, residuals;
    bool normalized, usual, separate_hu;
    void (*forward)(const Problem<T> &p, const Chosen &a, T *z, T *hu, T *h, T *c,
                    NormalizedStep<T> &norm);
    void (*vjp)(const Problem<T> &p, const Chosen &a, const Residuals<T> &s,
                const NormalizedStep<T> &norm, T *dh, T *dc, T *dz, T *dhu, const VectorGrads<T> &d);
};

template <class T, class Isa, class Cell, bool normalized, bool usual>
void forward_row(const Problem<T> &p, const Chosen &a, T *z, T *hu, T *h, T *c,
                 NormalizedStep<T> &norm) {
    if constexpr (usual)
        Cell::template forward<Isa, normalized>(p, Usual{}, z, hu, h, c, norm);
    else
        Cell::template forward<Isa, normalized>(p, a, z, hu, h, c, norm);
}

template <class T, class Isa, class Cell, bool normalized, bool usual>
void vjp_row(const Problem<T> &p, const Chosen &a, const Residuals<T> &s,
             const NormalizedStep<T> &norm, T *dh, T *dc, T *dz, T *dhu, const VectorGrads<T> &d) {
    if constexpr (usual)
        Cell::template vjp<Isa, normalized>(p, Usual{}, s, norm, dh, dc, dz, dhu, d);
    else
        Cell::template vjp<Isa, normalized>(p, a, s, norm, dh, dc, dz, dhu, d);
}

template <class T, class Isa, class Cell, bool normalized, bool usual>
constexpr Equations<T> equations_of = {Cell::gates,
                                       Cell::states,
                                       Cell::residuals,
                                       normalized,
                                       usual,
                                       Cell::separate_hu(normalized),
                                       forward_row<T, Isa, Cell, normalized, usual>,
                                       vjp_row<T, Isa, Cell, normalized, usual>};

/* By number of the cell, normalization, and whether the activations are the usual ones. */
template <class T, class Isa, class Cells> struct AllEquations;
template <class T, class Isa, class... Cell> struct AllEquations<T, Isa, List<Cell...>> {
    static constexpr Equations<T> table[][2][2] = {
        {{equations_of<T, Isa, Cell, false, false>, equations_of<T, Isa, Cell, false, true>},
         {equations_of<T, Isa, Cell, true, false>, equations_of<T, Isa, Cell, true, true>}}...};
};

/* Those of a problem. Usual: φ = tanh and σ = sigmoid, or of a cell without gates φ = tanh. */
template <class Isa, class T> const Equations<T> &find_equations(const Problem<T> &p) {
    const auto &found = AllEquations<T, Isa, Cells>::table[p.cell][p.normalized != 0];
    const bool usual =
        p.activation == Activations::number_of<Usual::Phi>() &&
        (found[0].gates == 1 || p.recurrent_activation == Activations::number_of<Usual::Sigma>());
    return found[usual];
}

}  // namespace
}  // namespace kbptt
