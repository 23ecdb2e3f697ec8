"""Names, metadata and window edges."""

import json

import pytest
from hypothesis import given, strategies as st

from kbptt.tensorboard import layout


@given(st.lists(st.text(max_size=100), max_size=20))
def test_names_are_unique_single_components(names):
    unique = layout.unique_names(names)
    assert len(set(unique)) == len(names)
    for name in unique:
        assert name.strip(".") and not set(name) & set("/\\ <>\"'&\n")
        assert layout.kind_of(layout.profile_tag(name)) == (name, layout.KINDS[layout.PROFILE])


def test_readable_names_stay():
    names = ["lstm", "größe", "层", "lstm", "../../x", "a b", "", "lstm_2"]
    expected = ["lstm", "größe", "层", "lstm_2", "_.._x", "a_b", "layer", "lstm_2_2"]
    assert layout.unique_names(names) == expected


@given(st.text(max_size=64), st.integers(1, 10**9), st.integers(1, 10**9))
def test_content_is_short_and_valid(layer, window, stride):
    encoded = layout.content(layout.safe_name(layer), "last", window, stride, "start")
    fields = layout.parse_content(encoded)
    assert len(encoded) < 150
    assert fields["v"] == 1 and fields["window"] == window and fields["align"] == "start"
    assert layout.safe_name(layer).startswith(fields["layer"])


def test_foreign_content_is_no_error():
    for encoded in (b"", b"\xff", b"[1]", json.dumps(3).encode(), b"[" * 100_000, b"9" * 10_000):
        assert layout.parse_content(encoded) == {}


@pytest.mark.parametrize(
    "foreign",
    [
        {"window": "8"},
        {"window": -3},
        {"window": True},
        {"window": 2.0},
        {"window": [1]},
        {"align": {"end": 1}},
        {"loss": []},
        {"overlap": 1},
        {"stride": None},
        {"v": "x", "by_lag": True, "max_step": "x", "__proto__": {}},
        {"layer": [[]]},
    ],
)
def test_only_valid_fields_of_content_are_taken(foreign):
    encoded = json.dumps({"v": 1, "loss": "last", "window": 5, **foreign}).encode()
    expected = {"v": 1, "loss": "last", "window": 5}
    assert layout.parse_content(encoded) == {
        name: value for name, value in expected.items() if name not in foreign
    }


@pytest.mark.parametrize(
    ("timesteps", "window", "align", "edges"),
    [
        (10, 4, "end", [2, 6]),
        (10, 4, "start", [4, 8]),
        (8, 4, "end", [4]),
        (8, 4, "start", [4]),
        (8, 8, "end", []),
        (8, None, "end", []),
        (3, 1, "end", [1, 2]),
    ],
)
def test_window_edges(timesteps, window, align, edges):
    assert layout.window_edges(timesteps, window, align) == edges
