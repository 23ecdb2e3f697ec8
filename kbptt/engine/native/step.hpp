/* One timestep of a group of rows, as equations.hpp defines it, and what both passes share.

   A row is one sample (forward) or one sample of one window (backward). A group of rows goes
   through time together, because one pass over the recurrent kernel then serves all of them; its
   state stays in the cache. */
#pragma once
#include "equations.hpp"
#include "team.hpp"
#include "zoneout.hpp"

namespace kbptt {
namespace {

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

/* Where the forward pass puts c_t, and finds c_{t−1}. */
template <class T> T *c_at(const Problem<T> &p, int64_t t, int64_t b) {
    return p.c + ((p.slots ? 0 : t * p.batch) + b) * p.units;
}

template <class T> const T *c_before(const Problem<T> &p, int64_t t, int64_t b) {
    if (resets_at(p, t, b)) return p.c_restart + b * p.units;
    return t == 0 ? p.c_start + b * p.units : c_at(p, t - 1, b);
}

/* c_{t−1} afterwards, where it was kept. */
template <class T> const T *kept_c_before(const Problem<T> &p, int64_t t, int64_t b) {
    if (!p.slots || t == 0 || resets_at(p, t, b)) return c_before(p, t, b);
    return p.c + (p.slots[t - 1] * p.batch + b) * p.units;
}

template <class T, class Isa> struct Step {
    using S = Simd<T, Isa>;
    const Problem<T> &whole;
    const Equations<T> &cell;
    const int gates = cell.gates, states = cell.states;
    /* The last blocks of h·U, which the cell keeps as residuals beside its gates. */
    const int kept_hu = cell.residuals > gates ? cell.residuals - gates : 0;
    const Slice slice;
    Zoneout<T> zoneout{whole, slice, states};
    Problem<T> p; /* of the slice: what the equations of the cell see */
    const int64_t u = whole.units, D = whole.features, N = gates * u;
    const int64_t w = slice.width, n = gates * w;
    /* Dropout with a mask for each gate: the factors of their products differ. The blocks of columns
       that are multiplied together, and their sizes. */
    const int64_t blocks = whole.x_masks || whole.h_masks ? gates : 1, block = n / blocks;
    const int64_t block_ld = S::padded(block), ld = S::padded(n - block + block_ld);
    const int64_t widest_ld = S::padded(gates * slice.widest);
    /* Packing the kernels takes as long as one product with few rows. */
    const bool once = whole.batch * whole.timesteps <= 2;
    const int64_t residuals =
        cell.residuals ? cell.residuals
                       : Activations::keeps_argument[whole.activation] || zoneout.active;
    const Chosen listed = chosen(ld); /* of the vjp */
    T *row; /* unusual activations: what is kept of the gates, and in the vjp their derivatives */
    int64_t *columns; /* of the kernels, that belong to the slice */
    T *kernel, *recurrent_kernel, *bias, *scratch;
    NormalizedStep<T> norm;

    Step(const Problem<T> &problem, int64_t thread)
        : whole(problem), cell(find_equations<Isa>(problem)), slice(problem, thread, S::lanes),
          p(problem) {
        p.units = w;
        if (p.recurrent_bias) p.recurrent_bias += slice.first;
    }

    /* `most`: rows of a product. */
    void lay_out(Arena &arena, bool runs_forward, int64_t most) {
        arena.take(columns, n);
        arena.take(bias, ld);
        arena.take(row, 2 * ld);
        arena.take(scratch, scratch_of<Isa, T>(most));
        arena.take(norm.inputs.values, ld);
        arena.take(norm.recurrent.values, ld);
        arena.take(norm.state.values, ld);
        zoneout.lay_out(arena);
        arena.take(kernel, runs_forward && !once ? D * blocks * block_ld : 0);
        arena.take(recurrent_kernel, runs_forward && !once ? u * blocks * block_ld : 0);
    }

    void prepare(bool runs_forward) {
        for (int64_t i = 0; i < n; i++) columns[i] = i / w * u + slice.first + i % w;
        if (p.bias) {
            for (int64_t i = 0; i < n; i++) bias[i] = whole.bias[columns[i]];
            p.bias = bias;
        }
        for (int64_t g = 0; runs_forward && !once && g < blocks; g++) {
            const int64_t *const some = columns + g * block;
            pack<Isa>(whole.kernel, N, D, some, block, kernel + g * D * block_ld);
            pack<Isa>(whole.recurrent_kernel, N, u, some, block, recurrent_kernel + g * u * block_ld);
        }
    }

    /* x_t ⊙ mask, or h_{t−1} ⊙ mask, as block g of the kernels reads it. */
    void read_x(int64_t t, int64_t b, int64_t g, T *out) const {
        masked(whole.x + (b * p.timesteps + t) * D, whole.x_masks, b, g, D, out);
    }
    void read_h(int64_t t, int64_t b, int64_t g, T *out) const {
        masked(h_before(whole, t, b), whole.h_masks, b, g, u, out);
    }

    static void scale(T *values, const T *mask, int64_t size) {
        KBPTT_INDEPENDENT
        for (int64_t j = 0; j < size; j++) values[j] *= mask[j];
    }
    const T *mask_of(const T *masks, int64_t b, int64_t g, int64_t size) const {
        return masks + (g * p.batch + b) * size;
    }

    /* z = x·W + b; with normalization the bias is added after it. x: `rows` rows for each block,
       `apart` numbers apart. */
    void project_inputs(int64_t rows, const T *x, int64_t apart, T *z) const {
        broadcast_rows(cell.normalized ? nullptr : p.bias, n, rows, z, ld);
        for (int64_t g = 0; g < blocks; g++)
            product(rows, D, x + g * apart, g, whole.kernel, kernel, z);
    }

    /* hu = h_{t−1}·U where the cell needs it separate from z, else z += h_{t−1}·U. */
    void hidden_gemm(int64_t rows, const T *h, int64_t apart, T *z, T *hu) const {
        if (cell.separate_hu) {
            broadcast_rows<T>(nullptr, ld, rows, hu, ld);
            if (kept_hu && !cell.normalized)
                broadcast_rows(p.recurrent_bias, kept_hu * w, rows, hu_kept(hu), ld);
        }
        for (int64_t g = 0; g < blocks; g++)
            product(rows, u, h + g * apart, g, whole.recurrent_kernel, recurrent_kernel,
                    cell.separate_hu ? hu : z);
    }

    T *hu_kept(T *hu) const { return hu + (gates - kept_hu) * w; }

    /* h_{t−1} and c_{t−1} of one row become h_t and c_t; z becomes the gates. */
    void forward(T *z, T *hu, T *h, T *c) {
        if (cell.usual)
            cell.forward(p, listed, z, hu, h, c, norm);
        else
            cell.forward(p, chosen(row - z), z, hu, h, c, norm);
    }

    /* c_t as the vjp reads it; NULL where zoneout has put another one in its place. */
    const T *candidate(const T *c) const { return zoneout.active ? nullptr : c; }

    /* What the forward pass kept of a timestep. */
    Residuals<T> kept(int64_t t, int64_t b) const {
        const int64_t first = slice.first;
        Residuals<T> s = {};
        s.h_before = h_before(whole, t, b) + first;
        s.gates = whole.h + (b * whole.timesteps + t) * u + first;
        if (states > 1)
            s.c_before = kept_c_before(whole, t, b) + first, s.c = candidate(c_at(whole, t, b) + first);
        if (residuals) {
            s.gates = whole.gates + residuals * ((t * whole.batch + b) * u + first);
            s.hu_kept = s.gates + gates * w;
        }
        return s;
    }

    /* After `forward`: what the vjp needs of the gates z. */
    T *kept_gates(T *z) const { return cell.usual ? z : row; }

    Chosen chosen(int64_t offset) const {
        return {{p.activation, offset}, {p.recurrent_activation, offset}};
    }

    /* ∂L/∂h_t and ∂L/∂c_t of one row become those of h_{t−1} and c_{t−1} past U; dz, dhu: those of
       x·W and h·U. */
    void vjp(Residuals<T> &s, T *dh, T *dc, T *dz, T *dhu, const VectorGrads<T> &d) {
        if (!cell.usual) {
            if (s.gates != row) copy(row, s.gates, n);
            s.gates = row;
        }
        cell.vjp(p, listed, s, norm, dh, dc, dz, dhu, d);
    }

  private:
    void masked(const T *from, const T *masks, int64_t b, int64_t g, int64_t size, T *out) const {
        copy(out, from, size);
        if (masks) scale(out, mask_of(masks, b, g, size), size);
    }

    /* Adds block g of a product with a kernel to z. */
    void product(int64_t rows, int64_t depth, const T *left, int64_t g, const T *as_given,
                 const T *packed, T *z) const {
        if (!once)
            return multiply<Isa>(Left<T>{left, rows, depth, 1}, block_ld, depth,
                                 packed + g * depth * block_ld, 0, z + g * block, ld, scratch);
        for (int64_t i = g * block; i < (g + 1) * block; i += w)
            multiply_once(rows, w, depth, left, depth, as_given + columns[i], N, z + i, ld);
    }
};

}  // namespace
}  // namespace kbptt
