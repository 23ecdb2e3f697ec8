"""Truncated gradients against a reference that truncates every loss window on its own."""

import itertools

import numpy as np
import pytest
from recurrent import CELLS, assert_same, data, differentiate, make, reference

from kbptt.analysis import linear_rnn
from kbptt.truncation import Full, Windowed

T = 9
# Every (length, stride) relation to T and to each other: dividing or not, touching T, beyond T.
SIZES = [(1, 1), (3, 3), (4, 4), (4, 2), (5, 3), (4, 1), (7, 5), (8, 8), (9, 2), (20, 6)]

pytestmark = pytest.mark.usefixtures("eager")


@pytest.mark.parametrize("cell", CELLS)
def test_windows_are_the_sum_of_losses_truncated_one_by_one(cell):
    layer = make(cell)
    problem = data(cell, T)
    for (length, stride), align in itertools.product(SIZES, ["end", "start"]):
        layer.truncation = Windowed(length, stride, align)
        found = differentiate(layer, *problem)
        assert_same(found, reference(layer, *problem, length, stride, align))


@pytest.mark.parametrize("cell", CELLS)
def test_a_window_of_the_whole_sequence_is_full_bptt(cell):
    layer = make(cell)
    problem = data(cell, T)
    full = differentiate(layer, *problem)
    for length, stride in [(T, T), (T, 1), (T + 1, 4), (1000, 1000), (1000, 3)]:
        layer.truncation = Windowed(length, stride)
        for a, b in zip(flat(differentiate(layer, *problem)), flat(full), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("cell", CELLS)
def test_the_gradient_of_one_loss_is_exactly_zero_beyond_its_window(cell):
    """TBPTT(1, length): the loss at t reaches the inputs of timesteps t − length + 1 … t."""
    length = 3
    layer = make(cell, truncation=Windowed(length, 1))
    x, state, e, _ = data(cell, T)
    for t in range(T):
        only = np.zeros_like(e)
        only[:, t] = e[:, t]
        dx, d_state, _, norms, *_ = differentiate_outputs(layer, x, state, only)
        inside = (np.arange(T) > t - length) & (np.arange(T) <= t)
        assert np.all(dx[:, ~inside] == 0)
        assert np.all(np.any(dx[:, inside] != 0, axis=-1))
        np.testing.assert_array_equal(norms > 0, inside)
        assert np.any(d_state[0] != 0) == (t < length)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("align", ["end", "start"])
def test_the_gradient_of_one_loss_is_exactly_zero_beyond_its_chunk(cell, align):
    length = 4
    layer = make(cell, truncation=Windowed(length, align=align))
    x, state, e, _ = data(cell, T)
    first = T % length if align == "end" else 0  # 9 = 1 + 4 + 4 from the end, 4 + 4 + 1 otherwise
    chunk = (np.arange(T) - first) // length
    for t in range(T):
        only = np.zeros_like(e)
        only[:, t] = e[:, t]
        dx, d_state, *_ = differentiate_outputs(layer, x, state, only)
        inside = (chunk == chunk[t]) & (np.arange(T) <= t)
        assert np.all(dx[:, ~inside] == 0)
        assert np.all(np.any(dx[:, inside] != 0, axis=-1))
        assert np.any(d_state[0] != 0) == (chunk[t] == chunk[0])


def test_alignments_agree_where_the_stride_divides_the_timesteps():
    problem = data("GRU", 8)
    for length, stride in [(4, 4), (5, 2)]:
        found = [
            flat(differentiate(make("GRU", truncation=Windowed(length, stride, align)), *problem))
            for align in ["end", "start"]
        ]
        for a, b in zip(*found, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_the_forward_pass_does_not_depend_on_truncation(cell):
    layer = make(cell)
    x, state, e, d = data(cell, T)
    *_, outputs, final = differentiate(layer, x, state, e, d)
    for truncation in [1, 4, Windowed(5, 2, "start"), Full(), "artbp"]:
        layer.truncation = truncation
        *_, other, other_final = differentiate(layer, x, state, e, d)
        np.testing.assert_array_equal(other, outputs)
        np.testing.assert_array_equal(other_final, final)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("length", "stride"), [(None, None), (4, 4), (20, 20), (4, 2), (5, 1)])
def test_only_the_last_output(cell, length, stride):
    """Without `return_sequences` nothing but the last window has a gradient."""
    truncation = None if length is None else Windowed(length, stride)
    layer = make(cell, truncation=truncation, return_sequences=False)
    x, state, e, d = data(cell, T)
    found = differentiate(layer, x, state, None, d)
    expected = reference(layer, x, state, 0 * e, d, length, stride)
    expected.outputs = expected.outputs[:, -1]
    assert_same(found, expected)


class TestGuide:
    """Section 2 of the guide: a linear RNN without bias against its closed formulas."""

    def problem(self, **arguments):
        layer = make("SimpleRNN", activation="linear", use_bias=False, **arguments)
        kernel, recurrent = layer.get_weights()
        rng = np.random.default_rng(5)
        x, y = rng.normal(size=(3, 11, 3)), rng.normal(size=(3, 11, 2))
        W_hx, W_hh, W_qh = kernel.T, recurrent.T, rng.normal(size=(2, 4))
        return layer, (x, y, W_hx, W_hh, W_qh)

    def check(self, layer, arguments, expected):
        x, y, *_, W_qh = arguments
        h = linear_rnn.run(*arguments[:1], *arguments[2:4])
        dL_do = linear_rnn.dL_do(linear_rnn.output(h, W_qh), y)
        dx, _, (d_kernel, d_recurrent), norms, outputs, _ = differentiate(
            layer, x, None, dL_do @ W_qh
        )
        np.testing.assert_allclose(outputs, h, rtol=1e-10)
        np.testing.assert_allclose(d_kernel, expected.W_hx.T, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(d_recurrent, expected.W_hh.T, rtol=1e-10, atol=1e-12)
        # The kernel of the identity turns ∂L/∂x_t into ∂L/∂h_t itself.
        np.testing.assert_allclose(dx, expected.x, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(norms, linear_rnn.gradient_norms(expected.h), rtol=1e-6)

    def test_full(self):
        layer, arguments = self.problem()
        self.check(layer, arguments, linear_rnn.bptt(*arguments))

    @pytest.mark.parametrize(("length", "stride"), [(4, None), (4, 1), (6, 4)])
    def test_windowed(self, length, stride):
        layer, arguments = self.problem(truncation=Windowed(length, stride))
        self.check(layer, arguments, linear_rnn.bptt(*arguments, length=length, stride=stride))

    def test_every_hidden_gradient_to_float64(self):
        """With W_hx = 1, ∂L/∂x_t is ∂L/∂h_t: the recursion and the sum of matrix powers."""
        layer = make("SimpleRNN", features=4, activation="linear", use_bias=False)
        _, recurrent = layer.get_weights()
        layer.set_weights([np.eye(4), recurrent])
        rng = np.random.default_rng(6)
        x, dL_do, W_qh = (rng.normal(size=s) for s in [(3, 11, 4), (3, 11, 2), (2, 4)])
        dx = differentiate(layer, x, None, dL_do @ W_qh)[0]
        closed = linear_rnn.dL_dh_closed(dL_do, recurrent.T, W_qh)
        np.testing.assert_allclose(dx, closed, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(dx, linear_rnn.dL_dh(dL_do, recurrent.T, W_qh), rtol=1e-10)


def differentiate_outputs(layer, x, state, e):
    return differentiate(layer, x, state, e, [])


def flat(found):
    dx, d_state, d_weights, norms, *_ = found
    return [dx, *d_state, *d_weights, norms]
