"""Pascanu, Mikolov & Bengio (2013): clipping and Ω solve the temporal order task.

Two symbols among distractors; answer which ones came, and in which order. The paper's and the
authors' settings: SimpleRNN with 50 tanh units and N(0, 0.1²) weights, fresh sequences at every
step in batches of 20, SGD with learning rate 0.01, clip at 1. Solved means that under 1 % of 10,000
fresh sequences are answered wrong. Drawn lengths: one network, trained on batches whose length is
drawn from 50 to 200, and tested on 10,000 sequences of such lengths.
"""

from typing import Any

import keras
import numpy as np

import kbptt
from papers.part import QUIET, Check, Parameters, Published, Results, Score, solved

TITLE = "Temporal order: clipping and the regularizer Ω"
CLAIM = (
    "Plain SGD and clipping alone fail at 50 timesteps; with clipping and Ω every run solves the "
    "task, and so does a single network for all lengths from 50 to 200."
)
SOURCE = (
    "Pascanu, Mikolov & Bengio, [*On the difficulty of training recurrent neural networks*]"
    "(https://arxiv.org/abs/1211.5063), ICML 2013, section 4.1; settings also from the authors' "
    "[repository](https://github.com/pascanur/trainingRNNs)."
)
DIFFERS = (
    "At most 20,000 steps at 50 timesteps and 60,000 for drawn lengths (the authors allow "
    "5,000,000). At 50 timesteps weights start from N(0, 0.1²) and Ω has a weight of 4; for drawn "
    "lengths both are the defaults of the repository: sparse, a spectral radius of 0.95, and 2. A "
    "run ends with under 1 % wrong, where the authors' ends without any error."
)
PUBLISHED = (
    Published("50 timesteps, clip + Ω: runs that solve it", "5 of 5"),
    Published("lengths 50–200, one network, clip + Ω: runs that solve it", "5 of 5"),
    Published(
        "50 units, batches of 20, rate 0.01, clip 1, lengths 50 to 200",
        "settings",
        "read in the authors' repository",
    ),
)
EPOCH = 1000  # steps between two tests on fresh sequences
AT_50: Parameters = {"lengths": [50, 50], "steps": 20_000, "start": "basic_tanh"}
DRAWN: Parameters = {"lengths": [50, 200], "steps": 60_000, "start": "smart_tanh"}
SETTINGS: dict[str, Parameters] = {
    "50, clip + Ω": AT_50 | {"clip": True, "weight": 4.0},
    "50, clip": AT_50 | {"clip": True, "weight": 0.0},
    "50, none": AT_50 | {"clip": False, "weight": 0.0},
    "50–200, clip + Ω": DRAWN | {"clip": True, "weight": 2.0},
}
QUICK: Parameters = {"lengths": [10, 12], "steps": 100}
SEEDS, MINUTES, TEXT = 6, 32, ""


def run(parameters: Parameters, seed: int) -> Score:
    """Trains one network until it solves the task, diverges, or has used up its steps."""
    low, high = parameters["lengths"]
    start, weight = parameters["start"], parameters["weight"]
    scale = 0.1 if start == "basic_tanh" else 0.01
    initial: list[Any] = [
        keras.initializers.RandomNormal(stddev=deviation, seed=seed + 1000 * part)
        for part, deviation in enumerate((scale, scale, 0.1))
    ]
    layer = kbptt.SimpleRNN(
        50,
        kernel_initializer=initial[0],
        recurrent_initializer=initial[2],
        gradient_regularizer=kbptt.regularizers.VanishingGradient(weight) if weight else None,
    )
    model = keras.Sequential(
        [keras.Input((None, 6)), layer, keras.layers.Dense(4, kernel_initializer=initial[1])]
    )
    if start == "smart_tanh":
        layer.cell.recurrent_kernel.assign(sparse(seed))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01), loss, metrics=["accuracy"], steps_per_execution=100)
    callbacks = [kbptt.callbacks.ClipByGlobalNorm(1.0)] if parameters["clip"] else []
    train, test = (np.random.default_rng([seed, part]) for part in (0, 1))
    epoch = min(EPOCH, parameters["steps"])
    wrong, trained, curve = 1.0, 0, []
    while wrong >= 0.01 and trained < parameters["steps"]:
        model.fit(
            _batches(train, low, high, epoch, 20), shuffle=False, verbose=QUIET, callbacks=callbacks
        )
        trained += epoch
        if not all(np.isfinite(w).all() for w in model.get_weights()):
            break
        wrong = _wrong(model, test, low, high, 10)
        if wrong < 0.01:
            wrong = _wrong(model, test, low, high, 100)
        curve.append(round(wrong, 4))
    return {"score": wrong, "solved": int(wrong < 0.01), "steps": trained, "curve": curve}


def sparse(seed: int) -> np.ndarray:
    """The authors' "smart" start: 15 weights out of a unit, a spectral radius of 0.95."""
    rng = np.random.default_rng([seed, 2])
    kernel = rng.normal(size=(50, 50), scale=0.01)
    for row in kernel:
        row[rng.permutation(50)[15:]] = 0
    return 0.95 * kernel / np.abs(np.linalg.eigvals(kernel)).max()


def _batches(rng: np.random.Generator, low: int, high: int, number: int, size: int) -> Any:
    """Batches of one-hot sequences, the length of each drawn from `low` to `high`."""
    import tensorflow as tf

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        task = kbptt.tasks.get("temporal_order", length=int(rng.integers(low, high + 1)))
        x, y = task.sample(rng, count)
        return np.eye(6, dtype="float32")[x], y.astype("int32")

    if low == high:
        return tf.data.Dataset.from_tensor_slices(draw(number * size)).batch(size)
    shapes = (tf.TensorSpec((size, None, 6), tf.float32), tf.TensorSpec((size,), tf.int32))
    batches = (draw(size) for _ in range(number))
    data = tf.data.Dataset.from_generator(lambda: batches, output_signature=shapes)
    return data.apply(tf.data.experimental.assert_cardinality(number))


def _wrong(
    model: keras.Model, rng: np.random.Generator, low: int, high: int, batches: int
) -> float:
    """The share of wrong answers on so many batches of 100 fresh sequences."""
    data = _batches(rng, low, high, batches, 100)
    return 1 - model.evaluate(data, verbose=QUIET, return_dict=True)["accuracy"]


def checks(results: Results) -> list[Check]:
    """Ω: all runs solve it. Without Ω: at most half of the runs do, at the same budget."""
    found = []
    for setting, statement, published in (
        ("50, clip + Ω", "clip + Ω solves 50 timesteps in every run", "5 of 5"),
        ("50–200, clip + Ω", "one network for 50 to 200 timesteps, in every run", "5 of 5"),
        ("50, clip", "clip alone fails at 50 timesteps in most runs", "fails in most"),
        ("50, none", "plain SGD fails at 50 timesteps in most runs", "fails in most"),
    ):
        if results.has(setting):
            runs = results.of(setting, "solved")
            holds = runs.mean() == 1 if "Ω" in setting else runs.mean() <= 0.5
            found.append(Check(statement, published, solved(runs), bool(holds)))
    return found


def draw(results: Results, figure) -> None:
    axes = figure.subplots()
    for index, setting in enumerate(SETTINGS):
        for curve in results.curves(setting):
            steps = EPOCH * np.arange(1, len(curve) + 1)
            axes.plot(steps, 100 * curve, color=f"C{index}", alpha=0.7)
        axes.plot([], [], color=f"C{index}", label=setting)
    axes.axhline(1, color="gray", linestyle=":", label="solved: under 1 %")
    axes.set(xlabel="training step", ylabel="wrong answers, %", yscale="log")
    axes.legend(fontsize=8)
