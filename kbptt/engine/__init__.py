"""The time loop and its gradient: numerics on tensors, independent of Keras layers.

* `gradient`: how a loop owns its gradient, and the one context of a call (read this first);
* `tensorflow`: the loop in TensorFlow, for any cell; `recurrence` is its backward pass over all
  windows at once, `blocks` how it looks at time, `cell` the step of any Keras cell;
* `cpu`: the same plan by loops compiled from C++ (`native`), for the plain layers on a CPU; `plan`
  shares its work over threads, `numpy_op` puts it into a graph;
* `autodiff`: the same by an ordinary loop, for higher-order gradients;
* `influence`: what SnAp-1 carries from call to call; `by_row` is how the C++ loops find it;
* `settings`: threads, compilers, memory: nothing that affects results;
* `effects`: variables that the backward pass reads and writes;
* `factors`: the random factors of randomized truncation;
* `compiled`: XLA; `tensors`: small operations that the loops share.
"""

from kbptt.engine.autodiff import AutodiffLoop
from kbptt.engine.cell import CellStep
from kbptt.engine.cpu import CPULoop
from kbptt.engine.effects import Effects, are_possible as effects_are_possible, in_control_flow
from kbptt.engine.factors import draw_factors
from kbptt.engine.gradient import (
    Context,
    Dropout,
    Loop,
    Monitor,
    Observation,
    Options,
    Resets,
)
from kbptt.engine.influence import Influence
from kbptt.engine.settings import Settings, differentiable, settings, using
from kbptt.engine.tensorflow import TensorFlowLoop

__all__ = [
    "AutodiffLoop",
    "CPULoop",
    "CellStep",
    "Context",
    "Dropout",
    "Effects",
    "Influence",
    "Loop",
    "Monitor",
    "Observation",
    "Options",
    "Resets",
    "Settings",
    "TensorFlowLoop",
    "differentiable",
    "draw_factors",
    "effects_are_possible",
    "in_control_flow",
    "settings",
    "using",
]
