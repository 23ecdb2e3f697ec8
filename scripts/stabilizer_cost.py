"""The cost of the stabilizers in milliseconds per training step.

    python scripts/stabilizer_cost.py

Variants take turns, a few steps each, for several rounds, so that a busy machine slows all of them
alike; medians, and the median of the ratios to the step without a stabilizer in the same round.
"""

import argparse
import time

import keras
import numpy as np
import tensorflow as tf

import kbptt
from kbptt.analysis import flossing_loss, lyapunov_exponents, spectral
from kbptt.callbacks import (
    AdaptiveGradientClip,
    AutoClip,
    ClipByGlobalNorm,
    GradientNorm,
    GradientNormPenalty,
    ZClip,
)
from kbptt.regularizers import ActivationRegularization, NormStabilizer, Orthogonality

VARIANTS = {
    "none": {},
    "Orthogonality": {"recurrent_regularizer": Orthogonality()},
    "NormStabilizer": {"activity_regularizer": NormStabilizer()},
    "AR + TAR": {"activity_regularizer": ActivationRegularization()},
    "GradientNorm": {"callbacks": [GradientNorm()]},
    "ClipByGlobalNorm": {"callbacks": [ClipByGlobalNorm(1.0)]},
    "AdaptiveGradientClip": {"callbacks": [AdaptiveGradientClip()]},
    "AutoClip": {"callbacks": [AutoClip()]},
    "ZClip": {"callbacks": [ZClip()]},
    "penalty, finite difference": {"callbacks": [GradientNormPenalty()]},
    "penalty, exact": {"callbacks": [GradientNormPenalty(form="exact")]},
}


class StepTimes(keras.callbacks.Callback):
    """Seconds of every step of one fit."""

    def on_train_begin(self, logs=None):
        self.seconds = []

    def on_train_batch_begin(self, batch, logs=None):
        self.start = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.seconds.append(time.perf_counter() - self.start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in [("batch", 32), ("timesteps", 128), ("features", 16), ("units", 64)]:
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="per round; the first 3 do not count")
    a = parser.parse_args()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(a.steps * a.batch, a.timesteps, a.features)).astype("float32")
    y = x.mean(axis=-1, keepdims=True)

    models = {name: build(a, dict(options)) for name, options in VARIANTS.items()}
    seconds = {name: [] for name in models}
    layer = models["none"][0].layers[0]
    seconds["a step of flossing"] = []
    for _ in range(a.rounds):
        for name, (model, callbacks) in models.items():
            times = StepTimes()
            model.fit(x, y, batch_size=a.batch, verbose=0, callbacks=[*callbacks, times])
            seconds[name].append(np.median(times.seconds[3:]))
        seconds["a step of flossing"].append(clock(lambda: floss(layer, x[:1, :55])) / 1000)
    print(f"kbptt.LSTM, ({a.batch}, {a.timesteps}, {a.features}), {a.units} units, ms per step")
    plain = np.array(seconds["none"])
    for name, measured in seconds.items():
        ratio = np.median(np.array(measured) / plain)
        print(f"{name:<28}{1000 * np.median(measured):>8.1f}{ratio:>8.2f} x")

    print("SpectralMonitor, ms per record")
    print(f"{'eigenvalues, 4 gates':<28}{clock(lambda: spectral.summarize(layer)):>8.1f}")
    print(f"{'Lyapunov, 8 sequences':<28}{clock(lambda: lyapunov_exponents(layer, x[:8])):>8.1f}")


def build(a: argparse.Namespace, options: dict) -> tuple[keras.Model, list]:
    keras.utils.set_random_seed(0)
    callbacks = options.pop("callbacks", [])
    layer = kbptt.LSTM(a.units, return_sequences=True, **options)
    model = keras.Sequential([keras.Input((a.timesteps, a.features)), layer, keras.layers.Dense(1)])
    model.compile("adam", "mse")
    return model, callbacks


@tf.function
def floss(layer: keras.layers.RNN, x: np.ndarray) -> list:
    """The gradient of the loss that GradientFlossing minimizes by default."""
    with tf.GradientTape() as tape:
        loss = flossing_loss(layer, x, count=layer.units, burn_in=13)
    return tape.gradient(loss, [v.value for v in layer.trainable_variables])


def clock(function) -> float:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))


if __name__ == "__main__":
    main()
