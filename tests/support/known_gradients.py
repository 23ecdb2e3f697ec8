"""Models whose gradient is their input.

The loss is the mean output, so the rows of the data are the gradients of a kernel, step by step,
and with SGD at learning rate 1 the differences of the weights are what the optimizer was given.
"""

import keras
import numpy as np

from kbptt.callbacks import ClipByGlobalNorm, ClipByNorm, ClipByValue

CLIPS = [ClipByValue, ClipByNorm, ClipByGlobalNorm]


def mean_output(y_true, y_pred):
    return y_pred


def one_kernel(optimizer=None, **compile_arguments):
    """A model whose gradient is its input."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False, name="d")])
    model.compile(optimizer or keras.optimizers.SGD(1.0), mean_output, **compile_arguments)
    model.layers[0].kernel.assign([[0.0], [0.0]])
    return model


def feed(model, gradients, callbacks=(), **arguments):
    gradients = np.asarray(gradients, "float32")
    target = np.zeros((len(gradients), 1))
    fit = {"batch_size": 1, "shuffle": False, "verbose": 0, **arguments}
    return model.fit(gradients, target, callbacks=list(callbacks), **fit)


def weights_of(model):
    return model.get_weights()[0][:, 0]
