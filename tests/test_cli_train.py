"""`kbptt train`: refusals, one real run, checkpoints and continuation."""

import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import command_line
import keras
import numpy as np
import pytest
from command_line import kbptt

import kbptt as kbptt_package
from kbptt import tasks
from kbptt.cli.training import EpochSeeds

# Keeps a refused command from leaving `runs/` in the working directory.
pytestmark = pytest.mark.usefixtures("working_directory")
DIGITS = ["train", "digits", "--units", "4", "-o", "sizes=[64,32,32]", "--batch-size", "16"]


def refused(*arguments):
    return command_line.refused("train", *arguments)


@pytest.mark.parametrize("truncation", ["0", "-1", "2.5", "True", "x", "", "nan", "1e3"])
def test_bad_truncation_is_refused(truncation):
    message = refused("digits", f"--truncation={truncation}")
    assert "`--truncation`" in message and f"Received: {truncation!r}" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digitz"], "Unknown task: 'digitz' (did you mean 'digits'?). The tasks are: adding"),
        (["digits", "--cell", "LSTN"], "'LSTM', 'GRU', 'SimpleRNN'"),
        (["digits", "--option", "colour=red"], "no option 'colour'"),
        (["digits", "--length", "3"], "no option 'length'"),
        (["digits", "--option", "blank"], "Expected name=value"),
        (["digits", "--option", "blank=[1"], "neither a word, a number nor a list"),
        (["digits", "--option", "permuted=3"], "`permuted`"),
        (["digits", "book.txt"], "does not read a file"),
        (["digits", "--units", "0"], "`--units`"),
        (["digits", "--layers", "0"], "`--layers`"),
        (["digits", "--epochs", "0"], "`--epochs`"),
        (["digits", "--batch-size", "0"], "`--batch-size`"),
        (["digits", "--learning-rate", "-1"], "`--learning-rate`"),
        (["digits", "--clip", "0"], "`--clip`"),
        (["digits", "--seed", "-1"], "`seed`"),
        (["digits", "--resume"], "`--resume` needs `--logdir`"),
        (["text"], "kbptt train text FILE"),
        (["csv"], "kbptt train csv FILE"),
        (["mine", "--import", "no_such_module"], "Cannot import the module 'no_such_module'"),
        (["mine", "--import", "../mine"], "Cannot import the module '../mine'"),
        (["digits", "--units", "x"], "'--units'"),
        (["digits", "--colour", "red"], "--colour"),
        (["digits", "book.txt", "other.txt"], "other.txt"),
        ([], "TASK"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    assert message in refused(*arguments)


def test_an_unknown_initializer_is_refused():
    assert "initializer" in refused("digits", "--recurrent-initializer", "orthogonl")
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "Cannot read book.txt: No such file or directory."),
        (b"", "book.txt is empty."),
        (b"\xff\xfe\x00", "book.txt is not UTF-8 text: byte 0 is 0xff."),
        (b"too short", "book.txt is too short"),
    ],
)
def test_unusable_texts_are_refused(working_directory, content, message):
    if content is not None:
        (working_directory / "book.txt").write_bytes(content)
    assert message in refused("text", "book.txt")


def test_an_unwritable_log_directory_is_refused(working_directory):
    (working_directory / "file").write_text("")
    assert "Cannot write to the directory file" in refused("digits", "--logdir", "file")
    assert "Not a directory" in refused("digits", "--logdir", "file/run")
    assert "Cannot write" in refused("digits", "--logdir", "/proc/run")


def test_an_unknown_command_is_refused():
    result = kbptt("trian", "digits")
    assert result.exit_code == 2 and result.stderr.startswith("Error: ")
    assert "trian" in result.stderr and result.stderr.count("\n") == 1


def test_a_module_with_a_mistake_is_named_with_its_line(working_directory, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (working_directory / "mistaken.py").write_text("import math\n1 / 0\n")
    message = refused("digits", "--import", "mistaken")
    assert re.search(r"'mistaken': ZeroDivisionError: .*mistaken\.py, line 2", message)


def test_help_reads_well_and_imports_no_tensorflow():
    code = (
        "import sys\n"
        "from kbptt.cli import main\n"
        "try: main()\n"
        "finally: print('tensorflow' in sys.modules, 'keras' in sys.modules, file=sys.stderr)\n"
    )
    for arguments, expected in ([], "train"), (["train"], "--truncation"):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments, "--help"],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "COLUMNS": "120", "TERM": "dumb"},
        )
        assert expected in done.stdout and "digits" in done.stdout + "digits" * (not arguments)
        assert done.stderr == "False False\n"


def test_version():
    assert re.fullmatch(r"kbptt \d+\.\d+\.\d+\n", kbptt("--version").stdout)


def run(*arguments, **options):
    command = [sys.executable, "-m", "kbptt", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def test_a_real_run_over_a_text(working_directory):
    (working_directory / "book.txt").write_text("the cat sat on the mat. " * 60)
    done = run(
        *("train", "text", "book.txt", "--cell", "GRU", "--units", "8", "--truncation", "8"),
        *("--length", "16", "--epochs", "2", "--clip", "1", "--sample", "25", "--logdir", "run"),
        cwd=working_directory,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for expected in (
        "epoch 2/2",
        "test bits per character",
        "without memory",
        "gradient decay (gru_1)",
        "steps clipped",
        "tensorboard --logdir run",
        "Sample text:",
    ):
        assert expected in done.stdout
    sample = done.stdout.split("Sample text:\n")[1]
    assert len(sample.rstrip("\n")) >= 20 and set(sample) <= set("the cat sat on the mat. \n")
    assert list((working_directory / "run").glob("**/events.out.tfevents.*"))
    # The model loads in a process that knows kbptt by its import alone.
    code = (
        "import kbptt, keras\n"
        "model = keras.models.load_model('run/model.keras')\n"
        "layer = model.get_layer('gru_1')\n"
        "assert type(layer) is kbptt.GRU and layer.truncation.length == 8\n"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=working_directory, capture_output=True, text=True
    )
    assert loaded.returncode == 0, loaded.stderr


def weights(directory):
    return keras.models.load_model(directory / "model.keras").get_weights()


def test_a_continued_run_ends_where_an_uninterrupted_one_does(working_directory):
    whole, parts = working_directory / "whole", working_directory / "parts"
    assert kbptt(*DIGITS, "--epochs", 3, "--logdir", whole).exit_code == 0
    assert kbptt(*DIGITS, "--epochs", 1, "--logdir", parts).exit_code == 0
    result = kbptt(*DIGITS, "--epochs", 3, "--logdir", parts, "--resume")
    assert result.exit_code == 0 and "Continuing after epoch 1." in result.stdout
    assert "epoch 3/3" in result.stdout and "epoch 1/3" not in result.stdout
    for first, second in zip(weights(whole), weights(parts), strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-7)
    assert len(list(parts.glob("checkpoint-*.keras"))) == 1
    # Once more: nothing is left to train, the result stands.
    again = kbptt(*DIGITS, "--epochs", 3, "--logdir", parts, "--resume")
    shown = " ".join(again.stdout.split())
    assert again.exit_code == 0 and again.stderr == "" and "test accuracy" in shown
    assert (
        "already has 3 epochs, so there is nothing to train. To continue, pass --epochs 4 or more."
        in shown
    )
    assert "gradient decay" not in shown  # it would be nobody knows which step's

    assert "already contains a run" in refused(*DIGITS[1:], "--logdir", parts)
    wider = ["5" if before == "--units" else now for before, now in itertools.pairwise(DIGITS)]
    changed = refused(*wider, "--clip", 2, "--logdir", parts, "--resume")
    assert "clip was None and is now 2.0; units was 4 and is now 5" in changed
    assert not list(parts.glob("*.partial*")) and not list(parts.glob(".*.partial*"))


@mock.patch.dict(tasks.registry.factories)
def test_a_task_of_the_users_own_module(working_directory, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (working_directory / "mytasks.py").write_text(
        "import kbptt\n"
        "@kbptt.tasks.register('first')\n"
        "class First(kbptt.tasks.Task):\n"
        "    baseline, outputs = 0.5, kbptt.tasks.Outputs(2)\n"
        "    def __init__(self, length=6):\n"
        "        super().__init__(length, (16, 16, 16))\n"
        "    def sample(self, generator, count):\n"
        "        x = generator.integers(0, 2, size=(count, self.length, 1))\n"
        "        return x.astype('float32'), x[:, 0, 0]\n"
    )
    arguments = ("--cell", "SimpleRNN", "--units", 3, "--length", "4", "--epochs", "1")
    result = kbptt("train", "first", "--import", "mytasks", *arguments)
    assert result.exit_code == 0
    assert "test accuracy" in result.stdout and (working_directory / "runs/first-1").is_dir()


@mock.patch.dict(tasks.registry.factories)
def test_a_continued_run_draws_the_same_dropout_masks(working_directory):
    class Last(tasks.Task):
        metric, mode, features = "mse", "min", 3
        baseline, outputs = 1.0, tasks.Outputs(3)

        def __init__(self):
            super().__init__(4, (32, 16, 16))

        def sample(self, generator, count):
            x = generator.normal(size=(count, 4, 3)).astype("float32")
            return x, x[:, -1]

        def recurrent_layer(self, truncation=None, **arguments):
            return kbptt_package.GRU(3, dropout=0.5, name="rnn", seed=0)

    tasks.register("last")(Last)
    train = ("train", "last", "--epochs")
    assert kbptt(*train, 2, "--logdir", "whole").exit_code == 0
    assert kbptt(*train, 1, "--logdir", "parts").exit_code == 0
    assert kbptt(*train, 2, "--logdir", "parts", "--resume").exit_code == 0
    for first, second in zip(
        weights(working_directory / "whole"), weights(working_directory / "parts"), strict=True
    ):
        np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-7)


def test_resume_without_a_run_starts_one(working_directory):
    result = kbptt(*DIGITS, "--epochs", 1, "--logdir", "new", "--resume")
    assert result.exit_code == 0
    assert json.loads((working_directory / "new" / "run.json").read_text())["units"] == 4
    assert "There is no run to resume in new: starting a new one." in result.stdout


def test_the_checkpoint_rule_decides_which_weights_are_tested_and_saved(working_directory):
    """With a rate that ruins what the first epoch learned, the best epoch is not the last."""
    common = (*DIGITS, "--cell", "SimpleRNN", "--optimizer", "sgd", "--epochs", 4)
    found = {}
    for rule in ("best", "last"):
        assert kbptt(*common, "--learning-rate", 3, "--checkpoint", rule, "--logdir", rule)
        (newest,) = Path(rule).glob("checkpoint-*.keras")
        last = keras.models.load_model(newest).get_weights()
        found[rule] = all(map(np.array_equal, weights(Path(rule)), last))
    assert found == {"best": False, "last": True}
    assert json.loads(Path("best/run.json").read_text())["checkpoint"] == "best"


def test_threads_are_those_that_were_asked_for(working_directory):
    code = (
        "import sys\n"
        "from kbptt.cli import main\n"
        "try: main()\n"
        "finally:\n"
        "    import tensorflow as tf\n"
        "    print(tf.config.threading.get_intra_op_parallelism_threads())\n"
    )
    arguments = (*DIGITS, "--epochs", "1", "--threads", "1")
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "1"


def test_a_training_that_diverges_says_so(working_directory):
    result = kbptt(*DIGITS, "--learning-rate", 1e38, "--epochs", 5, "--logdir", "run")
    assert result.exit_code == 1 and "training diverged" in result.stderr
    assert "epoch 1/5" in result.stdout and "epoch 2/5" not in result.stdout
    assert not list(working_directory.glob("run/checkpoint-*"))


def test_ctrl_c_ends_with_130_and_can_be_continued(working_directory):
    command = [sys.executable, "-m", "kbptt", *DIGITS, "--logdir", "run", "--epochs"]
    with subprocess.Popen(
        [*command, "100000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=working_directory,
    ) as process:
        while not list(working_directory.glob("run/checkpoint-*")):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate()
    assert process.returncode == 130
    assert stderr == "Interrupted.\n"
    go_on = re.search(
        r"Continue with: kbptt (train .* --logdir run --epochs 100000 --resume)\n", stdout
    )
    assert go_on and " is saved; epoch " in stdout
    result = kbptt(*shlex.split(go_on[1].replace("100000", "1")))
    assert result.exit_code == 0 and "nothing to train. To continue, pass --epochs" in result.stdout


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    from kbptt.cli.training import write_atomically

    path = tmp_path / "model.keras"
    path.write_text("old")

    def fails(temporary):
        temporary.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_atomically(path, fails)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_costs_the_checkpoint_and_not_the_training(tmp_path):
    from kbptt.cli.training import Checkpoints

    def no_space(path):
        raise OSError(28, "No space left on device")

    checkpoints = Checkpoints(tmp_path)
    checkpoints.set_model(type("Model", (), {"save": staticmethod(no_space)})())
    with pytest.warns(UserWarning, match="No checkpoint after epoch 3.*No space"):
        checkpoints.on_epoch_end(2, {"val_loss": 1.0})


def test_dropout_is_set_by_seed_and_epoch():
    """And by nothing else, such as how many models the process has made before."""
    from kbptt.cli.training import EpochSeeds

    def outputs(seed, *epochs):
        model = tasks.build_model(tasks.get("adding", length=10), units=4, layers=2, dropout=0.5)
        callback = EpochSeeds(seed)
        callback.set_model(model)
        for epoch in epochs:
            callback.on_epoch_begin(epoch)
        # Of so many sequences some get other masks, whatever the seeds are.
        return np.asarray(model(np.ones((64, 10, 2), "float32"), training=True))

    first = outputs(0, 0)
    np.testing.assert_array_equal(outputs(0, 0), first)
    np.testing.assert_array_equal(outputs(0, 1, 0), first)
    assert (outputs(0, 1) != first).any() and (outputs(1, 0) != first).any()


def test_every_layer_has_masks_of_its_own():
    from kbptt.cli.training import EpochSeeds

    task = tasks.get("adding", length=10)
    model = tasks.build_model(task, units=4, layers=3, dropout=0.5, recurrent_dropout=0.5)
    callback = EpochSeeds(0)
    callback.set_model(model)
    callback.on_epoch_begin(0)
    states = [v.numpy() for v in model.variables if v.name == "seed_generator_state"]
    assert len(states) >= 3 and len({state.tobytes() for state in states}) == len(states)


def test_an_epoch_draws_what_its_number_says():
    """Also in backward passes; what was drawn before, or by another process, is no matter."""
    layers = [
        kbptt_package.LSTM(3, zoneout=0.2, h_detach=0.5, truncation="artbp", name="a") for _ in "ab"
    ]
    states = []
    for layer, epochs in zip(layers, ([0, 1, 2], [2]), strict=True):
        model = keras.Sequential([keras.Input((4, 2)), layer])
        seeds = EpochSeeds(3)
        seeds.set_model(model)
        for epoch in epochs:
            seeds.on_epoch_begin(epoch)
        states.append([v.numpy() for v in layer.random_states()])
        states[-1] += [v.numpy() for v in layer.non_trainable_variables]
    assert len(states[0]) == 3
    np.testing.assert_array_equal(*states)
    assert len({tuple(state) for state in states[0]}) == 3
