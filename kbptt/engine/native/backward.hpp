/* The backward pass: truncated backpropagation through time. Numbers in comments are sections of the
   guide on BPTT, whose notation they use.

   The rows of all windows go back in time in groups. Every step needs one vector-Jacobian product of
   the cell and one product with Uᵀ (2.4); as ∂L/∂h_t is cached, the gradients of the kernels are
   sums over t (2.5), taken BATCHED rows at a time. */
#pragma once
#include "carry.hpp"
#include "diagonal.hpp"
#include "omega.hpp"
#include "replay.hpp"

namespace kbptt {
namespace {

template <class T, class Isa> class Backward {
    using S = Simd<T, Isa>;

    Step<T, Isa> step;
    const Problem<T> &p = step.whole;
    const Slice &slice = step.slice;
    const Meeting meeting{p, slice};
    const int64_t thread, first, last;
    const int states = step.states, gates = step.gates;
    const int64_t batch = p.batch, timesteps = p.timesteps, D = step.D, u = step.u, N = step.N;
    const int64_t w = step.w, n = step.n, ld = step.ld, lw = S::padded(w);
    const int64_t blocks = step.blocks, block = step.block, block_ld = step.block_ld;
    const int64_t row_ld = blocks * block_ld; /* of the gradients of the kernels */
    /* A row of dz: the gates of every thread's units, one thread after the other, and room for the
       padding of the last one's blocks. */
    const int64_t room = blocks > 1 ? 2 * S::lanes : 0, own = gates * slice.first;
    const int64_t dz_ld = slice.members > 1 ? S::padded(N + room) : ld;
    /* The columns of ∂L/∂x that this thread computes. */
    const int64_t x0 = slice.bound(D, slice.member, S::lanes);
    const int64_t xw = slice.bound(D, slice.member + 1, S::lanes) - x0;
    const int64_t xl = S::padded(xw);
    /* A group's gates and gradients stay in the second-level cache; the sums of the weight gradients
       pass through it once for so many buffered rows. */
    const int64_t most = rows_of_group(LEAST_BACKWARD, 3 * step.widest_ld * sizeof(T));
    const int64_t batched = between(2 * most, BATCHED_BYTES / (dz_ld * sizeof(T)), BATCHED);
    int64_t *order; /* of dz's columns among those of the kernels */
    T *kernel_t, *recurrent_t; /* packed */

    /* Gradients summed by this thread. Those of vectors are sums over the buffered rows, then added
       to `totals`: see `tile`. What is not to be summed goes to the sink. */
    T *d_kernel, *d_recurrent, *sums, *totals, *sink;
    VectorGrads<T> summed_here, dropped; /* in `sums`, in `sink` */
    const int64_t vectors = 3 * ld + 3 * lw;
    double penalty = 0;

    /* Rows buffered for the weight- and input-gradient products, with their (b, t). The team's
       threads read each other's dz. */
    T *dz, *dhu, *xs, *hs, *dxs;
    int64_t buffered = 0, position[BATCHED];

    /* The group of rows that goes back in time: (b, t), carried gradients, ‖∂L/∂h_t‖. */
    int64_t bs[GROUP], ts[GROUP];
    T *carried[2], *through; /* Uᵀ of one block */
    /* Whether what flows through U is multiplied on its way. */
    const bool factored = blocks > 1 || p.h_masks || p.through_factors;
    double norms[GROUP];
    Replay<T, Isa> replay{step, most};
    const Carry<T> carry{p, slice, states};

    /* Where windows overlap: this team's samples, and Σ over the windows of ∂L/∂h_t and ∂L/∂c_t,
       (samples, timesteps, w). */
    const int64_t b0 = p.overlapping ? first : 0, samples = p.overlapping ? last - first : batch;
    T *total_gradient[2];

    /* Columns of dz that a product reads at once: all of them, or with dropout those of one block of
       one thread's units. */
    struct Piece {
        int64_t begin, depth;
    };
    const int64_t pieces = blocks > 1 ? slice.members : 1; /* of each block */
    Piece piece(int64_t g, int64_t of) const {
        if (blocks == 1) return {0, dz_ld};
        const int64_t from = slice.bound(u, of, S::lanes);
        const int64_t width = slice.bound(u, of + 1, S::lanes) - from;
        return {gates * from + g * width, width};
    }

    VectorGrads<T> vectors_in(T *part) const {
        T *small = part + 3 * ld;
        return {part, small, part + ld, part + 2 * ld, small + lw, small + 2 * lw};
    }

  public:
    Backward(const Problem<T> &problem, int64_t thread_, int64_t first_, int64_t last_)
        : step(problem, thread_), thread(thread_), first(first_), last(last_) {}

    /* Rows per group; the last one may be smaller. */
    int64_t rows_at_once() const {
        return evenly(p.overlapping ? p.windows * samples : last - first, most);
    }

    KBPTT_APART int64_t lay_out_shared(char *memory) {
        Arena arena(memory);
        arena.take(dz, batched * dz_ld);
        dhu = dz;
        if (step.cell.separate_hu) arena.take(dhu, batched * dz_ld);
        return arena.used;
    }

    KBPTT_APART int64_t lay_out(char *memory) {
        Arena arena(memory);
        const int64_t widest_left = u > D ? u : D; /* of the sums; that of ∂L/∂x is the buffer */
        step.lay_out(arena, replay.needed, widest_left > batched ? widest_left : batched);
        replay.lay_out(arena);
        arena.take(order, dz_ld);
        arena.take(kernel_t, p.dx ? dz_ld * xl : 0);
        arena.take(recurrent_t, dz_ld * lw);
        arena.take_zeros(d_kernel, D * row_ld);
        arena.take_zeros(d_recurrent, u * row_ld);
        arena.take_zeros(sums, vectors);
        arena.take_zeros(totals, vectors);
        arena.take(sink, vectors);
        arena.take(xs, blocks * batched * D);
        arena.take(hs, blocks * batched * u);
        arena.take(dxs, p.dx ? batched * xl : 0);
        arena.take(through, factored ? GROUP * lw : 0);
        for (int i = 0; i < states; i++) {
            arena.take_zeros(carried[i], GROUP * lw);
            arena.take_zeros(total_gradient[i], p.overlapping ? samples * timesteps * w : 0);
        }
        return arena.used;
    }

    /* Of all (window, sample) rows those from `first` up to `last`; where windows overlap, all
       windows of the samples from `first` up to `last`. */
    void run() {
        prepare();
        if (p.overlapping) {
            bptt_windows(0, p.windows * samples);
            sum_totals();
        } else {
            bptt_windows(first, last);
        }
        flush_products();
        write_gradients();
    }

  private:
    void prepare() {
        step.prepare(replay.needed);
        summed_here = vectors_in(sums), dropped = vectors_in(sink);
        for (int64_t i = 0; i < dz_ld; i++) order[i] = -1;
        for (int64_t m = 0; m < slice.members; m++) {
            const int64_t from = slice.bound(u, m, S::lanes);
            const int64_t width = slice.bound(u, m + 1, S::lanes) - from;
            for (int64_t i = 0; i < gates * width; i++)
                order[gates * from + i] = i / width * u + from + i % width;
        }
        for (int64_t i = 0; i < blocks * pieces; i++) {
            const Piece some = piece(i / pieces, i % pieces);
            if (!p.diagonal)
                pack_transposed<Isa>(p.recurrent_kernel, N, order + some.begin, some.depth,
                                     slice.first, w, recurrent_t + some.begin * lw);
            if (p.dx)
                pack_transposed<Isa>(p.kernel, N, order + some.begin, some.depth, x0, xw,
                                     kernel_t + some.begin * xl);
        }
        if (p.diagonal) pack_diagonals(step, recurrent_t);
        for (int64_t i = 0; i < batched; i++) { /* the padding is multiplied, too */
            fill_zeros(dz + i * dz_ld + own + n, ld - n);
            fill_zeros(dhu + i * dz_ld + own + n, ld - n);
        }
    }

    /* 1.2: the gradient of a window's rows starts at 0 at its end and goes back no further than its
       start. Where windows overlap, ∂L/∂h_t and ∂L/∂c_t are summed over the windows first, because
       everything else is linear in them. */
    void bptt_windows(int64_t row, int64_t end) {
        while (row < end) {
            const int64_t k = row / samples, R = enter_windows(row, end);
            const int64_t steps = p.ends[k] - p.starts[k];
            for (int64_t s = 0; s < steps; s++) {
                for (int64_t r = 0; r < R; r++) {
                    ts[r]--;
                    add_upstream(r, s < p.ends[k] - p.entries[k]);
                }
                /* In steps of the span from the window's start on: c was kept there. */
                if (replay.needed && (s == 0 || (steps - s) % replay.span == 0))
                    replay.run(bs, ts, R, (steps - s - 1) % replay.span + 1);
                step_vjp(R, !p.overlapping);
                for (int64_t r = 0; r < R; r++) {
                    T *const d[] = {carried[0] + r * lw, carried[states - 1] + r * lw};
                    carry.run(ts[r], bs[r], d);
                }
            }
            row += R;
        }
    }

    /* The group of the rows from `row` on, at the ends of their windows; returns its size. Windows of
       one length go together; those at the ends of the sequence may be shorter. */
    int64_t enter_windows(int64_t row, int64_t end) {
        const int64_t k0 = row / samples, span = p.ends[k0] - p.starts[k0];
        const int64_t entry = p.ends[k0] - p.entries[k0];
        const int64_t size = evenly(end - row, most);
        int64_t R = 0;
        for (; R < size && row + R < end; R++) {
            const int64_t k = (row + R) / samples, b = b0 + (row + R) % samples;
            if (p.ends[k] - p.starts[k] != span || p.ends[k] - p.entries[k] != entry) break;
            bs[R] = b;
            ts[R] = p.ends[k];
            const T *const finals[] = {p.dh_final, p.dc_final};
            for (int i = 0; i < states; i++) {
                fill_zeros(carried[i] + R * lw, lw);
                /* 2.3: ∂L/∂h_T */
                if (k + 1 == p.windows)
                    copy(carried[i] + R * lw, finals[i] + b * u + slice.first, w);
            }
        }
        return R;
    }

    /* 2.4: ∂L/∂h_t is the carried gradient and, with `entering`, the loss's own: W_qhᵀ ∂L/∂o_t. */
    void add_upstream(int64_t r, bool entering) {
        const int64_t at = bs[r] * timesteps + ts[r];
        if (p.dh && entering) accumulate(carried[0] + r * lw, p.dh + at * u + slice.first, w);
        if (p.overlapping)
            for (int i = 0; i < states; i++)
                accumulate(total_gradient[i] + (at - b0 * timesteps) * w, carried[i] + r * lw, w);
    }

    /* The gradients of the weights from ∂L/∂h_t summed over overlapping windows. */
    void sum_totals() {
        const int64_t rows = samples * timesteps;
        for (int64_t row = 0; row < rows; row += most) {
            const int64_t R = rows - row < most ? rows - row : most;
            for (int64_t r = 0; r < R; r++) {
                bs[r] = b0 + (row + r) / timesteps;
                ts[r] = (row + r) % timesteps;
                for (int i = 0; i < states; i++)
                    copy(carried[i] + r * lw, total_gradient[i] + (row + r) * w, w);
            }
            if (replay.needed) replay.run(bs, ts, R, 1);
            step_vjp(R, true);
        }
    }

    /* 2.4: from ∂L/∂h_t and ∂L/∂c_t of R rows to ∂L/∂h_{t−1} = Uᵀ ∂L/∂(h_{t−1}·U) and ∂L/∂c_{t−1}.
       With `summed` the rows are buffered for the gradients of the weights. */
    void step_vjp(int64_t R, bool summed) {
        if (buffered + R > batched) flush_products();
        for (int64_t r = 0; r < R; r++) {
            position[buffered + r] = bs[r] * timesteps + ts[r];
            for (int64_t g = 0; g < blocks; g++) {
                step.read_h(ts[r], bs[r], g, hs + (g * batched + buffered + r) * u);
                step.read_x(ts[r], bs[r], g, xs + (g * batched + buffered + r) * D);
            }
        }
        replay.step_back();
        for (int64_t r = 0; r < R; r++) row_vjp(r, summed);
        meeting.wait(); /* dz is complete */
        back_through_kernel(R);
        if (!summed) return meeting.wait(); /* dz is read: its rows are written again */
        for (int64_t r = 0; p.penalty && r < R; r++) penalize(r);
        buffered += R;
    }

    /* Adds Uᵀ ∂L/∂(h_{t−1}·U) to the carried gradient. */
    void back_through_kernel(int64_t R) {
        const T *const left = dhu + buffered * dz_ld;
        for (int64_t r = 0; p.diagonal && r < R; r++)
            back_through_diagonals(step, left + r * dz_ld + own, recurrent_t, bs[r],
                                   carried[0] + r * lw);
        if (p.diagonal) return;
        if (!factored)
            return multiply_back(left, R, 0, recurrent_t, lw, carried[0]);
        for (int64_t g = 0; g < blocks; g++) {
            fill_zeros(through, R * lw);
            multiply_back(left, R, g, recurrent_t, lw, through);
            for (int64_t r = 0; r < R; r++) {
                if (p.h_masks)
                    step.scale(through + r * lw,
                                    step.mask_of(p.h_masks, bs[r], g, u) + slice.first, w);
                const T factor = p.through_factors ? p.through_factors[ts[r] * batch + bs[r]] : T(1);
                for (int64_t j = 0; j < w && factor != 0; j++) /* 0 keeps infinities out, too */
                    carried[0][r * lw + j] += factor * through[r * lw + j];
            }
        }
    }

    /* Adds the product of block g of `rows` rows of dz or dhu with its columns of a kernel, packed and
       transposed, to `out`. */
    void multiply_back(const T *rows_of_dz, int64_t rows, int64_t g, const T *kernel, int64_t columns,
                       T *out) const {
        for (int64_t i = 0; i < pieces; i++) {
            const Piece some = piece(g, i);
            multiply<Isa>(Left<T>{rows_of_dz + some.begin, rows, dz_ld, 1}, columns, some.depth,
                          kernel + some.begin * columns, 0, out, columns, step.scratch);
        }
    }

    /* One row: through the cell, to dz = ∂L/∂(x·W) and dhu = ∂L/∂(h_{t−1}·U). */
    void row_vjp(int64_t r, bool summed) {
        const int64_t t = ts[r], b = bs[r];
        const int64_t row = (buffered + r) * dz_ld + own;
        T *dh = carried[0] + r * lw, *dc = carried[states - 1] + r * lw;
        if (summed && (p.norms || p.penalty)) {
            norms[r] = float(norm<Isa>(dh, w));
            /* A slice's norm: the root of the sum of squares over the team is the row's. */
            if (p.norms)
                p.norms[(slice.member * batch + b) * timesteps + t] = float(norms[r]);
        }
        if (masked_at(p, t, b)) { /* h_t = h_{t−1}: the gradient passes */
            fill_zeros(dz + row, n);
            fill_zeros(dhu + row, n);
            return;
        }
        Residuals<T> s = replay.needed ? replay.residuals(t, b, r) : step.kept(t, b);
        if (step.zoneout.active) step.zoneout.release(t, b, dh, dc);
        step.vjp(s, dh, dc, dz + row, dhu + row, summed ? summed_here : dropped);
        step.zoneout.pass(dh, dc);
    }

    void penalize(int64_t r) {
        const int64_t t = ts[r], b = bs[r];
        if (t == 0 || masked_at(p, t, b) || resets_at(p, t, b)) return;
        const T *const vjp = carried[0] + r * lw;
        const Omega<T> found = omega<Isa>(p, norms[r], vjp);
        penalty += found.value;
        for (int64_t g = 0; g < blocks; g++) { /* as each block of U reads h_{t−1} */
            T *const h = hs + (g * batched + buffered + r) * u;
            const T *const mask = p.h_masks ? step.mask_of(p.h_masks, bs[r], g, u) : nullptr;
            for (int64_t j = 0; j < u; j++) h[j] += found.factor * vjp[j] * (mask ? mask[j] : T(1));
        }
    }

    /* 2.5: ∂L/∂W_hh += Σ h_{t−1}ᵀ·dhu, ∂L/∂W_hx += Σ x_tᵀ·dz, and ∂L/∂x_t = dz·Wᵀ, over the
       buffered rows. */
    void flush_products() {
        for (int64_t g = 0; g < blocks; g++) {
            const T *const some = dz + own + g * block, *const some_u = dhu + own + g * block;
            multiply<Isa>(Left<T>{hs + g * batched * u, u, 1, u}, block_ld, buffered, some_u, dz_ld,
                          d_recurrent + g * block_ld, row_ld, step.scratch);
            multiply<Isa>(Left<T>{xs + g * batched * D, D, 1, D}, block_ld, buffered, some, dz_ld,
                          d_kernel + g * block_ld, row_ld, step.scratch);
            if (p.dx) input_gradients(g);
        }
        accumulate(totals, sums, vectors);
        fill_zeros(sums, vectors);
        buffered = 0;
        meeting.wait(); /* dz is read: its rows are written again */
    }

    /* ∂L/∂x_t of the buffered rows, through block g of the kernel. */
    void input_gradients(int64_t g) {
        fill_zeros(dxs, buffered * xl);
        multiply_back(dz, buffered, g, kernel_t, xl, dxs);
        for (int64_t i = 0; i < buffered; i++) {
            T *from = dxs + i * xl, *to = p.dx + position[i] * D + x0;
            if (p.x_masks)
                step.scale(from, step.mask_of(p.x_masks, position[i] / timesteps, g, D) + x0, xw);
            g ? accumulate(to, from, xw) : copy(to, from, xw);
        }
    }

    void write_gradients() {
        const VectorGrads<T> v = vectors_in(totals);
        write_columns(p.d_kernel, d_kernel, D, row_ld, block_ld);
        write_columns(p.d_recurrent_kernel, d_recurrent, u, row_ld, block_ld);
        write_columns(p.d_bias, v.bias, 1, ld, block);
        write_columns(p.d_input_gain, v.input_gain, 1, ld, block);
        write_columns(p.d_recurrent_gain, v.recurrent_gain, 1, ld, block);
        write_units(p.d_recurrent_bias, v.recurrent_bias);
        write_units(p.d_state_gain, v.state_gain);
        write_units(p.d_state_bias, v.state_bias);
        if (p.penalty_value) p.penalty_value[thread] = penalty;
    }

    /* Copies this thread's columns of sums of `rows` rows to where the team's are wanted. */
    void write_columns(T *to, const T *from, int64_t rows, int64_t from_ld, int64_t from_block) const {
        if (!to) return;
        for (int64_t k = 0; k < rows; k++)
            for (int64_t i = 0; i < n; i += w)
                copy(to + (slice.team * rows + k) * N + step.columns[i],
                     from + k * from_ld + i / block * from_block + i % block, w);
    }

    void write_units(T *to, const T *from) const {
        if (to) copy(to + slice.team * u + slice.first, from, w);
    }
};

}  // namespace
}  // namespace kbptt
