"""What a scoring run would cost, before anything is spent: segments, network evaluations, hours, memory, disk.

Everything but the probe comes from the manifest, the files' headers and the model's configuration. The probe scores a
few segments of the tracks at hand and stores nothing; it is what turns counts into hours. The book page *What an audit
costs* does the same arithmetic for up to ten million tracks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from earwitness.attacks import cost
from earwitness.audio import SCORES
from earwitness.errors import AudioError, InputError, ManifestError, ModelError
from earwitness.extractors import plan as diffusion_plan
from earwitness.extractors.passes import calls as network_calls
from earwitness.extractors.run import Further, passes_asked, specs_asked
from earwitness.manifest import Track, read_manifest, read_splits
from earwitness.models import describe
from earwitness.models.base import ModelInfo
from earwitness.probe import Probe, measure
from earwitness.sandbox import MISTAKEN
from earwitness.shards import exclusion, key_tracks, names_of, parts_of, seconds_of
from earwitness.store import Store, digest
from earwitness.symbolic.windows import SymbolicSpec
from earwitness.windows import Spec, spec_of
from earwitness.windows import segments as windows_of

if TYPE_CHECKING:
    from earwitness.inference.power import Reach

REFERENCE = "reference"  # role of what is scored beside the two sides, for the rank among reference artists
SIDES = {"suspect": ("suspect", "member"), "held_out": ("held_out", "nonmember")}
UNKNOWN = "not downloaded"  # in place of a revision: counted from the model's card


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
    probe : Probe or None
        Measurements; None where nothing was measured (``notes`` says why).
    hours, disk_gib : float or None
        Of one process, from the probe.
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
    probe: Probe | None
    hours: float | None
    disk_gib: float | None
    exclusions: list[dict[str, str]]
    refusals: list[str]
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain types, ready for ``json.dumps``."""
        return asdict(self)


def evaluations(attacks: str | Sequence[str], info: ModelInfo) -> tuple[dict[str, int], int]:
    """Return each attack's network evaluations per segment on its own, and those of all together, shared."""
    asked = passes_asked(attacks, info)
    diffusion = info.family == "diffusion"
    specs = [s for s in specs_asked(attacks, info) if s.attack.family == info.family]
    own: dict[str, int] = {}
    for name in dict.fromkeys(s.attack.name for s in specs):
        passes = cost(s for s in specs if s.attack.name == name)
        own[name] = diffusion_plan.plan(passes).nfe if diffusion else network_calls(passes, info)
    if diffusion:
        return own, diffusion_plan.plan(asked).nfe
    standard = cost(specs_asked("loss", info))  # always run, so that no later attack asks for them again
    further = {name: n for name, n in cost(specs_asked(attacks, info)).items() if name in asked}
    return own, network_calls({**standard, **further}, info)


def identity(model: str, *, allow_download: bool) -> tuple[ModelInfo, list[str]]:
    """Return a model's description, from its card alone where its files are not here and may not be fetched."""
    from earwitness.models.cards import read_cards

    try:
        return describe(model, allow_download=allow_download), []
    except ModelError:
        card = next((card for card in read_cards().models if card.name == model), None)
        if card is None or not card.channels:  # how a symbolic model reads is known from its files alone
            raise
    family = "diffusion" if card.format in {"diffusers", "tango"} else "token"
    info = ModelInfo(
        model, family, UNKNOWN, card.sample_rate, card.channels, card.segment_seconds, "float32", "cpu", "real",
        conditions=("text", "null") if family == "diffusion" else (), calls=card.calls,
    )  # fmt: skip
    return info, [f"{model} is not on this machine: counted from its card, nothing measured; --allow-download fetches"]


def reach_of(tracks: Sequence[Track], alpha: float, pairs: str | None = None) -> Reach:
    """Say what comparing the suspects among some tracks with the held-out could see; other tracks are passed over.

    With ``pairs`` (``work``) one take of a work is compared with one on the other side.
    """
    from earwitness.inference.power import reach
    from earwitness.inference.relabel import named, strata_of

    if pairs is not None:
        takes = [{(t.work, t.artist) for t in tracks if t.work and t.role in roles} for roles in SIDES.values()]
        return reach(np.repeat([True, False], len(set.intersection(*takes))), None, paired=True, alpha=alpha)
    compared = [track for track in tracks if any(track.role in roles for roles in SIDES.values())]
    positive = np.array([track.role in SIDES["suspect"] for track in compared], dtype=bool)
    artists = np.array([track.artist for track in compared], dtype=object)
    keep = named(artists)
    return reach(positive[keep], strata_of(artists[keep]), alpha=alpha)


def refusals(usable: Sequence[Track], pairs: str | None = None) -> list[str]:
    """Say why a comparison of these tracks' sides could not be tested; nothing where roles are not known."""
    from earwitness.inference.verdict import ALPHA, MAX_DETECTABLE_AUC, MIN_UNITS, POWER

    sizes = {side: sum(track.role in roles for track in usable) for side, roles in SIDES.items()}
    if not any(sizes.values()):
        return []
    if not all(sizes.values()):
        return [f"there is no {side.replace('_', '-')} track to compare with" for side, n in sizes.items() if not n]
    seen = reach_of(usable, ALPHA, pairs)
    if not seen.n_suspect and pairs is not None:
        return ["no work has takes on both sides, so there is no pair to compare"]
    if not seen.n_suspect:
        return ["no artist is on both sides: a difference between artists cannot be told from training"]
    smallest = seen.detectable_auc or 1.0
    if min(seen.n_suspect, seen.n_held_out) >= MIN_UNITS and smallest <= MAX_DETECTABLE_AUC:
        return []
    few, each = f"tracks: {seen.n_suspect} suspect and {seen.n_held_out} held-out", "of each "
    if pairs is not None:
        few, each = f"pairs: {seen.n_suspect} works with takes on both sides", ""
    return [
        f"too few {few} show only an AUC above {smallest:.2f} with {POWER:.0%} power; at least {seen.units_needed} "
        f"{each}are needed"
    ]


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

    Raises
    ------
    InputError
        No track, or an unknown attack.
    ModelError
        An unknown model.
    """
    if not tracks:
        raise InputError("expected at least one track, got none; check the manifest's roles and splits")
    info, notes = identity(model, allow_download=allow_download)
    spec = spec_of(info, seed, max_segments)
    own, shared = evaluations(attacks, info)
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
        index = Store(info, spec, further.key()).index({key for key, _ in keyed}, names_of(parts_of(keyed)))
        stored = set(index["track_key"])
    missing = [track for key, track in usable if key not in stored]
    segments = sum(_segments_of(track, lengths[track.track_id], spec) for track in missing)
    measured = None
    if probe and missing and info.revision != UNKNOWN:
        order = sorted(missing, key=lambda track: digest(track.track_id))  # blind to roles and artists
        try:
            measured = measure(model, order, spec, further, allow_download=allow_download)
        except InputError as error:  # a costly attack that needs a second model or a prefix
            notes.append(f"nothing measured: {error}")
    if usable and not any(track.role for _, track in usable):
        notes.append("no track has a role for this model, so it is not known whether the result could be tested")
    compared = [track for _, track in usable if track.role != REFERENCE]
    seconds = None
    if measured:
        seconds = segments * measured.score_s_per_segment + len(missing) * measured.prepare_s_per_track
    return Forecast(
        model=info.name, revision=info.revision, family=info.family,
        control=False, references=sum(track.role == REFERENCE for _, track in usable),
        tracks=len(usable), tracks_stored=len(usable) - len(missing), tracks_missing=len(missing),
        segments_missing=segments, audio_hours=sum(lengths[track.track_id] for _, track in usable) / 3600,
        evaluations=own, evaluations_shared=shared, evaluations_separate=sum(own.values()),
        probe=measured, hours=None if seconds is None else seconds / 3600,
        disk_gib=None if measured is None else segments * measured.bytes_per_segment / 2**30,
        exclusions=excluded,
        refusals=refusals(compared, pairs) if compared else ["no track can be used"], notes=notes,
    )  # fmt: skip


def _unfit(track: Track, seconds: float, info: ModelInfo) -> str:
    """Say why a model cannot read a recording of this kind and length; nothing where it can."""
    score = track.path.suffix.lower() in SCORES
    if score != (info.scheme is not None):
        return MISTAKEN[score]
    if np.isnan(seconds):
        return "not readable as audio"
    least = info.segment_seconds - info.pad_seconds
    return "" if seconds >= least else f"{seconds:.2f} s, shorter than {least:.2f} s"  # a symbolic model's is 0


def _segments_of(track: Track, seconds: float, spec: Spec) -> int:
    """Return how many whole segments fit, at most ``max_segments`` (0: all); the windows of a score are counted."""
    if isinstance(spec, SymbolicSpec):
        try:
            return sum(1 for _ in windows_of(track.path, spec))
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
