"""Drop-in replacements for Keras's recurrent layers, with truncated BPTT."""

from kbptt.layers.convert import convert
from kbptt.layers.gru import GRU
from kbptt.layers.lstm import LSTM
from kbptt.layers.rnn import RNN
from kbptt.layers.simple_rnn import SimpleRNN

__all__ = ["GRU", "LSTM", "RNN", "SimpleRNN", "convert"]
