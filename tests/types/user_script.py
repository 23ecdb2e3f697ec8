"""What users write: type checkers find no error in it and know what everything is."""

from typing import assert_type

import keras
import numpy as np

import kbptt
from kbptt.callbacks import GradientFlow, ZClip

lstm = kbptt.LSTM(32, truncation=64, return_sequences=True, name="first", dtype="float32")
assert_type(lstm, kbptt.LSTM)
gru = kbptt.GRU(
    32,
    truncation=kbptt.truncation.Windowed(64, stride=16),
    recurrent_initializer=kbptt.initializers.OrthogonalPerGate(),
    recurrent_regularizer=kbptt.regularizers.Orthogonality(),
    gradient_regularizer="vanishing_gradient",
)
rnn = kbptt.SimpleRNN(4, "relu", normalization="layer", gradient_clip=1.0, seed=1)
stack = kbptt.RNN([keras.layers.GRUCell(3), keras.layers.LSTMCell(3)], truncation="artbp")
assert_type(stack.truncation, kbptt.truncation.Truncation)
assert_type(rnn.gradient_clip, float | kbptt.clipping.ByNorm | None)

model = keras.Sequential([keras.Input((None, 8)), lstm, gru, keras.layers.Dense(1)])
model.compile(optimizer="adam", loss="mse")
flow = GradientFlow("logs", log_freq=10)
clips = [ZClip(), kbptt.callbacks.ClipByGlobalNorm(1.0), kbptt.callbacks.ClipByValue(0.1)]
model.fit(np.zeros((4, 16, 8)), np.zeros((4, 1)), callbacks=[flow, *clips])
assert_type(kbptt.convert(model, truncation=32), keras.Model)

norms = lstm.gradient_norms
if norms is not None:
    print(norms.mean(), kbptt.analysis.horizon(norms), kbptt.analysis.summarize(norms))
x, y = np.zeros((4, 16, 8)), np.zeros((4, 1))
monitors = [kbptt.callbacks.SpectralMonitor(x=x), GradientFlow("logs", lag_data=(x, y))]
adapt = kbptt.callbacks.AdaptiveTruncation(data=(x, y, None))
profile = kbptt.analysis.lag_profile(model, x, y, layer=lstm)
print(profile.norms, kbptt.analysis.truncation_bias(model, {"input": x}, y, 16))
lstm.truncation = 32
gru.gradient_regularizer = None
task = kbptt.tasks.get("adding", length=50)
print(kbptt.__version__, task.data(0).train[0].shape, kbptt.clipping)
