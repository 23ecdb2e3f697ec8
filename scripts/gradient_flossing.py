"""Gradient flossing on the delayed copy task and the delayed XOR task: with it and without.

    python scripts/gradient_flossing.py

A stream of random bits x_t comes in. Copy: y_t = x_{t−d}, which takes a memory of d bits that moves
on at every timestep. XOR: y_t = x_{t−d} ⊕ x_{t−2d}. A SimpleRNN of tanh units, with a random
recurrent matrix as the author's (normal, deviation g/√units), is trained by Adam, every step on
fresh sequences. Each seed is trained from the same weights on the same sequences: as it is, and
after flossing; and, for comparison, from an orthogonal recurrent matrix instead.

Prints how many seeds reach the accuracy that counts as success, and two paired tests over the
seeds. Reference: Engelken, https://arxiv.org/abs/2312.17306.
"""

import argparse
import time
from typing import Any

import keras
import numpy as np
import scipy.stats
import tensorflow as tf

import kbptt

BATCH = 16
LAGS = {"copy": (1,), "xor": (1, 2)}  # in delays
DELAY = {"copy": 20, "xor": 10}
QUIET: Any = 0
WAYS = ["plain", "flossed", "orthogonal"]


def sequences(task: str, number: int, delay: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random bits, and the targets of the timesteps that have all bits they depend on."""
    first = delay * max(LAGS[task])
    timesteps = 3 * first
    bits = np.random.default_rng(seed).integers(0, 2, size=(number, timesteps, 1))
    parts = [bits[:, first - lag * delay : timesteps - lag * delay] for lag in LAGS[task]]
    return bits.astype("float32"), np.bitwise_xor.reduce(parts).astype("float32")


def build(a: argparse.Namespace, x: np.ndarray, y: np.ndarray, seed: int, way: str) -> keras.Model:
    """An RNN that answers once all bits that an answer depends on have come in."""
    keras.utils.set_random_seed(seed)
    head = keras.layers.Dense(1, "sigmoid")
    normal = keras.initializers.RandomNormal
    recurrent = normal(stddev=a.gain / np.sqrt(a.units), seed=seed)
    layer = kbptt.SimpleRNN(
        a.units,
        return_sequences=True,
        kernel_initializer=normal(stddev=1.0, seed=seed + 1),
        recurrent_initializer="orthogonal" if way == "orthogonal" else recurrent,
        bias_initializer=keras.initializers.RandomUniform(0.0, 0.1, seed=seed),
    )
    crop = keras.layers.Cropping1D((x.shape[1] - y.shape[1], 0))
    model = keras.Sequential([keras.Input(x.shape[1:]), layer, crop, head])
    # As the author: the gradient of every weight clipped, then Adam with its defaults.
    optimizer = keras.optimizers.Adam(a.learning_rate, clipnorm=0.03)
    model.compile(
        optimizer, "binary_crossentropy", metrics=["binary_accuracy"], steps_per_execution=50
    )
    return model


def train(a: argparse.Namespace, task: str, seed: int, way: str) -> tuple[float, float]:
    """Returns the accuracy on new sequences, and the seconds of training and flossing."""
    delay = a.delay or DELAY[task]
    x, y = sequences(task, a.steps * BATCH, delay, seed)
    model = build(a, x, y, seed, way)
    steps = a.floss_steps if way == "flossed" else 0
    floss = kbptt.callbacks.GradientFlossing(steps, x=x, count=a.count, seed=seed)
    start = time.perf_counter()
    model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=QUIET, callbacks=[floss])
    seconds = time.perf_counter() - start
    test = sequences(task, 256, delay, 10_000 + seed)
    return model.evaluate(*test, batch_size=256, verbose=QUIET)[1], seconds


def main() -> None:
    parser = argparse.ArgumentParser(description="Gradient flossing on two tasks.")
    parser.add_argument("--tasks", nargs="*", choices=LAGS, default=list(LAGS))
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=WAYS)
    parser.add_argument("--delay", type=int, help=f"defaults to {DELAY}")
    parser.add_argument("--units", type=int, default=32)
    parser.add_argument("--gain", type=float, default=1.0, help="g of the recurrent matrix")
    parser.add_argument("--steps", type=int, default=1500, help="of training, 16 sequences each")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--count", type=int, default=30, help="exponents that are flossed")
    parser.add_argument("--floss-steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="*", default=list(range(8)))
    parser.add_argument("--success", type=float, default=0.95, help="accuracy; chance is 0.5")
    parser.add_argument("--threads", type=int, default=1)
    a = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(a.threads)
    tf.config.threading.set_inter_op_parallelism_threads(a.threads)

    for task in a.tasks:
        found = {way: [] for way in a.ways}
        for seed in a.seeds:
            for way in a.ways:
                accuracy, seconds = train(a, task, seed, way)
                found[way].append((accuracy, seconds))
                print(f"{task:<6}seed {seed}  {way:<12}{accuracy:.3f}{seconds:6.0f} s", flush=True)
        report(task, {way: np.array(rows) for way, rows in found.items()}, a.success)


def report(task: str, found: dict[str, np.ndarray], success: float) -> None:
    """A row for each way; against the first one, McNemar's exact test of the successes and
    Wilcoxon's of the accuracies, two-sided."""
    reference = next(iter(found.values()))[:, 0]
    for way, (accuracy, seconds) in ((way, rows.T) for way, rows in found.items()):
        solved, before = accuracy >= success, reference >= success
        gained, lost = int(np.sum(solved & ~before)), int(np.sum(before & ~solved))
        tests = ""
        if np.any(accuracy != reference):
            mcnemar = scipy.stats.binomtest(gained, max(1, gained + lost)).pvalue
            _, wilcoxon = scipy.stats.wilcoxon(accuracy, reference)
            tests = f"  +{gained} −{lost}: p = {mcnemar:.3f}; accuracies: p = {wilcoxon:.3f}"
        print(
            f"{task:<6}{way:<12}solved {solved.sum()} of {len(solved)}, median "
            f"{np.median(accuracy):.3f} ({accuracy.min():.3f} to {accuracy.max():.3f}), "
            f"{np.median(seconds):.0f} s{tests}",
            flush=True,
        )
    print()


if __name__ == "__main__":
    main()
