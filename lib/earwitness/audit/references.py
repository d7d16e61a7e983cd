"""Reference artists: whom no model can have heard, and among whom the suspects are ranked as one artist.

They are examined like the two sides, stand on neither, and decide nothing: a rank among K artists cannot be rarer than
one in K + 1, however many recordings there are.

Book page: *Audit your own*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from earwitness.audit.intake import Intake, examine
from earwitness.audit.report import Rank, read_scores
from earwitness.audit.scoring import Listened, scores_of
from earwitness.data import fingerprint
from earwitness.data.copies import links_of
from earwitness.data.folders import EXCLUSION_COLUMNS, Found, scan
from earwitness.data.redaction import Numbered, number
from earwitness.errors import InputError, ManifestError
from earwitness.stats.artist_rank import rank_artist
from earwitness.types import REFERENCE, ModelInfo, Track

SUSPECTS = "the suspects"  # what they are called as one artist; references are called B01, B02 …
LEAST = 2


@dataclass(frozen=True)
class References:
    """Reference artists by number (``R001`` of ``B01``), and (name, side, reason) of each recording left out."""

    numbered: Numbered
    refused: pd.DataFrame


def read(folder: Path, intake: Intake, model: str) -> References:
    """Examine reference artists: one folder each, which is the artist's name.

    Parameters
    ----------
    folder : Path
        Holds the artists' folders.
    intake : Intake
        The two sides: a reference that is a copy of one of their recordings is left out.
    model : str
        Its window decides what is too short.

    Raises
    ------
    InputError
        No folder, an artist who is on one of the sides as well, or fewer than two artists that can be used.
    """
    found = listed(folder, intake.tracks)
    seen = examine(found.tracks, model, found=found, unit="track")
    both = fingerprint.duplicates([*intake.tracks, *seen.tracks], intake.prints | seen.prints, scores=intake.scores)
    facts: dict[str, Any] = {row["track_id"]: row for one in (intake, seen) for row in one.files.to_dict("records")}
    copies = {
        link.second: f"{link.describe(link.second, 'recording')}, which stands on one of the sides"
        for link in links_of(both[both["role"] != both["other_role"]], facts)
    }
    numbered = number([track for track in seen.tracks if track.track_id not in copies], "RB")
    if (left := len(numbered.artists)) < LEAST:
        raise ManifestError(
            f"{folder}: expected usable recordings of at least {LEAST} reference artists, found those of {left}; "
            "run check on their folders to see why"
        )
    more = [(name, REFERENCE, why) for name, why in (copies | numbered.gone).items()]
    refused = pd.concat([seen.exclusions, pd.DataFrame(more, columns=list(EXCLUSION_COLUMNS))], ignore_index=True)
    return References(numbered, refused)


def listed(folder: Path, sides: Sequence[Track]) -> Found:
    """List the recordings of reference artists, one folder each; nothing is opened yet.

    Raises
    ------
    InputError
        No folder, fewer than two, or an artist who is on one of the sides as well.
    """
    places = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if len(places) < LEAST:
        raise ManifestError(f"{folder}: expected one folder per reference artist, found {len(places)}; add more")
    own = {track.artist.casefold() for track in sides if track.artist}
    if same := [place.name for place in places if place.name.casefold() in own]:
        raise InputError(f"reference artist {same[0]!r} is on one of the sides; references must be other artists")
    tracks: list[Track] = []
    refused: list[tuple[str, str, str]] = []
    for place in places:
        for entry in (entry for entry in scan(place) if entry.kind == "recording"):
            name = f"{place.name}/{entry.name}"
            if entry.reason:
                refused.append((name, REFERENCE, entry.reason))
            else:
                tracks.append(Track(name, entry.path, REFERENCE, artist=place.name))
    return Found(tuple(tracks), pd.DataFrame(refused, columns=list(EXCLUSION_COLUMNS)), {}, folder)


def without_captions(suspects: Sequence[Track]) -> list[Track]:
    """Return the suspects as they are compared with reference artists, which have no captions."""
    return [replace(track, caption="") for track in suspects]


def scored(info: ModelInfo, suspects: Sequence[Track], references: Sequence[Track], lot: int | None = None) -> Listened:
    """Score the suspects, taken as one artist, and the reference artists; ``lot`` as for ``scores_of``.

    References have no captions, so the suspects are scored without theirs: a caption would set the two apart.
    """
    tracks = [replace(track, artist=SUSPECTS, role="suspect", work="") for track in without_captions(suspects)]
    return scores_of(info, [*tracks, *(replace(track, role="held_out") for track in references)], lot, blind=False)


def rank(content: bytes, seed: int) -> Rank:
    """Rank the suspects among the reference artists of a file of scores."""
    found = rank_artist(read_scores(content), seed=seed)
    return Rank(
        p_value=round(found.p_value, 6),
        floor=round(found.floor, 6),
        references=found.n_references,
        tracks_each=found.n_tracks,
    )
