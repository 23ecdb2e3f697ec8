"""The guide's exercise 1, measured: eigenvalues, powers, and the gradient of every timestep.

    python scripts/eigenvalues.py

Three tables and a figure: (1) M^k has eigenvalues λ_i^k; (2) M^k x turns towards the dominant
eigenvector, by |λ₂/λ₁| per step; (3) the gradient ‖∂L/∂h_t‖ that a layer records inside `model.fit`
changes per timestep by the spectral radius of a linear RNN, and by e^λ, λ the largest Lyapunov
exponent, where activations and gates make the matrix differ from step to step.
"""

import argparse

import keras
import matplotlib
import numpy as np

import kbptt
from kbptt.analysis import gradient_flow, spectral
from kbptt.initializers import SpectralRadius

matplotlib.use("Agg")
import matplotlib.pyplot as plt

POWERS = [1, 2, 5, 10, 20]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--units", type=int, default=16)
    parser.add_argument("--timesteps", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--figure", default="eigenvalues.png", help="file to write")
    arguments = parser.parse_args()
    keras.utils.set_random_seed(arguments.seed)

    figure, panels = plt.subplots(1, 3, figsize=(15, 4.5), layout="constrained")
    matrix, eigenvalues = symmetric_matrix(arguments.seed)
    powers(matrix, eigenvalues, panels[0])
    alignment(matrix, eigenvalues, panels[1])
    gradients(arguments.units, arguments.timesteps, panels[2])
    figure.savefig(arguments.figure, dpi=120)
    print(f"\nFigure: {arguments.figure}")


def symmetric_matrix(seed: int) -> tuple[np.ndarray, np.ndarray]:
    eigenvalues = np.array([1.1, -0.95, 0.7, 0.3])
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(4, 4)))
    return q @ np.diag(eigenvalues) @ q.T, eigenvalues


def powers(matrix: np.ndarray, eigenvalues: np.ndarray, panel: plt.Axes) -> None:
    """(1) The eigenvalues of M^k, computed from M^k, and λ_i^k."""
    print("Eigenvalues of M^k, computed from M^k, and their largest distance to λ_i^k")
    print(f"{'k':>4}" + "".join(f"{f'λ_{i + 1}^k':>12}" for i in range(4)) + f"{'distance':>12}")
    for k in POWERS:
        found = spectral.eigenvalues_of_power(matrix, k).real
        distance = np.abs(found - eigenvalues**k).max()
        print(f"{k:>4}" + "".join(f"{value:>12.4f}" for value in found) + f"{distance:>12.1e}")
        panel.plot([k] * 4, np.abs(found), "ko", ms=4, label="of $M^k$" if k == 1 else None)
    k = np.arange(1, 21)
    for i, value in enumerate(eigenvalues):
        panel.plot(k, abs(value) ** k, label=rf"$|\lambda_{i + 1}|^k$, $\lambda$ = {value:g}")
    panel.set(yscale="log", xlabel="k", ylabel="|eigenvalue|", title="Powers of eigenvalues")
    panel.set_xticks([0, *POWERS[2:]])
    panel.legend(loc="lower left")


def alignment(matrix: np.ndarray, eigenvalues: np.ndarray, panel: plt.Axes) -> None:
    """(2) The angle between M^k x and the dominant eigenvector, for five random x."""
    ratio = abs(eigenvalues[1] / eigenvalues[0])
    print(f"\nAngle of M^k x to the dominant eigenvector; |λ₂/λ₁| = {ratio:.4f}")
    print(f"{'k':>4}{'|cos|':>12}{'tan':>12}{'bound':>12}")
    for seed in range(5):
        cosines = np.minimum(spectral.power_alignment(matrix, 60, seed=seed), 1.0)
        tangents = np.tan(np.arccos(cosines))
        panel.plot(tangents, color="C0", lw=1, label="tan of the angle" if seed == 0 else None)
        bound = tangents[0] * ratio ** np.arange(61)
        if seed == 0:
            for k in [0, *POWERS, 60]:
                print(f"{k:>4}{cosines[k]:>12.6f}{tangents[k]:>12.2e}{bound[k]:>12.2e}")
            panel.plot(bound, "k--", lw=1, label=r"$|\lambda_2/\lambda_1|^k$")
    panel.set(yscale="log", xlabel="k", ylabel="tan(angle)", title="$M^k x$ turns to $v_1$")
    panel.legend()


def gradients(units: int, timesteps: int, panel: plt.Axes) -> None:
    """(3) ‖∂L/∂h_t‖ from inside `fit`, for a loss at the last timestep."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, timesteps, 3)).astype("float32")
    y = rng.normal(size=(8, 1)).astype("float32")
    linear = {"activation": "linear", "use_bias": False}
    rows = [
        (f"linear, radius {radius:g}", kbptt.SimpleRNN, radius, linear)
        for radius in (0.9, 0.97, 1.0, 1.03)
    ]
    rows += [
        ("tanh RNN", kbptt.SimpleRNN, 1.0, {}),
        ("GRU", kbptt.GRU, 1.0, {}),
        ("LSTM", kbptt.LSTM, 1.0, {}),
    ]
    print("\nChange of the gradient per timestep into the past, a random recurrent kernel")
    print(f"{'layer':<22}{'spectral radius':>16}{'e^λ Lyapunov':>16}{'measured':>12}")
    for name, layer_class, radius, options in rows:
        initializer = SpectralRadius(radius, "random_normal", seed=1)
        layer = layer_class(units, recurrent_initializer=initializer, **options)
        norms = measured_norms(layer, x, y)
        # The half far from the loss: near it the gradient still turns towards growing directions.
        far = timesteps // 2
        decay = gradient_flow.decay_per_step(norms[:far])
        (exponent,) = kbptt.analysis.lyapunov_exponents(layer, x, burn_in=far)
        print(f"{name:<22}{radius:>16.3f}{np.exp(exponent):>16.4f}{decay:>12.4f}")
        (line,) = panel.plot(norms, label=name)
        if options:  # linear: the line with the slope that the spectral radius gives
            slope = norms[far] * radius ** (far - np.arange(timesteps))
            panel.plot(slope, "--", color=line.get_color(), lw=1)
    panel.set(yscale="log", xlabel="timestep t", ylabel=r"$\|\partial L/\partial h_t\|$")
    panel.set_title("Gradient of every timestep; dashed: radius$^{T-t}$")
    panel.set_ylim(1e-22, None)
    panel.legend(fontsize="small", ncols=2, loc="lower left")


def measured_norms(layer: keras.Layer, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The norms that the layer records in one training step with a learning rate of 0."""
    model = keras.Sequential([keras.Input(x.shape[1:]), layer, keras.layers.Dense(1)])
    # For a single step, compiling a train function would take longer than eager execution.
    model.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=True)
    model.fit(x, y, batch_size=len(x), verbose=0)
    return layer.gradient_norms


if __name__ == "__main__":
    main()
