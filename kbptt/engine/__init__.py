"""The time loop and its gradient: numerics on tensors, knowing nothing of Keras layers.

* `bptt`: forward loop, windowed backward loop, gradients (read this first);
* `blocks`: how a truncated backward pass looks at time as blocks that run side by side;
* `steps`: what one timestep does, for SimpleRNN, GRU, LSTM and for any cell;
* `normalized`: the layer-normalised steps;
* `factors`: the random factors of randomized truncation;
* `autodiff`: the same by an ordinary loop, for gradients of gradients;
* `compiled`: XLA, and how to run without it.
"""

from kbptt.engine.autodiff import autodiff_loop
from kbptt.engine.bptt import BPTT, Monitor, Options
from kbptt.engine.compiled import differentiable, is_differentiable
from kbptt.engine.factors import draw_factors
from kbptt.engine.normalized import center, standardize

__all__ = [
    "BPTT",
    "Monitor",
    "Options",
    "autodiff_loop",
    "center",
    "differentiable",
    "draw_factors",
    "is_differentiable",
    "standardize",
]
