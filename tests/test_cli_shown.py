"""What `kbptt train` and `kbptt compare` show: from the first line to the way to go on."""

import pathlib
import re
import shlex

import pytest
from command_line import kbptt
from csv_files import WAVE
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kbptt import tasks
from kbptt.ablation import describing, progress
from kbptt.ablation.grid import Grid
from kbptt.ablation.script_grid import ScriptGrid
from kbptt.cli import terminal, training, watching

pytestmark = pytest.mark.usefixtures("working_directory")
DIGITS = ["train", "digits", "--units", "4", "-o", "sizes=[64,32,32]", "--batch-size", "16"]


def test_a_run_says_what_it_is_measures_lags_and_names_its_best_epoch(working_directory):
    result = kbptt(*DIGITS, "--epochs", 2, "--lags", 12, "--logdir", "run")
    assert result.exit_code == 0, result.output
    shown = result.stdout
    assert re.search(r"^task +digits \(sizes=\[64,32,32\]\)$", shown, re.MULTILINE)
    assert re.search(r"^model +LSTM, 1 layer, 4 units, truncation full, ", shown, re.MULTILINE)
    assert re.search(r"^training +adam, .*, 2 epochs, batches of 16$", shown, re.MULTILINE)
    assert re.search(r"^log directory +run$", shown, re.MULTILINE)
    order = ["log directory", "Loading TensorFlow …", "Building the model …"]
    order += ["146 parameters; 4 steps per epoch.", "Compiling the training step …", "epoch 1/2"]
    order += ["Testing …", "test accuracy", "best epoch", "‖∂L_s/∂h_s−lag‖ (lstm_1)"]
    places = [shown.index(text) for text in order]
    assert places == sorted(places)
    assert re.search(r"best epoch +[12] of 2 +\(validation accuracy 0\.\d+", shown)
    # A single loss, of the last timestep: it shows how far back that one reaches.
    table = shown.split("‖∂L_s/∂h_s−lag‖ (lstm_1)")[1].split("The model:")[0]
    lags = dict(re.findall(r"^ +(\d+) +([\d.e-]+) *$", table, re.MULTILINE))
    assert list(lags) == ["0", "1", "2", "5", "10", "11"]
    events = EventAccumulator("run", size_guidance={"tensors": 0}).Reload()
    logged = events.Tensors("gradient_flow/lstm_1/dL_dh_by_lag")
    assert [event.tensor_proto.tensor_shape.dim[0].size for event in logged] == [12, 12]
    again = kbptt(*DIGITS, "--epochs", 2, "--logdir", "run", "--resume")
    assert again.exit_code == 0
    assert (
        "The run already has 2 epochs, so there is nothing to train. To continue, pass --epochs 3"
        in (" ".join(again.stdout.split()))
    )
    assert "test accuracy" in again.stdout and "best epoch" not in again.stdout


@pytest.mark.filterwarnings("default")
def test_a_warning_is_said_once(working_directory):
    """Of a file that is read twice: to check the options, and to train on it."""
    (working_directory / "wave.csv").write_text(WAVE)
    given = ["--units", 2, "--epochs", 1, "-o", "target=wave", "--logdir", "run"]
    result = kbptt("train", "csv", "wave.csv", *given)
    assert result.exit_code == 0, result.output
    assert result.stderr.count("columns left out: 'date'") == 1


def test_no_lags_are_measured_if_none_are_wanted(working_directory):
    (working_directory / "book.txt").write_text("the cat sat on the mat. " * 60)
    text = ["train", "text", "book.txt", "--units", 4, "--length", 16, "--epochs", 1]
    result = kbptt(*text, "--lags", 0, "--sample", 0, "--logdir", "run")
    assert result.exit_code == 0, result.output
    assert "90 % of it within" not in result.stdout and "gradient decay" not in result.stdout
    events = EventAccumulator("run", size_guidance={"tensors": 0}).Reload()
    assert not [tag for tag in events.Tags()["tensors"] if tag.endswith("by_lag")]
    assert "too few to learn from" in " ".join(result.stdout.split())


def test_ctrl_c_names_the_whole_command_and_the_best_epoch(monkeypatch):
    before = training.Progressed.on_train_batch_end

    def stop(self, batch, logs=None):
        before(self, batch, logs)
        if self.epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.Progressed, "on_train_batch_end", stop)
        result = kbptt(*DIGITS, "--epochs", 3, "--method", "orthogonal+clip")
    assert result.exit_code == 130 and result.stderr == "Interrupted.\n"
    assert "Interrupted in epoch 2 of 3; epoch 1 is saved; epoch 1 was the best (" in result.stdout
    again = re.search(r"Continue with: kbptt (.*)\n", result.stdout)[1]
    given = [*DIGITS, "--epochs", "3", "--method", "orthogonal+clip"]
    assert shlex.split(again) == [*given, "--resume", "--logdir", "runs/digits-1"]
    result = kbptt(*shlex.split(again))
    assert result.exit_code == 0 and "Continuing after epoch 1." in result.stdout
    assert re.search(r"best epoch +[23] of 2 to 3 ", result.stdout)


def test_time_left_counts_all_epochs_and_their_validation(monkeypatch):
    """Steps of two seconds, four in each of three epochs; validation takes five."""

    class Trained:
        task = tasks.get("adding", length=4, sizes=(8, 8, 8))

        class feed:
            steps_per_epoch, timesteps = 4, 32

    now = [0.0]
    monkeypatch.setattr(watching.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(terminal, "say", lambda line: None)
    console = watching.rich.console.Console(quiet=True)
    with watching.Progressed(console, Trained, epochs=3) as shown:
        left = []
        for epoch in range(3):
            shown.on_epoch_begin(epoch)
            for batch in range(4):
                shown.on_train_batch_begin(batch)
                now[0] += 2 if epoch or batch else 60  # the first one compiles
                shown.on_train_batch_end(batch, {"loss": 1.0})
                left.append(shown.seconds_left())
            now[0] += 5
            shown.on_epoch_end(epoch, {"loss": 1.0})
            left.append(shown.seconds_left())
    # Until the first validation none is known.
    assert left[:5] == [None, 20, 18, 16, 26]
    assert left[5:10] == [24, 22, 20, 18, 13] and left[10:] == [11, 9, 7, 5, 0]


def test_durations_on_a_clock():
    shown = [progress.clock(seconds) for seconds in (0.2, 59.6, 3599, 7325)]
    assert shown == ["0:00", "1:00", "59:59", "2:02:05"]


def test_a_study_is_described_by_what_varies_and_what_does_not():
    grid = Grid.make(
        ["adding", "digits"],
        ["baseline", "clip"],
        seeds=7,
        set={"truncation": [16, "full"], "adding.length": [20, 30], "dropout": 0.1},
        layers=2,
        clip=3,
        **{"optimizer.beta_1": 0.8, "digits.permuted": True},
    )
    rows = dict(describing.study(grid))
    assert rows == {
        "tasks": "adding; digits (permuted=true)",
        "methods": "baseline, clip",
        "truncation": "16 | full",
        "adding.length": "20 | 30",
        "seeds": "0 to 6",
        "model": "LSTM, 2 layers, 64 units, dropout 0.1",
        "training": "adam, learning rate 0.001, beta 1 0.8, 10 epochs, batches of 32, "
        "clipped at norm 3.0",
    }
    own = Grid.make("adding", "baseline", seeds=[3, 5], trial="dummy_trials:score")
    assert dict(describing.study(own)) == {
        "tasks": "adding",
        "methods": "baseline",
        "seeds": "3, 5",
        "trial": "dummy_trials:score",
    }
    assert "TensorFlow" in describing.starting(grid)
    assert describing.starting(own) == "Starting workers, which run the trial function"


def test_what_is_tuned_is_described_by_its_space_and_not_by_its_default():
    space = {"learning_rate": "1e-4..1e-2", "truncation": [8, 16]}
    space["optimizer.beta_1"] = [0.8, 0.9]
    grid = Grid.make("adding", "baseline", seeds=3, tune=space, tuning_trials=3)
    rows = dict(describing.study(grid))
    assert rows["tuning"] == (
        "learning_rate 0.0001 to 0.01, logarithmic; optimizer.beta_1 one of 0.8, 0.9; "
        "truncation one of 8, 16; 3 points × 2 seeds for each method and task"
    )
    assert rows["model"] == "LSTM, 1 layer, 64 units"
    assert rows["training"] == "adam, 10 epochs, batches of 32"


def test_a_study_of_a_script_is_described_by_the_script(working_directory):
    pathlib.Path("t.py").write_text("def main(a, seed): pass")
    grid = ScriptGrid.of("t.py", seeds=2, set={"a": [1, 2]}, b=3)
    assert list(describing.study(grid)) == [
        ("script", "t.py"),
        ("a", "1 | 2"),
        ("seeds", "0, 1"),
        ("options", "b=3"),
    ]
    assert describing.starting(grid) == "Starting workers, which run the script"
    grid = ScriptGrid.of("t.py:main", methods="x,y", tasks="z")
    rows = dict(describing.study(grid))
    assert rows == {"script": "t.py:main", "tasks": "z", "methods": "x, y", "seeds": "0"}


@pytest.mark.parametrize(("name", "count"), [("text", 20_000), ("csv", 500)])
def test_a_file_with_little_to_learn_from_is_said_to_be_one(name, count, working_directory):
    def described(size):
        if name == "text":
            (working_directory / "file").write_text("abc d" * (size // 5) + "e")
            return tasks.get("text", path="file", length=10, held_out=0.1).describe() or ""
        rows = "".join(f"{i % 7},{i % 5}\n" for i in range(size))
        (working_directory / "file").write_text("a,b\n" + rows)
        return tasks.get("csv", path="file", length=10).describe()

    assert "too few to learn from" in described(count)  # a part of it is held out
    assert "too few" not in described(2 * count)
