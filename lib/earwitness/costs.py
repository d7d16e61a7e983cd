"""What an audit of many tracks costs: measured seconds and bytes of one segment, multiplied out.

The measurements are ``benchmarks/throughput.csv`` (written by ``benchmarks/bench_engine.py --throughput``) and a probe
on the machine at hand; nothing else is assumed but the length of a track. The book page *What an audit costs* shows it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from earwitness.errors import InputError
from earwitness.extractors.run import Further, passes_asked
from earwitness.manifest import read_splits
from earwitness.models import describe
from earwitness.paths import project_root
from earwitness.probe import measure
from earwitness.windows import spec_of

MEASURED = "benchmarks/throughput.csv"
COLUMNS = ["network", "device", "segment_seconds", "score_s_per_segment", "prepare_s_per_segment", "bytes_per_segment"]


def throughput(model: str = "", manifest: str | Path = "", *, own_seconds: float = 0.0) -> pd.DataFrame:
    """Return one row per measured network: the committed file's, this machine's, and the reader's own.

    Parameters
    ----------
    model, manifest : str, optional
        A model to probe here on a few tracks of a manifest.
    own_seconds : float
        Seconds per segment of 30 s that ``earwitness plan --json`` measured elsewhere, for example on a card; 0: none.
        Its bytes are taken to be those of the file's network.

    Returns
    -------
    DataFrame
        ``network``, ``device``, ``segment_seconds``, ``score_s_per_segment``, ``prepare_s_per_segment`` (wall or
        processor seconds of one process), ``bytes_per_segment``.
    """
    rows = pd.read_csv(project_root() / MEASURED)[COLUMNS]
    if model:
        info = describe(model)
        spec = spec_of(info)
        further = Further(passes_asked("all", info), None, {})
        found = measure(model, read_splits(manifest)[:8], spec, further, allow_download=False)
        if found is None:
            raise InputError(f"{manifest}: none of its first recordings can be decoded; name a manifest with audio")
        here = [f"{info.name}, this machine", found.device, info.segment_seconds, found.score_s_per_segment]
        segments = max(1, found.segments // max(1, found.tracks))
        here += [found.prepare_s_per_track / segments, found.bytes_per_segment]
        rows = pd.concat([rows, pd.DataFrame([here], columns=COLUMNS)], ignore_index=True)
    if own_seconds:
        own = rows.iloc[[0]].assign(
            network="yours", device="yours", score_s_per_segment=own_seconds, segment_seconds=30.0
        )
        rows = pd.concat([rows, own], ignore_index=True)
    return rows


def budget(measured: pd.DataFrame, tracks: Sequence[int], *, track_seconds: float, days: float) -> pd.DataFrame:
    """Multiply measurements out.

    Parameters
    ----------
    measured : pandas.DataFrame
        As ``throughput`` returns it.
    tracks : sequence of int
        How many tracks.
    track_seconds : float
        Length of a track; what does not fill a segment is not scored.
    days : float
        When it is to be finished.

    Returns
    -------
    DataFrame
        Per network and number of tracks: ``network``, ``device``, ``tracks``, ``segments``, ``hours`` of one process,
        ``processes`` that finish in ``days``, ``disk_gib``.

    Raises
    ------
    InputError
        Tracks shorter than a segment, no time, no track.
    """
    if days <= 0 or not len(tracks) or min(tracks) < 1:
        raise InputError(f"expected days > 0 and numbers of tracks >= 1, got {days} and {list(tracks)}")
    rows = []
    for row in measured.to_dict("records"):
        each = int(track_seconds // row["segment_seconds"])
        if each < 1:
            raise InputError(
                f"a track of {track_seconds:g} s is shorter than a segment of {row['segment_seconds']:g} s"
            )
        for count in tracks:
            segments = count * each
            hours = segments * (row["score_s_per_segment"] + row["prepare_s_per_segment"]) / 3600
            rows.append(
                {
                    "network": row["network"],
                    "device": row["device"],
                    "tracks": count,
                    "segments": segments,
                    "hours": hours,
                    "processes": math.ceil(hours / (24 * days)),
                    "disk_gib": segments * row["bytes_per_segment"] / 2**30,
                }
            )
    return pd.DataFrame(rows)
