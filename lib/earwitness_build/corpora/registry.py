"""Which corpora can be built: every module of this package that registers one.

The book page *Manifest catalogue* lists them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING

import yaml

from earwitness.data.audio import SUFFIXES
from earwitness.data.manifest import CorpusCard
from earwitness.errors import InputError, nearest
from earwitness_build.corpora.matching import ALIKE

if TYPE_CHECKING:
    import pandas as pd

    from earwitness_build.corpora.official import Official

    Reader = Callable[[Official], pd.DataFrame]

BUILDERS: dict[str, Builder] = {}


@dataclass(frozen=True)
class Builder:
    """How one corpus is read.

    Attributes
    ----------
    name : str
        Its card is ``<name>.card.yml`` beside the module.
    read : callable
        ``Official -> pandas.DataFrame``, as the package's docstring says.
    sides : tuple of tuple of str
        Splits of members and splits of non-members that are matched with each other; empty: nothing is matched.
    alike : tuple of str
        In what matched tracks must agree: ``artist``, ``length``, ``words`` (of the caption).
    suffixes : frozenset of str
        Suffixes that a recording of the corpus may have.
    expected : dict
        Official file -> number of its records as published; another number means another version.
    """

    name: str
    read: Reader
    sides: tuple[tuple[str, ...], tuple[str, ...]] | tuple[()]
    alike: tuple[str, ...]
    suffixes: frozenset[str]
    expected: dict[str, int]

    @property
    def card(self) -> CorpusCard:
        """The corpus's card, before counts, files and drawn splits are filled in."""
        return CorpusCard.model_validate(
            yaml.safe_load(Path(__file__).with_name(f"{self.name}.card.yml").read_text(encoding="utf-8"))
        )


def builder(
    name: str,
    *,
    sides: tuple[str | tuple[str, ...], str | tuple[str, ...]] | tuple[()] = (),
    alike: tuple[str, ...] = ALIKE,
    suffixes: frozenset[str] | set[str] = frozenset(SUFFIXES),
    expected: dict[str, int] | None = None,
) -> Callable[[Reader], Reader]:
    """Register a corpus; a side is a split, or a tuple of splits. The arguments are those of ``Builder``."""

    def register(read: Reader) -> Reader:
        pair = tuple((side,) if isinstance(side, str) else side for side in sides)
        BUILDERS[name] = Builder(name, read, pair, alike, frozenset(suffixes), expected or {})  # type: ignore[arg-type]
        return read

    return register


@cache
def builders() -> dict[str, Builder]:
    """Return every corpus that can be built, by name."""
    package = Path(__file__).parent
    for module in iter_modules([str(package)]):
        import_module(f"earwitness_build.corpora.{module.name}")
    return dict(sorted(BUILDERS.items()))


def find(name: str) -> Builder:
    """Return one corpus.

    Raises
    ------
    InputError
        No such corpus; the message lists those there are.
    """
    known = builders()
    if name not in known:
        raise InputError(f"no builder for {name!r}; there are {', '.join(known)}{nearest(name, known)}")
    return known[name]
