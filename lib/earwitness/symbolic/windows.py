"""A piece cut into the windows that a symbolic model was trained on; each whole window is a segment.

FIGARO's windows start at token 257 k: 257 tokens, of which the first 256 are inputs and the last 256 labels. Segments
are the whole windows alone: all hold equally many tokens, none overlap, and the rest of a piece is left out as the rest
of a recording is. Tokens 257 k are never labels. A model with a table of fewer bars than FIGARO's 256 takes from a
longer piece the windows that lie within its table. The book page *Methods: symbolic models* draws it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earwitness.errors import AudioError
from earwitness.symbolic import figaro_vocabulary as v
from earwitness.symbolic import midi
from earwitness.symbolic.figaro_tokens import (
    GROUPS,
    TRAINED_BARS,
    Score,
    Tokens,
    description_of,
    score_of,
    tokens_of,
)
from earwitness.types import Scheme, Segment, Window

VERSION = 1  # raise it when a token, an id or a window changes: stored signals are keyed by it
CONTEXT = 256
MAX_UNKNOWN = 0.01  # share of a piece's tokens that may lie outside the vocabulary
MAX_POSITION = 512  # pieces with a higher one are skipped in training


@dataclass(frozen=True)
class FigaroScheme:
    """FIGARO's reading: tokens, description and windows of ``window`` inputs; ``dropped`` as ``description_of``."""

    window: int = CONTEXT
    dropped: frozenset[str] = frozenset()
    name: str = field(default="figaro", init=False)
    groups: tuple[str, ...] = field(default=GROUPS, init=False)

    def key(self) -> dict[str, Any]:
        """Return what stored signals are keyed by."""
        return {"scheme": self.name, "version": VERSION, "window": self.window, "dropped": sorted(self.dropped)}

    def to_plain(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return {"name": self.name, "window": self.window, "dropped": sorted(self.dropped)}

    def read(self, path: Path) -> Score:
        """Read a file as training did; an ``AudioError`` says why it cannot be used."""
        return score_of(midi.read(path), path.name, max_bars=max(self.window, TRAINED_BARS))

    def windows(self, score: Score) -> list[Window]:
        """Return the whole windows of a piece.

        Raises
        ------
        AudioError
            Too many tokens outside the vocabulary, or a bar longer than any in training.
        """
        tokens = tokens_of(score)
        unknown = float(np.mean(tokens.ids == v.UNKNOWN))
        if unknown > MAX_UNKNOWN:
            raise AudioError(f"{unknown:.0%} of its tokens lie outside the model's vocabulary; is a metre unusual?")
        if int(tokens.positions.max()) > MAX_POSITION:
            raise AudioError("a bar is longer than any that the model was trained on; check the metre")
        size = self.window + 1
        return self._cut(score, tokens, [k * size for k in range(len(tokens) // size)])

    def training_windows(self, score: Score) -> list[Window]:
        """Return the windows of training: the last one ends with the piece and overlaps the one before it.

        A piece shorter than a window has one, padded with ``<pad>``.
        """
        tokens, size = tokens_of(score), self.window + 1
        starts = list(range(0, len(tokens), size))
        if len(starts) > 1:
            starts[-1] = len(tokens) - size
        return self._cut(score, tokens, starts)

    def neighbours(self, kind: str, score: Score) -> list[Score]:
        """Return a piece's neighbours of one kind, see ``symbolic.neighbours``."""
        from earwitness.symbolic.neighbours import NEIGHBOURS

        return [change(score) for change in NEIGHBOURS[kind]]

    def _cut(self, score: Score, tokens: Tokens, starts: list[int]) -> list[Window]:
        described = description_of(score, self.dropped)
        edges = np.flatnonzero(np.diff(tokens.bars)) + 1  # where a bar begins, and where the last one ends
        bars = [np.array([v.BEGIN, *tokens.ids[a:b], v.END], np.int32)[: self.window] for a, b in pairwise(edges)]
        found = []
        for index, start in enumerate(starts):
            inputs, labels = slice(start, start + self.window), slice(start + 1, start + self.window + 1)
            beside = {name: self._padded(getattr(tokens, name)[inputs]) for name in ("bars", "positions")}
            beside |= self._description(*described, int(tokens.bars[start]))
            groups = np.full(self.window, -1, np.int8)
            notes = np.full(self.window, -1, np.int32)
            held = len(tokens.ids[labels])
            groups[:held], notes[:held] = tokens.groups[labels], tokens.notes[labels]
            if max(int(values.max()) for values in (beside["bars"], beside["description_bars"])) > self.window:
                break  # the model has no row for such a bar, and later windows have later bars
            whole = self._padded(tokens.ids[start : start + self.window + 1], self.window + 1)
            found.append(Window(index, start, whole, groups, notes, beside, tuple(bars), score))
        return found

    def _description(self, ids: NDArray[np.int32], bars: NDArray[np.int32], bar: int) -> dict[str, NDArray[np.int32]]:
        """Return the description from a bar on, padded to the window: nothing masks the padding, so it counts."""
        begin = [v.BEGIN] if bar == 0 else []
        kept = bars >= bar
        return {
            "description": self._padded(np.array([*begin, *ids[kept], v.END], np.int32)),
            "description_bars": self._padded(np.array([*[0] * len(begin), *bars[kept], 0], np.int32)),
        }

    def _padded(self, values: NDArray[np.int32], length: int = 0) -> NDArray[np.int32]:
        """Return values cut or padded with 0 to the window."""
        length = length or self.window
        return np.pad(values[:length], (0, max(0, length - len(values))))


@dataclass(frozen=True)
class SymbolicSpec:
    """What a symbolic model reads and how pieces are cut: the counterpart of ``data.audio.AudioSpec``.

    ``max_segments`` keeps the first windows, not a draw of them: the first window, with the start of the piece and its
    whole description, differs from the others, so a comparison of equal numbers must hold equal positions.
    """

    scheme: Scheme
    seed: int = 0
    max_segments: int = 0

    def key(self) -> dict[str, Any]:
        """Return what stored signals are keyed by; nothing here is drawn, so the seed is not among it."""
        return {**self.scheme.key(), "max_segments": self.max_segments}

    def to_plain(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return {"scheme": self.scheme.to_plain(), "seed": self.seed, "max_segments": self.max_segments}

    @classmethod
    def from_plain(cls, fields: dict[str, Any]) -> SymbolicSpec:
        """Undo ``to_plain``."""
        given = fields["scheme"]
        scheme: Scheme
        if given["name"] == "figaro":
            scheme = FigaroScheme(given["window"], frozenset(given["dropped"]))
        else:
            from earwitness.symbolic.miditok import MiditokScheme

            scheme = MiditokScheme.from_plain(given)
        return cls(scheme, fields["seed"], fields["max_segments"])


def segments(path: Path, spec: SymbolicSpec) -> Iterator[Segment]:
    """Yield the whole windows of a MIDI file as segments: ``audio`` holds the tokens ``[1, W + 1]``.

    Raises
    ------
    AudioError
        A file that cannot be used, or is shorter than one window.
    """
    score = spec.scheme.read(path)
    try:
        windows = spec.scheme.windows(score)
    except AudioError as error:
        raise AudioError(f"{path.name}: {error}") from None
    if not windows:
        raise AudioError(f"{path.name}: shorter than one window of the model; nothing is padded, so leave it out")
    for window in windows[: spec.max_segments or None]:
        content = hashlib.sha256(f"{spec.scheme.key()}:{window.start}".encode())
        for values in (window.tokens, *window.inputs.values(), *window.bar_tokens):
            content.update(values.astype("<i4").tobytes())
        yield Segment(content.hexdigest()[:24], window.start_s, window.tokens[None], context=window)
