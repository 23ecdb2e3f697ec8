"""Minimizes the flossing loss of one layer of a model, with an optimizer of its own."""

import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kbptt.analysis import flossing, lyapunov

_FLOSSING, _MEASURING = 0, 1  # what random numbers are for


class Flosser:
    """Flosses one layer; of no use after `fit`, since it keeps compiled functions.

    Args:
        model: A compiled `keras.Model`.
        layer: A recurrent layer of it.
        index: Integer, of the layer in the model.
        settings: The `kbptt.callbacks.GradientFlossing`.

    Raises:
        ValueError: If the layer is not built, or `count`, `burn_in` or `x` do not fit.
    """

    def __init__(self, model: keras.Model, layer: Any, index: int, settings: Any):
        self._model, self._layer, self._index, self._settings = model, layer, index, settings
        if not layer.built:
            raise ValueError(
                f"GradientFlossing: layer '{layer.name}' is not built, so there are no weights "
                "before the first step. Call `model.build(shape)`, or start the model with "
                "`keras.Input(shape)`."
            )
        timesteps = settings.timesteps
        if settings.x is not None:
            timesteps = min(timesteps, lyapunov.inputs_of(model, layer, settings.x[:1]).shape[1])
        count = settings.count or max(1, flossing.state_size(layer) // 2)
        burn_in = timesteps // 4 if settings.burn_in is None else settings.burn_in
        self._timesteps = timesteps
        self._options = {
            "count": flossing.check_count(layer, count),
            "burn_in": flossing.check_burn_in(burn_in, timesteps),
            "interval": settings.interval,
            "seed": settings.seed,
        }
        self._strategy = model.distribute_strategy
        with self._strategy.scope():
            self._optimizer = keras.optimizers.Adam(settings.learning_rate)
            self._optimizer.build(layer.trainable_variables)
        self._fresh = [v.numpy() for v in self._optimizer.variables]
        compiled = (lambda f: f) if model.run_eagerly else tf.function(autograph=False)
        self._exponents = compiled(self._exponents_of)
        self._differentiate = compiled(self._gradients_of)
        self._apply = compiled(self._update)

    def floss(self, phase: int) -> list[float]:
        """Takes all steps of the `phase`-th time. Returns the loss before each of them."""
        steps = self._settings.steps
        for variable, value in zip(self._optimizer.variables, self._fresh, strict=True):
            variable.assign(value)
        losses, skipped = [], 0
        for x in self._sequences(steps, _FLOSSING, phase):
            loss, gradients, finite = self._differentiate(x)
            losses.append(float(loss))
            if finite:
                self._apply(gradients)
            skipped += not finite
        if skipped:
            warnings.warn(
                f"GradientFlossing left out {skipped} of {steps} steps on layer "
                f"'{self._layer.name}' because their gradient was not finite: a direction is cut "
                "off exactly, so its exponent is −∞. Lower `count`.",
                stacklevel=2,
            )
        return losses

    def measure(self) -> tuple[float, float]:
        """The loss, and the largest exponent, on the same sequences every time."""
        (x,) = self._sequences(1, _MEASURING, 0)
        found = self._exponents(x).numpy().astype("float64")
        return float(np.mean(found**2)), float(found.mean(axis=0).max())

    # Compiled unless the model runs eagerly.

    def _exponents_of(self, x: tf.Tensor) -> tf.Tensor:
        return flossing.exponents(self._layer, x, **self._options)

    def _gradients_of(self, x: tf.Tensor) -> tuple[tf.Tensor, list, tf.Tensor]:
        """The loss, its gradients, and whether they are finite."""
        with tf.GradientTape() as tape:
            loss = flossing.loss_of(self._exponents_of(x))
        gradients = tape.gradient(
            loss,
            [v.value for v in self._layer.trainable_variables],
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        return loss, gradients, tf.math.is_finite(tf.linalg.global_norm(gradients))

    def _update(self, gradients: list) -> None:
        def on_replica() -> None:
            # The optimizer adds up what the replicas bring.
            replicas = self._strategy.num_replicas_in_sync
            self._optimizer.apply([g / replicas for g in gradients])

        self._strategy.run(on_replica)

    def _sequences(self, steps: int, purpose: int, phase: int) -> Any:
        """The layer's input `(batch, timesteps, features)` of each step, drawn from the seed."""
        settings, dtype = self._settings, self._layer.compute_dtype
        generator = np.random.default_rng([settings.seed, purpose, phase, self._index])
        if settings.x is None:
            shape = settings.batch_size, self._timesteps, self._features()
            for _ in range(steps):
                yield tf.constant(generator.normal(size=shape), dtype)
            return
        # Run the layers below on what is drawn alone, once: they do not change meanwhile.
        rows = generator.integers(len(settings.x), size=(steps, settings.batch_size))
        drawn, where = np.unique(rows, return_inverse=True)
        x = lyapunov.inputs_of(self._model, self._layer, settings.x[drawn])
        x = tf.cast(keras.ops.convert_to_tensor(x), dtype)[:, : self._timesteps]
        for step in where.reshape(rows.shape):
            yield tf.gather(x, step)

    def _features(self) -> int:
        config = self._layer.get_build_config()
        shape = config.get("input_shape") or config["shapes_dict"]["sequences_shape"]
        if shape[-1] is None:
            raise ValueError(
                f"GradientFlossing: layer '{self._layer.name}' takes any number of features. Pass "
                "`x`, the sequences to floss on."
            )
        return shape[-1]
