/* What the forward pass did not keep, computed again for the backward pass: the gates and, between the
   timesteps whose c was kept, c. Some timesteps at a time: they are replayed forward from the last c
   that was kept, and then read backward. h of every timestep is there: it is the output. */
#pragma once
#include "step.hpp"

namespace kbptt {
namespace {

template <class T, class Isa> class Replay {
    Step<T, Isa> &step;
    const Problem<T> &p = step.whole;
    const int64_t D = step.D, u = step.u, w = step.w, ld = step.ld, first = step.slice.first;
    const int64_t rows; /* at most */
    int64_t left = 0, R = 0, leads[GROUP];
    T *xs, *hs, *z, *hu, *c; /* z, hu of each timestep; c after each, and before them */
    T *z_again, *hu_again, *h_again, *c_again;

  public:
    /* Whether there is anything to compute, and of how many timesteps at a time. */
    const bool needed = step.cell.normalized || (step.residuals && !p.gates);
    const int64_t span = p.slots && step.states > 1 ? p.span : 1;

    Replay(Step<T, Isa> &step_, int64_t rows_) : step(step_), rows(rows_) {}

    void lay_out(Arena &arena) {
        const int64_t some = needed ? rows : 0;
        arena.take(xs, step.blocks * some * D);
        arena.take(hs, step.blocks * some * u);
        arena.take(z, span * some * ld);
        arena.take(hu, step.cell.separate_hu || step.kept_hu ? span * some * ld : 0);
        arena.take(c, (span + 1) * some * w);
        arena.take(z_again, ld);
        arena.take(hu_again, ld);
        arena.take(h_again, ld);
        arena.take(c_again, ld);
    }

    /* Replays `steps` timesteps of `count` rows, the last of them ts[r] of sample bs[r]. */
    void run(const int64_t *bs, const int64_t *ts, int64_t count, int64_t steps) {
        left = steps, R = count;
        int64_t lead = 0; /* from the c that was kept to the first of them */
        for (int64_t r = 0; r < R; r++) {
            leads[r] = 0;
            while (!has_c_before(ts[r] - steps + 1 - leads[r], bs[r])) leads[r]++;
            if (leads[r] > lead) lead = leads[r];
        }
        for (int64_t i = -lead; i < steps; i++) {
            T *z_rows = z + (i < 0 ? 0 : i) * R * ld, *hu_rows = hu + (i < 0 ? 0 : i) * R * ld;
            for (int64_t g = 0; g < step.blocks; g++)
                for (int64_t r = 0; r < R; r++) {
                    const int64_t t = ts[r] - steps + 1 + (i < -leads[r] ? -leads[r] : i);
                    step.read_x(t, bs[r], g, xs + (g * R + r) * D);
                    step.read_h(t, bs[r], g, hs + (g * R + r) * u);
                }
            step.project_inputs(R, xs, R * D, z_rows);
            step.hidden_gemm(R, hs, R * u, z_rows, hu_rows);
            for (int64_t r = 0; r < R; r++)
                if (i >= -leads[r])
                    run_row(ts[r] - steps + 1 + i, bs[r], i, r, z_rows + r * ld, hu_rows + r * ld);
        }
    }

    /* Goes to the last timestep that was replayed, then to the one before, … */
    void step_back() { left--; }

    /* What the vjp of row r reads there. */
    Residuals<T> residuals(int64_t t, int64_t b, int64_t r) {
        T *z_row = z + (left * R + r) * ld, *hu_row = hu + (left * R + r) * ld;
        Residuals<T> s = {z_row, step.hu_kept(hu_row), h_before(p, t, b) + first, nullptr, nullptr};
        if (step.states > 1) s.c_before = c_before(t, b, left, r), s.c = step.candidate(c_at(left + 1, r));
        if (step.cell.normalized) { /* its statistics are kept of one row alone */
            copy(h_again, s.h_before, w);
            if (step.states > 1) copy(c_again, s.c_before, w);
            step.forward(z_row, hu_row, h_again, c_again);
            s.gates = step.kept_gates(z_row), s.c = c_again;
        }
        return s;
    }

  private:
    bool has_c_before(int64_t t, int64_t b) const {
        return step.states == 1 || !p.slots || t == 0 || resets_at(p, t, b) || p.slots[t - 1] > 0;
    }
    T *c_at(int64_t i, int64_t r) const { return c + ((i < 0 ? 0 : i) * R + r) * w; }
    const T *c_before(int64_t t, int64_t b, int64_t i, int64_t r) const {
        return has_c_before(t, b) ? kept_c_before(p, t, b) + first : c_at(i, r);
    }

    void run_row(int64_t t, int64_t b, int64_t i, int64_t r, T *z_row, T *hu_row) {
        if (step.cell.normalized && span == 1) return; /* c is known */
        T *after = c_at(i + 1, r);
        if (step.states > 1) {
            const T *before = c_before(t, b, i, r);
            if (before != after) copy(after, before, w);
        }
        if (masked_at(p, t, b)) return;
        copy(h_again, h_before(p, t, b) + first, w);
        step.zoneout.remember(h_again, after);
        if (step.cell.normalized) { /* the gates are computed when they are read */
            copy(z_again, z_row, ld), copy(hu_again, hu_row, ld);
            step.forward(z_again, hu_again, h_again, after);
        } else {
            step.forward(z_row, hu_row, h_again, after);
            if (!step.cell.usual) copy(z_row, step.kept_gates(z_row), step.n);
        }
        if (step.zoneout.active) step.zoneout.hold(t, b, h_again, after);
    }
};

}  // namespace
}  // namespace kbptt
