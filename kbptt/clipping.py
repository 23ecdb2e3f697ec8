"""`ByNorm` for ``gradient_clip=``, and the functions of `kbptt.optimizers.clipping`."""

from kbptt.gradient_clip import ByNorm as ByNorm
from kbptt.optimizers.clipping import *  # noqa: F403
