/* The forward pass, and what the backward pass (backward.h) shares with it, for one TYPE and one
   instruction set (see native.c).

   A row is one sample (forward) or one sample of one window (backward). A group of rows walks
   through time together, because one pass over the recurrent kernel then serves all of them; its
   state stays in the cache. */

#define GROUP 48   /* rows that walk together */
#define BATCHED 96 /* rows that a product outside of the recurrence takes at once */

/* Memory ------------------------------------------------------------------------------------ */

/* One allocation, given out in pieces that begin at cache lines. */
typedef struct {
    char *all, *next;
} NAME(Arena);
#define Arena NAME(Arena)

static TYPE *NAME(take)(Arena *arena, int64_t elements) {
    TYPE *piece = (TYPE *)arena->next;
    arena->next += (elements * sizeof(TYPE) + 63) / 64 * 64;
    return piece;
}
#define take(n) NAME(take)(&arena, n)

static int NAME(reserve)(Arena *arena, int64_t elements, int64_t pieces) {
    arena->all = calloc(elements * sizeof(TYPE) + (pieces + 1) * 64, 1);
    arena->next = (char *)(((uintptr_t)arena->all + 63) / 64 * 64);
    return arena->all == NULL;
}
#define reserve NAME(reserve)

#define copy(to, from, n) memcpy(to, from, (n) * sizeof(TYPE))

/* `rows` rows of n, each a copy of `bias`, or zeros. */
static void NAME(spread)(const TYPE *bias, int64_t n, int64_t rows, TYPE *out, int64_t ld) {
    for (int64_t r = 0; r < rows; r++) {
        if (bias)
            copy(out + r * ld, bias, n);
        else
            memset(out + r * ld, 0, n * sizeof(TYPE));
    }
}
#define spread NAME(spread)

/* hu = h·U where the cell wants it apart from z, else z += h·U. */
static void NAME(recur)(const Problem *p, int64_t rows, const TYPE *h, const TYPE *packed, TYPE *z,
                        TYPE *hu, int64_t ld) {
    int64_t u = p->units;
    int apart = p->cell == GRU || (p->normalized && p->cell == LSTM);
    if (apart) {
        spread(NULL, ld, rows, hu, ld);
        if (p->cell == GRU && !p->normalized) spread(p->recurrent_bias, u, rows, hu + 2 * u, ld);
    }
    multiply(rows, ld, u, h, u, 1, packed, 0, apart ? hu : z, ld);
}
#define recur NAME(recur)

static int64_t NAME(columns)(const Problem *p) {
    return p->units * (p->cell == LSTM ? 4 : p->cell == GRU ? 3 : 1);
}

/* Forward ----------------------------------------------------------------------------------- */

/* The samples from `first` up to `last`. */
static int NAME(forward)(const Problem *p, int64_t thread, int64_t first, int64_t last) {
    const int64_t B = p->batch, T = p->timesteps, D = p->features, u = p->units;
    const int64_t N = NAME(columns)(p), ld = padded(N);
    const TYPE *x = p->x, *h0 = p->h_start, *c0 = p->c_start;
    TYPE *y = p->h, *cells = p->c, *gates = p->gates;
    (void)thread;
    Arena arena;
    if (reserve(&arena, ld * (D + u + 2 * BATCHED + 3) + BATCHED * D + 2 * GROUP * u, 10))
        return 1;
    TYPE *kernel = take(D * ld), *recurrent_kernel = take(u * ld);
    TYPE *z = take(BATCHED * ld), *hu = take(BATCHED * ld), *xs = take(BATCHED * D);
    TYPE *h = take(GROUP * u), *c = take(GROUP * u);
    Standard standard = {.inputs = take(ld), .recurrent = take(ld), .cell = take(ld)};
    pack(p->kernel, D, N, 0, kernel);
    pack(p->recurrent_kernel, u, N, 0, recurrent_kernel);
    for (int64_t b = first; b < last; b += GROUP) {
        const int64_t R = last - b < GROUP ? last - b : GROUP, steps = BATCHED / R;
        copy(h, h0 + b * u, R * u);
        if (c0) copy(c, c0 + b * u, R * u);
        for (int64_t t = 0; t < T; t++) {
            /* The inputs of several timesteps are projected by one product. */
            const int64_t s = t % steps;
            if (s == 0) {
                const int64_t S = T - t < steps ? T - t : steps;
                for (int64_t i = 0; i < S; i++)
                    for (int64_t r = 0; r < R; r++)
                        copy(xs + (i * R + r) * D, x + ((b + r) * T + t + i) * D, D);
                spread(p->normalized ? NULL : p->bias, N, S * R, z, ld);
                multiply(S * R, ld, D, xs, D, 1, kernel, 0, z, ld);
            }
            if (p->resets)
                for (int64_t r = 0; r < R; r++)
                    if (p->resets[(b + r) * T + t]) {
                        copy(h + r * u, (const TYPE *)p->h_restart + (b + r) * u, u);
                        if (c0) copy(c + r * u, (const TYPE *)p->c_restart + (b + r) * u, u);
                    }
            recur(p, R, h, recurrent_kernel, z + s * R * ld, hu, ld);
            for (int64_t r = 0; r < R; r++) {
                const int64_t at = (t * B + b + r) * u;
                TYPE *zr = z + (s * R + r) * ld, *hur = hu + r * ld, *hr = h + r * u, *cr = c + r * u;
                if (!p->mask || p->mask[(b + r) * T + t]) {
                    WITH_ACTIVATIONS(NAME(cell_forward)(p, activation, recurrent, zr, hur, hr, cr,
                                                        &standard))
                    if (gates) {
                        copy(gates + 4 * at, zr, N);
                        if (p->cell == GRU) copy(gates + 4 * at + 3 * u, hur + 2 * u, u);
                    }
                }
                copy(y + ((b + r) * T + t) * u, hr, u);
                if (cells) copy(cells + at, cr, u);
            }
        }
    }
    free(arena.all);
    return 0;
}
