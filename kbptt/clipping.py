"""The functions of `kbptt.optimizers.clipping`, under the name they had first."""

from kbptt.optimizers.clipping import *  # noqa: F403
