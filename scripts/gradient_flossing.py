"""Gradient flossing on the delayed copy task and the delayed XOR task: with it and without.

    python scripts/gradient_flossing.py
    python scripts/gradient_flossing.py --ways plain orthogonal --steps 3000

The part `flossing` of `scripts/evidence.py` with settings of your own, and a third way: an
orthogonal recurrent matrix instead of flossing. Prints how many seeds reach the accuracy that
counts as success, and two paired tests over the seeds.
"""

import argparse
import time

import numpy as np
import scipy.stats
import tensorflow as tf
from papers import flossing

DELAY = {"copy": 20, "xor": 10}
WAYS = ["plain", "flossed", "orthogonal"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Gradient flossing on two tasks.")
    parser.add_argument("--tasks", nargs="*", choices=flossing.LAGS, default=list(flossing.LAGS))
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=WAYS)
    parser.add_argument("--delay", type=int, help=f"defaults to {DELAY}")
    parser.add_argument("--units", type=int, default=32)
    parser.add_argument("--steps", type=int, default=1500, help="of training, 16 sequences each")
    parser.add_argument("--learning-rate", type=float, default=1e-3, dest="rate")
    parser.add_argument("--count", type=int, default=30, help="exponents that are flossed")
    parser.add_argument("--floss-steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="*", default=list(range(8)))
    parser.add_argument("--success", type=float, default=flossing.SUCCESS, help="chance is 0.5")
    parser.add_argument("--threads", type=int, default=1)
    a = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(a.threads)
    tf.config.threading.set_inter_op_parallelism_threads(a.threads)

    for task in a.tasks:
        parameters = vars(a) | {"task": task, "delay": a.delay or DELAY[task]}
        found = {way: [] for way in a.ways}
        for seed in a.seeds:
            for way in a.ways:
                start = time.perf_counter()
                accuracy = flossing.run(parameters | {"way": way}, seed)["score"]
                seconds = time.perf_counter() - start
                found[way].append((accuracy, seconds))
                print(f"{task:<6}seed {seed}  {way:<12}{accuracy:.3f}{seconds:6.0f} s", flush=True)
        report(task, {way: np.array(rows) for way, rows in found.items()}, a.success)


def report(task: str, found: dict[str, np.ndarray], success: float) -> None:
    """A row for each way; against the first one, McNemar's exact test of the successes and
    Wilcoxon's of the accuracies, two-sided."""
    reference = next(iter(found.values()))[:, 0]
    for way, (accuracy, seconds) in ((way, rows.T) for way, rows in found.items()):
        solved, before = accuracy >= success, reference >= success
        gained, lost = int(np.sum(solved & ~before)), int(np.sum(before & ~solved))
        tests = ""
        if np.any(accuracy != reference):
            mcnemar = scipy.stats.binomtest(gained, max(1, gained + lost)).pvalue
            _, wilcoxon = scipy.stats.wilcoxon(accuracy, reference)
            tests = f"  +{gained} −{lost}: p = {mcnemar:.3f}; accuracies: p = {wilcoxon:.3f}"
        print(
            f"{task:<6}{way:<12}solved {solved.sum()} of {len(solved)}, median "
            f"{np.median(accuracy):.3f} ({accuracy.min():.3f} to {accuracy.max():.3f}), "
            f"{np.median(seconds):.0f} s{tests}",
            flush=True,
        )
    print()


if __name__ == "__main__":
    main()
