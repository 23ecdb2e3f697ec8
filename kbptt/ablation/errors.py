"""How a trial failed, in words that any process can read."""

import errno
import os
import traceback

from kbptt.ablation.text import described

_INSTALLED = {"site-packages", "dist-packages"}


class TrialError(Exception):
    """What went wrong in a trial, as text: unpickling the exception itself may need TensorFlow.

    Args:
        message: String: type, text and place of the exception.
        disk_full: Whether the worker had no room to write.
        final: Whether retrying the trial would be pointless.
    """

    def __init__(self, message: str, disk_full: bool = False, final: bool = False):
        super().__init__(message, disk_full, final)
        self.message = message
        self.disk_full = disk_full
        self.final = final

    def __str__(self) -> str:
        return self.message

    @classmethod
    def describing(cls, error: BaseException) -> "TrialError":
        """Describes an exception, with the line of the user's code or of kbptt that raised it."""
        text = described(error)
        frames = traceback.extract_tb(error.__traceback__)
        frames = [f for f in frames if not _INSTALLED.intersection(f.filename.split(os.sep))]
        if frames:
            text += f" ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})"
        # TensorFlow raises its own exception type for a full disk, with the system's message.
        codes = (errno.ENOSPC, errno.EDQUOT)
        return cls(text, any(os.strerror(code) in text for code in codes))


class ProcessDied(TrialError):
    """The process of a trial ended before the trial did."""
