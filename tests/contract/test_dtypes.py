"""Whatever Keras runs, kbptt runs: every dtype policy × cell × option × wrapper × loop.

`make test` runs a pairwise cover, in which any two values of two axes meet; `-m slow` the whole
product. In half precision Keras rounds after every operation. So both are compared with the same
weights, inputs and dropout masks in float64, from which kbptt may be no further away than Keras.
"""

import contextlib
import functools
import itertools
import random
from collections import defaultdict
from typing import NamedTuple

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops
from recurrent import running_eagerly

import kbptt
from kbptt import _keras

B, T, FEATURES, UNITS = 2, 3, 3, 3

RATES = {"dropout": 0.4, "recurrent_dropout": 0.3}
# By option: arguments of the cell, arguments of the layer, and whether the call has a mask.
OPTIONS = {
    "plain": ({}, {}, False),
    "dropout": ({"dropout": 0.4}, {}, False),
    "recurrent dropout": ({"recurrent_dropout": 0.3}, {}, False),
    "implementation": ({"dropout": 0.4, "implementation": 1}, {}, False),
    "gelu": ({"activation": "gelu"}, {"unroll": True}, False),
    "hard sigmoid": (
        {"recurrent_activation": "hard_sigmoid", "use_bias": False},
        {"return_sequences": False},
        False,
    ),
    "reset before": ({"reset_after": False}, {}, False),
    "mask": ({}, {}, True),
    "zeros for mask": (RATES, {"zero_output_for_mask": True, "go_backwards": True}, True),
    "backwards": ({}, {"go_backwards": True, "return_sequences": False}, False),
    "stateful": ({}, {"stateful": True}, True),
}


@keras.saving.register_keras_serializable(package="tests")
class OwnCell(layers.Layer):
    """A cell of a user, that knows no option of Keras's cells."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.state_size = self.output_size = units

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], self.state_size), name="kernel")
        self.recurrent = self.add_weight(shape=(self.state_size, self.state_size), name="recurrent")
        self.built = True

    def call(self, inputs, states):
        h = ops.sin(inputs @ self.kernel + states[0] @ self.recurrent)
        return h, [h]

    def get_config(self):
        return {**super().get_config(), "units": self.state_size}


CELLS = {
    "SimpleRNN": [layers.SimpleRNNCell],
    "GRU": [layers.GRUCell],
    "LSTM": [layers.LSTMCell],
    "stacked": [layers.LSTMCell, layers.GRUCell],
    "own cell": [OwnCell],
}
KNOWS = {
    layers.SimpleRNNCell: {*RATES, "activation", "use_bias"},
    layers.GRUCell: {
        *RATES, "activation", "recurrent_activation", "use_bias", "implementation", "reset_after",
    },
    layers.LSTMCell: {*RATES, "activation", "recurrent_activation", "use_bias", "implementation"},
    OwnCell: set(),
}  # fmt: skip


SAME = "the layer's"


class Case(NamedTuple):
    kind: str
    policy: str
    of_cell: str  # the policy of the cell
    option: str
    wrapper: str
    loop: str


AXES = Case(
    kind=["SimpleRNN", "GRU", "LSTM", "RNN(GRU)", "RNN(stacked)", "RNN(own cell)"],
    policy=["float16", "bfloat16", "mixed_float16", "mixed_bfloat16", "float32", "float64"],
    of_cell=[SAME, "float16", "mixed_bfloat16", "float32", "float64"],
    option=list(OPTIONS),
    wrapper=["alone", "Bidirectional", "TimeDistributed"],
    loop=["C", "TensorFlow", "autodiff"],
)


def cells_of(case):
    return CELLS[case.kind.removeprefix("RNN(").removesuffix(")")]


def policies_of(case):
    return case.policy, case.policy if case.of_cell == SAME else case.of_cell


def compute_dtypes(case):
    return [keras.dtype_policies.get(policy).compute_dtype for policy in policies_of(case)]


def exists(case):
    """Whether the values of a case can be put together, and Keras runs them."""
    of_cell, of_layer, mask = OPTIONS[case.option]
    if not any(of_cell.keys() <= KNOWS[cell] for cell in cells_of(case)):
        return False
    if not case.kind.startswith("RNN(") and case.of_cell != SAME:
        return False  # such a layer makes its own cell
    if case.wrapper == "Bidirectional" and "go_backwards" in of_layer:
        return False  # both directions would be the same
    # The mask of TimeDistributed is one of the outer timesteps, and it keeps no states.
    if case.wrapper == "TimeDistributed" and (mask or "stateful" in of_layer):
        return False
    return not refused_by_keras(case)


def refused_by_keras(case):
    """Keras draws masks of the inputs in the dtype of the layer, and multiplies in the cell's."""
    layer, cell = compute_dtypes(case)
    return layer != cell and "dropout" in OPTIONS[case.option][0] and case.kind != "RNN(own cell)"


def build(case, library, policies):
    """The layer in its wrapper."""
    policy, of_cell = policies
    cell_arguments, layer_arguments, _ = OPTIONS[case.option]
    arguments = {"return_sequences": True, "return_state": True, "dtype": policy}
    arguments |= layer_arguments
    # Keras's TimeDistributed knows one output; its Bidirectional fails with states of both kinds.
    if case.wrapper != "alone" and (case.wrapper == "TimeDistributed" or "stateful" in arguments):
        arguments["return_state"] = False
    # Keras cannot make the default, an orthogonal matrix, in bfloat16.
    made = {"recurrent_initializer": "glorot_uniform"}
    if case.kind.startswith("RNN("):
        cells = []
        for cell in cells_of(case):
            given = dict(made) if KNOWS[cell] else {}
            given |= {k: v for k, v in cell_arguments.items() if k in KNOWS[cell]}
            cells.append(cell(UNITS, dtype=of_cell, **given))
        if len(cells) > 1:
            cells = [layers.StackedRNNCells(cells, dtype=of_cell)]
        layer = library.RNN(cells[0], **arguments)
    else:
        if library is layers and case.option == "implementation":
            arguments["use_cudnn"] = False  # without it Keras fails here
        layer = getattr(library, case.kind)(UNITS, **made, **cell_arguments, **arguments)
    if case.wrapper == "alone":
        return layer
    return getattr(layers, case.wrapper)(layer, dtype=policy)


def data(case, dtype):
    """Inputs and mask, exact in `dtype`."""
    shape = (B, 2, T, FEATURES) if case.wrapper == "TimeDistributed" else (B, T, FEATURES)
    x = tf.cast(np.random.default_rng(0).normal(size=shape), dtype)
    mask = np.array([[1, 0, 1], [0, 1, 0]], bool) if OPTIONS[case.option][2] else None
    return tf.cast(x, "float64" if dtype == "float64" else "float32"), mask


def set_variables(layer, dtype):
    """Weights that are exact in `dtype`, and seeds (some of Keras's configs leave them out)."""
    rng = np.random.default_rng(3)
    for weight in layer.trainable_variables:
        weight.assign(tf.cast(tf.cast(0.5 * rng.normal(size=weight.shape), dtype), weight.dtype))
    for seed, cell in enumerate(drawing_cells(layer)):
        cell.seed_generator.state.assign([seed, 0])


def drawing_cells(layer):
    return [cell for cell in _keras.flatten_layers(layer) if hasattr(cell, "_create_dropout_mask")]


def run(layer, x, mask, calls):
    """Outputs and states of the last call, then the gradients with respect to all it reads."""
    given = {} if mask is None else {"mask": mask}
    for _ in range(calls):
        weights = [w.value for w in layer.trainable_variables]
        with tf.GradientTape() as tape:
            tape.watch(x)
            results = tf.nest.flatten(layer(x, training=True, **given))
            loss = 0.0
            for seed, result in enumerate(results):
                e = np.random.default_rng(seed).normal(size=result.shape)
                loss += tf.reduce_sum(tf.cast(result, "float64") * e)
        gradients = tape.gradient(loss, [x, *weights])
    return [*results, *gradients]


def record(layer):
    """Has the dropout masks of the cells collected from now on; returns where, by cell."""
    masks = defaultdict(list)

    def draw(index, original, *arguments):
        masks[index].append(original(*arguments))
        return masks[index][-1]

    for index, cell in enumerate(drawing_cells(layer)):
        draw_it = functools.partial(draw, index, cell._create_dropout_mask)
        vars(cell)["_create_dropout_mask"] = draw_it
    return masks


def replay(layer, masks):
    """Has the cells take these masks, one after the other, in place of their own."""

    def draw(own, step_input, rate):
        return tf.nest.map_structure(lambda m: tf.cast(m, step_input.dtype), next(own))

    for index, cell in enumerate(drawing_cells(layer)):
        vars(cell)["_create_dropout_mask"] = functools.partial(draw, iter(masks[index]))


def prepare(case, library, policies, dtype):
    """The layer with its weights, and what calls it."""
    x, mask = data(case, dtype)
    layer = build(case, library, policies)
    layer.build(tuple(x.shape))
    set_variables(layer, dtype)
    calls = 2 if "stateful" in OPTIONS[case.option][1] else 1
    return layer, functools.partial(run, layer, x, mask, calls)


def run_keras(case, dtype):
    """What Keras finds, the dropout masks, and what it finds with these in float64."""
    layer, step = prepare(case, layers, policies_of(case), dtype)
    masks = record(layer)
    found = step()
    layer, step = prepare(case, layers, ["float64"] * 2, dtype)
    replay(layer, masks)
    return found, masks, step()


def run_ours(case, dtype, masks):
    layer, step = prepare(case, kbptt, policies_of(case), dtype)
    if case.loop == "XLA":

        def compiled():
            # XLA draws other random numbers, with the layers of Keras too.
            replay(layer, masks)
            return step()

        return tf.function(compiled, jit_compile=True)()
    with running_eagerly("native" if case.loop == "C" else "tensorflow"):
        with kbptt.engine.differentiable() if case.loop == "autodiff" else contextlib.nullcontext():
            return step()


def check(case):
    """kbptt's results have Keras's dtypes, and are no further away from those in float64."""
    dtype = max(compute_dtypes(case), key=lambda d: ml_dtypes.finfo(d).eps)
    eps = float(ml_dtypes.finfo(dtype).eps)
    with running_eagerly():
        expected, masks, exact = run_keras(case, dtype)
    for values in zip(run_ours(case, dtype, masks), expected, exact, strict=True):
        ours, theirs, _ = values
        if theirs is None:
            assert ours is None
            continue
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        ours, theirs, reference = (np.asarray(tf.cast(v, "float64")) for v in values)
        scale = max(1.0, np.abs(reference).max())
        error, allowed = (np.abs(v - reference).max() for v in (ours, theirs))
        assert allowed <= 64 * eps * scale, "not a fault of kbptt: Keras is too far away"
        # The reference is rounded as well, which counts where it has the dtype of the case.
        slack = (8 * eps + 32 * np.finfo("float64").eps) * scale
        assert error <= allowed + slack, (error / scale, allowed / scale)


def cover(cases, seed=0):
    """Cases in which any two values of two axes meet that meet in one of `cases`."""
    cases = random.Random(seed).sample(cases, len(cases))

    def pairs(case):
        return set(itertools.combinations(enumerate(case), 2))

    missing = set().union(*map(pairs, cases))
    while missing:
        # The best of some: of all would take longer and save little.
        best = max(cases[:500], key=lambda case: len(pairs(case) & missing))
        cases = cases[500:] + cases[:500]
        if pairs(best) & missing:
            missing -= pairs(best)
            yield best


EVERY = [case for case in itertools.starmap(Case, itertools.product(*AXES)) if exists(case)]
XLA = [case._replace(loop="XLA") for case in EVERY]
COMPILED = [
    Case("GRU", "mixed_bfloat16", SAME, "recurrent dropout", "alone", "XLA"),
    Case("LSTM", "float16", SAME, "mask", "alone", "XLA"),
    Case("RNN(stacked)", "mixed_float16", SAME, "dropout", "alone", "XLA"),
    Case("RNN(own cell)", "float32", "float64", "stateful", "alone", "XLA"),
]


def name_of(case):
    return "-".join(case)


@pytest.mark.parametrize("case", list(cover(EVERY)), ids=name_of)
def test_pairs(case):
    check(case)


@pytest.mark.parametrize("case", COMPILED, ids=name_of)
def test_compiled_by_xla(case):
    check(case)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("policy", AXES.policy)
@pytest.mark.parametrize("kind", AXES.kind)
def test_product(kind, policy):
    faults = {}
    for case in EVERY:
        if case[:2] == (kind, policy):
            try:
                check(case)
            except Exception as error:
                faults[name_of(case)] = str(error)
    assert not faults


@pytest.mark.slow
@pytest.mark.parametrize("case", list(cover(XLA)), ids=name_of)
def test_pairs_compiled_by_xla(case):
    check(case)
