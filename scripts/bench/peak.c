/* The peak of one core: fused multiply-adds on registers alone, enough of them in flight. */
#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif

/* Latency 4 or 5, two units: 8 to 10 at a time. With the two constants 14 registers of 16. Named
   variables, since compilers leave an array of them in memory. */
#define EACH(f) f(a) f(b) f(c) f(d) f(e) f(g) f(h) f(i) f(j) f(k) f(l) f(m)
#define CHAINS 12

typedef float vector __attribute__((vector_size(BYTES)));

/* Floating-point operations of an iteration. */
int operations(void) { return 2 * CHAINS * (int)(sizeof(vector) / sizeof(float)); }

float run(long long iterations) {
    /* Converges to 1: no infinities, no subnormal numbers. */
    const vector zero = {0}, factor = zero + 0.9f, term = zero + 0.1f;
    float start = 0;
#define DECLARE(v) vector v = zero + (start += 0.125f);
    EACH(DECLARE)
#define STEP(v) v = v * factor + term;
    for (long long n = 0; n < iterations; n++) {
        EACH(STEP)
    }
    vector sum = zero;
#define ADD(v) sum += v;
    EACH(ADD)
    return sum[0]; /* without which the compiler would drop the loop */
}
