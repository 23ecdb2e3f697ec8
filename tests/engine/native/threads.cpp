/* Both passes of every cell by threads that start at once, the library's first calls among them: for
   ThreadSanitizer, which sees what the threads share (`make sanitize`). */
#include <cstdio>
#include <thread>

#include "cells.hpp"
#include "dispatch.hpp"

using namespace kbptt;

enum { B = 8, T = 20, D = 3, U = 5, N = 4 * U, THREADS = 4 };

static double numbers[100000];
static double *next = numbers;

static double *array(int64_t elements) {
    double *a = next;
    for (int64_t i = 0; i < elements; i++) a[i] = (double)((i * 7919 + elements) % 101) / 101 - 0.5;
    next += elements;
    return a;
}

static Problem<double> problem;

/* Whether all of THREADS threads, each with its share of the rows, have found memory. */
static bool together(bool backward) {
    bool done[THREADS];
    std::thread threads[THREADS];
    for (int64_t i = 0; i < THREADS; i++)
        threads[i] = std::thread([=, &done] {
            const InstructionSet &best = instruction_sets[instruction_set_count() - 1];
            const Passes &passes = best.loops[problem.cell][false][true];
            const int64_t rows = B / THREADS;
            done[i] = (backward ? passes.backward : passes.forward)(&problem, i, i * rows,
                                                                    (i + 1) * rows);
        });
    for (auto &thread : threads) thread.join();
    for (bool one : done)
        if (!one) return false;
    return true;
}

int main() {
    static const int64_t start = 0, end = T;
    bool done = true;
    for (int64_t cell = 0; cell < Cells::count; cell++) {
        next = numbers;
        Problem<double> &p = problem = {};
        p.batch = B, p.timesteps = T, p.features = D, p.units = U, p.windows = 1, p.cell = cell;
        p.activation = Activations::number_of<Tanh>();
        p.recurrent_activation = Activations::number_of<Sigmoid>(), p.clip = 1;
        p.x = array(B * T * D), p.kernel = array(D * N), p.recurrent_kernel = array(U * N);
        p.bias = array(N), p.recurrent_bias = array(U);
        p.h_start = array(B * U), p.c_start = array(B * U);
        p.h = array(B * T * U), p.c = array(B * T * U), p.gates = array(B * T * N);
        p.starts = p.entries = &start, p.ends = &end;
        p.dh = array(B * T * U), p.dh_final = array(B * U), p.dc_final = array(B * U);
        p.dx = array(B * T * D), p.norms = reinterpret_cast<float *>(array(B * T));
        p.d_kernel = array(THREADS * D * N), p.d_recurrent_kernel = array(THREADS * U * N);
        p.d_bias = array(THREADS * N), p.d_recurrent_bias = array(THREADS * U);
        p.d_h_start = array(THREADS * B * U), p.d_c_start = array(THREADS * B * U);
        done &= together(false) && together(true);
    }
    puts(done ? "no thread touches what is another's" : "no memory");
    return !done;
}
