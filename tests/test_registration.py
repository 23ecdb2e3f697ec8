"""`import kbptt` is light, complete, and enough for Keras to know every class."""

import json
import pathlib
import re
import subprocess
import sys

import keras
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
    model = keras.Sequential(
        [
            keras.Input((4, 2)),
            kbptt.LSTM(3, truncation=kbptt.truncation.Windowed(3, 1), normalization="layer"),
            keras.layers.Dense(1, kernel_regularizer=kbptt.regularizers.Orthogonality()),
        ]
    )
    out = run(
        f"{order}\n"
        "import sys, json\n"
        "model = keras.saving.deserialize_keras_object(json.loads(sys.argv[1]))\n"
        "keras.layers.GRU(2, recurrent_initializer='henaff').build((1, 2, 3))\n"
        "layer = model.layers[0]\n"
        "assert type(layer) is kbptt.LSTM and type(layer.truncation) is kbptt.truncation.Windowed\n"
        "assert keras.saving.get_registered_object('kbptt>LSTM') is kbptt.LSTM\n"
        "print(type(layer.normalization).__name__)",
        json.dumps(keras.saving.serialize_keras_object(model)),
    )
    assert out.strip() == "LayerNormalization"


def test_keras_knows_every_class_that_registers_itself():
    out = run(
        "import importlib, json, keras, kbptt, pkgutil\n"
        "def known():\n"
        "    objects = keras.saving.get_custom_objects()\n"
        "    return {name: objects[name] for name in objects if name.startswith('kbptt>')}\n"
        "before = known()\n"
        "assert all(isinstance(cls, type) for cls in before.values())\n"
        "for module in pkgutil.walk_packages(kbptt.__path__, 'kbptt.'):\n"
        "    if '__main__' not in module.name and '_native' not in module.name:\n"
        "        importlib.import_module(module.name)\n"
        "print(json.dumps([sorted(before), sorted(known()),\n"
        "    [name for name, cls in known().items() if cls is before[name]]]))"
    )
    before, after, still_stand_ins = json.loads(out)
    assert before == after and still_stand_ins == []


def test_a_module_of_kbptt_may_be_what_imports_keras():
    """`truncation` is half imported then, and the layers need all of it."""
    run("import kbptt.truncation\nimport kbptt\nkbptt.LSTM(2, truncation=kbptt.truncation.Full())")


def test_every_public_name_exists():
    run("import kbptt\nfor name in kbptt.__all__:\n    getattr(kbptt, name)")
    run("import kbptt\nfor name in dir(kbptt.callbacks):\n    getattr(kbptt.callbacks, name)")


def python_files():
    for folder in ("kbptt", "callbacks", "scripts", "tests"):
        yield from sorted((ROOT / folder).rglob("*.py"))


def test_the_folder_of_the_callbacks_cannot_be_imported_as_a_package_of_its_own():
    """A bare `import callbacks` would register a second copy of every class."""
    for name in ("callbacks", "callbacks.z_clip"):
        out = run(
            f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n"
            f"try:\n    import {name}\nexcept ImportError as error:\n    print(error)"
        )
        assert "Import kbptt.callbacks" in out


def test_no_private_modules_of_keras():
    private = re.compile(r"keras\.src")
    files = [path for path in python_files() if "tests" not in path.parts]
    found = {path.name for path in files if private.search(path.read_text())}
    assert found == {"_keras.py"}  # where each has its reason
