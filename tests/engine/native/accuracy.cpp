/* How far tanh and σ of the compiled loops are from the correctly rounded values.

       accuracy [step]     every step-th of the 2^32 floats, and a sample of as many doubles

   Prints a line for each type and function: the largest distance in units in the last place (steps
   between adjacent numbers), and how many special values are wrong. The reference is the C library
   in the next wider type. test_native_accuracy.py compiles it for each instruction set, with the
   options of setup.py; `make exhaustive` runs it over everything. */
#include <cstdio>
#include <initializer_list>
#include <limits>

#include "activations.hpp"

using namespace kbptt;

static uint64_t draw() { /* splitmix64 */
    static uint64_t seed;
    uint64_t z = seed += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

static void number(uint64_t i, float &x) {
    const uint32_t bits = uint32_t(i);
    memcpy(&x, &bits, sizeof x);
}

/* One third of all exponents, the rest where the functions are neither linear nor constant. */
static void number(uint64_t, double &x) {
    const uint64_t bits = draw(), any = draw();
    if (bits % 3)
        x = ((bits >> 11) * 0x1p-53 - 0.5) * (bits % 3 == 1 ? 2 : 1500);
    else
        memcpy(&x, &any, sizeof x);
}

/* Position among all numbers of the type. */
template <class T> int64_t position(T x) {
    using Bits = typename Exponential<T>::Bits;
    constexpr Bits magnitude = std::numeric_limits<Bits>::max() >> 1;
    const Bits bits = bits_of(x);
    return bits > magnitude ? -int64_t(bits & magnitude) : int64_t(bits);
}

template <class T, class Wider> class Comparison {
    static constexpr int many = 4096;
    T x[many], y[many];
    int64_t furthest = 0, special = 0, inexact = 0;
    double where = 0;

    static Wider exact(int64_t kind, T v) {
        return kind == TANH ? std::tanh(Wider(v)) : 1 / (1 + std::exp(-Wider(v)));
    }

    /* Special: NaN, zero with its sign, ±1. */
    void compare(T v, T found, Wider wide) {
        const T right = T(wide);
        if (v != v) {
            special += found == found;
            return;
        }
        /* A tie may be one only because `wide` is rounded as well. */
        const Wider tie = 1 - std::ldexp(Wider(0.5), -Exponential<T>::digits);
        if (right == 0 || (std::fabs(right) == 1 && std::fabs(wide) != tie))
            special += found != right || std::signbit(found) != std::signbit(right);
        const int64_t distance = std::abs(position(found) - position(right));
        inexact += distance > 0;
        if (distance > furthest) furthest = distance, where = double(v);
    }

  public:
    void run(int64_t kind, const char *type, uint64_t step) {
        for (uint64_t i = 0; i < uint64_t(1) << 32;) {
            int n = 0;
            for (; n < many && i < uint64_t(1) << 32; i += step) number(i, x[n++]);
            memcpy(y, x, sizeof x);
            activate(kind, y, n);
            for (int j = 0; j < n; j++) compare(x[j], y[j], exact(kind, x[j]));
        }
        printf("%s %s: at most %lld ulp (at %a), %lld special values wrong, %lld not nearest\n", type,
               activation_names[kind], (long long)furthest, where, (long long)special,
               (long long)inexact);
    }
};

int main(int count, char **arguments) {
    const uint64_t step = count > 1 ? strtoull(arguments[1], nullptr, 10) : 1;
    for (int64_t kind : {TANH, SIGMOID}) {
        Comparison<float, double>().run(kind, "float", step);
        /* Of 2^64 no more than a sample in any case. */
        Comparison<double, long double>().run(kind, "double", step < 97 ? 97 : step);
    }
}
