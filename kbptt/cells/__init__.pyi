from . import layer_norm as layer_norm, names as names
from .activations import ACTIVATION as ACTIVATION, Activation as Activation
from .base import Cell as Cell, Step as Step, Weights as Weights
from .names import NAMES as NAMES
from .registry import CELLS as CELLS, make as make
