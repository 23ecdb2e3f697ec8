"""Train a recurrent network on handwritten digits, a pixel a timestep, with `model.fit`.

    python scripts/train_digits.py --truncation 32
    tensorboard --logdir runs/train_digits

An ordinary Keras script, to which kbptt adds the layer's `truncation` and the two callbacks. Copy
it and insert your own data and model. Its last line is for comparing what it can be given:

    kbptt compare --script scripts/train_digits.py --set truncation=8,64 --seeds 6 \
        --metric val_accuracy
"""

import argparse
import json

import keras
import numpy as np
from sklearn.datasets import load_digits

import kbptt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--truncation", type=int, default=32, help="timesteps (default: 32)")
    parser.add_argument("--units", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--logdir", default="runs/train_digits")
    arguments = parser.parse_args()
    keras.utils.set_random_seed(arguments.seed)

    # Data: (images, 64 timesteps, 1 feature).
    digits = load_digits()
    order = np.random.default_rng(arguments.seed).permutation(len(digits.data))
    x = (digits.data[order] / 16).astype("float32")[:, :, None]
    y = digits.target[order]
    train, test = slice(0, 1500), slice(1500, None)

    # Model: any Keras model; the recurrent layer comes from kbptt.
    rnn = kbptt.LSTM(arguments.units, truncation=arguments.truncation)
    model = keras.Sequential([keras.Input((64, 1)), rnn, keras.layers.Dense(10)])
    model.compile(
        optimizer=keras.optimizers.Adam(arguments.learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = model.fit(
        x[train],
        y[train],
        batch_size=32,
        epochs=arguments.epochs,
        validation_data=(x[test], y[test]),
        callbacks=[
            kbptt.callbacks.ClipByGlobalNorm(1.0),
            kbptt.callbacks.GradientFlow(arguments.logdir, log_freq=20),
        ],
        verbose=2,
    )

    # The gradient of the last training batch: one number for each timestep, oldest first.
    norms = rnn.gradient_norms
    flow = kbptt.analysis.gradient_flow.summarize(norms)
    print(f"The gradient is multiplied by {flow['decay']:.3f} for each timestep into the past;")
    print(f"90 % of it reaches the last {flow['horizon']:.0f} of {len(norms)} timesteps.")
    print(kbptt.tensorboard.command(arguments.logdir))
    # The metrics of every epoch, where `kbptt compare --script` looks for them.
    print(json.dumps(history.history))


if __name__ == "__main__":
    main()
