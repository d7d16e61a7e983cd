"""Versions of one piece are one work: what joins them, what joins nothing, and what a table of works says instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earwitness.data.copies import Link
from earwitness.data.manifest import read_splits
from earwitness.data.works import (
    ALONE,
    CLIP_S,
    GENERIC,
    SOUND,
    TITLE,
    find_joins,
    joined,
    parse_title,
    with_works,
    works_on_both_sides,
)
from earwitness.errors import ManifestError
from earwitness.pocket.corpus import plan
from earwitness.types import Track


def _tracks(*names: str, role: str = "suspect", artist: str = "", root: str = "in") -> list[Track]:
    return [Track(f"{role}/{name}", Path(root) / role / name, role, artist=artist) for name in names]


def _joins(tracks: list[Track], facts: dict[str, Any] | None = None, links: list[Link] | None = None) -> list[set[str]]:
    found = find_joins(tracks, facts or {}, links or [])
    return [{track.track_id.partition("/")[2] for track in join.tracks} for join in found]


@pytest.mark.parametrize(
    ("name", "base", "marks"),
    [
        ("01 Song 1", "song 1", ""),
        ("01 Song 1 - Drums+Bass", "song 1", "drums bass"),
        ("1-03 River (Radio Edit)", "river", "radio edit"),
        ("B2. River [2011 Remaster]", "river", "2011 remaster"),
        ("River - Live at the Harbour, 1999", "river", "live at the harbour 1999"),
        ("River (feat. Somebody) (Instrumental)", "river", "instrumental"),
        ("River feat. Somebody - Live", "river", "live"),
        ("River (Somebody's Remix)", "river", "somebodys remix"),
        ("river_acapella", "river", "acapella"),
        ("River-INSTRUMENTAL-v2", "river", "instrumental v2"),
        ("River Instrumental", "river", "instrumental"),
        ("River a cappella", "river", "a cappella"),
        ("River (No Vocals)", "river", "no vocals"),
        ("River (Slowed + Reverb)", "river", "slowed reverb"),
        ("River clip 3", "river", "clip 3"),
        ("Ríver's Édge (Démo)", "rivers edge", "demo"),
        # words that belong to the title
        ("(I Can't Get No) Satisfaction", "i cant get no satisfaction", ""),
        ("Hip-Hop", "hip hop", ""),
        ("Take Five", "take five", ""),
        ("Long Live", "long live", ""),
        ("Live", "live", ""),
        ("Stereo Love", "stereo love", ""),
        ("(One)", "one", ""),
        ("River (A Minor)", "river a minor", ""),
        ("ovelune-07", "ovelune 07", ""),
        ("River, Pt. 2", "river pt 2", ""),
    ],
)
def test_titles_are_taken_apart(name: str, base: str, marks: str) -> None:
    found = parse_title(name)
    assert (found.base, found.marks) == (base, frozenset(marks.split()))


def test_names_before_a_title_are_dropped_where_they_are_known() -> None:
    assert parse_title("Calm Marine - River", ["Calm Marine"]).base == "river"
    assert parse_title("03 - Calm Marine - 03 - River", ["calm  marine"]).base == "river"
    assert parse_title("Calm Marine - River", ["Somebody Else"]).base == "calm marine river"


def test_part_two_of_a_minute_is_a_clip_and_of_more_a_piece() -> None:
    assert parse_title("River Part 2", seconds=CLIP_S).base == "river"
    assert parse_title("River Part 2", seconds=CLIP_S + 1).base == "river part 2"


@given(st.text())
def test_any_text_is_a_title_and_taking_apart_ends(text: str) -> None:
    found = parse_title(text)
    assert found.base == found.base.strip()
    assert parse_title(found.base).base == found.base or found.base[:3].strip("0123456789 ") != found.base[:3]


STEMS = ("{}.flac", "{} (Instrumental).flac", "{} (Acapella).flac", "{} - Drums+Bass.flac")


def test_stems_of_five_songs_are_five_works() -> None:
    names = [form.format(f"{k:02d} Song {k}") for k in range(1, 6) for form in STEMS]
    joins = _joins(_tracks(*names))
    assert sorted(map(sorted, joins)) == sorted(
        sorted(form.format(f"{k:02d} Song {k}") for form in STEMS) for k in range(1, 6)
    )


JOINED = {
    "a folder for each song": ("River/drums.wav", "River/bass.wav", "River/other.wav", "River/vocals.wav"),
    "a mix beside its stems": ("River.wav", "River/drums.wav", "River/bass.wav"),
    "counted parts": ("River/01 Kick.wav", "River/02 Snare.wav", "River/03 Lead Vox.wav"),
    "a folder of instrumentals": ("Mixes/01 River.flac", "Instrumentals/01 River.flac"),
    "two masters": ("Album/03 River.flac", "Best of/07 River (2011 Remaster).flac"),
    "clips with a number": ("river_clip_01.wav", "river_clip_02.wav"),
    "a separation program's": ("1_River_(Vocals).wav", "1_River_(Instrumental).wav"),
    "clips": ("River clip 1.wav", "River clip 2.wav", "River clip 3.wav"),
    "takes": ("River (take 1).wav", "River (take 2).wav"),
    "two suffixes": ("River.flac", "River (radio edit).mp3"),
    "a generic title and its version, on one album": ("Album/Intro.wav", "Album/Intro (Instrumental).wav"),
    "numbered songs": ("Track 01.wav", "Track 01 (Instrumental).wav"),
    "parts without brackets": ("River drums.wav", "River bass.wav", "River vocals.wav"),
}
APART = {
    "two songs": ("River.wav", "Harbour.wav"),
    "counted songs": ("Song 1.wav", "Song 2.wav"),
    "programs' names": ("Track 01.wav", "Track 02.wav", "Audio 1#01.wav", "Audio 1#02.wav"),
    "one name on two albums, by nobody": ("A/River.wav", "B/River.wav"),
    "generic titles on two albums": ("A/Intro.wav", "B/Intro (Live).wav"),
    "masses": ("A/Kyrie.wav", "B/Kyrie (Live).wav", "A/Gloria.wav", "B/Gloria (Live).wav"),
    "movements": ("A/I. Allegro con brio.wav", "B/I. Allegro con brio (Live).wav"),
    "twice on one album": ("A/01 Harbour.wav", "A/09 Harbour.wav", "A/12 Harbour (Live).wav"),
    "the name of an instrument": ("Love.wav", "Love Drums.wav"),
    "songs called after instruments": ("Album/Drums.wav", "Other/Bass.wav"),
    "parts of a suite": ("Suite Part 1.wav", "Suite Part 2.wav"),
    "numbers": ("001.wav", "002.wav", "3.wav"),
}


@pytest.mark.parametrize("case", JOINED)
def test_versions_are_joined(case: str) -> None:
    assert _joins(_tracks(*JOINED[case])) == [set(JOINED[case])]


@pytest.mark.parametrize("case", APART)
def test_what_only_has_a_name_in_common_is_not_joined(case: str) -> None:
    assert _joins(_tracks(*APART[case])) == []


def test_the_same_file_names_on_both_sides_join_nothing() -> None:
    """Programs count their exports, and people call both sides' files alike: a name alone, by nobody, is too little."""
    for names in (("good.wav", "a.wav"), ("take1.wav", "take2.wav"), ("tune00.wav", "song_1.wav"), ("river.wav",)):
        assert _joins([*_tracks(*names), *_tracks(*names, role="held_out")]) == []


def test_one_title_by_one_artist_is_one_work_and_by_two_is_two() -> None:
    names = ("A/River.wav", "B/River.wav")
    assert _joins(_tracks(*names, artist="Somebody")) == [set(names)]
    two = [*_tracks("A/River.wav", artist="Somebody"), *_tracks("B/River (Live).wav", artist="Somebody Else")]
    assert _joins(two) == []
    unknown = [*_tracks("A/River.wav", artist="Somebody"), *_tracks("B/River (Live).wav")]
    assert _joins(unknown) == [{"A/River.wav", "B/River (Live).wav"}]  # nobody else is there


def test_tags_say_what_names_do_not() -> None:
    tracks = _tracks("x1.flac", "x2.flac", "River (Live).flac", "x4.flac")
    tags = {
        "x1.flac": {"title": "River", "artist": "Somebody", "album": "One"},
        "x2.flac": {"title": "River (Instrumental)", "artist": "Somebody", "album": "One"},
        "x4.flac": {"title": "Harbour", "artist": "Somebody", "album": "One"},
        "River (Live).flac": {"title": "", "artist": "Somebody"},
    }
    facts = {f"suspect/{name}": {"tags": found} for name, found in tags.items()}
    assert _joins(tracks, facts) == [{"x1.flac", "x2.flac", "River (Live).flac"}]
    facts["suspect/River (Live).flac"]["tags"]["title"] = "Harbour (Live)"  # a tag counts more than a name
    assert sorted(map(sorted, _joins(tracks, facts))) == [["River (Live).flac", "x4.flac"], ["x1.flac", "x2.flac"]]


def test_stems_with_the_tags_of_their_mix_are_joined_by_what_their_names_say() -> None:
    names = ("River - Drums.wav", "River - Bass.wav", "River.wav")
    tracks = _tracks(*names)
    facts = {t.track_id: {"tags": {"title": "River", "artist": "Somebody", "album": "One"}} for t in tracks}
    assert _joins(tracks, facts) == [set(names)]
    numbers = _tracks("01.wav", "02.wav")
    facts = {t.track_id: {"tags": {"title": "River", "artist": "Somebody", "album": "One"}} for t in numbers}
    assert _joins(numbers, facts) == []  # twice on one album, and nothing says that it is one piece


def test_sound_joins_what_names_do_not_but_an_album_in_one_file_joins_nothing() -> None:
    tracks = _tracks("a.wav", "b.wav", "c.wav", "d.wav")
    ids = [track.track_id for track in tracks]
    gone = [Link(ids[0], "suspect/gone.wav", 0.6, 0.6), Link("suspect/gone.wav", ids[1], 0.6, 0.6)]
    facts = {name: {"duration_s": 6.0} for name in [*ids, "suspect/gone.wav", "suspect/album.wav"]}
    (join,) = find_joins(tracks, facts, gone)
    assert ([track.track_id for track in join.tracks], join.why) == (ids[:2], SOUND)
    album = [Link(ids[2], "suspect/album.wav", 1.0, 0.1), Link(ids[3], "suspect/album.wav", 1.0, 0.1)]
    assert find_joins(tracks, facts, album) == []


def test_named_works_stay_as_they_are_and_never_become_one() -> None:
    first, second, third = _tracks("River.wav", "River (Live).wav", "River (Demo).wav")
    named = [Track(t.track_id, t.path, t.role, work=w) for t, w in ((first, "w"), (second, "v"), (third, ""))]
    (join,) = find_joins(named, {}, [])
    assert third.track_id in {track.track_id for track in join.tracks}
    assert len({track.work for track in join.tracks if track.work}) == 1
    tracks, left = joined(named, [join], {track.track_id: {} for track in named})
    assert left == {}
    assert [track.work for track in tracks][:2] == ["w", "v"]
    assert tracks[2].work in {"w", "v"}


def test_a_work_is_named_by_content_and_one_on_both_sides_is_left_out() -> None:
    tracks = [*_tracks("River.wav", "Harbour.wav", "Harbour (Live).wav"), *_tracks("River (Live).wav", role="held_out")]
    facts = {track.track_id: {"sha256": f"{i}" * 64} for i, track in enumerate(tracks)}
    found = find_joins(tracks, facts)
    named, left = joined(tracks, found, facts)
    works = {track.track_id: track.work for track in named}
    assert works["suspect/Harbour.wav"] == works["suspect/Harbour (Live).wav"] == f"joined {'1' * 16}"
    assert set(left) == {"suspect/River.wav", "held_out/River (Live).wav"}
    assert left["suspect/River.wav"].startswith("the same work as held_out/River (Live).wav on the other side")
    assert "--works" in left["suspect/River.wav"]
    assert works_on_both_sides(named) == (works["suspect/River.wav"],)
    assert {join.describe() for join in found} == {
        f"suspect/River.wav and held_out/River (Live).wav are one work ({TITLE})",
        f"suspect/Harbour.wav and suspect/Harbour (Live).wav are one work ({TITLE})",
    }


def test_which_side_a_recording_is_on_changes_no_join() -> None:
    names = [name for case in (*JOINED.values(), *APART.values()) for name in case]
    one = [Track(name, Path("in") / name, "suspect") for name in dict.fromkeys(names)]
    other = [Track(t.track_id, t.path, "held_out" if i % 2 else "suspect") for i, t in enumerate(one)]
    assert [[t.track_id for t in join.tracks] for join in find_joins(one, {})] == [
        [t.track_id for t in join.tracks] for join in find_joins(other, {})
    ]


def test_no_track_of_the_pocket_corpora_is_joined(root: Path) -> None:
    """Published numbers rest on them: by their manifests, and as a folder of files without one."""
    for path in sorted((root / "data_manifests").rglob("*.csv")):
        tracks = read_splits(path)
        bare = [Track(f"suspect/{t.path.name}", t.path, "suspect") for t in tracks]
        assert find_joins(tracks, {}) == find_joins(bare, {}) == []
    assert len(plan()) == 1520


# --- a table of works -------------------------------------------------------------------------------------------------


def _table(path: Path, *rows: tuple[str, str], key: str = "path") -> Path:
    pd.DataFrame(rows, columns=[key, "work"]).to_csv(path, index=False)
    return path


def test_a_table_of_works_joins_and_parts(tmp_path: Path) -> None:
    tracks = _tracks("River.wav", "River (Live).wav", "x.wav", "y.wav")
    table = _table(tmp_path / "w.csv", ("River (Live).wav", ""), ("x.wav", "Harbour"), ("y.wav", "Harbour"))
    given = with_works(tracks, table)
    assert [t.work for t in given] == ["", f"{ALONE}suspect/River (Live).wav", "Harbour", "Harbour"]
    assert find_joins(given, {}) == []  # a title would join the first two
    table = _table(tmp_path / "v.csv", ("suspect/River.wav", "a"), ("suspect/River (Live).wav", "b"), key="track_id")
    assert find_joins(with_works(tracks, table), {}) == []


@pytest.mark.parametrize(
    ("rows", "key", "message"),
    [
        ([("z.wav", "w")], "path", r"w\.csv, line 2: 'z\.wav' fits no recording"),
        ([("x.wav", "w"), ("x.wav", "v")], "path", r"w\.csv, line 3: a second work for 'suspect/x\.wav'"),
        ([("x.wav", "w")], "name", r"expected columns 'work' and 'path'"),
    ],
)
def test_a_table_of_works_that_fits_nothing_names_its_line(
    rows: list[tuple[str, str]], key: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ManifestError, match=message):
        with_works(_tracks("x.wav"), _table(tmp_path / "w.csv", *rows, key=key))


def test_a_table_may_name_what_is_left_out_unopened(tmp_path: Path) -> None:
    table = _table(tmp_path / "w.csv", ("x.wav", "w"), ("gone.wma", "w"))
    assert [t.work for t in with_works(_tracks("x.wav"), table, ["suspect/gone.wma"])] == ["w"]


def test_generic_titles_are_single_words() -> None:
    assert {"kyrie", "intro", "untitled", "track"} <= GENERIC
    assert not [word for word in GENERIC if " " in word or word != word.casefold()]
