/* Activations: the only list of them in C++ (`Activations`), by their names in Keras.

   Each has its value, and its derivative as a function of its output y, so that nothing but y has to
   be kept for the backward pass. Where y does not determine the derivative, the argument x is kept in
   its place (`keeps_argument`), and the derivative is a function of x. They agree with
   kbptt/cells/activations.py, and at NaN and ±Inf with Keras. Exact to a few units in the last place:
   tests/engine/native/accuracy.cpp. */
#pragma once
#include "exponential.hpp"

namespace kbptt {
namespace {

struct OfOutput {
    static constexpr bool keeps_argument = false;
};
struct OfArgument {
    static constexpr bool keeps_argument = true;
};

struct Linear : OfOutput {
    static constexpr const char *name = "linear";
    template <class T> static KBPTT_INLINE T value(T x) { return x; }
    template <class T> static KBPTT_INLINE T grad(T) { return 1; }
};

struct Relu : OfOutput {
    static constexpr const char *name = "relu";
    template <class T> static KBPTT_INLINE T value(T x) { return x < 0 ? T(0) : x; }
    template <class T> static KBPTT_INLINE T grad(T y) { return T(y > 0); }
};

struct Sigmoid : OfOutput {
    static constexpr const char *name = "sigmoid";
    template <class T> static KBPTT_INLINE T value(T x) { return fast_sigmoid(x); }
    template <class T> static KBPTT_INLINE T grad(T y) { return y * (1 - y); }
};

struct Tanh : OfOutput {
    static constexpr const char *name = "tanh";
    template <class T> static KBPTT_INLINE T value(T x) { return fast_tanh(x); }
    template <class T> static KBPTT_INLINE T grad(T y) { return 1 - y * y; }
};

struct Elu : OfOutput {
    static constexpr const char *name = "elu";
    template <class T> static KBPTT_INLINE T value(T x) { return x < 0 ? fast_expm1(x) : x; }
    template <class T> static KBPTT_INLINE T grad(T y) { return y < 0 ? y + 1 : T(1); }
};

struct Selu : OfOutput {
    static constexpr const char *name = "selu";
    static constexpr double scale = 1.05070098735548049342, scale_alpha = 1.75809934084737685994;
    template <class T> static KBPTT_INLINE T value(T x) {
        return x < 0 ? T(scale_alpha) * fast_expm1(x) : T(scale) * x;
    }
    template <class T> static KBPTT_INLINE T grad(T y) {
        return y < 0 ? y + T(scale_alpha) : T(scale);
    }
};

struct Softplus : OfOutput {
    static constexpr const char *name = "softplus";
    template <class T> static KBPTT_INLINE T value(T x) {
        return (x < 0 ? T(0) : x) + fast_log1p(fast_exp(-std::fabs(x)));
    }
    /* σ(x) = 1 − exp(−y) */
    template <class T> static KBPTT_INLINE T grad(T y) { return -fast_expm1(-y); }
};

struct LogSigmoid : OfOutput {
    static constexpr const char *name = "log_sigmoid";
    template <class T> static KBPTT_INLINE T value(T x) { return -Softplus::value(-x); }
    template <class T> static KBPTT_INLINE T grad(T y) { return -fast_expm1(y); }
};

struct Exp : OfOutput {
    static constexpr const char *name = "exponential";
    template <class T> static KBPTT_INLINE T value(T x) { return fast_exp(x); }
    template <class T> static KBPTT_INLINE T grad(T y) { return y; }
};

struct Softsign : OfOutput {
    static constexpr const char *name = "softsign";
    template <class T> static KBPTT_INLINE T value(T x) { return x / (1 + std::fabs(x)); }
    template <class T> static KBPTT_INLINE T grad(T y) {
        const T rest = 1 - std::fabs(y); /* 1/(1 + |x|) */
        return rest * rest;
    }
};

struct LeakyRelu : OfOutput {
    static constexpr const char *name = "leaky_relu";
    static constexpr float slope = 0.2f; /* TensorFlow takes it as a float */
    template <class T> static KBPTT_INLINE T value(T x) { return x > 0 ? x : T(slope) * x; }
    template <class T> static KBPTT_INLINE T grad(T y) { return y > 0 ? T(1) : T(slope); }
};

struct Relu6 : OfOutput {
    static constexpr const char *name = "relu6";
    template <class T> static KBPTT_INLINE T value(T x) {
        x = x < 0 ? T(0) : x;
        return x > 6 ? T(6) : x;
    }
    template <class T> static KBPTT_INLINE T grad(T y) { return T(y > 0) * T(y < 6); }
};

struct HardSigmoid : OfOutput {
    static constexpr const char *name = "hard_sigmoid";
    template <class T> static KBPTT_INLINE T value(T x) { return Relu6::value(x + 3) / 6; }
    template <class T> static KBPTT_INLINE T grad(T y) {
        return T(y > 0) * T(y < 1) * (T(1) / 6);
    }
};

/* At ±1 itself the derivative is 1, which ±1 as an output does not show. */
struct HardTanh : OfArgument {
    static constexpr const char *name = "hard_tanh";
    template <class T> static KBPTT_INLINE T value(T x) {
        x = x < -1 ? T(-1) : x;
        return x > 1 ? T(1) : x;
    }
    template <class T> static KBPTT_INLINE T grad(T x) { return T(x >= -1) * T(x <= 1); }
};

struct HardSilu : OfArgument {
    static constexpr const char *name = "hard_silu";
    template <class T> static KBPTT_INLINE T value(T x) { return x * HardSigmoid::value(x); }
    template <class T> static KBPTT_INLINE T grad(T x) {
        const T gate = HardSigmoid::value(x);
        return gate + x * HardSigmoid::grad(gate);
    }
};

struct Silu : OfArgument {
    static constexpr const char *name = "silu";
    template <class T> static KBPTT_INLINE T value(T x) { return x * fast_sigmoid(x); }
    template <class T> static KBPTT_INLINE T grad(T x) {
        const T gate = fast_sigmoid(x);
        return gate * (1 + x * (1 - gate));
    }
};

/* x·tanh(softplus(x)) = x·n/(n + 2),  n = u(u + 2),  u = exp x */
struct Mish : OfArgument {
    static constexpr const char *name = "mish";
    /* Beyond 22 it is x. */
    template <class T> static KBPTT_INLINE T clamp(T x) { return x > 22 ? T(22) : x; }
    template <class T> static KBPTT_INLINE T value(T x) {
        const T u = fast_exp(clamp(x)), n = u * (u + 2);
        return x * (n / (n + 2));
    }
    template <class T> static KBPTT_INLINE T grad(T x) {
        x = clamp(x);
        const T u = fast_exp(x), n = u * (u + 2), rest = 2 / (n + 2);
        return rest * (T(0.5) * n + x * (u * (u + 1)) * rest);
    }
};

/* x·Φ(x); x·Φ(−|x|) is what it lacks of relu(x). TensorFlow takes √½ as a float, which shows in a
   double: x·Φ(x + εx). */
struct Gelu : OfArgument {
    static constexpr const char *name = "gelu";
    template <class T> static constexpr T epsilon = sizeof(T) == 4 ? 0 : -1.711427103580038284e-8;
    template <class T> static KBPTT_INLINE T value(T x) {
        const T t = std::fabs(x), tail = x * fast_normal(t, t * epsilon<T>).integral;
        /* Beyond 9 the tail is nothing, and Inf·0 would be NaN. */
        return x < 0 ? tail : x > 9 ? x : x - tail;
    }
    template <class T> static KBPTT_INLINE T grad(T x) {
        const T t = std::fabs(x);
        const auto normal = fast_normal(t, t * epsilon<T>);
        const T s = x + x * epsilon<T>;
        return (x < 0 ? normal.integral : 1 - normal.integral) + s * normal.density;
    }
};

/* z becomes F(z). */
template <class F, class T> void activate_row(T *z, int64_t n) {
    for (int64_t j = 0; j < n; j++) z[j] = F::value(z[j]);
}

/* From what is kept, in y: the outputs in its place, and the derivatives. */
template <class F, class T> void restore_row(T *y, T *grads, int64_t n) {
    KBPTT_INDEPENDENT
    for (int64_t j = 0; j < n; j++) {
        const T kept = y[j];
        grads[j] = F::grad(kept);
        if (F::keeps_argument) y[j] = F::value(kept);
    }
}

template <class T> struct ActivationRows {
    void (*activate)(T *z, int64_t n);
    void (*restore)(T *y, T *grads, int64_t n);
};

template <class... F> struct ActivationList {
    static constexpr int count = sizeof...(F);
    static constexpr const char *names[] = {F::name...};
    static constexpr bool keeps_argument[] = {F::keeps_argument...};
    template <class T>
    static constexpr ActivationRows<T> rows[] = {{activate_row<F, T>, restore_row<F, T>}...};

    template <class Wanted> static constexpr int64_t number_of() {
        int64_t number = 0;
        for (const char *name : names) {
            if (name == Wanted::name) break;
            number++;
        }
        return number;
    }
};

/* Python numbers them in this order. */
using Activations =
    ActivationList<Linear, Relu, Sigmoid, Tanh, Elu, Selu, Softplus, LogSigmoid, Exp, Softsign,
                   LeakyRelu, Relu6, HardSigmoid, HardTanh, HardSilu, Silu, Mish, Gelu>;

/* The activations of a cell: φ of the candidate, σ of the gates. Cells call

       activate_gate(a.phi, z, n)       z becomes φ(z), one of the cell's gates
       restore_gate(a.phi, y, n)        in the vjp, once for each gate: before, y is what was kept
       activation_grad(a.phi, y)        the derivative, of the output that y points at
       activate_anew(a.phi, y, d, n)    φ of something else in the vjp: y becomes φ(y); returns the
                                        φ for `activation_grad`, which may put derivatives at d

   The usual activations are types: everything is inlined, and derivatives are computed from outputs
   where they are used. All others are numbers, and take one call per row. */
template <class F> struct Known {};

struct Usual {
    using Phi = Tanh;
    using Sigma = Sigmoid;
    Known<Phi> phi;
    Known<Sigma> sigma;
};

/* `offset` from an output stands what is to be kept (forward), or the derivative (vjp). */
struct Listed {
    int64_t number, offset;
};

struct Chosen {
    Listed phi, sigma;
};

template <class F, class T> KBPTT_INLINE void activate(Known<F>, T *z, int64_t n) {
    for (int64_t j = 0; j < n; j++) z[j] = F::value(z[j]);
}
template <class T> KBPTT_INLINE void activate(Listed a, T *z, int64_t n) {
    Activations::rows<T>[a.number].activate(z, n);
}

template <class F, class T> KBPTT_INLINE void activate_gate(Known<F> f, T *z, int64_t n) {
    activate(f, z, n);
}
template <class T> KBPTT_INLINE void activate_gate(Listed a, T *z, int64_t n) {
    const bool argument = Activations::keeps_argument[a.number];
    if (argument) memcpy(z + a.offset, z, n * sizeof(T));
    activate(a, z, n);
    if (!argument) memcpy(z + a.offset, z, n * sizeof(T));
}

template <class F, class T> KBPTT_INLINE void restore_gate(Known<F>, T *, int64_t) {}
template <class T> KBPTT_INLINE void restore_gate(Listed a, T *y, int64_t n) {
    Activations::rows<T>[a.number].restore(y, y + a.offset, n);
}

template <class F, class T> KBPTT_INLINE Known<F> activate_anew(Known<F> f, T *y, T *, int64_t n) {
    activate(f, y, n);
    return f;
}
template <class T> KBPTT_INLINE Listed activate_anew(Listed a, T *y, T *grads, int64_t n) {
    if (!Activations::keeps_argument[a.number]) activate(a, y, n);
    Activations::rows<T>[a.number].restore(y, grads, n);
    return {a.number, grads - y};
}

template <class F, class T> KBPTT_INLINE T activation_grad(Known<F>, const T *y) {
    return F::grad(*y);
}
template <class T> KBPTT_INLINE T activation_grad(Listed a, const T *y) { return y[a.offset]; }

}  // namespace
}  // namespace kbptt
