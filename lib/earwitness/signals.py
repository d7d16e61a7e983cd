"""The scoring engine: which signals are stored, which are missing, and the one loop that computes them.

Tracks are keyed by their bytes and caption, put in the order of their keys and cut into parts of ``PART_TRACKS``; a
part is scored in batches of fixed size and stored whole. Whatever was stored before an interruption is never computed
again. The book page *Methods: from audio to verdict* draws the flow.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd
from tqdm.auto import tqdm

from earwitness.attacks import resolve
from earwitness.audio import AudioSpec, Segment, prepare
from earwitness.errors import AudioError, InputError, ModelError
from earwitness.extractors.blind import BlindSignals
from earwitness.extractors.diffusion import DenoisingSignals
from earwitness.extractors.run import Further, passes_asked, score_part
from earwitness.extractors.token import TokenSignals
from earwitness.manifest import Track, file_hash
from earwitness.models import describe, load_model
from earwitness.models.base import DenoisingModel, ModelInfo, TokenModel
from earwitness.store import Store, digest

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


PART_TRACKS = 32  # tracks in one part: what an interruption can cost
EXCLUSION_COLUMNS = ["track_id", "role", "reason"]
TRACK_COLUMNS = ("track_id", "artist", "work", "split", "role", "caption")

SIGNALS: dict[str, Any] = {"token": TokenSignals, "diffusion": DenoisingSignals, "blind": BlindSignals}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Signals:
    """The stored signals of some tracks under one model; arrays are read part by part when asked for.

    Attributes
    ----------
    index : pandas.DataFrame
        One row per segment: track_id, artist, work, split, role, caption, segment_id, start_s.
    exclusions : pandas.DataFrame
        One row per track that was left out: track_id, role, reason.
    info : ModelInfo
        The model that was scored.
    provenance : dict
        Identity of the signals, tracks stored and scored, seconds.
    """

    index: pd.DataFrame
    exclusions: pd.DataFrame
    info: ModelInfo
    provenance: dict[str, Any]
    store: Store = field(repr=False)

    def items(self, family: str) -> Iterator[tuple[Mapping[str, Any], Any]]:
        """Yield (row of the index, signal) for every segment, one part in memory at a time; none of another family."""
        if family not in self.store.identity["extractors"]:
            return
        for part, rows in self.index.groupby("part", sort=True):
            stored = self.store.read(str(part), family)
            records: list[Any] = rows.to_dict("records")
            for row in records:
                yield row, SIGNALS[family].from_arrays(stored[row["row"]])


def _exclude(track: Track, reason: str) -> dict[str, str]:
    return {"track_id": track.track_id, "role": track.role, "reason": reason}


def _keyed(tracks: Sequence[Track]) -> tuple[list[tuple[str, Track]], list[dict[str, str]]]:
    """Return (key of content and condition, track) for every readable file, and the exclusions."""
    keyed, excluded = [], []
    for track in tracks:
        name = track.path.name
        try:
            content = file_hash(track.path)
        except OSError as error:
            reason = f"{name}: expected an audio file, {str(error.strerror).lower()}; check the path"
            excluded.append(_exclude(track, reason))
            continue
        if track.sha256 and track.sha256 != content:
            reason = f"{name}: its bytes differ from the manifest's sha256; restore the file or its hash"
            excluded.append(_exclude(track, reason))
        else:
            keyed.append((digest([content, track.caption]), track))
    return keyed, excluded


def _segments(
    keyed: Iterable[tuple[str, Track]], spec: AudioSpec, failed: dict[str, str]
) -> Iterator[tuple[str, Track, Segment]]:
    """Yield (key, track, segment); a recording that cannot be used is noted in ``failed`` by its key and skipped."""
    for key, track in keyed:
        try:
            for segment in prepare(track.path, spec):
                yield key, track, segment
        except AudioError as error:
            failed[key] = str(error)


def usable(tracks: Sequence[Track], model: str) -> tuple[pd.Series, pd.DataFrame]:
    """Decode and cut every track without running a model.

    Returns
    -------
    Series, DataFrame
        Segments per usable track_id; and the exclusions (track_id, role, reason).
    """
    info = describe(model)
    keyed, excluded = _keyed(tracks)
    failed: dict[str, str] = {}
    cuts = _segments(keyed, AudioSpec(info.sample_rate, info.channels, info.segment_seconds), failed)
    counts = pd.Series([track.track_id for _, track, _ in cuts], dtype=str).value_counts(sort=False)
    excluded += [_exclude(track, failed[key]) for key, track in keyed if key in failed]
    return counts, pd.DataFrame(excluded, columns=EXCLUSION_COLUMNS)


def summary(signals: Signals) -> dict[str, Any]:
    """Return what a scoring run found, without times: equal signals give an equal summary."""
    return {
        "model": signals.info.name,
        "store": signals.store.folder.name,
        "tracks": int(signals.index["track_id"].nunique()),
        "segments": len(signals.index),
        "content": digest(sorted(signals.index["segment_id"])),
        "exclusions": signals.exclusions.to_dict("records"),
    }


def parse_shard(text: str) -> tuple[int, int]:
    """Turn ``"2/8"`` into (2, 8): shards are numbered from 1."""
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and 1 <= int(index) <= int(count)):
        raise InputError(f"expected a shard as i/n with 1 <= i <= n, got {text!r}")
    return int(index), int(count)


def collect(
    model: TokenModel | DenoisingModel | str,
    tracks: Sequence[Track],
    attacks: str | Sequence[str] = "all",
    *,
    reference: TokenModel | str | None = None,
    prefixes: Mapping[str, Path] | None = None,
    seed: int = 0,
    max_segments: int = 0,
    shard: tuple[int, int] = (1, 1),
    progress: bool = True,
) -> Signals:
    """Return the signals of every track under a model, scoring only what is not stored yet.

    Parameters
    ----------
    model : TokenModel, DenoisingModel or str
        A loaded model, or a name for ``load_model``; a name costs nothing when everything is stored.
    tracks : sequence of Track
        From ``read_manifest`` or ``read_folders``.
    attacks : str or sequence of str
        The attacks whose signals are wanted, as ``earwitness.attacks.resolve`` takes them; ``"all"`` are those that
        the two standard passes suffice for (for a diffusion model: all but the tail). Naming a costly attack runs its
        further passes.
    reference : TokenModel or str, optional
        A second model that saw none of the tracks, for attacks that compare with one.
    prefixes : mapping, optional
        ``{"nonmember": path, "member": path}``: recordings outside the comparison, for attacks that prefix one.
    seed : int
        Draws the offsets of the cuts (alike for every role), and the common noise of diffusion models.
    max_segments : int
        At most this many segments a track; 0 means all that fit.
    shard : (int, int)
        Score the i-th of n shards only; tracks are dealt out by the hash of their content.
    progress : bool
        Show a progress bar at a terminal.

    Returns
    -------
    Signals
        With ``exclusions`` counted and explained: nothing is dropped silently.

    Raises
    ------
    InputError
        No track at all, none that can be scored, an unknown attack, or a costly one without what it needs.
    ModelError
        As ``load_model``.
    """
    resolve(attacks)
    if not tracks:
        raise InputError("expected at least one track, got none; check the manifest's roles and splits")
    started = time.monotonic()
    info = describe(model) if isinstance(model, str) else model.info
    spec = AudioSpec(info.sample_rate, info.channels, info.segment_seconds, seed, max_segments)
    second = load_model(reference) if isinstance(reference, str) else reference
    further = Further(passes_asked(attacks, info), second, prefixes or {})
    store = Store(info, spec, further.key())
    keyed, excluded = _keyed(tracks)
    index, count = shard
    keyed = [(key, track) for key, track in keyed if int(key[:12], 16) % count == index - 1]
    order = sorted(dict(keyed).items(), key=lambda item: item[0])
    stored = set(store.index()["track_key"])
    failed: dict[str, str] = {}
    parts = [order[start : start + PART_TRACKS] for start in range(0, len(order), PART_TRACKS)]
    missing = [[(key, track) for key, track in part if key not in stored] for part in parts]
    wanted = sum(map(len, missing))
    bar = tqdm(total=wanted, unit="track", desc=info.name, leave=False, disable=None if progress else True)
    for part in filter(None, missing):
        if isinstance(model, str):
            model = load_model(model)
            if model.info.key() != info.key():
                raise ModelError(f"{info.name}: its files changed while scoring; run the same command again")
        rows = score_part(model, list(_segments(part, spec, failed)), spec, further)
        if rows:
            store.write(rows)
        bar.update(len(part))
    bar.close()
    excluded += [_exclude(track, failed[key]) for key, track in keyed if key in failed]
    columns = [{"track_key": key} | {name: getattr(track, name) for name in TRACK_COLUMNS} for key, track in keyed]
    found = pd.DataFrame(columns, columns=["track_key", *TRACK_COLUMNS]).merge(store.index(), on="track_key")
    if found.empty and count == 1:
        raise InputError(f"none of {len(tracks)} tracks can be scored; first reason: {excluded[0]['reason']}")
    return Signals(
        index=found,
        exclusions=pd.DataFrame(excluded, columns=EXCLUSION_COLUMNS),
        info=info,
        provenance={
            **store.identity,
            "tracks": len(tracks),
            "tracks_scored_now": wanted - len(failed),
            "seconds": round(time.monotonic() - started, 1),
        },
        store=store,
    )
