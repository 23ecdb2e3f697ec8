"""What cannot be trained on a stream is said in one sentence, before training."""

import keras
import numpy as np
import pytest

import kbptt
from kbptt.callbacks import StreamState
from kbptt.data import Streams

LENGTH, ROWS = 4, 3
X = np.random.default_rng(0).normal(size=(60, 2)).astype("float32")


def stream(**options):
    return Streams(X, X, **{"target": None, "length": LENGTH, "batch_size": ROWS, **options})


def model(*layers, inputs=(None, 2), **compiled):
    found = keras.Sequential([keras.Input(inputs), *layers, keras.layers.Dense(2)])
    found.compile("sgd", "mse", **compiled)
    return found


def lstm(**options):
    return kbptt.LSTM(2, return_sequences=True, **options)


def refused(match, model, *given, callbacks=None, **arguments):
    """`fit` raises the sentence and has trained nothing."""
    data = given[0]
    callbacks = [StreamState(data)] if callbacks is None else callbacks
    before = model.get_weights()
    with pytest.raises(ValueError, match=match):
        model.fit(*given, callbacks=callbacks, verbose=0, **arguments)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("run", ["fit", "evaluate", "predict"])
@pytest.mark.parametrize(
    "layer, match",
    [
        (
            lambda: keras.layers.Bidirectional(lstm(), name="both"),
            "reads a window from its end .*Bidirectional",
        ),
        (lambda: lstm(go_backwards=True, name="back"), "'back' reads a window from its end"),
        (
            lambda: keras.layers.GRU(2, return_sequences=True, name="gru"),
            "'gru' is one of Keras's, whose state .* cannot carry.*kbptt.convert",
        ),
        (lambda: keras.layers.Dense(2), "has no recurrent kbptt layer"),
    ],
    ids=["Bidirectional", "go_backwards", "Keras's", "none"],
)
def test_layers_that_carry_nothing_on(layer, match, run):
    if run == "fit":
        refused(match, model(layer()), stream())
    else:
        with pytest.raises(ValueError, match=match):
            getattr(kbptt, f"{run}_stream")(model(layer()), stream())


def test_one_layer_called_twice():
    inputs, layer = keras.Input((None, 2)), lstm(name="shared")
    twice = keras.Model(inputs, layer(layer(inputs)))
    twice.compile("sgd", "mse")
    refused("'shared' is called twice by the model. Use two layers", twice, stream())
    with pytest.raises(ValueError, match="'shared' is called twice"):
        kbptt.predict_stream(twice, stream())


def test_other_data_than_those_of_the_callback():
    refused(
        "expected the Streams passed to StreamState, and received different data",
        model(lstm()), X[None], X[None], callbacks=[StreamState(stream())],
    )  # fmt: skip
    data = stream()
    model(lstm()).fit(data, verbose=0, callbacks=[StreamState(data)])
    refused(
        "received different data.*Batches of arrays, which `fit` shuffles",
        model(lstm()), X[None], X[None], callbacks=[StreamState(data)],
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"`data` expected the kbptt.data.Streams.*ndarray"):
        StreamState(X)


@pytest.mark.parametrize("name", ["y", "sample_weight", "class_weight"])
def test_what_streams_have_themselves(name):
    refused(
        f"expected only Streams, which have targets and weights, and also received `{name}`",
        model(lstm()), stream(), **{name: {0: 1.0} if name == "class_weight" else X},
    )  # fmt: skip


def test_windows_whose_states_nobody_carries_on_are_warned_of():
    found = model(lstm())
    for method in ("fit", "evaluate", "predict"):
        cure = "add kbptt.callbacks.StreamState" if method == "fit" else f"kbptt.{method}_stream"
        match = f"`{method}` reads windows of Streams, each starting from initial .*{cure}"
        with pytest.warns(UserWarning, match=match):
            getattr(found, method)(stream(), verbose=0)
    data = stream()
    found.fit(data, validation_data=stream(), verbose=0, callbacks=[StreamState(data)])


def test_a_part_of_an_epoch():
    data = stream()
    assert len(data) > 2
    refused(
        f"An epoch of these Streams has {len(data)} windows, but `fit` received a number of 2",
        model(lstm()), data, steps_per_epoch=2,
    )  # fmt: skip


def test_packed_sequences_and_a_layer_without_resets():
    x, resets = keras.Input((None, 2)), keras.Input((None,), dtype="bool")
    h = kbptt.GRU(2, return_sequences=True)(x, resets=resets)
    h = kbptt.GRU(2, return_sequences=True, name="second")(h)
    without = keras.Model([x, resets], h)
    without.compile("sgd", "mse")
    refused(r"'second' expected `resets`.*pack=True", without, stream(pack=True))


def test_arrays_in_place_of_streams():
    for function in (kbptt.evaluate_stream, kbptt.predict_stream):
        with pytest.raises(ValueError, match=r"expected kbptt.data.Streams. Received: ndarray"):
            function(model(lstm()), X)


def test_two_callbacks():
    data = stream()
    refused(
        "Two StreamState callbacks in one fit", model(lstm()), data,
        callbacks=[StreamState(data), StreamState(data)],
    )  # fmt: skip


def test_a_layer_behind_one_that_shortens_the_sequence():
    pooled = model(keras.layers.MaxPooling1D(2), lstm(name="late"))
    data = stream()
    refused(
        r"'late' expected the windows .* \(batch, timesteps\) = \(3, 4\). Received \(3, 2\)",
        pooled, data,
    )  # fmt: skip


def test_steps_per_execution_that_does_not_fit_where_training_goes_on():
    data = stream()
    data.seek(1)
    refused(
        "resumes at window 1 of an epoch, so `steps_per_execution` must divide it",
        model(lstm(), steps_per_execution=2), data,
    )  # fmt: skip


def test_files_of_others(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    path = tmp_path / "state.npz"

    def interrupted():
        data = stream()
        with pytest.raises(KeyboardInterrupt):
            callbacks = [StreamState(data, path, save_freq=1), Stop()]
            model(lstm()).fit(data, verbose=0, callbacks=callbacks)
        return path.read_bytes()

    written = interrupted()
    data = stream(seed=7)
    refused(
        "belongs to different Streams: `seed` is 7, and was 0", model(lstm()), data,
        callbacks=[StreamState(data, path)],
    )  # fmt: skip
    data = stream()
    refused(
        "belongs to a different model, optimizer, or list of callbacks. Expected .*kernel of shape",
        model(kbptt.GRU(2, return_sequences=True)), data, callbacks=[StreamState(data, path)],
    )  # fmt: skip
    for damaged in (written[: len(written) // 2], b"", b"something else", np.zeros(3).tobytes()):
        path.write_bytes(damaged)
        data = stream()
        refused(
            "cannot read .*state.npz. Expected a file written", model(lstm()), data,
            callbacks=[StreamState(data, path)],
        )  # fmt: skip
    with open(path, "wb") as file:
        np.savez(file, weights=np.zeros(3))
    refused("cannot read .*state.npz", model(lstm()), data, callbacks=[StreamState(data, path)])
    # `fit` that ends removes the file, and a new run begins anew.
    path.unlink()
    data = stream()
    model(lstm()).fit(data, verbose=0, callbacks=[StreamState(data, path, save_freq=1)])
    assert not path.exists() and data.position == len(data)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "batch", True])
def test_save_freq(wrong):
    with pytest.raises(ValueError, match="save_freq"):
        StreamState(stream(), "state.npz", save_freq=wrong)


def test_outputs_that_are_not_one_for_each_target():
    last = model(kbptt.LSTM(2))
    refused(r"expected outputs \(batch, timesteps, …\).*`return_sequences=True`", last, stream())
    data = Streams([X, X], np.zeros((2, 2)), target="last", length=LENGTH, batch_size=ROWS)
    refused(r"`target='last'` expected one output .*`return_sequences=False`", model(lstm()), data)


@pytest.mark.parametrize("wrong", [(X, X), {"a": X}])
def test_several_inputs(wrong):
    with pytest.raises(ValueError, match=r"models on streams have one input. Received a"):
        Streams(wrong, length=LENGTH)


def test_flags():
    for name in ("context_gradient", "pack"):
        with pytest.raises(ValueError, match=f"`{name}`. Expected True or False"):
            stream(**{name: "no"})
    for wrong in (False, 1, "given", None):
        with pytest.raises(ValueError, match="offset"):
            stream(offset=wrong)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    data = stream()
    with pytest.raises(OSError):
        found = model(lstm())
        found.fit(data, verbose=0, callbacks=[StreamState(data, tmp_path / "file" / "state.npz")])
