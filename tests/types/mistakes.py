"""Mistakes that type checkers find. An ignore without an error on its line is an error itself."""

import keras

import kbptt
from kbptt.callbacks import GradientFlow
from kbptt.truncation import Windowed

_ = kbptt.LTSM(32)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
_ = kbptt.LSTM(32, truncaton=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
_ = kbptt.LSTM(32, return_sequence=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
_ = kbptt.LSTM("32")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
_ = kbptt.LSTM()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
_ = kbptt.GRU(32, truncation=0.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
_ = kbptt.GRU(32, use_cudnn="no")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
_ = kbptt.SimpleRNN(32, nmae="a")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
_ = kbptt.RNN(32)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
_ = kbptt.RNN(keras.layers.GRUCell(3), normalization="layer")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
_ = Windowed(64, stide=16)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
_ = Windowed(64, align="middle")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
_ = Windowed("64")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
_ = GradientFlow("logs", log_frequency=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
_ = GradientFlow("logs", log_freq="batch")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
_ = GradientFlow("logs").lag_freq.upper()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
_ = kbptt.callbacks.ClipByNorm("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
_ = kbptt.callbacks.Zclip()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
kbptt.convert("model")  # pyright: ignore[reportArgumentType]
kbptt.convert(keras.Model(), trunc=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
kbptt.analysis.horizons([1.0])  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
