/* Zoneout (Krueger et al., 2017): of each state, the units that keep the value they had, or the share
   of it that every unit keeps. The numbers are those of ../zoneout.py. */
#pragma once
#include "team.hpp"

namespace kbptt {
namespace {

/* Four words for each of the counts from `count` on, by Philox4x32-10 (Salmon et al., 2011):
   all first words, then all second ones, … */
inline void philox(uint64_t key, uint64_t count, int64_t counts, uint32_t *words) {
    uint32_t *const first = words, *const second = first + counts;
    uint32_t *const third = second + counts, *const fourth = third + counts;
    KBPTT_INDEPENDENT
    for (int64_t k = 0; k < counts; k++) {
        const uint64_t at = count + uint64_t(k);
        uint32_t a = uint32_t(at), b = uint32_t(at >> 32), c = 0, d = 0;
        uint32_t low = uint32_t(key), high = uint32_t(key >> 32);
        for (int round = 0; round < 10; round++) {
            const uint64_t left = uint64_t(a) * 0xD2511F53u, right = uint64_t(c) * 0xCD9E8D57u;
            a = uint32_t(right >> 32) ^ b ^ low, b = uint32_t(right);
            c = uint32_t(left >> 32) ^ d ^ high, d = uint32_t(left);
            low += 0x9E3779B9u, high += 0xBB67AE85u;
        }
        first[k] = a, second[k] = b, third[k] = c, fourth[k] = d;
    }
}

/* Of one thread, for its units of one row at a time. */
template <class T> class Zoneout {
    const Problem<T> &p;
    const Slice &slice;
    const int states;
    const int64_t w = slice.width, quarter = (p.units + 3) / 4;
    uint32_t *words;
    T *held[2], *kept[2]; /* d_t of each state; what it held, or what of its gradient passes by */

  public:
    const bool active = p.zoneout_h > 0 || p.zoneout_c > 0;

    Zoneout(const Problem<T> &problem, const Slice &slice_, int states_)
        : p(problem), slice(slice_), states(states_) {}

    void lay_out(Arena &arena) {
        arena.take(words, active ? 4 * quarter : 0);
        for (int i = 0; i < 2; i++) {
            arena.take(held[i], active ? w : 0);
            arena.take(kept[i], active ? w : 0);
        }
    }

    /* Before a step: remembers the states. */
    void remember(const T *h, const T *c) {
        if (!active) return;
        copy(kept[0], h, w);
        if (states > 1) copy(kept[1], c, w);
    }

    /* After it: s_t = d_t ⊙ s_{t−1} + (1 − d_t) ⊙ s̃_t. */
    KBPTT_APART void hold(int64_t t, int64_t b, T *h, T *c) {
        T *const s[] = {h, c};
        draw(t, b);
        for (int i = 0; i < states; i++) {
            KBPTT_INDEPENDENT
            for (int64_t j = 0; j < w; j++)
                s[i][j] = held[i][j] * kept[i][j] + (1 - held[i][j]) * s[i][j];
        }
    }

    /* Before its vjp: from the gradients of s_t to those of s̃_t; remembers what passes by. */
    KBPTT_APART void release(int64_t t, int64_t b, T *dh, T *dc) {
        T *const d[] = {dh, dc};
        draw(t, b);
        for (int i = 0; i < states; i++) {
            KBPTT_INDEPENDENT
            for (int64_t j = 0; j < w; j++) {
                kept[i][j] = held[i][j] * d[i][j];
                d[i][j] = (1 - held[i][j]) * d[i][j];
            }
        }
    }

    /* After it: adds that to the gradients of s_{t−1}. */
    void pass(T *dh, T *dc) {
        if (!active) return;
        T *const d[] = {dh, dc};
        for (int i = 0; i < states; i++) {
            KBPTT_INDEPENDENT
            for (int64_t j = 0; j < w; j++) d[i][j] += kept[i][j];
        }
    }

  private:
    KBPTT_APART void draw(int64_t t, int64_t b) {
        const double rates[] = {p.zoneout_h, p.zoneout_c};
        for (int i = 0; i < states; i++) {
            if (!p.zoneout_key) {
                for (int64_t j = 0; j < w; j++) held[i][j] = T(rates[i]);
                continue;
            }
            const uint64_t row = (p.zoneout_key[1] + uint64_t(t)) * uint64_t(p.batch) + uint64_t(b);
            philox(p.zoneout_key[0], (row * uint64_t(states) + uint64_t(i)) * uint64_t(quarter),
                   quarter, words);
            const double most = 4294967295.0, words_below = std::nearbyint(rates[i] * 4294967296.0);
            const uint32_t threshold = uint32_t(words_below < most ? words_below : most);
            const uint32_t *const own = words + slice.first;
            KBPTT_INDEPENDENT
            for (int64_t j = 0; j < w; j++) held[i][j] = own[j] < threshold ? T(1) : T(0);
        }
    }
};

}  // namespace
}  // namespace kbptt
