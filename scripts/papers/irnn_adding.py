"""Le, Jaitly & Hinton (2015): the identity as recurrent matrix, with ReLU, learns to add.

The adding problem: two of the numbers of a sequence are marked; answer their sum. A SimpleRNN of
100 units, once with tanh and orthogonal matrices, once as IRNN: ReLU, the identity as recurrent
matrix, input weights N(0, 0.001²). Batches of 16, gradients clipped.
"""

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
    p_of,
    significant,
    solved,
)

TITLE = "Adding: IRNN against tanh"
CLAIM = (
    "An IRNN learns to add over 150, 200, 300 and 400 timesteps; a network of tanh units does not "
    "learn it over 150."
)
SOURCE = (
    "Le, Jaitly & Hinton, [*A simple way to initialize recurrent networks of rectified linear "
    "units*](https://arxiv.org/abs/1504.00941), 2015, section 4.1, figure 1."
)
DIFFERS = (
    "Adam at 0.0001 instead of SGD at 0.01, and at most 8,000 steps; the figure has millions. "
    "That half of the runs must get below 0.04 was decided after a pilot run with seed 0."
)
PUBLISHED = (
    Published("IRNN at 150, 200, 300 and 400 timesteps", "reaches an error near 0"),
    Published("tanh at 150 timesteps", "stays at 1/6 or above"),
)
LENGTHS = (150, 400)
NETWORKS = ("IRNN", "tanh")
EPOCH = 500
SETTINGS: dict[str, Parameters] = {
    f"T = {length}, {network}": {"length": length, "network": network, "steps": 8000}
    for length in LENGTHS
    for network in NETWORKS
}
QUICK: Parameters = {"length": 6, "steps": 50}
SEEDS, MINUTES, TEXT = 6, 32, ""
SOLVED = 0.04  # mean squared error, a quarter of that without memory


def run(parameters: Parameters, seed: int) -> Score:
    """The mean squared error on fresh sequences."""
    task = kbptt.tasks.get("adding", length=parameters["length"])
    layer = kbptt.initializers.irnn() if parameters["network"] == "IRNN" else {}
    model = kbptt.tasks.build_model(task, cell="SimpleRNN", units=100, seed=seed, **layer)
    optimizer = keras.optimizers.Adam(1e-4)
    model.compile(optimizer, task.loss(), metrics=task.metrics(), steps_per_execution=50)
    train, test = (np.random.default_rng([seed, part]) for part in (0, 1))

    def score() -> float:
        x, y = task.sample(test, 1000)
        return model.evaluate(x, y, batch_size=500, verbose=QUIET, return_dict=True)["mse"]

    return fresh.train(
        model,
        lambda count: task.sample(train, count),
        score,
        lambda mse: mse < SOLVED,
        parameters["steps"],
        EPOCH,
        batch_size=16,
        callbacks=[kbptt.callbacks.ClipByGlobalNorm(1.0)],
    )


def checks(results: Results) -> list[Check]:
    """IRNN: at least half of the runs get below an error of 0.04, and more than with tanh.

    The errors of the two, paired by seed, differ with p < 0.05.
    """
    found = []
    for length in LENGTHS:
        identity, tanh = (f"T = {length}, {network}" for network in NETWORKS)
        if results.has(identity, tanh):
            runs, others = (
                results.of(identity, "solved", tanh),
                results.of(tanh, "solved", identity),
            )
            errors = results.of(identity, "score", tanh), results.of(tanh, "score", identity)
            p = p_of(errors[1] - errors[0])
            text = (
                f"{solved(runs)} against {solved(others)}; median error {np.median(errors[0]):.3f} "
                f"against {np.median(errors[1]):.3f}, p = {p:.3f}"
            )
            better = runs.mean() >= 0.5 and runs.sum() > others.sum()
            holds = significant(better, errors[1] - errors[0])
            statement = f"{length} timesteps: IRNN learns it, tanh does not"
            found.append(Check(statement, "IRNN near 0, tanh 1/6", text, holds))
    return found


def draw(results: Results, figure) -> None:
    for axes, length in zip(figure.subplots(1, len(LENGTHS), sharey=True), LENGTHS, strict=True):
        for index, network in enumerate(NETWORKS):
            for curve in results.curves(f"T = {length}, {network}"):
                axes.plot(EPOCH * np.arange(1, len(curve) + 1), curve, color=f"C{index}", alpha=0.6)
            axes.plot([], [], color=f"C{index}", label=network)
        axes.axhline(1 / 6, color="gray", linestyle=":")
        axes.set(title=f"{length} timesteps", xlabel="training step", ylabel="mse")
        axes.legend(fontsize=8)
