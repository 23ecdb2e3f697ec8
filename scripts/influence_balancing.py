"""Influence balancing: a short truncation has the wrong sign, and training diverges.

    python scripts/influence_balancing.py

A chain of 23 linear units is driven by one parameter θ: with a plus sign at the 10 units nearest to
the output, with a minus sign at the 13 others, whose influence arrives later. The output should be
1, which θ = −1/6 achieves. As long as a gradient sees more of the early influence than of the late
one, it points away from there: that of chunks shorter than 110 timesteps, and of sliding windows
shorter than 41. Full BPTT and ARTBP, whose random cuts are unbiased, converge. So does SnAp-1 with
an update every 10 timesteps: it carries on what θ has done to the states.

Trains one endless sequence, from batch to batch, with each truncation; prints a table, and draws
the distance from the solution. Reference: Tallec & Ollivier, https://arxiv.org/abs/1705.08209.
"""

import argparse
import os

import keras
import matplotlib
import numpy as np

import kbptt
from kbptt.tasks.keras_objects import InfluenceBalancingCell
from kbptt.truncation import Full, Randomized, SnAp, Truncation, Windowed

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SOLUTION = -1 / 6
UNITS, POSITIVE, TIMESTEPS = 23, 10, 400
TRUNCATIONS = {
    "chunks of 10": Windowed(10),
    "chunks of 50": Windowed(50),
    "chunks of 100": Windowed(100),
    "chunks of 200": Windowed(200),
    "sliding, 20": Windowed(20, 1),
    "sliding, 38": Windowed(38, 1),
    "sliding, 60": Windowed(60, 1),
    "ARTBP, mean length 16": Randomized.artbp(16, 5, seed=1),
    "full BPTT": Full(),
    "updates every 10": Full(),
    "updates every 10, SnAp-1": SnAp(1),
}
UPDATED_EVERY = {"updates every 10": 10, "updates every 10, SnAp-1": 10}  # others: TIMESTEPS


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
    if isinstance(truncation, Windowed):
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
        if abs(self.values[-1] - SOLUTION) > 50:
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
    model.fit(data, verbose=0, callbacks=[kbptt.callbacks.StreamState(data), record])
    return np.array([cell.theta_start, *record.values])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--only", nargs="*", choices=TRUNCATIONS, help="some truncations alone")
    parser.add_argument("--figure", default="influence_balancing.png", help="file to write")
    a = parser.parse_args()

    print(f"{'truncation':<26}{'∂s/∂θ it sees':>14}{'steps':>8}{'θ at the end':>15}")
    curves = {}
    for name in a.only or TRUNCATIONS:
        every = UPDATED_EVERY.get(name, TIMESTEPS)
        share = every / TIMESTEPS  # as far in all, in smaller steps
        updates = round(a.steps / share)
        theta = curves[name] = train(TRUNCATIONS[name], updates, a.learning_rate * share, every)
        near, start = abs(theta[-1] - SOLUTION), abs(theta[0] - SOLUTION)
        verdict = "converges" if near < 0.1 * start else "diverges" if near > start else ""
        seen = expected_influence(TRUNCATIONS[name], every)
        print(
            f"{name:<26}{seen:>14.2f}{len(theta) - 1:>8}{theta[-1]:>15.4g}  {verdict}", flush=True
        )
    draw(curves).savefig(a.figure, dpi=120)
    print(f"\nFigure: {os.path.abspath(a.figure)}")


def draw(curves: dict[str, np.ndarray]) -> plt.Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 4.5), layout="constrained")
    lags = np.arange(1, 121)
    seen = np.cumsum(influence(len(lags)))
    left.plot(lags, seen, label="sliding windows: a loss sees so many timesteps")
    left.plot(lags, np.cumsum(seen) / lags, label="chunks: the mean over a chunk")
    left.axhline(0, color="gray", linewidth=0.8)
    left.axhline(2 * (2 * POSITIVE - UNITS), color="gray", linestyle=":", label="all of it: −6")
    left.set(xlabel="length of the window", ylabel="∂s/∂θ that the gradient sees")
    left.set_title("Wrong sign above 0")
    left.legend(fontsize=8)
    for name, theta in curves.items():
        style = "--" if "sliding" in name else "-" if "chunks" in name else "-."
        style = ":" if name in UPDATED_EVERY else style
        steps = np.arange(len(theta)) * UPDATED_EVERY.get(name, TIMESTEPS) / TIMESTEPS
        right.semilogy(steps, np.abs(theta - SOLUTION), style, label=name)
    right.set(
        xlabel=f"timesteps / {TIMESTEPS}", ylabel="|θ − θ*|", title="Training with each truncation"
    )
    right.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


if __name__ == "__main__":
    main()
