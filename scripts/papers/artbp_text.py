"""Tallec & Ollivier (2017): on a text, ARTBP is a little better than a fixed window.

The paper: characters of Penn Treebank. Here: Python's own documentation, the texts of `help()`, so
that nothing is downloaded. A stream, the state carried on, an update every 50 characters; the
fixed window cuts where the windows end, ARTBP draws the cuts in longer windows so that they are 50
characters apart in the mean.
"""

from pydoc_data.topics import topics

import keras
import numpy as np

import kbptt
from papers.part import QUIET, Check, Parameters, Published, Results, Score, mean, p_of, significant

TITLE = "Text: ARTBP against a fixed window"
CLAIM = (
    "On Penn Treebank, character by character, ARTBP gets to 1.434 bits per character on the "
    "validation text, a fixed window to 1.472; the sign should be the same on a free text."
)
SOURCE = (
    "Tallec & Ollivier, [*Unbiasing truncated backpropagation through time*]"
    "(https://arxiv.org/abs/1705.08209), 2017, section 5.2."
)
DIFFERS = (
    "A different and much smaller text (Penn Treebank is not free), an LSTM of 64 units instead of "
    "a larger one, 20 epochs on 200,000 characters. Both read the same windows of 200 characters "
    "and make the same number of updates; inside, the gradient is cut every 50, or by ARTBP with a "
    "mean length of 50."
)
PUBLISHED = (
    Published("validation bits (sd), ARTBP", "1.434 (0.006)"),
    Published("validation bits (sd), fixed window of 50", "1.472 (0.004)"),
)
LENGTH = 200  # of the windows that are read
SETTINGS: dict[str, Parameters] = {
    "fixed, 50": {"truncation": "fixed", "epochs": 20, "characters": 200_000},
    "ARTBP, 50": {"truncation": "artbp", "epochs": 20, "characters": 200_000},
}
QUICK: Parameters = {"epochs": 1, "characters": 8000}
SEEDS, MINUTES, TEXT = 8, 12, ""


def read(characters: int) -> tuple[np.ndarray, int]:
    """The beginning of Python's documentation as numbers of its characters, and how many those are.

    Characters that are rare are left out: which ones occur depends on the version of Python.
    """
    text = "\n".join(topics[name] for name in sorted(topics))[:characters]
    known = [chr(code) for code in (10, *range(32, 127))]
    number = {character: index for index, character in enumerate(known)}
    return np.array([number[c] for c in text if c in number], "int32"), len(known)


def run(parameters: Parameters, seed: int) -> Score:
    """Bits per character of the last tenth of the text."""
    tokens, symbols = read(parameters["characters"])
    held_out = len(tokens) // 10
    keras.utils.set_random_seed(seed)
    policy = kbptt.truncation.Windowed(50)
    if parameters["truncation"] == "artbp":
        policy = kbptt.truncation.Randomized.artbp(50, 3, per_sample=True, seed=seed)
    one_hot = keras.layers.Embedding(symbols, symbols, "identity", trainable=False)
    layer = kbptt.LSTM(64, return_sequences=True, truncation=policy)
    inputs = keras.Input((None,), dtype="int32")
    model = keras.Sequential([inputs, one_hot, layer, keras.layers.Dense(symbols)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.005), loss)
    train = kbptt.data.Streams(tokens[:-held_out], length=LENGTH, batch_size=8, seed=seed)
    test = kbptt.data.Streams(tokens[-held_out:], length=LENGTH, batch_size=8, offset=0)
    curve = []
    clip, state = kbptt.callbacks.ClipByGlobalNorm(1.0), kbptt.callbacks.StreamState(train)
    for _ in range(parameters["epochs"]):
        model.fit(train, verbose=QUIET, callbacks=[clip, state])
        curve.append(float(kbptt.evaluate_stream(model, test)["loss"] / np.log(2)))
    return {"score": curve[-1], "curve": [round(bits, 4) for bits in curve]}


def checks(results: Results) -> list[Check]:
    """ARTBP has fewer bits than the fixed window, p < 0.05."""
    fixed, random = SETTINGS
    if not results.has(fixed, random):
        return []
    before, after = results.of(fixed, "score", random), results.of(random, "score", fixed)
    p = p_of(after - before)
    gain = f"{(after - before).mean():+.4f}, p = {p:.3f}"
    text = f"{mean(after, 4)} against {mean(before, 4)} bits; {gain}"
    holds = significant(after.mean() < before.mean(), after - before)
    statement = "ARTBP is better than the fixed window"
    return [Check(statement, "1.434 against 1.472 bits: −0.038", text, holds)]


def draw(results: Results, figure) -> None:
    axes = figure.subplots()
    for index, setting in enumerate(SETTINGS):
        for curve in results.curves(setting):
            axes.plot(np.arange(1, len(curve) + 1), curve, "o-", color=f"C{index}", alpha=0.6)
        axes.plot([], [], color=f"C{index}", label=setting)
    axes.set(xlabel="epoch", ylabel="bits per character")
    axes.legend(fontsize=8)
