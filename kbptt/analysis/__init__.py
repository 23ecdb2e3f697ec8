"""Analysis of gradients and of recurrent networks."""

from kbptt import _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=["adaptive", "gradient_flow", "lags", "linear_rnn", "lyapunov", "spectral"],
    submod_attrs={
        "gradient_flow": [
            "decay_per_step",
            "first_last_ratio",
            "half_life",
            "horizon",
            "nonfinite_fraction",
            "summarize",
            "verdict",
            "zero_fraction",
        ],
        "lags": [
            "LagProfile",
            "SuggestedLength",
            "lag_profile",
            "suggest_truncation",
            "truncation_bias",
        ],
        "lyapunov": ["lyapunov_exponents"],
        "spectral": [
            "gate_blocks",
            "power_alignment",
            "recurrent_layers",
            "singular_values",
            "spectral_radius",
        ],
    },
)
