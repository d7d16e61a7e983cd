"""A table beside the recordings: captions or works, a row each, matched by name and never by guess.

Book page: *Audit your own*.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from unicodedata import normalize

from earwitness.data.csv_table import read_table
from earwitness.errors import ManifestError, nearest
from earwitness.types import ROLE_NAMES, SIDES, Track
from earwitness.util import plain

Places = list[dict[str, list[str]]]  # most exact first: what a recording may be called -> track_ids of those called so


def read_beside(tracks: Sequence[Track], path: Path, column: str, unopened: Iterable[str] = ()) -> dict[str, str]:
    """Read one column of a table for the recordings that it names.

    Parameters
    ----------
    tracks : sequence of Track
        Recordings of both sides.
    path : Path
        CSV with ``column`` and either ``track_id``, or ``path``: relative to a recording's folder, or the end of its
        path, as long as only one recording is called so; ``./`` may stand before it.
    column : str
        What is read.
    unopened : iterable of str
        Recordings that were found and are left out: the table may name them.

    Returns
    -------
    dict of str to str
        ``track_id`` -> cell, as it stands.

    Raises
    ------
    ManifestError
        A table that cannot be read or has other columns, a row that fits no recording or several, a second row for one.
    """
    table, lines = read_table(path, f"{column}s")
    named = next((name for name in ("track_id", "path") if name in table.column_names), None)
    if named is None or column not in table.column_names:
        raise ManifestError(
            f"{path.name}: expected columns {column!r} and 'path' (or 'track_id'), found "
            f"{', '.join(table.column_names)}; rename them"
        )
    places = _places(tracks, unopened, by_id=named == "track_id")
    given: dict[str, str] = {}
    for row, (name, cell) in enumerate(zip(table[named].to_pylist(), table[column].to_pylist(), strict=True)):
        fits = _fits(name, places)
        if len(fits) != 1:
            raise lines.fault(row, _several(name, fits) if fits else _none(name, places))
        if fits[0] in given:
            raise lines.fault(row, f"a second {column} for {fits[0]!r}")
        given[fits[0]] = cell
    return given


def _key(name: str) -> str:
    """Return a name as it is compared: accents are composed on some systems only, and a manifest may write ``./``."""
    return normalize("NFC", plain(name)).removeprefix("./")


def _fits(name: str, places: Places) -> list[str]:
    """Return the recordings that are called so in the most exact way that there is."""
    key = _key(name)
    rank = next((rank for rank, place in enumerate(places) if key in place), None)
    if rank is None:
        return []
    fits = places[rank][key]
    if rank != 1:
        return fits
    # at the top of one folder and deeper in the other: nothing says which of the two is meant
    folders = {fit.partition("/")[0] for fit in fits}
    return [*fits, *(other for other in places[2].get(key, ()) if other.partition("/")[0] not in folders)]


def _places(tracks: Sequence[Track], unopened: Iterable[str], *, by_id: bool) -> Places:
    """Return what each recording may be called: its id; its path in its folder; the end of its path."""
    places: Places = [{}, {}, {}]
    for name, path in [*((t.track_id, t.path) for t in tracks), *((name, PurePath(name)) for name in unopened)]:
        parts = _key(path.as_posix()).split("/")
        tails = ["/".join(parts[start:]) for start in range(len(parts))]
        for place, called in zip(places, ([_key(name)], [_key(name).partition("/")[2]], tails), strict=True):
            for key in filter(None, called):
                place.setdefault(key, []).append(name)
    return places[:1] if by_id else places


def _several(name: str, fits: Sequence[str]) -> str:
    return f"{name!r} fits {len(fits)} recordings ({fits[0]}, {fits[1]}); write the folder before it"


def _none(name: str, places: Places) -> str:
    written = '; use "/" between folders' if "\\" in name else nearest(name, (places[1:2] or places)[0])
    return f"{plain(name)!r} fits no recording{written}"


def with_captions(tracks: Sequence[Track], path: Path, unopened: Iterable[str] = ()) -> list[Track]:
    """Add the captions of a table; recordings that it does not name keep what they have.

    Parameters
    ----------
    tracks : sequence of Track
        Recordings of both sides.
    path : Path
        CSV with ``caption`` and either ``track_id`` or ``path``, as ``read_beside`` takes it.
    unopened : iterable of str
        Recordings that were found and are left out: the table may name them.

    Raises
    ------
    ManifestError
        As ``read_beside``, or empty captions only.
    """
    given = read_beside(tracks, path, "caption", unopened)
    found = [replace(track, caption=given.get(track.track_id, track.caption)) for track in tracks]
    if not any(track.caption.strip() for track in found):
        raise ManifestError(f"{path.name}: expected captions, found empty cells only; fill the column 'caption'")
    return found


def coverage(tracks: Sequence[Track]) -> str:
    """Say how many recordings of each side have a caption: captions on one side only tell the sides apart."""
    sides = {ROLE_NAMES[role]: [track for track in tracks if track.role == role] for role in SIDES}
    counts = (f"{sum(bool(t.caption.strip()) for t in side)} of {len(side)} {name}" for name, side in sides.items())
    return f"captions for {', '.join(counts)}"
