"""Character language model over the user's text."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kbptt import _checks
from kbptt.tasks.base import Outputs, Task, TaskData, check_seed, check_sizes
from kbptt.tasks.files import read_text, too_few
from kbptt.tasks.registry import register

if TYPE_CHECKING:
    import keras

# Characters from which a model learns more than which ones are frequent.
ENOUGH = 20_000


@register("text")
class Text(Task):
    """Character language model: predict each next character.

    The file is UTF-8. Its text is cut into windows of `length + 1` characters that share their
    ends: the first of them are for training, then come validation and test, so these are its tail.
    `data` has the windows as separate sequences, each from a zero state; `streams` as three long
    sequences, in which the state is carried from window to window. Both are evaluated on the same
    steps.

    The vocabulary is the set of characters in the whole file. The metric
    is bits per character. The baseline, computed from the file, is the best predictor without
    memory: the frequency of each character in the training part, with one added to each count.

    Args:
        path: The text file, UTF-8, of two or more distinct characters.
        length: Integer. Characters of one window. Defaults to `128`.
        held_out: Float in (0, 0.5). Fraction of the windows for validation, and the same again for
            test. Defaults to `0.1`.
        sizes: Optional. Numbers of windows for training, validation and test, to use only the
            beginning of each part. Defaults to `None`, all.
    """

    metric: str = "bits"
    mode: str = "min"
    success: float | None = None
    counts_in: str = "characters"

    def __init__(
        self,
        path: str | Path,
        length: int = 128,
        held_out: float = 0.1,
        sizes: Sequence[int] | None = None,
    ):
        length = _checks.positive_integer("length", length)
        held_out = _checks.number("held_out", held_out, above=0, at_most=0.5)
        text = read_text(path)
        self.file: str | Path | None = path
        windows = (len(text) - 1) // length
        if windows < 3:
            raise ValueError(
                f"{path} is too short: it has {len(text)} characters, but one window of "
                f"{length} characters each for training, validation and test needs "
                f"{3 * length + 1}. Use a longer text or a smaller `length`."
            )
        held = max(1, round(windows * held_out))
        available = (windows - 2 * held, held, held)
        if windows - 2 * held < 1:
            available = (1, (windows - 1) // 2, windows - 1 - (windows - 1) // 2)
        if sizes is not None:
            sizes = tuple(map(min, check_sizes(sizes), available))
        super().__init__(length, sizes or available)
        self._set_characters(_code_points(text))
        if self.vocabulary == 1:
            raise ValueError(
                f"{path} has only one distinct character, {self.characters[0]!r}: there is "
                "nothing to predict. Use a text with two or more."
            )
        self.outputs: Outputs = Outputs(len(self.characters), per_timestep=True)
        self._available = available
        self._tokens = self.encode(text)
        self.baseline: float = self._bits_of_frequencies()

    def encode(self, text: str) -> np.ndarray:
        """Returns the tokens of `text` as int32."""
        tokens = self._token_of.take(_code_points(text), mode="clip")
        if len(tokens) and tokens.min() < 0:
            unknown = min(set(text) - set(self.characters))
            raise ValueError(f"The character {unknown!r} does not occur in the training file.")
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        """Returns the text of `tokens`."""
        return "".join(self.characters[token] for token in tokens)

    def _set_characters(self, codes: np.ndarray) -> None:
        """Numbers the distinct code points in ascending order."""
        present = np.zeros(int(codes.max()) + 1, bool)
        present[codes] = True
        distinct = np.flatnonzero(present)
        self.characters: list[str] = [chr(code) for code in distinct]
        self.vocabulary: int | None = len(self.characters)
        # From code points to tokens; -1 for those that do not occur, the last entry for all beyond
        # the largest.
        self._token_of = np.full(len(present) + 1, -1, np.int32)
        self._token_of[distinct] = np.arange(self.vocabulary)

    def describe(self) -> str | None:
        """Warns if the training part is too short to learn a language from."""
        characters = self.length * self.sizes[0]
        return too_few(characters, self.counts_in, ENOUGH, "the frequencies of letters, or a copy")

    def data(self, seed: int) -> TaskData:
        """Returns the windows in the order of the text, the same for every seed."""
        series = self.series(seed)
        parts = (series.train, series.validation, series.test)
        return TaskData(
            *((x.reshape(-1, self.length), y.reshape(-1, self.length)) for x, y in parts)
        )

    def series(self, seed: int) -> TaskData:
        """Returns the characters of each part and the next characters."""
        check_seed(seed)
        starts = self.length * np.cumsum((0, *self._available[:2]))
        ends = starts + self.length * np.array(self.sizes)
        tokens = self._tokens
        return TaskData(
            *((tokens[a:b], tokens[a + 1 : b + 1]) for a, b in zip(starts, ends, strict=True))
        )

    def _bits_of_frequencies(self) -> float:
        data = self.data(0)
        counts = np.bincount(data.train[1].ravel(), minlength=len(self.characters)) + 1
        return float(-np.log2(counts / counts.sum())[data.test[1]].mean())


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def generate(
    model: "keras.Model",
    task: Text,
    count: int = 200,
    prompt: str | None = None,
    temperature: float = 1.0,
    seed: int = 0,
) -> str:
    """Returns text sampled from `model`, character by character.

    Each character costs one timestep, however long the text gets: see `kbptt.streaming`.

    Args:
        model: A model of `task`.
        task: The `Text` task with the vocabulary.
        count: Integer. Characters to generate. Defaults to `200`.
        prompt: Text to continue; not part of the returned text. Defaults to `None`: the first line
            break of the vocabulary, or its first character.
        temperature: Float above 0: the logits are divided by it. Defaults to `1.0`.
        seed: Non-negative integer. Defaults to `0`.
    """
    from kbptt.streams import streaming

    temperature = _checks.number("temperature", temperature, above=0)
    generator = np.random.default_rng(check_seed(seed))
    if not prompt:
        prompt = "\n" if "\n" in task.characters else task.characters[0]
    stepper = streaming(model)
    states = stepper.initial_states(1)
    outputs, states = stepper(task.encode(prompt)[None], states)
    written: list[int] = []
    for _ in range(_checks.positive_integer("count", count)):
        logits = _check_finite(np.asarray(outputs[0, -1], np.float64))
        scaled = (logits - logits.max()) / temperature
        weights = np.exp(scaled)
        written.append(generator.choice(len(weights), p=weights / weights.sum()))
        outputs, states = stepper(np.array([written[-1:]], np.int32), states)
    return task.decode(written)


def _check_finite(logits: np.ndarray) -> np.ndarray:
    if not math.isfinite(logits.sum()):
        raise ValueError("The model's outputs are not finite: it has diverged.")
    return logits
