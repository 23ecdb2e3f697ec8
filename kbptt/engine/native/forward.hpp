/* The forward pass. */
#pragma once
#include "step.hpp"

namespace kbptt {
namespace {

template <class T, class Isa, class Cell, bool normalized> class Forward {
    using CellStep = Step<T, Isa, Cell, normalized>;
    const Problem<T> &p;
    const int64_t first, last;
    const int64_t batch = p.batch, timesteps = p.timesteps, features = p.features, u = p.units;
    CellStep step{p};
    const int64_t ld = step.ld;
    T *z, *hu, *xs, *h, *c;
    Arena arena;

    void lay_out() {
        step.lay_out(arena);
        arena.take(z, BATCHED * ld);
        arena.take(hu, BATCHED * ld);
        arena.take(xs, BATCHED * features);
        arena.take(h, GROUP * u);
        arena.take(c, GROUP * u);
    }

  public:
    /* The samples from `first` up to `last`. */
    Forward(const Problem<T> &problem, int64_t, int64_t first_, int64_t last_)
        : p(problem), first(first_), last(last_) {}

    /* False: no memory. */
    bool run() {
        lay_out();
        if (!arena.reserve()) return false;
        lay_out();
        step.pack_kernels();
        for (int64_t b = first; b < last; b += GROUP)
            run_group(b, last - b < GROUP ? last - b : GROUP);
        return true;
    }

  private:
    /* R samples from `b` on through time. */
    void run_group(int64_t b, int64_t R) {
        copy(h, p.h_start + b * u, R * u);
        if (Cell::states > 1) copy(c, p.c_start + b * u, R * u);
        /* The inputs of several timesteps are projected by one product. */
        const int64_t projected = BATCHED / R;
        for (int64_t t = 0; t < timesteps; t++) {
            T *zs = z + t % projected * R * ld;
            if (t % projected == 0)
                project_inputs(b, R, t, timesteps - t < projected ? timesteps - t : projected);
            for (int64_t r = 0; p.resets && r < R; r++)
                if (resets_at(p, t, b + r)) {
                    copy(h + r * u, p.h_restart + (b + r) * u, u);
                    if (Cell::states > 1) copy(c + r * u, p.c_restart + (b + r) * u, u);
                }
            step.hidden_gemm(R, h, zs, hu);
            for (int64_t r = 0; r < R; r++)
                run_row(t, b + r, zs + r * ld, hu + r * ld, h + r * u, c + r * u);
        }
    }

    /* x·W + b of R samples from `b` on, at `steps` timesteps from `t` on. */
    void project_inputs(int64_t b, int64_t R, int64_t t, int64_t steps) {
        for (int64_t i = 0; i < steps; i++)
            for (int64_t r = 0; r < R; r++)
                copy(xs + (i * R + r) * features,
                     p.x + ((b + r) * timesteps + t + i) * features, features);
        step.project_inputs(steps * R, xs, z);
    }

    void run_row(int64_t t, int64_t b, T *z_row, T *hu_row, T *h_row, T *c_row) {
        const int64_t at = (t * batch + b) * u;
        if (!masked_at(p, t, b)) {
            step.forward(z_row, hu_row, h_row, c_row);
            if (step.residuals && p.gates) {
                T *gates = p.gates + step.residuals * at;
                copy(gates, step.kept_gates(z_row), Cell::gates * u);
                copy(gates + Cell::gates * u, step.hu_kept(hu_row), CellStep::kept_hu * u);
            }
        }
        copy(p.h + (b * timesteps + t) * u, h_row, u);
        if (Cell::states > 1) copy(p.c + at, c_row, u);
    }
};

}  // namespace
}  // namespace kbptt
