"""The operation that calls NumPy: which of its results are read, as far as it can be known."""

import gc
import weakref

import numpy as np
import pytest
import tensorflow as tf

from kbptt.engine.numpy_op import numpy_op

ONE = tf.constant(1.0)


@pytest.fixture
def asked():
    return []


def three(asked, x):
    """x, 2 x, 3 x."""

    def function(read, x):
        asked.append(read)
        return [n * x for n in (1, 2, 3)]

    return numpy_op(function, [x], [tf.float32] * 3, [True, False, True], "three")


def run(asked, body):
    return tf.function(lambda x: body(*three(asked, x)))(ONE)


def test_eagerly_it_is_told(asked):
    assert [float(v) for v in three(asked, ONE)] == [1, 2, 3]
    assert asked == [(True, False, True)]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (lambda a, b, c: b, (False, True, False)),
        (lambda a, b, c: tf.exp(a) + c, (True, False, True)),
        (lambda a, b, c: tf.constant(0.0), None),  # TensorFlow leaves it out
        # Each result of an IdentityN is that of one input.
        (lambda a, b, c: tf.identity_n([a, b])[1], (False, True, False)),
        # A condition reads what its branches read of it, and what decides.
        (lambda a, b, c: tf.cond(a > 0, lambda: b, lambda: 0.0), (True, True, False)),
    ],
)
def test_in_a_graph_it_follows_what_leads_to_a_result(asked, body, expected):
    run(asked, body)
    assert asked == ([] if expected is None else [expected])


def test_what_an_operation_with_an_effect_reads_is_read(asked):
    variable = tf.Variable(0.0)

    def body(a, b, c):
        variable.assign(c)
        return a

    run(asked, body)
    assert asked == [(True, False, True)]
    assert float(variable) == 3


def test_a_function_under_a_tape_reads_more(asked):
    @tf.custom_gradient
    def square(x):
        value, derivative, _ = three(asked, x)
        return value, lambda upstream: upstream * derivative

    function = tf.function(square)
    function(ONE)
    with tf.GradientTape() as tape:
        tape.watch(ONE)
        value = function(ONE)
    assert float(tape.gradient(value, ONE)) == 2
    assert asked == [(True, False, False), (True, True, False)]


def test_a_graph_that_is_no_function_reads_everything(asked):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        result = three(asked, tf.constant(1.0))[1]
        assert session.run(result) == 2
    assert asked == [(True, True, True)]


def test_it_keeps_no_graph_alive(asked):
    function = tf.function(lambda x: three(asked, x))
    graph = weakref.ref(function.get_concrete_function(ONE).graph)
    function(ONE)
    del function
    gc.collect()
    assert graph() is None


def test_inputs_of_an_eager_call_are_not_copied():
    seen = []

    def function(read, x):
        seen.append(x.ctypes.data)
        return [x]

    x = tf.zeros([1000])
    (result,) = numpy_op(function, [x], [tf.float32], [True], "given")
    np.testing.assert_array_equal(result, x)
    assert seen == [np.asarray(memoryview(x)).ctypes.data]
