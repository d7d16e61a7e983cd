"""A report without names: HMACs instead of hashes, and the key that brings names back.

Numbers instead of names come from ``data.redaction``. Names are only ever added back for display.

Book page: *Audit your own*.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from secrets import token_hex

from earwitness.audit.report import Report
from earwitness.data.redaction import Key, Known, Numbered, manifest_hash, read_key
from earwitness.util import write_whole


def place_of_key(out: Path) -> Path:
    """Return where the key of a redacted report lies: beside its folder, never in it."""
    return out.with_name(f"{out.name}.key")


def sealed(report: Report, known: Sequence[Numbered], place: Path) -> Report:
    """Return a report with HMACs instead of hashes, and write the key that they are made with.

    A key that lies there already is used, and what it knows is kept: nobody loses the names of an earlier report.

    Parameters
    ----------
    report : Report
        With hashes.
    known : sequence of Numbered
        The recordings, and those of reference artists.
    place : Path
        Of the key: made readable for its owner only.
    """
    key = read_key(place) if place.exists() else Key(key=token_hex(32), recordings={})
    told = {
        key.seal(track.sha256): Known(
            name=one.names[track.track_id], artist=one.artists.get(track.artist, ""), sha256=track.sha256
        )
        for one in known
        for track in one.tracks
    }
    key = key.model_copy(update={"recordings": key.recordings | told})
    place.parent.mkdir(parents=True, exist_ok=True)
    write_whole(place, key.model_dump_json(indent=1) + "\n", 0o600)
    rows = [row.model_copy(update={"sha256": key.seal(row.sha256)}) for row in report.recordings]
    others = [row.model_copy(update={"sha256": key.seal(row.sha256)}) for row in report.references]
    hashes = {
        "manifest_hash": manifest_hash((row.sha256, row.role) for row in rows),
        "texts_hash": key.seal(report.repeat.texts_hash),
    }
    return report.model_copy(
        update={"recordings": rows, "references": others, "repeat": report.repeat.model_copy(update=hashes)}
    )
