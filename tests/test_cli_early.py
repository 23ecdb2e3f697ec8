"""Mistakes that are found before Keras is imported, and what is read of its source for that."""

import inspect
import json
import subprocess
import sys

import keras
import pytest
from command_line import kbptt, refused

import kbptt as kbptt_package
from kbptt.ablation import early, options, signatures
from kbptt.ablation.grid import Grid

pytestmark = pytest.mark.usefixtures("working_directory")
OPTIMIZERS = {
    name: found
    for name, found in vars(keras.optimizers).items()
    if inspect.isclass(found) and name.lower() in early.optimizers()
}


def of_the_class(made):
    """Arguments and defaults as Python has them."""
    found = {}
    for parent in reversed(made.__mro__[:-1]):
        for name, one in inspect.signature(parent.__init__).parameters.items():
            if name != "self" and one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY):
                found[name] = ... if one.default is one.empty else one.default
    return found


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "SimpleRNN"])
def test_the_source_of_a_layer_has_the_arguments_of_its_class(cell):
    found = signatures.arguments("kbptt.layers", cell)
    assert found == of_the_class(getattr(kbptt_package, cell)) and "zoneout" in found


def test_the_source_of_every_optimizer_has_the_arguments_of_its_class():
    assert {"Adam", "SGD", "Muon"} < OPTIMIZERS.keys()
    for name, made in OPTIMIZERS.items():
        assert signatures.arguments("keras.optimizers", name) == of_the_class(made), name


def test_every_name_that_keras_understands_is_known():
    """Also its aliases, which stand in no public list."""
    from keras.src import activations, constraints, initializers, regularizers

    for argument, module in {
        "recurrent_initializer": initializers,
        "kernel_regularizer": regularizers,
        "bias_constraint": constraints,
        "activation": activations,
    }.items():
        abstract = {"initializer", "regularizer", "constraint"}
        assert module.ALL_OBJECTS_DICT.keys() - abstract <= {*early.names_of(argument)}, argument
    assert "henaff" in early.names_of("recurrent_initializer")
    assert early.names_of("units") == []
    own = {"normalization": "layer_carried", "recurrent_parametrization": "householder"}
    assert all(name in early.names_of(argument) for argument, name in own.items())


MISTAKES = {
    "'orthogonl' (did you mean 'orthogonal'?)": ["--recurrent-initializer", "orthogonl"],
    "'tahn' (did you mean 'tanh'?)": ["-o", "activation=tahn"],
    "'leyer' (did you mean 'layer'?)": ["--normalization", "leyer"],
    "'cayly' (did you mean 'cayley'?)": ["-o", "recurrent_parametrization=cayly"],
    "'orthogonalty' (did you mean 'orthogonality'?)": ["-o", "kernel_regularizer=orthogonalty"],
    "for `gradient_regularizer`: 'omega'": ["-o", "gradient_regularizer=omega"],
    "'adamm' (did you mean 'adam'?)": ["--optimizer", "adamm"],
    "Unknown argument of Adam: 'bta_1' (did you mean 'beta_1'?)": ["-o", "optimizer.bta_1=1"],
    "Unknown argument of LSTM: 'x'": ["-o", "layer.x=1"],
    "Reserved argument of LSTM: 'return_sequences'": ["-o", "layer.return_sequences=true"],
    "`use_bias`. Expected true or false": ["-o", "use_bias=3"],
    "`dropout`. Expected a finite number of at least 0, at most 1": ["-o", "dropout=2"],
    "'lenght' (did you mean 'length'?)": ["--truncation", "{name: windowed, lenght: 8}"],
    "A windowed truncation needs `length`": ["--truncation", "{name: windowed, stride: 8}"],
    "`--lags`. Expected 2 or more": ["--lags", "1"],
}


def test_mistakes_in_names_and_types_do_not_load_tensorflow():
    code = (
        "import json, sys\n"
        "from typer.testing import CliRunner\n"
        "from kbptt.cli.main import app\n"
        "for command in json.loads(sys.argv[1]):\n"
        "    result = CliRunner().invoke(app, command)\n"
        "    print(json.dumps([result.exit_code, result.output]))\n"
        "print(sorted({'keras', 'tensorflow'} & sys.modules.keys()))\n"
    )
    grid = ["compare", "--tasks", "adding", "--methods", "clip"]
    commands = [["train", "adding", *given] for given in MISTAKES.values()]
    commands += [[*grid, *given] for given in MISTAKES.values() if given[0] != "--lags"]
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(commands)], capture_output=True, text=True
    )
    *results, loaded = done.stdout.splitlines()
    assert loaded == "[]", done.stderr
    expected = [*MISTAKES, *(words for words in MISTAKES if "--lags" not in words)]
    for words, line in zip(expected, results, strict=True):
        code, output = json.loads(line)
        assert code == 2 and words in output and output.count("\n") == 1, output


def config(**settings):
    return Grid.make("adding", "baseline", **settings).trials()[0].config


def test_what_a_module_registered_with_keras_is_left_to_keras():
    @keras.saving.register_keras_serializable("mine")
    class Half(keras.initializers.Initializer):
        pass

    early.check(config(set={"kernel_initializer": "mine>Half", "optimizer.name": "mine>Half"}))
    with pytest.raises(ValueError, match="'mine>Whole'"):
        early.check(config(set={"kernel_initializer": "mine>Whole"}))


def test_options_of_a_users_own_trial_are_its_own_business():
    early.check(config(optimizer="evolution", trial="dummy_trials:score"))


def test_what_cannot_be_read_is_left_to_the_classes(monkeypatch):
    def unreadable(module):
        raise signatures.Unreadable(module)

    for function in (signatures.arguments, signatures.public_names, signatures.keys):
        function.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(signatures, "_tree", unreadable)
        early.check(config(optimizer="adamm", set={"dropout": 7}))
    with pytest.raises(ValueError, match="adam"):
        early.check(config(optimizer="adamm"))
    with pytest.raises(signatures.Unreadable):
        signatures.arguments("keras.optimizers", "Nothing")
    with pytest.raises(signatures.Unreadable):
        signatures.public_names("kbptt.nothing")


def test_the_class_still_refuses_what_its_source_would():
    """The second check, in the worker, has the same words."""
    with pytest.raises(ValueError, match="Unknown argument of LSTM: 'x'"):
        options.check_arguments(kbptt_package.LSTM, {"x": 1}, [])


def test_a_directory_that_holds_a_run_is_refused_at_once(working_directory, monkeypatch):
    def load(*_, **__):
        raise AssertionError("TensorFlow is not needed to refuse this")

    (working_directory / "run").mkdir()
    (working_directory / "run" / "run.json").write_text("{}")
    monkeypatch.setattr("kbptt.cli.train.quiet_start", load)
    assert "already contains a run. Add --resume" in refused("train", "adding", "--logdir", "run")
    changed = kbptt("train", "adding", "--logdir", "run", "--resume")
    assert changed.exit_code == 2 and "has a different configuration: " in changed.stderr
