"""The tab with log directories and servers of all kinds."""

import re

import numpy as np
import pytest
from gradient_flow_tab import (
    HIGHEST,
    HOSTILE,
    LOWEST,
    STEPS,
    TIMESTEPS,
    ZERO,
    decaying,
    needs_browser,
    write_run,
)
from tensorboard.util import tensor_util

from kbptt.tensorboard import layout, writer

pytestmark = needs_browser


def test_runs_and_steps_appear_while_training_goes_on(tab, serve, tmp_path):
    write_run(tmp_path / "a", lambda step: decaying(0.9))
    address, process = serve(tmp_path)
    tab.show(address)
    assert tab.runs() == ["a"]
    write_run(tmp_path / "a", lambda step: decaying(0.9), steps=[200])
    write_run(tmp_path / "b", lambda step: decaying(0.9))
    # TensorBoard reads again every second, and asks the tab to when its button is pressed.
    press = "document.querySelector('.reload-button').click()"
    tab.evaluate(f"window.pressing = setInterval(() => {press}, 500)")
    tab.wait("d.querySelectorAll('.cards .name').length === 2")
    tab.wait("d.querySelector('.step').textContent === 'step 200 (latest)'")
    tab.evaluate("clearInterval(window.pressing)")
    process.terminate()
    process.wait()
    tab.js("[...d.querySelectorAll('.controls button')].at(-2).click()")
    tab.wait("d.querySelector('.error').textContent.includes('Is it still running?')")
    tab.open("about:blank")  # ends what still asks the server
    tab.problems.clear()  # of course


@pytest.mark.parametrize("arguments", [("--load_fast=false",), ("--path_prefix=/board",)])
def test_other_ways_to_start_tensorboard(tab, serve, tmp_path, arguments):
    write_run(tmp_path / HOSTILE, lambda step: decaying(1.0))
    write_run(tmp_path / "cut", lambda step: np.where(np.arange(TIMESTEPS) < 30, 0, 1), window=10)
    address, _ = serve(tmp_path, *arguments)
    tab.show(address)
    assert tab.runs() == [HOSTILE, "cut"]
    assert tab.pixel("cut", 0.5, 0.3) == ZERO


def test_an_empty_directory_shows_what_to_do(tab, serve, tmp_path):
    address, _ = serve(tmp_path, data=False)
    tab.show(address, ready="d.body.innerText.includes('kbptt.callbacks.GradientFlow')")


def test_one_and_twenty_thousand_timesteps(tab, serve, tmp_path):
    write_run(tmp_path / "one", lambda step: np.array([step], np.float32))
    write_run(tmp_path / "many", lambda step: decaying(0.999, timesteps=20_000))
    address, _ = serve(tmp_path)
    tab.show(address)
    assert tab.runs() == ["many", "one"]
    np.testing.assert_allclose(tab.pixel("many", 0.5, 0.005), LOWEST, atol=2)
    assert tab.pixel("one", 0.99, 0.5) == HIGHEST
    sizes = tab.js(
        "d.defaultView.performance.getEntriesByType('resource').map(e => e.decodedBodySize)"
    )
    assert 10_000 < max(sizes) and sum(sizes) < 400_000
    # The pointer tells what a cell stands for: here 66 or 67 timesteps of one step.
    tab.mouse("mouseMoved", *tab.point("many", 0.55, 0.9))
    tab.wait("d.querySelector('.read').textContent.startsWith('step ')")
    read = tab.js("d.querySelector('.read').textContent")
    found = re.match(r"step 60 · timestep t = (\d+)–(\d+) · lag (\d+)–(\d+) · ‖", read)
    assert found, read
    first, last, nearest, furthest = map(int, found.groups())
    assert abs(first - 0.9 * 20_000) < 140 and last - first in (65, 66)  # a pixel is 68
    assert (furthest, nearest) == (19_999 - first, 19_999 - last)


def test_a_run_without_any_timestep_does_not_hide_the_others(tab, serve, tmp_path):
    write_run(tmp_path / "seed 2", lambda step: decaying(0.9))
    write_run(tmp_path / "seed 10", lambda step: decaying(0.9))
    write_run(tmp_path / "none", lambda step: np.zeros(0, np.float32))
    address, _ = serve(tmp_path)
    tab.show(address)
    assert tab.runs() == ["seed 2", "seed 10"]
    assert not tab.js("d.querySelector('.error').checkVisibility()")


def test_damaged_runs_are_named_and_hide_no_other(tab, serve, tmp_path):
    write_run(tmp_path / "good", lambda step: decaying(0.9))
    content = layout.content("lstm", "last", None, None, "end")
    for name, damage in (
        (HOSTILE, lambda tensor: setattr(tensor, "dtype", 999)),
        ("text", lambda tensor: tensor.CopyFrom(tensor_util.make_tensor_proto(["x"]))),
    ):
        value = writer.profile_value("lstm", decaying(0.9), content)
        damage(value.tensor)
        writer.EventWriter(str(tmp_path / name)).write(1, [value])
    for number in range(15):  # more than are shown at once, and before the others by name
        writer.EventWriter(str(tmp_path / f"a{number}")).write(1, [value])
    # One damaged record among good ones costs only itself.
    events = writer.EventWriter(str(tmp_path / "partly"))
    for step in STEPS:
        norms = decaying(0.9) if step > 10 else np.ones((2, 2))
        events.write(step, [writer.profile_value("lstm", norms, content)])
    address, _ = serve(tmp_path)
    tab.show(address)
    assert tab.runs() == ["good", "partly"]
    listed = tab.js("[...d.querySelectorAll('.unreadable li')].map(l => l.innerText)")
    assert len(listed) == 17 and all(text.startswith("unreadable") for text in listed)
    assert HOSTILE in listed[0] and "none of the 1 records" in listed[0] and "text" in listed[-1]
    tab.wait("d.querySelectorAll('.cards .read')[1].textContent.endsWith('damaged records 1')")
    assert not tab.js("d.querySelector('.error').checkVisibility()")
    tab.enter("[type=search]", "text")
    tab.wait("d.body.innerText.includes('None of the selected runs can be shown')")


def test_the_table_is_legible_in_a_narrow_window(tab, serve, tmp_path):
    write_run(tmp_path / ("study/method/" * 8 + "0"), lambda step: decaying(0.9), window=30)
    address, _ = serve(tmp_path)
    tab.resize(800, 1000)
    tab.show(address)
    row = "d.querySelector('tr:last-child')"
    assert tab.js(f"{row}.clientHeight") < 100
    assert tab.js("d.documentElement.scrollWidth") <= 800
    tab.resize(1280, 1000)
