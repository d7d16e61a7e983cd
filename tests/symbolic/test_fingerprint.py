"""The fingerprint of scores: copies are found through what people do to files; music that is only alike is no copy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earwitness.data.fingerprint import duplicates
from earwitness.pocket.corpus import plan
from earwitness.pocket.midi import midi_bytes
from earwitness.symbolic.figaro_tokens import NOTE
from earwitness.symbolic.fingerprint import SPAN, words
from earwitness.types import Track
from tests.score_changes import CHANGES, fingerprint


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """All 60 pieces of one artist, which are as alike as pieces get, and one of every other's."""
    chosen = [e for e in plan() if e.artist.slug == "grindlebee" or e.number == 7]
    return {e.track_id: midi_bytes(e.piece(), e.artist) for e in chosen}


@pytest.fixture(scope="module")
def prints(files: dict[str, bytes]) -> dict[str, np.ndarray]:
    return {name: fingerprint(data) for name, data in files.items()}


def _pairs(prints: dict[str, np.ndarray]) -> set[tuple[str, str]]:
    tracks = [Track(name, Path(name), "suspect") for name in prints]
    found = duplicates(tracks, prints, scores=True)
    assert found["offset_s"].isna().all()
    return set(zip(found["track_id"], found["other_id"], strict=True))


def test_pieces_of_one_artist_are_not_copies(prints: dict[str, np.ndarray]) -> None:
    assert len(prints) > 80
    assert not _pairs(prints)


@pytest.mark.parametrize("change", CHANGES)
def test_every_planted_copy_is_found_and_nothing_else(
    change: str, files: dict[str, bytes], prints: dict[str, np.ndarray]
) -> None:
    planted = list(files)[::3]
    copies = {f"{n}-copy": fingerprint(files[n], CHANGES[change], seed) for seed, n in enumerate(planted)}
    assert _pairs(prints | copies) == {(name, f"{name}-copy") for name in planted}


def _notes(rows: list[tuple[float, int]], program: int = 0) -> np.ndarray:
    notes = np.zeros(len(rows), NOTE)
    notes["start_s"], notes["pitch"] = zip(*rows, strict=True) if rows else ((), ())
    notes["end_s"], notes["velocity"], notes["program"] = notes["start_s"] + 0.1, 80, program
    return notes


TUNES = st.lists(st.tuples(st.integers(0, 40), st.integers(30, 90)), min_size=SPAN, max_size=40, unique=True)


@settings(max_examples=60, deadline=None)
@given(rows=TUNES, up=st.integers(-20, 30), factor=st.sampled_from([0.5, 0.75, 1.5, 3.0]), seed=st.integers(0, 99))
def test_words_are_those_of_the_same_tune_anywhere(rows, up, factor, seed):
    """Transposed, faster, later, in another order, louder: the very same words."""
    notes = _notes([(0.25 * step, pitch) for step, pitch in rows])
    other = notes.copy()
    other["pitch"] += up
    other["start_s"] = 3.0 + factor * other["start_s"]
    other["velocity"] = 17
    other = other[np.random.default_rng(seed).permutation(len(other))]
    assert words(other).tolist() == words(notes).tolist()


def test_another_interval_or_rhythm_is_another_word():
    tune = [(0.0, 60), (0.5, 64), (1.0, 67), (1.5, 72)]
    plain = words(_notes(tune))
    assert len(plain) == len(tune) - SPAN + 1
    assert words(_notes([*tune[:3], (1.5, 71)])).tolist() != plain.tolist()
    assert words(_notes([*tune[:3], (2.5, 72)])).tolist() != plain.tolist()
    assert words(_notes([*tune[:3], (1.51, 72)])).tolist() == plain.tolist()  # played, not programmed
    assert plain.all(), "0 would mean silence"


def test_too_little_to_tell_is_no_fingerprint():
    assert not len(words(_notes([])))
    assert not len(words(_notes([(0.0, 60), (0.5, 62)])))


def test_drums_speak_where_there_is_nothing_else():
    beat = [(0.25 * i, 36 if i % 4 == 0 else 42) for i in range(16)]
    assert len(words(_notes(beat, 128))) == 16 - SPAN + 1
    tune = _notes([(0.5 * i, 60 + i) for i in range(10)])
    both = np.concatenate([tune, _notes(beat, 128)])
    assert words(both).tolist() == words(tune).tolist()
