/* Matrix products and sums of vectors. An instruction set `Isa` gives the bytes of a vector and how
   many vectors wide a tile of a product is. */
#pragma once
#include "portable.hpp"

namespace kbptt {
namespace {

template <class T, class Isa> struct Simd {
    typedef T Vector __attribute__((vector_size(Isa::vector_bytes)));
    static constexpr int lanes = Isa::vector_bytes / sizeof(T);
    /* A product works on 6 rows of a few vectors at once: as many sums as registers hold. */
    static constexpr int rows = 6, vectors = Isa::tile_vectors, panel = vectors * lanes;

    static KBPTT_INLINE Vector load(const T *from) {
        Vector v;
        memcpy(&v, from, sizeof v);
        return v;
    }
    static KBPTT_INLINE void add(T *to, Vector v) {
        v += load(to);
        memcpy(to, &v, sizeof v);
    }
    static constexpr int64_t padded(int64_t n) { return (n + lanes - 1) / lanes * lanes; }
};

template <class T> KBPTT_INLINE void copy(T *to, const T *from, int64_t n) {
    memcpy(to, from, n * sizeof(T));
}

template <class T> KBPTT_INLINE void fill_zeros(T *to, int64_t n) { memset(to, 0, n * sizeof(T)); }

/* Products ---------------------------------------------------------------------------------- */

/* c += a·b for `rows` x (`vectors` vectors); a[r, k] at a + r·ra + k·ka; b has ldb columns. The
   products are summed before they are added to c: rounding errors of a sum over many timesteps,
   BATCHED at a time, grow with the number of blocks and not with that of the terms. */
template <int rows, int vectors, class Isa, class T>
KBPTT_INLINE void tile(int64_t depth, const T *a, int64_t ra, int64_t ka, const T *b, int64_t ldb,
                       T *c, int64_t ldc) {
    using S = Simd<T, Isa>;
    typename S::Vector sum[rows][vectors];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) sum[r][v] = typename S::Vector{};
    for (int64_t k = 0; k < depth; k++) {
        typename S::Vector row[vectors];
        for (int v = 0; v < vectors; v++) row[v] = S::load(b + k * ldb + v * S::lanes);
        for (int r = 0; r < rows; r++) {
            const T s = a[r * ra + k * ka];
            for (int v = 0; v < vectors; v++) sum[r][v] += s * row[v];
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) S::add(c + r * ldc + v * S::lanes, sum[r][v]);
}

/* The compiler keeps the sums in registers only if it knows the number of rows. */
template <int vectors, class Isa, class T>
void tile_of(int64_t rows, int64_t depth, const T *a, int64_t ra, int64_t ka, const T *b,
             int64_t ldb, T *c, int64_t ldc) {
    switch (rows) {
        case 1: return tile<1, vectors, Isa>(depth, a, ra, ka, b, ldb, c, ldc);
        case 2: return tile<2, vectors, Isa>(depth, a, ra, ka, b, ldb, c, ldc);
        case 3: return tile<3, vectors, Isa>(depth, a, ra, ka, b, ldb, c, ldc);
        case 4: return tile<4, vectors, Isa>(depth, a, ra, ka, b, ldb, c, ldc);
        case 5: return tile<5, vectors, Isa>(depth, a, ra, ka, b, ldb, c, ldc);
        case 6: return tile<6, vectors, Isa>(depth, a, ra, ka, b, ldb, c, ldc);
    }
}

/* c (rows, columns) += a (rows, depth) · b (depth, columns); columns a multiple of the lanes.
   b is packed in panels (see `pack`), or a plain matrix of ldb > 0 columns. */
template <class Isa, class T>
void multiply(int64_t rows, int64_t columns, int64_t depth, const T *a, int64_t ra, int64_t ka,
              const T *b, int64_t ldb, T *c, int64_t ldc) {
    using S = Simd<T, Isa>;
    for (int64_t j = 0; j < columns;) {
        const bool wide = columns - j >= S::panel;
        const int64_t width = wide ? S::panel : S::lanes, ld = ldb ? ldb : width;
        const T *panel = ldb ? b + j : b + j * depth;
        for (int64_t i = 0; i < rows; i += S::rows) {
            const int64_t m = rows - i < S::rows ? rows - i : S::rows;
            (wide ? tile_of<S::vectors, Isa, T> : tile_of<1, Isa, T>)(
                m, depth, a + i * ra, ra, ka, panel, ld, c + i * ldc + j, ldc);
        }
        j += width;
    }
}

/* b (depth, columns), or its transpose, as panels one after the other, padded with zeros. */
template <class Isa, class T>
void pack(const T *b, int64_t depth, int64_t columns, bool transposed, T *out) {
    using S = Simd<T, Isa>;
    const int64_t all = S::padded(columns);
    for (int64_t j = 0; j < all;) {
        const int64_t width = all - j >= S::panel ? S::panel : S::lanes;
        for (int64_t k = 0; k < depth; k++)
            for (int64_t i = j; i < j + width; i++)
                *out++ = i >= columns ? 0 : transposed ? b[i * depth + k] : b[k * columns + i];
        j += width;
    }
}

/* `rows` rows of n, each a copy of `bias`, or zeros. */
template <class T>
void broadcast_rows(const T *bias, int64_t n, int64_t rows, T *out, int64_t ld) {
    for (int64_t r = 0; r < rows; r++)
        bias ? copy(out + r * ld, bias, n) : fill_zeros(out + r * ld, n);
}

/* Sums, in as many parts as there are lanes -------------------------------------------------- */

/* By halves: one after the other, each addition would wait for the one before. */
template <class T, class Isa> KBPTT_INLINE T hsum(typename Simd<T, Isa>::Vector sums) {
    constexpr int lanes = Simd<T, Isa>::lanes;
    T part[lanes];
    memcpy(part, &sums, sizeof sums);
    for (int half = lanes / 2; half; half /= 2)
        for (int i = 0; i < half; i++) part[i] += part[i + half];
    return part[0];
}

template <class Isa, class T> KBPTT_INLINE T dot(const T *a, const T *b, int64_t n) {
    using S = Simd<T, Isa>;
    typename S::Vector sums = {};
    int64_t j = 0;
    for (; j + S::lanes <= n; j += S::lanes) sums += S::load(a + j) * S::load(b + j);
    T sum = hsum<T, Isa>(sums);
    for (; j < n; j++) sum += a[j] * b[j];
    return sum;
}

template <class Isa, class T> KBPTT_INLINE T mean(const T *a, int64_t n) {
    using S = Simd<T, Isa>;
    typename S::Vector sums = {};
    int64_t j = 0;
    for (; j + S::lanes <= n; j += S::lanes) sums += S::load(a + j);
    T sum = hsum<T, Isa>(sums);
    for (; j < n; j++) sum += a[j];
    return sum / n;
}

/* ‖v‖₂; in double where squares of floats may have become 0 or infinite. */
template <class Isa, class T> double norm(const T *v, int64_t n) {
    double sum = dot<Isa>(v, v, n);
    if (sum > 1e-30 && sum < 1e30) return std::sqrt(sum);
    sum = 0;
    for (int64_t j = 0; j < n; j++) sum += double(v[j]) * double(v[j]);
    return std::sqrt(sum);
}

}  // namespace
}  // namespace kbptt
