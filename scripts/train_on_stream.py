"""Train a character model on one long text, read as a stream: an update per window.

    python scripts/train_on_stream.py book.txt
    tensorboard --logdir runs/train_on_stream

The state is carried from window to window, so the text may be far longer than what a step reads.
A run that was killed is continued by the same command. Copy it and insert your own sequence.
"""

import argparse
import math
import os
from pathlib import Path
from pydoc_data.topics import topics

import keras
import numpy as np

import kbptt


def write(model: keras.Model, tokens: np.ndarray, count: int, seed: int) -> list[int]:
    """Continues `tokens` by `count` sampled ones, a timestep each."""
    stepper, generator = kbptt.streaming(model), np.random.default_rng(seed)
    logits, states = stepper(tokens[None], stepper.initial_states(batch_size=1))
    written = []
    for _ in range(count):
        probabilities = np.exp(np.float64(logits[0, -1]))
        written.append(generator.choice(len(probabilities), p=probabilities / probabilities.sum()))
        logits, states = stepper(np.array([written[-1:]], tokens.dtype), states)
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", nargs="?", help="a UTF-8 file (default: Python's help topics)")
    parser.add_argument("--length", type=int, default=64, help="timesteps of a window")
    parser.add_argument("--rows", type=int, default=32, help="the batch size")
    parser.add_argument("--units", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--logdir", default="runs/train_on_stream")
    arguments = parser.parse_args()
    keras.utils.set_random_seed(arguments.seed)

    # Data: one array of tokens. The last tenth is for the test, the one before it for validation.
    read = Path(arguments.text).read_text("utf-8") if arguments.text else "".join(topics.values())
    characters, tokens = np.unique(list(read), return_inverse=True)
    parts = np.split(tokens.astype("int32"), [len(tokens) * 8 // 10, len(tokens) * 9 // 10])
    train, validation, test = (
        kbptt.data.Streams(part, length=arguments.length, batch_size=arguments.rows)
        for part in parts
    )

    # Model: any number of recurrent kbptt layers, none of which is `stateful`.
    model = keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            keras.layers.Embedding(len(characters), 32),
            kbptt.LSTM(arguments.units, return_sequences=True),
            keras.layers.Dense(len(characters)),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(5e-3), loss, metrics=["accuracy"])
    model.fit(
        train,
        epochs=arguments.epochs,
        validation_data=validation,
        callbacks=[
            kbptt.callbacks.StreamState(train, path=os.path.join(arguments.logdir, "state.npz")),
            kbptt.callbacks.ClipByGlobalNorm(1.0),
            kbptt.callbacks.GradientFlow(arguments.logdir, log_freq=20),
        ],
        verbose=2,
    )

    bits = kbptt.evaluate_stream(model, test)["loss"] / math.log(2)
    print(f"{bits:.3f} bits per character on the last tenth of the text, read in one pass.")
    print("".join(characters[write(model, parts[1][-100:], 300, arguments.seed)]))
    print(kbptt.tensorboard.command(arguments.logdir))


if __name__ == "__main__":
    main()
