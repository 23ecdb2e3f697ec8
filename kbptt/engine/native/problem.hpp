/* The arguments of the loops: sizes, options and arrays. Mirrored by `Problem` in library.py. */
#pragma once
#include <cstdint>

namespace kbptt {

/* Forms of the vanishing-gradient regularizer, by number. */
enum Penalty : int64_t { NO_PENALTY, RATIO, SQUARED_RATIO };

/* Declares the structure and keeps the declaration as text: library.py compares it with its own. */
#define KBPTT_DECLARE(...)              \
    template <class T> struct Problem { \
        __VA_ARGS__                     \
    };                                  \
    constexpr char problem_declaration[] = #__VA_ARGS__;

/* Arrays are C-contiguous, of T (float or double); NULL: not given, or not wanted.
   B batch, T timesteps, D features, u units, n windows; N columns of the kernels: u per gate. */
KBPTT_DECLARE(
    int64_t batch, timesteps, features, units, windows;
    int64_t cell, activation, recurrent_activation;
    int64_t normalized;       /* layer normalization; the kernels' columns are centred */
    int64_t carry_normalized; /* LSTM: the normalised cell state is the one that is carried */
    int64_t overlapping;      /* windows overlap */
    int64_t penalty;          /* form of the vanishing-gradient regularizer */
    int64_t instruction_set;  /* -1: the best that the machine has */
    int64_t members;          /* threads of a team, which share its rows: see team.hpp */
    int64_t team_scratch;     /* bytes of scratch space of each team */
    int64_t diagonal;         /* the gradient flows through the diagonals of U alone: SnAp-1 */
    int64_t span;             /* timesteps that the backward pass replays at a time */
    int64_t clip_by_norm;     /* the clip bounds the norm of each row instead */
    int64_t centred;          /* normalized: LN subtracts the mean; else it is RMS normalization */
    double epsilon;           /* of layer normalization */
    double clip;              /* bound on the elements of the carried gradient; infinite: none */
    double smallest_norm;     /* the penalty leaves out smaller gradients */
    double zoneout_h, zoneout_c; /* probability that a unit keeps its value */
    /* Inputs of both passes. */
    const T *x;                /* (B, T, D) */
    const T *kernel;           /* (D, N) */
    const T *recurrent_kernel; /* (u, N) */
    const T *bias;             /* (N) */
    const T *recurrent_bias;   /* (u), GRU: added to h·U of the candidate */
    const T *input_gain;       /* (N), normalized GRU and LSTM: scales x·W */
    const T *recurrent_gain;   /* (N), normalized: scales h·U; SimpleRNN: the sum */
    const T *state_gain;       /* (u), normalized LSTM */
    const T *state_bias;       /* (u), normalized LSTM */
    const T *h_start;          /* (B, u) */
    const T *c_start;          /* (B, u), LSTM */
    const T *h_restart;        /* (B, u): h before a step where `resets` is 1 */
    const T *c_restart;        /* (B, u), LSTM: c there */
    const uint8_t *mask;       /* (B, T): 0 holds the state */
    const uint8_t *resets;     /* (B, T): 1 puts h_restart and c_restart in before the step */
    const T *x_masks;          /* (gates, B, D): dropout, of x as each gate reads it */
    const T *h_masks;          /* (gates, B, u): the same of h_{t−1} */
    const uint64_t *zoneout_key; /* (2): the key, and the timesteps before the first. NULL: the
                                    expectation */
    char *scratch;             /* as many bytes as `Passes` says, from a cache line on */
    int64_t *meetings;         /* (teams, 8), zeros */
    /* Outputs of the forward pass: the residuals that the backward pass reads. */
    T *h;     /* (B, T, u) */
    const int64_t *slots; /* (T): where in c that of a timestep is kept; 0: nowhere, c[0] is that
                             of the timestep at hand. NULL: c[t] */
    T *c;     /* (T or slots, B, u), LSTM */
    T *gates; /* (T, B, 4u): LSTM i f g o; GRU z r n h·U; SimpleRNN: u, if φ keeps its argument
                 (activations.hpp); slice by slice. NULL: recomputed */
    /* Inputs of the backward pass. Window w goes back from ends[w] to starts[w]; the loss enters
       it at the timesteps from entries[w] on. */
    const int64_t *starts, *entries, *ends; /* (n) */
    const T *dh;                            /* (B, T, u): the loss's gradient of each output */
    const T *dh_final;                      /* (B, u) */
    const T *dc_final;                      /* (B, u), LSTM */
    const T *factors;                       /* (T, B): multiplies the carried gradient */
    const T *through_factors;               /* (T, B): likewise what flows back through U */
    const T *penalty_weight;                /* a number */
    /* Outputs of the backward pass; from d_kernel on one per team, to be summed. */
    T *dx;        /* (B, T, D) */
    float *norms; /* (members, B, T): |∂L/∂h_t| of each sample, in the units of each slice */
    T *d_kernel, *d_recurrent_kernel, *d_bias, *d_recurrent_bias;
    T *d_input_gain, *d_recurrent_gain, *d_state_gain, *d_state_bias;
    T *d_h_start, *d_c_start, *d_h_restart, *d_c_restart; /* (teams, B, u) */
    double *penalty_value;                                /* (threads) */
)

}  // namespace kbptt
