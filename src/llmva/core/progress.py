"""Progress on standard error: a bar on a terminal, now and then a line in a log; `TQDM_DISABLE=1` silences both."""

import io
import sys
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, redirect_stderr
from typing import TextIO

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 30


def progress_bar(title: str | None, iterable: Iterable | None = None, *, leave: bool = False, **options) -> tqdm:
    """Return a bar with a title, or, without one, an iterable that shows nothing; the options are tqdm's."""
    if not title:
        # Passing disable=False would overrule the environment.
        options["disable"] = True
    return tqdm(iterable, desc=title, leave=leave, file=_stream(), **options)


def library_bars() -> AbstractContextManager:
    """Return a context in which the bars that other libraries draw follow the same rule."""
    return redirect_stderr(_stream())


class LogStream(io.TextIOBase):
    """What a log gets of a bar: its state as a line, each time that 30 seconds have passed; other text as it is.

    A shorter piece of work leaves no line, and none has a carriage return.
    """

    def __init__(self, log: TextIO) -> None:
        self._log, self._written, self._mid_line = log, time.monotonic(), False

    def write(self, text: str) -> int:
        """Take a frame of a bar, the moves between frames, or text that belongs to no bar."""
        if text.startswith("\r"):
            self._take_frame(text.strip())
        elif self._mid_line or text.strip("\n\x1b[A"):
            self._log.write(text)
            self._mid_line = not text.endswith("\n")
        return len(text)

    def flush(self) -> None:
        """Pass on to the log."""
        self._log.flush()

    def _take_frame(self, state: str) -> None:
        now = time.monotonic()
        if state and now - self._written >= SECONDS_BETWEEN_LINES:
            self._written = now
            self._log.write(f"{state}\n")


def _stream() -> TextIO:
    return sys.stderr if sys.stderr.isatty() else LogStream(sys.stderr)
