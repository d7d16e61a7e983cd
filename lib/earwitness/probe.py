"""What a few segments take on this machine: seconds, memory and bytes. Nothing is stored.

``earwitness plan`` turns the answer into hours; the book page *What an audit costs* into numbers of machines.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from earwitness.audio import Segment
from earwitness.errors import AudioError
from earwitness.extractors.run import Further, score_part
from earwitness.manifest import Track
from earwitness.models import load_model
from earwitness.store import encode
from earwitness.windows import Spec, segments

PROBE_SEGMENTS = 8  # one small batch: enough to see a second a segment, or a millisecond


@dataclass(frozen=True)
class Probe:
    """What a few segments took on this machine: seconds, MiB and bytes, all per process."""

    segments: int
    tracks: int
    device: str
    prepare_s_per_track: float
    score_s_per_segment: float
    peak_memory_mib: float
    peak_gpu_memory_mib: float | None
    bytes_per_segment: float


def measure(model: str, tracks: Sequence[Track], spec: Spec, further: Further, *, allow_download: bool) -> Probe | None:
    """Score a few segments, once to warm up and once by the clock; None where none of the tracks can be decoded."""
    cuts: list[tuple[str, Track, Segment]] = []
    started, tried = time.perf_counter(), 0
    for track in tracks:
        tried += 1
        try:
            for segment in segments(track.path, spec):  # to its end, by the clock; few are held
                if len(cuts) < PROBE_SEGMENTS:
                    cuts.append((track.track_id, track, segment))
        except AudioError:
            continue
        if len(cuts) >= PROBE_SEGMENTS:
            break
    prepared = (time.perf_counter() - started) / max(tried, 1)
    if not cuts:
        return None
    network = load_model(model, allow_download=allow_download)
    score_part(network, cuts, spec, further)
    started = time.perf_counter()
    rows = score_part(network, cuts, spec, further)
    elapsed = time.perf_counter() - started
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    peak, gpu = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, None
    if network.info.device != "cpu":
        import torch

        gpu = torch.cuda.max_memory_allocated() / 2**20
    size = len(encode(rows, {})) / len(rows)
    return Probe(
        len(cuts), len({key for key, *_ in cuts}), network.info.device, prepared, elapsed / len(cuts), peak, gpu, size
    )
