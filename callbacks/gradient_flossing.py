"""The callback of gradient flossing: Lyapunov exponents pushed to 0, before and during training."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from kbptt import _checks
from kbptt._attributes import Fixed, Option, Value
from kbptt._typing import Arrays
from kbptt.callbacks._flosser import Flosser
from kbptt.callbacks._options import Frequency, epoch_or_steps
from kbptt.callbacks._run_directory import iterations
from kbptt.layers import find
from kbptt.tensorboard import layout


def _or_none(check: Callable[[str, Any], Value]) -> Option[Value | None]:
    return Option(lambda name, value: None if value is None else check(name, value))


def _array(_: str, value: Any) -> np.ndarray:
    return np.asarray(value)


@keras.saving.register_keras_serializable(package="kbptt")
class GradientFlossing(keras.callbacks.Callback):
    """Pushes the leading Lyapunov exponents of the recurrent layers to 0: gradient flossing.

    The gradient that reaches a state T timesteps back is a product of T Jacobians. In its i-th
    direction, the product grows like e^{λᵢT}, where λᵢ is a Lyapunov exponent. The gradient passes
    if λᵢ = 0 for as many i as the task needs. Before the first training step, and every `freq` if
    given, each recurrent layer separately takes `steps` steps of Adam on the mean of λᵢ², which
    `kbptt.analysis.flossing_loss` computes on a few sequences. The weights of the layer change;
    other layers and the state of the model's optimizer do not.

    Flossing works for every layer that `kbptt.analysis.lyapunov_exponents` can measure, from kbptt
    (through `layer.advance`) or Keras. Layers without trainable weights are skipped. In a stack, a
    layer is flossed after those below it, since it reads their outputs.

    Resumed training is not flossed at the start again: before the first step means epoch 0 and
    `model.optimizer.iterations` 0. Sequences depend on `seed` and on the number of flossings so
    far, and Adam is reset each time, so a killed run continues as if uninterrupted
    (`keras.callbacks.BackupAndRestore`).

    The logs of every epoch get `flossing_loss`, the mean of λᵢ² over exponents and layers at the
    end of the epoch, and `lyapunov_exponent`, the largest λ₁ of the layers, both on the same few
    sequences every time. They show how far training has drifted since flossing.

    Example:

    ```python
    floss = kbptt.callbacks.GradientFlossing(x=x_train[:256])
    model.fit(x_train, y_train, callbacks=[floss])
    floss.history["simple_rnn"]  # the loss of every step of flossing
    ```

    Args:
        steps: Integer of at least 0. Steps each time; 0 turns flossing off. Defaults to `500`. All
            defaults but that of `count` follow the author's code.
        freq: `None`, `"epoch"` or a positive integer. When to floss again: before every epoch, or
            after this many training steps. Defaults to `None`: only before training.
        repeats: Integer of at least 0 or None. Maximum number of repeated flossings; later epochs
            or multiples of `freq` are skipped. Defaults to `None`, no limit.
        x: Array of inputs of the model, `(batch, timesteps, …)`, unpadded: the sequences to floss
            on, drawn at random. Needs a functional or Sequential model, whose recurrent layers at
            the top level are flossed. `None` feeds standard normal numbers to every recurrent layer
            at any depth, which drive it differently from its data. Defaults to `None`.
        count: Positive integer or None. Exponents, k: at most the size of the state, which for an
            LSTM is twice its units. `None` takes half the size of the state. Defaults to `None`.
        learning_rate: Number above 0, of Adam. Defaults to `0.001`.
        batch_size: Positive integer. Sequences in a step. Defaults to `1`.
        timesteps: Positive integer. Length of the sequences; `x` is cut to it. Defaults to `55`.
        burn_in: Integer of at least 0 or None. First timesteps to exclude: see
            `kbptt.analysis.flossing.exponents`. `None` is a quarter. Defaults to `None`.
        interval: Positive integer. Timesteps between orthonormalizations. Defaults to `1`.
        seed: Integer of at least 0. Defaults to `0`.

    Attributes:
        history: Dict: by the name of a layer, the loss before each step of flossing.

    Raises:
        ValueError: from `fit`, if the model has no recurrent layer, is not built, or `count`,
            `burn_in` or `x` do not fit it.

    Reference:

    - [Engelken, 2023](https://arxiv.org/abs/2312.17306), *Gradient flossing: improving gradient
      descent through dynamic control of Jacobians*;
      [code](https://github.com/RainerEngelken/GradientFlossing).
    """

    steps = Option(_checks.count)
    freq = _or_none(epoch_or_steps)
    repeats = _or_none(_checks.count)
    x = _or_none(_array)
    count = _or_none(_checks.positive_integer)
    learning_rate = Option(lambda name, value: _checks.number(name, value, above=0))
    batch_size = Option(_checks.positive_integer)
    timesteps = Option(_checks.positive_integer)
    burn_in = _or_none(_checks.count)
    interval = Option(_checks.positive_integer)
    seed = Option(lambda _, value: _checks.check_seed(value))

    history = Fixed(lambda self: self._history, "It is what was measured.")

    def __init__(
        self,
        steps: int = 500,
        freq: Frequency | None = None,
        repeats: int | None = None,
        x: Arrays | None = None,
        count: int | None = None,
        learning_rate: float = 0.001,
        batch_size: int = 1,
        timesteps: int = 55,
        burn_in: int | None = None,
        interval: int = 1,
        seed: int = 0,
    ):
        super().__init__()
        self.steps = steps
        self.freq = freq
        self.repeats = repeats
        self.x = x
        self.count = count
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.timesteps = timesteps
        self.burn_in = burn_in
        self.interval = interval
        self.seed = seed
        self._history: dict[str, list[float]] = {}

    def get_config(self) -> dict[str, Any]:
        names = [name for name, value in vars(type(self)).items() if isinstance(value, Option)]
        config = {name: getattr(self, name) for name in names}
        return {**config, "x": None if self.x is None else self.x.tolist()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "GradientFlossing":
        return cls(**config)

    # Keras's hooks.

    def on_train_begin(self, logs=None):
        self._flossers = None  # a later callback may build the model, or restore it
        self._history = {}

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if self._flossers is None:
            self._flossers = self._prepare()
            # A step that has ended may be followed by flossing, also where `fit` began anew.
            done = iterations(self.model) - 1
            self._phase = done // self.freq if isinstance(self.freq, int) else -1
        phase = self._now()
        if phase > self._phase:
            self._phase = phase
            if self.steps and self._is_due(phase):
                for name, flosser in self._flossers.items():
                    self._history[name] += flosser.floss(phase)

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None and self._flossers:
            measured = np.array([one.measure() for one in self._flossers.values()])
            logs["flossing_loss"] = float(measured[:, 0].mean())
            logs["lyapunov_exponent"] = float(measured[:, 1].max())

    def on_train_end(self, logs=None):
        self._flossers = None

    # When to floss.

    def _now(self) -> int:
        """How often training could have been flossed again."""
        if isinstance(self.freq, int):
            return iterations(self.model) // self.freq
        return 0 if self.freq is None else self._epoch

    def _is_due(self, phase: int) -> bool:
        if phase == 0:
            return self._epoch == 0 and iterations(self.model) == 0
        return self.repeats is None or phase <= self.repeats

    def _prepare(self) -> dict[str, Flosser]:
        """What flosses each layer, by the layer's name, from the first layer on."""
        model = self.model
        if self.x is not None and not getattr(model, "inputs", None):
            raise ValueError(
                "GradientFlossing with `x` needs a functional or Sequential model, to know what "
                f"each recurrent layer receives. Received: {type(model).__name__}. Without `x`, "
                "the recurrent layers get random numbers."
            )
        layers = (find.recurrent_layers if self.x is None else find.top_level_layers)(model)
        if not layers:
            where = "" if self.x is None else " at its top level, to which `x` could be followed"
            raise ValueError(
                f"GradientFlossing: model {model.name!r} has no recurrent layer{where}."
            )
        if self.x is not None and len(layers) > 1 and any(one.stateful for one in layers):
            raise ValueError(
                "GradientFlossing with `x` runs the layers below a recurrent layer, which would "
                f"change their states: model {model.name!r} has several recurrent layers and some "
                "are stateful. Without `x`, the recurrent layers get random numbers."
            )
        layers = [one for one in layers if one.trainable_variables or not one.built]
        names = layout.unique_names(one.name for one in layers)
        self._history = {name: [] for name in names}
        return {
            name: Flosser(model, layer, index, self)
            for index, (name, layer) in enumerate(zip(names, layers, strict=True))
        }
