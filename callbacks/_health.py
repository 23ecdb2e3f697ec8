"""Measures the health of a network on the batch that it is about to train on."""

import contextlib
import math
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kbptt import _checks
from kbptt.analysis import lags, reach
from kbptt.analysis.evidence import Key
from kbptt.analysis.layer_health import LayerHealth, health_of
from kbptt.callbacks import _substitution
from kbptt.callbacks._watch import Watch
from kbptt.layers import find
from kbptt.tensorboard import layout

VARIABLES = "variables"
PARTS = ("states", VARIABLES, "lags")

# States of at most so many numbers are looked at, and of so many samples.
_NUMBERS, _SAMPLES = 2**19, 32
# Largest share of a `fit` that measuring takes, but for the first measurement of a model, and the
# seconds that the second one is taken to need.
_SHARE, _SECONDS = 0.04, 0.1


def parts(name: str, value: Any) -> tuple[str, ...]:
    """Returns the `PARTS` that `value` (a boolean, one or several names) asks for."""
    if value is True:
        return PARTS
    if value is False or value is None:
        return ()
    if not isinstance(value, str | Sequence):
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected True, False, or some of "
            f"{', '.join(map(repr, PARTS))}. Received: {name}={value!r} (of type "
            f"{type(value).__name__})."
        )
    chosen = [value] if isinstance(value, str) else list(value)
    return tuple(_checks.one_of(name, part, PARTS) for part in chosen)


class Measured:
    """What was measured around one step.

    Attributes:
        layers: Each layer with its `LayerHealth`.
        ratios: ‖Δw‖/‖w‖ of the step for each trainable variable, by path. Of several steps that run
            together it is the mean per step. None where w was 0.
        lags: Each layer that was measured with its `LagProfile`.
    """

    def __init__(self) -> None:
        self.layers: list[tuple[Any, LayerHealth]] = []
        self.ratios: dict[str, float] = {}
        self.lags: list[tuple[Any, lags.LagProfile]] = []

    def named(
        self, layers: Mapping[str, Any], norms: Mapping[str, float], model: str
    ) -> tuple[dict[Key, np.ndarray], dict[Key, float]]:
        """Norms of states by (layer, state), and scalars by (group, name).

        Args:
            layers: The layers by the names of their records.
            norms: That of the gradient of each variable, by path.
            model: The model's name, with which the paths of its variables may begin.
        """
        names = {id(layer): name for name, layer in layers.items()}
        states: dict[Key, np.ndarray] = {}
        scalars: dict[Key, float] = {}
        for layer, found in self.layers:
            name = names[id(layer)]
            states |= {(name, state): norms for state, norms in found.state_norms.items()}
            scalars |= {(name, key): value for key, value in found.statistics().items()}
        for kind, found in (("gradient_norm", norms), ("update_to_weight", self.ratios)):
            for path, value in found.items():
                if not math.isnan(value):  # one without a gradient
                    scalars[_variable_key(path.removeprefix(f"{model}/"), kind)] = value
        return states, scalars


def _variable_key(path: str, name: str) -> Key:
    """The scalar `name` of a trainable variable: (group, name)."""
    return VARIABLES, f"{'/'.join(map(layout.safe_name, path.split('/')))}/{name}"


class HealthMonitor:
    """Looks at the steps of a model that are wanted.

    Args:
        model: The model.
    """

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self._measured: Measured | None = None
        self._watch = Watch(model, self._before, self._after)
        self._given_up: set[str] = set()
        self._padding_known = False
        self._weights: list[tf.Tensor] = []
        self._last, self._count = 0.0, 0  # seconds of the last measurement, and how many there were

    def join(self, parts: Sequence[str], max_lags: int) -> None:
        """Has the steps of the `fit` that begins looked at.

        Args:
            parts: Some of `PARTS`.
            max_lags: Integer. Number of lags measured.
        """
        self.parts, self.max_lags = parts, max_lags
        self._started, self._spent = time.monotonic(), 0.0
        _substitution.of(self.model).join(wrapper=self._watch)
        if not self._watch.possible:
            warnings.warn(
                "GradientFlow(health=…) examines batches of one replica. This model is trained on "
                f"{self.model.distribute_strategy.num_replicas_in_sync}: only the gradients of its "
                "variables are logged.",
                stacklevel=2,
            )

    def leave(self) -> None:
        _substitution.of(self.model).leave(wrapper=self._watch)

    def affordable(self) -> bool:
        """Whether a further measurement would keep to a small share of the time of `fit`."""
        elapsed = time.monotonic() - self._started
        expected = self._last if self._count > 1 else _SECONDS
        return not self._count or self._spent + expected <= _SHARE * elapsed

    def want(self) -> None:
        """Has the step that is about to begin looked at."""
        self._watch.wanted = True

    def take(self) -> Measured | None:
        """What was measured since the last call."""
        measured, self._measured = self._measured, None
        return measured

    # Around the step --------------------------------------------------------------------------

    def _before(self, batch: Any) -> None:
        begun = time.monotonic()
        self._measured = Measured()
        for part, measure in (("states", self._states), ("lags", self._lags)):
            if part in self.parts and part not in self._given_up:
                try:
                    measure(batch, self._measured)
                except Exception as error:  # of any type: whatever the model or its data may be
                    self._give_up(part, error)
        if VARIABLES in self.parts:
            self._weights = [tf.identity(v.value) for v in self.model.trainable_variables]
            self._iterations = self._now()
        self._count_time(begun)

    def _now(self) -> int:
        return int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))

    def _after(self, batches: int) -> None:
        begun = time.monotonic()
        # None where the step was skipped, or only accumulated its gradient.
        steps = self._now() - self._iterations if self._weights else 0
        if steps and self._measured is not None:
            for variable, before in zip(
                self.model.trainable_variables, self._weights, strict=False
            ):
                size = float(tf.norm(tf.cast(before, tf.float32)))
                change = tf.cast(variable.value - before, tf.float32)
                if size > 0:
                    self._measured.ratios[variable.path] = float(tf.norm(change)) / size / steps
        self._weights = []
        self._last += time.monotonic() - begun
        self._count += 1
        if self._count > 1:  # the first one compiles and imports
            self._spent += self._last

    def _count_time(self, begun: float) -> None:
        self._last = time.monotonic() - begun

    def _give_up(self, part: str, error: Exception) -> None:
        self._given_up.add(part)
        first, *_ = str(error).split("\n")
        warnings.warn(
            f"GradientFlow cannot measure the {part} of {self.model.name!r} on a batch of its "
            f"training data; training continues. {type(error).__name__}: {first}",
            stacklevel=2,
        )

    def _warn_of_padding(self) -> None:
        if self._padding_known:
            return
        self._padding_known = True
        warnings.warn(
            f"GradientFlow(health=…) measures gradients by lag on sequences without padding, but a "
            f"batch of {self.model.name!r} had none and is skipped. If all batches are padded, "
            "pass some sequences without padding as `lag_data`.",
            stacklevel=2,
        )

    def _states(self, batch: Any, measured: Measured) -> None:
        measured.layers = self._look(batch)

    def _look(self, batch: Any) -> list[tuple[Any, LayerHealth]]:
        x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        layers = find.truncated_layers(self.model)
        if not layers:
            return []
        wrappers = _substitution.of(self.model).wrappers
        whole = any(layer.stateful for layer in layers) or len(wrappers) > 1
        if not whole:
            x = _first(x, self._samples(x, layers))
        with contextlib.ExitStack() as stack:
            for wrapper in wrappers:
                stack.enter_context(wrapper.measuring())
            return health_of(self.model, x, layers, training=True)

    def _samples(self, x: Any, layers: Sequence[Any]) -> int | None:
        """How many samples of a batch are looked at; None for all."""
        if any(one.shape[0] is not None for one in getattr(self.model, "inputs", None) or ()):
            return None  # the model takes batches of one size
        widest = max(max(keras.tree.flatten(layer.state_size)) for layer in layers)
        timesteps = max((a.shape[1] for a in _arrays(x) if len(a.shape) > 1), default=1)
        return max(1, min(_SAMPLES, _NUMBERS // (timesteps * widest)))

    def _lags(self, batch: Any, measured: Measured) -> None:
        layers = [one for one in find.truncated_layers(self.model) if one.return_sequences]
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        if not layers or y is None:
            return
        seen = measured.layers or self._look(batch)
        timesteps = max((len(found.state_norms["h"]) for _, found in seen), default=0)
        if not timesteps:
            return
        least = reach.lags_to_measure(timesteps)
        windows = [getattr(one.truncation, "length", None) or 0 for one in layers]
        # Up to the cut, so that it shows what is cut off.
        count = max(min(self.max_lags, least), min(max(windows), timesteps))
        fixed = any(layer.stateful for layer in layers)
        if not fixed and self._samples(x, layers) is not None:
            # Masked timesteps would count as lags without a gradient.
            complete = np.logical_and.reduce([found.complete for _, found in seen])
            chosen = np.flatnonzero(complete)[: max(1, reach.SEQUENCES * least // count)]
            if not chosen.size:
                self._warn_of_padding()
                return
            x, y, sample_weight = (_those(a, chosen) for a in (x, y, sample_weight))
        profiles = lags.lag_profiles(self.model, x, y, count, layers, sample_weight)
        measured.lags = list(zip(layers, profiles, strict=True))


def lags_on(
    model: keras.Model, data: Sequence[Any], count: int
) -> list[tuple[Any, lags.LagProfile]]:
    """Each recurrent layer of a model with its gradients by lag on `lag_data`.

    Raises:
        ValueError: If the model does not accept these data.
    """
    layers = find.truncated_layers(model)
    x, y, *sample_weight = data
    try:
        profiles = lags.lag_profiles(model, x, y, count, layers, *sample_weight)
    except Exception as error:  # of any type: the model does not accept these inputs
        shapes = ", ".join(str(np.shape(part)) for part in keras.tree.flatten(data))
        first_line, *_ = str(error).split("\n")
        raise ValueError(
            "GradientFlow cannot measure gradients by lag on its `lag_data`. Expected inputs "
            f"and targets as for `fit`. Received shapes {shapes}. {first_line}"
        ) from error
    return list(zip(layers, profiles, strict=True))


def _arrays(x: Any) -> list[Any]:
    return [a for a in keras.tree.flatten(x) if a is not None]


def _first(x: Any, samples: int | None) -> Any:
    return _those(x, slice(samples))


def _those(x: Any, samples: Any) -> Any:
    return keras.tree.map_structure(lambda a: None if a is None else np.asarray(a)[samples], x)
