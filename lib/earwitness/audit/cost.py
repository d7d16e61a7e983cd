"""What scoring would cost, said before anything is spent: segments, network evaluations, hours, memory, disk.

One count, ``evaluations``: network calls a segment, from the model's configuration and what the attacks need. One
speed: measured where the model is here (``measure`` scores a few segments and stores nothing;
``benchmarks/throughput.csv``, written by ``benchmarks/bench_engine.py --throughput``, holds one machine's), and from
its card where it is not (``hours``: every call takes 2 x parameters x tokens operations, at the speed of two cores or
of a GPU; that tells minutes from days, no more). ``earwitness plan``, the audit's first lines and the pages *What an
audit costs* and *Full-scale experiments* all read these.

Book pages: *Audit your own*, *What an audit costs*.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from earwitness.audit.intake import Intake
from earwitness.audit.references import listed, without_captions
from earwitness.audit.request import Request, control_known, gather_tracks, refuse_mixture
from earwitness.data import decode_pool
from earwitness.data.audio import Spec, spec_of
from earwitness.data.decode_pool import MISTAKEN, probe, segments
from earwitness.data.manifest import read_manifest, read_splits
from earwitness.errors import AudioError, InputError, ManifestError, ModelError
from earwitness.models import describe, load_model, locate
from earwitness.models.cards import UNKNOWN, card_of, identity
from earwitness.signals import blind
from earwitness.signals.evaluations import cost, passes_asked, plan_evaluations, specs_asked, without_caption
from earwitness.signals.extraction import Further, find_stored, score_part
from earwitness.signals.store import Store, encode, exclusion, key_tracks, seconds_of
from earwitness.signals.token_costly import EXTRA_PASSES
from earwitness.signals.token_costly import calls as network_calls
from earwitness.stats.power import refusals
from earwitness.stats.verdict import ALPHA
from earwitness.symbolic.windows import SymbolicSpec
from earwitness.types import REFERENCE, SCORES, SIDES, ModelInfo, Segment, Track
from earwitness.util import digest, project_root, span

# --- measured on a few segments ---------------------------------------------------------------------------------------

PROBE_SEGMENTS = 8  # one small batch: enough to see a second a segment, or a millisecond


@dataclass(frozen=True)
class Measurement:
    """What a few segments took on this machine: seconds, MiB and bytes, all per process."""

    segments: int
    tracks: int
    device: str
    prepare_s_per_track: float
    score_s_per_segment: float
    peak_memory_mib: float
    peak_gpu_memory_mib: float | None
    bytes_per_segment: float


def measure(info: ModelInfo, tracks: Sequence[Track], spec: Spec, further: Further) -> Measurement | None:
    """Score a few segments, once to warm up and once by the clock; None where none of the tracks can be decoded."""
    cuts: list[tuple[str, Track, Segment]] = []
    decode_pool.give_back(decode_pool.borrow())  # a process that has started already
    started, tried = time.perf_counter(), 0
    for track in tracks:
        tried += 1
        try:
            for segment in blind.cuts(track.path, spec, track.caption):  # to its end, by the clock; few are held
                if len(cuts) < PROBE_SEGMENTS:
                    cuts.append((track.track_id, track, segment))
        except AudioError:
            continue
        if len(cuts) >= PROBE_SEGMENTS:
            break
    prepared = (time.perf_counter() - started) / max(tried, 1)
    if not cuts:
        return None
    network = load_model(info)
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
    return Measurement(
        len(cuts), len({key for key, *_ in cuts}), network.info.device, prepared, elapsed / len(cuts), peak, gpu, size
    )


# --- many tracks, from measured seconds -------------------------------------------------------------------------------

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
    rows = pd.read_csv(project_root() / MEASURED)[COLUMNS].to_dict("records")
    own = {"network": "yours", "device": "yours", "segment_seconds": 30.0, "score_s_per_segment": own_seconds}
    more = [rows[0] | own] if own_seconds else []
    if model:
        info = describe(model)
        further = Further(passes_asked("all", info), None, {})
        found = measure(info, read_splits(manifest)[:8], spec_of(info), further)
        if found is None:
            raise InputError(f"{manifest}: none of its first recordings can be decoded; name a manifest with audio")
        prepared = found.prepare_s_per_track / max(1, found.segments // max(1, found.tracks))
        here = (f"{info.name}, this machine", found.device, info.segment_seconds, found.score_s_per_segment)
        rows.append(dict(zip(COLUMNS, (*here, prepared, found.bytes_per_segment), strict=True)))
    return pd.DataFrame(rows + more, columns=COLUMNS)


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
    if (longest := measured["segment_seconds"].max()) > track_seconds:
        raise InputError(f"a track of {track_seconds:g} s is shorter than a segment of {longest:g} s")
    rows = measured.merge(pd.DataFrame({"tracks": list(tracks)}), how="cross")
    rows["segments"] = rows["tracks"] * (track_seconds // rows["segment_seconds"]).astype(int)
    rows["hours"] = rows["segments"] * (rows["score_s_per_segment"] + rows["prepare_s_per_segment"]) / 3600
    rows["processes"] = np.ceil(rows["hours"] / (24 * days)).astype(int)
    rows["disk_gib"] = rows["segments"] * rows["bytes_per_segment"] / 2**30
    return rows[["network", "device", "tracks", "segments", "hours", "processes", "disk_gib"]]


# --- forecasts of a run -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Forecast:
    """What scoring a manifest under a model would take.

    Attributes
    ----------
    model, revision, family : str
        Which model; the revision is ``"not downloaded"`` where only its card is known.
    control : bool
        It is an audit's control model.
    references : int
        Of ``tracks``: those scored for the rank among reference artists, on neither side.
    tracks, tracks_stored, tracks_missing : int
        Tracks that can be used as far as headers tell, how many of them are stored, how many are to be scored.
    segments_missing : int
        Segments of the latter, at most: silent ones drop out when they are decoded.
    audio_hours : float
        Length of all usable tracks.
    evaluations : dict
        Attack -> network evaluations per segment, had it to run on its own.
    evaluations_shared, evaluations_separate : int
        Network evaluations per segment of all attacks together, sharing or not.
    probe : Measurement or None
        None where nothing was measured (``notes`` says why).
    hours, disk_gib : float or None
        Of one process, from the probe; hours of two cores, from its card, of a model that is not here.
    exclusions : list of dict
        track_id, role, reason of each track that cannot be used.
    refusals : list of str
        Why the result could not be tested, however it comes out.
    notes : list of str
        What was not or could not be looked at.
    """

    model: str
    revision: str
    family: str
    control: bool
    references: int
    tracks: int
    tracks_stored: int
    tracks_missing: int
    segments_missing: int
    audio_hours: float
    evaluations: dict[str, int]
    evaluations_shared: int
    evaluations_separate: int
    probe: Measurement | None
    hours: float | None
    disk_gib: float | None
    exclusions: list[dict[str, str]]
    refusals: list[str]
    notes: list[str]


def evaluations(attacks: str | Sequence[str], info: ModelInfo) -> tuple[dict[str, int], int]:
    """Return each attack's network evaluations per segment on its own, and those of all together, shared."""
    return _evaluations(attacks, info, captions=True)


def _evaluations(attacks: str | Sequence[str], info: ModelInfo, *, captions: bool) -> tuple[dict[str, int], int]:
    """Count them with captions, or without: a conditional pass is then the null pass, and is not run a second time."""
    asked = passes_asked(attacks, info)
    diffusion = info.family == "diffusion"
    specs = [s for s in specs_asked(attacks, info) if s.attack.family == info.family]
    own: dict[str, int] = {}
    for name in dict.fromkeys(s.attack.name for s in specs):
        passes = cost(s for s in specs if s.attack.name == name)
        if not captions and "null" in passes:
            passes.pop("conditional", None)
        own[name] = (
            plan_evaluations(passes if captions else without_caption(passes)).nfe
            if diffusion
            else network_calls(passes, info)
        )
    if diffusion:
        return own, plan_evaluations(asked if captions else without_caption(asked)).nfe
    standard = cost(specs_asked("loss", info))  # always run, so that no later attack asks for them again
    further = {name: EXTRA_PASSES[name] for name in asked}
    if not captions and info.scheme is None:
        standard.pop("conditional")
    return own, network_calls({**standard, **further}, info)


def forecast(
    model: str,
    tracks: Sequence[Track],
    attacks: str | Sequence[str] = "all",
    *,
    seed: int = 0,
    max_segments: int = 0,
    probe: bool = True,
    allow_download: bool = False,
    pairs: str | None = None,
    alpha: float = ALPHA,
    dtype: str = "float32",
) -> Forecast:
    """Say what ``collect`` with the same arguments would take.

    Parameters
    ----------
    model : str
        As for ``load_model``. A hub name whose files are not here is counted from its card.
    tracks, attacks, seed, max_segments
        As for ``collect``.
    probe : bool
        Score a few segments to measure seconds, memory and bytes. Nothing is stored.
    allow_download : bool
        Fetch a hub model that is not here yet.
    pairs : str, optional
        ``work``: works are compared in pairs.
    alpha : float
        Level of the test.
    dtype : str
        Type of number, as for ``load_model``.

    Raises
    ------
    InputError
        No track, or an unknown attack.
    ModelError
        An unknown model.
    """
    if not tracks:
        raise InputError("expected at least one track, got none; check the manifest's roles and splits")
    info, notes = identity(model, allow_download=allow_download, dtype=dtype)
    notes += [f"the model runs in {info.dtype}"] if info.dtype != "float32" else []
    spec = spec_of(info, seed, max_segments)
    keyed, excluded = key_tracks(tracks)
    lengths = {track.track_id: seconds_of(track) for _, track in keyed}
    excluded += [exclusion(track, why) for _, track in keyed if (why := _unfit(track, lengths[track.track_id], info))]
    names = {track.track_id: f"{track.path.name}: " for track in tracks}
    excluded = [row | {"reason": row["reason"].removeprefix(names[row["track_id"]])} for row in excluded]
    out = {row["track_id"] for row in excluded}
    usable = [(key, track) for key, track in keyed if track.track_id not in out]
    further = Further(passes_asked(attacks, info), None, {})
    stored: set[str] = set()
    if info.revision != UNKNOWN:
        _, lacking = find_stored(Store(info, spec, further.key()), keyed)
        stored = {key for key, left in lacking.items() if not left}
    missing = [track for key, track in usable if key not in stored]
    silent = sum(not track.caption for track in missing)
    own, shared = evaluations(attacks, info)
    alone, fewer = _evaluations(attacks, info, captions=False)
    if missing and silent == len(missing):
        own, shared = alone, fewer
    elif silent and fewer < shared:
        notes.append(
            f"{silent} of {len(missing)} tracks have no caption: {fewer} network calls a segment, not {shared}"
        )
    segments = sum(_segments_of(track, lengths[track.track_id], spec) for track in missing)
    measured = None
    if probe and missing and info.revision != UNKNOWN:
        order = sorted(missing, key=lambda track: digest(track.track_id))  # blind to roles and artists
        try:
            measured = measure(info, order, spec, further)
        except InputError as error:  # a costly attack that needs a second model or a prefix
            notes.append(f"nothing measured: {error}")
    if usable and not any(track.role for _, track in usable):
        notes.append("no track has a role for this model, so it is not known whether the result could be tested")
    compared = [track for _, track in usable if track.role != REFERENCE]
    taken = None
    if measured:
        taken = (segments * measured.score_s_per_segment + len(missing) * measured.prepare_s_per_track) / 3600
    elif info.revision == UNKNOWN:
        taken = hours(model, shared, segments * info.segment_seconds)
    return Forecast(
        model=info.name, revision=info.revision, family=info.family,
        control=False, references=sum(track.role == REFERENCE for _, track in usable),
        tracks=len(usable), tracks_stored=len(usable) - len(missing), tracks_missing=len(missing),
        segments_missing=segments, audio_hours=sum(lengths[track.track_id] for _, track in usable) / 3600,
        evaluations=own, evaluations_shared=shared, evaluations_separate=sum(own.values()),
        probe=measured, hours=taken,
        disk_gib=None if measured is None else segments * measured.bytes_per_segment / 2**30,
        exclusions=excluded,
        refusals=refusals(compared, pairs, alpha) if compared else ["no track can be used"], notes=notes,
    )  # fmt: skip


def _unfit(track: Track, seconds: float, info: ModelInfo) -> str:
    """Say why a model cannot read a recording of this kind and length; nothing where it can."""
    score = track.path.suffix.lower() in SCORES
    if score != (info.scheme is not None):
        return MISTAKEN[score]
    try:
        probe(track.path)
    except AudioError as error:
        return str(error)
    least = info.segment_seconds - info.pad_seconds
    return "" if seconds >= least else f"{seconds:.2f} s, shorter than {least:.2f} s"  # a symbolic model's is 0


def _segments_of(track: Track, seconds: float, spec: Spec) -> int:
    """Return how many whole segments fit, at most ``max_segments`` (0: all); the windows of a score are counted."""
    if isinstance(spec, SymbolicSpec):
        try:
            return sum(1 for _ in segments(track.path, spec))
        except AudioError:
            return 0
    count = max(1, int(seconds // spec.segment_seconds))  # one that is padded counts
    return min(count, spec.max_segments) if spec.max_segments else count


def tracks_with_roles(manifest: Path, model: str, splits: Sequence[str] | None = None) -> list[Track]:
    """Read the tracks that ``earwitness score`` would score, with roles where the manifest or its card tells them."""
    tracks = read_splits(manifest, splits)
    try:
        roles = {track.track_id: track.role for track in read_manifest(manifest, target=model)}
    except ManifestError:
        roles = {}
    return [replace(track, role=roles.get(track.track_id, "")) for track in tracks]


# --- an audit, from the model cards alone -----------------------------------------------------------------------------

CPU_GFLOPS = 100.0  # two cores, float32
GPU_GFLOPS = 20_000.0  # a GPU with 24 GB, half of what such GPUs reach in practice
TOKENS_PER_SECOND = 50
LATENT_SHARE = 0.1  # of them: what a diffusion model sees of a second


def hours(model: str, calls: int, audio_seconds: float, gflops: float = CPU_GFLOPS) -> float | None:
    """Return hours of so many calls a window over so much audio, by a model's card; None where none tells its size."""
    card = card_of(model)
    if card is None or not card.parameters:
        return None
    tokens = audio_seconds * TOKENS_PER_SECOND * (LATENT_SHARE if card.family == "diffusion" else 1.0)
    return calls * 2 * card.parameters * tokens / (gflops * 1e9) / 3600


def estimate(intake: Intake, infos: Sequence[ModelInfo]) -> str:
    """Return what scoring the usable recordings under some models would take on two cores, in words."""
    seconds = sum(track.duration_s for track in intake.tracks if track.duration_s == track.duration_s)
    each = [hours(info.name, evaluations("audit", info)[1], seconds) for info in infos]
    told = [known for known in each if known is not None]
    words = f"about {span(sum(told) * 3600)} on two cores" if told else "unknown: no card tells the model's size"
    return f"{len(intake.tracks)} recordings, {seconds / 60:.0f} minutes of audio; scoring: {words}"


def forecasts(
    request: Request, attacks: str = "audit", *, seed: int = 0, probe: bool = True, allow_download: bool = False
) -> list[Forecast]:
    """Say what scoring an audit would take: one forecast per model, that of the control model last.

    Counted are both sides under every model and, but for the control, the recordings of reference artists, with the
    suspects once more where captions set them apart from those. Only headers are read: copies, which an audit leaves
    out, are counted.

    Raises
    ------
    InputError, ModelError
        As ``refuse_mixture``, ``gather_tracks``, ``references.listed`` and ``forecast``.
    """
    infos = [told_of(name, allow_download) for name in request.models]
    refuse_mixture(infos, told_of(request.control_model, allow_download) if request.control_model else None)
    sides = [replace(t, work=t.work if request.unit == "work" else "") for t in gather_tracks(request).tracks]
    others: list[Track] = []
    if request.reference_artists is not None:
        again = without_captions([track for track in sides if track.role in SIDES["suspect"] and track.caption])
        others = [replace(track, track_id=f"{track.track_id} without caption", role=REFERENCE) for track in again]
        others += listed(request.reference_artists, sides).tracks
    how: dict[str, Any] = {"seed": seed, "probe": probe, "allow_download": allow_download}
    how |= {"pairs": request.pairs, "alpha": request.alpha, "dtype": request.dtype}
    found = [forecast(name, [*sides, *others], attacks, **how) for name in request.models]
    if request.control_model is not None:
        last = forecast(request.control_model, sides, attacks, **how)
        refused = list(last.refusals)
        try:
            control_known(request, sides)
        except InputError as error:
            refused.append(str(error))
        found.append(replace(last, control=True, refusals=refused))
    return found


def told_of(name: str, allow_download: bool = False) -> ModelInfo:
    """Return a model's description; known from its card alone, it has its name for weights."""
    info, _ = identity(name, allow_download=allow_download)
    return replace(info, revision=name) if info.revision == UNKNOWN else info


def present(name: str, *, download: bool) -> None:
    """Make sure that a model is on this machine, or may be fetched.

    Raises
    ------
    ModelError
        As ``locate``; or a hub model that is not here and may not be fetched: the message says how large it is, how
        long scoring would take, and how to get it.
    """
    try:
        locate(name, allow_download=False)
    except ModelError:
        card = card_of(name)
        if download:
            locate(name, allow_download=True)
            return
        if card is None or not card.channels:  # what a symbolic model takes is not counted in seconds of sound
            raise
        calls = evaluations("audit", identity(name, allow_download=False)[0])[1]
        speeds = (CPU_GFLOPS, GPU_GFLOPS)
        slow, fast = (span(3600 * (hours(name, calls, 240.0 * 40, speed) or 0.0)) for speed in speeds)
        raise ModelError(
            f"{name}: not on this machine. Fetching it takes about {card.download_gb:.0f} GB ({card.size} parameters, "
            f"licence {card.licence}); scoring 40 recordings of four minutes then takes about {slow} on two cores, "
            f"about {fast} on a GPU. Run again with --allow-download to fetch it, or put its files in a folder and "
            "name the folder"
        ) from None
