"""The scoring engine: which signals are stored, which are missing, and the one loop that computes them.

Tracks are cut into parts; a part is scored in batches of fixed size and stored whole (``store``). Whatever was stored
before an interruption is never computed again, and several processes may work on the same tracks at once: each part is
claimed by one of them.

What is stored is found pass by pass, whatever other passes were asked for when it was scored: a run computes the passes
that a track lacks, and nothing else. Over each batch run the extractors of the model's family, the costly attacks'
passes and the blind one. The size of a batch follows from the device and the number of weights alone: two machines
choose the same one, and equal sizes give equal bits. When memory runs out the size is halved, for the rest of the run.
The book page *Methods: from audio to verdict* draws the flow and says where the size is recorded.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from itertools import islice
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd

from earwitness.data import decode_pool
from earwitness.data.audio import AudioSpec, Spec, spec_of
from earwitness.data.folders import EXCLUSION_COLUMNS
from earwitness.errors import EarwitnessError, InputError, ModelError, NetworkError, StoppedError
from earwitness.models import check_unchanged, describe, load_model
from earwitness.models.base import DenoisingModel, TokenModel
from earwitness.signals import blind, diffusion, symbolic, token, token_costly
from earwitness.signals.blind import BlindSignals
from earwitness.signals.diffusion import DenoisingSignals
from earwitness.signals.evaluations import passes_asked
from earwitness.signals.store import RESUME, Store, deal, exclusion, give_up, key_tracks, names_of, part_name, parts_of
from earwitness.signals.stream import SegmentStream
from earwitness.signals.token import TokenSignals, without_contrast
from earwitness.types import WINDOW, ModelInfo, Segment, Track
from earwitness.util import digest, file_hash

if TYPE_CHECKING:
    from torch import Tensor

# --- how many segments at once ----------------------------------------------------------------------------------------

MOST = 64  # on an accelerator: beyond it a batch is no faster, and an interruption costs more
# On a processor by number of weights: with gradients a large network holds gigabytes a segment, and a processor that
# runs out of memory says nothing and swaps; a window of thirty seconds keeps it busy alone.
MOST_ON_CPU = ((50e6, 16), (250e6, 4), (inf, 1))
REFUSALS = (
    "outofmemory",
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "alloc_failed",
)

Item = TypeVar("Item")
Result = TypeVar("Result")
Sizes = WeakKeyDictionary[Any, dict[tuple[str, ...], int]]

log = logging.getLogger(__name__)
_sizes: Sizes = WeakKeyDictionary()  # model -> passes -> size that fits


def ran_out(error: BaseException) -> bool:
    """Say whether an error means that memory ran out: torch's own, Python's, or what allocators word as they like."""
    said = f"{type(error).__name__}: {error}".lower() if isinstance(error, RuntimeError) else ""
    return isinstance(error, MemoryError) or any(words in said for words in REFUSALS)


def most_segments(model: Any) -> int:
    """Return the size of a model's first batch: its device's, on a processor by the number of its weights."""
    if model.info.device != "cpu":
        return MOST
    parameters = getattr(getattr(model, "network", model), "parameters", tuple)
    weights = sum(p.numel() for p in parameters())
    return next(size for limit, size in MOST_ON_CPU if weights <= limit)


def in_batches(
    model: Any, passes: Sequence[str], items: Sequence[Item], score: Callable[[Sequence[Item]], Sequence[Result]]
) -> list[tuple[Item, Result, int]]:
    """Score items batch by batch; return each with its result and the size of the batches it was scored in.

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
    import torch
    from accelerate.utils import find_executable_batch_size

    sizes, key = _sizes.setdefault(model, {}), tuple(passes)
    scored: list[tuple[Item, Result, int]] = []

    def score_rest(size: int) -> None:
        """Go on where the last size failed."""
        sizes[key] = size
        while len(scored) < len(items):
            batch = items[len(scored) : len(scored) + size]
            found = None
            try:
                found = score(batch)
            except Exception as error:
                if not ran_out(error):
                    raise
            if found is None:  # out of the handler, so that nothing of the failed batch is held any more
                raise torch.OutOfMemoryError(f"{model.info.device} out of memory.")
            scored.extend((item, result, size) for item, result in zip(batch, found, strict=True))

    def halve() -> int:
        log.warning("%s: out of memory with %d segments a batch", model.info.name, sizes[key])
        return sizes[key] // 2

    try:
        score_rest(sizes.get(key) or most_segments(model))
    except torch.OutOfMemoryError:
        smaller = halve()
    else:
        return scored
    try:  # only now: whenever it is called it collects garbage, a quarter of a second
        find_executable_batch_size(score_rest, starting_batch_size=smaller, reduce_batch_size_fn=halve)()
    except RuntimeError as error:
        if "No executable batch size" not in str(error):
            raise
        raise ModelError(
            f"{model.info.name}: one segment of {model.info.segment_seconds:g} s does not fit into the memory of "
            f"{model.info.device}; finished parts are stored: free some memory, load the model with dtype='bfloat16', "
            "or take a larger machine, and run the same again"
        ) from None
    return scored


# --- extractors over a batch ------------------------------------------------------------------------------------------


Cut = tuple[str, Track, Segment]  # track key, track, segment
Held = Mapping[tuple[str, str], TokenSignals]  # (track key, segment) -> its stored signals
STREAMS = "streams"  # the pass behind what every token model is asked: its codes and the streams' statistics


@dataclass(frozen=True)
class Further:
    """What costly attacks need beyond the standard passes: which passes, a second model, recordings as prefixes.

    Diffusion models have no standard passes: whatever is run stands here. ``alone``: the standard passes of a token
    model are stored already, and only these run.
    """

    passes: tuple[str, ...]
    reference: Any  # TokenModel, or its description until something is scored, or None
    prefixes: Mapping[str, Path]
    alone: bool = False

    @cached_property
    def reference_info(self) -> ModelInfo | None:
        """What is known of the second model without loading it, when it is first asked: signals are keyed by that."""
        return self.reference if isinstance(self.reference, ModelInfo) else getattr(self.reference, "info", None)

    def key(self) -> dict[str, Any]:
        """Return what stored signals are keyed by; empty where nothing further is asked for."""
        if not self.passes:
            return {}
        reference = info.key() if (info := self.reference_info) else None
        prefixes = {kind: file_hash(path) for kind, path in self.prefixes.items()}
        version = {"version": token_costly.VERSION} if token_costly.EXTRA_PASSES.keys() & set(self.passes) else {}
        alone = {"alone": True} if self.alone else {}
        return {"passes": sorted(self.passes), "reference": reference, "prefixes": prefixes, **version, **alone}

    def only(self, passes: Set[str]) -> Further:
        """Return what some of the passes need."""
        further = tuple(name for name in self.passes if name in passes)
        alone = STREAMS not in passes and bool(token_costly.EXTRA_PASSES.keys() & passes)
        reference = self.reference if "reference" in further else None
        prefixes = {kind: path for kind, path in self.prefixes.items() if f"prefix_{kind}" in further}
        return Further(further, reference, prefixes, alone)

    def codes(self, model: Any, spec: Spec) -> dict[str, Tensor]:
        """Return each prefix as codes ``[K, T]``: the first segment of its recording."""
        import torch

        assert isinstance(spec, AudioSpec), "passes.check lets no symbolic model have a prefix"
        cuts = {kind: next(decode_pool.segments(path, spec)) for kind, path in self.prefixes.items()}
        return {kind: model.encode(torch.from_numpy(cut.audio)[None])[0] for kind, cut in cuts.items()}


def pass_of(family: str, column: str) -> str:
    """Return the pass that a stored array is of: a diffusion model's are called so, blind features are ``blind``."""
    if family != "token":
        return "blind" if family == "blind" else column
    head = column.replace(".", "/").partition("/")[0]
    return head if head in token_costly.EXTRA_PASSES else STREAMS


def stored_passes(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return the passes in a store, each with what its values depend on beside the rest of the store's identity."""
    further = identity.get("further", {"passes": []})
    if "diffusion" in identity["extractors"]:
        return dict.fromkeys(further["passes"])
    beside = {"reference": further.get("reference")}
    beside |= {f"prefix_{kind}": content for kind, content in further.get("prefixes", {}).items()}
    found = {name: [further.get("version"), beside.get(name)] for name in further["passes"]}
    return found if further.get("alone") else found | {STREAMS: None}


def score_part(
    model: TokenModel | DenoisingModel, cuts: Sequence[Cut], spec: Spec, further: Further, held: Held | None = None
) -> list[dict[str, Any]]:
    """Run the extractors over the segments of one part, batch by batch; return the part's rows.

    Each row says in ``batch_segments`` how many segments its batches held: equal sizes give equal bits. ``held`` are
    the stored signals that ``further.alone`` adds to.

    Raises
    ------
    ModelError
        As the extractors; also memory that does not suffice for a single segment.
    """
    import torch

    prefixes = further.codes(cast(TokenModel, model), spec) if further.prefixes else {}

    def score(batch: Sequence[Cut]) -> Sequence[TokenSignals | DenoisingSignals]:
        audio = torch.from_numpy(np.stack([segment.audio for *_, segment in batch]))
        captions = [track.caption if segment.context is None else segment.context for _, track, segment in batch]
        if model.info.family == "diffusion":
            places = [(segment.start_s, segment.total_s) for *_, segment in batch]
            return diffusion.extract(
                cast(DenoisingModel, model), audio, captions, further.passes, seed=spec.seed, places=places
            )
        if held is None:
            scored = (symbolic if model.info.scheme is not None else token).extract(model, audio, captions)
        else:
            scored = [held[key, segment.segment_id] for key, _, segment in batch]
        if not further.passes:
            return scored
        beside: Any = {"reference": further.reference, "prefixes": prefixes}
        return token_costly.extend(cast(TokenModel, model), audio, captions, scored, further.passes, **beside)

    rows = []
    for (key, track, segment), signal, size in in_batches(model, further.passes, cuts, score):
        row: dict[str, Any] = {"track_key": key, "segment_id": segment.segment_id, "start_s": segment.start_s}
        unseen = segment.blind or blind.of_segment(segment, spec, track.path, track.caption)
        family, arrays = model.info.family, signal.to_arrays()
        row |= {f"{family}:{k}": v for k, v in arrays.items() if held is None or pass_of(family, k) != STREAMS}
        row |= {f"blind:{name}": value for name, value in unseen.to_arrays().items()}
        rows.append(row | {"batch_segments": size})
    return rows


# --- the loop ---------------------------------------------------------------------------------------------------------

TRACK_COLUMNS = ("track_id", "artist", "work", "split", "role", "caption")

SIGNALS: dict[str, Any] = {"token": TokenSignals, "diffusion": DenoisingSignals, "blind": BlindSignals}

CHUNK_SEGMENTS = 64  # segments in memory at once; whole batches, whatever their size up to this
LOG_SECONDS = 60.0  # between two lines of a log
WAIT_SECONDS = 0.5  # between looks at a part that another process holds

USE = Counter[str]()  # tracks this process asked for, and those of them that had to be scored: for provenance

JOINED = " "  # between the names of parts that hold a track's passes together

Part = list[tuple[str, Track]]
Todo = tuple[Further, Store, list[Part]]


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
        for row, arrays in _arrays(self.store, self.index, family, {*stored_passes(self.store.identity), "blind"}):
            if family == "diffusion":  # passes that were run apart
                diffusion.level(arrays, row["caption"])
            signal = SIGNALS[family].from_arrays(arrays)
            if family == "token" and self.info.scheme is not None:
                signal = symbolic.with_contrast(signal)
            elif family == "token" and not row["caption"]:
                signal = without_contrast(signal)
            yield row, signal

    def origin(self, since: float) -> str:
        """Say which signals were stored before ``since`` (a time in seconds), and when, by the clock of their files."""
        apart = self.index.assign(part=self.index["part"].astype(str).str.split(JOINED)).explode("part")
        held = apart.groupby("part")["track_id"].unique()
        dates = {part: (self.store.folder / str(part)).stat().st_mtime for part in held.index}
        old = [part for part, date in dates.items() if date < since]
        if not old:
            return f"the signals under {self.info.name} were computed in this run"
        some = sorted({track for part in old for track in held[part]})
        which = "all recordings" if len(old) == len(dates) else ", ".join(some)
        ends = (datetime.fromtimestamp(end(dates[part] for part in old), UTC) for end in (min, max))
        first, last = (f"{date:%Y-%m-%d %H:%M}" for date in ends)
        return f"the signals of {which} under {self.info.name} came from the store, written {first} to {last} UTC"


def _arrays(store: Store, index: pd.DataFrame, family: str, passes: Set[str]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield (row, its arrays of some passes) for the segments of an index, wherever they lie."""
    for parts, rows in index.groupby("part", sort=True):
        arrays: dict[tuple[str, str], dict[str, Any]] = {}
        for part in str(parts).split(JOINED):
            for key, found in store.read(part, family, lambda name: pass_of(family, name) in passes):
                arrays.setdefault(key, {}).update(found)
        records: list[Any] = rows.to_dict("records")
        yield from ((row, arrays[row["track_key"], row["segment_id"]]) for row in records)


def find_stored(
    store: Store, keyed: Part, likely: Iterable[str] = ()
) -> tuple[pd.DataFrame, dict[str, frozenset[str]]]:
    """Look for the passes of a store: in it, and in those of the same model for other passes, whatever wrote them.

    Parameters
    ----------
    store : Store
        Of the passes that are wanted.
    keyed : list of (str, Track)
        From ``key_tracks``.
    likely : iterable of str
        Names of parts to look at first, beside those that ``keyed`` makes.

    Returns
    -------
    pandas.DataFrame
        As ``Store.index``, of all tracks of which something is stored; where the passes of a track lie apart, ``part``
        names several, joined by ``JOINED``.
    dict of str to frozenset
        Track key -> the passes that are stored nowhere.
    """
    wanted = stored_passes(store.identity)
    lacking, names = {key: frozenset(wanted) for key, _ in keyed}, [*names_of(parts_of(keyed)), *likely]
    frames = [store.index(lacking.keys(), names)]
    lacking |= dict.fromkeys(frames[0]["track_key"], frozenset())

    def offered(other: Store) -> set[str]:
        return {name for name, beside in stored_passes(other.identity).items() if wanted.get(name, ...) == beside}

    for other in sorted(store.alike() if any(lacking.values()) else (), key=lambda other: -len(offered(other))):
        held = offered(other)
        if short := {key for key, left in lacking.items() if left & held}:
            frame = other.index(short, names)
            lacking |= {key: lacking[key] - held for key in frame["track_key"].unique()}
            frames.append(frame.assign(part=f"../{other.folder.name}/" + frame["part"].astype(str)))
    index = pd.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=True)
    places: dict[str, dict[str, None]] = {}
    for key, part in zip(index["track_key"], index["part"], strict=True):
        places.setdefault(key, {})[part] = None
    index["part"] = [JOINED.join(places[key]) for key in index["track_key"]]
    return index.drop_duplicates(["track_key", "segment_id"]), lacking


def _parts_in(index: pd.DataFrame) -> list[str]:
    """Return the names of all parts that an index speaks of."""
    return [part for parts in index["part"].unique() for part in parts.split(JOINED)]


def plan_parts(
    info: ModelInfo, spec: Spec, further: Further, keyed: Part, index: pd.DataFrame, lacking: Mapping[str, Set[str]]
) -> list[Todo]:
    """Return what is to be run: for each set of lacking passes what it needs, its store, and its parts.

    Tracks of which other stores hold something are cut into parts of their own, so that the parts of all others stay
    the same, and full, whatever was scored before.
    """
    apart = {key for key, part in zip(index["track_key"], index["part"], strict=True) if "/" in part}
    parts = [part for away in (False, True) for part in parts_of([k for k in keyed if (k[0] in apart) == away])]
    todo = []
    for passes in sorted({left for left in lacking.values() if left}, key=sorted):
        some = further.only(passes)
        missing = [[(key, track) for key, track in part if lacking[key] == passes] for part in parts]
        todo.append((some, Store(info, spec, some.key()), [part for part in missing if part]))
    return todo


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

    def __init__(self, model: Any, info: ModelInfo, spec: Spec, held: Callable[[Set[str]], Held]) -> None:
        self.model, self.info, self.spec, self.held = model, info, spec, held
        self.reference: Any = None
        self.failed: dict[str, str] = {}
        self.scored: set[str] = set()

    def run(self, further: Further, store: Store, parts: Sequence[Part], workers: int, bar: Any) -> None:
        """Score what is missing; returns when every part is stored, by this process or another."""
        store.prepare()
        waiting, refused = deque(parts), deque[Part]()
        asked: deque[tuple[str, Part, Part, Any]] = deque()  # with workers one part is decoded while another is scored
        with ExitStack() as claims, SegmentStream(self.spec, workers) as stream:
            while waiting or refused or asked:
                while waiting and len(asked) <= bool(workers):
                    part = waiting.popleft()
                    name = part_name([key for key, _ in part])
                    if (claim := store.claim(name)) is None:
                        refused.append(part)
                        continue
                    claims.callback(give_up, claim)
                    done = store.keys_in(name)  # another process has written it, but for what failed
                    rest = [(key, track) for key, track in part if key not in done]
                    stream.ask(rest)
                    asked.append((name, part, rest, claim))
                if asked:
                    name, part, rest, claim = asked.popleft()
                    if rows := self._score(further, {key for key, _ in rest}, stream.take(rest, self.failed)):
                        # What the other could not score gets a part of its own: the other's stays as it is.
                        store.write(rows, part_name([key for key, _ in rest]))
                        self.scored |= {row["track_key"] for row in rows}
                    give_up(claim)
                    bar.update(len(part))
                else:
                    bar.set_postfix_str("waiting for another process", refresh=sys.stderr.isatty())
                    time.sleep(WAIT_SECONDS)
                    waiting, refused = refused, deque()

    def _score(self, further: Further, keys: Set[str], cuts: Iterator[Cut]) -> list[dict[str, Any]]:
        """Return the rows of one part; the model is loaded when the first segment needs it."""
        rows: list[dict[str, Any]] = []
        held = self.held(keys) if further.alone else None
        while chunk := list(islice(cuts, CHUNK_SEGMENTS)):
            model = self.model = self._loaded(self.model, self.info)
            if (beside := further.reference_info) is not None:
                self.reference = self._loaded(self.reference or further.reference, beside)
                further = replace(further, reference=self.reference)
            try:
                rows += score_part(model, chunk, self.spec, further, held)
            except (EarwitnessError, OSError, MemoryError):
                raise
            except Exception as error:
                reason = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
                if isinstance(error, RuntimeError) and model.info.device != "cpu":
                    reason = reason.partition(": ")[2]
                    raise StoppedError(f"{model.info.name}: {model.info.device} failed ({reason}); {RESUME}") from None
                if not self.info.source:  # a model of the user's own
                    raise
                raise NetworkError(
                    f"{self.info.name}: its network cannot be run ({reason}); do its configuration, tokenizer and "
                    "weights belong together? Fetch it again"
                ) from error
        check_unchanged(self.info)
        return [row for row in rows if row["track_key"] not in self.failed]  # a recording that failed half-way

    @staticmethod
    def _loaded(model: Any, info: ModelInfo) -> Any:
        """Return a model; one that is only named or described is loaded from the files that were described."""
        return load_model(info) if isinstance(model, str | ModelInfo) else model


def _progress(name: str, total: int, show: bool | None) -> Any:
    """Return tqdm's bar: for people at a terminal, and a line a minute for a log that is to have it."""
    from tqdm import tqdm

    quiet = not total or (None if show is None else not show)  # None: unless this is a terminal
    how: dict[str, Any] = dict.fromkeys(("mininterval", "maxinterval", "delay"), LOG_SECONDS)
    how["bar_format"] = "{desc}: {n_fmt} of {total_fmt} tracks, {rate_fmt}, {remaining} left\n"
    how = {} if sys.stderr.isatty() else how
    return tqdm(desc=name, total=total, unit="track", disable=quiet, leave=False, **how)


def _default_workers() -> int:
    """Return how many processes decode ahead: on a processor decoding is a small share, a card must not wait for it."""
    import torch

    return min(4, (os.cpu_count() or 1) - 1) if torch.cuda.is_available() else 1


def collect(
    model: TokenModel | DenoisingModel | ModelInfo | str,
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
    allow_download: bool = False,
    progress: bool | None = None,
) -> Signals:
    """Return the signals of every track under a model, scoring only what is not stored yet.

    Parameters
    ----------
    model : TokenModel, DenoisingModel, ModelInfo or str
        A loaded model, one that ``models.describe`` has described, or a name for ``load_model``, which is described
        first; neither costs anything when everything is stored. What was described is what is loaded, nothing is
        looked up again.
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
        Processes that decode ahead of the model, one at least; the results do not depend on it. Default: one beside a
        model on the CPU, else up to four.
    dtype : str
        Type of the weights of a model that is given by name, as for ``load_model``.
    allow_download : bool
        Whether a hub model that is given by name may be fetched.
    progress : bool, optional
        Show how far it is: a bar at a terminal, a line a minute elsewhere. Default: at a terminal only.

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
    if isinstance(model, str):
        model = describe(model, dtype=dtype, allow_download=allow_download)
    info = model if isinstance(model, ModelInfo) else model.info
    spec = spec_of(info, seed, max_segments)
    beside_it = describe(reference, allow_download=allow_download) if isinstance(reference, str) else reference
    further = Further(passes_asked(attacks, info), beside_it, prefixes or {})
    if beside := further.reference_info:
        if "reference" not in further.passes:
            raise InputError(f"no attack that was asked for compares {info.name} with {beside.name}; drop reference=")
        if beside.revision == info.revision:
            raise InputError(f"the reference {beside.name} has the weights of {info.name}; name another")
        token_costly.check(further.passes, info, beside)
    store = Store(info, spec, further.key())
    keyed, excluded = key_tracks(deal(tracks, shard))
    stored, lacking = find_stored(store, keyed)
    todo = plan_parts(info, spec, further, keyed, stored, lacking)

    def held(keys: Set[str]) -> Held:
        known = _arrays(store, stored[stored["track_key"].isin(keys)], "token", {STREAMS})
        return {(row["track_key"], row["segment_id"]): TokenSignals.from_arrays(arrays) for row, arrays in known}

    work, missing = _Work(model, info, spec, held), sum(map(bool, lacking.values()))
    with _progress(info.name, missing, progress) as bar:
        for passes, place, parts in todo:
            work.run(passes, place, parts, _default_workers() if workers is None else workers, bar)
    failed = work.failed
    USE.update(asked=len(keyed), scored=missing)
    excluded += [exclusion(track, failed[key]) for key, track in keyed if key in failed]
    columns = [{"track_key": key} | {name: getattr(track, name) for name in TRACK_COLUMNS} for key, track in keyed]
    likely = [Path(part).name for part in _parts_in(stored)]
    likely += [name for *_, parts in todo for name in names_of(parts)]
    index, lacking = find_stored(store, [(key, track) for key, track in keyed if key not in failed], likely)
    # A part can vanish meanwhile (somebody deletes it): no verdict without its tracks.
    if lost := sum(map(bool, lacking.values())):
        raise StoppedError(
            f"{info.name}: signals of {lost} of {len(keyed)} tracks were removed or damaged meanwhile; {RESUME}"
        )
    found = pd.DataFrame(columns, columns=["track_key", *TRACK_COLUMNS]).merge(index, on="track_key")
    if found.empty and shard[1] == 1:
        raise InputError(f"none of {len(tracks)} tracks can be scored; first reason: {excluded[0]['reason']}")
    if info.scheme is not None:  # a part holds the windows of a piece in their order
        found[WINDOW] = found.groupby("track_id")["row"].rank(method="first").astype(int) - 1
    return Signals(
        index=found,
        exclusions=pd.DataFrame(excluded, columns=list(EXCLUSION_COLUMNS)),
        info=info if isinstance(work.model, ModelInfo) else work.model.info,
        provenance={
            **store.identity,
            "tracks": len(tracks),
            "tracks_scored_now": len(work.scored),
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
    info = describe(model, dtype=dtype)
    spec = spec_of(info, seed)
    further = Further(passes_asked(attacks, info), None, {})
    store = Store(info, spec, further.key())
    keyed, excluded = key_tracks(deal(tracks, shard))
    index, lacking = find_stored(store, keyed)
    todo = plan_parts(info, spec, further, keyed, index, lacking)
    index = index[index["track_key"].isin([key for key, left in lacking.items() if not left])]
    places = {store.folder, *(store.path_of(part).parent for part in _parts_in(index))}
    parts = [path for place in places for path in place.glob("part-*.parquet")]
    return {
        "folder": store.folder.name,
        "tracks": len(keyed),
        "stored": sum(not lacking[key] for key, _ in keyed),
        "missing": sum(bool(lacking[key]) for key, _ in keyed),
        "unreadable": len(excluded),
        "segments": len(index),
        "parts": len(parts),
        "bytes": sum(path.stat().st_size for path in parts),
        "damaged": len(list(store.folder.glob("part-*.damaged"))),
        "claimed": sum(place.is_claimed(name) for _, place, parts in todo for name in names_of(parts)),
    }
