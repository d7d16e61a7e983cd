"""What an audit would cost, said before any weights are fetched and before any model is run.

Sizes come from the model cards, network calls from the frozen features, which are all that an audit scores, counted
as ``earwitness plan`` counts them. Hours are arithmetic, not measurement: every call takes 2 x parameters x tokens
operations, at a speed that two cores of an ordinary computer reach. They tell minutes from days, no more; once a model
is on the machine, ``earwitness plan`` measures (``forecasts``).

Book page: *Audit your own*.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from earwitness.audit.references import listed, without_captions
from earwitness.audit.request import Request, control_known, gather_tracks, refuse_mixture
from earwitness.errors import InputError, ModelError
from earwitness.intake import Intake
from earwitness.manifest import Track
from earwitness.models import locate
from earwitness.models.base import ModelInfo
from earwitness.models.cards import Card, read_cards
from earwitness.planning import REFERENCE, SIDES, UNKNOWN, Forecast, evaluations, forecast, identity

CPU_GFLOPS = 100.0  # two cores, float32
GPU_GFLOPS = 20_000.0  # a card with 24 GB, half of what such cards reach in practice
TOKENS_PER_SECOND = 50
LATENT_SHARE = 0.1  # of them: what a diffusion model sees of a second
ENCODER_GB = 1.0  # text encoder and codec, in round numbers


def parameters(card: Card) -> float:
    """Return a card's number of parameters: "1.5 B" -> 1.5e9."""
    found = re.search(r"([\d.]+) ?([MB])", card.size)
    if found is None:
        return 0.0
    return float(found[1]) * {"M": 1e6, "B": 1e9}[found[2]]


def download_gb(card: Card) -> float:
    """Return what fetching a model would take, in GB (float32 weights, text encoder and codec)."""
    return parameters(card) * 4 / 1e9 + ENCODER_GB


def calls(info: ModelInfo) -> int:
    """Return the network calls that an audit makes a window."""
    return evaluations("audit", info)[1]


def hours(size: float, audio_seconds: float, calls: int, *, diffusion: bool, gflops: float = CPU_GFLOPS) -> float:
    """Return hours of so many network calls a window over so much audio, under a model of so many parameters."""
    tokens = audio_seconds * TOKENS_PER_SECOND * (LATENT_SHARE if diffusion else 1.0)
    return calls * 2 * size * tokens / (gflops * 1e9) / 3600


def words(value: float) -> str:
    """Return hours in words: "about 3 minutes", "about 5 hours", "about 9 days"."""
    if value < 1 / 60:
        return "less than a minute"
    if value < 1.5:
        return f"about {max(1, round(value * 60))} minutes"
    return f"about {value:.0f} hours" if value < 48 else f"about {value / 24:.0f} days"


def card_of(name: str) -> Card | None:
    """Return the card of a model, or None where it has none."""
    return next((card for card in read_cards().models if card.name == name), None)


def estimate(intake: Intake, infos: Sequence[ModelInfo]) -> str:
    """Return what scoring the usable recordings under some models would take on two cores, in words."""
    seconds = sum(track.duration_s for track in intake.tracks if track.duration_s == track.duration_s)
    told, unknown = 0.0, []
    for info in infos:
        card = card_of(info.name)
        if card is None:
            unknown.append(info.name)
        else:
            told += hours(parameters(card), seconds, calls(info), diffusion=info.family == "diffusion")
    known = f"{words(told)} on two cores" if len(unknown) < len(infos) else "unknown: no card tells the model's size"
    return f"{len(intake.tracks)} recordings, {seconds / 60:.0f} minutes of audio; scoring: {known}"


def forecasts(
    request: Request,
    attacks: str = "audit",
    *,
    seed: int = 0,
    probe: bool = True,
    allow_download: bool = False,
) -> list[Forecast]:
    """Say what scoring an audit would take: one forecast per model, that of the control model last.

    Counted are both sides under every model and, but for the control, the recordings of reference artists, with the
    suspects once more where captions set them apart from those. Only headers are read: copies, which an audit leaves
    out, are counted.

    Raises
    ------
    InputError, ModelError
        As ``refuse_mixture``, ``gather_tracks``, ``references.listed`` and ``planning.forecast``.
    """
    infos = [_told(name, allow_download) for name in request.models]
    refuse_mixture(infos, _told(request.control_model, allow_download) if request.control_model else None)
    sides = list(gather_tracks(request).tracks)
    others: list[Track] = []
    if request.reference_artists is not None:
        again = without_captions([track for track in sides if track.role in SIDES["suspect"] and track.caption])
        others = [replace(track, track_id=f"{track.track_id} without caption", role=REFERENCE) for track in again]
        others += listed(request.reference_artists, sides).tracks
    how: dict[str, Any] = {"seed": seed, "probe": probe, "allow_download": allow_download, "pairs": request.pairs}
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


def _told(name: str, allow_download: bool) -> ModelInfo:
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
        info, _ = identity(name, allow_download=False)
        slow, fast = (
            words(hours(parameters(card), 240.0 * 40, calls(info), diffusion=info.family == "diffusion", gflops=speed))
            for speed in (CPU_GFLOPS, GPU_GFLOPS)
        )
        raise ModelError(
            f"{name}: not on this machine. Fetching it takes about {download_gb(card):.0f} GB ({card.size} parameters, "
            f"licence {card.licence}); scoring 40 recordings of four minutes then takes {slow} on two cores, {fast} on "
            "a GPU. Run again with --allow-download to fetch it, or put its files in a folder and name the folder"
        ) from None
