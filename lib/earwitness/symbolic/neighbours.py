"""A piece's natural neighbours: transposed, louder or softer, faster or slower.

No training of FIGARO's changed a piece so, hence a neighbour is unseen by construction. Each has the same number of
tokens as the piece, so the windows stand side by side; chords and description move with the notes. Strengths are fixed
here once and are the same for every piece. The book page *Methods: symbolic models* says what they are for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from earwitness.symbolic.figaro_tokens import CHORD, TEMPO, Bar, Item, Score
from earwitness.symbolic.figaro_vocabulary import DRUM, ROOTS

SEMITONES = 1
VELOCITY = 8  # two bins
FACTOR = 1.1  # of the tempo


def transposed(score: Score, *, by: int) -> Score:
    """Every pitched note and chord moved by semitones; a note that would leave the range stays an octave inside."""

    def moved(item: Item) -> Item:
        root, _, quality = str(item.value).partition(":")
        if item.kind != CHORD or root not in ROOTS:
            return item
        return replace(item, value=f"{ROOTS[(ROOTS.index(root) + by) % 12]}:{quality}")

    notes = score.notes.copy()
    pitched = notes["program"] != DRUM
    pitch = notes["pitch"][pitched] + by
    notes["pitch"][pitched] = np.where(pitch > 127, pitch - 12, np.where(pitch < 0, pitch + 12, pitch))
    return replace(score, notes=notes, bars=_changed(score, moved))


def dynamics(score: Score, *, by: int) -> Score:
    """Every note louder or softer, within the range."""
    notes = score.notes.copy()
    notes["velocity"] = np.clip(notes["velocity"] + by, 1, 127)
    return replace(score, notes=notes)


def tempo(score: Score, *, factor: float) -> Score:
    """Faster or slower: the tempo token alone, since everything else is counted in beats."""

    def moved(item: Item) -> Item:
        return replace(item, value=round(int(item.value) * factor)) if item.kind == TEMPO else item

    return replace(score, bars=_changed(score, moved))


def _changed(score: Score, change: Callable[[Item], Item]) -> tuple[Bar, ...]:
    return tuple(replace(bar, items=tuple(change(item) for item in bar.items)) for bar in score.bars)


NEIGHBOURS: dict[str, tuple[Callable[[Score], Score], ...]] = {
    "transposition": tuple(partial(transposed, by=sign * SEMITONES) for sign in (1, -1)),
    "dynamics": tuple(partial(dynamics, by=sign * VELOCITY) for sign in (1, -1)),
    "tempo": (partial(tempo, factor=FACTOR), partial(tempo, factor=1 / FACTOR)),
}
