/* Both passes of every cell by threads that start at once, the library's first calls among them: for
   ThreadSanitizer, which sees what the threads share (`make sanitize`). */
#include <cstdio>
#include <thread>

#include "cells.hpp"
#include "dispatch.hpp"

using namespace kbptt;

enum { B = 8, T = 100, D = 3, U = 37, N = 4 * U, THREADS = 4, SCRATCH = 1 << 26 };

static double numbers[1000000];
alignas(64) static char scratch[SCRATCH];
static int64_t meetings[THREADS][8];
static double *next = numbers;

static double *array(int64_t elements) {
    double *a = next;
    for (int64_t i = 0; i < elements; i++) a[i] = (double)((i * 7919 + elements) % 101) / 101 - 0.5;
    next += elements;
    return a;
}

static Problem<double> problem;

/* Runs a pass with all threads; false: the scratch space is too small for the test. */
static bool together(bool backward) {
    const InstructionSet &best = instruction_sets[instruction_set_count() - 1];
    const Passes &passes = *best.loops[true];
    const int64_t teams = THREADS / problem.members, rows = B / teams;
    problem.team_scratch = (backward ? passes.backward_scratch : passes.forward_scratch)(&problem, rows);
    if (teams * problem.team_scratch > SCRATCH) return false;
    std::thread threads[THREADS];
    for (int64_t i = 0; i < THREADS; i++)
        threads[i] = std::thread([=] {
            const int64_t first = i / problem.members * rows;
            (backward ? passes.backward : passes.forward)(&problem, i, first, first + rows);
        });
    for (auto &thread : threads) thread.join();
    return true;
}

int main() {
    static const int64_t starts[] = {0, T / 4}, entries[] = {0, T / 2}, ends[] = {T / 2, T};
    static int64_t slots[T]; /* every 6th c is kept */
    for (int64_t t = 5; t < T; t += 6) slots[t] = t / 6 + 1;
    enum { PLAIN, REPLAYED, DROPOUT, OVERLAPPING, WAYS };
    bool done = true;
    for (int64_t i = 0; i < 3 * WAYS * Cells::count; i++) {
        const int64_t way = i / 3 % WAYS, cell = i / 3 / WAYS;
        next = numbers;
        Problem<double> &p = problem = {};
        p.batch = B, p.timesteps = T, p.features = D, p.units = U, p.windows = 1, p.cell = cell;
        p.activation = Activations::number_of<Tanh>();
        p.recurrent_activation = Activations::number_of<Sigmoid>(), p.clip = 1;
        p.x = array(B * T * D), p.kernel = array(D * N), p.recurrent_kernel = array(U * N);
        p.bias = array(N), p.recurrent_bias = array(U);
        p.h_start = array(B * U), p.c_start = array(B * U);
        p.h = array(B * T * U), p.c = array(B * T * U), p.gates = array(B * T * N);
        if (way == REPLAYED) p.gates = nullptr, p.slots = slots;
        if (way == DROPOUT) p.x_masks = array(4 * B * D), p.h_masks = array(4 * B * U);
        p.members = int64_t(1) << i % 3; /* 1, 2, 4 threads of a team */
        p.scratch = scratch, p.meetings = meetings[0], p.span = 6;
        p.starts = p.entries = starts, p.ends = ends + 1;
        if (way == OVERLAPPING)
            p.overlapping = 1, p.windows = 2, p.starts = starts, p.entries = entries, p.ends = ends;
        p.dh = array(B * T * U), p.dh_final = array(B * U), p.dc_final = array(B * U);
        p.dx = array(B * T * D), p.norms = reinterpret_cast<float *>(array(THREADS * B * T));
        p.d_kernel = array(THREADS * D * N), p.d_recurrent_kernel = array(THREADS * U * N);
        p.d_bias = array(THREADS * N), p.d_recurrent_bias = array(THREADS * U);
        p.d_h_start = array(THREADS * B * U), p.d_c_start = array(THREADS * B * U);
        done &= together(false) && together(true);
    }
    puts(done ? "no thread touches what is another's" : "too little scratch space");
    return !done;
}
