/* What the caller tells the loops: sizes, options and arrays. Mirrored by `Problem` in native.py. */
#ifndef KBPTT_PROBLEM_H
#define KBPTT_PROBLEM_H
#include <stdint.h>

enum { SIMPLE_RNN, GRU, LSTM };
enum { LINEAR, RELU, SIGMOID, TANH };
enum { NO_PENALTY, RATIO, SQUARED_RATIO };

/* Arrays are C-contiguous, of float or double; one that is not wanted or not given is NULL.
   B batch, T timesteps, D features, u units, n windows; N columns of the kernels: u, 3u, 4u. The
   declaration is also kept as text, for `kbptt_problem`. */
#define DECLARE_PROBLEM(...)          \
    typedef struct {                  \
        __VA_ARGS__                   \
    } Problem;                        \
    static const char declaration[] = #__VA_ARGS__;

DECLARE_PROBLEM(
    int64_t batch, timesteps, features, units, windows;
    int64_t cell, activation, recurrent_activation;
    int64_t normalized;       /* layer normalization; the kernels' columns are centred */
    int64_t carry_normalized; /* LSTM: the normalised cell state is the one that is carried */
    int64_t overlapping;      /* windows reach over each other */
    int64_t penalty;          /* form of the vanishing-gradient regularizer */
    double epsilon;           /* of layer normalization */
    double clip;              /* bound on the elements of the carried gradient; infinite: none */
    double smallest_norm;     /* the penalty leaves out gradients below */
    /* Given to both passes. */
    const void *x;                /* (B, T, D) */
    const void *kernel;           /* (D, N) */
    const void *recurrent_kernel; /* (u, N) */
    const void *bias;             /* (N) */
    const void *recurrent_bias;   /* (u), GRU: added to h·U of the candidate */
    const void *input_gain;       /* (N), normalized GRU and LSTM: scales x·W */
    const void *recurrent_gain;   /* (N), normalized: scales h·U; SimpleRNN: the sum */
    const void *state_gain;       /* (u), normalized LSTM */
    const void *state_bias;       /* (u), normalized LSTM */
    const void *h_start;          /* (B, u) */
    const void *c_start;          /* (B, u), LSTM */
    const void *h_restart;        /* (B, u): h before a step where `resets` is 1 */
    const void *c_restart;        /* (B, u), LSTM: c there */
    const uint8_t *mask;          /* (B, T): 0 holds the state */
    const uint8_t *resets;        /* (B, T): 1 puts h_restart and c_restart in before the step */
    /* Made by the forward pass, read by the backward pass. */
    void *h;     /* (B, T, u) */
    void *c;     /* (T, B, u), LSTM */
    void *gates; /* (T, B, 4u): LSTM i f g o; GRU z r n h·U. NULL: computed a second time */
    /* Given to the backward pass. Window w goes back from ends[w] to starts[w]; the loss enters it
       at the timesteps from entries[w] on. */
    const int64_t *starts, *entries, *ends; /* (n) */
    const void *dh;                         /* (B, T, u): what the loss sends to each output */
    const void *dh_final;                   /* (B, u) */
    const void *dc_final;                   /* (B, u), LSTM */
    const void *factors;                    /* (T, B): multiplies the carried gradient */
    const void *penalty_weight;             /* a number */
    /* Made by the backward pass; from d_kernel on by thread, to be summed. */
    void *dx;     /* (B, T, D) */
    float *norms; /* (B, T): |dL/dh_t| of each sample */
    void *d_kernel, *d_recurrent_kernel, *d_bias, *d_recurrent_bias;
    void *d_input_gain, *d_recurrent_gain, *d_state_gain, *d_state_bias;
    void *d_h_start, *d_c_start, *d_h_restart, *d_c_restart; /* (threads, B, u) */
    double *penalty_value;       /* (threads) */
)
#endif
