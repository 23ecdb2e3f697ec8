"""The *Gradient flow* tab in a real browser, and runs to show in it."""

import json
import shutil

import chromium
import numpy as np
import pytest

from kbptt.analysis import gradient_flow
from kbptt.tensorboard import layout, reader, writer

needs_browser = pytest.mark.skipif(
    chromium.find() is None or shutil.which("bash") is None,
    reason="needs chromium or google-chrome on PATH",
)

HOSTILE = "<img src=x onerror=alert(1)> ü 层"
TIMESTEPS = 40
STEPS = range(10, 110, 10)
ZERO, NAN = [16, 16, 16], [255, 47, 209]
LOWEST, HIGHEST = [68, 1, 84], [253, 231, 37]  # ends of viridis
# Around a chart: `MARGIN` of axes.js.
LEFT, TOP, RIGHT, BOTTOM = 60, 10, 12, 36


def decaying(factor, scale=1.0, timesteps=TIMESTEPS):
    return (scale * factor ** np.arange(timesteps)[::-1]).astype(np.float32)


def write_run(directory, profile, layers=("lstm",), window=None, steps=STEPS):
    events = writer.EventWriter(str(directory), reader.SUFFIX)
    for step in steps:
        values = []
        for layer in layers:
            norms = profile(step)
            content = layout.content(layer, "last", window, None, "end")
            values.append(writer.profile_value(layer, norms, content))
            for key, value in gradient_flow.summarize(norms).items():
                values.append(writer.scalar_value(layout.statistic_tag(layer, key), value))
        events.write(step, values)


class Tab(chromium.Browser):
    """The page in TensorBoard's frame; in expressions `d` is its document."""

    def show(self, address, fragment="", ready="d.querySelector('.legend').children.length"):
        self.open(f"{address}#gradient_flow{fragment}")
        if ready:
            self.wait(ready)

    def js(self, expression):
        document = "document.querySelector('iframe').contentDocument"
        return self.evaluate(f"(d => ({expression}))({document})")

    def wait(self, expression, timeout=60):
        document = "document.querySelector('iframe').contentDocument"
        self.wait_for(f"(d => ({expression}))({document})", timeout)

    def control(self, label, value):
        """Gives the select or input with this label a value."""
        find = (
            f"[...d.querySelectorAll('label')].find(l => l.firstChild.textContent === {label!r})"
            ".querySelector('select, input')"
        )
        event = "new Event('change')"
        self.js(f"(c => {{ c.value = {json.dumps(value)}; c.dispatchEvent({event}); }})({find})")

    def enter(self, selector, value):
        """The same as typing or sliding."""
        find = f"d.querySelector({selector!r})"
        event = "new Event('input')"
        self.js(f"(c => {{ c.value = {json.dumps(value)}; c.dispatchEvent({event}); }})({find})")

    def runs(self):
        return self.js("[...d.querySelectorAll('.cards .name')].map(n => n.textContent)")

    def url(self):
        return self.evaluate("location.href")

    def pixel(self, run, x, y):
        """Colour of a run's heatmap at fractions of width and height; (0, 0) is t = 0, left."""
        self.see(run)
        return self.js(
            f"(c => {{ const w = c.width - {LEFT + RIGHT}, h = c.height - {TOP + BOTTOM};"
            f" return [...c.getContext('2d').getImageData({LEFT} + {x} * w,"
            f" {TOP} + (1 - {y}) * h, 1, 1).data].slice(0, 3); }})({self.canvas(run)})"
        )

    def see(self, run):
        """Scrolls to a run's heatmap: what is not in view is not drawn."""
        self.js(f"{self.canvas(run)}.scrollIntoView({{block: 'center'}})")
        card = f"{self.canvas(run)}.closest('.card')"
        self.wait(f"/profile|step/.test({card}.querySelector('.read').textContent)")
        self.frame()

    def frame(self):
        """Waits until what was to be drawn is."""
        self.evaluate("new Promise(f => requestAnimationFrame(() => requestAnimationFrame(f)))")

    def canvas(self, run):
        label = json.dumps(f"heatmap of {run}")
        return f"[...d.querySelectorAll('.cards canvas')].find(c => c.ariaLabel === {label})"

    def point(self, run, x, y):
        """The same as a place on the screen."""
        self.see(run)
        frame = self.evaluate(
            "(r => [r.left, r.top])(document.querySelector('iframe').getBoundingClientRect())"
        )
        left, top, width, height = self.js(
            f"(c => {{ c.scrollIntoView({{block: 'center'}}); const r = c.getBoundingClientRect();"
            f" return [r.left, r.top, r.width, r.height]; }})({self.canvas(run)})"
        )
        return (
            frame[0] + left + LEFT + x * (width - LEFT - RIGHT),
            frame[1] + top + TOP + (1 - y) * (height - TOP - BOTTOM),
        )
