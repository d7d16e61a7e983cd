"""The scoring engine: which signals are stored, which are missing, and the one loop that computes them.

Tracks are cut into parts (``shards``); a part is scored in batches of fixed size and stored whole (``store``). Whatever
was stored before an interruption is never computed again, and several processes may work on the same tracks at once:
each part is claimed by one of them. The book page *Methods: from audio to verdict* draws the flow.
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import pandas as pd

from earwitness.audio import Segment
from earwitness.errors import InputError, ModelError, StoppedError
from earwitness.extractors import passes
from earwitness.extractors.blind import BlindSignals
from earwitness.extractors.diffusion import DenoisingSignals
from earwitness.extractors.run import Further, passes_asked, score_part
from earwitness.extractors.token import TokenSignals, without_contrast
from earwitness.manifest import Track
from earwitness.models import describe, load_model
from earwitness.models.base import DenoisingModel, ModelInfo, TokenModel
from earwitness.progress import Progress
from earwitness.shards import deal, exclusion, key_tracks, names_of, parts_of
from earwitness.store import RESUME, Claims, Store, digest, part_name
from earwitness.stream import Stream
from earwitness.units import WINDOW
from earwitness.windows import Spec, spec_of

if TYPE_CHECKING:
    from pathlib import Path


EXCLUSION_COLUMNS = ["track_id", "role", "reason"]
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
        with Claims(self.store.folder) as claims, Stream(self.spec, workers) as stream:
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
        the two standard passes suffice for (for a diffusion model: the cheap ones, ``extractors.plan.STANDARD``).
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
        passes.check(further.passes, info, beside)
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
    # A part can vanish meanwhile (``earwitness clean`` elsewhere): no verdict without its tracks.
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
        exclusions=pd.DataFrame(excluded, columns=EXCLUSION_COLUMNS),
        info=info if isinstance(work.model, str) else work.model.info,
        provenance={
            **store.identity,
            "tracks": len(tracks),
            "tracks_scored_now": work.scored,
            "seconds": round(time.monotonic() - started, 1),
        },
        store=store,
    )
