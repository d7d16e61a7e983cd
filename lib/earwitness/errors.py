"""Errors a user can cause: what was expected, what arrived and where, how to mend it.

The command line prints ``str(error)`` on one line and exits with ``error.exit_code``.
See the book page *Audit your own*.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

from earwitness.util import plain

LONGEST = 1200  # characters of what is said about a stranger's model


class EarwitnessError(Exception):
    """Base of every error that names its own mend. ``exit_code`` is what the command line returns.

    Messages quote names and cells that others wrote, so their text is made plain: no line breaks, no escape sequences.
    """

    exit_code = 2

    def __str__(self) -> str:
        """Return the message on one line, with everything that is not printable written as an escape."""
        return plain(" ".join(super().__str__().split("\n")))


class InputError(EarwitnessError):
    """A value, a name or a table that cannot be used as given."""


class UncheckableError(InputError):
    """A report that is there and cannot be checked: damaged, beyond the limits, or of another version."""

    exit_code = 6


class ManifestError(InputError):
    """A manifest that cannot be read; the message names file, row and column."""


class AudioError(InputError):
    """A recording that cannot be used; the message names the file."""


class ModelError(EarwitnessError):
    """A model that is unknown, incomplete, of another family or unsafe to load; its files cannot fill the screen."""

    exit_code = 3

    def __str__(self) -> str:
        """Return the message on one line, as every error's, and no longer than a few of a terminal's."""
        text = super().__str__()
        return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"


class NetworkError(ModelError, RuntimeError):
    """A model that loads and cannot be run; what its library raised is its cause, so nothing is hidden."""


class StoppedError(EarwitnessError):
    """A run that was stopped from outside; the message says how to go on."""

    exit_code = 4


class StoreError(EarwitnessError):
    """Stored signals that cannot be read or written: a full or read-only disk, a part from a newer version."""

    exit_code = 5


def nearest(name: str, choices: Iterable[str], cutoff: float = 0.5) -> str:
    """Suggest the closest of ``choices`` as a clause to append to a message, or an empty string."""
    match = get_close_matches(name, list(choices), n=1, cutoff=cutoff)
    return f"; did you mean {match[0]!r}?" if match else ""


@contextmanager
def exit_with_one_line() -> Iterator[None]:
    """End the process on an error a user can cause: one line on standard error, the error's exit code, no traceback."""
    try:
        yield
    except EarwitnessError as error:
        sys.stderr.write(f"earwitness: {error}\n")
        sys.exit(error.exit_code)
