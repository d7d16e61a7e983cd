"""What an audit was given, before any model is loaded: files, copies, imbalances, and what is left out and why.

Rules: a recording that cannot be decoded, or is shorter than one segment, is left out. Copies of one recording on both
sides are left out on both, of copies on one side one stays (``data.copies``). Versions of one piece are one work, which
is what is counted (``data.works``). Where works are compared in pairs, versions of a work on both sides are meant to be
alike and stay, unless they are one file. Everything left out is listed with its reason.

Whatever else differs between the sides can be mistaken for membership: ``sentences`` warns of it, the blind gate
decides. The book pages *Audit your own* and *Methods: audio preparation* show both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from earwitness.audit import request
from earwitness.data import decode_pool, fingerprint
from earwitness.data.audio import spec_of
from earwitness.data.copies import settle
from earwitness.data.fingerprint import Print
from earwitness.data.folders import EXCLUSION_COLUMNS, Found, common_folder
from earwitness.data.manifest import disagreement
from earwitness.data.works import Join, find_joins, joined, works_on_both_sides
from earwitness.errors import InputError
from earwitness.models.cards import identity
from earwitness.signals import blind
from earwitness.stats.imbalances import sentences, years
from earwitness.types import Track

# --- what was given ---------------------------------------------------------------------------------------------------

FILE_COLUMNS = (
    "track_id", "role", "format", "codec", "sample_rate", "channels", "duration_s", "level_dbfs", "bandwidth_hz",
    "notes", "sha256", "segments", "remark", "reason",
)  # fmt: skip


@dataclass(frozen=True)
class Intake:
    """What was found before any model is loaded.

    Attributes
    ----------
    tracks : tuple of Track
        Usable; copies left out by the rules above. ``sha256`` and ``duration_s`` are filled in.
    files : pandas.DataFrame
        One row per file found: ``track_id, role, format, codec, sample_rate, channels, duration_s, level_dbfs,
        bandwidth_hz, notes, sha256, segments, remark, reason``: in what a usable file is odd, and why one cannot be
        used; both may be empty.
    duplicates : pandas.DataFrame
        ``track_id, other_id, role, other_role, similarity, offset_s, twins, relation``; ``twins``: compared as a pair;
        ``relation``: what the first is to the second, in words.
    imbalances : tuple of str
        Sentences: in what the roles differ.
    exclusions : pandas.DataFrame
        ``track_id, role, reason``, one row per recording left out.
    straddling : tuple of str
        Named works with takes in both roles: only the paired test may compare them.
    joins : tuple of Join
        Recordings that were taken for versions of one work.
    unit : str
        ``work``: what is counted; or ``track``: every recording for itself, because somebody said so.
    prints : dict
        ``track_id`` -> fingerprint of every usable track.
    scores : bool
        The model reads scores, so these are scores.
    passed_over, root
        As in ``Found``.
    """

    tracks: tuple[Track, ...]
    files: pd.DataFrame
    duplicates: pd.DataFrame
    imbalances: tuple[str, ...]
    exclusions: pd.DataFrame
    straddling: tuple[str, ...] = ()
    prints: dict[str, Print] = field(default_factory=dict, repr=False)
    joins: tuple[Join, ...] = ()
    unit: str = "work"
    scores: bool = False
    passed_over: dict[str, dict[str, int]] = field(default_factory=dict)
    root: Path = Path()

    def counts(self) -> dict[str, int]:
        """Return the number of usable tracks per role."""
        return dict(Counter(track.role for track in self.tracks))


def examine(
    tracks: Sequence[Track],
    model: str,
    *,
    workers: int = 2,
    found: Found | None = None,
    pairs: str | None = None,
    unit: str = "work",
    describe: bool = False,
) -> Intake:
    """Open every recording in a worker process and say what can be used, without loading the model.

    Parameters
    ----------
    tracks : sequence of Track
        From ``gather``, ``read_manifest`` or ``read_folders``.
    model : str
        Its window decides how many segments a recording gives; only its configuration is read.
    workers : int
        Processes that decode at a time.
    found : Found, optional
        From ``gather``: what was refused or passed over is then listed too.
    pairs : str, optional
        ``work``: works are compared in pairs.
    unit : str
        ``track``: no works are counted, neither named ones nor joined ones.
    describe : bool
        Keep the blind features of what is decoded, for those who ask for them later.

    Raises
    ------
    InputError
        No track at all; an unknown pairing, or pairs that cannot be compared (see :mod:`earwitness.audit.request`).
    ModelError
        As ``models.describe``.
    """
    request.known(pairs, unit)
    if not tracks and (found is None or found.refused.empty):
        raise InputError("expected at least one recording, got none; check the folders or the manifest's roles")
    if pairs is not None:
        request.refuse_none(tracks)
    info, _ = identity(model, allow_download=False)
    spec = spec_of(info)
    inspect = blind.inspect if describe else decode_pool.inspect
    answers = inspect([track.path for track in tracks], spec, workers=workers)
    for track, answer in zip(tracks, answers, strict=True):
        answer["reason"] = answer["reason"] or disagreement(track, answer)
    told = {track.track_id: answer for track, answer in zip(tracks, answers, strict=True)}
    usable = {track.track_id: track for track in tracks if not told[track.track_id]["reason"]}
    scores = info.scheme is not None
    copies = fingerprint.duplicates(
        list(usable.values()), {name: told[name]["words"] for name in usable}, scores=scores
    )
    kind = "piece" if scores else "recording"
    copies, links, left = settle(list(usable.values()), copies, told, paired=pairs is not None, kind=kind)
    kept = [track for name, track in usable.items() if name not in left]
    joins = [] if pairs is not None else find_joins(kept, told, links)
    kept, apart = joined(kept, joins, told)
    usable = {track.track_id: track for track in kept if track.track_id not in apart}
    for name, reason in (left | apart).items():
        told[name]["reason"] = reason
    if pairs is not None:
        request.refuse_ambiguous(list(usable.values()))
    rows = [{"track_id": track.track_id, "role": track.role} | told[track.track_id] for track in tracks]
    refused = found.refused if found else pd.DataFrame(columns=EXCLUSION_COLUMNS)
    files = pd.concat([pd.DataFrame(rows), refused], ignore_index=True).reindex(columns=list(FILE_COLUMNS))
    files["remark"] = files["remark"].astype(object).where(files["remark"].notna(), "")
    named = works_on_both_sides(usable.values())
    kept = [
        replace(
            track,
            sha256=told[name]["sha256"],
            duration_s=told[name]["duration_s"],
            work=track.work if unit == "work" else "",
        )
        for name, track in usable.items()
    ]
    released = pd.Series({track.track_id: track.released for track in kept}, dtype=str)
    compared = files.set_index("track_id").loc[released.index].assign(year=years(released))
    return Intake(
        tracks=tuple(kept),
        files=files,
        duplicates=copies,
        imbalances=sentences(compared),
        exclusions=files.loc[files["reason"] != "", list(EXCLUSION_COLUMNS)].reset_index(drop=True),
        straddling=named,
        joins=tuple(joins),
        unit=unit,
        prints={name: told[name]["words"] for name in usable},
        scores=scores,
        passed_over=found.passed_over if found else {},
        root=found.root if found else common_folder(tracks),
    )
