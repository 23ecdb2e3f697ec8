"""The C loops against `numpy_bptt` in float64: thousands of combinations, none wrong.

They are called with NumPy arrays, as TensorFlow calls them. That layers hand over the right ones,
and that the TensorFlow loops agree, is the subject of test_native.py.
"""

import types
from unittest import mock

import numpy as np
import numpy_bptt
import pytest
from reference_bptt import windows

from kbptt import cells
from kbptt.engine import CPULoop, Options, native, plan, using
from kbptt.engine.cpu import BESIDE, RESIDUALS

pytestmark = pytest.mark.skipif(native.library() is None, reason="the C loops were not built")

COLUMNS = {"SimpleRNN": 1, "GRU": 3, "LSTM": 4}
# Below, at and above what vectors (4, 8, 16 floats), groups (48 rows) and blocks (96) hold; shares
# of threads that differ; more columns than a product takes rows.
UNITS = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 49, 65, 80, 208, 300]
FEATURES = [1, 2, 3, 4, 5, 8, 16, 17, 20, 33, 130, 260]
BATCHES = [1, 1, 2, 3, 4, 5, 8, 12, 23, 47, 48, 49, 95, 96, 97]
QUICK, ALL, HOSTILE = 300, 2500, 120


class Case:
    """One combination, drawn from a seed."""

    def __init__(self, seed):
        self.rng = rng = np.random.default_rng(seed)
        pick, flag = self.pick, self.flag
        self.cell = pick(list(COLUMNS))
        self.dtype = np.dtype(pick(["float32", "float64"]))
        self.batch, self.units = pick(BATCHES), pick(UNITS)
        self.features = pick(FEATURES)
        self.timesteps = pick([1, 2, 3, 5, 8, 13, 16])
        if self.batch == 1 and flag():
            self.timesteps = pick([95, 96, 97, 193])
        if self.batch * self.units > 2000:
            self.timesteps = min(self.timesteps, 8)
        self.epsilon = pick([None, None, 1e-3])
        if self.epsilon is not None:
            # Two normalized values are always 1 and -1: their gradient is nothing but rounding.
            self.units = max(self.units, 5)
        self.length = pick([None, int(rng.integers(1, self.timesteps + 3))])
        self.stride = None if self.length is None else int(rng.integers(1, self.length + 1))
        if self.length is not None and flag():
            self.stride = self.length
        self.align = pick(["end", "start"])
        every = list(numpy_bptt.FUNCTIONS)
        self.activation = pick(every if flag() else ["tanh"])
        self.recurrent_activation = pick(every if flag() else ["sigmoid"])
        # Over many steps a cell with gates below 0 is chaotic, one with unbounded gates explodes.
        limit = {"sigmoid": 193, "hard_sigmoid": 193, "tanh": 16, "softsign": 16, "hard_tanh": 16}
        self.timesteps = min(self.timesteps, limit.get(self.recurrent_activation, 5))
        if "exponential" in (self.activation, self.recurrent_activation):
            self.timesteps = 1
        self.carry_normalized, self.sequences, self.record = flag(), flag(0.8), flag(0.8)
        self.clip = pick([None, None, 0.05])
        self.penalty = pick([None, None, "ratio", "squared"])
        self.threads, self.level = pick([1, 2, 3, 7]), pick([0, 1, 2])
        self.kept_gates = pick([0, 2**30])
        self.arrays = self.draw_arrays()
        self.centred = flag(0.7)
        # Else no kernel can be centred, and the loops of TensorFlow run.
        if self.epsilon is None or not self.centred or self.cell == "SimpleRNN":
            for name, width in (("x_masks", self.features), ("h_masks", self.units)):
                if flag(0.3):
                    size = COLUMNS[self.cell], self.batch, width
                    self.arrays[name] = (0.9 * (rng.random(size) > 0.4)).astype(self.dtype)
        # Timesteps replayed at a time; and other windows than those for which states were kept.
        self.members = pick([None, None, 1, 2, 3])
        self.span, self.moves = pick([1, 2, 3, 16]), flag(0.2)
        self.clip_by_norm = flag()
        self.zoneout = pick([(), (), (0.3, 0.6), (0.0, 0.5), (0.5, 0.0)])
        if self.zoneout and flag(0.8):
            words = rng.integers(2**64, size=2, dtype=np.uint64) >> np.array([0, 50], np.uint64)
            self.arrays["zoneout_key"] = words
        if flag(0.3):
            kept = rng.random([self.timesteps, self.batch]) > 0.4
            self.arrays["through_factors"] = kept.astype(self.dtype)

    def pick(self, values):
        return values[self.rng.integers(len(values))]

    def flag(self, probability=0.5):
        return bool(self.rng.random() < probability)

    def draw_arrays(self):
        batch, timesteps, features, units = self.batch, self.timesteps, self.features, self.units
        columns, lstm = COLUMNS[self.cell] * units, self.cell == "LSTM"

        def normal(*shape, scale=1.0):
            return (scale * self.rng.normal(size=shape)).astype(self.dtype)

        # Small enough for a linear cell not to explode.
        small = 0.4 / units**0.5
        a = {
            "x": normal(batch, timesteps, features, scale=1 / features**0.5),
            "kernel": normal(features, columns, scale=0.5),
            "recurrent_kernel": normal(units, columns, scale=small),
            "h_start": normal(batch, units),
            "dh_final": normal(batch, units),
        }
        if self.flag(0.8) or self.epsilon is not None:
            a["bias"] = normal(columns, scale=0.3)
            if self.cell == "GRU":
                a["recurrent_bias"] = normal(units, scale=0.3)
        if self.epsilon is not None:
            for name in ("kernel", "recurrent_kernel"):
                for group in numpy_bptt.Net.groups(self, a[name]):
                    a[name][:, group] -= a[name][:, group].mean(1, keepdims=True)
            a["recurrent_gain"] = 1 + normal(columns, scale=0.2)
            if self.cell != "SimpleRNN":
                a["input_gain"] = 1 + normal(columns, scale=0.2)
            if lstm:
                a["state_gain"] = 1 + normal(units, scale=0.2)
                a["state_bias"] = normal(units, scale=0.2)
        if lstm:
            a["c_start"], a["dc_final"] = normal(batch, units), normal(batch, units)
        if self.flag(0.4):
            a["mask"] = self.rng.random([batch, timesteps]) > 0.3
        if self.flag(0.4):
            a["resets"] = self.rng.random([batch, timesteps]) > 0.8
            a["h_restart"] = normal(batch, units)
            if lstm:
                a["c_restart"] = normal(batch, units)
        if self.sequences:
            a["dh"] = normal(batch, timesteps, units)
        if self.flag(0.3):
            kept = self.rng.random([timesteps, batch]) > 0.4
            a["factors"] = (kept / 0.6).astype(self.dtype)
        if self.penalty:
            a["penalty_weight"] = np.asarray(0.5, self.dtype)
        return a

    @np.errstate(over="ignore")  # of branches of an activation that are not taken
    def expected(self, dtype=np.float64):
        net = numpy_bptt.Net(
            self.cell,
            self.activation,
            self.recurrent_activation,
            self.epsilon,
            self.carry_normalized,
            self.clip,
            self.penalty,
            1e-10,
            self.centred,
            self.clip_by_norm,
            self.zoneout,
        )
        kept = (np.bool_, np.uint64)
        a = {n: v if v.dtype in kept else v.astype(dtype) for n, v in self.arrays.items()}
        h, c, values = numpy_bptt.forward(net, a)
        planned = windows(self.timesteps, self.length, self.stride, self.align)
        found = numpy_bptt.backward(net, a, values, planned)
        norms = found["norms"].sum(0)
        return {"h": h, "c": c} | found | {"norms": norms if self.record else np.zeros_like(norms)}

    def found(self):
        """As `CPULoop` gives it to TensorFlow."""
        penalty = None
        if self.penalty:
            squared = self.penalty == "squared"
            penalty = types.SimpleNamespace(squared=squared, SMALLEST_NORM=1e-10)
        normalization = None
        if self.epsilon is not None:
            normalization = types.SimpleNamespace(
                epsilon=self.epsilon,
                carry_normalized=self.carry_normalized,
                centred=self.centred,
            )
        options = Options(
            length=self.length,
            stride=self.stride,
            align=self.align,
            clip=self.clip,
            clip_by_norm=self.clip_by_norm,
            record=self.record,
            penalty=penalty,
            zoneout=self.zoneout[: 1 + (self.cell == "LSTM")],
        )
        activations = (self.activation, self.recurrent_activation)
        activations = activations[: 1 + (self.cell != "SimpleRNN")]
        loop = CPULoop(cells.make(self.cell, activations, normalization), options)
        given = dict(self.arrays)
        backward = "dh dh_final dc_final factors through_factors penalty_weight".split()
        upstream = {n: given.pop(n) for n in backward if n in given}
        if self.moves:
            loop.current = lambda: options._replace(length=5, stride=5)
        h, _, *kept = loop.run_forward(tuple(given), (True,) * 5, *given.values())
        loop.current = lambda: options
        wanted = tuple(n for n in self.arrays if n not in (*backward, *BESIDE))
        arrays = given | upstream | {"h": h} | dict(zip(RESIDUALS, kept, strict=True))
        read = (True,) * (len(wanted) + 2)
        *gradients, norms, value = loop.run_backward(wanted, tuple(arrays), read, *arrays.values())
        every = arrays["c"].size and not len(arrays["slots"])
        found = {"h": h, "c": np.swapaxes(arrays["c"], 0, 1) if every else None}
        found |= {f"d_{n}" if n != "x" else "dx": g for n, g in zip(wanted, gradients, strict=True)}
        return found | {"norms": norms, "penalty": value}

    def run(self):
        chosen = native.library().instruction_sets[: self.level + 1][-1]
        with (
            mock.patch.object(plan, "SPAN", self.span),
            using(
                threads=self.threads,
                members=self.members,
                kept_gates=self.kept_gates,
                instruction_set=chosen,
            ),
        ):
            return self.found()

    def __str__(self):
        shapes = {n: v.shape for n, v in self.arrays.items()}
        own = {n: v for n, v in vars(self).items() if n not in ("arrays", "rng")}
        return f"{own} {shapes}"


def error(found, expected):
    return np.max(np.abs(np.float64(found) - np.float64(expected)), initial=0)


def wrong(case, found, expected):
    """What differs by more than rounding, in words."""
    differences, same_in_numpy = [], None
    for name in found:
        if found[name] is None:
            continue
        a, b = found[name], expected[name]
        # Norms and penalty are float32 in any case.
        single = case.dtype == np.float32 or name in ("norms", "penalty")
        # Where a gradient all but cancels, its rounding errors are those of its terms.
        scale = np.max(np.abs(b), initial=5e-2 if single else 1e-6)
        bound = scale * (1e-4 if single else 1e-9)
        if case.dtype == np.float32 and not error(a, b) <= bound:
            # A chaotic cell magnifies every rounding. NumPy with the same floats shows how much.
            same_in_numpy = same_in_numpy or case.expected(np.float32)
            bound = max(bound, 20 * error(same_in_numpy[name], b))
        if np.shape(a) != np.shape(b) or not error(a, b) <= bound:
            differences.append(f"{name}: {error(a, b):.1e} of {scale:.1e}")
    return differences


def check(seeds):
    failed = []
    for seed in seeds:
        case = Case(seed)
        differences = wrong(case, case.run(), case.expected())
        if differences:
            failed.append(f"seed {seed}: {differences}\n    {case}")
    assert not failed, f"{len(failed)} of {len(seeds)}:\n" + "\n".join(failed[:20])


def test_any_combination():
    check(range(QUICK))


@pytest.mark.slow
def test_many_more_combinations():
    check(range(QUICK, ALL))


# What is not finite, or large -----------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -1e30, 1e5, -1e5])
def test_hostile_inputs(value):
    """NaN and Inf reach what they reach in the formulas, and never another sample."""
    for seed in range(HOSTILE):
        case = Case(10**6 + seed)
        if case.batch == 1 or (abs(value) == 1e30 and case.dtype == np.float32):
            # The square of 1e30 is no float: see the test below.
            continue
        case.activation, case.recurrent_activation, case.penalty = "tanh", "sigmoid", None
        case.clip_by_norm = False  # see test_clip.py
        for name in ("penalty_weight", "x_masks", "h_masks"):
            case.arrays.pop(name, None)
        if case.epsilon is not None:
            continue
        sample, t = case.batch // 2, case.timesteps // 2
        case.arrays["x"][sample, t, 0] = value
        with np.errstate(all="ignore"):
            expected = case.expected()
        found = case.run()
        for name in ("h", "c", "dx", "d_h_start", "d_c_start"):
            if found.get(name) is None:
                continue
            a, b = found[name], expected[name]
            message = f"{value} {name} seed {seed} {case}"
            np.testing.assert_array_equal(np.isnan(a), np.isnan(b), err_msg=message)
            assert np.isfinite(np.delete(a, sample, axis=0)).all(), message
        found = {n: v for n, v in found.items() if v is not None}
        finite = {n: v for n, v in found.items() if np.isfinite(expected[n]).all()}
        differences = wrong(case, finite, expected)
        assert not differences, f"{value} seed {seed}: {differences}\n{case}"
        for name, v in found.items():
            if name not in finite:
                assert not np.isfinite(v).all(), f"{value} {name} seed {seed} {case}"


@pytest.mark.parametrize("value", [1e30, -1e30, 3e38])
@pytest.mark.parametrize("cell", list(COLUMNS))
def test_large_floats_saturate(cell, value):
    for seed in range(20):
        case = Case(2 * 10**6 + seed)
        if case.cell != cell or case.epsilon is not None:
            continue
        case.activation, case.recurrent_activation, case.penalty = "tanh", "sigmoid", None
        case.clip_by_norm = False  # see test_clip.py
        for name in ("penalty_weight", "x_masks", "h_masks"):
            case.arrays.pop(name, None)
        case.arrays["x"][0] = 0
        case.arrays["x"][0, :, 0] = value
        # No product overflows, so all is finite.
        case.arrays["kernel"] = np.sign(case.arrays["kernel"]) * np.asarray(0.5, case.dtype)
        found, expected = case.run(), case.expected()
        assert not wrong(case, {n: found[n] for n in ("h", "dx")}, expected), str(case)
