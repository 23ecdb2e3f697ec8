"""How long must truncation windows be? Measures a trained network, then trains with the result.

    python scripts/window_length.py
    python scripts/window_length.py --task adding --options length=50 --repeat 1 --tolerance 0.5

1. Trains with full backpropagation through time: an untrained network does not use its past, and
   would suggest short windows.
2. Prints how strongly the losses reach back (φ by lag), the suggested window for several
   tolerances, and the actual bias of the gradient for windows of several lengths.
3. Trains again with the suggested window, with a short one, and with `AdaptiveTruncation`.
"""

import argparse

import keras

from kbptt import tasks
from kbptt.analysis import lag_profile, suggest_truncation, truncation_bias
from kbptt.callbacks import AdaptiveTruncation


def join(part: tuple, repeat: int) -> tuple:
    """Joins `repeat` sequences at a time: a stream longer than any memory needed."""
    whole = len(part[0]) // repeat * repeat
    return tuple(
        v if repeat == 1 else v[:whole].reshape(whole // repeat, -1, *v.shape[2:]) for v in part
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="copy_memory", choices=tasks.names())
    parser.add_argument("--options", nargs="*", default=["lag=8", "items=2", "symbols=4"])
    parser.add_argument("--repeat", type=int, default=6, help="sequences in a row: a longer one")
    parser.add_argument("--cell", default="GRU")
    parser.add_argument("--units", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--samples", type=int, default=6000, help="sequences for training")
    parser.add_argument("--tolerance", type=float, default=0.1, help="for the trainings")
    parser.add_argument("--short", type=int, default=2, help="window to compare with")
    parser.add_argument("--maximum", type=int, default=100, help="largest window")
    a = parser.parse_args()
    options = {name: int(value) for name, value in (o.split("=") for o in a.options)}
    task = tasks.get(a.task, **options, sizes=(a.samples, 600, 600))
    data = task.data(seed=0)
    training, validation = (join(part, a.repeat) for part in (data.train, data.validation))
    task.length *= a.repeat
    some = tuple(part[:64] for part in validation)

    def train(truncation, *callbacks):
        model = tasks.build_model(task, a.cell, a.units, truncation=truncation)
        model.compile(keras.optimizers.Adam(3e-3), task.loss(), metrics=task.metrics())
        model.fit(*training, batch_size=32, epochs=a.epochs, verbose=0, callbacks=callbacks)
        loss = model.evaluate(*validation, verbose=0, return_dict=True)["loss"]
        print(f"  {truncation!s:>10}: loss {loss:.4f}", flush=True)
        return model

    print(f"{task.name}, {task.length} timesteps; without any memory: {task.baseline:.4f}")
    print("full BPTT")
    model = train(None)
    profile = lag_profile(model, *some, maximum=a.maximum)
    print("  φ:", " ".join(f"{k}:{norm:.2g}" for k, norm in enumerate(profile.norms)))
    for tolerance in (0.9, 0.5, 0.1):
        print(" ", repr(suggest_truncation(model, *some, tolerance, maximum=a.maximum)))
    suggested = suggest_truncation(model, *some, a.tolerance, maximum=a.maximum)
    for length in sorted({a.short, int(suggested) // 2, int(suggested), 2 * int(suggested)}):
        bias = truncation_bias(model, *some, length)
        print(f"  chunks of {length}: the gradient is off by {bias:.1%}")
    print("trained again with a window")
    train(int(suggested))
    train(a.short)
    adapt = AdaptiveTruncation(a.tolerance, a.short, max(a.maximum, 2), data=some)
    train(a.short, adapt)
    print("  adaptive, by epoch:", adapt.history["truncation"])


if __name__ == "__main__":
    main()
