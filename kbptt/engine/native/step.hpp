/* One timestep of a group of rows, as cells (cells.hpp) define it, and what both passes share.

   A row is one sample (forward) or one sample of one window (backward). A group of rows goes
   through time together, because one pass over the recurrent kernel then serves all of them; its
   state stays in the cache. */
#pragma once
#include "cells.hpp"

namespace kbptt {
namespace {

constexpr int64_t GROUP = 48;   /* rows that go through time together */
constexpr int64_t BATCHED = 96; /* rows that a product outside of the recurrence takes at once */

/* Zeroed memory, handed out in pieces that begin at cache lines. `lay_out` of its owner runs twice:
   before `reserve` it only measures. */
class Arena {
    char *memory = nullptr, *begin = nullptr;
    size_t used = 0;

  public:
    Arena() = default;
    Arena(const Arena &) = delete;
    Arena &operator=(const Arena &) = delete;
    ~Arena() { free(memory); }

    template <class T> void take(T *&piece, int64_t elements) {
        piece = reinterpret_cast<T *>(begin + (memory ? used : 0));
        used += (elements * sizeof(T) + 63) / 64 * 64;
    }

    bool reserve() {
        memory = static_cast<char *>(calloc(used + 64, 1));
        begin = memory + -reinterpret_cast<uintptr_t>(memory) % 64;
        used = 0;
        return memory != nullptr;
    }
};

template <class T> bool masked_at(const Problem<T> &p, int64_t t, int64_t b) {
    return p.mask && !p.mask[b * p.timesteps + t];
}

template <class T> bool resets_at(const Problem<T> &p, int64_t t, int64_t b) {
    return p.resets && p.resets[b * p.timesteps + t];
}

/* h_{t−1} and c_{t−1} of a sample. */
template <class T> const T *h_before(const Problem<T> &p, int64_t t, int64_t b) {
    if (resets_at(p, t, b)) return p.h_restart + b * p.units;
    return t == 0 ? p.h_start + b * p.units : p.h + (b * p.timesteps + t - 1) * p.units;
}

template <class T> const T *c_before(const Problem<T> &p, int64_t t, int64_t b) {
    if (resets_at(p, t, b)) return p.c_restart + b * p.units;
    return (t == 0 ? p.c_start : p.c + (t - 1) * p.batch * p.units) + b * p.units;
}

/* Whether φ = tanh and σ = sigmoid, or a cell without gates has φ = tanh. */
template <class Cell, class T> bool has_usual_activations(const Problem<T> &p) {
    return p.activation == Activations::number_of<Usual::Phi>() &&
           (Cell::gates == 1 || p.recurrent_activation == Activations::number_of<Usual::Sigma>());
}

template <class T, class Isa, class Cell, bool normalized> struct Step {
    static constexpr bool separate_hu = Cell::separate_hu(normalized);
    /* The last blocks of h·U, which the cell keeps as residuals beside its gates. */
    static constexpr int kept_hu = Cell::residuals > Cell::gates ? Cell::residuals - Cell::gates : 0;

    const Problem<T> &p;
    const int64_t u = p.units, N = Cell::gates * u, ld = Simd<T, Isa>::padded(N);
    const bool usual = has_usual_activations<Cell>(p);
    const int64_t residuals =
        Cell::residuals ? Cell::residuals : Activations::keeps_argument[p.activation];
    T *kernel, *recurrent_kernel; /* packed */
    T *row; /* unusual activations: what is kept of the gates, and in the vjp their derivatives */
    NormalizedStep<T> norm;

    explicit Step(const Problem<T> &problem) : p(problem) {}

    void lay_out(Arena &arena) {
        arena.take(kernel, p.features * ld);
        arena.take(recurrent_kernel, u * ld);
        arena.take(row, 2 * ld);
        arena.take(norm.inputs.values, ld);
        arena.take(norm.recurrent.values, ld);
        arena.take(norm.state.values, ld);
    }

    void pack_kernels() {
        pack<Isa>(p.kernel, p.features, N, false, kernel);
        pack<Isa>(p.recurrent_kernel, u, N, false, recurrent_kernel);
    }

    /* z = x·W + b; with normalization the bias is added after it. */
    void project_inputs(int64_t rows, const T *x, T *z) const {
        broadcast_rows(normalized ? nullptr : p.bias, N, rows, z, ld);
        multiply<Isa>(rows, ld, p.features, x, p.features, 1, kernel, 0, z, ld);
    }

    /* hu = h_{t−1}·U where the cell needs it separate from z, else z += h_{t−1}·U. */
    void hidden_gemm(int64_t rows, const T *h, T *z, T *hu) const {
        if (separate_hu) {
            broadcast_rows<T>(nullptr, ld, rows, hu, ld);
            if (kept_hu && !normalized)
                broadcast_rows(p.recurrent_bias, kept_hu * u, rows, hu_kept(hu), ld);
        }
        multiply<Isa>(rows, ld, u, h, u, 1, recurrent_kernel, 0, separate_hu ? hu : z, ld);
    }

    T *hu_kept(T *hu) const { return hu + (Cell::gates - kept_hu) * u; }

    /* h_{t−1} and c_{t−1} of one row become h_t and c_t; z becomes the gates. */
    KBPTT_INLINE void forward(T *z, T *hu, T *h, T *c) {
        if (usual)
            Cell::template forward<Isa, normalized>(p, Usual{}, z, hu, h, c, norm);
        else
            Cell::template forward<Isa, normalized>(p, chosen(row - z), z, hu, h, c, norm);
    }

    /* After `forward`: what the vjp needs of the gates z. */
    T *kept_gates(T *z) const { return usual ? z : row; }

    Chosen chosen(int64_t offset) const {
        return {{p.activation, offset}, {p.recurrent_activation, offset}};
    }

    /* ∂L/∂h_t and ∂L/∂c_t of one row become those of h_{t−1} and c_{t−1} past U; dz, dhu: those of
       x·W and h·U. */
    KBPTT_INLINE void vjp(Residuals<T> s, T *dh, T *dc, T *dz, T *dhu,
                          const VectorGrads<T> &d) {
        if (usual)
            return Cell::template vjp<Isa, normalized>(p, Usual{}, s, norm, dh, dc, dz, dhu, d);
        if (s.gates != row) copy(row, s.gates, N);
        s.gates = row;
        Cell::template vjp<Isa, normalized>(p, chosen(ld), s, norm, dh, dc, dz, dhu, d);
    }
};

}  // namespace
}  // namespace kbptt
