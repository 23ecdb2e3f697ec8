/* The forward pass. */
#pragma once
#include "step.hpp"

namespace kbptt {
namespace {

template <class T, class Isa> class Forward {
    Step<T, Isa> step;
    const Problem<T> &p = step.whole;
    const Slice &slice = step.slice;
    const Meeting meeting{p, slice};
    const int64_t timesteps = p.timesteps, D = step.D, u = step.u, w = step.w, ld = step.ld;
    /* A group's gates and states stay in the second-level cache. */
    const int64_t most = rows_of_group(
        LEAST_FORWARD, (step.widest_ld * (1 + step.cell.separate_hu) + 2 * u) * sizeof(T));
    const int64_t batched = between(GROUP, p.batch * timesteps, BATCHED / 2);
    const int64_t first, last;
    T *z, *hu, *xs, *hs;

  public:
    /* The samples from `first` up to `last`. */
    Forward(const Problem<T> &problem, int64_t thread, int64_t first_, int64_t last_)
        : step(problem, thread), first(first_), last(last_) {}

    /* So many samples go through time together. */
    int64_t rows_at_once() const { return evenly(last - first, most); }

    int64_t lay_out_shared(char *) { return 0; }

    KBPTT_APART int64_t lay_out(char *memory) {
        Arena arena(memory);
        step.lay_out(arena, true, batched);
        arena.take(z, batched * ld);
        arena.take(hu, step.cell.separate_hu ? GROUP * ld : 0);
        arena.take(xs, step.blocks * batched * D);
        arena.take(hs, step.blocks * GROUP * u);
        return arena.used;
    }

    void run() {
        step.prepare(true);
        const int64_t size = rows_at_once();
        for (int64_t b = first; b < last; b += size)
            run_group(b, last - b < size ? last - b : size);
    }

  private:
    /* R samples from `b` on through time. */
    void run_group(int64_t b, int64_t R) {
        /* The inputs of several timesteps are projected by one product. */
        const int64_t projected = batched / R;
        for (int64_t t = 0; t < timesteps; t++) {
            T *zs = z + t % projected * R * ld;
            if (t % projected == 0)
                project_inputs(b, R, t, timesteps - t < projected ? timesteps - t : projected);
            for (int64_t g = 0; g < step.blocks; g++)
                for (int64_t r = 0; r < R; r++) step.read_h(t, b + r, g, hs + (g * R + r) * u);
            step.hidden_gemm(R, hs, R * u, zs, hu);
            for (int64_t r = 0; r < R; r++) run_row(t, b + r, zs + r * ld, hu + r * ld);
            meeting.wait();
        }
    }

    /* x·W + b of R samples from `b` on, at `steps` timesteps from `t` on. */
    void project_inputs(int64_t b, int64_t R, int64_t t, int64_t steps) {
        const int64_t rows = steps * R;
        for (int64_t g = 0; g < step.blocks; g++)
            for (int64_t i = 0; i < steps; i++)
                for (int64_t r = 0; r < R; r++)
                    step.read_x(t + i, b + r, g, xs + (g * rows + i * R + r) * D);
        step.project_inputs(rows, xs, rows * D, z);
    }

    /* Masked: the state is held. */
    void run_row(int64_t t, int64_t b, T *z_row, T *hu_row) {
        const int64_t at = (b * timesteps + t) * u + slice.first;
        T *h = p.h + at, *c = p.c;
        copy(h, h_before(p, t, b) + slice.first, w);
        if (step.states > 1) {
            const T *before = c_before(p, t, b) + slice.first;
            c = c_at(p, t, b) + slice.first;
            if (before != c) copy(c, before, w);
        }
        if (!masked_at(p, t, b)) {
            step.zoneout.remember(h, c);
            advance(t, b, z_row, hu_row, h, c);
            if (step.zoneout.active) step.zoneout.hold(t, b, h, c);
        }
        if (step.states > 1 && p.slots && p.slots[t])
            copy(p.c + (p.slots[t] * p.batch + b) * u + slice.first, c, w);
    }

    void advance(int64_t t, int64_t b, T *z_row, T *hu_row, T *h, T *c) {
        step.forward(z_row, hu_row, h, c);
        if (step.residuals && p.gates) {
            T *gates = p.gates + step.residuals * ((t * p.batch + b) * u + slice.first);
            copy(gates, step.kept_gates(z_row), step.gates * w);
            copy(gates + step.gates * w, step.hu_kept(hu_row), step.kept_hu * w);
        }
    }
};

}  // namespace
}  // namespace kbptt
