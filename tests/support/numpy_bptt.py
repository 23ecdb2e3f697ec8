"""Truncated BPTT in NumPy, for the C loops to be compared with in great numbers.

Nothing here comes from kbptt. It follows the definition: every window goes back over its own
timesteps, and the sum over the windows of ∂L/∂h_t and ∂L/∂c_t, in which everything else is linear,
gives the gradients of the weights. Arrays have the names and shapes of problem.h in
``kbptt/engine/native``; with normalization the columns of both kernels are centred.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.special
from numpy_zoneout import held
from reference_bptt import Window

Arrays = dict[str, np.ndarray]


def _sigmoid(z):
    e = np.exp(-np.abs(z))
    return np.where(z < 0, e, 1) / (1 + e)


def _softplus(z):
    return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))


def _hard_sigmoid(z):
    return np.clip(z + 3, 0, 6) / 6


def _between(z, low, high):
    return ((z > low) & (z < high)).astype(z.dtype)


ROOT_HALF = float(np.float32(np.sqrt(0.5)))  # as in TensorFlow


def _gelu(z):
    return z * scipy.special.erfc(-z * ROOT_HALF) / 2


def _gelu_grad(z):
    s = z * ROOT_HALF
    return (scipy.special.erfc(-s) / 2 + s * np.exp(-s * s) / np.sqrt(np.pi)).astype(z.dtype)


def _mish_grad(z):
    t = np.tanh(_softplus(z))
    return t + z * _sigmoid(z) * (1 - t * t)


SELU, SELU_BELOW = 1.0507009873554805, 1.7580993408473769

# Each function and its derivative, of the argument z.
FUNCTIONS = {
    "linear": (lambda z: z, np.ones_like),
    "relu": (lambda z: np.where(z < 0, 0, z), lambda z: _between(z, 0, np.inf)),
    "sigmoid": (_sigmoid, lambda z: _sigmoid(z) * _sigmoid(-z)),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "elu": (lambda z: np.where(z < 0, np.expm1(z), z), lambda z: np.exp(np.minimum(z, 0))),
    "selu": (
        lambda z: np.where(z < 0, SELU_BELOW * np.expm1(z), SELU * z).astype(z.dtype),
        lambda z: np.where(z < 0, SELU_BELOW * np.exp(z), SELU).astype(z.dtype),
    ),
    "softplus": (_softplus, _sigmoid),
    "log_sigmoid": (lambda z: -_softplus(-z), lambda z: _sigmoid(-z)),
    "exponential": (np.exp, np.exp),
    "softsign": (lambda z: z / (1 + np.abs(z)), lambda z: 1 / (1 + np.abs(z)) ** 2),
    "leaky_relu": (
        lambda z: np.where(z > 0, z, z.dtype.type(np.float32(0.2)) * z),
        lambda z: np.where(z > 0, 1, np.float32(0.2)).astype(z.dtype),
    ),
    "relu6": (lambda z: np.clip(z, 0, 6), lambda z: _between(z, 0, 6)),
    "hard_sigmoid": (_hard_sigmoid, lambda z: _between(z, -3, 3) / 6),
    "hard_tanh": (lambda z: np.clip(z, -1, 1), lambda z: _between(z, -1, 1)),
    "hard_silu": (
        lambda z: z * _hard_sigmoid(z),
        lambda z: _hard_sigmoid(z) + z * _between(z, -3, 3) / 6,
    ),
    "silu": (
        lambda z: z * _sigmoid(z),
        lambda z: _sigmoid(z) * (1 + z * _sigmoid(-z)),
    ),
    "mish": (lambda z: z * np.tanh(_softplus(z)), _mish_grad),
    "gelu": (_gelu, _gelu_grad),
}


@dataclass
class Net:
    """One of the three cells; `epsilon` is that of layer normalization, or None."""

    cell: str
    activation: str
    recurrent_activation: str
    epsilon: float | None = None
    carry_normalized: bool = False
    clip: float | None = None
    penalty: str | None = None  # "ratio" or "squared"
    smallest_norm: float = 0.0
    centred: bool = True
    clip_by_norm: bool = False
    zoneout: tuple[float, ...] = ()

    def groups(self, z):
        """Columns that are normalized together."""
        if self.cell != "GRU":
            return [slice(None)]
        units = z.shape[-1] // 3
        return [slice(0, 2 * units), slice(2 * units, None)]

    def standardize(self, z):
        standard, inverse = np.empty_like(z), np.empty_like(z)
        for group in self.groups(z):
            variance = (z[:, group] ** 2).mean(1, keepdims=True)
            inverse[:, group] = 1 / np.sqrt(variance + self.epsilon)
            standard[:, group] = z[:, group] * inverse[:, group]
        return standard, inverse

    def standardize_back(self, d, standard, inverse):
        out = np.empty_like(d)
        for group in self.groups(d):
            mean = (d[:, group] * standard[:, group]).mean(1, keepdims=True)
            out[:, group] = inverse[:, group] * (d[:, group] - standard[:, group] * mean)
        return out

    # One timestep ------------------------------------------------------------------------------

    def step(self, x, h, c, w: Arrays):
        """The new h and c, and the values that `pull` reads."""
        phi, sigma = FUNCTIONS[self.activation][0], FUNCTIONS[self.recurrent_activation][0]
        v = {"h": h, "c": c, "x": x}
        xz = times(x, w["kernel"], w.get("x_masks"))
        hu = times(h, w["recurrent_kernel"], w.get("h_masks"))
        bias, recurrent_bias = w.get("bias", 0.0), w.get("recurrent_bias", 0.0)
        if self.cell == "SimpleRNN":
            if self.epsilon is None:
                z = xz + hu + bias
            else:
                v["standard"], v["inverse"] = self.standardize(xz + hu)
                z = w["recurrent_gain"] * v["standard"] + bias
            return phi(z), None, v | {"z": z}
        if self.epsilon is not None:
            v["x_standard"], v["x_inverse"] = self.standardize(xz)
            v["h_standard"], v["h_inverse"] = self.standardize(hu)
            xz, hu = w["input_gain"] * v["x_standard"], w["recurrent_gain"] * v["h_standard"]
        xz = xz + bias
        if self.cell == "GRU":
            units = h.shape[1]
            hn = hu[:, 2 * units :] + recurrent_bias
            az, ar = np.split(xz[:, : 2 * units] + hu[:, : 2 * units], 2, axis=1)
            z, r = sigma(az), sigma(ar)
            an = xz[:, 2 * units :] + r * hn
            v |= {"az": az, "ar": ar, "an": an, "hn": hn}
            return z * h + (1 - z) * phi(an), None, v
        v["arguments"] = np.split(xz + hu, 4, axis=1)
        i, f, g, o = (a(z) for a, z in zip((sigma, sigma, phi, sigma), v["arguments"], strict=True))
        new = shown = f * c + i * g
        if self.epsilon is not None:
            centred = new - new.mean(1, keepdims=True) * self.centred
            v["c_inverse"] = 1 / np.sqrt((centred**2).mean(1, keepdims=True) + self.epsilon)
            v["c_standard"] = centred * v["c_inverse"]
            shown = w["state_gain"] * v["c_standard"] + w["state_bias"]
            new = shown if self.carry_normalized else new
        return o * phi(shown), new, v | {"shown": shown}

    def pull(self, v, dh, dc, w: Arrays, through=1.0):
        """Gradients of the previous h and c; per sample, those of x·W, h·U, biases and gains."""
        phi, d_phi = FUNCTIONS[self.activation]
        sigma, d_sigma = FUNCTIONS[self.recurrent_activation]
        d = {}
        direct = d_previous_c = np.zeros_like(dh)
        if self.cell == "SimpleRNN":
            dz = dh * d_phi(v["z"])
            d["bias"] = dz
            if self.epsilon is not None:
                d["recurrent_gain"] = dz * v["standard"]
                gained = dz * w["recurrent_gain"]
                dz = self.standardize_back(gained, v["standard"], v["inverse"])
            back = times_back(dz, w["recurrent_kernel"], w.get("h_masks"))
            return (direct + np.where(through == 0, 0, through * back), None), d | {
                "xz": dz,
                "hu": dz,
            }
        if self.cell == "GRU":
            z, r, n, hn = sigma(v["az"]), sigma(v["ar"]), phi(v["an"]), v["hn"]
            dn = dh * (1 - z) * d_phi(v["an"])
            gates = np.hstack([dh * (v["h"] - n) * d_sigma(v["az"]), dn * hn * d_sigma(v["ar"])])
            direct, dz, dhu = dh * z, np.hstack([gates, dn]), np.hstack([gates, dn * r])
            d["recurrent_bias"] = dn * r
        else:
            ai, af, ag, ao = v["arguments"]
            i, f, g, o, y = sigma(ai), sigma(af), phi(ag), sigma(ao), phi(v["shown"])
            d_shown = dh * o * d_phi(v["shown"])
            if self.epsilon is None:
                dc = dc + d_shown
            else:
                if self.carry_normalized:
                    d_shown, dc = d_shown + dc, np.zeros_like(dc)
                d["state_gain"], d["state_bias"] = d_shown * v["c_standard"], d_shown
                d_standard = d_shown * w["state_gain"]
                mean = (d_standard * v["c_standard"]).mean(1, keepdims=True)
                d_cell = v["c_inverse"] * (d_standard - v["c_standard"] * mean)
                dc = dc + d_cell - d_cell.mean(1, keepdims=True) * self.centred
            inputs = dc * g * d_sigma(ai), dc * v["c"] * d_sigma(af), dc * i * d_phi(ag)
            dz = dhu = np.hstack([*inputs, dh * y * d_sigma(ao)])
            d_previous_c = dc * f
        d["bias"] = dz
        if self.epsilon is not None:
            d["input_gain"], d["recurrent_gain"] = dz * v["x_standard"], dhu * v["h_standard"]
            dz = self.standardize_back(dz * w["input_gain"], v["x_standard"], v["x_inverse"])
            dhu = self.standardize_back(dhu * w["recurrent_gain"], v["h_standard"], v["h_inverse"])
        back = times_back(dhu, w["recurrent_kernel"], w.get("h_masks"))
        return (direct + np.where(through == 0, 0, through * back), d_previous_c), d | {
            "xz": dz,
            "hu": dhu,
        }


# Products with a mask ``(gates, batch, width)`` on what each gate reads: dropout ------------------


def times(rows, kernel, masks=None):
    if masks is None:
        return rows @ kernel
    blocks = np.split(kernel, len(masks), axis=1)
    return np.hstack([(rows * m) @ k for m, k in zip(masks, blocks, strict=True)])


def times_back(d, kernel, masks=None):
    """The gradient of the rows of `times`."""
    if masks is None:
        return d @ kernel.T
    parts = (np.split(v, len(masks), axis=1) for v in (d, kernel))
    return sum(m * (e @ k.T) for m, e, k in zip(masks, *parts, strict=True))


def times_across(rows, d, masks=None):
    """The gradient of the kernel of `times`."""
    if masks is None:
        return rows.T @ d
    blocks = np.split(d, len(masks), axis=1)
    return np.hstack([(rows * m).T @ e for m, e in zip(masks, blocks, strict=True)])


# All timesteps ------------------------------------------------------------------------------------


def forward(net: Net, a: Arrays):
    """h and c over time, ``(batch, timesteps, units)``, and every step's values for `backward`."""
    h, c = a["h_start"], a.get("c_start")
    hs, cs, values = [], [], []
    for t in range(a["x"].shape[1]):
        if "resets" in a:
            reset = a["resets"][:, t, None]
            h = np.where(reset, a["h_restart"], h)
            c = None if c is None else np.where(reset, a["c_restart"], c)
        new_h, new_c, v = net.step(a["x"][:, t], h, c, a)
        if net.zoneout:
            key, dtype = a.get("zoneout_key"), a["x"].dtype
            v["held"] = [
                d.astype(dtype) for d in held(net.zoneout[: 1 + (c is not None)], key, t, *h.shape)
            ]
            states = zip(v["held"], (h, c), (new_h, new_c), strict=False)
            new_h, new_c = (*(d * old + (1 - d) * new for d, old, new in states), None)[:2]
        if "mask" in a:
            read = a["mask"][:, t, None]
            new_h = np.where(read, new_h, h)
            new_c = None if c is None else np.where(read, new_c, c)
        h, c = new_h, new_c
        hs.append(h)
        cs.append(c)
        values.append(v)
    return np.stack(hs, 1), None if c is None else np.stack(cs, 1), values


def pull(net: Net, v, dh, dc, a: Arrays, t: int):
    """`Net.pull` with what is around a step: h-detach and zoneout."""
    through = a["through_factors"][t, :, None] if "through_factors" in a else 1.0
    if not net.zoneout:
        return net.pull(v, dh, dc, a, through)
    kept_h, kept_c = (*v["held"], 0.0)[:2]
    (back_h, back_c), d = net.pull(v, (1 - kept_h) * dh, (1 - kept_c) * dc, a, through)
    return (back_h + kept_h * dh, None if back_c is None else back_c + kept_c * dc), d


def clipped(net: Net, carried: list[np.ndarray]) -> list[np.ndarray]:
    """The bound on elements, or on the norm of each sample's h and c together."""
    if not net.clip_by_norm:
        return [np.clip(d, -net.clip, net.clip) for d in carried]
    norm = np.linalg.norm(np.hstack(carried), axis=1, keepdims=True)
    return [d * np.minimum(1, net.clip / np.maximum(norm, 1e-300)) for d in carried]


def backward(net: Net, a: Arrays, values: Sequence, windows: Sequence[Window]) -> Arrays:
    """Gradients ``d_…`` of everything given, `norms` per sample, and `penalty`.

    With the gradients of the loss ``dh`` (absent: of the final state alone), ``dh_final`` and
    ``dc_final``, and optionally ``factors`` ``(timesteps, batch)`` and ``penalty_weight``.
    """
    batch, timesteps, _ = a["x"].shape
    lstm = net.cell == "LSTM"
    total_h = np.zeros([batch, timesteps, a["h_start"].shape[1]], a["x"].dtype)
    total_c = np.zeros_like(total_h)
    names = "h_start c_start h_restart c_restart".split()
    out = {f"d_{n}": np.zeros_like(a[n]) for n in names if n in a}
    if "dh" not in a:
        windows = [w for w in windows if w.end == timesteps]
    for window in windows:
        dh = dc = np.zeros_like(total_h[:, 0])
        if window.end == timesteps:
            dh, dc = a["dh_final"], a["dc_final"] if lstm else dc
        for t in reversed(range(window.start, window.end)):
            if "dh" in a and t >= window.first:
                dh = dh + a["dh"][:, t]
            total_h[:, t] += dh
            total_c[:, t] += dc
            (back_h, back_c), _ = pull(net, values[t], dh, dc, a, t)
            read = a["mask"][:, t, None] if "mask" in a else np.ones([batch, 1], bool)
            dh, dc = np.where(read, back_h, dh), np.where(read, back_c, dc) if lstm else dc
            carried = []
            for d, name in ((dh, "h"), (dc, "c"))[: 1 + lstm]:
                if "resets" in a:
                    reset = a["resets"][:, t, None]
                    out[f"d_{name}_restart"] += np.where(reset, d, 0)
                    d = np.where(reset, 0, d)
                if "factors" in a:
                    d = d * a["factors"][t, :, None]
                carried.append(d)
            if net.clip is not None:
                carried = clipped(net, carried)
            for d, name in zip(carried, "hc", strict=False):
                if t == 0:
                    out[f"d_{name}_start"] += d
            dh, dc = carried if lstm else (carried[0], dc)
    first = min(window.start for window in windows)
    return out | _weight_gradients(net, a, values, total_h, total_c, first)


def _weight_gradients(net, a, values, total_h, total_c, first) -> Arrays:
    batch, timesteps, _ = a["x"].shape
    names = "kernel recurrent_kernel bias recurrent_bias input_gain recurrent_gain".split()
    names = [n for n in (*names, "state_gain", "state_bias") if n in a]
    out = {f"d_{n}": np.zeros_like(a[n]) for n in names} | {"dx": np.zeros_like(a["x"])}
    # Recorded in float32, which the penalty reads.
    out["norms"] = np.sqrt((total_h**2).sum(2)).astype(np.float32).astype(a["x"].dtype)
    out["penalty"] = np.zeros([])
    for t in range(first, timesteps):
        v, dh = values[t], total_h[:, t]
        read = a["mask"][:, t] if "mask" in a else np.ones(batch, bool)
        (pulled, _), d = pull(net, v, dh, total_c[:, t], a, t)
        d = {name: np.where(read[:, None], value, 0) for name, value in d.items()}
        before = v["h"]
        if net.penalty and t > 0:
            counts = read & ~a["resets"][:, t] if "resets" in a else read
            value, error = _penalty(net, out["norms"][:, t], pulled, counts)
            out["penalty"] += a["penalty_weight"] * value / batch
            before = before + a["penalty_weight"] * error / batch
        out["dx"][:, t] = times_back(d["xz"], a["kernel"], a.get("x_masks"))
        out["d_kernel"] += times_across(v["x"], d["xz"], a.get("x_masks"))
        out["d_recurrent_kernel"] += times_across(before, d["hu"], a.get("h_masks"))
        for name in names[2:]:
            out[f"d_{name}"] += d[name].sum(0)
    return out


def _penalty(net, norm, pulled, counts):
    """Σ Ω over the samples, and its gradient with respect to `pulled` (Pascanu 2013)."""
    counts = counts & (norm > net.smallest_norm) & np.isfinite(norm)
    norm = np.where(counts, norm, 1)
    length = np.sqrt((pulled**2).sum(1))
    ratio = length / norm
    if net.penalty == "squared":
        error = ratio**2 - 1
        scale = 4 * error / norm**2
    else:
        error = ratio - 1
        scale = np.where(length > 0, 2 * error / (norm * np.where(length > 0, length, 1)), 0)
    value = np.where(counts, error**2, 0).sum()
    return value, np.where(counts, scale, 0)[:, None] * pulled
