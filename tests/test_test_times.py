"""scripts/test_times.py: where the time of the tests goes."""

import runpy
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "scripts" / "test_times.py"
NAMES = runpy.run_path(str(SCRIPT))


def test_the_seconds_of_a_file_are_those_of_its_tests(tmp_path):
    report = tmp_path / "tests.xml"
    report.write_text(
        '<testsuites><testsuite><testcase classname="tests.a" name="x" time="1.25"/>'
        '<testcase classname="tests.b" name="x" time="4"/>'
        '<testcase classname="tests.a" name="y" time="0.5"/></testsuite></testsuites>'
    )
    assert NAMES["seconds_by_file"](report) == {"tests.b": 4.0, "tests.a": 1.8}


def test_a_file_whose_share_has_doubled_is_named():
    table = NAMES["table"]
    before = {"a": 50.0, "b": 20.0, "c": 30.0}
    assert "doubled" not in table({k: 3 * v for k, v in before.items()}, before)  # a slower machine
    lines = table({"b": 70.0, "a": 50.0, "c": 30.0}, before).splitlines()
    assert [line for line in lines if "doubled" in line] == ["      70 s  b (20 s)  share doubled"]


def test_new_files_are_named_only_beside_a_record():
    table = NAMES["table"]
    assert "new" in table({"a": 50.0, "b": 12.0}, {"a": 50.0})
    assert "new" not in table({"a": 50.0, "b": 12.0}, {})
