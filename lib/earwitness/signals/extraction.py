"""The scoring engine: which signals are stored, which are missing, and the one loop that computes them.

Tracks are cut into parts; a part is scored in batches of fixed size and stored whole (``store``). Whatever was stored
before an interruption is never computed again, and several processes may work on the same tracks at once: each part is
claimed by one of them.

Over each batch run the extractors of the model's family, the costly attacks' passes and the blind one. Nobody can say
beforehand what a segment takes under any model and pass, so one segment is scored alone first, its result thrown away,
and its peak counted. The size of a batch is a power of two and at most ``MOST``: two machines with room to spare choose
the same one, and equal sizes give equal bits. When memory runs out all the same the size is halved, for the rest of the
run. The book page *Methods: from audio to verdict* draws the flow and says where the size is recorded.
"""

from __future__ import annotations

import gc
import logging
import math
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd

from earwitness.data.audio import AudioSpec, Spec, prepare, spec_of
from earwitness.data.folders import EXCLUSION_COLUMNS
from earwitness.errors import InputError, ModelError, StoppedError
from earwitness.models import describe, load_model
from earwitness.models.base import DenoisingModel, TokenModel
from earwitness.signals import blind, diffusion, symbolic, token, token_costly
from earwitness.signals.blind import BlindSignals
from earwitness.signals.diffusion import DenoisingSignals
from earwitness.signals.evaluations import passes_asked
from earwitness.signals.progress import Progress
from earwitness.signals.store import (
    CLAIMS,
    RESUME,
    Claims,
    Store,
    deal,
    digest,
    exclusion,
    key_tracks,
    names_of,
    part_name,
    parts_of,
)
from earwitness.signals.stream import SegmentStream
from earwitness.signals.token import TokenSignals, without_contrast
from earwitness.types import WINDOW, ModelInfo, Segment, Track
from earwitness.util import file_hash

if TYPE_CHECKING:
    from torch import Tensor

# --- how many segments at once ----------------------------------------------------------------------------------------

MOST = {"cpu": 16, "cuda": 64}  # beyond it a batch is no faster, and an interruption costs more
SHARE = 0.5  # of the free memory; the rest is for what the probe could not see, and for other programs
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current"))  # a container's own
REFUSALS = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory", "alloc_failed")

Item = TypeVar("Item")
Result = TypeVar("Result")
Sizes = WeakKeyDictionary[Any, dict[tuple[str, ...], int]]

log = logging.getLogger(__name__)
_chosen: Sizes = WeakKeyDictionary()  # model -> passes -> size


def ran_out(error: BaseException) -> bool:
    """Say whether an error means that memory ran out: torch's own, Python's, or what allocators word as they like."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in REFUSALS)


def free_bytes(device: str) -> int:
    """Return what can still be allocated on a device; on the CPU a container's limit counts too."""
    import psutil
    import torch

    if torch.device(device).type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch holds it for itself
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    free: int = psutil.virtual_memory().available
    try:
        limit, used = (path.read_text().strip() for path in LIMITS)
    except OSError:
        return free
    return min(free, int(limit) - int(used)) if limit.isdigit() else free


def peak_bytes(device: str, run: Callable[[], object]) -> int:
    """Return by how much the memory in use grew at its highest while ``run`` ran."""
    import psutil
    import torch

    if torch.device(device).type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return max(0, torch.cuda.max_memory_allocated(device) - before)
    process, done = psutil.Process(), threading.Event()
    before = highest = process.memory_info().rss

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.002):
            highest = max(highest, process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        run()
    finally:
        done.set()
        watcher.join()
    return max(highest, process.memory_info().rss) - before


def choose(device: str, probe: Callable[[], object]) -> int:
    """Return the size of the first batch; ``probe`` scores one segment."""
    import torch

    most = MOST.get(torch.device(device).type, MOST["cpu"])
    try:
        need = peak_bytes(device, probe)
    except Exception as error:
        if not ran_out(error):
            raise
        return 1  # the first batch will say what is the matter
    room = SHARE * free_bytes(device) / max(need, 1)
    return min(most, 2 ** max(0, math.floor(math.log2(max(room, 1)))))


def in_batches(
    model: Any, passes: Sequence[str], items: Sequence[Item], score: Callable[[Sequence[Item]], Sequence[Result]]
) -> Iterator[tuple[Item, Result, int]]:
    """Score items batch by batch and yield each with its result and the size of the batches it was scored in.

    Parameters
    ----------
    model : TokenModel or DenoisingModel
        Its ``info`` names the device; sizes are remembered per model and passes, for as long as the model lives.
    passes : sequence of str
        What ``score`` runs beyond the standard passes: other passes need other sizes.
    items : sequence
        In the order of the batches.
    score : callable
        Takes a batch of items, returns one result each.

    Raises
    ------
    ModelError
        Memory that does not suffice for one item.
    """
    sizes, key = _chosen.setdefault(model, {}), tuple(passes)
    if key not in sizes and items:
        sizes[key] = choose(model.info.device, lambda: score(items[:1]))
        log.info("%s: %d segments a batch", model.info.name, sizes[key])
    start = 0
    while start < len(items):
        batch = items[start : start + sizes[key]]
        found = None
        try:
            found = score(batch)
        except Exception as error:
            if not ran_out(error):
                raise
        if found is None:  # out of the handler, so that nothing of the failed batch is held any more
            sizes[key] = _halved(model, len(batch))
            continue
        yield from ((item, result, sizes[key]) for item, result in zip(batch, found, strict=True))
        start += len(batch)


def _halved(model: Any, tried: int) -> int:
    """Give back what can be given back, and return the next size below the one tried: a power of two."""
    import torch

    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if tried == 1:
        raise ModelError(
            f"{model.info.name}: one segment of {model.info.segment_seconds:g} s does not fit into the memory of "
            f"{model.info.device} ({free_bytes(model.info.device) / 1e9:.1f} GB free); finished parts are stored: free "
            "some memory, load the model with dtype='bfloat16', or take a larger machine, and run the same again"
        )
    smaller = 2 ** math.floor(math.log2(tried - 1))
    log.warning("%s: out of memory at %d segments a batch; going on with %d", model.info.name, tried, smaller)
    return smaller


# --- extractors over a batch ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Further:
    """What costly attacks need beyond the standard passes: which passes, a second model, recordings as prefixes.

    Diffusion models have no standard passes: whatever is run stands here.
    """

    passes: tuple[str, ...]
    reference: Any  # TokenModel, or its name until something is scored, or None
    prefixes: Mapping[str, Path]

    @cached_property
    def reference_info(self) -> ModelInfo | None:
        """What is known of the second model without loading it, when it is first asked: signals are keyed by that."""
        info: ModelInfo | None = (
            describe(self.reference) if isinstance(self.reference, str) else getattr(self.reference, "info", None)
        )
        return info

    def key(self) -> dict[str, Any]:
        """Return what stored signals are keyed by; empty where nothing further is asked for."""
        if not self.passes:
            return {}
        reference = info.key() if (info := self.reference_info) else None
        prefixes = {kind: file_hash(path) for kind, path in self.prefixes.items()}
        version = {"version": token_costly.VERSION} if token_costly.EXTRA_PASSES.keys() & set(self.passes) else {}
        return {"passes": sorted(self.passes), "reference": reference, "prefixes": prefixes, **version}

    def codes(self, model: Any, spec: Spec) -> dict[str, Tensor]:
        """Return each prefix as codes ``[K, T]``: the first segment of its recording."""
        import torch

        assert isinstance(spec, AudioSpec), "passes.check lets no symbolic model have a prefix"
        cuts = {kind: prepare(path, spec)[0] for kind, path in self.prefixes.items()}
        return {kind: model.encode(torch.from_numpy(cut.audio)[None])[0] for kind, cut in cuts.items()}


def _extract(
    model: Any, audio: Tensor, captions: list[Any], further: Further, prefixes: Mapping[str, Tensor], seed: int
) -> Sequence[TokenSignals | DenoisingSignals]:
    """Run the extractor of the model's family over a batch of segments."""
    if model.info.family == "diffusion":
        return diffusion.extract(model, audio, captions, further.passes, seed=seed)
    scored = (symbolic if model.info.scheme is not None else token).extract(model, audio, captions)
    if not further.passes:
        return scored
    return token_costly.extend(
        model, audio, captions, scored, further.passes, reference=further.reference, prefixes=prefixes
    )


def score_part(
    model: TokenModel | DenoisingModel, cuts: Sequence[tuple[str, Track, Segment]], spec: Spec, further: Further
) -> list[dict[str, Any]]:
    """Run the extractors over the segments of one part, batch by batch; return the part's rows.

    Each row says in ``batch_segments`` how many segments its batches held: equal sizes give equal bits.

    Raises
    ------
    ModelError
        As the extractors; also memory that does not suffice for a single segment.
    """
    import torch

    prefixes = further.codes(cast(TokenModel, model), spec) if further.prefixes else {}

    def score(batch: Sequence[tuple[str, Track, Segment]]) -> Sequence[TokenSignals | DenoisingSignals]:
        audio = torch.from_numpy(np.stack([segment.audio for *_, segment in batch]))
        captions = [track.caption if segment.context is None else segment.context for _, track, segment in batch]
        return _extract(model, audio, captions, further, prefixes, spec.seed)

    rows = []
    for (key, track, segment), signal, size in in_batches(model, further.passes, cuts, score):
        row: dict[str, Any] = {"track_key": key, "segment_id": segment.segment_id, "start_s": segment.start_s}
        unseen = segment.blind or blind.of_segment(segment, spec, track.path, track.caption)
        for family, held in ((model.info.family, signal), ("blind", unseen)):
            row |= {f"{family}:{name}": value for name, value in held.to_arrays().items()}
        rows.append(row | {"batch_segments": size})
    return rows


# --- the loop ---------------------------------------------------------------------------------------------------------

TRACK_COLUMNS = ("track_id", "artist", "work", "split", "role", "caption")

SIGNALS: dict[str, Any] = {"token": TokenSignals, "diffusion": DenoisingSignals, "blind": BlindSignals}

CHUNK_SEGMENTS = 64  # segments in memory at once; whole batches, whatever their size up to this
WAIT_SECONDS = 0.5  # between looks at a part that another process holds

USE = Counter[str]()  # tracks this process asked for, and those of them that had to be scored: for provenance

Part = list[tuple[str, Track]]


@dataclass(frozen=True)
class Signals:
    """The stored signals of some tracks under one model; arrays are read part by part when asked for.

    Attributes
    ----------
    index : pandas.DataFrame
        One row per segment: track_id, artist, work, split, role, caption, segment_id, start_s; for a symbolic model
        also window, its number within the piece.
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
                signal = SIGNALS[family].from_arrays(stored[row["row"]])
                yield row, without_contrast(signal) if family == "token" and not row["caption"] else signal

    def origin(self, since: float) -> str:
        """Say which signals were stored before ``since`` (a time in seconds), and when, by the clock of their files."""
        held = self.index.groupby("part")["track_id"].unique()
        dates = {part: (self.store.folder / str(part)).stat().st_mtime for part in held.index}
        old = [part for part, date in dates.items() if date < since]
        if not old:
            return f"the signals under {self.info.name} were computed in this run"
        some = sorted({track for part in old for track in held[part]})
        which = "all recordings" if len(old) == len(dates) else ", ".join(some)
        ends = (datetime.fromtimestamp(end(dates[part] for part in old), UTC) for end in (min, max))
        first, last = (f"{date:%Y-%m-%d %H:%M}" for date in ends)
        return f"the signals of {which} under {self.info.name} came from the store, written {first} to {last} UTC"


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


class _Work:
    """The loop: claim a part, score it, store it, until none is left; parts that others hold come last."""

    def __init__(self, model: Any, info: ModelInfo, spec: Spec, further: Further, store: Store) -> None:
        self.model, self.info, self.spec, self.further, self.store = model, info, spec, further, store
        self.failed: dict[str, str] = {}
        self.scored = 0

    def run(self, parts: Sequence[Part], workers: int, bar: Progress) -> None:
        """Score what is missing; returns when every part is stored, by this process or another."""
        self.store.prepare()
        waiting, refused = deque(parts), deque[Part]()
        asked: deque[tuple[str, Part, Part]] = deque()  # with workers one part is decoded while another is scored
        with Claims(self.store.folder) as claims, SegmentStream(self.spec, workers) as stream:
            while waiting or refused or asked:
                while waiting and len(asked) <= bool(workers):
                    part = waiting.popleft()
                    name = part_name([key for key, _ in part])
                    if not claims.take(name):
                        refused.append(part)
                        continue
                    done = self.store.keys_in(name)  # another process has written it, but for what failed
                    rest = [(key, track) for key, track in part if key not in done]
                    stream.ask(rest)
                    asked.append((name, part, rest))
                if asked:
                    name, part, rest = asked.popleft()
                    # What the other could not score gets a part of its own: the other's stays as it is.
                    self._score(part_name([key for key, _ in rest]), stream.take(rest, self.failed))
                    claims.give_up(name)
                    bar.update(len(part))
                else:
                    bar.say("waiting for another process that scores the same tracks")
                    time.sleep(WAIT_SECONDS)
                    waiting, refused = refused, deque()

    def _score(self, name: str, cuts: Iterator[tuple[str, Track, Segment]]) -> None:
        """Score and store one part; the model is loaded when the first segment needs it."""
        rows: list[dict[str, Any]] = []
        while chunk := list(islice(cuts, CHUNK_SEGMENTS)):
            model = self.model = self._loaded(self.model, self.info)
            if (beside := self.further.reference_info) is not None:
                self.further = replace(self.further, reference=self._loaded(self.further.reference, beside))
            try:
                rows += score_part(model, chunk, self.spec, self.further)
            except RuntimeError as error:
                if model.info.device == "cpu":
                    raise
                reason = f"{error}".partition("\n")[0]
                raise StoppedError(f"{model.info.name}: {model.info.device} failed ({reason}); {RESUME}") from None
        rows = [row for row in rows if row["track_key"] not in self.failed]  # a recording that failed half-way
        if rows:
            self.store.write(rows, name)
            self.scored += len({row["track_key"] for row in rows})

    @staticmethod
    def _loaded(model: Any, info: ModelInfo) -> Any:
        """Return a model; refuse one whose files are no longer those that were described."""
        if isinstance(model, str):
            model = load_model(model, dtype=info.dtype)
            if model.info.key() != info.key():
                raise ModelError(f"{info.name}: its files changed while scoring; run the same command again")
        return model


def _default_workers() -> int:
    """Return how many processes decode ahead: on a processor decoding is a small share, a card must not wait for it."""
    import torch

    return min(4, (os.cpu_count() or 1) - 1) if torch.cuda.is_available() else 0


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
    workers: int | None = None,
    dtype: str = "float32",
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
        the two standard passes suffice for (for a diffusion model: the cheap ones, ``signals.evaluations.STANDARD``).
        Naming a costly attack runs its further passes. ``"audit"`` is all that an audit scores.
    reference : TokenModel or str, optional
        A second model that saw none of the tracks, for attacks that compare with one; loaded as ``model`` is.
    prefixes : mapping, optional
        ``{"nonmember": path, "member": path}``: recordings outside the comparison, for attacks that prefix one.
    seed : int
        Draws the offsets of the cuts (alike for every role), and the common noise of diffusion models.
    max_segments : int
        At most this many segments a track; 0 means all that fit.
    shard : (int, int)
        Score the i-th of n shards only; shards are balanced by seconds of audio.
    workers : int, optional
        Processes that decode ahead of the model; the results do not depend on it. Default: none beside a model on the
        CPU, else up to four.
    dtype : str
        Type of the weights of a model that is given by name, as for ``load_model``.
    progress : bool
        Show how far it is: a bar at a terminal or in a notebook, a line a minute elsewhere.

    Returns
    -------
    Signals
        With ``exclusions`` counted and explained: nothing is dropped silently.

    Raises
    ------
    InputError
        No track at all, none that can be scored, an unknown attack, a costly one without what it needs, or a reference
        that is not asked for or is the model itself.
    ModelError
        As ``load_model``.
    StoppedError
        Stored signals were removed or damaged while this ran, or the device failed.
    """
    if not tracks:
        raise InputError("expected at least one track, got none; check the manifest's roles and splits")
    started = time.monotonic()
    info = describe(model, dtype=dtype) if isinstance(model, str) else model.info
    spec = spec_of(info, seed, max_segments)
    further = Further(passes_asked(attacks, info), reference, prefixes or {})
    if beside := further.reference_info:
        if "reference" not in further.passes:
            raise InputError(f"no attack that was asked for compares {info.name} with {beside.name}; drop reference=")
        if beside.revision == info.revision:
            raise InputError(f"the reference {beside.name} has the weights of {info.name}; name another")
        token_costly.check(further.passes, info, beside)
    store = Store(info, spec, further.key())
    keyed, excluded = key_tracks(deal(tracks, shard))
    keys, planned = {key for key, _ in keyed}, parts_of(keyed)
    before = store.index(keys, names_of(planned))
    stored = set(before["track_key"])
    parts = [[(key, track) for key, track in part if key not in stored] for part in planned]
    work = _Work(model, info, spec, further, store)
    missing = [part for part in parts if part]
    if missing:
        with Progress(info.name, sum(map(len, missing)), show=progress) as bar:
            work.run(missing, _default_workers() if workers is None else workers, bar)
    failed = work.failed
    USE.update(asked=len(keyed), scored=sum(map(len, missing)))
    excluded += [exclusion(track, failed[key]) for key, track in keyed if key in failed]
    columns = [{"track_key": key} | {name: getattr(track, name) for name in TRACK_COLUMNS} for key, track in keyed]
    due = keys - failed.keys()
    index = store.index(due, [*names_of(planned), *names_of(missing), *before["part"].unique()])
    # A part can vanish meanwhile (somebody deletes it): no verdict without its tracks.
    if lost := due - set(index["track_key"]):
        raise StoppedError(
            f"{info.name}: signals of {len(lost)} of {len(keyed)} tracks were removed or damaged meanwhile; {RESUME}"
        )
    found = pd.DataFrame(columns, columns=["track_key", *TRACK_COLUMNS]).merge(index, on="track_key")
    if found.empty and shard[1] == 1:
        raise InputError(f"none of {len(tracks)} tracks can be scored; first reason: {excluded[0]['reason']}")
    if info.scheme is not None:  # a part holds the windows of a piece in their order
        found[WINDOW] = found.groupby("track_id")["row"].rank(method="first").astype(int) - 1
    return Signals(
        index=found,
        exclusions=pd.DataFrame(excluded, columns=list(EXCLUSION_COLUMNS)),
        info=info if isinstance(work.model, str) else work.model.info,
        provenance={
            **store.identity,
            "tracks": len(tracks),
            "tracks_scored_now": work.scored,
            "seconds": round(time.monotonic() - started, 1),
        },
        store=store,
    )


def describe_stored(
    model: str,
    tracks: Sequence[Track],
    attacks: str | Sequence[str] = "all",
    *,
    seed: int = 0,
    shard: tuple[int, int] = (1, 1),
    dtype: str = "float32",
) -> dict[str, Any]:
    """Say what is stored of what ``collect`` with the same arguments would return.

    Returns
    -------
    dict
        ``folder``; ``tracks`` (readable), ``stored``, ``missing``, ``unreadable``; ``segments`` stored; ``parts`` and
        ``bytes`` of the whole store; ``damaged`` parts set aside; ``claimed``: parts another process is at work on.
    """
    info = describe(model, dtype=dtype, allow_download=False)
    spec = spec_of(info, seed)
    store = Store(info, spec, Further(passes_asked(attacks, info), None, {}).key())
    keyed, excluded = key_tracks(deal(tracks, shard))
    keys = {key for key, _ in keyed}
    planned = parts_of(keyed)
    index = store.index(keys, names_of(planned))
    stored = set(index["track_key"])
    parts = list(store.folder.glob("part-*.parquet"))
    return {
        "folder": store.folder.name,
        "tracks": len(keyed),
        "stored": sum(key in stored for key, _ in keyed),
        "missing": sum(key not in stored for key, _ in keyed),
        "unreadable": len(excluded),
        "segments": len(index),
        "parts": len(parts),
        "bytes": sum(path.stat().st_size for path in parts),
        "damaged": len(list(store.folder.glob("part-*.damaged"))),
        "claimed": _count_claimed(store, planned, stored),
    }


def _count_claimed(store: Store, planned: Sequence[Sequence[tuple[str, Track]]], stored: set[str]) -> int:
    """Count the missing parts that another process holds."""
    if not (store.folder / CLAIMS).exists():
        return 0
    missing = [[key for key, _ in part if key not in stored] for part in planned]
    with suppress(OSError), Claims(store.folder) as claims:
        return sum(not claims.take(part_name(keys)) for keys in missing if keys)
    return 0  # claims that cannot be opened, as in a folder that may only be read
