from . import (
    ablation as ablation,
    analysis as analysis,
    callbacks as callbacks,
    clipping as clipping,
    constraints as constraints,
    data as data,
    engine as engine,
    initializers as initializers,
    layers as layers,
    methods as methods,
    normalization as normalization,
    optimizers as optimizers,
    parametrizations as parametrizations,
    regularizers as regularizers,
    streams as streams,
    tasks as tasks,
    tensorboard as tensorboard,
    truncation as truncation,
)
from .explanation import explain as explain
from .layers import GRU as GRU, LSTM as LSTM, RNN as RNN, SimpleRNN as SimpleRNN, convert as convert
from .streams import (
    evaluate_stream as evaluate_stream,
    predict_stream as predict_stream,
    streaming as streaming,
)

__version__: str
