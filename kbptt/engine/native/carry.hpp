/* What the gradient of the states passes on its way from a timestep to the one before. */
#pragma once
#include <limits>
#include "step.hpp"

namespace kbptt {
namespace {

/* Every element in ±bound. */
template <class T> void clip_elements(T *d, int64_t n, T bound) {
    for (int64_t j = 0; j < n; j++) d[j] = d[j] < -bound ? -bound : d[j] > bound ? bound : d[j];
}

/* Of the elements of all states, divided by `unit`. */
template <class T> double sum_of_squares(T *const *d, int states, int64_t n, double unit) {
    double sum = 0;
    for (int i = 0; i < states; i++)
        for (int64_t j = 0; j < n; j++) {
            const double x = double(d[i][j]) / unit;
            sum += x * x;
        }
    return sum;
}

/* The norm of all states together at most `bound`; an infinite element counts as the largest number
   that there is. */
template <class T> void clip_norm(T *const *d, int states, int64_t n, double bound) {
    const T most = std::numeric_limits<T>::max();
    double unit = 1, sum = sum_of_squares(d, states, n, unit);
    if (sum != sum) return; /* NaN */
    if (sum > std::numeric_limits<double>::max()) {
        unit = 0;
        for (int i = 0; i < states; i++) {
            clip_elements(d[i], n, most);
            for (int64_t j = 0; j < n; j++) unit = std::fmax(unit, std::fabs(double(d[i][j])));
        }
        sum = sum_of_squares(d, states, n, unit);
    }
    const double norm = std::sqrt(sum);
    if (norm <= bound / unit) return;
    for (int i = 0; i < states; i++)
        for (int64_t j = 0; j < n; j++) d[i][j] = T(double(d[i][j]) / unit * (bound / norm));
}

/* Of the units of one thread. */
template <class T> class Carry {
    const Problem<T> &p;
    const int states;
    const int64_t w, u = p.units;
    T *d_start[2], *d_restart[2];

  public:
    Carry(const Problem<T> &problem, const Slice &slice, int states_)
        : p(problem), states(states_), w(slice.width) {
        T *const starts[] = {p.d_h_start, p.d_c_start};
        T *const restarts[] = {p.d_h_restart, p.d_c_restart};
        for (int i = 0; i < states; i++) {
            const int64_t own = slice.team * p.batch * u + slice.first;
            d_start[i] = starts[i] ? starts[i] + own : nullptr;
            d_restart[i] = restarts[i] ? restarts[i] + own : nullptr;
        }
    }

    /* Apply resets, ξ (1.3) and clipping to the gradient carried from t to t−1. */
    void run(int64_t t, int64_t b, T *const *d) const {
        for (int i = 0; i < states; i++) {
            if (resets_at(p, t, b)) {
                accumulate(d_restart[i] + b * u, d[i], w);
                fill_zeros(d[i], w);
            }
            if (p.factors)
                for (int64_t j = 0; j < w; j++) d[i][j] *= p.factors[t * p.batch + b];
            if (p.clip < INFINITY && !p.clip_by_norm) clip_elements(d[i], w, T(p.clip));
        }
        if (p.clip < INFINITY && p.clip_by_norm) clip_norm(d, states, w, p.clip);
        for (int i = 0; i < states && t == 0; i++) accumulate(d_start[i] + b * u, d[i], w);
    }
};

}  // namespace
}  // namespace kbptt
