/* Matrix products and sums of vectors. An instruction set `Isa` gives the bytes of a vector and how
   many vectors wide a tile of a product is. */
#pragma once
#include "blocks.hpp"
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

/* What is read next: `step` bytes for each row of b that is read now; 0: nothing. */
struct Ahead {
    const char *from;
    int64_t step;
};

/* c += a·b for `rows` x (`vectors` vectors); a[r, k] at a + r·ra + k·ka; b has ldb columns. The
   products are summed before they are added to c: rounding errors of a sum over many timesteps,
   a block at a time, grow with the number of blocks and not with that of the terms. Meanwhile c, and
   what lies at `ahead`, `step` bytes for each row of b, come nearer. */
template <int rows, int vectors, bool fetches, class Isa, class T>
KBPTT_INLINE void tile(int64_t depth, const T *a, int64_t ra, int64_t ka, const T *b, int64_t ldb,
                       T *c, int64_t ldc, Ahead ahead) {
    using S = Simd<T, Isa>;
    KBPTT_UNROLLED
    for (int r = 0; r < rows; r++)
        KBPTT_UNROLLED
        for (int v = 0; v < vectors; v++) __builtin_prefetch(c + r * ldc + v * S::lanes, 1);
    typename S::Vector sum[rows][vectors];
    KBPTT_UNROLLED
    for (int r = 0; r < rows; r++)
        KBPTT_UNROLLED
        for (int v = 0; v < vectors; v++) sum[r][v] = typename S::Vector{};
    for (int64_t k = 0; k < depth; k++) {
        typename S::Vector row[vectors];
        KBPTT_UNROLLED
        for (int v = 0; v < vectors; v++) row[v] = S::load(b + k * ldb + v * S::lanes);
        if (fetches) __builtin_prefetch(ahead.from + k * ahead.step);
        KBPTT_UNROLLED
        for (int r = 0; r < rows; r++) {
            const T s = a[r * ra + k * ka];
            KBPTT_UNROLLED
            for (int v = 0; v < vectors; v++) sum[r][v] += s * row[v];
        }
    }
    KBPTT_UNROLLED
    for (int r = 0; r < rows; r++)
        KBPTT_UNROLLED
        for (int v = 0; v < vectors; v++) S::add(c + r * ldc + v * S::lanes, sum[r][v]);
}

/* What the compiler knows of a tile's left factor makes its addresses constants. */
template <int rows, int vectors, class Isa, class T>
void tile_of(bool interleaved, int64_t depth, const T *a, int64_t ra, int64_t ka, const T *b,
             int64_t ldb, T *c, int64_t ldc, Ahead ahead) {
    const bool fetches = vectors > 1 && ahead.step; /* a narrow panel is the last one */
    if (rows < 3 || !interleaved) /* of several tiles, none is lower */
        fetches ? tile<rows, vectors, true, Isa>(depth, a, ra, ka, b, ldb, c, ldc, ahead)
                : tile<rows, vectors, false, Isa>(depth, a, ra, ka, b, ldb, c, ldc, ahead);
    else
        fetches ? tile<rows, vectors, true, Isa>(depth, a, 1, rows, b, ldb, c, ldc, ahead)
                : tile<rows, vectors, false, Isa>(depth, a, 1, rows, b, ldb, c, ldc, ahead);
}

/* The compiler keeps the sums in registers only if it knows the number of rows. */
template <int vectors, class Isa, class T>
void tile_of_rows(int64_t rows, bool interleaved, int64_t depth, const T *a, int64_t ra, int64_t ka,
                  const T *b, int64_t ldb, T *c, int64_t ldc, Ahead ahead) {
    switch (rows) {
        case 1: return tile_of<1, vectors, Isa>(interleaved, depth, a, ra, ka, b, ldb, c, ldc, ahead);
        case 2: return tile_of<2, vectors, Isa>(interleaved, depth, a, ra, ka, b, ldb, c, ldc, ahead);
        case 3: return tile_of<3, vectors, Isa>(interleaved, depth, a, ra, ka, b, ldb, c, ldc, ahead);
        case 4: return tile_of<4, vectors, Isa>(interleaved, depth, a, ra, ka, b, ldb, c, ldc, ahead);
        case 5: return tile_of<5, vectors, Isa>(interleaved, depth, a, ra, ka, b, ldb, c, ldc, ahead);
        case 6: return tile_of<6, vectors, Isa>(interleaved, depth, a, ra, ka, b, ldb, c, ldc, ahead);
    }
}

/* The left factor of a product: `rows` x depth, element (r, k) at a + r·ra + k·ka. */
template <class T> struct Left {
    const T *a;
    int64_t rows, ra, ka;
};

/* The rows as tiles of nearly one height: 32 are 6 + 6 + 5 + 5 + 5 + 5 and not 5·6 + 2. */
struct Tiles {
    int64_t rows, count;
    explicit Tiles(int64_t rows_, int64_t most) : rows(rows_), count((rows_ + most - 1) / most) {}
    int64_t first(int64_t i) const { return rows / count * i + (i < rows % count ? i : rows % count); }
};

/* `depth` columns of the left factor from k0 on, tile after tile, the rows of each interleaved. */
template <class T>
void interleave(const Left<T> &left, const Tiles &tiles, int64_t k0, int64_t depth, T *out) {
    for (int64_t i = 0; i < tiles.count; i++) {
        const int64_t r0 = tiles.first(i), rows = tiles.first(i + 1) - r0;
        const T *a = left.a + r0 * left.ra + k0 * left.ka;
        if (left.ka == 1)
            for (int64_t r = 0; r < rows; r++)
                for (int64_t k = 0; k < depth; k++) out[k * rows + r] = a[r * left.ra + k];
        else
            for (int64_t k = 0; k < depth; k++)
                for (int64_t r = 0; r < rows; r++)
                    out[k * rows + r] = a[r * left.ra + k * left.ka];
        out += rows * depth;
    }
}

/* c (rows, columns) += a (rows, depth) · b (depth, columns); columns a multiple of the lanes.
   b is packed in panels (see `pack`), or a plain matrix of ldb > 0 columns. `scratch`: for rows x
   DEPTH numbers and one panel. */
template <class Isa, class T>
void multiply(const Left<T> &left, int64_t columns, int64_t depth, const T *b, int64_t ldb, T *c,
              int64_t ldc, T *scratch) {
    using S = Simd<T, Isa>;
    const Tiles tiles(left.rows, S::rows);
    /* Copies pay where they are read often. */
    const bool interleaved = tiles.count > 1 && columns >= 16 * S::panel;
    const bool far = !ldb && columns * depth * sizeof(T) > NEAR;
    const bool panels_copied = ldb && tiles.count >= 8;
    T *const copied = scratch + left.rows * DEPTH;
    for (int64_t k0 = 0; k0 < depth; k0 += DEPTH) {
        const int64_t some = depth - k0 < DEPTH ? depth - k0 : DEPTH;
        if (interleaved) interleave(left, tiles, k0, some, scratch);
        for (int64_t j = 0; j < columns;) {
            const bool wide = columns - j >= S::panel;
            const int64_t width = wide ? S::panel : S::lanes;
            const T *panel = ldb ? b + k0 * ldb + j : b + j * depth + k0 * width;
            int64_t ld = ldb ? ldb : width;
            if (panels_copied && wide) {
                for (int64_t k = 0; k < some; k++) copy(copied + k * S::panel, panel + k * ldb, S::panel);
                panel = copied, ld = S::panel;
            }
            /* The next panel, a part with each tile. */
            const char *next = reinterpret_cast<const char *>(panel + width * depth);
            const int64_t step = far ? width * int64_t(sizeof(T)) / tiles.count : 0;
            for (int64_t i = 0; i < tiles.count; i++) {
                const int64_t r0 = tiles.first(i), rows = tiles.first(i + 1) - r0;
                const T *a = interleaved ? scratch + r0 * some
                                         : left.a + r0 * left.ra + k0 * left.ka;
                (wide ? tile_of_rows<S::vectors, Isa, T> : tile_of_rows<1, Isa, T>)(
                    rows, interleaved, some, a, left.ra, left.ka, panel, ld, c + r0 * ldc + j, ldc,
                    Ahead{next + i * some * step, step});
            }
            j += width;
        }
    }
}

/* What `multiply` needs for scratch. */
template <class Isa, class T> constexpr int64_t scratch_of(int64_t rows) {
    return (rows + Simd<T, Isa>::panel) * DEPTH;
}

/* c (rows, columns) += a (rows, depth) · b for so few rows that b is read once, as it lies. */
template <class T>
void multiply_once(int64_t rows, int64_t columns, int64_t depth, const T *a, int64_t lda, const T *b,
                   int64_t ldb, T *c, int64_t ldc) {
    for (int64_t r = 0; r < rows; r++, a += lda, c += ldc) {
        int64_t k = 0;
        for (; k + 4 <= depth; k += 4) {
            const T *b0 = b + k * ldb, *b1 = b0 + ldb, *b2 = b1 + ldb, *b3 = b2 + ldb;
            const T a0 = a[k], a1 = a[k + 1], a2 = a[k + 2], a3 = a[k + 3];
            KBPTT_INDEPENDENT
            for (int64_t j = 0; j < columns; j++)
                c[j] += (a0 * b0[j] + a1 * b1[j]) + (a2 * b2[j] + a3 * b3[j]);
        }
        for (; k < depth; k++) {
            const T *b0 = b + k * ldb, a0 = a[k];
            KBPTT_INDEPENDENT
            for (int64_t j = 0; j < columns; j++) c[j] += a0 * b0[j];
        }
    }
}

/* Some columns of b (depth, ldb), given by their indices, as panels one after the other, padded with
   zeros. */
template <class Isa, class T>
void pack(const T *b, int64_t ldb, int64_t depth, const int64_t *columns, int64_t count, T *out) {
    using S = Simd<T, Isa>;
    const int64_t all = S::padded(count);
    for (int64_t j = 0; j < all;) {
        const int64_t width = all - j >= S::panel ? S::panel : S::lanes;
        const bool together = j + width <= count && columns[j + width - 1] - columns[j] == width - 1;
        for (int64_t k = 0; k < depth; k++, out += width) {
            const T *row = b + k * ldb;
            if (together && width == S::panel)
                copy(out, row + columns[j], S::panel);
            else
                for (int64_t i = 0; i < width; i++) out[i] = j + i < count ? row[columns[j + i]] : T(0);
        }
        j += width;
    }
}

/* The same of bᵀ: column i of the result is row `first` + i of b, and its row k is b's column
   columns[k]; rows where that is negative are zeros. */
template <class Isa, class T>
void pack_transposed(const T *b, int64_t ldb, const int64_t *columns, int64_t depth, int64_t first,
                     int64_t count, T *out) {
    using S = Simd<T, Isa>;
    const int64_t all = S::padded(count);
    for (int64_t j = 0; j < all;) {
        const int64_t width = all - j >= S::panel ? S::panel : S::lanes;
        for (int64_t k0 = 0; k0 < depth; k0 += 64) { /* so many that the written lines stay near */
            const int64_t end = depth < k0 + 64 ? depth : k0 + 64;
            for (int64_t i = 0; i < width; i++) {
                const T *row = b + (first + j + i) * ldb;
                for (int64_t k = k0; k < end; k++)
                    out[k * width + i] = j + i < count && columns[k] >= 0 ? row[columns[k]] : T(0);
            }
        }
        out += depth * width;
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
    KBPTT_UNROLLED
    for (int half = lanes / 2; half; half /= 2)
        KBPTT_UNROLLED
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
