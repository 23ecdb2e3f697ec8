"""Arguments of layers and optimizers are checked, by type and range, before anything is trained."""

import inspect

import keras
import pytest
from typer.testing import CliRunner

import kbptt
from kbptt.ablation import Grid, options, trial
from kbptt.cli.main import app

SMALL = {"length": 5, "sizes": [8, 8, 8], "units": 2}
WRONG = [
    ("dropout", "yes", "Expected a finite number of at least 0, at most 1"),
    ("dropout", [0.1], "a finite number"),
    ("dropout", None, "a finite number"),
    ("dropout", False, "a finite number"),
    ("layer.dropout", -1, "of at least 0"),
    ("layer.recurrent_dropout", 2, "at most 1"),
    ("layer.use_bias", "maybe", "Expected true or false"),
    ("layer.use_bias", 1, "Expected true or false"),
    ("layer.go_backwards", "no", "Expected true or false"),
    ("layer.seed", 3, "Reserved argument of LSTM: 'seed'"),
    ("layer.name", "x", "Reserved argument of LSTM: 'name'"),
    ("layer.kernel_initializer", 3, "initializer"),
    ("optimizer.beta_1", "abc", "`beta_1`. Expected a finite number of at least 0"),
    ("optimizer.beta_1", -0.1, "of at least 0"),
    ("optimizer.epsilon", None, "a finite number"),
    ("optimizer.amsgrad", "abc", "Expected true or false"),
    ("optimizer.clipnorm", "abc", "`clipnorm`. Expected a finite number"),
    ("optimizer.clipnorm", -1, "of at least 0"),
    ("optimizer.weight_decay", "abc", "`weight_decay`. Expected a finite number"),
    ("optimizer.loss_scale_factor", "abc", "`loss_scale_factor`. Expected a finite number"),
    # What no default tells, a first step does.
    ("optimizer.gradient_accumulation_steps", 2.5, "a step of adam with .*steps=2.5"),
]


def config(**given):
    return Grid.make("adding", "baseline", **{**SMALL, **given}).trials()[0].config


@pytest.mark.parametrize(("name", "value", "message"), WRONG)
def test_values_of_another_type_or_out_of_range_are_refused(name, value, message):
    with pytest.raises(ValueError, match=message):
        trial.build(config(set={name: [value]}))


def test_what_a_method_makes_of_plain_values_is_left_alone():
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    checked = options.check_arguments(keras.optimizers.SGD, {"learning_rate": schedule}, ())
    assert checked["learning_rate"] is schedule


def test_numbers_have_the_type_of_the_default():
    """Keras's SGD takes a momentum of 1.0 and not of 1."""
    given = {"optimizer": "sgd", "set": {"optimizer.momentum": [1], "optimizer.clipnorm": [2]}}
    _, model, _ = trial.build(config(**given))
    assert model.optimizer.momentum == 1.0 and model.optimizer.clipnorm == 2
    assert model.optimizer.name == "SGD" or model.optimizer.name.startswith("sgd")
    assert not model.optimizer.iterations.numpy()  # the step that tried it was another's
    none = config(set={"optimizer.clipnorm": [None], "gradient_clip": [0.5]})
    assert trial.build(none)[1].optimizer.clipnorm is None


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "SimpleRNN"])
def test_every_number_of_a_layer_is_a_fraction(cell):
    """So Keras has it: were there another, `check_arguments` would need its range."""
    made = getattr(kbptt, cell)
    for parent in made.__mro__[:-1]:
        for name, parameter in inspect.signature(parent.__init__).parameters.items():
            if type(parameter.default) in (int, float):
                assert "dropout" in name or name in options.FRACTIONS


@pytest.mark.parametrize("optimizer", ["Adam", "Ftrl", "Adafactor", "Muon", "ScheduleFreeAdamW"])
def test_every_default_is_allowed(optimizer):
    made = getattr(keras.optimizers, optimizer)
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(made.__init__).parameters.items()
        if name not in ("self", "name", "kwargs")
    }
    base = keras.optimizers.Optimizer
    assert options.check_arguments(made, defaults, ["name"], base) == defaults
    if optimizer == "Muon":
        with pytest.raises(ValueError, match=r"`muon_b`. Expected a finite number. Received"):
            options.check_arguments(made, {"muon_b": "x"}, ["name"], base)
        assert options.check_arguments(made, {"muon_b": -5}, ["name"], base) == {"muon_b": -5.0}


def test_equal_numbers_are_one_arm():
    for name, values in {"dropout": [0, 0.0], "optimizer.clipnorm": [1.0, 1]}.items():
        with pytest.raises(ValueError, match=r"listed twice among the values of axis"):
            Grid.make("adding", "clip", **SMALL, set={name: values})
    assert len(Grid.make("adding", "clip", **SMALL, set={"dropout": [0, 0.5, 1]}).trials()) == 3


@pytest.mark.parametrize("option", ["dropout=yes", "layer.seed=3", "optimizer.clipnorm=abc"])
def test_train_ends_with_a_sentence_and_2(option, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("kbptt.ablation.training.Training.fit", lambda *_: 1 / 0)
    result = CliRunner().invoke(app, ["train", "adding", "-o", "sizes=[8,8,8]", "-o", option])
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit), result.output
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1


def test_any_error_of_a_layer_is_a_refusal(monkeypatch):
    """`train` and the workers of `compare` build alike; Keras raises errors of any type."""

    def fails(*args, **kwargs):
        raise TypeError("no such thing")

    monkeypatch.setattr("kbptt.tasks.model.recurrent_layer", fails)
    with pytest.raises(ValueError, match=r"Cannot make a model with .*TypeError: no such"):
        trial.build(config(units=3))
