"""Pictures (and, if asked for, the sound) of single recordings: the most and the least member-like suspects.

Held-out recordings are never put into a report.

Book page: *Audit your own*.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from earwitness import figures
from earwitness.audio import AudioSpec, Segment, prepare
from earwitness.audit.scoring import Scored
from earwitness.manifest import Track
from earwitness.report.schema import Picture

EACH = 2  # strongest and weakest shown


def pictures(
    scored: Scored, tracks: Sequence[Track], totals: Mapping[str, float], *, with_audio: bool
) -> tuple[list[Picture], dict[str, bytes]]:
    """Draw the strongest and the weakest suspects; return the entries and the files.

    Parameters
    ----------
    scored : Scored
        Of the first model.
    tracks : sequence of Track
        Numbered recordings.
    totals : mapping
        Number -> pre-oriented sum.
    with_audio : bool
        Whether the sound of the segments shown goes into the report as MP3.
    """
    suspects = {track.track_id: track for track in tracks if track.role == "suspect" and track.track_id in totals}
    order = sorted(suspects, key=lambda name: (-totals[name], name))
    each = min(EACH, len(order) // 2)
    chosen = [(name, "strongest") for name in order[:each]] + [(name, "weakest") for name in order[len(order) - each :]]
    info = scored.info
    spec = AudioSpec(info.sample_rate, info.channels, info.segment_seconds)
    surprise = _surprise(scored, {name for name, _ in chosen})
    entries, files = [], {}
    for name, label in chosen:
        known = surprise.get(name, {})
        segment = next((s for s in prepare(suspects[name].path, spec) if not known or s.segment_id in known), None)
        if segment is None:
            continue
        drawn = figures.heard(
            segment.audio.mean(axis=0), info.sample_rate, known.get(segment.segment_id, np.empty(0)), title=name
        )
        files[f"pictures/{name}.svg"] = drawn.svg.encode()
        sound = f"audio/{name}.mp3" if with_audio else ""
        if sound:
            files[sound] = _mp3(segment, info.sample_rate)
        entries.append(Picture(number=name, label=label, picture=f"pictures/{name}.svg", audio=sound))  # type: ignore[arg-type]
    return entries, files


def _surprise(scored: Scored, names: set[str]) -> dict[str, dict[str, npt.NDArray[np.float64]]]:
    """Number -> segment -> surprise per frame (nats per token), for token models."""
    found: dict[str, dict[str, npt.NDArray[np.float64]]] = {}
    if scored.signals is None or scored.info.family != "token":
        return found
    for row, signal in scored.signals.items("token"):
        if row["track_id"] in names:
            found.setdefault(row["track_id"], {})[row["segment_id"]] = signal.surprise()
    return found


def _mp3(segment: Segment, sample_rate: int) -> bytes:
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, segment.audio.T, sample_rate, format="MP3")
    return buffer.getvalue()
