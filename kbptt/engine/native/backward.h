/* The backward pass, for one TYPE and one instruction set (see native.c). */

typedef struct {
    const Problem *p;
    int64_t N, ld, lu, lD; /* columns of the kernels; row lengths, padded to vectors */
    int apart, again;      /* dz and dhu differ; the gates are computed a second time */
    TYPE *kernel, *recurrent_kernel, *kernel_t, *recurrent_t; /* packed */
    /* Sums of this thread. Those of vectors are of the waiting rows alone, and then added to
       `totals`: see `tile` in products.h. */
    TYPE *d_kernel, *d_recurrent, *sums, *totals;
    TYPE *d_bias, *d_recurrent_bias; /* in `sums` */
    TYPE *d_input_gain, *d_recurrent_gain, *d_state_gain, *d_state_bias, *unused;
    int64_t summed;
    TYPE *dh_start, *dc_start, *dh_restart, *dc_restart;
    double penalty;
    /* Rows that wait for the products outside of the recurrence, and where they come from. */
    TYPE *dz, *dhu, *xs, *hs, *dxs;
    int64_t waiting, from[BATCHED];
    /* The group of rows that walks: timestep, sample, carried gradients, |dL/dh|. */
    int64_t t[GROUP], b[GROUP];
    TYPE *dh, *dc, *z, *hu, *h_again, *c_again;
    double norms[GROUP];
    Standard standard;
} NAME(Walk);
#define Walk NAME(Walk)

static int NAME(resets_at)(const Problem *p, int64_t t, int64_t b) {
    return p->resets && p->resets[b * p->timesteps + t];
}
#define resets_at NAME(resets_at)

static int NAME(held_at)(const Problem *p, int64_t t, int64_t b) {
    return p->mask && !p->mask[b * p->timesteps + t];
}
#define held_at NAME(held_at)

/* The gradients of kernels and inputs, by products over the waiting rows; totals of the vectors. */
static void NAME(flush)(Walk *w) {
    const int64_t D = w->p->features, u = w->p->units;
    multiply(u, w->ld, w->waiting, w->hs, 1, u, w->dhu, w->ld, w->d_recurrent, w->ld);
    multiply(D, w->ld, w->waiting, w->xs, 1, D, w->dz, w->ld, w->d_kernel, w->ld);
    memset(w->dxs, 0, w->waiting * w->lD * sizeof(TYPE));
    multiply(w->waiting, w->lD, w->N, w->dz, w->ld, 1, w->kernel_t, 0, w->dxs, w->lD);
    for (int64_t i = 0; i < w->waiting; i++)
        copy((TYPE *)w->p->dx + w->from[i] * D, w->dxs + i * w->lD, D);
    for (int64_t j = 0; j < w->summed; j++) w->totals[j] += w->sums[j];
    memset(w->sums, 0, w->summed * sizeof(TYPE));
    w->waiting = 0;
}

/* One row: from dL/dh and dL/dc to dz and dhu, as `cell_backward`, and through the normalization.
   `summed` says whether the gradients of biases and gains add up. */
static void NAME(row_back)(Walk *w, int64_t r, int summed) {
    const Problem *p = w->p;
    const int64_t u = p->units, B = p->batch, T = p->timesteps, t = w->t[r], b = w->b[r];
    const int64_t at = (t * B + b) * u;
    TYPE *dz = w->dz + (w->waiting + r) * w->ld, *dhu = w->dhu + (w->waiting + r) * w->ld;
    const TYPE *before = w->hs + (w->waiting + r) * u, *cells = p->c;
    if (summed && (p->norms || p->penalty)) {
        w->norms[r] = (float)norm(w->dh + r * w->lu, u);
        if (p->norms) p->norms[b * T + t] = (float)w->norms[r];
    }
    if (held_at(p, t, b)) { /* the gradient passes as the state did */
        memset(dz, 0, w->N * sizeof(TYPE));
        if (w->apart) memset(dhu, 0, w->N * sizeof(TYPE));
        return;
    }
    const TYPE *c_before = NULL;
    if (cells)
        c_before = resets_at(p, t, b) ? (const TYPE *)p->c_restart + b * u
                   : t == 0           ? (const TYPE *)p->c_start + b * u
                                      : cells + at - B * u;
    const TYPE *gates = (const TYPE *)p->gates + 4 * at, *hn = gates + 3 * u;
    if (w->again) {
        TYPE *z = w->z + r * w->ld, *hu = w->hu + r * w->ld;
        gates = z;
        hn = hu + 2 * u;
        copy(w->h_again, before, u);
        if (cells) copy(w->c_again, c_before, u);
        WITH_ACTIVATIONS(NAME(cell_forward)(p, activation, recurrent, z, hu, w->h_again,
                                            w->c_again, &w->standard))
    }
    TYPE *d_gain = summed ? w->d_state_gain : w->unused, *d_bias = summed ? w->d_state_bias : w->unused;
    const TYPE *h = (const TYPE *)p->h + (b * T + t) * u, *c = cells ? cells + at : NULL;
    TYPE *dh = w->dh + r * w->lu, *dc = w->dc + r * w->lu;
    WITH_ACTIVATIONS(NAME(cell_backward)(p, activation, recurrent, gates, hn, before, c_before, h,
                                         c, dh, dc, dz, dhu, &w->standard, d_gain, d_bias))
    if (summed) {
        for (int64_t j = 0; j < w->N; j++) w->d_bias[j] += dz[j];
        if (p->cell == GRU)
            for (int64_t j = 0; j < u; j++) w->d_recurrent_bias[j] += dhu[2 * u + j];
    }
    if (!p->normalized) return;
    if (p->cell == LSTM) copy(dhu, dz, w->N);
    if (p->cell == SIMPLE_RNN) {
        NAME(normalize_back)(p, dz, p->recurrent_gain, w->standard.inputs, w->standard.inputs_scale,
                             summed ? w->d_recurrent_gain : w->unused);
    } else {
        NAME(normalize_back)(p, dz, p->input_gain, w->standard.inputs, w->standard.inputs_scale,
                             summed ? w->d_input_gain : w->unused);
        NAME(normalize_back)(p, dhu, p->recurrent_gain, w->standard.recurrent,
                             w->standard.recurrent_scale, summed ? w->d_recurrent_gain : w->unused);
    }
}

/* Ω: what makes |Jᵀv| differ from |v| (Pascanu 2013). ∂L/∂U = Σ h_{t−1}ᵀ·dhu, and of a function of
   Jᵀv = dhu·Uᵀ it is Σ dᵀ·dhu, so adding d to the h that waits for its product serves both. */
static void NAME(penalize)(Walk *w, int64_t r) {
    const Problem *p = w->p;
    const int64_t u = p->units;
    const double v = w->norms[r], weight = *(const TYPE *)p->penalty_weight;
    if (w->t[r] == 0 || held_at(p, w->t[r], w->b[r]) || resets_at(p, w->t[r], w->b[r])) return;
    if (!(v > p->smallest_norm) || isinf(v)) return;
    const TYPE *pulled = w->dh + r * w->lu;
    const double length = norm(pulled, u), ratio = length / v;
    double error, scale;
    if (p->penalty == SQUARED_RATIO) {
        error = ratio * ratio - 1;
        scale = 4 * error / (v * v);
    } else {
        error = ratio - 1;
        scale = length > 0 ? 2 * error / (v * length) : 0;
    }
    w->penalty += error * error / p->batch;
    const TYPE factor = (TYPE)(weight * scale / p->batch);
    TYPE *h = w->hs + (w->waiting + r) * u;
    for (int64_t j = 0; j < u; j++) h[j] += factor * pulled[j];
}

/* One timestep back for R rows with their whole dL/dh and dL/dc; leaves what reaches the step
   before. With `summed` the rows enter the gradients of the weights. */
static void NAME(step_back)(Walk *w, int64_t R, int summed) {
    const Problem *p = w->p;
    const int64_t u = p->units, T = p->timesteps, D = p->features;
    if (w->waiting + R > BATCHED) NAME(flush)(w);
    TYPE *hs = w->hs + w->waiting * u, *xs = w->xs + w->waiting * D;
    for (int64_t r = 0; r < R; r++) {
        const int64_t t = w->t[r], b = w->b[r];
        const TYPE *before = resets_at(p, t, b) ? (const TYPE *)p->h_restart + b * u
                             : t == 0           ? (const TYPE *)p->h_start + b * u
                                                : (const TYPE *)p->h + (b * T + t - 1) * u;
        w->from[w->waiting + r] = b * T + t;
        copy(hs + r * u, before, u);
        copy(xs + r * D, (const TYPE *)p->x + (b * T + t) * D, D);
    }
    if (w->again) {
        spread(p->normalized ? NULL : p->bias, w->N, R, w->z, w->ld);
        multiply(R, w->ld, D, xs, D, 1, w->kernel, 0, w->z, w->ld);
        recur(p, R, hs, w->recurrent_kernel, w->z, w->hu, w->ld);
    }
    for (int64_t r = 0; r < R; r++) NAME(row_back)(w, r, summed);
    multiply(R, w->lu, w->N, w->dhu + w->waiting * w->ld, w->ld, 1, w->recurrent_t, 0, w->dh, w->lu);
    if (summed && p->penalty)
        for (int64_t r = 0; r < R; r++) NAME(penalize)(w, r);
    if (summed) w->waiting += R;
}

/* What befalls the gradient on its way from one step to the one before. */
static void NAME(carry)(Walk *w, int64_t R) {
    const Problem *p = w->p;
    const int64_t u = p->units;
    const TYPE clip = (TYPE)p->clip, *xi = p->factors;
    for (int64_t r = 0; r < R; r++)
        for (int state = 0; state < (p->cell == LSTM ? 2 : 1); state++) {
            const int64_t t = w->t[r], b = w->b[r];
            TYPE *d = (state ? w->dc : w->dh) + r * w->lu;
            TYPE *start = (state ? w->dc_start : w->dh_start) + b * u;
            if (resets_at(p, t, b)) {
                TYPE *restart = (state ? w->dc_restart : w->dh_restart) + b * u;
                for (int64_t j = 0; j < u; j++) restart[j] += d[j], d[j] = 0;
            }
            if (xi)
                for (int64_t j = 0; j < u; j++) d[j] *= xi[t * p->batch + b];
            if (clip < INFINITY)
                for (int64_t j = 0; j < u; j++)
                    d[j] = d[j] < -clip ? -clip : d[j] > clip ? clip : d[j];
            if (t == 0)
                for (int64_t j = 0; j < u; j++) start[j] += d[j];
        }
}

/* All windows of the samples from `b0` on, `samples` in number; of the (window, sample) rows those
   from `first` up to `last`. Where windows overlap, dL/dh and dL/dc of every timestep are summed
   over the windows into `sums`, (2, samples, T, u), because everything else is linear in them. */
static void NAME(walk_back)(Walk *w, int64_t b0, int64_t samples, int64_t first, int64_t last,
                            TYPE *sums) {
    const Problem *p = w->p;
    const int64_t T = p->timesteps, u = p->units, states = p->cell == LSTM ? 2 : 1;
    for (int64_t row = first; row < last;) {
        const int64_t w0 = row / samples, span = p->ends[w0] - p->starts[w0];
        const int64_t entry = p->ends[w0] - p->entries[w0];
        int64_t R = last - row < GROUP ? last - row : GROUP;
        /* Windows of one length walk together; those at the ends may be shorter. */
        for (int64_t r = 0; r < R; r++) {
            const int64_t i = (row + r) / samples;
            if (p->ends[i] - p->starts[i] != span || p->ends[i] - p->entries[i] != entry) R = r;
        }
        for (int64_t r = 0; r < R; r++) {
            const int64_t i = (row + r) / samples, b = b0 + (row + r) % samples;
            w->b[r] = b;
            w->t[r] = p->ends[i];
            memset(w->dh + r * w->lu, 0, w->lu * sizeof(TYPE));
            memset(w->dc + r * w->lu, 0, w->lu * sizeof(TYPE));
            if (i + 1 < p->windows) continue;
            copy(w->dh + r * w->lu, (const TYPE *)p->dh_final + b * u, u);
            if (states > 1) copy(w->dc + r * w->lu, (const TYPE *)p->dc_final + b * u, u);
        }
        for (int64_t s = 0; s < span; s++) {
            for (int64_t r = 0; r < R; r++) {
                const int64_t t = --w->t[r], at = (w->b[r] * T + t) * u;
                TYPE *dh = w->dh + r * w->lu, *dc = w->dc + r * w->lu;
                const TYPE *dy = p->dh;
                if (dy && s < entry)
                    for (int64_t j = 0; j < u; j++) dh[j] += dy[at + j];
                if (!sums) continue;
                TYPE *sum = sums + ((w->b[r] - b0) * T + t) * u;
                for (int64_t j = 0; j < u; j++) sum[j] += dh[j];
                if (states > 1)
                    for (int64_t j = 0; j < u; j++) sum[samples * T * u + j] += dc[j];
            }
            NAME(step_back)(w, R, sums == NULL);
            NAME(carry)(w, R);
        }
        row += R;
    }
    if (!sums) return;
    for (int64_t i = 0; i < samples * T; i += GROUP) {
        const int64_t R = samples * T - i < GROUP ? samples * T - i : GROUP;
        for (int64_t r = 0; r < R; r++) {
            w->b[r] = b0 + (i + r) / T;
            w->t[r] = (i + r) % T;
            copy(w->dh + r * w->lu, sums + (i + r) * u, u);
            if (states > 1) copy(w->dc + r * w->lu, sums + (samples * T + i + r) * u, u);
        }
        NAME(step_back)(w, R, 1);
    }
}

/* Copies this thread's (rows, n) sums, padded to ld, to where they are wanted. */
static void NAME(give)(void *to, int64_t thread, const TYPE *from, int64_t rows, int64_t n,
                       int64_t ld) {
    if (!to) return;
    for (int64_t k = 0; k < rows; k++)
        copy((TYPE *)to + (thread * rows + k) * n, from + k * ld, n);
}
#define give(name, from, rows, n, ld) NAME(give)(p->name, thread, from, rows, n, ld)

/* Of all (window, sample) rows those from `first` up to `last`; where windows overlap, all windows
   of the samples from `first` up to `last`. */
static int NAME(backward)(const Problem *p, int64_t thread, int64_t first, int64_t last) {
    const int64_t D = p->features, u = p->units, B = p->batch, N = NAME(columns)(p);
    const int64_t ld = padded(N), lu = padded(u), lD = padded(D);
    const int apart = p->cell == GRU || (p->normalized && p->cell == LSTM);
    const int again = p->normalized || (!p->gates && p->cell != SIMPLE_RNN);
    const int64_t states = p->cell == LSTM ? 2 : 1;
    Walk *w = calloc(1, sizeof(Walk));
    Arena arena;
    if (!w || reserve(&arena,
                      2 * ld * (D + u) + N * (lu + lD) + BATCHED * (2 * ld + D + u + lD) +
                          GROUP * (2 * ld + 2 * lu) + 11 * ld + 9 * lu, 40))
        return free(w), 1;
    const int64_t samples = p->overlapping ? last - first : B;
    TYPE *sums = NULL;
    if (p->overlapping && !(sums = calloc(states * samples * p->timesteps * u, sizeof(TYPE))))
        return free(w), free(arena.all), 1;
    w->p = p, w->N = N, w->ld = ld, w->lu = lu, w->lD = lD, w->apart = apart, w->again = again;
    w->kernel = take(D * ld), w->recurrent_kernel = take(u * ld);
    w->kernel_t = take(N * lD), w->recurrent_t = take(N * lu);
    w->d_kernel = take(D * ld), w->d_recurrent = take(u * ld);
    w->summed = 3 * ld + 3 * lu;
    w->sums = take(w->summed), w->totals = take(w->summed), w->unused = take(ld);
    w->d_bias = w->sums, w->d_input_gain = w->d_bias + ld, w->d_recurrent_gain = w->d_input_gain + ld;
    w->d_recurrent_bias = w->d_recurrent_gain + ld, w->d_state_gain = w->d_recurrent_bias + lu;
    w->d_state_bias = w->d_state_gain + lu;
    w->dh_start = (TYPE *)p->d_h_start + thread * B * u;
    if (states > 1) w->dc_start = (TYPE *)p->d_c_start + thread * B * u;
    if (p->resets) w->dh_restart = (TYPE *)p->d_h_restart + thread * B * u;
    if (p->resets && states > 1) w->dc_restart = (TYPE *)p->d_c_restart + thread * B * u;
    w->dz = take(BATCHED * ld), w->dhu = apart ? take(BATCHED * ld) : w->dz;
    w->xs = take(BATCHED * D), w->hs = take(BATCHED * u), w->dxs = take(BATCHED * lD);
    w->dh = take(GROUP * lu), w->dc = take(GROUP * lu);
    w->z = take(GROUP * ld), w->hu = take(GROUP * ld), w->h_again = take(lu), w->c_again = take(lu);
    w->standard.inputs = take(ld), w->standard.recurrent = take(ld), w->standard.cell = take(lu);
    if (again) {
        pack(p->kernel, D, N, 0, w->kernel);
        pack(p->recurrent_kernel, u, N, 0, w->recurrent_kernel);
    }
    pack(p->kernel, N, D, 1, w->kernel_t);
    pack(p->recurrent_kernel, N, u, 1, w->recurrent_t);
    if (p->overlapping)
        NAME(walk_back)(w, first, samples, 0, p->windows * samples, sums);
    else
        NAME(walk_back)(w, 0, B, first, last, NULL);
    NAME(flush)(w);
    const int64_t totals = w->totals - w->sums;
    give(d_kernel, w->d_kernel, D, N, ld);
    give(d_recurrent_kernel, w->d_recurrent, u, N, ld);
    give(d_bias, w->d_bias + totals, 1, N, ld);
    give(d_recurrent_bias, w->d_recurrent_bias + totals, 1, u, lu);
    give(d_input_gain, w->d_input_gain + totals, 1, N, ld);
    give(d_recurrent_gain, w->d_recurrent_gain + totals, 1, N, ld);
    give(d_state_gain, w->d_state_gain + totals, 1, u, lu);
    give(d_state_bias, w->d_state_bias + totals, 1, u, lu);
    if (p->penalty_value) p->penalty_value[thread] = w->penalty;
    free(sums);
    free(arena.all);
    free(w);
    return 0;
}

#undef LANES
#undef ROWS
#undef PANEL
#undef GROUP
#undef BATCHED
#undef INLINE
#undef Vector
#undef padded
#undef multiply
#undef pack
#undef tangent
#undef activate
#undef slope
#undef dot
#undef total
#undef norm
#undef Standard
#undef WITH_ACTIVATIONS
#undef Arena
#undef take
#undef reserve
#undef copy
#undef spread
#undef recur
#undef Walk
#undef resets_at
#undef held_at
#undef give
