"""The arrays of the compiled loops, by the names of `Problem`."""

import numpy as np

from kbptt.cells.base import Weights

STATES = ("h_start", "c_start")
RESTARTS = ("h_restart", "c_restart")
FINALS = ("dh_final", "dc_final")  # gradients of the final states
# What a forward pass may be given.
BESIDE = (
    "mask",
    "resets",
    "x_masks",
    "h_masks",
    "zoneout_key",
)  # no gradient is asked for of these
GIVEN = ("x", *Weights._fields, *STATES, *RESTARTS, *BESIDE)

# What a forward pass keeps for the backward pass besides h.
RESIDUALS = ("c", "gates", "slots")

# Sizes of what is given, with the letters of ``native/problem.hpp``: the loops trust them.
SHAPES = {
    "x": "BTD",
    "kernel": "DN",
    "recurrent_kernel": "uN",
    **dict.fromkeys(("bias", "input_gain", "recurrent_gain"), "N"),
    **dict.fromkeys(("recurrent_bias", "state_gain", "state_bias"), "u"),
    **dict.fromkeys((*STATES, *RESTARTS, *FINALS), "Bu"),
    **dict.fromkeys(("h", "dh"), "BTu"),
    **dict.fromkeys(("mask", "resets"), "BT"),
    **dict.fromkeys(("factors", "through_factors"), "TB"),
    "x_masks": "gBD",
    "h_masks": "gBu",
}


def check_shapes(arrays: dict[str, np.ndarray]) -> tuple[int, int, int, int]:
    """Returns (batch, timesteps, features, units).

    Args:
        arrays: By the names of `Problem`; `x` and `recurrent_kernel` say what the others must be.

    Raises:
        ValueError: If the shape of another one is different.
    """
    batch, timesteps, features = arrays["x"].shape
    units, columns = arrays["recurrent_kernel"].shape
    sizes = {"B": batch, "T": timesteps, "D": features, "u": units, "N": columns}
    sizes["g"] = columns // units
    for name in arrays.keys() & SHAPES.keys():
        expected = tuple(sizes[letter] for letter in SHAPES[name])
        if arrays[name].shape != expected:
            raise ValueError(
                f"The recurrent loop expected `{name}` of shape {expected} for `x` of shape "
                f"{arrays['x'].shape}. Received shape {arrays[name].shape}."
            )
    return batch, timesteps, features, units
