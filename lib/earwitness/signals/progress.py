"""How far a run is: a bar with rate and remaining time for people, one line a minute for logs.

A terminal gets tqdm's bar and a notebook its widget; a file or a pipe (a batch job's log) gets plain lines. A notebook
that no one watches gets nothing: what it would show stays in the page. See the book page *Methods: from audio to
verdict*.
"""

from __future__ import annotations

import sys
import time
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Self

from earwitness.util import span

LOG_SECONDS = 60.0  # between two lines of a log


def _notebook() -> bool:
    """Say whether output goes to a notebook."""
    return "ipykernel" in sys.modules


def _watched() -> bool:
    """Say whether somebody can see a bar: at a terminal, or in a notebook that can show widgets."""
    return find_spec("ipywidgets") is not None if _notebook() else sys.stderr.isatty()


class Progress:
    """Count tracks towards ``total``; shows nothing where there is nothing to do or ``show`` is False."""

    def __init__(self, name: str, total: int, *, show: bool = True) -> None:
        self.name, self.total, self.done, self.show = name, total, 0, show and total > 0
        self.started = self.spoken = time.monotonic()
        self.bar: Any = None

    def __enter__(self) -> Self:
        """Start; a bar is drawn where somebody can see it."""
        if self.show and _watched():
            from tqdm.auto import tqdm

            self.bar = tqdm(total=self.total, unit="track", desc=self.name, leave=False)
        return self

    def update(self, count: int) -> None:
        """Count tracks as done."""
        self.done += count
        if self.bar is not None:
            self.bar.update(count)
        elif self.show and not _notebook() and time.monotonic() - self.spoken >= LOG_SECONDS:
            self.spoken = time.monotonic()
            sys.stderr.write(f"{self.line()}\n")
            sys.stderr.flush()

    def say(self, text: str) -> None:
        """Show a remark beside the bar (a log is spared it)."""
        if self.bar is not None:
            self.bar.set_postfix_str(text)

    def line(self) -> str:
        """Return the state in one line: tracks, rate, remaining time."""
        rate = self.done / max(time.monotonic() - self.started, 1e-9)
        left = span((self.total - self.done) / rate) if rate else "unknown time"
        return f"{self.name}: {self.done} of {self.total} tracks, {rate:.2g} tracks/s, {left} left"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.close()
