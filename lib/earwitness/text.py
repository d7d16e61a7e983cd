"""Text from outside (names, captions, tags) before it reaches a terminal, a log or a spreadsheet.

File names and captions are whatever somebody typed, or crafted: line breaks that forge a line of output, escape
sequences, marks that turn the reading direction, cells that a spreadsheet runs as a formula. HTML and notebooks have
their own escaping. The book page *Threat model* says what is defended here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")


def plain(text: str) -> str:
    r"""Return ``text`` with everything that is not printable written as an escape: a line break becomes ``\n``.

    Control characters, direction marks and bytes that were no UTF-8 lose their effect and stay visible.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def counted(n: int, noun: str) -> str:
    """Return a number with its noun: "1 artist", "12 artists"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def guard(cell: object) -> object:
    """Return a table's cell so that no spreadsheet takes it for a formula: an apostrophe before ``=``, ``+``, ``@``…"""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA_STARTS) else cell


def unguard(cell: str) -> str:
    """Undo ``guard``."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(FORMULA_STARTS) else cell


def guarded(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose text cells and headings no spreadsheet takes for formulas."""
    text = frame.select_dtypes(exclude="number").columns
    return frame.assign(**{name: frame[name].map(guard) for name in text}).rename(columns=guard)


def unguarded(frame: pd.DataFrame) -> pd.DataFrame:
    """Undo ``guarded`` on a table that was read back."""
    text = frame.select_dtypes(include=["object", "string"]).columns
    cells = {name: frame[name].map(unguard, na_action="ignore") for name in text}
    return frame.assign(**cells).rename(columns=unguard)


def write_csv(frame: pd.DataFrame, path: Path, **options: object) -> None:
    """Write a table for people, whole or not at all; text cells are guarded against formulas.

    Parameters
    ----------
    frame : pandas.DataFrame
        Written without its index.
    path : Path
        Its folder must exist.
    **options
        Passed to ``DataFrame.to_csv``.
    """
    part = path.with_name(f".{path.name}.part")
    guarded(frame).to_csv(part, index=False, **options)  # type: ignore[call-overload]
    part.replace(path)
