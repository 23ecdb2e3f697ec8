"""The built-in methods."""

from typing import Any

from kbptt.methods.method import Method, ref

# Keras's default for recurrent kernels is orthogonal, which would already be a method.
BASE_LAYER = {"recurrent_initializer": "glorot_uniform"}


def _initializer(name: str, **config: Any) -> dict[str, Any]:
    return ref(f"kbptt.initializers:{name}", **config)


def _callback(name: str, description: str, callback: str, **config: Any) -> Method:
    return Method(name, description, callbacks=(ref(f"kbptt.callbacks:{callback}", **config),))


def _states(name: str, description: str) -> Method:
    """A penalty on the states, by the regularizer of the same name."""
    model = ref("kbptt.ablation.models:RegularizeStates", regularizer=name)
    return Method(name, description, model=(model,))


def _kept(identifier: str, source: str) -> Method:
    description = f"recurrent kernel kept orthogonal, per gate, by {source}"
    layer = {"recurrent_parametrization": identifier}
    return Method(f"{identifier}_kernel", description, layer=layer)


def _constrained(name: str, description: str, constraint: str, **config: Any) -> Method:
    layer = {"recurrent_constraint": ref(f"kbptt.constraints:{constraint}", **config)}
    return Method(name, f"{description}, per gate, after every step", layer=layer)


def _band(name: str, margin: float) -> Method:
    """Names that differ in the margin alone, for comparing a soft bound with a hard one."""
    description = f"recurrent singular values kept in 1 ± {margin:g} (Vorontsov 2017)"
    band = {"minimum": 1 - margin, "maximum": 1 + margin}
    return _constrained(name, description, "SpectralNorm", **band)


def _gate_bias(name: str, description: str, initializer: str, **config: Any) -> Method:
    lstm, gru = (
        {"bias_initializer": _initializer(initializer, gates=gates, **config)} for gates in (4, 3)
    )
    cells = {"LSTM": {**lstm, "unit_forget_bias": False}, "GRU": gru}
    return Method(name, description, cell_layer=cells, cells=tuple(cells))


KNOWN = (
    Method("baseline", "Glorot-uniform recurrent kernel and nothing else"),
    # Initializers.
    Method(
        "orthogonal",
        "orthogonal recurrent kernel, per gate (Saxe 2014)",
        layer={"recurrent_initializer": _initializer("OrthogonalPerGate")},
    ),
    Method(
        "identity",
        "identity recurrent kernel, per gate",
        layer={"recurrent_initializer": _initializer("Identity")},
    ),
    Method(
        "irnn",
        "IRNN: identity recurrent kernel, ReLU, small input kernel (Le 2015)",
        layer={
            "recurrent_initializer": _initializer("Identity"),
            "kernel_initializer": ref("keras.initializers:RandomNormal", stddev=0.001),
            "activation": "relu",
        },
        cells=("SimpleRNN",),
    ),
    Method(
        "henaff",
        "block-diagonal rotations by any angle (Henaff 2016)",
        layer={"recurrent_initializer": _initializer("Henaff")},
    ),
    Method(
        "cayley",
        "block-diagonal rotations by up to a right angle (Helfrich 2018)",
        layer={"recurrent_initializer": _initializer("Cayley")},
    ),
    Method(
        "legendre",
        "recurrent kernel of a Legendre memory of the sequence's length (Voelker 2019)",
        layer={"recurrent_initializer": _initializer("Legendre", theta="$timesteps")},
        cells=("SimpleRNN",),
    ),
    _gate_bias(
        "chrono",
        "biases for time scales up to the sequence length (Tallec & Ollivier 2018)",
        "Chrono",
        max_timescale="$timesteps",
    ),
    _gate_bias(
        "uniform_gate", "biases that spread forget gates over 0 to 1 (Gu 2020)", "UniformGate"
    ),
    # Kernels that stay orthogonal, or near.
    _kept("exp", "an exponential (Lezcano-Casado & Martínez-Rubio 2019)"),
    _kept("cayley", "a Cayley transform (Helfrich 2018)"),
    _kept("householder", "reflections (Mhammedi 2017)"),
    _constrained("polar", "recurrent kernel replaced by its polar factor", "Orthogonal"),
    _band("band_0", 0.0),
    _band("band_0.01", 0.01),
    _band("band_0.1", 0.1),
    # Normalization.
    Method(
        "layernorm",
        "layer normalization inside the cell (Ba 2016)",
        layer={"normalization": "layer"},
    ),
    Method(
        "rmsnorm",
        "root-mean-square normalization inside the cell (Zhang & Sennrich 2019)",
        layer={"normalization": "rms"},
    ),
    # Regularizers.
    Method(
        "omega",
        "vanishing-gradient regularizer (Pascanu 2013)",
        layer={"gradient_regularizer": "vanishing_gradient"},
    ),
    Method(
        "orthogonality",
        "penalty on the recurrent kernel's distance from orthogonal, per gate",
        layer={"recurrent_regularizer": ref("kbptt.regularizers:Orthogonality")},
    ),
    _states(
        "norm_stabilizer", "penalty on changes of the norm of the state (Krueger & Memisevic 2016)"
    ),
    _states("ar_tar", "penalty on large and on fast states (Merity 2017)"),
    _callback(
        "penalty",
        "penalty on the squared norm of the gradient, by a finite difference (Zhao 2022)",
        "GradientNormPenalty",
    ),
    _callback(
        "flossing",
        "Lyapunov exponents pushed to 0 before training (Engelken 2023)",
        "GradientFlossing",
        x="$inputs",
    ),
    # In the recurrence.
    Method(
        "zoneout",
        "units keep their value at random: 5 % of h, and in an LSTM half of c (Krueger 2017)",
        layer={"zoneout": 0.05},
        cell_layer={"LSTM": {"zoneout": [0.05, 0.5]}},
    ),
    Method(
        "recurrent_dropout",
        "a quarter of h dropped in the recurrent product, one mask for all timesteps (Gal 2016)",
        layer={"recurrent_dropout": 0.25},
    ),
    Method(
        "h_detach",
        "no gradient through h, but through c or z ⊙ h, at a quarter of all timesteps "
        "(Kanuparthi 2019)",
        layer={"h_detach": 0.25},
        cells=("LSTM", "GRU"),
    ),
    # Clipping.
    _callback(
        "clip",
        "gradient clipped at a global norm of 1 (Pascanu 2013)",
        "ClipByGlobalNorm",
        threshold=1.0,
    ),
    _callback(
        "clip_norm",
        "gradient of every variable clipped at a norm of 1",
        "ClipByNorm",
        threshold=1.0,
    ),
    _callback(
        "clip_value",
        "every element of the gradient clipped at ±0.5",
        "ClipByValue",
        threshold=0.5,
    ),
    _callback(
        "agc",
        "adaptive gradient clipping: by the norm of the weights (Brock 2021)",
        "AdaptiveGradientClip",
    ),
    _callback(
        "autoclip", "clipped at the 10th percentile of past norms (Seetharaman 2020)", "AutoClip"
    ),
    _callback("zclip", "spikes of the norm clipped by their z-score (Kumar 2025)", "ZClip"),
    _callback(
        "adagc", "every variable clipped by the average of its own norms (Wang 2025)", "AdaGC"
    ),
    _callback(
        "stabilizer",
        "every variable's norm replaced by a running estimate (Huang 2025, 2026)",
        "GradientStabilizer",
    ),
    Method(
        "stable_spam",
        "spikes of elements clipped, then `stabilizer` (Stable-SPAM without resets, Huang 2025)",
        callbacks=tuple(ref(f"kbptt.callbacks:{c}") for c in ("AdaClip", "GradientStabilizer")),
    ),
    Method(
        "timestep_clip",
        "∂L/∂h_t clipped at every timestep of the backward pass (Graves 2013)",
        layer={"gradient_clip": 1.0},
    ),
    Method(
        "timestep_clip_norm",
        "the same by the norm per sample, which keeps the direction",
        layer={"gradient_clip": ref("kbptt.clipping:ByNorm", norm=1.0)},
    ),
)
