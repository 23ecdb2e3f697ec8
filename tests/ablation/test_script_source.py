"""What is refused before a script runs, and what is left to it."""

import pathlib

import pytest

from kbptt.ablation import script, worker
from kbptt.ablation.errors import TrialError
from kbptt.ablation.script_grid import ScriptGrid
from kbptt.ablation.supervision import Limits

PARSER = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("-r", "--learning-rate", type=float)
parser.add_argument("--bias", action=argparse.BooleanOptionalAction)
parser.add_argument("--seed", type=int)
"""


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def planned(source, function="", **arguments):
    pathlib.Path("t.py").write_text(source)
    return ScriptGrid.of(f"t.py:{function}" if function else "t.py", **arguments)


def test_an_option_that_a_script_does_not_have_is_refused_with_the_nearest():
    words = (
        r"script 't.py' has no option 'lerning_rate' \(did you mean 'learning-rate'\?\). "
        "Available: --"
    )
    with pytest.raises(ValueError, match=words):
        planned(PARSER, lerning_rate=1)
    with pytest.raises(ValueError, match="no option 'method'"):
        planned(PARSER, methods="a,b")
    with pytest.raises(ValueError, match="no option 'seed'"):
        planned(PARSER.replace("--seed", "--number"))
    for name in ("learning_rate", "learning-rate", "learn", "no_bias", "no-bias"):
        planned(PARSER, set={name: [1, 2]})


@pytest.mark.parametrize(
    "more",
    [
        "add_more(parser)",
        "parser.parse_known_args()",
        "parser.add_argument(name)",
        "parser.add_argument(*names)",
        "argparse.ArgumentParser(parents=[others])",
    ],
)
def test_a_script_that_may_have_other_options_is_left_alone(more):
    planned(PARSER + more, lerning_rate=1)
    planned("import sys\nprint(sys.argv)", anything=1)


def test_a_function_and_its_options():
    source = (
        "import json as j\nif True:\n    def main(rate, seed, *, units=1): pass\nother = main\n"
    )
    words = r"has no function 'mian' \(did you mean 'main'\?\). Available: main\."
    with pytest.raises(ValueError, match=words):
        planned(source, "mian")
    for name in ("main", "other", "j"):
        planned(source, name)
    planned("from elsewhere import *", "main", anything=1)
    with pytest.raises(ValueError, match=r"'main' of 't.py' has no option 'unit' \(did you mean"):
        planned(source, "main", unit=3)
    planned(source, "main", units=3, methods="a,b")  # it gets the words that it names
    planned("def main(**options): pass", "main", units=3)
    planned("@decorated\ndef main(): pass", "main", units=3)


def test_a_file_may_parse_arguments_when_it_is_imported():
    source = PARSER + "given = parser.parse_args()\ndef main(rate): return {'loss': rate}\n"
    config = planned(source, "main", rate=3).trials()[0].config
    assert worker.execute(config, Limits())["score"] == 3


def test_a_script_without_a_number():
    with pytest.raises(TrialError, match=r"^The script reported no number\.$"):
        script.result_of({"name": "x"}, None, None)
    with pytest.raises(TrialError, match="did not report the metric 'loss', but acc"):
        script.result_of({"acc": 1}, "loss", None)
