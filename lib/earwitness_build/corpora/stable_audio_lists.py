"""Stable Audio Open's attribution lists: which recordings of Freesound and the Free Music Archive it was trained on.

A recording of the same archive, under a licence that the list holds, that is *not* on the list is a candidate for a
non-member; one under another licence could not have been on it and is kept apart.
"""

from __future__ import annotations

import re

import pandas as pd

from earwitness.errors import ManifestError
from earwitness_build.corpora import fsd50k
from earwitness_build.corpora.official import Official
from earwitness_build.corpora.registry import builder

SOUNDS = "freesound_sounds.csv"  # what Freesound's own interface tells of sounds, under its names
FIELDS = ("id", "name", "username", "license", "duration", "created")
FREESOUND, FMA = "freesound_dataset_attribution2.csv", "fma_dataset_attribution2.csv"
LISTED = ("id", "title", "author", "license", "url")
PREFIX = re.compile(r"^creative commons\b\W*")
OPEN = re.compile(  # CC0, CC BY, CC Sampling+; Freesound's pages call the first "Creative Commons 0"
    r"cc[- ]?0|^0$|^0 |zero|public ?domain|sampling\+|/by/|^((cc[- ]?)?by|attribution)\b"
)
NARROWER = re.compile(r"non|share|deriv|[-/ ](nc|sa|nd)\b")
OVERLAP = 0.5  # at least this share of a list must be found in the archive's own metadata


def listed(official: Official, name: str) -> set[str]:
    """Return the ids of an attribution list."""
    return set(official.table(name, LISTED[:1] + LISTED[3:], key="id")["id"])


def part(licence: str, on_list: bool) -> str:
    """Return listed, unlisted, other-licence (could not have been listed) or no-licence."""
    if on_list:
        return "listed"
    if not licence.strip():
        return "no-licence"
    text = PREFIX.sub("", licence.strip().lower())
    return "unlisted" if OPEN.search(text) and not NARROWER.search(text) else "other-licence"


@builder("freesound-sao", sides=("listed", "unlisted"), expected={**fsd50k.EXPECTED, FREESOUND: 472_618})
def freesound(official: Official) -> pd.DataFrame:
    """Return one row per sound of ``freesound_sounds.csv``, or else per clip of FSD50K; the list divides them."""
    ids = listed(official, FREESOUND)
    rows = freesound_sounds(official) if official.holds(SOUNDS) else fsd50k.fsd50k(official)
    return rows.assign(
        split=[part(licence, name in ids) for licence, name in zip(rows["licence"], rows["track_id"], strict=True)]
    )


def freesound_sounds(official: Official) -> pd.DataFrame:
    """Return one row per sound of a table with the fields of Freesound's interface."""
    rows = official.table(SOUNDS, FIELDS, key="id")
    return pd.DataFrame(
        {
            "track_id": rows["id"],
            "audio": [(number,) for number in rows["id"]],
            "artist": rows["username"],
            "caption": rows["name"],
            "duration_s": official.numbers(SOUNDS, rows["duration"], "duration"),
            "licence": rows["license"],
            "source": "https://freesound.org/s/" + rows["id"],
            "released": rows["created"].str[:10],
        }
    )


@builder("fma-sao", sides=("listed", "unlisted"), expected={FMA: 13_874, "tracks.csv": 106_574})
def fma(official: Official) -> pd.DataFrame:
    """Return one row per track of the FMA data set (``fma_metadata/tracks.csv``, whose heading has two lines)."""
    ids = listed(official, FMA)
    rows = fma_tracks(official)
    known = ids & set(rows["track_id"])
    if len(known) < OVERLAP * len(ids):
        raise ManifestError(
            f"{FMA}: expected ids of tracks.csv, found {len(known)} of {len(ids)} there; the list numbers its "
            "tracks in another way, or the two files do not belong together"
        )
    return rows.assign(
        split=[part(licence, name in ids) for licence, name in zip(rows["licence"], rows["track_id"], strict=True)]
    )


def fma_tracks(official: Official) -> pd.DataFrame:
    """Return one row per track of ``tracks.csv``: a first heading names the group, a second the column."""
    name = "tracks.csv"
    rows = official.rows(name)
    (_, groups), (_, names) = next(rows, (0, [])), next(rows, (0, []))
    heading = [f"{group}/{column}" for group, column in zip(groups, names, strict=False)]
    wanted = ("artist/name", "track/title", "track/license", "track/duration", "track/date_created")
    for column in wanted:
        if column not in heading:
            raise ManifestError(
                f"{name}: expected a column {column!r} under a heading of two lines, found {', '.join(heading[:6])}; "
                "take fma_metadata/tracks.csv as it was published"
            )
    held = {line: cells for line, cells in rows if cells[0] != "track_id"}
    for line, cells in held.items():
        if len(cells) != len(heading):
            raise ManifestError(
                f"{name}, line {line}: expected {len(heading)} cells, found {len(cells)}; fetch it anew"
            )
    table = pd.DataFrame.from_dict(held, orient="index", columns=["id", *heading[1:]], dtype=str)
    official.count(name, len(table))
    official.unique(name, table["id"], "track id")
    padded = table["id"].str.zfill(6)
    return pd.DataFrame(
        {
            "track_id": table["id"],
            "audio": [(f"{n[:3]}/{n}", n) for n in padded],
            "artist": table["artist/name"],
            "caption": table["track/title"],
            "duration_s": official.numbers(name, table["track/duration"], "duration"),
            "licence": table["track/license"],
            "source": "https://freemusicarchive.org",
            "released": table["track/date_created"].str[:10],
        }
    )
