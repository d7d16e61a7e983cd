"""Which recordings are versions of one piece: stems, instrumentals, edits, remasters, takes and clips are one *work*.

They are not independent of each other, so the work is what a test counts. A work that somebody named stays as it is;
only recordings without one are joined, to each other or to a named one. What joins: sound that both share, or the same
title by the same artist, once the words for a version (*instrumental*, *radio edit*, *drums*, *take 2*) are taken off.
Titles come from tags and from names. A title alone joins nothing if it is generic (*Intro*, *Track 01*, *Kyrie*), if it
stands twice on an album, or if it is the name of a file whose artist nobody names.

Nothing looks at which side a recording is on, except that a joined work on both sides is left out on both. The check
lists every join. Book page: *Audit your own*.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from unicodedata import normalize

from earwitness.data.copies import Link, collections_of, families
from earwitness.data.known_names import lists_of
from earwitness.data.side_table import read_beside
from earwitness.types import Track

# --- titles -----------------------------------------------------------------------------------------------------------

PARTS, VERSIONS, GLUE, ENDS, STARTS, GENERIC = lists_of("parts", "versions", "glue", "ends", "starts", "generic")
# After a title without a bracket or a dash before them; words that end titles of their own accord are not among them.
BARE = re.compile(
    r"\s(?:instrumentals?|a ?cap?pellas?|karaoke|remaster(?:ed)?|remix|radio edit|extended (?:mix|version)|snippet|"
    r"preview|demo|mixdown|final|v\d+|(?:final|rough|full|stereo|mono) mix|"
    r"(?:excerpt|clip|take|snippet|loop|chunk|segment)s? ?\d*)$"
)
CLIP = re.compile(r"(?:\s|[-_(\[])(?:part|pt)\.? ?(\d+)(?:\s?(?:of|/)\s?\d+)?[)\]]?$")
CLIP_S = 90.0  # "part 2" of so few seconds is a clip; of more it may be a piece of its own
BRACKET = re.compile(r"[(\[{]([^()\[\]{}]*)[)\]}]$")
DASH = re.compile(r"(?:\s+[-–—~]+\s*|[-–—_.]+)([^-–—_.]*)$")
NUMBER = re.compile(
    r"^(?:(?:cd|disc|disk) ?\d+\s*[-._ ]\s*|\d{1,2}\s*[-._]\s*(?=\d))?(?:\d{1,3}|[a-d]\d{1,2})\s*[-._) ]+\s*(?=\S)"
)
FEATURED = re.compile(r"\s*(?:[(\[](?:feat|ft|featuring)\b[^)\]]*[)\]]|\s(?:feat|ft|featuring)\b(?:(?! - )[^(\[])*)")


@dataclass(frozen=True)
class Title:
    """A title taken apart: ``base`` without the words for a version, and those; ``soft`` if they may belong to it."""

    base: str
    marks: frozenset[str] = frozenset()
    soft: bool = False

    def is_generic(self) -> bool:
        """Say whether nothing but numbers and words that many albums have is left."""
        words = self.base.split()
        return all(word.isdigit() or word in GENERIC for word in words) or len(self.base) < 3

    def is_counted(self) -> bool:
        """Say whether it ends in a number, as names that a program gave do."""
        return self.base[-1:].isdigit()


def parse_title(text: str, drop: Iterable[str] = (), *, seconds: float = float("inf")) -> Title:
    """Take a title apart.

    Parameters
    ----------
    text : str
        A tag, or the name of a file without its suffix.
    drop : iterable of str
        Names (artist, album) that may stand before it.
    seconds : float
        Length of the recording: "part 2" of a minute is a clip of a piece.

    Examples
    --------
    >>> parse_title("03 - River (Radio Edit)").base
    'river'
    >>> sorted(parse_title("River_drums").marks)
    ['drums']
    """
    left = NUMBER.sub("", normalize("NFKC", text).casefold().strip())
    for name in (_plain_words(name) for name in drop):
        head, dash, rest = left.partition(" - ")
        left = NUMBER.sub("", rest.strip()) if dash and name and _plain_words(head) == name else left
    left = FEATURED.sub(" ", left).strip() or left
    marks: list[str] = []
    soft = False
    while left:
        left = left.strip(" -_.~") or left
        cut = CLIP.search(left) if seconds <= CLIP_S else None
        cut = cut or next((m for m in (BRACKET.search(left), DASH.search(left)) if m and _is_version(m.group(1))), None)
        cut = cut or BARE.search(re.sub(r"[-_.]", " ", left))
        if cut is None and (last := left.rpartition(" "))[2] in PARTS and last[0]:
            left, soft = last[0], True
            marks.append(last[2])
            continue
        if cut is None or not _plain_words(left[: cut.start()]):
            break
        marks += _plain_words(cut.group()).split()
        left = left[: cut.start()].strip()
    return Title(_plain_words(left), frozenset(marks), soft)


def _plain_words(text: str) -> str:
    """Return the words of a text, without accents, apostrophes or anything between them but a space."""
    bare = "".join(c for c in normalize("NFKD", text.casefold()) if not "̀" <= c <= "ͯ")
    return " ".join(re.findall(r"[^\W_]+", re.sub(r"['’`´]", "", bare)))


def _is_version(text: str) -> bool:
    """Say whether words after a title say which version of it this is."""
    words = _plain_words(text).split()
    if not words or all(word.isdigit() for word in words):
        return False
    if words[-1] in ENDS or words[0] in STARTS:
        return True
    known = PARTS | VERSIONS
    return not GLUE.issuperset(words) and all(word in known | GLUE or re.fullmatch(r"v?\d+", word) for word in words)


# --- what is known of a recording -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Known:
    """A recording as it is compared: who plays, on which album, called what; ``named`` and ``tagged`` may be empty."""

    track: Track
    artist: str
    album: str
    tagged: Title | None
    named: Title

    @property
    def title(self) -> Title:
        """The tag's, else the name's."""
        return self.tagged or self.named


def _known(track: Track, facts: Mapping[str, Any]) -> _Known:
    """Gather what is known of a recording from its manifest, its tags and its name."""
    tags = facts.get("tags") or {}
    artist = track.artist or str(tags.get("artist") or "")
    album = str(tags.get("album") or "")
    folder = track.path.parent
    seconds = float(facts.get("duration_s") or "inf")
    drop = [artist, album, folder.name, folder.parent.name]
    named = parse_title(track.path.stem, drop, seconds=seconds)
    if named.base and PARTS.issuperset(named.base.split()):  # a folder for each song, a file for each of its parts
        named = Title(parse_title(folder.name, drop[:1]).base, frozenset(named.base.split()) | named.marks, soft=True)
        album = album or str(folder.parent)
    elif _is_version(folder.name):  # "Instrumentals/01 River.flac"
        named = replace(named, marks=named.marks | frozenset(_plain_words(folder.name).split()))
    tagged = parse_title(str(tags["title"]), drop, seconds=seconds) if str(tags.get("title") or "").strip() else None
    if tagged is not None:  # stems often bear the tags of their mix: what a name says of the version holds beside them
        tagged = replace(tagged, marks=tagged.marks | named.marks) if tagged.base else None
    return _Known(track, _plain_words(artist), _plain_words(album) or str(folder), tagged, named)


# --- joins ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Join:
    """Recordings that were taken for versions of one work, and why."""

    tracks: tuple[Track, ...]
    why: str

    @property
    def straddles(self) -> bool:
        """Whether they stand on both sides."""
        return len({track.role for track in self.tracks}) > 1

    def describe(self) -> str:
        """Return a sentence that names them."""
        names = [track.track_id for track in self.tracks]
        return f"{', '.join(names[:-1])} and {names[-1]} are one work ({self.why})"


ALONE = "alone: "  # begins the work of a recording that somebody said is a work of its own
SOUND = "they share sound"
TITLE = "the same title"


def find_joins(
    tracks: Sequence[Track], facts: Mapping[str, Mapping[str, Any]], links: Sequence[Link] = ()
) -> list[Join]:
    """Return the works that recordings without a named one belong to; each join holds at least two recordings.

    Parameters
    ----------
    tracks : sequence of Track
        What is left once copies are out.
    facts : mapping
        ``track_id`` -> ``duration_s``, and ``tags`` (``title``, ``artist``, ``album``) where the file has any.
    links : sequence of Link
        All pairs of copies, of recordings that were left out too.
    """
    tracks = [track for track in tracks if not track.work.startswith(ALONE)]
    known = {track.track_id: _known(track, facts.get(track.track_id, {})) for track in tracks}
    groups = _Groups(tracks)
    every = dict.fromkeys([*known, *(name for link in links for name in (link.first, link.second))])
    for family in families(every, links, apart=collections_of(links, facts)):
        groups.join([name for name in family if name in known], SOUND)
    alike: dict[str, list[_Known]] = defaultdict(list)
    for one in known.values():
        for title in {title.base for title in (one.title, one.named) if title.base}:
            alike[title].append(one)
    for base, several in alike.items():
        for members in _by_artist(several):
            members = [one for one in members if one.tagged is None or one.tagged.base == base]
            _join_titles(members, groups.join)
    return groups.found()


def _by_artist(several: Sequence[_Known]) -> list[list[_Known]]:
    """Return recordings of one title by artist; those of no artist go with the only one there is."""
    artists = dict.fromkeys(one.artist for one in several if one.artist)
    if len(artists) <= 1:
        return [list(several)]
    return [[one for one in several if one.artist == artist] for artist in ["", *artists]]


def _join_titles(members: Sequence[_Known], join: Callable[[Sequence[str], str], None]) -> None:
    """Join recordings of one title and artist, if the title can carry it."""
    titles = [(one, one.title) for one in members]
    soft = [title for _, title in titles if title.soft]
    if len({title.marks for title in soft}) < 2:  # "River Drums" alone may be the name of a song
        titles = [(one, title) for one, title in titles if not title.soft]
    if len(titles) < 2 or _is_twice(titles):
        return
    whose = all(one.artist or one.tagged for one, _ in titles)  # else a name alone, by nobody, says too little
    counted = any(title.is_counted() for _, title in titles) and not whose
    versions = any(title.marks for _, title in titles)
    if not titles[0][1].is_generic() and not counted and (whose or versions):
        join([one.track.track_id for one, _ in titles], TITLE)
        return
    beside: dict[str, list[tuple[_Known, Title]]] = defaultdict(list)
    for one, title in titles:  # such a title says something within its album only, and only of versions
        beside[one.album].append((one, title))
    for found in beside.values():
        if any(title.marks for _, title in found):
            join([one.track.track_id for one, _ in found], TITLE)


def _is_twice(titles: Sequence[tuple[_Known, Title]]) -> bool:
    """Say whether one album has the same title, the same version of it, twice: then it is not one piece's name.

    Two formats of one file, which share a name, are no two.
    """
    seen: dict[tuple[str, frozenset[str]], str] = {}
    return any(
        seen.setdefault((one.album, title.marks), one.track.path.stem) != one.track.path.stem for one, title in titles
    )


class _Groups:
    """Recordings joined step by step; two works that somebody named are never made one."""

    def __init__(self, tracks: Sequence[Track]) -> None:
        self.group = {track.track_id: [track] for track in tracks}
        self.why: dict[int, dict[str, None]] = defaultdict(dict)

    def join(self, names: Sequence[str], why: str) -> None:
        """Join recordings, as far as their named works allow."""
        for first, other in pairwise(names):
            one, more = self.group[first], self.group[other]
            if one is more or len({track.work for track in [*one, *more] if track.work}) > 1:
                continue
            self.why[id(one)] |= self.why.pop(id(more), {}) | {why: None}
            one.extend(more)
            for track in more:
                self.group[track.track_id] = one

    def found(self) -> list[Join]:
        """Return the groups that a join made."""
        order = {name: place for place, name in enumerate(self.group)}
        unique = {id(group): group for group in self.group.values() if self.why.get(id(group))}
        return [
            Join(tuple(sorted(group, key=lambda track: order[track.track_id])), " and ".join(self.why[key]))
            for key, group in unique.items()
        ]


def joined(
    tracks: Sequence[Track], joins: Sequence[Join], facts: Mapping[str, Mapping[str, Any]]
) -> tuple[list[Track], dict[str, str]]:
    """Give joined recordings their work; leave out those of works on both sides.

    Returns
    -------
    list of Track, dict
        All tracks, with works; ``track_id`` -> reason for those that cannot be compared.
    """
    works: dict[str, str] = {}
    reasons: dict[str, str] = {}
    for join in joins:
        hashes = sorted(str(facts[track.track_id].get("sha256", "")) for track in join.tracks)
        given = next((track.work for track in join.tracks if track.work), "")
        name = given or f"joined {hashes[0][:16]}"  # by content: another name of a file makes no other work
        works |= dict.fromkeys((track.track_id for track in join.tracks), name)
        for track in join.tracks if join.straddles else ():
            other = next(one for one in join.tracks if one.role != track.role)
            reasons[track.track_id] = (
                f"the same work as {other.track_id} on the other side ({join.why}); both are left out: a work is "
                "compared with itself only in pairs (--pairs work); if they are two works, say so with --works"
            )
    return [replace(track, work=works.get(track.track_id, track.work)) for track in tracks], reasons


def works_on_both_sides(tracks: Iterable[Track]) -> tuple[str, ...]:
    """Return the works that have takes in more than one role, sorted."""
    roles: dict[str, set[str]] = defaultdict(set)
    for track in tracks:
        roles[track.work].add(track.role)
    return tuple(sorted(work for work, found in roles.items() if work and len(found) > 1))


# --- works that somebody names ----------------------------------------------------------------------------------------


def with_works(tracks: Sequence[Track], path: Path, unopened: Iterable[str] = ()) -> list[Track]:
    """Take works from a table: its word counts, whatever titles and sound say.

    Parameters
    ----------
    tracks : sequence of Track
        Recordings of both sides.
    path : Path
        CSV with ``work`` and either ``track_id`` or ``path``, as ``side_table.read_beside`` takes it. An empty ``work``
        says that a recording is a work of its own. Recordings without a row are joined as ever.
    unopened : iterable of str
        Recordings that were found and are left out: the table may name them.

    Raises
    ------
    ManifestError
        As ``read_beside``.
    """
    given = read_beside(tracks, path, "work", unopened)
    return [
        replace(track, work=given[track.track_id].strip() or f"{ALONE}{track.track_id}")
        if track.track_id in given
        else track
        for track in tracks
    ]
