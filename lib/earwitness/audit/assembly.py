"""What was found, in the words and types of the report: names or numbers, sides, recordings, how to repeat it.

Book page: *Audit your own*.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from earwitness.audit.frozen import Plan
from earwitness.audit.references import References
from earwitness.audit.request import Request
from earwitness.intake import Intake
from earwitness.models.base import ModelInfo
from earwitness.provenance import LIBRARIES, code_state, hash_of, machine, versions
from earwitness.report import folder
from earwitness.report.numbers import Numbered, Redactor
from earwitness.report.schema import Control, Exclusion, Recording, Reference, Repeat, Side
from earwitness.text import plain


@dataclass(frozen=True)
class Examined:
    """Everything that is known before a model is run."""

    request: Request
    intake: Intake
    numbered: Numbered
    infos: list[ModelInfo]
    control: Control | None
    plan: Plan
    redactor: Redactor | None
    references: References | None = None


def name(known: Examined, track_id: str) -> str:
    """Return what the report calls a recording."""
    own = known.numbered.names.get(track_id, track_id)
    if known.redactor is None:
        return plain(own)
    return track_id if track_id in known.numbered.names else "a recording"


def exclusion(known: Examined, track_id: str, role: str, reason: str) -> Exclusion:
    """Return the entry of a recording that was left out; names are taken out of the reason where asked."""
    shown_reason = known.redactor(reason) if known.redactor else reason
    return Exclusion(name=name(known, track_id), role=role, reason=plain(shown_reason))


def duplicates(known: Examined) -> list[str]:
    """Return a sentence per pair of copies."""
    sentences = []
    for row in known.intake.duplicates.to_dict("records"):
        pair = " and ".join(str(row[key]) for key in ("track_id", "other_id"))
        where = "the same side" if row["role"] == row["other_role"] else "different sides"
        where += ", compared as a pair" if row["twins"] else ""
        named = "two recordings" if known.redactor else plain(pair)
        sentences.append(f"{named}: the same recording on {where} (similarity {row['similarity']:.2f})")
    return sentences


def recordings(known: Examined, totals: Sequence[Mapping[str, float]]) -> list[Recording]:
    """Return the list of recordings, with the pre-oriented sum of each model that was run."""
    return [
        Recording(
            number=track.track_id,
            role=track.role,  # type: ignore[arg-type]
            name="" if known.redactor else plain(known.numbered.names[track.track_id]),
            sha256=track.sha256,
            artist=track.artist,
            pair=track.work,
            scores=[None if track.track_id not in one else round(one[track.track_id], 6) for one in totals],
        )
        for track in known.numbered.tracks
    ]


def references(known: Examined) -> list[Reference]:
    """Return the list of reference recordings."""
    if known.references is None:
        return []
    held = known.references.numbered
    return [
        Reference(
            number=track.track_id,
            artist=track.artist,
            name="" if known.redactor else plain(held.names[track.track_id]),
            sha256=track.sha256,
        )
        for track in held.tracks
    ]


def side(known: Examined, role: str) -> Side:
    """Return what was compared on one side."""
    tracks = [
        track
        for track in known.intake.tracks
        if (track.role == "suspect" or track.role == "member") == (role == "suspect")
    ]
    formats = known.intake.files.set_index("track_id")["format"]
    counted = pd.Series([str(formats.get(track.track_id, "")) for track in tracks], dtype=str).value_counts()
    minutes = sum(track.duration_s for track in tracks) / 60
    return Side(
        tracks=len(tracks),
        minutes=round(minutes, 2) if minutes == minutes else None,
        artists=len({track.artist for track in tracks if track.artist}),
        formats={str(name): int(count) for name, count in sorted(counted.items())},
    )


def repeat(known: Examined, files: Mapping[str, bytes]) -> Repeat:
    """Return what it takes to do the audit again, and the hashes of the files beside the record."""
    request, plan = known.request, known.plan
    return Repeat(
        command=request.command(redact=request.redact),
        manifest_hash=plan.manifest_hash,
        texts_hash=plan.texts_hash,
        seed=plan.seed,
        seed_from="manifest" if request.seed is None else "given",
        alpha=request.alpha,
        permutations=request.n_permutations,
        deals=request.deals,
        pairs=plan.pairs,
        code=code_state(),
        lock=hash_of("requirements/base.lock"),
        machine=machine(),
        versions=versions(LIBRARIES),
        files={name: folder.sha256(content) for name, content in sorted(files.items())},
    )
