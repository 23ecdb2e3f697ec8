"""Recurrent layers with truncated backpropagation through time, in the place of Keras's own."""

from kbptt.layers.convert import convert
from kbptt.layers.gru import GRU
from kbptt.layers.lstm import LSTM
from kbptt.layers.rnn import RNN
from kbptt.layers.simple_rnn import SimpleRNN

__all__ = ["GRU", "LSTM", "RNN", "SimpleRNN", "convert"]
