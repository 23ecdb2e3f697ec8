"""The heatmap images of a run: when they are drawn, and the last one however the run ends."""

import atexit
import os
import time
from collections.abc import Mapping

from kbptt._extras import MissingExtra
from kbptt.tensorboard import writer
from kbptt.tensorboard.history import History
from kbptt.truncation import windows

# An image is due again when the history has grown by this factor: about 15, each of the whole
# training so far, per 1000 profiles.
_GROWTH = 1.5

# Largest share of a `fit` that drawing takes before the images at its end, and the seconds that the
# first image of a layer is taken to need, with its part in the import of Matplotlib.
_SHARE, _FIRST_SECONDS = 0.02, 0.5

# Those with profiles that no image shows yet. Keras calls no hook when `fit` raises, so what is
# left here is drawn when the process ends.
_unfinished: set["Heatmaps"] = set()


class Heatmaps:
    """Draws the profiles of one run.

    Args:
        profiles: The history, which its owner extends.
    """

    def __init__(self, profiles: History):
        self._profiles = profiles
        self._step = -1
        self._divisions: Mapping[str, windows.Division] = {}
        self._events: writer.EventWriter | None = None
        self._process = os.getpid()
        self._drawn = 0
        self._seconds: float | None = None  # that the last images took
        self.start()

    def start(self) -> None:
        """Starts the clock of a `fit`."""
        self._spent, self._started = 0.0, time.monotonic()

    def note(
        self,
        step: int,
        divisions: Mapping[str, windows.Division],
        events: writer.EventWriter | None,
    ) -> None:
        """Called when the history has grown.

        Args:
            step: Integer. The training step of the last profile.
            divisions: The truncation of each layer, by name.
            events: Where an image of them goes if the run ends without one.
        """
        self._step, self._divisions, self._events = step, divisions, events
        _unfinished.add(self)

    def due(self) -> bool:
        """Whether the history has grown enough and images would take a small share of `fit`."""
        elapsed = time.monotonic() - self._started
        seconds = self._seconds or _FIRST_SECONDS * len(self._divisions)
        return (
            self._profiles.added >= _GROWTH * self._drawn + 2
            and self._spent + seconds <= _SHARE * elapsed
        )

    def draw(self) -> list[writer.Value]:
        """One image of the whole history per layer; none if it has not grown since the last."""
        _unfinished.discard(self)
        if self._profiles.added == self._drawn:
            return []
        begun = time.monotonic()
        try:
            from kbptt.tensorboard import heatmap
        except MissingExtra:  # with "auto"; the tab draws from the profiles
            return []
        self._drawn = self._profiles.added
        values = []
        for name, truncation in self._divisions.items():
            steps, norms = self._profiles.get(name)
            if not norms.size:
                continue
            # Sliding windows overlap: no timestep is a sharp cut.
            cut = windows.of(norms.shape[1], truncation).edges.size
            window = truncation.length if cut else None
            figure = heatmap.heatmap_figure(steps, norms, name, window, truncation.align)
            image = heatmap.to_png(figure)
            values.append(writer.image_value(f"gradient_flow_heatmap/{name}", *image))
        self._seconds = time.monotonic() - begun
        self._spent += self._seconds
        return values

    def finish(self) -> None:
        """Writes the last image of a `fit` that ended without one, as far as that is possible."""
        # Not what a process has inherited, and not into a run that was deleted.
        if self in _unfinished and self._process == os.getpid():
            _unfinished.discard(self)
            if self._events is not None and self._events.exists():
                values = self.draw()
                if values:
                    self._events.write(self._step, values)


def _finish_all() -> None:
    for heatmaps in list(_unfinished):
        try:
            heatmaps.finish()
        except Exception:  # of any type: the process ends, and it has its own message
            continue


atexit.register(_finish_all)
