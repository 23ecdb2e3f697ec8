"""Lezcano-Casado & Martínez-Rubio (2019): with kept orthogonality, copy memory at any lag.

Ten of eight symbols, a lag of T blanks, then repeat them. Who forgets the symbols but counts the
timesteps answers blank and then guesses, a cross entropy of 10·ln 8/(T + 20) nats. A SimpleRNN
whose recurrent matrix is the exponential of a skew matrix (expRNN), from Henaff's initialization,
gets below a tenth of that.
"""

import keras
import numpy as np

import kbptt
from papers import fresh
from papers.part import QUIET, Check, Parameters, Published, Results, Score, solved

TITLE = "Copy memory with kept orthogonality"
CLAIM = (
    "A recurrent matrix that is kept orthogonal learns to copy over lags of 100 to 500 and more, "
    "far below the cross entropy of a network without memory."
)
SOURCE = (
    "Lezcano-Casado & Martínez-Rubio, [*Cheap orthogonal constraints in neural networks*]"
    "(https://arxiv.org/abs/1901.08428), ICML 2019, section 5.1; the task and its baseline: "
    "Arjovsky, Shah & Bengio, [*Unitary evolution recurrent neural networks*]"
    "(https://arxiv.org/abs/1511.06464), 2016."
)
DIFFERS = (
    "128 units without an activation, so that the recurrence is linear (the paper: 190, modReLU, "
    "which kbptt does not have), batches of 32 (128), Adam at 0.002, the recurrent matrix at a "
    "tenth of it; lags of 100 to 500 (1,000 and 2,000). A run ends at a tenth of the baseline."
)
LAGS = (100, 200, 300, 500)
PUBLISHED = (
    *(
        Published(
            f"baseline without memory, T = {lag}", f"{10 * np.log(8) / (lag + 20):.4f}", "a formula"
        )
        for lag in LAGS
    ),
    Published("cross entropy of expRNN at T = 1,000 and 2,000", "converges to 0"),
)
EPOCH, STEPS = 100, 1500
SETTINGS: dict[str, Parameters] = {f"T = {lag}": {"lag": lag, "steps": STEPS} for lag in LAGS}
QUICK: Parameters = {"lag": 5, "steps": 20}
SEEDS, MINUTES, TEXT = 6, 5, ""


def run(parameters: Parameters, seed: int) -> Score:
    """The cross entropy on fresh sequences."""
    task = kbptt.tasks.get("copy_memory", lag=parameters["lag"])
    model = kbptt.tasks.build_model(
        task,
        cell="SimpleRNN",
        units=128,
        seed=seed,
        activation=None,
        recurrent_initializer=kbptt.initializers.Henaff(),
        recurrent_parametrization="exp",
    )
    optimizer = keras.optimizers.Adam(0.002)
    model.compile(optimizer, task.loss(), metrics=task.metrics(), steps_per_execution=10)
    train, test = (np.random.default_rng([seed, part]) for part in (0, 1))

    def score() -> float:
        x, y = task.sample(test, 200)
        return model.evaluate(x, y, batch_size=100, verbose=QUIET, return_dict=True)[
            "cross_entropy"
        ]

    return fresh.train(
        model,
        lambda count: task.sample(train, count),
        score,
        lambda nats: nats < task.baseline / 10,
        parameters["steps"],
        EPOCH,
        batch_size=32,
    )


def baseline(setting: str) -> float:
    return 10 * np.log(8) / (SETTINGS[setting]["lag"] + 20)


def checks(results: Results) -> list[Check]:
    """At each lag, the cross entropy of every run falls below a tenth of the baseline."""
    found = []
    for setting in SETTINGS:
        if results.has(setting):
            runs, nats = results.of(setting, "solved"), results.of(setting)
            steps = results.of(setting, "steps")
            ours = f"{solved(runs)} below a tenth; the worst {nats.max():.4f}"
            ours += f" after at most {steps.max():.0f} steps"
            statement = f"{setting}: below a tenth of the baseline"
            published = f"baseline {baseline(setting):.4f}"
            found.append(Check(statement, published, ours, bool(runs.mean() == 1)))
    return found


def draw(results: Results, figure) -> None:
    axes = figure.subplots()
    for index, setting in enumerate(SETTINGS):
        for curve in results.curves(setting):
            steps = EPOCH * np.arange(1, len(curve) + 1)
            axes.plot(steps, curve, "o-", color=f"C{index}", alpha=0.6, markersize=3)
        axes.plot([], [], color=f"C{index}", label=setting)
        axes.axhline(baseline(setting), color=f"C{index}", linestyle=":")
    axes.set(xlabel="training step", ylabel="cross entropy, nats", yscale="log")
    axes.set_title("Dotted: without memory", fontsize=9)
    axes.legend(fontsize=8)
