"""Gradient flossing on the delayed copy task and the delayed XOR task: with it and without.

    python scripts/gradient_flossing.py

A stream of random bits x_t comes in. Copy: y_t = x_{t−d}, which takes a memory of d bits that moves
on at every timestep. XOR: y_t = x_{t−d} ⊕ x_{t−2d}. A SimpleRNN of tanh units, with a random recurrent
matrix as the author's (normal, deviation g/√units), is trained on fresh sequences by Adam. Each
seed is trained twice, from the same weights on the same sequences: as it is, and after flossing.

Prints a table: how many seeds reach the accuracy that counts as success, the median accuracy, and
two paired tests over the seeds. Reference: Engelken, https://arxiv.org/abs/2312.17306.
"""

import argparse
import time

import keras
import numpy as np
import scipy.stats
import tensorflow as tf

import kbptt

BATCH = 16
LAGS = {"copy": (1,), "xor": (1, 2)}  # in delays


def sequences(task: str, number: int, timesteps: int, delay: int, seed: int) -> tuple:
    """Random bits, and the targets of the timesteps that have all bits they depend on."""
    bits = np.random.default_rng(seed).integers(0, 2, size=(number, timesteps, 1))
    first = delay * max(LAGS[task])
    parts = [bits[:, first - lag * delay : timesteps - lag * delay] for lag in LAGS[task]]
    return bits.astype("float32"), np.bitwise_xor.reduce(parts).astype("float32")


def build(task: str, a: argparse.Namespace, seed: int) -> keras.Model:
    """An RNN that answers once all bits that an answer depends on have come in."""
    keras.utils.set_random_seed(seed)
    normal = keras.initializers.RandomNormal
    layer = kbptt.SimpleRNN(
        a.units,
        return_sequences=True,
        kernel_initializer=normal(stddev=1.0),
        recurrent_initializer=normal(stddev=a.gain / np.sqrt(a.units)),
        bias_initializer=keras.initializers.RandomUniform(0.0, 0.1),
    )
    crop = keras.layers.Cropping1D((a.delay * max(LAGS[task]), 0))
    head = keras.layers.Dense(1, activation="sigmoid")
    model = keras.Sequential([keras.Input((a.timesteps, 1)), layer, crop, head])
    # As the author: the gradient of every weight clipped, and then Adam's own step.
    optimizer = keras.optimizers.Adam(a.learning_rate, clipnorm=0.03)
    model.compile(optimizer, "binary_crossentropy", metrics=["binary_accuracy"])
    return model


def train(task: str, a: argparse.Namespace, seed: int, floss: bool) -> tuple[float, float]:
    """Returns the accuracy on new sequences, and the seconds."""
    model = build(task, a, seed)
    x, y = sequences(task, a.steps * BATCH, a.timesteps, a.delay, seed)
    test = sequences(task, 256, a.timesteps, a.delay, 10_000 + seed)
    flossing = kbptt.callbacks.GradientFlossing(
        a.floss_steps if floss else 0,
        freq=a.floss_every,
        repeats=a.floss_repeats,
        x=x,
        count=a.count,
        seed=seed,
    )
    start = time.perf_counter()
    model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0, callbacks=[flossing])
    seconds = time.perf_counter() - start
    return model.evaluate(*test, batch_size=256, verbose=0)[1], seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="*", choices=LAGS, default=list(LAGS))
    parser.add_argument("--delay", type=int, default=10)
    parser.add_argument("--units", type=int, default=48)
    parser.add_argument("--timesteps", type=int, default=100)
    parser.add_argument("--gain", type=float, default=1.0, help="g of the recurrent matrix")
    parser.add_argument("--steps", type=int, default=2000, help="of training, 16 sequences each")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--count", type=int, default=45, help="exponents that are flossed")
    parser.add_argument("--floss-steps", type=int, default=500)
    parser.add_argument("--floss-every", type=int, default=None, help="training steps")
    parser.add_argument("--floss-repeats", type=int, default=None)
    parser.add_argument("--seeds", type=int, nargs="*", default=list(range(8)))
    parser.add_argument("--success", type=float, default=0.95, help="accuracy, of 0.5 by chance")
    parser.add_argument("--threads", type=int, default=1)
    a = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(a.threads)
    tf.config.threading.set_inter_op_parallelism_threads(a.threads)

    for task in a.tasks:
        accuracy = {False: [], True: []}
        for seed in a.seeds:
            for floss in accuracy:
                found, seconds = train(task, a, seed, floss)
                accuracy[floss].append(found)
                name = "flossed" if floss else "plain"
                print(f"{task:<6}seed {seed}  {name:<8}{found:.3f}  {seconds:.0f} s", flush=True)
        report(task, np.array(accuracy[False]), np.array(accuracy[True]), a.success)


def report(task: str, plain: np.ndarray, flossed: np.ndarray, success: float) -> None:
    """One row for each way; McNemar's exact test of the successes, Wilcoxon's of the accuracies."""
    for name, found in (("plain", plain), ("flossed", flossed)):
        solved = int(np.sum(found >= success))
        print(
            f"{task:<6}{name:<8}solved {solved} of {len(found)}, accuracy median "
            f"{np.median(found):.3f}, {found.min():.3f} to {found.max():.3f}"
        )
    gained = int(np.sum((flossed >= success) & (plain < success)))
    lost = int(np.sum((flossed < success) & (plain >= success)))
    changed = gained + lost
    mcnemar = scipy.stats.binomtest(gained, changed).pvalue if changed else 1.0
    differs = np.any(flossed != plain)
    wilcoxon = scipy.stats.wilcoxon(flossed, plain).pvalue if differs else 1.0
    print(
        f"{task:<6}{gained} seeds gained, {lost} lost: p = {mcnemar:.3f} (McNemar); "
        f"accuracies: p = {wilcoxon:.3f} (Wilcoxon)\n",
        flush=True,
    )


if __name__ == "__main__":
    main()
