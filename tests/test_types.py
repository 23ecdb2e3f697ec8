"""Public signatures: those of Keras's layers, complete, with types that exist."""

import inspect
import typing

import keras
import pytest

import kbptt

LAYERS = ["GRU", "LSTM", "RNN", "SimpleRNN"]
ANY_CELL = {"truncation": None, "gradient_clip": None, "trainable_initial_state": False}
SIMPLE = {
    "truncation": None,
    "normalization": None,
    "gradient_regularizer": None,
    "gradient_clip": None,
    "recurrent_parametrization": None,
    "trainable_initial_state": False,
    "zoneout": 0.0,
}
GATED = SIMPLE | {"h_detach": 0.0}
OWN = {"RNN": ANY_CELL, "SimpleRNN": SIMPLE, "GRU": GATED, "LSTM": GATED}

every_layer = pytest.mark.parametrize("name", LAYERS)


def parameters(cls):
    _, *rest = inspect.signature(cls.__init__).parameters.values()
    return [(p.name, p.default, p.kind) for p in rest]


@every_layer
def test_arguments_are_those_of_the_installed_keras_and_kbptts_own(name):
    """Names, order, defaults and kinds; a newer Keras with one more argument is noticed."""
    *expected, kwargs = parameters(getattr(keras.layers, name))
    expected += [(*own, inspect.Parameter.KEYWORD_ONLY) for own in OWN[name].items()]
    assert parameters(getattr(kbptt, name)) == [*expected, kwargs]


@every_layer
def test_every_argument_is_typed_and_described(name):
    cls = getattr(kbptt, name)
    hints = typing.get_type_hints(cls.__init__)
    for argument, _, _ in parameters(cls):
        assert argument in hints
        assert f"        {'**' * (argument == 'kwargs')}{argument}: " in cls.__doc__


VALUES = {
    "activation": "relu",
    "recurrent_activation": "hard_sigmoid",
    "kernel_initializer": "zeros",
    "recurrent_initializer": "ones",
    "bias_initializer": "ones",
    "kernel_regularizer": "l1",
    "recurrent_regularizer": "l2",
    "bias_regularizer": "l1",
    "activity_regularizer": "l2",
    "kernel_constraint": "non_neg",
    "recurrent_constraint": "unit_norm",
    "bias_constraint": "non_neg",
    "dropout": 0.25,
    "recurrent_dropout": 0.5,
    "seed": 7,
}


@every_layer
def test_every_argument_reaches_the_layer(name):
    """Each gets a value that is not its default, and `get_config` gives it back."""
    cls = getattr(kbptt, name)
    first = [keras.layers.GRUCell(2)] if name == "RNN" else [3]
    keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD
    arguments = {
        name: VALUES.get(name, not default)
        for name, default, kind in parameters(cls)[1:]
        if kind is keyword
    }
    arguments |= {"name": "mine", "dtype": "float64", "trainable": False}
    if name != "RNN":
        arguments["zero_output_for_mask"] = True
    config = cls(*first, **arguments).get_config()
    expected = getattr(keras.layers, name)(*first, **arguments).get_config()
    lost_by_keras = {"activity_regularizer"} if name == "SimpleRNN" else set()
    for argument in expected.keys() - lost_by_keras:
        if argument == "cell":
            continue
        assert config[argument] == expected[argument], argument
    if "activity_regularizer" in arguments:
        assert config["activity_regularizer"]["class_name"] == "L2"
