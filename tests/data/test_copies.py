"""What is left out of copies: pairs and not chains, albums told from copies, and a reason true of that very file."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earwitness.data.copies import (
    ACROSS,
    EXCERPT,
    LONG_S,
    SAME,
    TRACK_S,
    Link,
    collections_of,
    families,
    left_out,
    links_of,
    settle,
)
from earwitness.types import Track


def _tracks(**roles: str) -> list[Track]:
    return [Track(name, Path(f"{name}.wav"), role) for name, role in roles.items()]


def _facts(tracks: list[Track], **lengths: float) -> dict[str, dict[str, Any]]:
    plain = {"format": "WAV", "codec": "PCM_16"}
    return {t.track_id: {**plain, "sha256": t.track_id, "duration_s": lengths.get(t.track_id, 6.0)} for t in tracks}


def _pairs(*rows: tuple[str, str, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["track_id", "other_id", "offset_s"])


def same(first: str, second: str) -> Link:
    return Link(first, second, 1.0, 1.0)


def part(inner: str, whole: str, share: float = 0.1) -> Link:
    return Link(inner, whole, 1.0, share)


@pytest.mark.parametrize(
    ("offset", "a", "b", "share", "other"),
    [
        (0.0, 6.0, 6.0, 1.0, 1.0),
        (12.0, 72.0, 6.0, 6 / 72, 1.0),  # the second begins twelve seconds into the first
        (-12.0, 6.0, 72.0, 1.0, 6 / 72),
        (2.0, 6.0, 6.0, 4 / 6, 4 / 6),  # shifted: each has a stretch of its own
        (-1.0, 4.0, 6.0, 1.0, 4 / 6),  # trimmed at both ends
    ],
)
def test_shares_follow_from_offset_and_lengths(offset: float, a: float, b: float, share: float, other: float) -> None:
    tracks = _tracks(x="suspect", y="suspect")
    (link,) = links_of(_pairs(("x", "y", offset)), _facts(tracks, x=a, y=b))
    assert (link.share, link.other_share) == pytest.approx((share, other))


def test_pieces_of_midi_are_compared_by_their_notes() -> None:
    facts = {"x": {"notes": 40, "duration_s": 10.0}, "y": {"notes": 100, "duration_s": 8.0}}
    (link,) = links_of(_pairs(("x", "y", float("nan"))), facts)
    assert (link.share, link.other_share) == (1.0, 0.4)
    assert link.is_part("x")
    assert not link.is_part("y")
    assert link.describe("y", "piece") == "a longer piece that holds x"


def test_a_copy_of_a_copy_is_no_copy() -> None:
    """B is linked to A and to C, which are nothing to each other: what is printed of each is true of it."""
    tracks = _tracks(a="suspect", b="suspect", c="suspect")
    links = [same("a", "b"), same("b", "c")]
    facts = _facts(tracks, b=6.3)
    left = left_out(tracks, links, facts)  # b is the longest and stays: both others are copies of it
    assert left == dict.fromkeys("ac", "the same recording as b on the same side, which is kept (longer)")
    facts = _facts(tracks, a=6.3, c=6.2)
    left = left_out(tracks, links, facts)  # a stays; c is no copy of anything that is left
    assert set(left) == {"b"}
    assert left["b"].startswith("the same recording as a ")


def test_an_album_in_one_file_goes_and_its_tracks_stay() -> None:
    names = [f"s{i:02d}" for i in range(12)]
    tracks = [*_tracks(**dict.fromkeys(names, "suspect"), album="suspect"), *_tracks(h="held_out")]
    links = [*(part(name, "album", 1 / 12) for name in names), same("s03", "h"), part("h", "album", 1 / 12)]
    left = left_out(tracks, links, _facts(tracks, album=72.0))
    assert set(left) == {"album", "s03", "h"}
    assert left["album"].startswith("holds s00 and s01 and 11 more: left out as several recordings in one file")
    assert left["s03"] == "the same recording as h on the other side; both are left out"
    assert left["h"] == "the same recording as s03 on the other side; both are left out"


def test_an_album_on_the_other_side_takes_its_tracks_with_it() -> None:
    tracks = _tracks(album="suspect", h1="held_out", h2="held_out", h3="held_out")
    left = left_out(tracks, [part("h1", "album"), part("h2", "album")], _facts(tracks, album=60.0))
    assert set(left) == {"album", "h1", "h2"}
    assert left["h1"] == f"a part of album {ACROSS}; both are left out"


@pytest.mark.parametrize(
    ("whole_s", "part_s", "mix"),
    [(LONG_S, TRACK_S, True), (LONG_S - 1, TRACK_S, False), (LONG_S, TRACK_S - 1, False), (LONG_S, 700.0, False)],
)
def test_a_long_file_that_holds_one_track_is_a_mix_and_a_song_with_an_excerpt_is_none(
    whole_s: float, part_s: float, mix: bool
) -> None:
    tracks = _tracks(whole="suspect", one="suspect")
    facts = _facts(tracks, whole=whole_s, one=part_s)
    links = [part("one", "whole", part_s / whole_s)]
    assert bool(collections_of(links, facts)) is mix
    assert set(left_out(tracks, links, facts)) == {"whole" if mix else "one"}


def test_of_copies_the_most_common_format_stays_then_the_lossless_then_the_longest() -> None:
    tracks = _tracks(wav="suspect", mp3="suspect", x="held_out", y="held_out")
    facts = _facts(tracks, wav=6.2)
    for name in ("mp3", "x", "y"):  # formats of both sides count, recordings that are no copies too
        facts[name] |= {"format": "MP3", "codec": "MPEG_LAYER_III"}
    left = left_out(tracks, [same("wav", "mp3")], facts)
    assert left == {
        "wav": "the same recording as mp3 on the same side, which is kept (in the format of more recordings)"
    }
    facts["x"] |= {"format": "WAV"}  # two of each
    left = left_out(tracks, [same("wav", "mp3")], facts)
    assert left == {"mp3": "the same recording as wav on the same side, which is kept (lossless)"}
    facts["mp3"] |= {"codec": "PCM_24"}
    left = left_out(tracks, [same("wav", "mp3")], facts)
    assert left["mp3"].endswith("(longer)")


def test_an_excerpt_never_stays_for_its_format() -> None:
    tracks = _tracks(full="suspect", clip="suspect", other="suspect")
    facts = _facts(tracks, full=180.0, clip=30.0)
    for name in ("clip", "other"):
        facts[name]["format"] = "MP3"
    left = left_out(tracks, [part("clip", "full", 30 / 180)], facts)
    assert left == {"clip": "a part of full on the same side, which is kept (whole)"}


def test_what_hangs_together_with_a_copy_on_the_other_side_goes_too() -> None:
    tracks = _tracks(a="suspect", b="held_out", c="suspect", d="suspect", e="suspect")
    links = [same("a", "b"), same("a", "c"), Link("c", "d", 0.6, 0.6)]
    left = left_out(tracks, links, _facts(tracks))
    assert set(left) == {"a", "b", "c", "d"}
    assert left["c"] == f"the same recording as a, which is left out for a copy {ACROSS}"
    assert left["d"] == f"a recording of which 60% is heard in c, which is left out for a copy {ACROSS}"


LINKS = st.lists(
    st.tuples(st.integers(0, 7), st.integers(0, 7), st.floats(0.05, 1), st.floats(0.5, 1)).filter(
        lambda r: r[0] != r[1]
    ),
    max_size=12,
    unique_by=lambda r: frozenset(r[:2]),
)


@given(rows=LINKS, sides=st.lists(st.booleans(), min_size=8, max_size=8), order=st.permutations(range(8)))
def test_whatever_is_linked_no_two_that_stay_are_copies_and_no_name_or_order_counts(
    rows: list[tuple[int, int, float, float]], sides: list[bool], order: list[int]
) -> None:
    tracks = [Track(f"t{i}", Path(f"{i}.wav"), "suspect" if side else "held_out") for i, side in enumerate(sides)]
    facts = _facts(tracks, **{f"t{i}": 5.0 + i for i in range(8)})
    links = [Link(f"t{a}", f"t{b}", *((low, high) if a < b else (high, low))) for a, b, low, high in rows]
    left = left_out(tracks, links, facts)
    albums = collections_of(links, facts)
    kept = {track.track_id for track in tracks} - set(left)
    assert not [link for link in links if {link.first, link.second} <= kept]
    role = {track.track_id: track.role for track in tracks}
    for link in links:  # copies never straddle the sides
        if role[link.first] != role[link.second]:
            assert {link.first, link.second} <= set(left)
    linked = set(itertools.chain.from_iterable((link.first, link.second) for link in links))
    assert set(left) <= linked
    for name, reason in left.items():  # each reason names a recording that is linked to this very one
        partners = {link.other(name) for link in links if name in (link.first, link.second)}
        assert any(partner in reason for partner in partners)
        assert (name in albums) == reason.startswith("holds ")
        if reason.startswith("the same"):
            twins = {link.other(name) for link in links if name in (link.first, link.second) and link.is_same()}
            assert any(reason.startswith(f"the same recording as {twin}") for twin in twins)
    swapped = {"suspect": "held_out", "held_out": "suspect"}
    mirror = [Track(t.track_id, t.path, swapped[t.role]) for t in tracks]
    assert set(left_out(mirror, links, facts)) == set(left)
    assert set(left_out([tracks[i] for i in order], links, facts)) == set(left)


def test_twins_stay_where_works_are_compared_in_pairs_unless_they_are_one_file() -> None:
    tracks = [
        Track("a", Path("a"), "suspect", work="w"), Track("b", Path("b"), "held_out", work="w"),
        Track("c", Path("c"), "suspect", work="v"), Track("d", Path("d"), "held_out", work="v"),
    ]  # fmt: skip
    facts = _facts(tracks)
    facts["d"]["sha256"] = "c"
    pairs = _pairs(("a", "b", 0.0), ("c", "d", 0.0))
    table, others, left = settle(tracks, pairs, facts, paired=True)
    assert table["twins"].tolist() == [True, False]
    assert [link.first for link in others] == ["c"]
    assert set(left) == {"c", "d"}
    table, _, left = settle(tracks, pairs, facts)
    assert not table["twins"].any()
    assert set(left) == {"a", "b", "c", "d"}
    assert all("are compared with --pairs work" in reason for reason in left.values())
    empty, others, left = settle(tracks, pairs[:0], facts)
    assert (len(empty[~empty["twins"]]), others, left) == (0, [], {})


def test_families_hang_together_but_not_through_an_album() -> None:
    links = [same("a", "b"), same("b", "c"), part("d", "album"), part("e", "album")]
    assert families("abcde", links, apart=["album"]) == [["a", "b", "c"]]
    assert families("cba", links) == [["c", "b", "a"]]
    assert families("xy", []) == []


def test_the_limits_are_in_order() -> None:
    assert 0 < EXCERPT < SAME < 1
