from . import (
    adaptive as adaptive,
    flossing as flossing,
    gradient_flow as gradient_flow,
    lags as lags,
    linear_rnn as linear_rnn,
    lyapunov as lyapunov,
    spectral as spectral,
)
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
from .lyapunov import lyapunov_exponents as lyapunov_exponents
from .spectral import (
    gate_blocks as gate_blocks,
    power_alignment as power_alignment,
    recurrent_layers as recurrent_layers,
    singular_values as singular_values,
    spectral_radius as spectral_radius,
)
