"""Dive into Deep Learning: training perplexities of character models of The Time Machine.

The book's settings: the first 10,000 characters, letters alone, in lower case, as 28 symbols
one-hot; 32 rows that begin at a random offset in every epoch, 35 steps a window, 256 units, SGD
with learning rate 1, gradients clipped at a global norm of 1, 500 epochs.
"""

import math
import re
from pathlib import Path

import keras
import numpy as np

import kbptt
from papers.part import QUIET, Check, Parameters, Published, Results, Score, mean

TITLE = "Character models of The Time Machine"
CLAIM = (
    "Trained as a stream with truncated BPTT, a simple RNN reaches a training perplexity of 1.3, "
    "GRU and LSTM 1.0."
)
SOURCE = (
    "Zhang, Lipton, Li & Smola, *Dive into Deep Learning*, chapters on recurrent networks "
    "([RNN](https://d2l.ai/chapter_recurrent-neural-networks/rnn-concise.html), "
    "[LSTM](https://d2l.ai/chapter_recurrent-modern/lstm.html))."
)
DIFFERS = (
    "Nothing that is known; initial weights are those of PyTorch, which the book's models have."
)
CHECKED = "read in printed runs of the book's code in public repositories"
PUBLISHED = (
    Published("training perplexity, RNN", "1.3", CHECKED),
    Published("training perplexity, GRU", "1.0", CHECKED),
    Published("training perplexity, LSTM", "1.0", CHECKED),
)
SETTINGS: dict[str, Parameters] = {
    "SimpleRNN": {"cell": "SimpleRNN", "epochs": 500},
    "GRU": {"cell": "GRU", "epochs": 500},
    "LSTM": {"cell": "LSTM", "epochs": 500},
}
QUICK: Parameters = {"epochs": 2}
SEEDS, MINUTES = 6, 45
TEXT = "The Time Machine by H. G. Wells, from Project Gutenberg: the claim is about this text"
TARGETS = {"SimpleRNN": 1.3, "GRU": 1.0, "LSTM": 1.0}
SYMBOLS = (
    "_ abcdefghijklmnopqrstuvwxyz"  # the first one stands for unknown characters: there are none
)
CHARACTERS = 10_000


def read(path: str) -> np.ndarray:
    """The beginning of a text as numbers of symbols."""
    text = re.sub("[^a-z]+", " ", Path(path).read_text(encoding="utf-8").lower())
    return np.array([SYMBOLS.index(character) for character in text[:CHARACTERS]], "int32")


def run(parameters: Parameters, seed: int) -> Score:
    """The training perplexity of the last epoch."""
    keras.utils.set_random_seed(seed)
    tokens = read(parameters["text"])
    data = kbptt.data.Streams(tokens, length=35, batch_size=32, seed=seed)
    one_hot = keras.layers.Embedding(len(SYMBOLS), len(SYMBOLS), "identity", trainable=False)
    # The initial weights of PyTorch, which the book's models have.
    weights = ("kernel", "recurrent", "bias")
    uniform = keras.initializers.RandomUniform
    initial = {
        f"{w}_initializer": uniform(-1 / 16, 1 / 16, seed + i) for i, w in enumerate(weights)
    }
    recurrent = getattr(kbptt, parameters["cell"])(256, return_sequences=True, **initial)
    layers = [keras.Input((35,), dtype="int32"), one_hot, recurrent]
    model = keras.Sequential([*layers, keras.layers.Dense(len(SYMBOLS))])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(1.0), loss)
    callbacks = [kbptt.callbacks.ClipByGlobalNorm(1.0), kbptt.callbacks.StreamState(data)]
    history = model.fit(data, epochs=parameters["epochs"], verbose=QUIET, callbacks=callbacks)
    curve = [math.exp(loss) for loss in history.history["loss"]]
    thinned = curve[:: max(1, len(curve) // 100)]
    return {"score": curve[-1], "curve": [round(value, 3) for value in thinned]}


def checks(results: Results) -> list[Check]:
    """Ours rounds to the published number or is below it: the book prints one decimal."""
    found = []
    for setting, target in TARGETS.items():
        if results.has(setting):
            values = results.of(setting)
            statement = f"training perplexity of {setting} after 500 epochs"
            holds = bool(round(float(values.mean()), 1) <= target)
            found.append(Check(statement, f"{target}", mean(values), holds))
    return found


def draw(results: Results, figure) -> None:
    axes = figure.subplots()
    for index, setting in enumerate(SETTINGS):
        for curve in results.curves(setting):
            epochs = np.linspace(0, SETTINGS[setting]["epochs"], len(curve), endpoint=False) + 1
            axes.plot(epochs, curve, color=f"C{index}", alpha=0.7)
        axes.plot([], [], color=f"C{index}", label=setting)
    for target in sorted(set(TARGETS.values())):
        axes.axhline(target, color="gray", linestyle=":")
    axes.set(xlabel="epoch", ylabel="training perplexity", yscale="log")
    axes.legend(fontsize=8)
