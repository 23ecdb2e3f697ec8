"""Tallec & Ollivier (2018): gates make a network robust to warped time; chrono biases reach far.

Warp: a sequence of ten symbols, neighbours different, in which each is repeated 1 to `warp` times;
the target at every timestep is the symbol before the present one. A network without gates fails as
the warping grows, a gated one does not. Adding: two marked numbers of a sequence of 200 or 750; an
LSTM with chrono biases leaves the error of 1/6 of an answer without memory, one with a forget bias
of 1 leaves it later.
"""

from typing import Any

import keras
import numpy as np

import kbptt
from papers import fresh
from papers.part import (
    QUIET,
    Check,
    Parameters,
    Published,
    Results,
    Score,
    mean,
    p_of,
    significant,
    solved,
)

TITLE = "Chrono initialization: warped time and adding"
CLAIM = (
    "Gated networks follow a warped sequence that a plain RNN loses; on adding over 200 and 750 "
    "timesteps an LSTM with chrono biases learns sooner than one with a forget bias of 1, and over "
    "750 it is the only one of the two that learns within the budget."
)
SOURCE = (
    "Tallec & Ollivier, [*Can recurrent neural networks warp time?*]"
    "(https://arxiv.org/abs/1804.11188), ICLR 2018, section 4; some settings from a "
    "[reproduction by others](https://github.com/atremblay/chronoRNN)."
)
DIFFERS = (
    "Adding: 32 units, batches of 16, Adam at 0.01, at most 3,000 steps (128 units, batches of 32, "
    "RMSprop at 0.001, tens of thousands of steps). Warp: 64 units, 200 timesteps, 1,500 steps of "
    "RMSprop at 0.001, a GRU with chrono biases as the gated network (500 timesteps, three epochs "
    "of 50,000 sequences, a leaky RNN with a gate)."
)
PUBLISHED = (
    Published("figures 1 (warp) and 4 (adding)", "curves, no table"),
    Published(
        "64 units, batches of 32, RMSprop with ρ = 0.9 (warp)",
        "settings",
        "read in the reproduction",
    ),
    Published("128 units, RMSprop at 0.001 (adding)", "settings", "read in the reproduction"),
)
WARPS, LENGTHS = (5, 20), (200, 750)
SYMBOLS = 10
NETWORKS = ("SimpleRNN", "GRU chrono")
BIASES = ("forget bias 1", "chrono")
EPOCH = 250
SETTINGS: dict[str, Parameters] = {
    **{
        f"adding {length}, {biases}": {"length": length, "biases": biases, "steps": 3000}
        for length in LENGTHS
        for biases in BIASES
    },
    **{
        f"warp {warp}, {network}": {"warp": warp, "network": network, "length": 200, "steps": 1500}
        for warp in WARPS
        for network in NETWORKS
    },
}
QUICK: Parameters = {"length": 10, "steps": 50}
SEEDS, MINUTES, TEXT = 6, 16, ""


def run(parameters: Parameters, seed: int) -> Score:
    return run_warp(parameters, seed) if "warp" in parameters else run_adding(parameters, seed)


def chrono(scale: int, seed: int, lstm: bool) -> dict[str, Any]:
    bias = {"bias_initializer": kbptt.initializers.Chrono(scale, seed=seed)}
    return bias | ({"unit_forget_bias": False} if lstm else {})


def run_adding(parameters: Parameters, seed: int) -> Score:
    """The mean squared error on fresh sequences, until it is below 0.01."""
    length = parameters["length"]
    task = kbptt.tasks.get("adding", length=length)
    layer = chrono(length, seed, lstm=True) if parameters["biases"] == "chrono" else {}
    model = kbptt.tasks.build_model(task, cell="LSTM", units=32, seed=seed, **layer)
    optimizer = keras.optimizers.Adam(0.01)
    model.compile(optimizer, task.loss(), metrics=task.metrics(), steps_per_execution=50)
    train, test = (np.random.default_rng([seed, part]) for part in (0, 1))

    def score() -> float:
        x, y = task.sample(test, 500)
        return model.evaluate(x, y, batch_size=250, verbose=QUIET, return_dict=True)["mse"]

    return fresh.train(
        model,
        lambda count: task.sample(train, count),
        score,
        lambda mse: mse < 0.01,
        parameters["steps"],
        EPOCH,
        batch_size=16,
    )


def run_warp(parameters: Parameters, seed: int) -> Score:
    """The cross entropy on fresh sequences after all steps."""
    warp, length = parameters["warp"], parameters["length"]
    keras.utils.set_random_seed(seed)
    if parameters["network"] == "SimpleRNN":
        layer = kbptt.SimpleRNN(64, return_sequences=True)
    else:
        layer = kbptt.GRU(64, return_sequences=True, **chrono(warp + 1, seed, lstm=False))
    inputs, head = keras.Input((length, SYMBOLS)), keras.layers.Dense(SYMBOLS + 1)
    model = keras.Sequential([inputs, layer, head])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.RMSprop(0.001, rho=0.9), loss, steps_per_execution=50)
    train, test = (np.random.default_rng([seed, part]) for part in (0, 1))

    def score() -> float:
        x, y = warped(test, 256, length, warp)
        return model.evaluate(x, y, batch_size=128, verbose=QUIET)

    return fresh.train(
        model,
        lambda count: warped(train, count, length, warp),
        score,
        lambda nats: False,
        parameters["steps"],
        EPOCH,
        batch_size=32,
    )


def warped(
    rng: np.random.Generator, count: int, length: int, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Sequences whose symbols are repeated 1 to `most` times; the targets are the symbols before.

    The target of the first symbol is one more than the symbols.
    """
    steps = rng.integers(1, SYMBOLS, size=(count, length))  # never 0: neighbours differ
    symbols = np.cumsum(steps, axis=1) % SYMBOLS
    repeats = rng.integers(1, most + 1, size=(count, length))
    starts = np.cumsum(repeats, axis=1) - repeats
    begins = np.zeros((count, length), int)
    rows, columns = np.nonzero(starts < length)
    begins[rows, starts[rows, columns]] = 1
    index = np.cumsum(begins, axis=1) - 1
    x = np.take_along_axis(symbols, index, axis=1)
    before = np.take_along_axis(symbols, np.maximum(index - 1, 0), axis=1)
    return np.eye(SYMBOLS, dtype="float32")[x], np.where(index > 0, before, SYMBOLS).astype("int32")


def checks(results: Results) -> list[Check]:
    """Adding: chrono solves as many runs, in fewer steps, p < 0.05. Warp: less loss with gates.

    A run that is not solved counts with the whole budget of steps. Warp: p < 0.05 for the cross
    entropy at the larger warping.
    """
    found = []
    for length in LENGTHS:
        usual, ours = (f"adding {length}, {biases}" for biases in BIASES)
        if results.has(usual, ours):
            before, after = results.of(usual, "solved", ours), results.of(ours, "solved", usual)
            saved = results.of(usual, "steps", ours) - results.of(ours, "steps", usual)
            p = p_of(saved)
            text = f"{solved(after)} against {solved(before)}; "
            text += f"{saved.mean():.0f} fewer steps, p = {p:.3f}"
            holds = significant(saved.mean() > 0 and after.mean() >= before.mean(), saved)
            statement = f"adding, {length} timesteps: chrono learns sooner"
            found.append(Check(statement, "sooner", text, holds))
    for warp in WARPS:
        plain, gated = (f"warp {warp}, {network}" for network in NETWORKS)
        if results.has(plain, gated):
            first, second = results.of(plain, "score", gated), results.of(gated, "score", plain)
            p = p_of(first - second)
            text = f"{mean(second)} against {mean(first)} nats; p = {p:.3f}"
            holds = significant(second.mean() < first.mean(), first - second)
            statement = f"warping up to {warp}: lower loss with gates"
            found.append(Check(statement, "lower", text, holds))
    return found


def draw(results: Results, figure) -> None:
    axes = figure.subplots(1, 3)
    for panel, length in zip(axes, LENGTHS, strict=False):
        for index, biases in enumerate(BIASES):
            for curve in results.curves(f"adding {length}, {biases}"):
                panel.plot(
                    EPOCH * np.arange(1, len(curve) + 1), curve, color=f"C{index}", alpha=0.6
                )
            panel.plot([], [], color=f"C{index}", label=biases)
        panel.axhline(1 / 6, color="gray", linestyle=":")
        panel.set(title=f"adding, {length}", xlabel="training step", ylabel="mse", yscale="log")
        panel.legend(fontsize=7)
    for index, network in enumerate(NETWORKS):
        seen = [warp for warp in WARPS if results.has(f"warp {warp}, {network}")]
        values = [results.of(f"warp {warp}, {network}") for warp in seen]
        for warp, losses in zip(seen, values, strict=True):
            axes[2].plot([warp] * len(losses), losses, "o", color=f"C{index}", alpha=0.4)
        axes[2].plot(seen, [v.mean() for v in values], color=f"C{index}", label=network)
    axes[2].set(title="warp", xlabel="largest warping", ylabel="cross entropy, nats", yscale="log")
    axes[2].legend(fontsize=7)
