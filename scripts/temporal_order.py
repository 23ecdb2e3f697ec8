"""Pascanu's temporal order task: plain SGD, clipping, and clipping + the regularizer Ω.

    python scripts/temporal_order.py                                     # all methods, 5 seeds
    python scripts/temporal_order.py --methods clip --seeds 3 4          # a part of it
    python scripts/temporal_order.py --length 100 --steps 400000

The settings of Pascanu, Mikolov & Bengio (2013, https://arxiv.org/abs/1211.5063): SimpleRNN with 50
tanh units, fresh sequences at every step in batches of 20, SGD with learning rate 0.01, clip at 1.
Solved means that under 1 % of 10,000 fresh sequences are answered wrong. A run ends when it solves
the task, when its weights are no longer finite, or after --steps. Results are appended to a CSV
file, and runs that it already contains are skipped, so the work can be split.
"""

import argparse
import csv
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import kbptt

METHODS = ("none", "clip", "clip+omega")
EPOCH = 1000  # steps between two tests on fresh sequences
COLUMNS = ("length", "method", "seed", "budget", "solved", "steps", "wrong", "seconds")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(5)))
    parser.add_argument("--length", type=int, default=50, help="timesteps (default: 50)")
    parser.add_argument("--steps", type=int, default=20_000, help="at most (default: 20000)")
    parser.add_argument("--weight", type=float, default=4.0, help="λ of Ω (default: 4)")
    parser.add_argument("--output", type=Path, default=Path("runs/temporal_order.csv"))
    a = parser.parse_args()

    done = read(a.output)
    for seed in a.seeds:
        for method in a.methods:
            key = {"length": a.length, "method": method, "seed": seed, "budget": a.steps}
            if any(all(row[k] == str(v) for k, v in key.items()) for row in done):
                continue
            result = run(method, seed, a.length, a.steps, a.weight)
            append(a.output, {**key, **result})
            print(key, result, flush=True)
    report(read(a.output), a.length, a.steps)


def run(method: str, seed: int, length: int, steps: int, weight: float) -> dict:
    """Trains one model until it solves the task, diverges, or has used up its steps."""
    keras.backend.clear_session()
    task = kbptt.tasks.get("temporal_order", length=length)
    regularizer = kbptt.regularizers.VanishingGradient(weight) if "omega" in method else None
    model = kbptt.tasks.build_model(
        task,
        cell="SimpleRNN",
        units=50,
        seed=seed,
        recurrent_initializer=keras.initializers.RandomNormal(stddev=0.1),
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.1),
        gradient_regularizer=regularizer,
    )
    model.compile(
        keras.optimizers.SGD(0.01), task.loss(), metrics=task.metrics(), steps_per_execution=EPOCH
    )
    callbacks = [kbptt.callbacks.ClipByGlobalNorm(1.0)] if "clip" in method else []
    train, test = (np.random.default_rng([seed, part]) for part in (0, 1))
    start, wrong, trained = time.perf_counter(), 1.0, 0
    while wrong >= 0.01 and trained < steps:
        x, y = task.sample(train, 20 * EPOCH)
        model.fit(x, y, batch_size=20, shuffle=False, verbose=0, callbacks=callbacks)
        trained += EPOCH
        if not all(np.isfinite(w).all() for w in model.get_weights()):
            break
        wrong = 1 - evaluate(model, task, test, 1000)
        if wrong < 0.01:
            wrong = 1 - evaluate(model, task, test, 10_000)
    seconds = round(time.perf_counter() - start)
    return {"solved": wrong < 0.01, "steps": trained, "wrong": round(wrong, 4), "seconds": seconds}


def evaluate(model: keras.Model, task: kbptt.tasks.Task, rng: np.random.Generator, n: int) -> float:
    """Accuracy on `n` fresh sequences."""
    x, y = task.sample(rng, n)
    return model.evaluate(x, y, batch_size=1000, verbose=0, return_dict=True)["accuracy"]


def read(path: Path) -> list[dict]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def append(path: Path, row: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerow(row)


def report(rows: list[dict], length: int, steps: int) -> None:
    rows = [r for r in rows if r["length"] == str(length) and r["budget"] == str(steps)]
    print(f"\nTemporal order, {length} timesteps, at most {steps} steps")
    for method in METHODS:
        runs = [r for r in rows if r["method"] == method]
        if runs:
            solved = sum(r["solved"] == "True" for r in runs)
            used = ", ".join(r["steps"] if r["solved"] == "True" else "-" for r in runs)
            print(f"{method:12} solved {solved} of {len(runs)}   after steps: {used}")


if __name__ == "__main__":
    main()
