/* How far the activations of the compiled loops are from the correctly rounded values.

       accuracy [step]     every step-th of the 2^32 floats, and a sample of as many doubles

   Prints a line for each type and function: the largest distance in units in the last place (steps
   between adjacent numbers), how many special values are wrong, and the largest error of the derivative. The reference is the C library
   in the next wider type. test_native_accuracy.py compiles it for each instruction set, with the
   options of setup.py; `make exhaustive` runs it over everything. */
#include <cstdio>
#include <limits>
#include <type_traits>

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

/* Of doubles TensorFlow's gelu takes √½ as a float. */
template <class Wider>
constexpr Wider root_half = std::is_same<Wider, double>::value ? Wider(0.70710678118654752440L)
                                                               : Wider(0.70710678118654752440f);

/* The functions and their derivatives from exponentials of the C library. */
template <class Wider> Wider exact(int64_t kind, Wider x) {
    const Wider below = x < 0 ? x : 0, above = x < 0 ? 0 : x, small = std::exp(-std::fabs(x));
    const auto is = [=](auto wanted) { return kind == Activations::number_of<decltype(wanted)>(); };
    if (is(Tanh{})) return std::tanh(x);
    if (is(Sigmoid{})) return 1 / (1 + std::exp(-x));
    if (is(Elu{})) return x < 0 ? std::expm1(x) : x;
    if (is(Selu{}))
        return x < 0 ? Wider(1.7580993408473768599402175208123L) * std::expm1(x)
                     : Wider(1.0507009873554804934193349852946L) * x;
    if (is(Softplus{})) return above + std::log1p(small);
    if (is(LogSigmoid{})) return -(-below + std::log1p(small));
    if (is(Exp{})) return std::exp(x);
    if (is(Silu{})) return x / (1 + std::exp(-x));
    if (is(Mish{})) return x * std::tanh(above + std::log1p(small));
    return x * std::erfc(-x * root_half<Wider>) / 2; /* gelu */
}

template <class Wider> Wider exact_grad(int64_t kind, Wider x) {
    const auto is = [=](auto wanted) { return kind == Activations::number_of<decltype(wanted)>(); };
    const Wider gate = 1 / (1 + std::exp(-x)), rest = 1 / (1 + std::exp(x));
    if (is(Tanh{})) return 1 - std::tanh(x) * std::tanh(x);
    if (is(Sigmoid{})) return gate * rest;
    if (is(Elu{})) return x < 0 ? std::exp(x) : 1;
    if (is(Selu{}))
        return x < 0 ? Wider(1.7580993408473768599402175208123L) * std::exp(x)
                     : Wider(1.0507009873554804934193349852946L);
    if (is(Softplus{})) return gate;
    if (is(LogSigmoid{})) return rest;
    if (is(Exp{})) return std::exp(x);
    if (is(Silu{})) return gate * (1 + x * rest);
    if (is(Mish{})) {
        const Wider y = std::tanh((x < 0 ? 0 : x) + std::log1p(std::exp(-std::fabs(x))));
        return y + x * gate * (1 - y * y);
    }
    const Wider s = x * root_half<Wider>;
    return std::erfc(-s) / 2 + s * std::exp(-s * s) / std::sqrt(Wider(3.14159265358979323846L));
}

template <class T, class Wider> class Comparison {
    static constexpr int many = 4096;
    T x[many], y[many], kept[many], grads[many];
    int64_t furthest = 0, special = 0, inexact = 0;
    double where = 0, grad_error = 0;
    /* x·σ(x) and the like are no more exact than the factor, where that is subnormal. */
    T smallest = 0;

    /* Special: NaN, zero with its sign, ±1. */
    void compare(T v, T found, Wider wide) {
        const T right = T(wide);
        if (v != v) {
            special += found == found;
            return;
        }
        if (right != right) return; /* −Inf·0, as in Keras: see test_native_accuracy.py */
        /* A tie may be one only because `wide` is rounded as well. */
        const Wider tie = 1 - std::ldexp(Wider(0.5), -Exponential<T>::digits);
        if (right == 0 || (std::fabs(right) == 1 && std::fabs(wide) != tie))
            special += found != right || std::signbit(found) != std::signbit(right);
        const int64_t distance = std::abs(position(found) - position(right));
        inexact += distance > 0;
        if (distance > furthest && std::fabs(right) >= smallest)
            furthest = distance, where = double(v);
    }

    /* In units of the type's epsilon, of the derivative's and the argument's size. */
    void compare_grad(T v, T found, Wider wide) {
        if (!(std::fabs(v) < 88)) return; /* beyond, exp overflows in a float */
        const Wider scale = std::fmax(1 + std::fabs(Wider(v)), std::fabs(wide));
        const double error = double(std::fabs(Wider(found) - wide) / scale);
        grad_error = std::fmax(grad_error, error / double(std::numeric_limits<T>::epsilon()));
    }

  public:
    void run(int64_t kind, const char *type, uint64_t step) {
        if (Activations::keeps_argument[kind]) smallest = 1024 * std::numeric_limits<T>::min();
        for (uint64_t i = 0; i < uint64_t(1) << 32;) {
            int n = 0;
            for (; n < many && i < uint64_t(1) << 32; i += step) number(i, x[n++]);
            memcpy(y, x, sizeof x);
            Activations::rows<T>[kind].activate(y, n);
            memcpy(kept, Activations::keeps_argument[kind] ? x : y, sizeof x);
            Activations::rows<T>[kind].restore(kept, grads, n);
            for (int j = 0; j < n; j++) {
                compare(x[j], y[j], exact(kind, Wider(x[j])));
                compare_grad(x[j], grads[j], exact_grad(kind, Wider(x[j])));
                special += memcmp(&kept[j], &y[j], sizeof(T)) && y[j] == y[j];
            }
        }
        printf("%s %s: at most %lld ulp (at %a), %lld special values wrong, %lld not nearest, "
               "derivative %.1f eps\n",
               type, Activations::names[kind], (long long)furthest, where, (long long)special,
               (long long)inexact, grad_error);
    }
};

template <class F> void run(uint64_t step) {
    const int64_t kind = Activations::number_of<F>();
    Comparison<float, double>().run(kind, "float", step);
    /* Of 2^64 no more than a sample in any case. */
    Comparison<double, long double>().run(kind, "double", step < 97 ? 97 : step);
}

int main(int count, char **arguments) {
    const uint64_t step = count > 1 ? strtoull(arguments[1], nullptr, 10) : 1;
    run<Tanh>(step), run<Sigmoid>(step);
    /* A tenth is enough for the rest. */
    run<Elu>(10 * step), run<Selu>(10 * step), run<Softplus>(10 * step), run<LogSigmoid>(10 * step);
    run<Exp>(10 * step), run<Silu>(10 * step), run<Mish>(10 * step), run<Gelu>(10 * step);
}
