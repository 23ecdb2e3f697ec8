"""Every method by name: what it adds, that it can be built, and what cannot be combined."""

import functools
import json
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest

from kbptt import methods
from kbptt.ablation import trial
from kbptt.ablation.grid import Grid

ALL = [(name, (methods.get(name).cells or ["LSTM"])[0]) for name in methods.names()]
MANY = "identity+layernorm+omega+timestep_clip+orthogonality+agc+clip"


def config(name, cell="LSTM", **options):
    options = {"units": 4, "length": 6, "sizes": [8, 4, 4], **options}
    return Grid.make(["adding"], [name], 1, cell=cell, **options).trials()[0].config


@pytest.mark.parametrize(
    "name, cell", [*ALL, ("chrono", "GRU"), (MANY, "GRU"), (MANY, "SimpleRNN")]
)
def test_every_method_builds(name, cell):
    _, model, callbacks = trial.build(config(name, cell))
    assert model.output_shape == (None, 1)
    expected = [c["object"].partition(":")[2] for c in methods.get(name).callbacks]
    assert [type(callback).__name__ for callback in callbacks] == expected


@functools.cache
def trained(name, cell, epochs):
    """Weights after a few steps of SGD on targets so large that every threshold is reached."""
    options = {"optimizer": "sgd", "learning_rate": 1e-5}
    task, model, callbacks = trial.build(config(name, cell, **options))
    model.compile(model.optimizer, task.loss(), run_eagerly=True)
    x, y = task.data(0).train
    scale = np.full(len(x) * epochs, 1e3)
    scale[-4:] = 1e4  # a spike in the last batch
    x, y = np.tile(x, (epochs, 1, 1)), np.tile(y, (epochs, 1)) * scale[:, None]
    model.fit(x, y, batch_size=4, shuffle=False, verbose=0, callbacks=callbacks)
    return [w.numpy() for w in model.trainable_variables]


@pytest.mark.slow
@pytest.mark.parametrize("name, cell", [pair for pair in ALL if pair[0] != "baseline"])
def test_no_method_is_without_effect(name, cell):
    epochs = 13 if name == "zclip" else 1  # the statistics of zclip need 25 steps
    method, baseline = trained(name, cell, epochs), trained("baseline", cell, epochs)
    assert any(not np.array_equal(m, b) for m, b in zip(method, baseline, strict=True))


def weights(name, cell="LSTM"):
    _, model, _ = trial.build(config(name, cell))
    return {w.path.partition("/")[2]: w.numpy() for w in model.trainable_variables}


def test_methods_share_all_weights_but_their_own():
    """Paired seeds: a method changes what it is about and nothing else."""
    baseline = weights("baseline")
    changes = {
        "orthogonal": {"lstm_cell/recurrent_kernel"},
        "chrono": {"lstm_cell/bias"},
        "clip": set(),
        "norm_stabilizer": set(),
        "orthogonal+chrono+clip": {"lstm_cell/recurrent_kernel", "lstm_cell/bias"},
    }
    for name, expected in changes.items():
        found = weights(name)
        assert found.keys() == baseline.keys()
        different = {k for k in found if not np.array_equal(found[k], baseline[k])}
        assert {k.replace("lstm_1/", "") for k in different} == expected, name
    kernel = baseline["lstm_cell/recurrent_kernel"]
    assert not np.allclose(kernel @ kernel.T, np.eye(4), atol=0.1)  # the baseline is not a method
    for block in np.split(weights("orthogonal")["lstm_cell/recurrent_kernel"], 4, axis=1):
        np.testing.assert_allclose(block.T @ block, np.eye(4), atol=1e-5)


def test_states_regularizer_keeps_the_outputs():
    built = [trial.build(config(name)) for name in ("baseline", "ar_tar")]
    x, _ = built[0][0].data(0).train
    plain, penalized = (model(x) for _, model, _ in built)
    np.testing.assert_allclose(penalized, plain, rtol=1e-5, atol=1e-6)
    assert float(sum(built[1][1].losses)) > 0


def test_combination():
    both = methods.get("orthogonal+clip")
    assert both.name == "orthogonal+clip"
    assert both.layer == methods.get("orthogonal").layer
    assert both.callbacks == methods.get("clip").callbacks
    order = [c["object"] for c in methods.get("agc+clip").callbacks]
    assert order == [methods.get(n).callbacks[0]["object"] for n in ("agc", "clip")]
    chrono = methods.get("chrono+layernorm")
    assert chrono.cells == ("LSTM", "GRU")
    assert chrono.definition("GRU")["layer"]["bias_initializer"]["config"]["gates"] == 3


@pytest.mark.parametrize(
    "name, message",
    [
        ("nope", "Unknown method: 'nope'. The methods are: baseline, orthogonal"),
        ("clip+", "Unknown method: ''"),
        ("clip+clip", "named twice"),
        ("orthogonal+identity", "both set the layer argument `recurrent_initializer`"),
        ("irnn+chrono", "no cell in common"),
        (7, "Unknown method: 7"),
        ([], r"Unknown method: \[\]"),
    ],
)
def test_mistakes(name, message):
    with pytest.raises(ValueError, match=message.replace("+", r"\+")):
        methods.get(name)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"optimizer": "adma"}, "Unknown optimizer: 'adma'.*adagrad, adam"),
        (
            {"optimizer": "SGD", "optimizer.momentom": 0.9},
            "argument of SGD: 'momentom' .*momentum'",
        ),
        ({"layer.droput": 0.1}, r"argument of LSTM: 'droput' \(did you mean 'dropout'\?\)"),
        ({"layer.return_sequences": True}, "argument of LSTM: 'return_sequences'"),
        ({"truncation": "foo"}, "`truncation`. Expected a positive integer"),
    ],
)
def test_options_that_cannot_be_built(options, message):
    with pytest.raises(ValueError, match=message):
        trial.build(config("baseline", **options))


def test_optimizers_by_any_spelling_and_registered_ones():
    import keras

    @keras.saving.register_keras_serializable(package="mine")
    class Own(keras.optimizers.SGD):
        pass

    for name, expected in (("SGD", "SGD"), ("sgd", "SGD"), ("mine>Own", "Own")):
        _, model, _ = trial.build(config("baseline", optimizer=name, learning_rate=0.5))
        assert type(model.optimizer).__name__ == expected
        assert float(model.optimizer.learning_rate) == 0.5


@mock.patch.dict(methods.registered)
def test_conflict_in_the_arguments_of_one_cell():
    methods.register(methods.Method("zero_bias", layer={"bias_initializer": "zeros"}))
    for name in ("chrono+zero_bias", "zero_bias+chrono"):
        with pytest.raises(ValueError, match=r"both set the .* `bias_initializer`"):
            methods.get(name)


class Halved:
    """A callback of a user's own."""


@mock.patch.dict(methods.registered)
def test_a_registered_method_combines_with_others():
    mine = methods.register(
        methods.Method("mine", "my own", layer={"dropout": 0.1}, callbacks=(Halved,))
    )
    assert methods.get("mine+clip").callbacks[0]["object"].endswith(":Halved")
    assert json.loads(json.dumps(mine.definition("LSTM"))) == mine.definition("LSTM")
    for bad in ("a+b", "a,b"):
        with pytest.raises(ValueError, match="without"):
            methods.register(methods.Method(bad))
    for bad in ("", 3):
        with pytest.raises(ValueError, match="non-empty string"):
            methods.Method(bad)
    with pytest.raises(ValueError, match=r"`method`. Expected a `kbptt\.methods\.Method`"):
        methods.register("mine")
    for argument, values in {
        "description": (None, 3),
        "layer": (None, "dropout", [1]),
        "optimizer": (2.5,),
        "cell_layer": ("LSTM", {"LSTN": {}}, {"LSTM": 3}),
        "cells": ("LSTM", ("Transformer",), 3),
        "callbacks": (Halved, "kbptt.callbacks:AutoClip", None),
        "model": (3,),
    }.items():
        for bad in values:
            with pytest.raises(ValueError, match=f"`{argument}`. Expected .* Received"):
                methods.Method("wrong", **{argument: bad})
    with pytest.raises(ValueError, match="top level of a module"):
        methods.Method("local", callbacks=(lambda: None,))
    with pytest.raises(ValueError, match=r"Cannot import 'kbptt\.callbacks:Nope'"):
        methods.make(methods.ref("kbptt.callbacks:Nope"))
    for path in ("nothing", ".relative:name"):
        with pytest.raises(ValueError, match="module:name"):
            methods.find(path)


def test_references_see_the_length():
    made = methods.make(
        {"object": "builtins:dict", "config": {"a": "$timesteps"}}, {"$timesteps": 9}
    )
    assert made == {"a": 9}
    assert methods.make("glorot_uniform", {"$timesteps": 9}) == "glorot_uniform"


def test_importing_methods_imports_no_tensorflow():
    code = (
        "import sys; from kbptt import methods; methods.get('orthogonal+clip');"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
