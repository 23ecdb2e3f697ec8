"""Online learning of a delayed echo: updates more often than a lesson is long.

    python scripts/online_learning.py

A stream of random bits, 16 rows; the target of each timestep is the bit of `delay` timesteps
before. Weights are updated every few timesteps, the state goes on. Plain truncation cuts the
gradient at every update, so that with updates every 4 timesteps no gradient spans a longer delay;
SnAp-1 carries the influence of the weights on, for each unit by itself. Prints the share of right
bits in the last tenth of training (a guess has 0.5), for each seed and its median.
"""

import argparse

import keras
import numpy as np

import kbptt

METHODS = {
    "updates every 4": (None, 4),
    "updates every 4, SnAp-1": ("snap1", 4),
    "updates every 32": (None, 32),
}


class RunningMean(keras.callbacks.Callback):
    """The metric after every update: its mean over all of them so far."""

    def on_train_begin(self, logs=None):
        self.values = []

    def on_train_batch_end(self, batch, logs=None):
        self.values.append(float((logs or {})["right"]))

    def last_tenth(self) -> float:
        """The mean over the last tenth of the updates."""
        count = len(self.values)
        before = int(0.9 * count)
        return (self.values[-1] * count - self.values[before - 1] * before) / (count - before)


def train(a: argparse.Namespace, delay: int, method: str, seed: int) -> float:
    """The share of right bits in the last tenth of training."""
    truncation, every = METHODS[method]
    keras.utils.set_random_seed(seed)
    bits = np.random.default_rng(seed).integers(0, 2, [a.rows, a.timesteps + delay, 1])
    x, y = list(2.0 * bits[:, delay:] - 1), list(bits[:, :-delay])
    layer = getattr(kbptt, a.cell)(a.units, return_sequences=True, truncation=truncation)
    model = keras.Sequential([keras.Input((every, 1)), layer, keras.layers.Dense(1)])
    model.compile(
        keras.optimizers.Adam(a.learning_rate),
        keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy("right", threshold=0.0)],
    )
    data = kbptt.data.Streams(x, y, every, batch_size=a.rows, target=None, offset=0)
    mean = RunningMean()
    model.fit(data, verbose=0, callbacks=[kbptt.callbacks.StreamState(data), mean])
    return mean.last_tenth()


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--cell", default="GRU", choices=["SimpleRNN", "GRU", "LSTM"])
    parser.add_argument("--delays", type=int, nargs="+", default=[3, 6, 10])
    parser.add_argument("--units", type=int, default=32)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--timesteps", type=int, default=20_000)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--seeds", type=int, default=5)
    a = parser.parse_args()
    for delay in a.delays:
        for method in METHODS:
            found = sorted(train(a, delay, method, seed) for seed in range(a.seeds))
            each = " ".join(f"{value:.2f}" for value in found)
            row = f"{a.cell}, delay {delay:>2}  {method:<26}{np.median(found):.3f}  ({each})"
            print(row, flush=True)


if __name__ == "__main__":
    main()
