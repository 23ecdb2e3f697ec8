"""Handwritten digits read pixel by pixel."""

import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kbptt import _checks
from kbptt._extras import require
from kbptt.tasks.base import Outputs, Task, TaskData, derive_seed
from kbptt.tasks.registry import register

# What zipfile, zlib and NumPy raise for a file that is not an archive of arrays, or is damaged.
UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
)


class _PixelByPixel(Task):
    """One pixel a timestep, row by row, then `blank` timesteps of 0; the answer is the digit."""

    metric: str = "accuracy"
    mode: str = "max"
    outputs: Outputs = Outputs(10)
    pixels: int

    def __init__(self, permuted: bool, blank: int, repeat: int, sizes: Sequence[int]):
        self.permuted: bool = _checks.flag("permuted", permuted)
        self.blank: int = _checks.positive_integer("blank", blank) if blank != 0 else 0
        self.repeat: int = _checks.positive_integer("repeat", repeat)
        super().__init__(self.pixels * self.repeat + self.blank, sizes)

    def sequences(self, images: np.ndarray) -> np.ndarray:
        """Returns `(samples, length, 1)` sequences of images `(samples, pixels)` in [0, 1]."""
        if self.permuted:
            # One permutation for all seeds: runs with different seeds solve the same problem.
            order = np.random.default_rng(derive_seed(0, "permutation")).permutation(self.pixels)
            images = images[:, order]
        x = np.repeat(images.astype(np.float32), self.repeat, axis=1)
        return np.pad(x, ((0, 0), (0, self.blank)))[:, :, None]


@register("digits")
class Digits(_PixelByPixel):
    """Handwritten digits of scikit-learn (8x8), pixel by pixel.

    There are 1,797; nothing is downloaded. `x` is `(samples, 64 * repeat + blank, 1)` of gray
    levels in [0, 1], `y` the digit. Each seed draws its own split into training, validation and
    test. Always answering the most common digit gives an accuracy of 183/1797 = 0.10.

    Args:
        permuted: Boolean, whether the pixels come in one fixed random order, so that neighbors in
            the image are far apart in time. Defaults to `False`.
        blank: Integer. Timesteps of 0 after the last pixel: all information lies at least that far
            in the past. Defaults to `0`.
        repeat: Integer. Timesteps each pixel lasts. Defaults to `1`.
        sizes: Sequences for training, validation and test. Defaults to `(1197, 300, 300)`.
        fixed_test: Boolean, whether the test images are the same for every seed, and only the
            others are split by seed. Choices based on validation scores then do not depend on the
            test images of any seed, so `kbptt compare --tune` sets this. Defaults to `False`.
    """

    baseline: float = 183 / 1797
    success: float | None = 0.9
    pixels: int = 64

    def __init__(
        self,
        permuted: bool = False,
        blank: int = 0,
        repeat: int = 1,
        sizes: Sequence[int] = (1197, 300, 300),
        fixed_test: bool = False,
    ):
        require("sklearn")
        super().__init__(permuted, blank, repeat, sizes)
        self.fixed_test: bool = _checks.flag("fixed_test", fixed_test)
        if sum(self.sizes) > 1797:
            raise ValueError(
                "Invalid value for argument `sizes`. Expected a sum of at most 1797, the number "
                f"of images. Received: sizes={tuple(self.sizes)}."
            )

    def data(self, seed: int) -> TaskData:
        from sklearn.datasets import load_digits

        digits = load_digits()
        if self.fixed_test:
            order = np.random.default_rng(derive_seed(0, "data/test")).permutation(1797)
            others = 1797 - self.sizes[2]
            np.random.default_rng(derive_seed(seed, "data/split")).shuffle(order[:others])
            order = np.concatenate([order[: sum(self.sizes[:2])], order[others:]])
        else:
            order = np.random.default_rng(derive_seed(seed, "data/split")).permutation(1797)
        x, y = self.sequences(digits.data[order] / 16), digits.target[order].astype(np.int32)
        ends = np.cumsum(self.sizes)
        starts = ends - self.sizes
        return TaskData(*((x[a:b], y[a:b]) for a, b in zip(starts, ends, strict=True)))


@register("mnist")
class MNIST(_PixelByPixel):
    """Handwritten digits of MNIST (28x28), pixel by pixel.

    Reads the file that `keras.datasets.mnist.load_data()` stores; it is never downloaded by this
    task. The test set is MNIST's own; training and validation are drawn from its 60,000 training
    images with the seed. Always answering the most common digit of the test set gives an accuracy
    of 0.1135. Published, plain / permuted (Cooijmans et al., 2017): tanh RNN 0.350 / 0.350, IRNN
    0.970 / 0.820, LSTM-100 0.989 / 0.902.

    Args:
        permuted: Boolean, whether the pixels come in one fixed random order. Defaults to `False`.
        blank: Integer. Timesteps of 0 after the last pixel. Defaults to `0`.
        repeat: Integer. Timesteps each pixel lasts. Defaults to `1`.
        sizes: Images for training, validation and test. Defaults to `(55000, 5000, 10000)`.
        path: The file `mnist.npz`. Defaults to `None`: the one in the cache of Keras.
    """

    baseline: float = 0.1135
    success: float | None = 0.97
    pixels: int = 784

    def __init__(
        self,
        permuted: bool = False,
        blank: int = 0,
        repeat: int = 1,
        sizes: Sequence[int] = (55_000, 5_000, 10_000),
        path: str | None = None,
    ):
        super().__init__(permuted, blank, repeat, sizes)
        train, validation, test = self.sizes
        if train + validation > 60_000 or test > 10_000:
            raise ValueError(
                "Invalid value for argument `sizes`. Expected at most 60000 images for training "
                "and validation together and 10000 for test. "
                f"Received: sizes={tuple(self.sizes)}."
            )
        home = os.environ.get("KERAS_HOME", "~/.keras")
        self.path: Path = Path(path or f"{home}/datasets/mnist.npz").expanduser()
        self.file: str | Path | None = self.path
        if not self.path.is_file():
            raise ValueError(
                f"There is no copy of MNIST at {self.path}, and kbptt does not download it. "
                "Run `python -c 'import keras; keras.datasets.mnist.load_data()'` once to get it, "
                "or pass the file with the option `path`."
            )

    def data(self, seed: int) -> TaskData:
        arrays = self._arrays()
        x_train, y_train = arrays["x_train"], arrays["y_train"].astype(np.int32)
        x_test, y_test = arrays["x_test"], arrays["y_test"].astype(np.int32)
        train, validation, test = self.sizes
        order = np.random.default_rng(derive_seed(seed, "data/split")).permutation(len(x_train))

        def split(images, labels, chosen):
            return self.sequences(images[chosen].reshape(-1, 784) / 255), labels[chosen]

        return TaskData(
            split(x_train, y_train, order[:train]),
            split(x_train, y_train, order[train : train + validation]),
            split(x_test, y_test, np.arange(test)),
        )

    def _arrays(self) -> dict[str, np.ndarray]:
        try:
            with zipfile.ZipFile(self.path) as _, np.load(self.path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in ("x_train", "y_train", "x_test", "y_test")}
        except UNREADABLE as error:
            raise ValueError(f"{self.path} is not Keras's mnist.npz: {error}.") from error
        train, validation, test = self.sizes
        for part, needed in (("train", train + validation), ("test", test)):
            x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
            if (
                x.shape != (len(y), 28, 28)
                or y.ndim != 1
                or not set(np.unique(y)) <= set(range(10))
            ):
                raise ValueError(
                    f"{self.path} is not Keras's mnist.npz: expected images of 28 x 28 pixels and "
                    f"as many digits, found x_{part} {x.shape} and y_{part} {y.shape}."
                )
            if len(y) < needed:
                raise ValueError(
                    f"{self.path} has {len(y)} images in x_{part}, but `sizes`={self.sizes} needs "
                    f"{needed}. Use smaller `sizes`."
                )
        return arrays
