"""Tallec & Ollivier (2017): a short truncation has the wrong sign, and training diverges.

A chain of 23 linear units is driven by one parameter θ: with a plus sign at the 10 units nearest to
the output, with a minus sign at the 13 others, whose influence arrives later. The output should be
1, which θ = −1/6 achieves. As long as a gradient sees more of the early influence than of the late
one, it points away from there: that of chunks shorter than 110 timesteps, and of sliding windows
shorter than 41. Full BPTT and ARTBP, whose random cuts are unbiased, converge. So does SnAp-1 with
an update every 10 timesteps: it carries on what θ has done to the states.
"""

import keras
import numpy as np

import kbptt
from kbptt.tasks.keras_objects import InfluenceBalancingCell
from kbptt.truncation import Full, Randomized, SnAp, Truncation, Windowed
from papers.part import QUIET, Check, Parameters, Published, Results, Score

TITLE = "Influence balancing: which truncations have the right sign"
CLAIM = (
    "Truncated BPTT diverges with truncations that are too short; ARTBP, with cuts 16 timesteps "
    "apart in the mean, and full BPTT converge."
)
SOURCE = (
    "Tallec & Ollivier, [*Unbiasing truncated backpropagation through time*]"
    "(https://arxiv.org/abs/1705.08209), 2017, section 5.1, figure 3."
)
DIFFERS = (
    "A learning rate of 0.001 and an update every 400 timesteps, where the paper updates at each "
    "truncation. Sliding windows and SnAp-1, with an update every 10 timesteps, are additions. "
    "Only ARTBP is random: the others are run once."
)
PUBLISHED = (
    Published("fixed truncations that are too short", "diverge"),
    Published("ARTBP with a mean length of 16; full BPTT", "converge"),
    Published("23 units, 13 of them negative, θ₀ = 0.5", "settings"),
)
SOLUTION = -1 / 6
UNITS, POSITIVE, TIMESTEPS = 23, 10, 400
TRUNCATIONS = {
    "chunks of 10": lambda seed: Windowed(10),
    "chunks of 100": lambda seed: Windowed(100),
    "chunks of 200": lambda seed: Windowed(200),
    "sliding, 20": lambda seed: Windowed(20, 1),
    "sliding, 60": lambda seed: Windowed(60, 1),
    "ARTBP, mean length 16": lambda seed: Randomized.artbp(16, 5, seed=seed),
    "full BPTT": lambda seed: Full(),
    "updates every 10": lambda seed: Full(),
    "updates every 10, SnAp-1": lambda seed: SnAp(1),
}
UPDATED_EVERY = {"updates every 10": 10, "updates every 10, SnAp-1": 10}  # others: TIMESTEPS
CONVERGE = ("chunks of 200", "sliding, 60", "ARTBP, mean length 16", "full BPTT")
CONVERGE += ("updates every 10, SnAp-1",)
PUBLISHED_ONES = ("chunks of 10", "chunks of 100", "ARTBP, mean length 16", "full BPTT")
EVERY = 5  # steps between two points of a curve
SETTINGS: dict[str, Parameters] = {
    name: {"truncation": name, "steps": 250, "rate": 1e-3}
    | ({} if "ARTBP" in name else {"seeds": 1})
    for name in TRUNCATIONS
}
QUICK: Parameters = {"steps": 4}
SEEDS, MINUTES, TEXT = 6, 2, ""


def influence(lags: int) -> np.ndarray:
    """∂s_t/∂θ through exactly k = 0, 1, … timesteps: the first entry of A^k (1, …, −1, …)."""
    chain = 0.5 * (np.eye(UNITS) + np.eye(UNITS, k=1))
    drive = np.where(np.arange(UNITS) < POSITIVE, 1.0, -1.0)
    found = []
    for _ in range(lags):
        found.append(drive[0])
        drive = chain @ drive
    return np.array(found)


def expected_influence(truncation: Truncation, timesteps: int = TIMESTEPS) -> float:
    """∂s/∂θ that `truncation` captures, averaged over the timesteps of a window.

    `timesteps` are those between two updates.
    """
    if truncation.length and truncation.stride:
        seen = np.cumsum(influence(truncation.length))
        return float(np.mean(seen[-truncation.stride :]))
    if isinstance(truncation, Full) and timesteps < TIMESTEPS:
        return expected_influence(Windowed(timesteps))
    return 2.0 * (2 * POSITIVE - UNITS)


class Record(keras.callbacks.Callback):
    """Records θ after every step; stops a training that has diverged."""

    def __init__(self, cell: InfluenceBalancingCell):
        super().__init__()
        self.cell, self.values = cell, []

    def on_train_batch_end(self, batch, logs=None):
        self.values.append(float(self.cell.theta.numpy()))
        if self.model and abs(self.values[-1] - SOLUTION) > 50:
            self.model.stop_training = True


def train(
    truncation: Truncation, steps: int, learning_rate: float, timesteps: int = TIMESTEPS
) -> np.ndarray:
    """θ after every step of SGD, each on the next `timesteps` timesteps of one sequence."""
    cell = InfluenceBalancingCell(UNITS, POSITIVE)
    layer = kbptt.RNN(cell, truncation=truncation, return_sequences=True)
    model = keras.Sequential([keras.Input((timesteps, 1)), layer])
    model.compile(keras.optimizers.SGD(learning_rate), lambda y, s: 0.5 * (s - y) ** 2)
    nothing, target = np.zeros((steps * timesteps, 1)), np.ones((steps * timesteps, 1))
    data = kbptt.data.Streams(nothing, target, timesteps, batch_size=1, target=None, offset=0)
    record = Record(cell)
    model.fit(data, verbose=QUIET, callbacks=[kbptt.callbacks.StreamState(data), record])
    return np.array([cell.theta_start, *record.values])


def run(parameters: Parameters, seed: int) -> Score:
    """The distance of θ from the solution, at the end and on the way."""
    name = parameters["truncation"]
    every = UPDATED_EVERY.get(name, TIMESTEPS)
    updates = TIMESTEPS // every  # as far in all, in smaller steps
    truncation, rate = TRUNCATIONS[name](seed), parameters["rate"] / updates
    theta = train(truncation, parameters["steps"] * updates, rate, every)
    distance = np.abs(theta - SOLUTION)
    return {
        "score": float(distance[-1]),
        "solved": int(distance[-1] < 0.1 * distance[0]),
        "worse": int(distance[-1] > distance[0]),
        "updates": len(theta) - 1,
        "curve": [float(f"{value:.3g}") for value in distance[:: EVERY * updates]],
    }


def checks(results: Results) -> list[Check]:
    """Converges: the distance falls to a tenth in every run. Diverges: it grows in every run."""
    found = []
    for setting in SETTINGS:
        if results.has(setting):
            converges = setting in CONVERGE
            share = results.of(setting, "solved" if converges else "worse").mean()
            word = "converges" if converges else "diverges"
            published = word if setting in PUBLISHED_ONES else f"– (follows: {word})"
            distance = np.median(results.of(setting))
            runs = len(results.seeds(setting))
            ours = f"{share:.0%} of {runs} seeds; |θ − θ*| at the end {distance:.2g}"
            found.append(Check(f"{setting}: {word}", published, ours, bool(share == 1)))
    return found


def draw(results: Results, figure) -> None:
    left, right = figure.subplots(1, 2)
    lags = np.arange(1, 121)
    seen = np.cumsum(influence(len(lags)))
    left.plot(lags, seen, label="sliding windows: a loss sees so many timesteps")
    left.plot(lags, np.cumsum(seen) / lags, label="chunks: the mean over a chunk")
    left.axhline(0, color="gray", linewidth=0.8)
    left.axhline(2 * (2 * POSITIVE - UNITS), color="gray", linestyle=":", label="all of it: −6")
    left.set(xlabel="length of the window", ylabel="∂s/∂θ that the gradient sees")
    left.set_title("Wrong sign above 0")
    left.legend(fontsize=6)
    for index, setting in enumerate(SETTINGS):
        for curve in results.curves(setting)[: 6 if "ARTBP" in setting else 1]:
            right.semilogy(EVERY * np.arange(len(curve)), curve, color=f"C{index}", alpha=0.8)
        right.plot([], [], color=f"C{index}", label=setting)
    right.set(xlabel=f"timesteps / {TIMESTEPS}", ylabel="|θ − θ*|", title="Training")
    right.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
