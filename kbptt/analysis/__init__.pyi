from . import (
    adaptive as adaptive,
    evidence as evidence,
    findings as findings,
    flossing as flossing,
    gradient_flow as gradient_flow,
    lags as lags,
    linear_rnn as linear_rnn,
    lyapunov as lyapunov,
    spectral as spectral,
    summary as summary,
    thresholds as thresholds,
)
from .evidence import Evidence as Evidence, LayerEvidence as LayerEvidence
from .findings import Finding as Finding, find_faults as find_faults
from .flossing import flossing_loss as flossing_loss
from .gradient_flow import (
    decay_per_step as decay_per_step,
    first_last_ratio as first_last_ratio,
    half_life as half_life,
    horizon as horizon,
    nonfinite_fraction as nonfinite_fraction,
    summarize as summarize,
    verdict as verdict,
    zero_fraction as zero_fraction,
)
from .lags import (
    LagProfile as LagProfile,
    SuggestedLength as SuggestedLength,
    lag_profile as lag_profile,
    suggest_truncation as suggest_truncation,
    truncation_bias as truncation_bias,
)
from .layer_health import Gate as Gate, LayerHealth as LayerHealth, health as health
from .lyapunov import lyapunov_exponents as lyapunov_exponents
from .spectral import (
    gate_blocks as gate_blocks,
    power_alignment as power_alignment,
    recurrent_layers as recurrent_layers,
    singular_values as singular_values,
    spectral_radius as spectral_radius,
)
from .thresholds import Thresholds as Thresholds
