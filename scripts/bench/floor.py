"""The matrix products of a windowed step alone, as TensorFlow computes them."""

from collections.abc import Callable

from .sizes import GATES, Size


def make(options: dict[str, str], cell: str, size: Size) -> Callable[[], object]:
    """A function that computes them, timestep by timestep where they follow from one another."""
    import tensorflow as tf

    gates, window = GATES[cell], size.window
    width, everything = gates * size.units, size.batch * size.timesteps
    state = tf.random.normal([size.batch, size.units])
    rows = tf.random.normal([everything // window, width])
    kernel = tf.random.normal([size.units, width])
    history, dz = tf.random.normal([everything, size.units]), tf.random.normal([everything, width])
    x = tf.random.normal([everything, size.features])
    input_kernel = tf.random.normal([size.features, width])

    @tf.function(jit_compile=True)
    def loops(state, rows):
        forward = tf.while_loop(
            lambda t, _: t < size.timesteps,
            lambda t, z: (t + 1, tf.matmul(z[:, : size.units], kernel)),
            (0, tf.matmul(state, kernel)),
        )[1]
        backward = tf.while_loop(
            lambda t, _: t < window,
            lambda t, d: (t + 1, tf.tile(tf.matmul(d, kernel, transpose_b=True), [1, gates])),
            (0, rows),
        )[1]
        return forward, backward

    @tf.function
    def products():
        return (
            tf.matmul(x, input_kernel),  # projection
            *loops(state, rows),
            tf.matmul(history, dz, transpose_a=True),  # recurrent kernel
            tf.matmul(x, dz, transpose_a=True),  # input kernel
        )

    products()
    return products
