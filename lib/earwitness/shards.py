"""Which tracks a job scores and in which parts: decided by the manifest and the recordings, never by a clock.

Shards are balanced by seconds of audio and follow from the manifest alone, so every job of a cluster comes to the same
division without asking. Within a shard tracks are keyed by their bytes and caption and put in the order of their keys,
which is blind to roles and artists, and cut into parts: the unit that is scored, stored and lost as a whole.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from pathlib import Path

from earwitness import demux
from earwitness.audio import probe
from earwitness.errors import AudioError, InputError
from earwitness.manifest import Track, file_hash
from earwitness.store import digest, part_name

PART_TRACKS = 32  # tracks in one part: what an interruption can cost
PART_SECONDS = 3600.0  # and seconds of audio: a part of hour-long recordings holds one
UNKNOWN_SECONDS = 240.0  # what a recording counts whose length neither the manifest nor its header tells


def parse_shard(text: str) -> tuple[int, int]:
    """Turn ``"2/8"`` into (2, 8): shards are numbered from 1."""
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and 1 <= int(index) <= int(count)):
        raise InputError(f"expected a shard as i/n with 1 <= i <= n, got {text!r}")
    return int(index), int(count)


def seconds_of(track: Track) -> float:
    """Return a track's length in seconds: the manifest's, else its header's; NaN where neither tells."""
    if math.isfinite(track.duration_s):
        return track.duration_s
    try:
        return probe(track.path).duration_s
    except AudioError:
        return math.nan


def _weight(track: Track) -> float:
    """Return the seconds that a track counts when work is divided."""
    seconds = seconds_of(track)
    return UNKNOWN_SECONDS if math.isnan(seconds) else max(seconds, 0.0)


def deal(tracks: Sequence[Track], shard: tuple[int, int]) -> list[Track]:
    """Return the tracks of the i-th of n shards, in the order given; shards are balanced by seconds of audio.

    The longest track goes first, each to the shard with the least so far: none exceeds another by more than one track.
    """
    index, count = shard
    if count == 1:
        return list(tracks)
    weights = [_weight(track) for track in tracks]
    order = sorted(range(len(tracks)), key=lambda i: (-weights[i], tracks[i].track_id))
    loads = [(0.0, number) for number in range(count)]
    mine = set()
    for i in order:
        load, number = loads[0]
        heapq.heapreplace(loads, (load + weights[i], number))
        if number == index - 1:
            mine.add(i)
    return [tracks[i] for i in sorted(mine)]


def exclusion(track: Track, reason: str) -> dict[str, str]:
    """Return the row that says why a track is left out."""
    return {"track_id": track.track_id, "role": track.role, "reason": reason}


def track_key(path: Path, content: str, caption: str) -> str:
    """Return the key of a recording under a caption: its bytes, the caption, and PyAV's versions where that decodes it.

    The versions of soundfile's decoders, which read all other formats, are in the key of the store. No caption is no
    text: models are told nothing.
    """
    return digest([content, caption or None, *([demux.version()] if demux.handles(path) else [])])


def key_tracks(tracks: Sequence[Track]) -> tuple[list[tuple[str, Track]], list[dict[str, str]]]:
    """Return (key of content and condition, track) for every readable file, and the exclusions."""
    keyed, excluded = [], []
    for track in tracks:
        name = track.path.name
        try:
            content = file_hash(track.path)
        except OSError as error:
            reason = f"{name}: expected an audio file, {str(error.strerror).lower()}; check the path"
            excluded.append(exclusion(track, reason))
            continue
        if track.sha256 and track.sha256 != content:
            reason = f"{name}: its bytes differ from the manifest's sha256; restore the file or its hash"
            excluded.append(exclusion(track, reason))
        else:
            keyed.append((track_key(track.path, content, track.caption), track))
    return keyed, excluded


def parts_of(keyed: Sequence[tuple[str, Track]]) -> list[list[tuple[str, Track]]]:
    """Cut keyed tracks, each key once, into parts of at most ``PART_TRACKS`` tracks and ``PART_SECONDS`` seconds."""
    parts: list[list[tuple[str, Track]]] = []
    seconds = math.inf
    for key, track in sorted(dict(keyed).items(), key=lambda item: item[0]):
        weight = _weight(track)
        if not parts or len(parts[-1]) >= PART_TRACKS or seconds + weight > PART_SECONDS:
            parts.append([])
            seconds = 0.0
        parts[-1].append((key, track))
        seconds += weight
    return parts


def names_of(parts: Sequence[Sequence[tuple[str, Track]]]) -> list[str]:
    """Return the file names under which a run stores these parts."""
    return [part_name([key for key, _ in part]) for part in parts]
