from . import gradient_flow as gradient_flow, gradient_transform as gradient_transform
from .ada_clip import AdaClip as AdaClip
from .ada_gc import AdaGC as AdaGC
from .adaptive_gradient_clip import AdaptiveGradientClip as AdaptiveGradientClip
from .adaptive_truncation import AdaptiveTruncation as AdaptiveTruncation
from .auto_clip import AutoClip as AutoClip
from .clip_by_global_norm import ClipByGlobalNorm as ClipByGlobalNorm
from .clip_by_norm import ClipByNorm as ClipByNorm
from .clip_by_value import ClipByValue as ClipByValue
from .gradient_flossing import GradientFlossing as GradientFlossing
from .gradient_flow import GradientFlow as GradientFlow
from .gradient_norm import GradientNorm as GradientNorm
from .gradient_norm_penalty import GradientNormPenalty as GradientNormPenalty
from .gradient_stabilizer import GradientStabilizer as GradientStabilizer
from .gradient_transform import GradientTransform as GradientTransform
from .spectral_monitor import SpectralMonitor as SpectralMonitor
from .stream_state import StreamState as StreamState
from .z_clip import ZClip as ZClip
