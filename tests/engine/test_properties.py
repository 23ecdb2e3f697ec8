"""Any combination of options against the reference (hypothesis)."""

import numpy as np
from hypothesis import given, settings, strategies as st
from recurrent import (
    CELLS,
    STATES,
    assert_same,
    differentiate,
    randomize,
    reference,
    running_eagerly,
)

import kbptt
from kbptt.truncation import Windowed


@st.composite
def cases(draw):
    timesteps, batch = draw(st.integers(1, 8)), draw(st.integers(1, 3))
    length = draw(st.none() | st.integers(1, timesteps + 2))
    flags = st.none() | st.lists(st.booleans(), min_size=24, max_size=24)
    return {
        "cell": draw(st.sampled_from(CELLS)),
        "timesteps": timesteps,
        "batch": batch,
        "features": draw(st.integers(1, 3)),
        "units": draw(st.integers(1, 4)),
        "length": length,
        "stride": None if length is None else draw(st.integers(1, length)),
        "align": draw(st.sampled_from(["end", "start"])),
        "mask": draw(flags),
        "resets": draw(flags),
        "dtype": draw(st.sampled_from(["float64", "float32"])),
        "go_backwards": draw(st.booleans()),
        "stateful": draw(st.booleans()),
        "clip": draw(st.sampled_from([None, 0.2])),
        "zero_output_for_mask": draw(st.booleans()),
        "use_bias": draw(st.booleans()),
        "seed": draw(st.integers(0, 99)),
        "engine": draw(st.sampled_from(["native", "tensorflow"])),
    }


@settings(max_examples=80, deadline=None, derandomize=True, database=None)
@given(cases())
def test_any_combination(case):
    c = case
    shape = (c["batch"], c["timesteps"])
    rng = np.random.default_rng(c["seed"])
    x = rng.normal(size=(*shape, c["features"]))
    e = rng.normal(size=(*shape, c["units"]))
    state, d = (
        [rng.normal(size=(c["batch"], c["units"])) for _ in range(STATES[c["cell"]])]
        for _ in range(2)
    )
    masks = {
        name: np.resize(np.array(c[name]), shape)
        for name in ("mask", "resets")
        if c[name] is not None
    }
    layer = getattr(kbptt, c["cell"])(
        c["units"],
        truncation=None if c["length"] is None else Windowed(c["length"], c["stride"], c["align"]),
        gradient_clip=c["clip"],
        dtype=c["dtype"],
        return_sequences=True,
        return_state=True,
        **{k: c[k] for k in ("go_backwards", "stateful", "zero_output_for_mask", "use_bias")},
    )
    layer.build((*shape, c["features"]))
    randomize(layer, c["seed"])
    cast = {"float32": np.float32, "float64": np.float64}[c["dtype"]]
    values = [cast(x), [cast(s) for s in state], cast(e), [cast(v) for v in d]]
    with running_eagerly(c["engine"]):
        if c["stateful"]:
            # The states come from the batch before.
            layer(cast(rng.normal(size=x.shape)), training=True)
            state = [s.numpy() for s in layer.states]
            values[1] = None
        found = differentiate(layer, *values, training=True, **masks)

    def turned(a):
        return a[:, ::-1].copy() if c["go_backwards"] else a

    expected = reference(
        layer,
        turned(x),
        [np.float64(s) for s in state],
        e,
        d,
        c["length"],
        c["stride"],
        c["align"],
        clip=c["clip"],
        zero_output_for_mask=c["zero_output_for_mask"],
        # A stateful layer goes back to a fresh state, not to that of the batch before.
        restart=[np.zeros(s.shape) for s in state] if c["stateful"] else None,
        **{name: turned(m) for name, m in masks.items()},
    )
    expected.x = turned(expected.x)
    if c["stateful"]:
        expected.state = []
    assert_same(found, expected, 1e-10 if c["dtype"] == "float64" else 2e-5)
