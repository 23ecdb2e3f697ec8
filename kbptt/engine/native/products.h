/* Matrix products for one TYPE and one instruction set (see native.c). */

#define LANES ((int)(VECTOR / sizeof(TYPE)))
/* A product works on 6 rows of WIDE vectors at once: as many sums as registers hold. */
#define ROWS 6
#define PANEL (WIDE * LANES)
#define Vector NAME(Vector)
typedef TYPE Vector __attribute__((vector_size(VECTOR), aligned(sizeof(TYPE)), may_alias));

static inline int64_t NAME(padded)(int64_t n) { return (n + LANES - 1) / LANES * LANES; }
#define padded NAME(padded)

/* Products ---------------------------------------------------------------------------------- */

/* c += a·b for `rows` x (`vectors` vectors); a[r, k] at a + r·ra + k·ka; b has ldb columns. The
   products are summed before they are added to c: rounding errors of a sum over many timesteps,
   BATCHED at a time, grow with the number of blocks and not with that of the terms. */
INLINE void NAME(tile)(int rows, int vectors, int64_t depth, const TYPE *a, int64_t ra, int64_t ka,
                       const TYPE *b, int64_t ldb, TYPE *c, int64_t ldc) {
    Vector sum[ROWS][WIDE];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) sum[r][v] = (Vector){0};
    for (int64_t k = 0; k < depth; k++) {
        Vector row[WIDE];
        for (int v = 0; v < vectors; v++) row[v] = *(const Vector *)(b + k * ldb + v * LANES);
        for (int r = 0; r < rows; r++) {
            TYPE s = a[r * ra + k * ka];
            for (int v = 0; v < vectors; v++) sum[r][v] += s * row[v];
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) *(Vector *)(c + r * ldc + v * LANES) += sum[r][v];
}

#define EACH(n, v) \
    case n: NAME(tile)(n, v, depth, a, ra, ka, b, ldb, c, ldc); break;

static void NAME(wide_tile)(int64_t rows, int64_t depth, const TYPE *a, int64_t ra, int64_t ka,
                        const TYPE *b, int64_t ldb, TYPE *c, int64_t ldc) {
    switch (rows) { /* the compiler keeps the sums in registers only if it knows their number */
        EACH(1, WIDE) EACH(2, WIDE) EACH(3, WIDE) EACH(4, WIDE) EACH(5, WIDE) EACH(6, WIDE)
    }
}

static void NAME(narrow_tile)(int64_t rows, int64_t depth, const TYPE *a, int64_t ra, int64_t ka,
                        const TYPE *b, int64_t ldb, TYPE *c, int64_t ldc) {
    switch (rows) {
        EACH(1, 1) EACH(2, 1) EACH(3, 1) EACH(4, 1) EACH(5, 1) EACH(6, 1)
    }
}
#undef EACH

/* c (rows, columns) += a (rows, depth) · b (depth, columns); columns a multiple of LANES.
   b is packed in panels (see `pack`), or a plain matrix of ldb > 0 columns. */
static void NAME(multiply)(int64_t rows, int64_t columns, int64_t depth, const TYPE *a, int64_t ra,
                           int64_t ka, const TYPE *b, int64_t ldb, TYPE *c, int64_t ldc) {
    for (int64_t j = 0; j < columns;) {
        int64_t width = columns - j >= PANEL ? PANEL : LANES;
        const TYPE *panel = ldb ? b + j : b + j * depth;
        for (int64_t i = 0; i < rows; i += ROWS) {
            int64_t m = rows - i < ROWS ? rows - i : ROWS;
            (width == PANEL ? NAME(wide_tile) : NAME(narrow_tile))(m, depth, a + i * ra, ra, ka, panel,
                                                         ldb ? ldb : width, c + i * ldc + j, ldc);
        }
        j += width;
    }
}
#define multiply NAME(multiply)

/* b (depth, columns), or its transpose, as panels one after the other, padded with zeros. */
static void NAME(pack)(const TYPE *b, int64_t depth, int64_t columns, int transposed, TYPE *out) {
    int64_t all = padded(columns);
    for (int64_t j = 0; j < all;) {
        int64_t width = all - j >= PANEL ? PANEL : LANES;
        for (int64_t k = 0; k < depth; k++)
            for (int64_t i = j; i < j + width; i++)
                *out++ = i >= columns ? 0 : transposed ? b[i * depth + k] : b[k * columns + i];
        j += width;
    }
}
#define pack NAME(pack)
