"""Draws: balanced, the same anywhere, blind to membership."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earwitness.data.manifest import draw, named, read_manifest, read_splits
from earwitness.errors import ManifestError
from earwitness.types import Track

TRACKS = [
    Track(f"{split}-{artist}-{n}", Path(f"{split}-{artist}-{n}.wav"), "suspect", artist=artist, split=split)
    for split in ("a", "neither")
    for artist in ("K", "L", "M")
    for n in range(10)
]


@given(count=st.integers(1, 60), seed=st.integers(0, 9))
def test_a_draw_is_balanced_over_sides_and_artists_and_keeps_the_order(count, seed):
    drawn = draw(TRACKS, count, seed=seed)
    assert len(drawn) == count
    assert drawn == [t for t in TRACKS if t in drawn]
    sides = Counter(t.split for t in drawn)
    assert abs(sides["a"] - sides["neither"]) <= 1
    for split in ("a", "neither"):
        per_artist = [sum((t.split, t.artist) == (split, artist) for t in drawn) for artist in ("K", "L", "M")]
        assert max(per_artist) - min(per_artist) <= 1


def test_a_draw_is_nested_repeatable_and_follows_its_seed():
    assert {t.track_id for t in draw(TRACKS, 12)} < {t.track_id for t in draw(TRACKS, 24)}
    assert draw(TRACKS[::-1], 12)[::-1] == draw(TRACKS, 12)
    assert draw(TRACKS, 12, seed=1) != draw(TRACKS, 12)
    assert draw(TRACKS, 0) == draw(TRACKS, 1000) == TRACKS


def test_what_serves_another_purpose_stays_out():
    out = [TRACKS[0].path, TRACKS[35].path]
    assert not {t.path for t in draw(TRACKS, 0, without=out)} & set(out)
    assert len(draw(TRACKS, 58, without=out)) == 58


def test_roles_that_are_known_only_later_change_no_draw():
    """A scoring run knows splits, a page roles too: both must mean the same tracks."""
    roles = {"a": "member", "neither": "nonmember"}
    later = [replace(t, role=roles[t.split]) for t in TRACKS]
    for count in (7, 24):
        assert [t.track_id for t in draw(later, count)] == [t.track_id for t in draw(TRACKS, count)]


def test_the_pocket_draw_is_the_same_for_scoring_and_page(root):
    path = root / "data_manifests" / "pocket.csv"
    scored = draw(read_splits(path, ["b", "neither"]), 240)
    shown = draw(read_manifest(path, target="pocket/musicgen-b"), 240)
    assert [t.track_id for t in scored] == [t.track_id for t in shown]
    assert set(Counter((t.role, t.artist) for t in shown).values()) == {10}


def test_recordings_by_name():
    assert named(TRACKS, {"nonmember": "neither-K-3"}) == {"nonmember": Path("neither-K-3.wav")}
    with pytest.raises(ManifestError, match=r"member is to be track 'a-K-33', .* 'a-K-3'"):
        named(TRACKS, {"member": "a-K-33"})
