"""Aicher, Foti & Fox (2019): a truncation that is too short fails, and an adaptive one does not.

Copy task: blocks of m = 10 symbols, the first a marker, the others one of four, each followed by 10
blanks in which the block is to be repeated, one after the other without end. Two LSTM layers of 50
units between Dense layers, batches of 64 sequences of 4,000 timesteps. Window by window of K
timesteps: the K losses of a window, and the gradient through K − 1 timesteps before it as well; an
update after each, SGD with learning rate √K, the gradient of the *sum* over a window's timesteps
clipped at 1, weight decay 1e-5. Adaptive: K from the estimated relative bias δ, within [2, 100],
from K = 15 on. Test perplexity of the weights with the best validation perplexity.
"""

import math
from typing import Any

import keras
import numpy as np

import kbptt
from papers.part import QUIET, Check, Parameters, Published, Results, Score, mean, p_of, significant

TITLE = "Copy task: fixed and adaptive truncation"
CLAIM = (
    "With windows of K = 5 the copy task with m = 10 is not learned, with K = 10 it is; a length "
    "from a tolerated relative bias of δ = 0.9 does at least as well."
)
SOURCE = (
    "Aicher, Foti & Fox, [*Adaptively truncating backpropagation through time to control gradient "
    "bias*](https://arxiv.org/abs/1905.07473), UAI 2019, table C.1 of the supplement; settings "
    "from the authors' [repository](https://github.com/aicherc/adaptive_tbptt)."
)
CHECKED = "read in the supplement in the authors' repository"
PUBLISHED = (
    Published("test perplexity (sd), K = 5", "1.646 (0.012)", CHECKED),
    Published("test perplexity (sd), K = 10", "1.036 (0.005)", CHECKED),
    Published("test perplexity (sd), δ = 0.9", "1.022 (0.006)", CHECKED),
)
TARGETS = {"K = 5": 1.646, "K = 10": 1.036, "δ = 0.9": 1.022}
EPOCHS, WARMUP = 60, 20
SETTINGS: dict[str, Parameters] = {
    "K = 5": {"length": 5, "epochs": EPOCHS, "timesteps": 4000},
    "K = 10": {"length": 10, "epochs": EPOCHS, "timesteps": 4000},
    "δ = 0.9": {"length": 15, "tolerance": 0.9, "epochs": EPOCHS, "timesteps": 4000},
}
DIFFERS = (
    f"{EPOCHS} epochs instead of 210, and a new data set for each seed. "
    f"The adaptive length is estimated from epoch {WARMUP} on (before, K = 15): a network that has "
    "not begun to learn asks for 2, and stays there; every second epoch, from 8 sequences of 100 "
    "timesteps (the authors: every 1.25 epochs, a single loss after 120 timesteps)."
)
QUICK: Parameters = {"epochs": 1, "timesteps": 100, "length": 10}
SEEDS, MINUTES, TEXT = 6, 145, ""
ROWS, SYMBOLS, BLOCK = 64, 6, 10


def sequences(rng: np.random.Generator, timesteps: int) -> tuple[np.ndarray, np.ndarray]:
    """One-hot inputs and targets, each row shifted by a random part of a block and its blanks."""
    blocks = timesteps // (2 * BLOCK) + 2
    symbols = rng.integers(2, SYMBOLS, size=(ROWS, blocks, BLOCK))
    symbols[:, :, 0] = 1
    blank = np.zeros_like(symbols)
    x = np.concatenate([symbols, blank], axis=2).reshape(ROWS, -1)
    y = np.concatenate([blank, symbols], axis=2).reshape(ROWS, -1)
    at = rng.integers(0, 2 * BLOCK, size=(ROWS, 1)) + np.arange(timesteps)
    x, y = (np.take_along_axis(values, at, axis=1) for values in (x, y))
    return np.eye(SYMBOLS, dtype="float32")[x], y.astype("int32")


def build(seed: int) -> keras.Model:
    """The authors' network: matrices uniform within ±√(3 / their longer side), no bias."""
    scale = (seed * 10 + n for n in range(10))

    def uniform(longest: int) -> Any:
        bound = math.sqrt(3 / longest)
        return keras.initializers.RandomUniform(-bound, bound, seed=next(scale))

    def lstm() -> keras.layers.Layer:
        return kbptt.LSTM(
            50,
            return_sequences=True,
            kernel_initializer=uniform(200),
            recurrent_initializer=uniform(200),
            unit_forget_bias=False,
        )

    encoder, decoder = (
        keras.layers.Dense(width, kernel_initializer=uniform(50)) for width in (50, SYMBOLS)
    )
    inputs = keras.Input((None, SYMBOLS))
    return keras.Sequential([inputs, encoder, lstm(), lstm(), decoder])


def run(parameters: Parameters, seed: int) -> Score:
    """The test perplexity, and the window length of every epoch."""
    timesteps, length = parameters["timesteps"], parameters["length"]
    rng = np.random.default_rng(seed)
    train, validation, test = (
        sequences(rng, n) for n in (timesteps, timesteps // 4, timesteps // 4)
    )
    model = build(seed)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.SGD(1.0, weight_decay=1e-5)
    model.compile(optimizer, loss, steps_per_execution=20)
    best, kept, curve, lengths = math.inf, model.get_weights(), [], []
    for epoch in range(parameters["epochs"]):
        if "tolerance" in parameters and epoch >= WARMUP and epoch % 2 == 0:
            length = _suggested(model, train, epoch, parameters["tolerance"])
        model.optimizer.learning_rate = math.sqrt(length)
        data = kbptt.data.Streams(
            *(list(part) for part in train),
            length=length,
            batch_size=ROWS,
            target=None,
            context=length - 1,
            offset=0,
        )
        clip = kbptt.callbacks.ClipByGlobalNorm(1 / length)  # the loss is a mean over the window
        callbacks = [clip, kbptt.callbacks.StreamState(data)]
        model.fit(data, verbose=QUIET, callbacks=callbacks)
        perplexity = math.exp(model.evaluate(*validation, batch_size=ROWS, verbose=QUIET))
        curve.append(round(perplexity, 4))
        lengths.append(int(length))
        if perplexity < best:
            best, kept = perplexity, model.get_weights()
    model.set_weights(kept)
    score = math.exp(model.evaluate(*test, batch_size=ROWS, verbose=QUIET))
    return {"score": score, "curve": curve, "lengths": lengths}


def _suggested(model: keras.Model, train, epoch: int, tolerance: float) -> int:
    """The shortest length whose estimated relative bias is tolerable, on a part of the data."""
    x, y = train
    start = 100 * epoch % max(1, x.shape[1] - 100)
    part = slice(start, start + 100)
    rows = np.random.default_rng(epoch).choice(ROWS, 8, replace=False)
    suggested = kbptt.analysis.suggest_truncation(
        model, x[rows, part], y[rows, part], tolerance, minimum=2, maximum=min(60, x.shape[1])
    )
    return int(suggested)


def checks(results: Results) -> list[Check]:
    """K = 5: above 1.3 in every run. K = 10, δ = 0.9: below 1.1. δ = 0.9 is better, p < 0.05."""
    found = []
    for setting, statement, low, high in (
        ("K = 5", "K = 5 does not learn it (perplexity above 1.3)", 1.3, math.inf),
        ("K = 10", "K = 10 learns it (perplexity below 1.1)", 0, 1.1),
        ("δ = 0.9", "δ = 0.9 learns it (perplexity below 1.1)", 0, 1.1),
    ):
        if results.has(setting):
            values = results.of(setting)
            holds = bool(np.all((values > low) & (values < high)))
            found.append(Check(statement, f"{TARGETS[setting]}", mean(values, 4), holds))
    if results.has("K = 10", "δ = 0.9"):
        fixed, adaptive = (
            results.of("K = 10", "score", "δ = 0.9"),
            results.of("δ = 0.9", "score", "K = 10"),
        )
        difference = adaptive - fixed
        p = p_of(difference)
        found.append(
            Check(
                "δ = 0.9 is better than K = 10",
                "−0.014",
                f"{difference.mean():+.4f}, p = {p:.3f}",
                significant(difference.mean() < 0, difference),
            )
        )
    return found


def draw(results: Results, figure) -> None:
    axes = figure.subplots()
    for index, setting in enumerate(SETTINGS):
        for curve in results.curves(setting):
            axes.plot(np.arange(1, len(curve) + 1), curve, color=f"C{index}", alpha=0.7)
        axes.plot([], [], color=f"C{index}", label=f"{setting} (published {TARGETS[setting]})")
        axes.axhline(TARGETS[setting], color=f"C{index}", linestyle=":")
    axes.set(xlabel="epoch", ylabel="validation perplexity")
    axes.legend(fontsize=8)
