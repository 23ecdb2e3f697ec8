"""The cost of the stabilizers in milliseconds per training step.

    python scripts/stabilizer_cost.py
    python scripts/stabilizer_cost.py --units 256 --only kernel constraint

Variants take turns, a few steps each, for several rounds, so that a busy machine slows all of them
alike; medians, and the median of the ratios to the step without a stabilizer in the same round. The
last column is the least processor time of a step, which a busy machine changes least.
"""

import argparse
import time

import keras
import numpy as np
import tensorflow as tf

import kbptt
from kbptt import parametrizations
from kbptt.analysis import flossing_loss, lyapunov_exponents, spectral
from kbptt.callbacks import (
    AdaClip,
    AdaGC,
    AdaptiveGradientClip,
    AutoClip,
    ClipByGlobalNorm,
    GradientNorm,
    GradientNormPenalty,
    GradientStabilizer,
    ZClip,
)
from kbptt.initializers import Legendre, LegendreInput, UniformGate
from kbptt.regularizers import ActivationRegularization, NormStabilizer, Orthogonality

VARIANTS = {
    "none": {},
    "Orthogonality": {"recurrent_regularizer": Orthogonality()},
    **{f"{name} kernel": {"recurrent_parametrization": name} for name in parametrizations.NAMES},
    "constraint Orthogonal": {"recurrent_constraint": "orthogonal"},
    "constraint SpectralNorm": {"recurrent_constraint": "spectral_norm"},
    "NormStabilizer": {"activity_regularizer": NormStabilizer()},
    "AR + TAR": {"activity_regularizer": ActivationRegularization()},
    "GradientNorm": {"callbacks": [GradientNorm()]},
    "ClipByGlobalNorm": {"callbacks": [ClipByGlobalNorm(1.0)]},
    "AdaptiveGradientClip": {"callbacks": [AdaptiveGradientClip()]},
    "AutoClip": {"callbacks": [AutoClip()]},
    "ZClip": {"callbacks": [ZClip()]},
    "AdaGC": {"callbacks": [AdaGC()]},
    "GradientStabilizer": {"callbacks": [GradientStabilizer()]},
    "AdaClip + GradientStabilizer": {"callbacks": [AdaClip(), GradientStabilizer()]},
    "penalty by finite difference": {"callbacks": [GradientNormPenalty()]},
    "penalty exact": {"callbacks": [GradientNormPenalty(form="exact")]},
}


class StepTimes(keras.callbacks.Callback):
    """Seconds of every step of one fit, of the clock and of the processors."""

    def on_train_begin(self, logs=None):
        self.seconds, self.processor = [], []

    def on_train_batch_begin(self, batch, logs=None):
        self.start = time.perf_counter(), time.process_time()

    def on_train_batch_end(self, batch, logs=None):
        self.seconds.append(time.perf_counter() - self.start[0])
        self.processor.append(time.process_time() - self.start[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in [("batch", 32), ("timesteps", 128), ("features", 16), ("units", 64)]:
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="per round; the first 3 do not count")
    words = "names that contain one of these; `none` is always measured"
    parser.add_argument("--only", nargs="+", metavar="WORD", default=[""], help=words)
    a = parser.parse_args()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(a.steps * a.batch, a.timesteps, a.features)).astype("float32")
    y = x.mean(axis=-1, keepdims=True)

    chosen = {n for n in VARIANTS if n == "none" or any(word in n for word in a.only)}
    models = {n: build(a, dict(options)) for n, options in VARIANTS.items() if n in chosen}
    seconds, least = {name: [] for name in models}, dict.fromkeys(models, np.inf)
    layer = models["none"][0].layers[0]
    if any(word in "flossing" for word in a.only):
        seconds["a step of flossing"], least["a step of flossing"] = [], np.inf
    for _ in range(a.rounds):
        for name, (model, callbacks) in models.items():
            times = StepTimes()
            model.fit(x, y, batch_size=a.batch, verbose=0, callbacks=[*callbacks, times])
            seconds[name].append(np.median(times.seconds[3:]))
            least[name] = min(least[name], *times.processor[3:])
        if "a step of flossing" in seconds:
            elapsed = clock(lambda: floss(layer, x[:1, :55])) / 1000
            seconds["a step of flossing"].append(elapsed)
            least["a step of flossing"] = min(least["a step of flossing"], elapsed)
    print(f"kbptt.LSTM, ({a.batch}, {a.timesteps}, {a.features}), {a.units} units, ms per step")
    plain = np.array(seconds["none"])
    for name, measured in seconds.items():
        ratio = np.median(np.array(measured) / plain)
        median = 1000 * np.median(measured)
        print(f"{name:<28}{median:>8.1f}{ratio:>8.2f} x{1000 * least[name]:>8.1f}")

    if a.only not in ([""], ["none"]):
        return
    print(f"Initializers, ms for the weights of {a.units} units")
    for name, (initializer, shape) in initializers(a.units).items():
        milliseconds = clock(lambda i=initializer, s=shape: np.asarray(i(s)))
        print(f"{name:<28}{milliseconds:>8.1f}")
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


def initializers(units: int) -> dict:
    """By name: an initializer and the shape of the weight that it is for."""
    return {
        "keras Orthogonal, 4 gates": (keras.initializers.Orthogonal(), (units, 4 * units)),
        "UniformGate": (UniformGate(), (4 * units,)),
        "Legendre": (Legendre(784), (units, units)),
        "LegendreInput": (LegendreInput(784), (1, units)),
    }


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
