/* The backward pass: truncated backpropagation through time. Numbers in comments are sections of the
   guide on BPTT, whose notation they use.

   The rows of all windows go back in time in groups. Every step needs one vector-Jacobian product of
   the cell and one product with Uᵀ (2.4); as ∂L/∂h_t is cached, the gradients of the kernels are
   sums over t (2.5), taken BATCHED rows at a time. */
#pragma once
#include "step.hpp"

namespace kbptt {
namespace {

template <class T, class Isa, class Cell, bool normalized> class Backward {
    using CellStep = Step<T, Isa, Cell, normalized>;
    static constexpr int states = Cell::states;

    const Problem<T> &p;
    const int64_t thread, first, last;
    const int64_t batch = p.batch, timesteps = p.timesteps, features = p.features, u = p.units;
    CellStep step{p};
    const int64_t N = step.N, ld = step.ld; /* row lengths, padded to vectors: ld, lu, lD */
    const int64_t lu = Simd<T, Isa>::padded(u), lD = Simd<T, Isa>::padded(features);
    const bool recompute_gates = normalized || (step.residuals && !p.gates);
    Arena arena;
    T *kernel_t, *recurrent_t; /* packed */

    /* Gradients summed by this thread. Those of vectors are sums over the buffered rows, then added
       to `totals`: see `tile`. What is not to be summed goes to the sink. */
    T *d_kernel, *d_recurrent, *sums, *totals, *sink;
    const int64_t vectors = 3 * ld + 3 * lu;
    T *d_start[states], *d_restart[states];
    double penalty = 0;

    /* Rows buffered for the weight- and input-gradient products, with their (b, t). */
    T *dz, *dhu, *xs, *hs, *dxs;
    int64_t buffered = 0, position[BATCHED];

    /* The group of rows that goes back in time: (b, t), carried gradients, ‖∂L/∂h_t‖. */
    int64_t bs[GROUP], ts[GROUP];
    T *carried[states];
    double norms[GROUP];
    T *z, *hu, *h_again, *c_again; /* of recomputed gates */

    /* Where windows overlap: this thread's samples, and Σ over the windows of ∂L/∂h_t and ∂L/∂c_t,
       (samples, timesteps, u). */
    const int64_t b0 = p.overlapping ? first : 0, samples = p.overlapping ? last - first : batch;
    T *total_gradient[states];

    void lay_out() {
        step.lay_out(arena);
        arena.take(kernel_t, N * lD);
        arena.take(recurrent_t, N * lu);
        arena.take(d_kernel, features * ld);
        arena.take(d_recurrent, u * ld);
        arena.take(sums, vectors);
        arena.take(totals, vectors);
        arena.take(sink, vectors);
        arena.take(dz, BATCHED * ld);
        if (CellStep::separate_hu)
            arena.take(dhu, BATCHED * ld);
        else
            dhu = dz;
        arena.take(xs, BATCHED * features);
        arena.take(hs, BATCHED * u);
        arena.take(dxs, BATCHED * lD);
        arena.take(z, GROUP * ld);
        arena.take(hu, GROUP * ld);
        arena.take(h_again, lu);
        arena.take(c_again, lu);
        for (int i = 0; i < states; i++) {
            arena.take(carried[i], GROUP * lu);
            arena.take(total_gradient[i], p.overlapping ? samples * timesteps * u : 0);
        }
    }

    VectorGrads<T> vectors_in(T *block) const {
        T *small = block + 3 * ld;
        return {block, small, block + ld, block + 2 * ld, small + lu, small + 2 * lu};
    }

  public:
    Backward(const Problem<T> &problem, int64_t thread_, int64_t first_, int64_t last_)
        : p(problem), thread(thread_), first(first_), last(last_) {}

    /* Of all (window, sample) rows those from `first` up to `last`; where windows overlap, all
       windows of the samples from `first` up to `last`. False: no memory. */
    bool run() {
        lay_out();
        if (!arena.reserve()) return false;
        lay_out();
        T *const starts[] = {p.d_h_start, p.d_c_start};
        T *const restarts[] = {p.d_h_restart, p.d_c_restart};
        for (int i = 0; i < states; i++) {
            d_start[i] = starts[i] + thread * batch * u;
            if (p.resets) d_restart[i] = restarts[i] + thread * batch * u;
        }
        if (recompute_gates) step.pack_kernels();
        pack<Isa>(p.kernel, N, features, true, kernel_t);
        pack<Isa>(p.recurrent_kernel, N, u, true, recurrent_t);
        if (p.overlapping) {
            bptt_windows(0, p.windows * samples);
            sum_totals();
        } else {
            bptt_windows(first, last);
        }
        flush_products();
        write_gradients();
        return true;
    }

  private:
    /* 1.2: the gradient of a window's rows starts at 0 at its end and goes back no further than its
       start. Where windows overlap, ∂L/∂h_t and ∂L/∂c_t are summed over the windows first, because
       everything else is linear in them. */
    void bptt_windows(int64_t row, int64_t end) {
        while (row < end) {
            const int64_t w = row / samples, R = enter_windows(row, end);
            for (int64_t s = 0; s < p.ends[w] - p.starts[w]; s++) {
                for (int64_t r = 0; r < R; r++) {
                    ts[r]--;
                    add_upstream(r, s < p.ends[w] - p.entries[w]);
                }
                step_vjp(R, !p.overlapping);
                carry_gradient(R);
            }
            row += R;
        }
    }

    /* The group of the rows from `row` on, at the ends of their windows; returns its size. Windows of
       one length go together; those at the ends of the sequence may be shorter. */
    int64_t enter_windows(int64_t row, int64_t end) {
        const int64_t w0 = row / samples, span = p.ends[w0] - p.starts[w0];
        const int64_t entry = p.ends[w0] - p.entries[w0];
        int64_t R = 0;
        for (; R < GROUP && row + R < end; R++) {
            const int64_t w = (row + R) / samples, b = b0 + (row + R) % samples;
            if (p.ends[w] - p.starts[w] != span || p.ends[w] - p.entries[w] != entry) break;
            bs[R] = b;
            ts[R] = p.ends[w];
            const T *const finals[] = {p.dh_final, p.dc_final};
            for (int i = 0; i < states; i++) {
                fill_zeros(carried[i] + R * lu, lu);
                /* 2.3: ∂L/∂h_T */
                if (w + 1 == p.windows) copy(carried[i] + R * lu, finals[i] + b * u, u);
            }
        }
        return R;
    }

    /* 2.4: ∂L/∂h_t is the carried gradient and, with `entering`, the loss's own: W_qhᵀ ∂L/∂o_t. */
    void add_upstream(int64_t r, bool entering) {
        const int64_t at = (bs[r] * timesteps + ts[r]) * u, own = at - b0 * timesteps * u;
        if (p.dh && entering) accumulate(carried[0] + r * lu, p.dh + at, u);
        if (p.overlapping)
            for (int i = 0; i < states; i++)
                accumulate(total_gradient[i] + own, carried[i] + r * lu, u);
    }

    /* The gradients of the weights from ∂L/∂h_t summed over overlapping windows. */
    void sum_totals() {
        const int64_t rows = samples * timesteps;
        for (int64_t row = 0; row < rows; row += GROUP) {
            const int64_t R = rows - row < GROUP ? rows - row : GROUP;
            for (int64_t r = 0; r < R; r++) {
                bs[r] = b0 + (row + r) / timesteps;
                ts[r] = (row + r) % timesteps;
                for (int i = 0; i < states; i++)
                    copy(carried[i] + r * lu, total_gradient[i] + (row + r) * u, u);
            }
            step_vjp(R, true);
        }
    }

    /* 2.4: from ∂L/∂h_t and ∂L/∂c_t of R rows to ∂L/∂h_{t−1} = Uᵀ ∂L/∂(h_{t−1}·U) and ∂L/∂c_{t−1}.
       With `summed` the rows are buffered for the gradients of the weights. */
    void step_vjp(int64_t R, bool summed) {
        if (buffered + R > BATCHED) flush_products();
        T *h = hs + buffered * u, *x = xs + buffered * features;
        for (int64_t r = 0; r < R; r++) {
            const int64_t at = position[buffered + r] = bs[r] * timesteps + ts[r];
            copy(h + r * u, h_before(p, ts[r], bs[r]), u);
            copy(x + r * features, p.x + at * features, features);
        }
        if (recompute_gates) {
            step.project_inputs(R, x, z);
            step.hidden_gemm(R, h, z, hu);
        }
        for (int64_t r = 0; r < R; r++) row_vjp(r, summed);
        multiply<Isa>(R, lu, N, dhu + buffered * ld, ld, 1, recurrent_t, 0, carried[0], lu);
        if (!summed) return;
        for (int64_t r = 0; p.penalty && r < R; r++) penalize(r);
        buffered += R;
    }

    /* One row: through the cell, to dz = ∂L/∂(x·W) and dhu = ∂L/∂(h_{t−1}·U). */
    void row_vjp(int64_t r, bool summed) {
        const int64_t t = ts[r], b = bs[r], at = (t * batch + b) * u, row = buffered + r;
        T *dh = carried[0] + r * lu, *dc = carried[states - 1] + r * lu;
        if (summed && (p.norms || p.penalty)) {
            norms[r] = float(norm<Isa>(dh, u));
            if (p.norms) p.norms[b * timesteps + t] = float(norms[r]);
        }
        if (masked_at(p, t, b)) { /* h_t = h_{t−1}: the gradient passes */
            fill_zeros(dz + row * ld, N);
            fill_zeros(dhu + row * ld, N);
            return;
        }
        Residuals<T> s = {};
        s.h_before = hs + row * u, s.gates = p.h + (b * timesteps + t) * u;
        if (states > 1) s.c_before = c_before(p, t, b), s.c = p.c + at;
        if (!recompute_gates && step.residuals) {
            s.gates = p.gates + step.residuals * at;
            s.hu_kept = s.gates + Cell::gates * u;
        }
        if (recompute_gates) {
            s.hu_kept = step.hu_kept(hu + r * ld);
            copy(h_again, s.h_before, u);
            if (states > 1) copy(c_again, s.c_before, u);
            step.forward(z + r * ld, hu + r * ld, h_again, c_again);
            s.gates = step.kept_gates(z + r * ld);
        }
        step.vjp(s, dh, dc, dz + row * ld, dhu + row * ld, vectors_in(summed ? sums : sink));
    }

    /* Ω: how much ‖Jᵀv‖ differs from ‖v‖ (Pascanu et al., 2013). ∂L/∂U = Σ h_{t−1}ᵀ·dhu, and of a
       function of Jᵀv = dhu·Uᵀ it is Σ dᵀ·dhu: adding d to the buffered h_{t−1} serves both. */
    void penalize(int64_t r) {
        const int64_t t = ts[r], b = bs[r];
        const double v = norms[r], weight = *p.penalty_weight;
        if (t == 0 || masked_at(p, t, b) || resets_at(p, t, b)) return;
        if (!(v > p.smallest_norm && v < INFINITY)) return;
        const T *vjp = carried[0] + r * lu;
        const double length = norm<Isa>(vjp, u), ratio = length / v;
        const bool squared = p.penalty == SQUARED_RATIO;
        const double error = (squared ? ratio * ratio : ratio) - 1;
        const double scale = squared      ? 4 * error / (v * v)
                             : length > 0 ? 2 * error / (v * length)
                                          : 0;
        penalty += error * error / batch;
        const T factor = T(weight * scale / batch);
        T *h = hs + (buffered + r) * u;
        for (int64_t j = 0; j < u; j++) h[j] += factor * vjp[j];
    }

    /* Apply resets, ξ (1.3) and clipping to the gradient carried from t to t−1. */
    void carry_gradient(int64_t R) {
        const T clip = T(p.clip);
        for (int64_t r = 0; r < R; r++)
            for (int i = 0; i < states; i++) {
                const int64_t t = ts[r], b = bs[r];
                T *d = carried[i] + r * lu;
                if (resets_at(p, t, b)) {
                    accumulate(d_restart[i] + b * u, d, u);
                    fill_zeros(d, u);
                }
                if (p.factors)
                    for (int64_t j = 0; j < u; j++) d[j] *= p.factors[t * batch + b];
                if (clip < INFINITY)
                    for (int64_t j = 0; j < u; j++)
                        d[j] = d[j] < -clip ? -clip : d[j] > clip ? clip : d[j];
                if (t == 0) accumulate(d_start[i] + b * u, d, u);
            }
    }

    /* 2.5: ∂L/∂W_hh += Σ h_{t−1}ᵀ·dhu, ∂L/∂W_hx += Σ x_tᵀ·dz, and ∂L/∂x_t = dz·Wᵀ, over the
       buffered rows. */
    void flush_products() {
        multiply<Isa>(u, ld, buffered, hs, 1, u, dhu, ld, d_recurrent, ld);
        multiply<Isa>(features, ld, buffered, xs, 1, features, dz, ld, d_kernel, ld);
        fill_zeros(dxs, buffered * lD);
        multiply<Isa>(buffered, lD, N, dz, ld, 1, kernel_t, 0, dxs, lD);
        for (int64_t i = 0; i < buffered; i++)
            copy(p.dx + position[i] * features, dxs + i * lD, features);
        accumulate(totals, sums, vectors);
        fill_zeros(sums, vectors);
        buffered = 0;
    }

    void write_gradients() {
        const VectorGrads<T> v = vectors_in(totals);
        write(p.d_kernel, d_kernel, features, N, ld);
        write(p.d_recurrent_kernel, d_recurrent, u, N, ld);
        write(p.d_bias, v.bias, 1, N, ld);
        write(p.d_recurrent_bias, v.recurrent_bias, 1, u, lu);
        write(p.d_input_gain, v.input_gain, 1, N, ld);
        write(p.d_recurrent_gain, v.recurrent_gain, 1, N, ld);
        write(p.d_state_gain, v.state_gain, 1, u, lu);
        write(p.d_state_bias, v.state_bias, 1, u, lu);
        if (p.penalty_value) p.penalty_value[thread] = penalty;
    }

    /* Copies this thread's (rows, n) sums, padded to `padded`, to where they are wanted. */
    void write(T *to, const T *from, int64_t rows, int64_t n, int64_t padded) const {
        for (int64_t k = 0; to && k < rows; k++)
            copy(to + (thread * rows + k) * n, from + k * padded, n);
    }
};

}  // namespace
}  // namespace kbptt
