"""Options of the gradient, which may be set at any time, also after the model was compiled."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from kbptt import gradient_clip as gradient_clips, truncation as truncations
from kbptt._checks import flag
from kbptt._frozen import frozen
from kbptt.engine import Effects, Monitor, Options, draw_factors
from kbptt.gradient_clip import GradientClipLike
from kbptt.layers.callers import Callers
from kbptt.truncation.policies import TruncationLike


class Uniform:
    """Uniform random numbers of backward passes, new ones for each.

    Its state is no weight: Keras does not look into such an object.
    """

    def __init__(self, seed: Any) -> None:
        self.generator: keras.random.SeedGenerator = keras.random.SeedGenerator(seed)

    @property
    def state(self) -> tf.Variable:
        return self.generator.state.value

    def drawer(self, effects: Effects) -> Callable[[list[Any]], tf.Tensor]:
        """A function of a shape that draws numbers in [0, 1), float32."""
        state = effects.capture(self.state)

        def draw(shape):
            # What keras.random.uniform does with this seed, whose variable it would not capture.
            seed = state.read()
            state.assign(seed + tf.constant([0, 1], seed.dtype))
            seed = tf.cast(tf.math.floormod(seed, tf.int32.max - 1), tf.int32)
            return tf.random.stateless_uniform(shape, seed)

        return draw


class Factors:
    """Draws the ξ of randomized truncation, new for every backward pass."""

    def __init__(self, truncation: truncations.Randomized) -> None:
        self.truncation = truncation
        self.uniform: Uniform = Uniform(truncation.seed)

    def drawer(self, effects: Effects) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
        """A function of (timesteps, batch) that draws ξ ``(timesteps, batch or 1)``."""
        uniform = self.uniform.drawer(effects)

        def draw(timesteps, batch):
            schedule = getattr(self.truncation, "keep_probability", None)
            if isinstance(schedule, list):
                message = "`keep_probability` and the sequence differ in length."
                tf.debugging.assert_equal(timesteps, len(schedule), message=message)
            columns = batch if self.truncation.per_sample else 1
            factors = self.truncation.factors(timesteps, columns)
            if factors is not None:
                return factors
            return draw_factors(uniform([timesteps, columns]), self.truncation.cut_probability)

        return draw


class Detachment:
    """Draws at which timesteps h-detach lets the gradient through, for every backward pass.

    Reference: [Kanuparthi et al., 2019](https://arxiv.org/abs/1810.03023), algorithm 1.
    """

    def __init__(self, rate: float, uniform: Uniform) -> None:
        self.rate = rate
        self.uniform = uniform

    def drawer(self, effects: Effects) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
        """A function of (timesteps, batch) that draws zeros and ones, ``(timesteps, 1)``."""
        uniform = self.uniform.drawer(effects)

        def draw(timesteps, batch):
            return tf.cast(uniform([timesteps, 1]) >= self.rate, tf.float32)

        return draw


# Type checkers see the mixins of the layers as what they are put in front of.
RNN = keras.layers.RNN if TYPE_CHECKING else object


class GradientOptions(RNN):
    """Mixin with how far back the gradient flows, how it is bounded, and whether it is recorded."""

    # Counts changes of the options once the layer is built, so that a graph traced before one is
    # found out: of windows and clip, which the C loops read when they run, and of the others.
    _versions: tf.Variable | None = None
    _lag_recorder: Callable[[Monitor], None] | None = None

    def _set_options(self, truncation: TruncationLike, gradient_clip: GradientClipLike) -> None:
        self._callers = Callers()
        self._changes = [0, 0]
        self._record_gradient_norms = True
        self._factors = None
        self._known_factors: list[tuple[truncations.Truncation, Factors]] = []
        self._uniform: Uniform | None = None  # of h-detach
        self._detachment: Detachment | None = None
        self.gradient_clip = gradient_clip
        self.truncation = truncation

    @property
    def truncation(self) -> truncations.Truncation:
        """The `kbptt.truncation.Truncation` of this layer.

        Like `gradient_clip` and the other options of the gradient, it can be set at any time. The
        next training step uses it, in `fit`, `train_on_batch` and eager training loops. Your own
        `tf.function`, which no layer can retrace, raises an error instead of using the old value.
        """
        return self._truncation

    @truncation.setter
    def truncation(self, value: TruncationLike) -> None:
        truncation = frozen(truncations.get(value))
        if truncation != getattr(self, "_truncation", None):
            before = getattr(self, "_truncation", truncation)
            self._truncation = truncation
            self._factors = Factors(truncation) if truncation.stochastic else None
            others = any(t.stochastic or t.diagonal for t in (before, truncation))
            self._options_changed(windows_or_clip=not others)

    @property
    def gradient_clip(self) -> float | gradient_clips.ByNorm | None:
        """Bound on the gradient carried to the previous timestep.

        A number that bounds every element, or `kbptt.clipping.ByNorm`.
        """
        return self._gradient_clip

    @gradient_clip.setter
    def gradient_clip(self, value: GradientClipLike) -> None:
        self._gradient_clip = frozen(gradient_clips.get(value))
        self._options_changed(windows_or_clip=True)

    @property
    def record_gradient_norms(self) -> bool:
        """Whether backward passes keep `gradient_norms`. Defaults to `True`."""
        return self._record_gradient_norms

    @record_gradient_norms.setter
    def record_gradient_norms(self, value: bool) -> None:
        if bool(value) != self._record_gradient_norms:
            self._record_gradient_norms = bool(value)
            self._options_changed(windows_or_clip=False)

    def _options_changed(self, *, windows_or_clip: bool, forward: bool = False) -> None:
        """Makes what has been traced with the old options use the new ones, or refuse to run.

        Args:
            windows_or_clip: Whether nothing else has changed: the C++ loops read these when they
                run.
            forward: Whether the outputs of the layer have changed.
        """
        self._changes[0 if windows_or_clip else 1] += 1
        if self._versions is not None:
            self._versions.assign(self._changes)
        self._callers.retrace(self, forward)

    @contextlib.contextmanager
    def temporarily(self, **options: Any) -> Iterator[None]:
        """Sets options for calls made inside a `with` block; compiled functions are not affected.

        Args:
            **options: Options that can be set at any time: `truncation`, `gradient_clip`,
                `record_gradient_norms`; of LSTM, GRU and SimpleRNN also `zoneout`, and of LSTM and
                GRU `h_detach`.

        Raises:
            ValueError: If a value is invalid for its option.
            TypeError: If there is no such option.
        """
        fields: dict[str, Any] = {}
        for name, value in options.items():
            fields |= self._fields(name, value)
        with self.overriding(**fields):
            yield

    @contextlib.contextmanager
    def overriding(self, **fields: Any) -> Iterator[None]:
        """A scope in which kbptt itself has other attributes, by their names without the `_`."""
        new = {f"_{name.removeprefix('_')}": value for name, value in fields.items()}
        saved = {name: getattr(self, name) for name in new}
        self.__dict__.update(new)
        try:
            yield
        finally:
            self.__dict__.update(saved)

    def _fields(self, option: str, value: Any) -> dict[str, Any]:
        """The attributes that hold an option, with what they are for this value."""
        if option == "truncation":
            truncation = truncations.get(value)
            return {"truncation": truncation, "factors": self._factors_of(truncation)}
        if option == "gradient_clip":
            return {"gradient_clip": gradient_clips.get(value)}
        if option == "record_gradient_norms":
            return {"record_gradient_norms": flag("record_gradient_norms", value)}
        raise TypeError(
            f"Layer '{self.name}' has no option `{option}` that can be set temporarily. Expected "
            "truncation, gradient_clip, record_gradient_norms or, for kbptt.LSTM, GRU and "
            "SimpleRNN, zoneout or (not SimpleRNN) h_detach."
        )

    def _factors_of(self, truncation: Any) -> Factors | None:
        """Those of earlier scopes with an equal truncation, which draw on, or new ones."""
        if not truncation.stochastic:
            return None
        for known, factors in self._known_factors:
            if known == truncation:
                return factors
        self._known_factors.append((truncation, Factors(truncation)))
        return self._known_factors[-1][1]

    def _options(self) -> Options:
        t = self.truncation
        record = self.record_gradient_norms
        lags = self._lag_recorder is not None
        clip = self.gradient_clip
        by_norm = isinstance(clip, gradient_clips.ByNorm)
        bound = clip.norm if isinstance(clip, gradient_clips.ByNorm) else clip
        options = Options(t.length, t.stride, t.align, bound, by_norm, record, lags)
        return options._replace(diagonal=t.diagonal)
