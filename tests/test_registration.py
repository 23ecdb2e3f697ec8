"""`import kbptt` is light, complete, and enough for Keras to know every class."""

import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

import kbptt

ROOT = pathlib.Path(__file__).parents[1]


def run(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_import_is_light():
    out = run(
        "import sys, kbptt\n"
        "heavy = {'keras', 'tensorflow', 'matplotlib', 'distributed', 'sklearn', 'scipy'}\n"
        "print(sorted(heavy & set(sys.modules)), kbptt.__version__)"
    )
    assert out.startswith("[] 0.")


def test_names_are_listed_and_a_wrong_one_gets_the_nearest():
    assert {"__version__", "LSTM", "callbacks"} <= set(dir(kbptt))
    with pytest.raises(AttributeError, match=r"'LTSM' \(did you mean 'LSTM'\?\)"):
        kbptt.LTSM  # noqa: B018
    with pytest.raises(AttributeError, match=r"'kbptt.callbacks'.*did you mean 'GradientFlow'"):
        kbptt.callbacks.GradientFlw  # noqa: B018
    assert not hasattr(kbptt, "__wrapped__")


@pytest.mark.parametrize("order", ["import kbptt, keras", "import keras, kbptt"])
def test_keras_knows_every_class_in_either_order(order):
    """`from_config` of a model needs no `custom_objects` and no attribute of kbptt touched."""
    out = run(
        f"{order}\n"
        "for name in ['LSTM', 'GRU', 'SimpleRNN', 'RNN', 'Windowed', 'AnticipatedReweighted']:\n"
        "    assert keras.saving.get_registered_object('kbptt>' + name) is not None, name\n"
        "print('all')"
    )
    assert out.strip() == "all"


def test_importing_keras_after_kbptt_leaves_no_trace_in_the_import_system():
    out = run(
        "import sys\n"
        "finders = list(sys.meta_path)\n"
        "import kbptt\n"
        "import keras\n"
        "print([f for f in sys.meta_path if f not in finders and 'kbptt' in type(f).__module__])"
    )
    assert out.strip() == "[]"


def test_every_public_name_exists():
    run("import kbptt\nfor name in kbptt.__all__:\n    getattr(kbptt, name)")
    run("import kbptt\nfor name in dir(kbptt.callbacks):\n    getattr(kbptt.callbacks, name)")


def python_files():
    for folder in ("kbptt", "callbacks", "scripts", "tests"):
        yield from sorted((ROOT / folder).rglob("*.py"))


def test_callbacks_are_never_imported_as_a_package_of_their_own():
    """A bare `import callbacks` would register a second copy of every class."""
    bare = re.compile(r"^\s*(import callbacks|from callbacks)\b", re.MULTILINE)
    guilty = [str(path) for path in python_files() if bare.search(path.read_text())]
    assert guilty == []
    assert "callbacks" not in sys.modules


def test_no_private_modules_of_keras():
    private = re.compile(r"keras\.src")
    files = [path for path in python_files() if "tests" not in path.parts]
    found = {path.name for path in files if private.search(path.read_text())}
    assert found == {"_keras.py"}  # where each has its reason


def test_every_package_is_packaged():
    import configparser

    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = set(setup["options"]["packages"].split())
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "kbptt").rglob("__init__.py")
    }
    assert listed == found | {"kbptt.callbacks"}
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]
