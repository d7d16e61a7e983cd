"""Which network evaluations a set of attacks needs, each distinct one once.

An *evaluation* is one call of the network on one item: condition, latent, timestep, noise. A *probe* is what an attack
reads: some evaluations, and perhaps an adaptive chain of further ones that only exist once the first are known. Probes
share evaluations; chains cannot be shared. A *pass* is a probe under a condition, written ``grid/conditional``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from earwitness.errors import InputError, nearest
from earwitness.extractors.perturb import NAMES

CLEAN, UNNOISED = "clean", -1
GRID = tuple(range(0, 1000, 100))  # multiple loss, gradient masking, CLiD
LOSS_TIME, LOSS_REPEATS = 100, 5  # denoising loss
ORIGIN = (0, 100)  # un-noised latents: PIA and SecMI start at 0, SimA reads both
PFAMI_TIMES = tuple(range(0, 500, 50))
STREAMS = ("conditional", "null", "audio")  # what attacks run on
REDUCED = ("half", "other")  # CLiD's reduced captions
CONDITIONS = (*STREAMS, *REDUCED)


@dataclass(frozen=True, order=True)
class Evaluation:
    """One network call per item; ``t`` in thousandths of the schedule, ``repeat`` counts noises (or ``UNNOISED``)."""

    condition: str
    latent: str
    t: int
    repeat: int


@dataclass(frozen=True)
class Probe:
    """What an attack reads.

    Attributes
    ----------
    calls : tuple of (latent, t, repeat)
        The evaluations it needs, whatever the condition.
    forward, backward : int
        Calls of its adaptive chain per item, and how many of them also run backwards.
    tail : bool
        So costly that only its own name asks for it, no pattern.
    """

    calls: tuple[tuple[str, int, int], ...] = ()
    forward: int = 0
    backward: int = 0
    tail: bool = False


PROBES = {
    "grid": Probe(tuple((CLEAN, t, 0) for t in GRID)),
    "repeats": Probe(tuple((CLEAN, LOSS_TIME, r) for r in range(LOSS_REPEATS))),
    "origin": Probe(tuple((CLEAN, t, UNNOISED) for t in ORIGIN)),
    "pia": Probe(((CLEAN, 0, UNNOISED),), forward=3),
    "secmi": Probe(((CLEAN, 0, UNNOISED),), forward=11),
    "gradient_mask": Probe(forward=2 * len(GRID), backward=len(GRID)),
    "noise_optimisation": Probe(forward=6, backward=6),
    "pfami": Probe(tuple((latent, t, 0) for latent in (CLEAN, *NAMES) for t in PFAMI_TIMES)),
    "rediffuse": Probe(forward=4 * 5, tail=True),
    "adversarial": Probe(forward=6 * 8, backward=6 * 8, tail=True),
    "gradient_norms": Probe(forward=10, backward=10, tail=True),
}
SOUND = ("conditional", "audio")  # the caption and the audio's own embedding
STANDARD = {
    "grid": STREAMS,
    "repeats": SOUND,
    "origin": SOUND,
    "pia": SOUND,
}  # 29 network calls where there is a caption
COSTLY = ("gradient_mask", "noise_optimisation", "pfami")  # never on the null condition


def split(name: str) -> tuple[str, str]:
    """Return probe and condition of a pass.

    Raises
    ------
    InputError
        No such pass.
    """
    probe, _, condition = name.partition("/")
    if probe not in PROBES or condition not in CONDITIONS:
        known = [f"{p}/{c}" for p in PROBES for c in CONDITIONS]
        raise InputError(f"there is no pass {name!r}{nearest(name, known)}")
    return probe, condition


def nfe(name: str) -> int:
    """Return a pass's network calls per item, run on its own."""
    probe = PROBES[split(name)[0]]
    return len(probe.calls) + probe.forward


PASSES = {f"{probe}/{condition}": nfe(f"{probe}/{condition}") for probe in PROBES for condition in CONDITIONS}


@dataclass(frozen=True)
class Plan:
    """The distinct evaluations and the adaptive passes behind a set of passes."""

    passes: tuple[str, ...]
    evaluations: tuple[Evaluation, ...]

    @property
    def conditions(self) -> tuple[str, ...]:
        """Every condition that is needed."""
        return tuple(c for c in CONDITIONS if any(split(name)[1] == c for name in self.passes))

    @property
    def latents(self) -> tuple[str, ...]:
        """Every latent that is needed, the clean one always."""
        return tuple(n for n in (CLEAN, *NAMES) if n == CLEAN or any(e.latent == n for e in self.evaluations))

    @property
    def nfe(self) -> int:
        """Network calls per item: distinct evaluations and the chains' own."""
        return len(self.evaluations) + sum(PROBES[split(name)[0]].forward for name in self.passes)

    @property
    def separate_nfe(self) -> int:
        """Network calls per item if every pass ran on its own."""
        return sum(nfe(name) for name in self.passes)


def plan(passes: Iterable[str]) -> Plan:
    """Collect what a set of passes needs; equal sets give equal plans."""
    names = tuple(sorted(set(passes)))
    wanted = {Evaluation(split(name)[1], *call) for name in names for call in PROBES[split(name)[0]].calls}
    return Plan(names, tuple(sorted(wanted)))


def possible(conditions: Iterable[str], *, tail: bool = True) -> frozenset[str]:
    """Return the passes that a model can run, given what it can be told (``ModelInfo.conditions``)."""
    can = _streams(conditions)
    found = {f"grid/{c}" for c in can}
    for probe, rules in PROBES.items():
        streams = SOUND if probe in COSTLY else STREAMS
        if tail or not rules.tail:
            found |= {f"{probe}/{c}" for c in streams if c in can}
    return frozenset(found)


def standard(conditions: Iterable[str]) -> frozenset[str]:
    """Return the cheap passes that run when nothing is asked for by name (``attacks="all"``)."""
    can = _streams(conditions)
    return frozenset(f"{probe}/{c}" for probe, streams in STANDARD.items() for c in streams if c in can)


def _streams(conditions: Iterable[str]) -> set[str]:
    """Return the plan's conditions behind the model's."""
    offered = {"text": ("conditional", *REDUCED), "null": ("null",), "audio": ("audio",)}
    return {c for name in conditions for c in offered[name]}
