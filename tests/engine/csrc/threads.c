/* Both passes of every cell by threads that start at once, the library's first calls among them: for
   ThreadSanitizer, which sees what the threads share (`make sanitize`). */
#include "native.c"
#include <pthread.h>
#include <stdio.h>

enum { B = 8, T = 20, D = 3, U = 5, N = 4 * U, THREADS = 4 };

static double numbers[100000];
static double *next = numbers;

static double *array(int64_t elements) {
    double *a = next;
    for (int64_t i = 0; i < elements; i++) a[i] = (double)((i * 7919 + elements) % 101) / 101 - 0.5;
    next += elements;
    return a;
}

static Problem problem;

static void *work(void *argument) {
    const int64_t i = (int64_t)(intptr_t)argument, rows = B / THREADS;
    const int failed = kbptt_forward(&problem, 1, i * rows, (i + 1) * rows);
    return (void *)(intptr_t)failed;
}

static void *work_back(void *argument) {
    const int64_t i = (int64_t)(intptr_t)argument, rows = B / THREADS;
    const int failed = kbptt_backward(&problem, 1, i, i * rows, (i + 1) * rows);
    return (void *)(intptr_t)failed;
}

static int together(void *(*function)(void *)) {
    pthread_t threads[THREADS];
    int failed = 0;
    for (int64_t i = 0; i < THREADS; i++)
        pthread_create(threads + i, NULL, function, (void *)(intptr_t)i);
    for (int i = 0; i < THREADS; i++) {
        void *result;
        pthread_join(threads[i], &result);
        failed |= result != NULL;
    }
    return failed;
}

int main(void) {
    static const int64_t start = 0, end = T;
    int failed = 0;
    for (int64_t cell = SIMPLE_RNN; cell <= LSTM; cell++) {
        next = numbers;
        const int64_t sums = THREADS;
        problem = (Problem){
            .batch = B, .timesteps = T, .features = D, .units = U, .windows = 1, .cell = cell,
            .activation = TANH, .recurrent_activation = SIGMOID, .clip = 1, .x = array(B * T * D),
            .kernel = array(D * N), .recurrent_kernel = array(U * N), .bias = array(N),
            .recurrent_bias = array(U), .h_start = array(B * U), .h = array(B * T * U),
            .starts = &start, .entries = &start, .ends = &end, .dh = array(B * T * U),
            .dh_final = array(B * U), .dx = array(B * T * D), .norms = (float *)array(B * T),
            .d_kernel = array(sums * D * N), .d_recurrent_kernel = array(sums * U * N),
            .d_bias = array(sums * N), .d_recurrent_bias = array(sums * U),
            .d_h_start = array(sums * B * U),
        };
        if (cell != SIMPLE_RNN) problem.gates = array(B * T * 4 * U);
        if (cell == LSTM) {
            problem.c_start = array(B * U), problem.c = array(B * T * U);
            problem.dc_final = array(B * U), problem.d_c_start = array(sums * B * U);
        }
        failed |= together(work) | together(work_back);
    }
    puts(failed ? "no memory" : "no thread touches what is another's");
    return failed;
}
