"""The API reference: every public name is on a page, and the examples of docstrings run."""

import ast
import importlib
import inspect
import re
import textwrap
import types
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import kbptt
from kbptt.analysis import linear_rnn

ROOT = Path(__file__).parents[1]
PUBLIC = re.compile(r"^```\{public\} (\S+)\n(.*?)```", re.MULTILINE | re.DOTALL)


def sources(name):
    """Module: path, of the files with a name; kbptt/callbacks is a link, which is not followed."""
    for folder, package in (("kbptt", "kbptt"), ("callbacks", "kbptt.callbacks")):
        for path in sorted((ROOT / folder).rglob(name)):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            yield ".".join([package, *parts]).removesuffix(".__init__"), path


def public_modules():
    """Packages that list their names, and the modules among these."""
    for name, _ in sources("__init__.py"):
        module = importlib.import_module(name)
        if hasattr(module, "__all__"):
            yield name
            named = (getattr(module, name) for name in module.__all__)
            yield from (value.__name__ for value in named if isinstance(value, types.ModuleType))


def blocks():
    """Module: the names that its pages show; None where a page shows all."""
    found = {}
    for page in (ROOT / "docs" / "api").glob("*.md"):
        for module, names in PUBLIC.findall(page.read_text(encoding="utf-8")):
            found.setdefault(module, set()).update(names.split() or {None})
    return found


@pytest.mark.parametrize("name", sorted(set(public_modules())))
def test_every_public_name_is_on_a_page(name):
    shown = blocks().get(name, set())
    if None in shown:
        return  # all of them are
    module = importlib.import_module(name)
    names = [n for n in module.__all__ if not isinstance(getattr(module, n), types.ModuleType)]
    assert set(names) == shown


def test_nothing_else_is_on_the_pages():
    assert set(blocks()) == set(public_modules())


def test_every_equation_of_the_guide_stands_beside_its_code():
    text = (ROOT / "docs" / "how_it_works.md").read_text(encoding="utf-8")
    sections = re.split(r"^#{2,3} (?=\d)", text, flags=re.MULTILINE)
    beside = {s.split()[0]: set(re.findall(r":pyobject: (\w+)", s)) for s in sections[1:]}
    equations = {"1.1", "1.2", "1.3"}
    for name, function in inspect.getmembers(linear_rnn, inspect.isfunction):
        number = re.match(r"Equation (\d\.\d)", function.__doc__ or "")
        if number:
            equations.add(number[1])
            assert name in beside[number[1]]
    assert equations == {"1.1", "1.2", "1.3", "2.1", "2.2", "2.3", "2.4", "2.5"} <= set(beside)


# Examples ---------------------------------------------------------------------------------------


def examples():
    """The name of what a docstring belongs to, its module, and the code in it."""
    for module, path in sources("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                continue
            document = ast.get_docstring(node) or ""
            code = re.findall(r"^( *)```python\n(.*?)```", document, re.MULTILINE | re.DOTALL)
            code = [textwrap.dedent(indent + block) for indent, block in code]
            session = [
                line[4:] for line in document.splitlines() if line.startswith((">>> ", "... "))
            ]
            if code or session:
                name = f"{module}:{getattr(node, 'name', '')}"
                yield pytest.param(module, "\n".join([*code, *session]), id=name)


class Ended(Exception):
    """No more inputs come, in the example of an endless loop."""


def inputs_that_end():
    for _ in range(3):
        yield np.zeros((1, 1), "int32")
    raise Ended


def recurrent_model(eager):
    """Small, and of everything that the examples name."""
    layers = [
        keras.layers.SimpleRNN(2, return_sequences=True, name="untouched"),
        kbptt.LSTM(3, return_sequences=True, name="lstm"),
        kbptt.SimpleRNN(3, name="simple_rnn"),
    ]
    model = keras.Sequential([keras.Input((12, 3)), *layers, keras.layers.Dense(1)])
    model.compile("adam", "mse", run_eagerly=eager)
    return model


def stream_model():
    layers = [keras.layers.Embedding(5, 2), kbptt.GRU(3, return_sequences=True)]
    model = keras.Sequential([keras.Input((None,), dtype="int32"), *layers, keras.layers.Dense(5)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def given(code, path):
    """The names that the examples take as given; training is short."""
    stream = "Streams(" in code or "streaming(" in code or "saved_model" in code
    # For one step tracing takes longer than it saves, but for the hundreds that flossing takes.
    model = stream_model() if stream else recurrent_model(eager="Flossing" not in code)
    fit = model.fit
    model.fit = lambda *args, epochs=1, **rest: fit(*args, epochs=1, verbose=0, **rest)
    x, y = np.random.normal(size=(2, 16, 12, 3)).astype("float32")
    y = y[:, 0, :1]
    if "saved_model" in code:
        kbptt.streaming(model).export(path)
        x = np.zeros((1, 4), "int32")
    if "SequenceRegularization(" in code:
        x = keras.Input((12, 3))
    inputs = inputs_that_end()
    layer = kbptt.LSTM(8)
    layer.build((None, 12, 3))
    data = dict.fromkeys(["x", "x_train", "x_val"], x) | dict.fromkeys(["y", "y_train", "y_val"], y)
    return data | {
        "clip": kbptt.callbacks.ZClip(),
        "kbptt": kbptt,
        "keras": keras,
        "layer": layer,
        "model": model,
        "next_inputs": lambda: next(inputs),
        "np": np,
        "path": path,
        "tf": tf,
        "tokens": np.arange(400, dtype="int32") % 5,
    }


@pytest.mark.parametrize(("module", "code"), list(examples()))
def test_the_example_of_a_docstring_runs(module, code, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    studied = inspect.signature(kbptt.ablation.compare)
    monkeypatch.setattr(kbptt.ablation, "compare", studied.bind)  # minutes
    namespace = {**vars(importlib.import_module(module)), **given(code, str(tmp_path / "saved"))}
    try:
        exec(compile(code, module, "exec"), namespace)
    except Ended:
        assert "while True" in code
