"""How long the *Gradient flow* tab takes until its first picture, and after a zoom.

Writes event files (3 runs of 10,000 profiles of 1,000 timesteps; 40 and 500 runs of 50 profiles of
100 timesteps, the seeds of a study), starts the real `tensorboard` on them and opens the tab in a
headless Chromium. *Cold*: TensorBoard has read the files, and the tab has never been opened. The
time runs from opening the address to the picture: every heatmap in view and the profile. It
contains the loading of TensorBoard's own page, which is given beside it. *Warm*: opened again.
The CPU time of TensorBoard and of the browser meanwhile is what a machine with other work on it
still measures well: on two idle cores the picture takes less than their sum.

    python scripts/benchmark_tab.py

It needs Chromium or Chrome on the path (Debian: `apt install chromium`) and psutil, which
`pip install 'kbptt[compare]'` brings.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

from kbptt.tensorboard import layout, reader, writer

# The browser and the server of the tests.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

import chromium
import tensorboard_server

# Name: runs, recorded steps, timesteps, and the bound in seconds on the first picture.
CASES = {
    "long": (3, 10_000, 1_000, 2.0),
    "forty": (40, 50, 100, 3.0),
    "many": (500, 50, 100, 3.0),
}
ZOOM_BOUND = 0.5

FRAME = "document.querySelector('iframe').contentDocument"
DRAWN = f"""(d => {{
  const cards = [...d.querySelectorAll('.heatmaps .card')].filter((card) => {{
    const box = card.getBoundingClientRect();
    return box.bottom > 0 && box.top < d.defaultView.innerHeight;
  }});
  const drawn = (card) => card.querySelector('canvas').width > 0
    && /profile/.test(card.querySelector('.read').textContent);
  return cards.length && d.querySelector('.legend').children.length && cards.every(drawn);
}})({FRAME})"""


def write_runs(directory: Path, runs: int, steps: int, timesteps: int) -> None:
    """Event files as `kbptt compare` writes them: a directory for each method, ten seeds in it."""
    random = np.random.default_rng(0)
    content = layout.content("lstm", "last", None, None, "end", index=0)
    tag = layout.statistic_tag("lstm", "decay")
    for run in range(runs):
        decay = random.uniform(0.98, 1.0)
        profile = decay ** np.arange(timesteps)[::-1]
        path = directory / f"method{run // 10:02d}" / "adding" / str(run % 10)
        path.mkdir(parents=True)
        name = f"events.out.tfevents.0000000001.host.1.000000{reader.SUFFIX}"
        with open(path / name, "wb") as file:
            records = RecordWriter(file)
            records.write(event_pb2.Event(file_version="brain.Event:2").SerializeToString())
            for step in range(steps):
                norms = profile * np.exp(random.normal(size=timesteps))
                values = [
                    writer.profile_value("lstm", norms, content),
                    writer.scalar_value(tag, decay),
                ]
                summary = summary_pb2.Summary(value=values)
                event = event_pb2.Event(wall_time=step, step=10 * step, summary=summary)
                records.write(event.SerializeToString())


def wait_until_read(browser: chromium.Browser, address: str, runs: int, last: int) -> None:
    """Waits until TensorBoard has read every file to its end, without opening the tab."""
    # Not the list of plugins, at which the tab begins to read.
    browser.open(f"{address}data/environment")
    found = (
        "fetch('plugin/gradient_flow/tags').then(r => r.json()).then(found => {"
        " const steps = Object.values(found).flatMap(Object.values).map(tag => tag.max_step);"
        f" return steps.length === {runs} && Math.min(...steps) === {last}; }})"
    )
    browser.wait_for(f"(async () => await {found})()", timeout=600)


def cpu_seconds(process: psutil.Process, name: str) -> float:
    """CPU time of the processes below this one whose command contains `name`."""
    spent = 0.0
    for one in process.children(recursive=True):
        try:
            if name in " ".join(one.cmdline()):
                times = one.cpu_times()
                spent += times.user + times.system
        except psutil.NoSuchProcess:
            pass
    return spent


def wait_drawn(browser: chromium.Browser, started: float, timeout: float = 120) -> float:
    """Seconds from `started` to the picture."""
    while time.perf_counter() - started < timeout:
        try:
            if browser.evaluate(f"!!({DRAWN})"):
                return time.perf_counter() - started
        except RuntimeError:  # there is no frame yet
            pass
        time.sleep(0.02)
    raise TimeoutError(f"No picture after {timeout} s.")


def zoom(browser: chromium.Browser) -> float:
    """Seconds from the end of a drag on the first heatmap to the new picture."""
    left, top, width, height = browser.evaluate(
        f"(d => {{ const f = document.querySelector('iframe').getBoundingClientRect();"
        " const r = d.querySelector('.heatmaps canvas').getBoundingClientRect();"
        f" return [f.left + r.left, f.top + r.top, r.width, r.height]; }})({FRAME})"
    )
    places = [(left + x * width, top + y * height) for x, y in ((0.3, 0.2), (0.7, 0.7))]
    read = f"{FRAME}.querySelector('.heatmaps .read').textContent"
    before = browser.evaluate(read)  # how many profiles are shown
    browser.mouse("mousePressed", *places[0])
    browser.mouse("mouseMoved", *places[1])
    browser.evaluate(
        f"window.drawn = new Promise(done => {{ {FRAME}.querySelector('.heatmaps canvas')"
        ".addEventListener('mouseup', () => { const start = performance.now();"
        f" const look = () => {{ const now = {read};"
        f" if (/profile/.test(now) && now !== {json.dumps(before)} && !/^step/.test(now))"
        " done((performance.now() - start) / 1000); else requestAnimationFrame(look); };"
        " look(); }, {once: true}); }); 0"
    )
    browser.mouse("mouseReleased", *places[1])
    return browser.evaluate("window.drawn")


def measure(name: str, rounds: int) -> None:
    runs, steps, timesteps, bound = CASES[name]
    cold, own, warm, zooms, whole, cpu = [], [], [], [], [], []
    this = psutil.Process()
    names = "tensorboard", "chrom"
    with tempfile.TemporaryDirectory() as scratch:
        logdir = Path(scratch) / "logs"
        write_runs(logdir, runs, steps, timesteps)
        for number in range(rounds):
            began = time.perf_counter()
            profile = Path(scratch) / f"browser{number}"
            with (
                chromium.Browser(profile) as browser,
                tensorboard_server.serve(logdir) as (address, _),
            ):
                wait_until_read(browser, address, runs, 10 * (steps - 1))
                browser.open("about:blank")
                before = [cpu_seconds(this, name) for name in names]
                opened = time.perf_counter()
                browser.call("Page.navigate", url=f"{address}#gradient_flow")
                cold.append(wait_drawn(browser, opened))
                after = [cpu_seconds(this, name) for name in names]
                cpu.append([now - then for now, then in zip(after, before, strict=True)])
                whole.append(time.perf_counter() - began)
                # Until the frame of the tab exists it is TensorBoard's own page that loads.
                own.append(
                    browser.evaluate(
                        f"({FRAME}.defaultView.performance.timeOrigin - performance.timeOrigin)"
                        " / 1000"
                    )
                )
                if name == "long":
                    zooms.append(zoom(browser))
                browser.open("about:blank")
                opened = time.perf_counter()
                browser.call("Page.navigate", url=f"{address}#gradient_flow")
                warm.append(wait_drawn(browser, opened))
                browser.open("about:blank")
    print(f"{name}: {runs} runs of {steps:,} profiles of {timesteps:,} timesteps")
    for text, seconds in (
        (f"first picture, cold (bound {bound:g} s)", cold),
        ("  of which TensorBoard's own page", own),
        ("  CPU time of TensorBoard meanwhile", [server for server, _ in cpu]),
        ("  CPU time of the browser meanwhile", [browser for _, browser in cpu]),
        ("opened again", warm),
        (f"zoom (bound {ZOOM_BOUND:g} s)", zooms),
        ("from the start of TensorBoard to the picture", whole),
    ):
        if seconds:
            each = ", ".join(f"{one:.2f}" for one in seconds)
            print(f"  {text:46} {statistics.median(seconds):6.2f} s   ({each})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], default=[])
    parser.add_argument("--rounds", type=int, default=3, help="TensorBoards to start (default: 3)")
    arguments = parser.parse_args()
    if chromium.find() is None:
        raise SystemExit(
            "Expected chromium or google-chrome on the path. Debian: apt install chromium"
        )
    print(f"{os.cpu_count()} CPUs, load average {os.getloadavg()[0]:.1f} at the start; medians")
    for name in arguments.cases or CASES:
        measure(name, arguments.rounds)


if __name__ == "__main__":
    main()
