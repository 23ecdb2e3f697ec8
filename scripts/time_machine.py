"""The character model of d2l.ai, trained as a stream: does kbptt reach the published perplexity?

    python scripts/time_machine.py time_machine.txt                    # RNN, GRU and LSTM
    python scripts/time_machine.py time_machine.txt --cell LSTM --epochs 100

The settings of Dive into Deep Learning (https://d2l.ai, chapters on recurrent networks): the first
10,000 characters of The Time Machine, letters alone, in lower case, as 28 symbols one-hot; 32 rows
that begin at a random offset in every epoch, 35 steps a window, 256 units, SGD with learning rate
1, gradients clipped at a global norm of 1, 500 epochs. Published perplexities on the training text
are 1.3 for a simple RNN and 1.0 for GRU and LSTM. Any other English text will do for a trial.
"""

import argparse
import math
import os
import re
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import kbptt

CELLS = ("SimpleRNN", "GRU", "LSTM")
SYMBOLS = (
    "_ abcdefghijklmnopqrstuvwxyz"  # the first one stands for unknown characters: there are none
)
CHARACTERS = 10_000


def read(path: Path) -> np.ndarray:
    """The beginning of a text as numbers of symbols."""
    text = re.sub("[^a-z]+", " ", path.read_text(encoding="utf-8").lower())
    return np.array([SYMBOLS.index(character) for character in text[:CHARACTERS]], "int32")


def train(tokens: np.ndarray, cell: str, epochs: int, seed: int) -> float:
    """The training perplexity of the last epoch."""
    keras.utils.set_random_seed(seed)
    data = kbptt.data.Streams(tokens, length=35, batch_size=32, seed=seed)
    one_hot = keras.layers.Embedding(len(SYMBOLS), len(SYMBOLS), "identity", trainable=False)
    # The initial weights of PyTorch, which the book's models have.
    weights = ("kernel", "recurrent", "bias")
    uniform = keras.initializers.RandomUniform
    initial = {
        f"{w}_initializer": uniform(-1 / 16, 1 / 16, seed + i) for i, w in enumerate(weights)
    }
    recurrent = getattr(kbptt, cell)(256, return_sequences=True, **initial)
    layers = [keras.Input((35,), dtype="int32"), one_hot, recurrent]
    model = keras.Sequential([*layers, keras.layers.Dense(len(SYMBOLS))])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(1.0), loss)
    callbacks = [kbptt.callbacks.ClipByGlobalNorm(1.0), kbptt.callbacks.StreamState(data)]
    history = model.fit(data, epochs=epochs, verbose=0, callbacks=callbacks)
    return math.exp(history.history["loss"][-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", type=Path, help="a text, read as UTF-8")
    parser.add_argument("--cell", nargs="+", choices=CELLS, default=CELLS, dest="cells")
    parser.add_argument("--epochs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    tokens = read(a.path)
    for cell in a.cells:
        start = time.perf_counter()
        perplexity = train(tokens, cell, a.epochs, a.seed)
        seconds = time.perf_counter() - start
        print(f"{cell:10} perplexity {perplexity:.3f}   {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
