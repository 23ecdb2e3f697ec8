"""Changes of a whole model that a method can ask for."""

from typing import Any


class RegularizeStates:
    """Adds a penalty on the states of every recurrent layer, at all timesteps.

    A layer that returns only its last output is changed to return the whole sequence, of which the
    last output is selected afterwards. Weights, names and seeds are unchanged.

    Args:
        regularizer: Name, config or object: "norm_stabilizer", "ar_tar", …
    """

    def __init__(self, regularizer: Any):
        self.regularizer = regularizer

    def __call__(self, model: Any) -> Any:
        import keras

        from kbptt.regularizers import SequenceRegularization

        first, *layers = model.layers
        if len(model.inputs) != 1 or not isinstance(first, keras.layers.InputLayer):
            raise ValueError(
                f"Expected a chain of layers with one input, as `kbptt.tasks.build_model` makes. "
                f"Received: model {model.name!r} with {len(model.inputs)} inputs."
            )
        inputs = x = model.inputs[0]
        for layer in layers:
            config = layer.get_config()
            recurrent = isinstance(layer, keras.layers.RNN)
            if recurrent:
                config["return_sequences"] = True
            x = type(layer).from_config(config)(x)
            if recurrent:
                x = SequenceRegularization(self.regularizer, name=f"{layer.name}_states")(x)
                if not layer.return_sequences:
                    x = x[:, -1]
        return keras.Model(inputs, x, name=model.name)
