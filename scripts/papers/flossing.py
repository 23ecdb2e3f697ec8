"""Engelken (2023): gradient flossing before training bridges longer delays.

A stream of random bits x_t comes in. Copy: y_t = x_{t−d}, which takes a memory of d bits that moves
on at every timestep. XOR: y_t = x_{t−d} ⊕ x_{t−2d}. A SimpleRNN of tanh units, with a random
recurrent matrix as the author's (normal, deviation g/√units), is trained by Adam, every step on
fresh sequences. Each seed is trained from the same weights on the same sequences: as it is, and
after flossing.
"""

import keras
import numpy as np

import kbptt
from papers.part import (
    QUIET,
    Check,
    Parameters,
    Published,
    Results,
    Score,
    p_of,
    significant,
    solved,
)

TITLE = "Gradient flossing: success against the delay"
CLAIM = (
    "Flossing before training raises the share of networks that learn a delayed copy and a delayed "
    "XOR; without it success falls with the delay."
)
SOURCE = (
    "Engelken, [*Gradient flossing: improving gradient descent through dynamic control of "
    "Jacobians*](https://arxiv.org/abs/2312.17306), NeurIPS 2023; settings from the author's "
    "[repository](https://github.com/RainerEngelken/GradientFlossing)."
)
DIFFERS = (
    "32 units, 30 exponents, 300 steps of flossing and 1,500 of training on 3 delays of timesteps; "
    "the author has 80, 75, 500 and 3,001 on 300 timesteps. Success is an accuracy of 0.95. The "
    "longest delays were added when two seeds of the others were known."
)
PUBLISHED = (
    Published("success with flossing against without", "higher, at longer delays"),
    Published(
        "80 units, 75 exponents, 500 steps of flossing, Adam 0.001, batches of 16",
        "settings",
        "read in the author's repository",
    ),
)
BATCH = 16
SUCCESS = 0.95  # accuracy; chance is 0.5
LAGS = {"copy": (1,), "xor": (1, 2)}  # in delays
DELAYS = {"copy": (10, 20, 30), "xor": (5, 10, 15)}
WAYS = ("plain", "flossed")
SETTINGS: dict[str, Parameters] = {
    f"{task} {delay}, {way}": {
        "task": task,
        "delay": delay,
        "way": way,
        "units": 32,
        "count": 30,
        "floss_steps": 300,
        "steps": 1500,
        "rate": 1e-3,
    }
    for task, delays in DELAYS.items()
    for delay in delays
    for way in WAYS
}
QUICK: Parameters = {"delay": 1, "units": 8, "count": 6, "floss_steps": 2, "steps": 50}
SEEDS, MINUTES, TEXT = 6, 12, ""


def sequences(task: str, number: int, delay: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random bits, and the targets of the timesteps that have all bits they depend on."""
    first = delay * max(LAGS[task])
    timesteps = 3 * first
    bits = np.random.default_rng(seed).integers(0, 2, size=(number, timesteps, 1))
    parts = [bits[:, first - lag * delay : timesteps - lag * delay] for lag in LAGS[task]]
    return bits.astype("float32"), np.bitwise_xor.reduce(parts).astype("float32")


def build(parameters: Parameters, x: np.ndarray, y: np.ndarray, seed: int) -> keras.Model:
    """An RNN that answers once all bits that an answer depends on have come in."""
    keras.utils.set_random_seed(seed)
    units = parameters["units"]
    normal = keras.initializers.RandomNormal
    recurrent = normal(stddev=1 / np.sqrt(units), seed=seed)
    layer = kbptt.SimpleRNN(
        units,
        return_sequences=True,
        kernel_initializer=normal(stddev=1.0, seed=seed + 1),
        recurrent_initializer="orthogonal" if parameters["way"] == "orthogonal" else recurrent,
        bias_initializer=keras.initializers.RandomUniform(0.0, 0.1, seed=seed),
    )
    crop = keras.layers.Cropping1D((x.shape[1] - y.shape[1], 0))
    head = keras.layers.Dense(1, "sigmoid")
    model = keras.Sequential([keras.Input(x.shape[1:]), layer, crop, head])
    # As the author: the gradient of every weight clipped, then Adam with its defaults.
    optimizer = keras.optimizers.Adam(parameters["rate"], clipnorm=0.03)
    model.compile(
        optimizer, "binary_crossentropy", metrics=["binary_accuracy"], steps_per_execution=50
    )
    return model


def run(parameters: Parameters, seed: int) -> Score:
    """The accuracy on new sequences."""
    task, delay = parameters["task"], parameters["delay"]
    x, y = sequences(task, parameters["steps"] * BATCH, delay, seed)
    model = build(parameters, x, y, seed)
    steps = parameters["floss_steps"] if parameters["way"] == "flossed" else 0
    floss = kbptt.callbacks.GradientFlossing(steps, x=x, count=parameters["count"], seed=seed)
    model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=QUIET, callbacks=[floss])
    test = sequences(task, 256, delay, 10_000 + seed)
    accuracy = model.evaluate(*test, batch_size=256, verbose=QUIET)[1]
    return {"score": accuracy, "solved": int(accuracy >= SUCCESS)}


def checks(results: Results) -> list[Check]:
    """Over the delays of a task, flossing solves more runs, and its accuracy is higher, p < 0.05.

    The test is paired by seed, on the mean over the delays.
    """
    found = []
    for task in DELAYS:
        delays = [d for d in DELAYS[task] if results.has(*(f"{task} {d}, {way}" for way in WAYS))]
        plain, flossed = ([f"{task} {d}, {way}" for d in delays] for way in WAYS)
        if delays and results.has(*plain, *flossed):
            table = {
                name: np.array([results.of(s, name, *plain, *flossed) for s in (*plain, *flossed)])
                for name in ("score", "solved")
            }
            before, after = np.split(table["solved"], 2)
            differences = np.subtract(*np.split(table["score"], 2)[::-1]).mean(axis=0)
            p = p_of(differences)
            by_delay = "; ".join(
                f"delay {delay}: {solved(one)} against {solved(other)}"
                for delay, one, other in zip(delays, after, before, strict=True)
            )
            better = after.sum() > before.sum() and differences.mean() > 0
            found.append(
                Check(
                    f"{task}: flossing solves more runs than none",
                    "more",
                    f"{by_delay}; accuracy {differences.mean():+.3f}, p = {p:.3f}",
                    significant(better, differences),
                )
            )
    return found


def draw(results: Results, figure) -> None:
    for axes, (task, delays) in zip(
        figure.subplots(1, 2, sharey=True), DELAYS.items(), strict=True
    ):
        for index, way in enumerate(WAYS):
            seen = [d for d in delays if results.has(f"{task} {d}, {way}")]
            values = [results.of(f"{task} {d}, {way}") for d in seen]
            for delay, accuracies in zip(seen, values, strict=True):
                axes.plot([delay] * len(accuracies), accuracies, "o", color=f"C{index}", alpha=0.4)
            axes.plot(seen, [np.mean(v) for v in values], color=f"C{index}", label=way)
        axes.axhline(SUCCESS, color="gray", linestyle=":")
        axes.set(xlabel="delay", ylabel="accuracy", title=task)
        axes.legend(fontsize=8)
