"""Does clipping help a SimpleRNN on the adding problem? The whole study in one call.

Run it: python scripts/compare.py
It can be interrupted; started again, it continues where it stopped.
"""

import kbptt

# Workers import this file: without the guard each would start its own study.
if __name__ == "__main__":
    kbptt.ablation.compare(
        tasks=["adding"],
        methods=["baseline", "clip", "orthogonal", "orthogonal+clip"],
        seeds=6,
        logdir="runs/compare",
        cell="SimpleRNN",
        units=32,
        epochs=5,
        learning_rate=0.003,
        length=30,
        sizes=[2000, 500, 500],
    )
