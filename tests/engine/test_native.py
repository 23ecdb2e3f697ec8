"""The loops compiled from C: the numbers of the TensorFlow engine, whatever the machine gives."""

import contextlib
import gc
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings, strategies as st
from recurrent import CELLS, STATES, data, differentiate, everything, make

import kbptt
from kbptt import cells
from kbptt.engine import cpu, native, using
from kbptt.truncation import Windowed

pytestmark = pytest.mark.skipif(native.library() is None, reason="the C loops were not built")


# `exponential` explodes over some steps.
ACTIVATIONS = sorted(cells.ACTIVATION.keys() - {"exponential"})


@st.composite
def problems(draw):
    flag = st.booleans()
    length = draw(st.none() | st.integers(1, 16))
    normalization = st.sampled_from([None, "layer", "carried"])
    return {
        "cell": draw(st.sampled_from(CELLS)),
        # More rows than walk together, and fewer than a vector has lanes.
        "batch": draw(st.integers(1, 7) | st.integers(40, 60)),
        "timesteps": draw(st.integers(1, 14)),
        "features": draw(st.sampled_from([1, 3, 20])),
        "units": draw(st.sampled_from([2, 5, 16, 21])),
        "length": length,
        "stride": None if length is None else draw(st.integers(1, length)),
        "align": draw(st.sampled_from(["end", "start"])),
        "sequences": draw(flag),
        "masked": draw(flag),
        "reset": draw(flag),
        "clip": draw(st.sampled_from([None, None, 0.05])),
        "normalization": draw(normalization),
        "omega": draw(st.sampled_from([None, "ratio", "squared"])),
        "activation": draw(st.just("tanh") | st.sampled_from(ACTIVATIONS)),
        "gates": draw(st.just("sigmoid") | st.sampled_from(ACTIVATIONS)),
        "use_bias": draw(flag),
        "kept_gates": draw(st.sampled_from([0, 2**30])),
        "level": draw(st.sampled_from([0, 1, 2])),
        "seed": draw(st.integers(0, 99)),
    }


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(problems())
def test_the_same_as_the_tensorflow_engine(problem):
    """Through layers. For float32 and thousands of combinations see test_native_fuzz.py."""
    c = problem
    normalization = c["normalization"]
    # Two normalised values are always 1 and -1, and their gradient is nothing but rounding.
    units = c["units"] if normalization is None else max(c["units"], 5)
    if normalization == "carried":
        normalization = kbptt.normalization.LayerNormalization(carry_normalized=True)
    arguments = {} if c["cell"] == "SimpleRNN" else {"recurrent_activation": c["gates"]}
    omega = c["omega"] and kbptt.regularizers.VanishingGradient(0.5, squared=c["omega"] != "ratio")
    truncation = c["length"] and Windowed(c["length"], c["stride"], c["align"])
    layer = getattr(kbptt, c["cell"])(
        units,
        activation=c["activation"],
        truncation=truncation,
        return_sequences=c["sequences"],
        return_state=True,
        use_bias=c["use_bias"],
        gradient_clip=c["clip"],
        normalization=normalization,
        gradient_regularizer=omega,
        dtype="float64",
        **arguments,
    )
    layer.build((None, None, c["features"]))
    rng = np.random.default_rng(c["seed"])
    # Small enough for a linear cell not to explode, which would say more of floats than of loops.
    layer.set_weights([0.4 / units**0.5 * rng.normal(size=w.shape) for w in layer.weights])
    for variable in layer.trainable_variables:
        if "gain" in variable.name:
            variable.assign(1 + variable)
    x = rng.normal(size=(c["batch"], c["timesteps"], c["features"]))
    states = STATES[c["cell"]]
    state, d = ([rng.normal(size=(c["batch"], units)) for _ in range(states)] for _ in range(2))
    masks = {
        "mask": rng.random(x.shape[:2]) > 0.3 if c["masked"] else None,
        "resets": rng.random(x.shape[:2]) > 0.8 if c["reset"] else None,
    }

    def run():
        return everything(layer, x, state, d, **masks)

    chosen = native.library().instruction_sets[: c["level"] + 1][-1]
    with using(kept_gates=c["kept_gates"], instruction_set=chosen):
        found = run()
    assert layer.loops == {"cpu"}
    with native.disabled():
        tf.config.run_functions_eagerly(True)
        try:
            expected = run()
        finally:
            tf.config.run_functions_eagerly(False)
    for index, (a, b) in enumerate(zip(found, expected, strict=True)):
        # Norms and penalty are float32 in any case.
        single = index >= len(found) - 2
        # Where a gradient all but cancels, its rounding errors are those of its terms.
        scale = np.max(np.abs(b), initial=5e-2 if single else 1e-6)
        np.testing.assert_allclose(a, b, rtol=0, atol=scale * (1e-4 if single else 1e-9))


@pytest.mark.parametrize("cell", CELLS)
def test_the_number_of_threads_changes_nothing_but_the_order_of_sums(cell):
    x, state, _, d = data(cell, timesteps=12, batch=23, features=3, units=8)
    layer = make(cell, units=8, truncation=5)
    with using(threads=1):
        expected = everything(layer, x, state, d)
    for count in (2, 3, 7):
        with using(threads=count):
            found = everything(layer, x, state, d)
        np.testing.assert_array_equal(found[0], expected[0])
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("truncation", [7, Windowed(9, 4)])
@pytest.mark.parametrize(("threads", "members"), [(1, 1), (2, 1), (2, 2), (6, 3)])
@pytest.mark.parametrize("kept_gates", [0, 2**30])
def test_the_same_bits_every_time(cell, truncation, threads, members, kept_gates):
    x, state, _, d = data(cell, timesteps=30, batch=23, features=3, units=48)
    layer = make(cell, units=48, truncation=truncation, dtype="float32")
    x, state, d = np.float32(x), [np.float32(s) for s in state], [np.float32(v) for v in d]

    def run():
        with using(threads=threads, members=members, kept_gates=kept_gates):
            return everything(layer, x, state, d)

    expected = run()
    for _ in range(3):
        for a, b in zip(run(), expected, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_stays_in_its_sample(value):
    x, state, _, d = data("GRU", timesteps=6, batch=9)
    x[4, 3] = value
    layer = make("GRU", truncation=2)
    outputs, _, dx, *_ = everything(layer, x, state, d)
    assert not np.isfinite(outputs[4, 3:]).any() or value == np.inf
    assert np.isfinite(np.delete(outputs, 4, axis=0)).all()
    assert np.isfinite(np.delete(dx, 4, axis=0)).all()
    assert not np.isfinite(dx[4]).all()


@pytest.mark.parametrize("graph", [False, True])  # only in a graph no result is copied
@pytest.mark.parametrize("threads", [1, 2])
def test_memory_is_used_again_only_when_it_is_free(threads, graph):
    """Tensors of earlier calls keep their values, and steps do not ask for ever more memory."""
    rng = np.random.default_rng(0)
    inputs = [tf.constant(rng.normal(size=(32, 100, 8)).astype("float32")) for _ in range(4)]
    layer = kbptt.LSTM(64, return_sequences=True)
    layer.build(inputs[0].shape)

    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x)
            loss = tf.reduce_sum(outputs)
        sources = [x, *(v.value for v in layer.trainable_variables)]
        return [outputs, *tape.gradient(loss, sources)]

    with kbptt.engine.using(threads=threads):
        run = tf.function(step) if graph else step
        held = [tensor for x in inputs for tensor in run(x)]
        copies = [v.numpy().copy() for v in held]
        for x in inputs * 3:
            run(2 * x)
    for tensor, copy in zip(held, copies, strict=True):
        np.testing.assert_array_equal(tensor, copy)
    del held, tensor
    gc.collect()
    cpu._memory.trim()
    assert len(cpu._memory.free) <= cpu._memory.count


def test_two_backward_passes_of_one_tape():
    x, state, e, _ = data("LSTM")
    layer = make("LSTM", truncation=4)
    weights = [v.value for v in layer.trainable_variables]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(weights)
        outputs, *_ = layer(x, initial_state=list(state))
        loss = tf.reduce_sum(outputs * e)
    first, second = tape.gradient(loss, weights), tape.gradient(loss, weights)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("how", ["xla", "environment", "scope", "not built", "accelerator"])
def test_tensorflow_does_it_where_the_loops_cannot(how, monkeypatch):
    x, state, e, d = data("GRU")
    layer = make("GRU", truncation=4)
    expected = differentiate(layer, x, state, e, d)
    layer = make("GRU", truncation=4)
    with contextlib.ExitStack() as stack:
        call = differentiate
        if how == "xla":

            @tf.function(jit_compile=True)
            def compiled():
                # The layer's gradient is traced here as well.
                with tf.GradientTape() as tape:
                    outputs, *_ = layer(x, initial_state=list(state))
                    loss = tf.reduce_sum(outputs * e)
                return tape.gradient(loss, layer.trainable_variables)

            compiled()
        elif how == "environment":
            monkeypatch.setenv("KBPTT_NATIVE", "0")
        elif how == "scope":
            stack.enter_context(native.disabled())
        elif how == "not built":
            monkeypatch.setattr(native, "library", lambda: None)
        else:
            monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: ["a GPU"])
        if how != "xla":
            found = call(layer, x, state, e, d)
            np.testing.assert_allclose(found[4], expected[4], rtol=1e-12)
    assert layer.loops == {"tensorflow"}


def test_without_the_extension_everything_runs():
    """It is optional: where there was no compiler, importing and training work without it."""
    program = (
        "import sys; sys.modules['kbptt.engine.native._loops'] = None\n"
        "import numpy as np, kbptt\n"
        "from kbptt.engine import native\n"
        "assert native.library() is None\n"
        "kbptt.LSTM(4, truncation=2)(np.zeros((2, 5, 3), 'float32'))\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "KBPTT_NATIVE_LIBRARY"}
    command = [sys.executable, "-c", program]
    subprocess.run(command, check=True, capture_output=True, env=environment)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("mask", (1, 6)),
        ("resets", (4, 5)),
        ("resets", (3, 6)),
        ("state", (1, 5)),
        ("state", (4, 3)),
    ],
)
def test_sizes_that_come_to_light_only_in_the_graph(name, shape):
    """The loops would read what is not there."""
    layer = kbptt.LSTM(5)
    layer.build((None, None, 3))
    kind = tf.float32 if name == "state" else tf.bool

    @tf.function(
        input_signature=[tf.TensorSpec([None, None, 3]), tf.TensorSpec([None, None], kind)]
    )
    def call(x, given):
        arguments = {"initial_state": [given] * 2} if name == "state" else {name: given}
        return layer(x, **arguments)

    wrong = tf.zeros(shape, kind) if name != "mask" else tf.ones(shape, kind)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"expected `\w+` of shape \(4, "):
        call(tf.zeros([4, 6, 3]), wrong)
    assert layer.loops == {"cpu"}


def test_eight_calls_from_the_layer_to_the_compiled_loop():
    """As ARCHITECTURE.md lists them."""
    layer = kbptt.LSTM(4)
    x = np.zeros((2, 5, 3), "float32")
    layer(x)
    stacks = []

    def look(frame, event, called):
        if event == "c_call" and called.__name__ == "forward" and "_loops" in str(called.__self__):
            stacks.append([])
            while frame is not None:
                if "/kbptt/" in frame.f_code.co_filename:
                    stacks[-1].append(frame.f_code.co_name)
                frame = frame.f_back

    sys.setprofile(look)
    try:
        layer(x)
    finally:
        sys.setprofile(None)
    assert stacks
    assert all(stack[-1] == "call" and len(stack) <= 8 for stack in stacks)
