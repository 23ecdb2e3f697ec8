/* What one row does in one timestep, forward and backward, for one TYPE (see native.c). */

/* Sums, in as many parts as there are lanes -------------------------------------------------- */

/* By halves: one after the other, each addition would wait for the one before. */
INLINE TYPE NAME(across)(Vector sums) {
    TYPE part[LANES];
    memcpy(part, &sums, sizeof sums);
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) part[i] += part[i + half];
    return part[0];
}

INLINE TYPE NAME(dot)(const TYPE *a, const TYPE *b, int64_t n) {
    Vector sums = {0};
    int64_t j = 0;
    for (; j + LANES <= n; j += LANES)
        sums += *(const Vector *)(a + j) * *(const Vector *)(b + j);
    TYPE sum = NAME(across)(sums);
    for (; j < n; j++) sum += a[j] * b[j];
    return sum;
}
#define dot NAME(dot)

INLINE TYPE NAME(total)(const TYPE *a, int64_t n) {
    Vector sums = {0};
    int64_t j = 0;
    for (; j + LANES <= n; j += LANES) sums += *(const Vector *)(a + j);
    TYPE sum = NAME(across)(sums);
    for (; j < n; j++) sum += a[j];
    return sum;
}
#define total NAME(total)

/* Again in double where squares of floats may have become 0 or infinite. */
static double NAME(norm)(const TYPE *v, int64_t n) {
    double sum = dot(v, v, n);
    if (sum > 1e-30 && sum < 1e30) return sqrt(sum);
    sum = 0;
    for (int64_t j = 0; j < n; j++) sum += (double)v[j] * (double)v[j];
    return sqrt(sum);
}
#define norm NAME(norm)

/* Layer normalization (Ba, Kiros & Hinton, 2016) ---------------------------------------------- */

/* What the normalizations of one row leave for their gradients: x/σ(x), and 1/σ(x). The columns of
   a GRU form two groups, which are normalised apart. */
typedef struct {
    TYPE *inputs, *recurrent, *cell;
    TYPE inputs_scale[2], recurrent_scale[2], cell_scale;
} NAME(Standard);
#define Standard NAME(Standard)

INLINE TYPE NAME(standardize)(const TYPE *x, int64_t n, double epsilon, TYPE *out) {
    TYPE scale = 1 / (TYPE)sqrt((double)(dot(x, x, n) / n) + epsilon);
    for (int64_t j = 0; j < n; j++) out[j] = x[j] * scale;
    return scale;
}

/* d = dL/d(x/σ) becomes dL/dx of centred x: (d − x̂·mean(d·x̂))/σ. */
INLINE void NAME(standardize_back)(TYPE *d, const TYPE *standard, TYPE scale, int64_t n) {
    TYPE mean = dot(d, standard, n) / n;
    for (int64_t j = 0; j < n; j++) d[j] = scale * (d[j] - standard[j] * mean);
}

/* z = gain·LN(z) + bias; the mean is 0 already: the columns of the kernel are centred. */
INLINE void NAME(normalize)(const Problem *p, TYPE *z, const TYPE *gain, const TYPE *bias,
                            TYPE *standard, TYPE *scale) {
    int64_t u = p->units, first = p->cell == GRU ? 2 * u : p->cell == LSTM ? 4 * u : u;
    int64_t n = p->cell == GRU ? 3 * u : first;
    scale[0] = NAME(standardize)(z, first, p->epsilon, standard);
    if (n > first) scale[1] = NAME(standardize)(z + first, u, p->epsilon, standard + first);
    for (int64_t j = 0; j < n; j++) z[j] = gain[j] * standard[j] + (bias ? bias[j] : 0);
}

/* d = dL/dz becomes that before the normalization; the gain's gradient adds up. */
INLINE void NAME(normalize_back)(const Problem *p, TYPE *d, const TYPE *gain,
                                 const TYPE *standard, const TYPE *scale, TYPE *d_gain) {
    int64_t u = p->units, first = p->cell == GRU ? 2 * u : p->cell == LSTM ? 4 * u : u;
    int64_t n = p->cell == GRU ? 3 * u : first;
    for (int64_t j = 0; j < n; j++) {
        d_gain[j] += d[j] * standard[j];
        d[j] *= gain[j];
    }
    NAME(standardize_back)(d, standard, scale[0], first);
    if (n > first) NAME(standardize_back)(d + first, standard + first, scale[1], u);
}

/* Cells ------------------------------------------------------------------------------------- */

/* From z = x·W and hu = h·U to the gates (in place of z; GRU: z r n and, in hu, h·U of the
   candidate), the new h and c. Without normalization z holds the biases, and, but for the GRU,
   h·U as well. */
INLINE void NAME(cell_forward)(const Problem *p, int64_t activation, int64_t recurrent,
                               TYPE *restrict z, TYPE *restrict hu, TYPE *restrict h,
                               TYPE *restrict c, Standard *s) {
    int64_t u = p->units;
    if (p->cell == LSTM) {
        if (p->normalized) {
            NAME(normalize)(p, z, p->input_gain, p->bias, s->inputs, s->inputs_scale);
            NAME(normalize)(p, hu, p->recurrent_gain, NULL, s->recurrent, s->recurrent_scale);
            for (int64_t j = 0; j < 4 * u; j++) z[j] += hu[j];
        }
        activate(recurrent, z, 2 * u);
        activate(activation, z + 2 * u, u);
        activate(recurrent, z + 3 * u, u);
        for (int64_t j = 0; j < u; j++) h[j] = c[j] = z[u + j] * c[j] + z[j] * z[2 * u + j];
        if (p->normalized) {
            const TYPE *gain = p->state_gain, *bias = p->state_bias, mean = total(c, u) / u;
            for (int64_t j = 0; j < u; j++) h[j] -= mean;
            s->cell_scale = NAME(standardize)(h, u, p->epsilon, s->cell);
            for (int64_t j = 0; j < u; j++) h[j] = gain[j] * s->cell[j] + bias[j];
            if (p->carry_normalized) memcpy(c, h, u * sizeof(TYPE));
        }
        activate(activation, h, u);
        for (int64_t j = 0; j < u; j++) h[j] *= z[3 * u + j];
    } else if (p->cell == GRU) {
        if (p->normalized) {
            const TYPE *bias = p->recurrent_bias;
            NAME(normalize)(p, z, p->input_gain, p->bias, s->inputs, s->inputs_scale);
            NAME(normalize)(p, hu, p->recurrent_gain, NULL, s->recurrent, s->recurrent_scale);
            if (bias)
                for (int64_t j = 0; j < u; j++) hu[2 * u + j] += bias[j];
        }
        for (int64_t j = 0; j < 2 * u; j++) z[j] += hu[j];
        activate(recurrent, z, 2 * u);
        for (int64_t j = 0; j < u; j++) z[2 * u + j] += z[u + j] * hu[2 * u + j];
        activate(activation, z + 2 * u, u);
        for (int64_t j = 0; j < u; j++) h[j] = z[j] * h[j] + (1 - z[j]) * z[2 * u + j];
    } else {
        if (p->normalized)
            NAME(normalize)(p, z, p->recurrent_gain, p->bias, s->inputs, s->inputs_scale);
        activate(activation, z, u);
        memcpy(h, z, u * sizeof(TYPE));
    }
}

/* From dL/dh and dL/dc to the gradients dz of the sums that go into the gates and (GRU) dhu of h·U,
   and to what reaches the previous h and c past the recurrent kernel. `gates` and `hn` as
   `cell_forward` leaves them. */
INLINE void NAME(cell_backward)(const Problem *p, int64_t activation, int64_t recurrent,
                                const TYPE *restrict gates, const TYPE *restrict hn,
                                const TYPE *restrict before, const TYPE *restrict c_before,
                                const TYPE *restrict h, const TYPE *restrict c,
                                TYPE *restrict dh, TYPE *restrict dc, TYPE *restrict dz,
                                TYPE *restrict dhu, Standard *s, TYPE *restrict d_state_gain,
                                TYPE *restrict d_state_bias) {
    int64_t u = p->units;
    if (p->cell == LSTM) {
        const TYPE *i = gates, *f = gates + u, *g = gates + 2 * u, *o = gates + 3 * u;
        TYPE *y = dz; /* the activated cell state, until dz is written */
        TYPE *d_cell = dz + u; /* what reaches c through h, until dz is written */
        if (p->normalized) {
            const TYPE *gain = p->state_gain, *bias = p->state_bias;
            for (int64_t j = 0; j < u; j++) y[j] = gain[j] * s->cell[j] + bias[j];
        } else {
            memcpy(y, c, u * sizeof(TYPE));
        }
        activate(activation, y, u);
        if (p->normalized) {
            const TYPE *gain = p->state_gain;
            for (int64_t j = 0; j < u; j++) {
                TYPE d = dh[j] * o[j] * slope(activation, y[j]);
                if (p->carry_normalized) d += dc[j], dc[j] = 0;
                d_state_gain[j] += d * s->cell[j];
                d_state_bias[j] += d;
                d_cell[j] = d * gain[j];
            }
            NAME(standardize_back)(d_cell, s->cell, s->cell_scale, u);
            const TYPE mean = total(d_cell, u) / u; /* unlike h·U, c is centred in the step */
            for (int64_t j = 0; j < u; j++) dc[j] += d_cell[j] - mean;
        } else {
            for (int64_t j = 0; j < u; j++) dc[j] += dh[j] * o[j] * slope(activation, y[j]);
        }
        for (int64_t j = 0; j < u; j++) {
            TYPE a = y[j], e = dc[j];
            dz[j] = e * g[j] * slope(recurrent, i[j]);
            dz[u + j] = e * c_before[j] * slope(recurrent, f[j]);
            dz[2 * u + j] = e * i[j] * slope(activation, g[j]);
            dz[3 * u + j] = dh[j] * a * slope(recurrent, o[j]);
            dc[j] = e * f[j];
            dh[j] = 0;
        }
    } else if (p->cell == GRU) {
        const TYPE *z = gates, *r = gates + u, *n = gates + 2 * u;
        for (int64_t j = 0; j < u; j++) {
            TYPE dn = dh[j] * (1 - z[j]) * slope(activation, n[j]);
            dz[j] = dhu[j] = dh[j] * (before[j] - n[j]) * slope(recurrent, z[j]);
            dz[u + j] = dhu[u + j] = dn * hn[j] * slope(recurrent, r[j]);
            dz[2 * u + j] = dn;
            dhu[2 * u + j] = dn * r[j];
            dh[j] *= z[j];
        }
    } else {
        for (int64_t j = 0; j < u; j++) {
            dz[j] = dh[j] * slope(activation, h[j]);
            dh[j] = 0;
        }
    }
}

/* The usual activations as constants, so that no loop asks which one it has. */
#define WITH_ACTIVATIONS(call)                                         \
    if (p->activation == TANH && p->recurrent_activation == SIGMOID) { \
        const int64_t activation = TANH, recurrent = SIGMOID;          \
        call;                                                          \
    } else {                                                           \
        const int64_t activation = p->activation;                      \
        const int64_t recurrent = p->recurrent_activation;             \
        call;                                                          \
    }
