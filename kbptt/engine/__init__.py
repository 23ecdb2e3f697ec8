"""The time loop and its gradient: numerics on tensors, knowing nothing of Keras layers.

* `bptt`: forward loop, windowed backward loop, gradients (read this first);
* `loop`: what the engines share: options, what they measure, how they own their gradient;
* `blocks`: how a truncated backward pass looks at time as blocks that run side by side;
* `steps`: what one timestep does, for SimpleRNN, GRU, LSTM and for any cell;
* `normalized`: the layer-normalised steps;
* `effects`: variables that the backward pass reads and writes;
* `factors`: the random factors of randomized truncation;
* `autodiff`: the same by an ordinary loop, for gradients of gradients;
* `compiled`: XLA, and how to run without it;
* `cpu`: the same plan by loops compiled from C (`native`), for the plain layers on a CPU.
"""

from kbptt.engine.autodiff import autodiff_loop
from kbptt.engine.bptt import BPTT
from kbptt.engine.compiled import differentiable, is_differentiable
from kbptt.engine.cpu import NativeBPTT, NativeWeights
from kbptt.engine.effects import Effects, in_control_flow
from kbptt.engine.effects import are_possible as effects_are_possible
from kbptt.engine.factors import draw_factors
from kbptt.engine.loop import Backward, Loop, Monitor, Options, Resets
from kbptt.engine.normalized import center, standardize

__all__ = [
    "BPTT",
    "Backward",
    "Effects",
    "Loop",
    "Monitor",
    "NativeBPTT",
    "NativeWeights",
    "Options",
    "Resets",
    "autodiff_loop",
    "center",
    "differentiable",
    "draw_factors",
    "effects_are_possible",
    "in_control_flow",
    "is_differentiable",
    "standardize",
]
