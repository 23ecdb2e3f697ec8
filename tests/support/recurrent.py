"""Runs a recurrent layer and collects every gradient, beside `reference_bptt`."""

import contextlib
import functools

import keras
import numpy as np
import reference_bptt
import tensorflow as tf

import kbptt
from kbptt.engine import using

CELLS = ["SimpleRNN", "GRU", "LSTM"]
STATES = {"SimpleRNN": 1, "GRU": 1, "LSTM": 2}


@contextlib.contextmanager
def running_eagerly(engine="tensorflow"):
    """Runs the loops operation by operation: no tracing, no compiling, the same numbers.

    That XLA gives the same is the subject of test_compiled.py. With `"native"` the loops compiled
    from C run wherever they can.
    """
    with using(native=engine == "native", jit=False):
        tf.config.run_functions_eagerly(True)
        try:
            yield
        finally:
            tf.config.run_functions_eagerly(False)


class GivenFactors(kbptt.truncation.Randomized):
    """Randomized truncation whose ξ are known."""

    def __init__(self, xi):
        super().__init__(keep_probability=1.0)
        self.xi = xi

    def factors(self, timesteps, columns):
        return tf.constant(self.xi)

    def get_config(self):
        return {"xi": self.xi.tolist()}


def data(cell="SimpleRNN", timesteps=9, batch=2, features=3, units=4, seed=0):
    """x, initial states, e and d of `reference_bptt.Problem`."""
    rng = np.random.default_rng(seed)
    states = STATES[cell]
    x = rng.normal(size=(batch, timesteps, features))
    state = [rng.normal(size=(batch, units)) for _ in range(states)]
    e = rng.normal(size=(batch, timesteps, units))
    d = [rng.normal(size=(batch, units)) for _ in range(states)]
    return x, state, e, d


def make(cell, units=4, features=3, library=kbptt, dtype="float64", **arguments):
    """A built layer that returns everything, with large random weights, biases included."""
    arguments = {"return_sequences": True, "return_state": True, "dtype": dtype, **arguments}
    layer = getattr(library, cell)(units, **arguments)
    layer.build((arguments.get("batch"), None, features))
    randomize(layer)
    return layer


def randomize(layer, seed=1):
    rng = np.random.default_rng(seed)
    layer.set_weights([0.7 * rng.normal(size=w.shape) for w in layer.get_weights()])


def differentiate(layer, x, state=None, e=None, d=None, **arguments):
    """Gradients of Σ e·outputs + Σ d·(final state), as `reference_bptt.gradients` gives them.

    Without `e` the layer must return its last output alone, whose gradient is in `d`.
    """
    x = tf.convert_to_tensor(x)
    state = None if state is None else [tf.convert_to_tensor(s) for s in state]
    weights = [v.value for v in layer.trainable_variables]
    sources = [x, *(state or []), *weights]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        outputs, *final = layer(x, initial_state=state, **arguments)
        final = keras.tree.flatten(final)
        loss = tf.reduce_sum(outputs * e) if e is not None else 0.0
        for s, g in zip(final, d if d is not None else [], strict=False):
            loss += tf.reduce_sum(s * g)
    parts = [g.numpy() for g in tape.gradient(loss, sources, unconnected_gradients="zero")]
    n = 1 + len(state or [])
    norms = getattr(layer, "gradient_norms", None)
    return parts[0], parts[1:n], parts[n:], norms, outputs.numpy(), [s.numpy() for s in final]


def reference(layer, x, state, e, d, length=None, stride=None, align="end", **arguments):
    """`reference_bptt.gradients` for a layer of kbptt or Keras."""
    name = next(c.__name__ for c in type(layer).__mro__ if c.__name__ in reference_bptt.CELLS)
    cell = functools.partial(
        reference_bptt.CELLS[name],
        activation=layer.activation,
        **({} if name == "SimpleRNN" else {"recurrent_activation": layer.recurrent_activation}),
    )
    weights = [np.float64(w) for w in layer.get_weights()]
    problem = reference_bptt.Problem(cell, x, state, weights, e, d, **arguments)
    return reference_bptt.gradients(
        problem, reference_bptt.windows(x.shape[1], length, stride, align)
    )


def assert_same(found, expected, rtol=1e-10):
    """All that `differentiate` found is what `reference` expects."""
    dx, d_state, d_weights, norms, outputs, final = found

    def close(a, b, rtol=rtol, what=""):
        scale = max(1.0, float(np.max(np.abs(b), initial=0.0)))
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * scale, err_msg=what)

    close(outputs, expected.outputs, what="outputs")
    for a, b in zip(final, expected.final, strict=True):
        close(a, b, what="final state")
    close(dx, expected.x, what="inputs")
    for a, b in zip(d_state, expected.state, strict=True):
        close(a, b, what="initial state")
    for a, b in zip(d_weights, expected.weights, strict=True):
        close(a, b, what="weights")
    close(norms, expected.norms, rtol=max(rtol, 1e-6), what="norms")
    # A norm is zero exactly where no gradient arrives.
    np.testing.assert_array_equal(norms == 0, expected.norms == 0)


def everything(layer, x, state, d, **arguments):
    """Outputs, gradients, norms and penalty of one forward and backward pass."""
    weights = [v.value for v in layer.trainable_variables]
    sources = [tf.constant(x), *map(tf.constant, state), *weights]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        outputs = layer(sources[0], initial_state=sources[1 : 1 + len(state)], **arguments)
        outputs, *final = keras.tree.flatten(outputs)
        # Not linear: a wrong output makes a wrong gradient.
        loss = tf.reduce_sum(outputs**3)
        loss += sum(tf.reduce_sum(s * s * g) for s, g in zip(final, d, strict=True))
    gradients = tape.gradient(loss, sources)
    penalty = layer.gradient_penalty
    return [
        *(v.numpy() for v in (outputs, *final, *gradients)),
        layer.gradient_norms,
        np.asarray(0.0 if penalty is None else penalty),
    ]


__all__ = [
    "CELLS",
    "STATES",
    "assert_same",
    "data",
    "differentiate",
    "everything",
    "make",
    "randomize",
    "reference",
    "running_eagerly",
]
