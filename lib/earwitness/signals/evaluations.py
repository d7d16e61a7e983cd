"""Which network evaluations a set of attacks needs, each distinct one once.

An *evaluation* is one call of the network on one item: condition, latent, timestep, noise. A *probe* is what an attack
reads: some evaluations, and perhaps an adaptive chain of further ones that only exist once the first are known. Probes
share evaluations; chains cannot be shared. A *pass* is a probe under a condition, written ``grid/conditional``; for
token models it is a stream, or one of the further passes of ``token_costly``.

``ATTACKS`` is the table from attack to passes: scoring reads it, so no signal depends on the code of an attack. Ids
read ``<name>[-<option>]/<stream>[/q<codebook>]``, for example ``min_k-0.2/contrast`` or ``loss/null/q0``; for blind
attacks the feature stands where the stream would.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property, partial
from itertools import groupby
from math import inf
from typing import Any

from earwitness.errors import InputError, nearest
from earwitness.signals import blind, symbolic, token, token_costly
from earwitness.signals.perturbations import NAMES
from earwitness.types import BLIND_PREFIX, DEFAULT_FEATURES, PAPER_FEATURES, ModelInfo

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
class EvaluationPlan:
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


def plan_evaluations(passes: Iterable[str]) -> EvaluationPlan:
    """Collect what a set of passes needs; equal sets give equal plans."""
    names = tuple(sorted(set(passes)))
    wanted = {Evaluation(split(name)[1], *call) for name in names for call in PROBES[split(name)[0]].calls}
    return EvaluationPlan(names, tuple(sorted(wanted)))


def grouped(evaluations: Iterable[Evaluation]) -> list[list[Evaluation]]:
    """Return evaluations that the same probes need, under one condition, together.

    A network's last digits depend on how many rows a call has. Such a group is needed whole or not at all, so the
    value of a pass does not depend on which other passes are run.
    """

    def needed_by(e: Evaluation) -> tuple[str, list[str]]:
        return e.condition, [name for name, probe in PROBES.items() if (e.latent, e.t, e.repeat) in probe.calls]

    return [list(group) for _, group in groupby(sorted(evaluations, key=needed_by), key=needed_by)]


def without_caption(passes: Iterable[str]) -> frozenset[str]:
    """Return what is run of some passes where there is no caption: every text is then the null condition."""
    probes = [(name, *name.partition("/")[::2]) for name in passes]
    return frozenset(f"{probe}/null" if condition not in ("", "audio") else name for name, probe, condition in probes)


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


TOKEN_STREAMS = (*token.STREAMS, *symbolic.HALF_PASSES)
STANDARD_PASSES = ("blind", "conditional", "null")
DEFAULT_CODEBOOKS = 4  # MusicGen, AudioGen and MAGNeT in mono
# Every pass with its network calls per segment. Attacks on one stream share its pass; the contrast needs two.
ALL_PASSES = {"blind": 0, "blind_notes": 0, "conditional": 1, "null": 1, **token_costly.EXTRA_PASSES, **PASSES}


@dataclass(frozen=True)
class Needs:
    """What an attack reads, before its variants, streams and codebooks are spelled out.

    Attributes
    ----------
    name, family : str
        Family is ``"token"``, ``"diffusion"`` or ``"blind"``: which kind of signals the attack takes.
    passes : tuple of str
        Passes it needs beyond the stream's own, keys of ``ALL_PASSES``. For diffusion: the probes it reads on its
        stream, and on other streams if spelled out (``grid/conditional``).
    streams : tuple of str
        Streams (or blind features) that it is defined on.
    variants : tuple of mappings
        Option sets that get their own ids.
    context : tuple of str
        Keyword arguments that the caller of ``attacks.score`` must supply.
    per_codebook : bool
        Whether it is also defined on a single codebook.

    Raises
    ------
    InputError
        A pass that nothing produces.
    """

    name: str
    family: str
    passes: tuple[str, ...] = ()
    streams: tuple[str, ...] = TOKEN_STREAMS
    variants: tuple[Mapping[str, Any], ...] = ({},)
    context: tuple[str, ...] = ()
    per_codebook: bool = True

    def __post_init__(self) -> None:
        unknown = [p for p in self.passes if p not in ALL_PASSES and p not in PROBES]
        if unknown:
            raise InputError(
                f"attack {self.name!r} asks for the unknown pass {unknown[0]!r}{nearest(unknown[0], ALL_PASSES)}"
            )

    def specs(self, codebooks: int) -> list[AttackSpec]:
        """Spell out every id, pooled ones first, for a model with so many codebooks."""
        books = [None, *range(codebooks if self.per_codebook else 0)]
        return [AttackSpec(self, s, q, options) for q in books for options in self.variants for s in self.streams]


@dataclass(frozen=True)
class AttackSpec:
    """One runnable attack: a registered one with its stream, codebook and options fixed."""

    attack: Needs
    stream: str
    codebook: int | None
    options: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def label(self) -> str:
        """Name and option values, without the stream: ``min_k-0.2``."""
        return "-".join([self.attack.name, *(f"{v:g}" for v in self.options.values())])

    @cached_property
    def id(self) -> str:
        """The ``attack`` column of score tables."""
        return f"{self.label}/{self.stream}" + ("" if self.codebook is None else f"/q{self.codebook}")

    @property
    def passes(self) -> frozenset[str]:
        """Names of everything that must have been run for it."""
        if self.attack.family == "blind":
            return frozenset({"blind_notes" if self.stream in symbolic.FEATURES else "blind"})
        if self.attack.family == "diffusion":
            return frozenset(p if "/" in p else f"{p}/{self.stream}" for p in self.attack.passes)
        own = {"contrast": ("conditional", "null")} | dict.fromkeys(symbolic.WHOLE, (symbolic.DECODER_ALONE,))
        return frozenset((*own.get(self.stream, (self.stream,)), *self.attack.passes))


def _on_tokens(name: str, *variants: Mapping[str, Any], **more: Any) -> Needs:
    """Return the needs of an attack on every stream of a token model: its own passes suffice."""
    return Needs(name, "token", variants=variants or ({},), **more)


def _beside(name: str, *passes: str, **more: Any) -> Needs:
    """Return the needs of an attack that compares the captioned stream with something further."""
    return Needs(name, "token", passes, ("conditional",), **more)


def _on_noise(name: str, *passes: str, streams: tuple[str, ...] = STREAMS, variants: Any = ({},)) -> Needs:
    """Return the needs of an attack on a diffusion model."""
    return Needs(name, "diffusion", passes, streams, tuple(variants), per_codebook=False)


_TAILS = tuple({"k": k} for k in (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6))
_TIMES = tuple({"t": t} for t in GRID)
_POWERS = ({"p": 5}, {"p": 4})  # CDI's 5-norm; the official code's sum of fourth powers
_SIMA = tuple({"t": t, "p": p} for t in ORIGIN for p in (2, 4))
_TEXT = ("conditional",)

# Attack -> what it needs. Score tables and the catalogue list attacks in this order.
ATTACKS: dict[str, Needs] = {
    needs.name: needs
    for needs in (
        Needs("blind", "blind", streams=blind.FEATURES + symbolic.FEATURES, per_codebook=False),
        _on_tokens("loss"),
        _on_tokens("min_k", *_TAILS),
        _on_tokens("min_k++", *_TAILS),
        _on_tokens("min_k++_var", *_TAILS),
        _on_tokens("zlib"),
        _on_tokens("hinge"),
        _on_tokens("log_rank"),
        _on_tokens("surp", {"entropy": 0.25}, {"entropy": 0.5}, {"entropy": 0.75}),
        _on_tokens("dc_pdd", {"clip": 0.01}, {"clip": 1.0}, context=("frequencies",)),
        _on_tokens("cfg_loglik", streams=("contrast",)),
        _on_tokens("cfg_probability", streams=("contrast",)),
        _on_tokens("sdm"),
        _on_tokens("camia_below"),
        _on_tokens("camia_below_z"),
        _on_tokens("camia_running"),
        _on_tokens("camia_running_z"),
        _on_tokens("camia_slope"),
        _on_tokens("camia_previous"),
        _on_tokens("camia_halves"),
        _on_tokens("camia_novelty"),
        _on_tokens("camia_confident", {"nats": 1.0}, {"nats": 2.0}, {"nats": 3.0}),
        _on_tokens("camia_diversity"),
        _on_tokens("camia_lz", {"levels": 3}),
        _beside("reference", "reference", per_codebook=False),
        _beside("reference_ratio", "reference", per_codebook=False),
        _beside("neighbourhood", "neighbours"),
        _beside("transposition", "transposition"),
        _beside("dynamics", "dynamics"),
        _beside("tempo", "tempo"),
        _beside("token_neighbourhood", "token_neighbours"),
        _beside("recall", "prefix_nonmember"),
        _beside("con_recall", "prefix_nonmember", "prefix_member", variants=({"gamma": 1.0},)),
        _beside("gradient_norm", "gradient", variants=({"p": inf}, {"p": 2.0}), per_codebook=False),
        _on_noise("denoising_loss", "repeats"),
        _on_noise("multiple_loss", "grid", variants=_TIMES),
        _on_noise("secmi", "secmi"),
        _on_noise("pia", "pia", variants=_POWERS),
        _on_noise("pian", "pia", variants=_POWERS),
        _on_noise("pian_cdi", "pia", variants=_POWERS),
        _on_noise("sima", "origin", variants=_SIMA),
        _on_noise("gradient_mask", "gradient_mask", streams=SOUND, variants=_TIMES),
        _on_noise("noise_optimisation", "noise_optimisation", streams=SOUND),
        _on_noise("noise_move", "noise_optimisation", streams=SOUND),
        _on_noise("pfami", "pfami", streams=SOUND),
        _on_noise("pfami_slower", "pfami", streams=SOUND),
        _on_noise("pfami_tilt", "pfami", streams=SOUND),
        _on_noise("clid", "grid", "grid/conditional", streams=("null", *REDUCED)),
        _on_noise("clid_audio", "grid", "grid/audio", streams=("null", "conditional")),
        _on_noise("rediffuse", "rediffuse", streams=_TEXT),
        _on_noise("adversarial_budget", "adversarial", streams=_TEXT),
        _on_noise("gradient_norm_gsa", "gradient_norms", streams=_TEXT),
    )
}


def resolve(
    spec: str | AttackSpec | Iterable[str | AttackSpec],
    *,
    codebooks: int = DEFAULT_CODEBOOKS,
    passes: Iterable[str] = STANDARD_PASSES,
    context: Iterable[str] = (),
    kind: str = "token",
) -> list[AttackSpec]:
    """Turn names into runnable attacks.

    Parameters
    ----------
    spec : str, AttackSpec or iterable of them
        ``"all"``; a name (``"min_k"``), a label (``"min_k-0.2"``), an id (``"min_k-0.2/null/q1"``) or a glob
        (``"min_k*/contrast"``); ``"paper"``: ``types.PAPER_FEATURES`` of the model's kind. ``"all"``, names and labels
        mean the pooled scores; a glob reaches single codebooks only if it spells out ``/q`` (``"loss/*/q*"``).
    codebooks : int
        How many codebooks the model has.
    passes, context : iterable of str
        What is at hand: ``"all"`` and globs take only the attacks that these suffice for.
    kind : str
        The model's (``ModelInfo.kind``); only ``"paper"`` depends on it.

    Returns
    -------
    list of AttackSpec
        Without repeats, in the order asked for.

    Raises
    ------
    InputError
        A name that fits no attack.
    """
    if isinstance(spec, (str, AttackSpec)):
        spec = [spec]
    paper = [name for names in PAPER_FEATURES[kind].values() for name in names]
    spec = [part for wanted in spec for part in (paper if wanted == "paper" else [wanted])]
    known = [s for needs in ATTACKS.values() for s in needs.specs(codebooks)]
    have, given = {*passes}, {*context}

    def at_hand(s: AttackSpec) -> bool:
        return s.passes <= have and given.issuperset(s.attack.context)

    found: dict[str, AttackSpec] = {}
    for wanted in spec:
        if isinstance(wanted, AttackSpec):
            matches = [wanted]
        elif wanted == "all":
            matches = [s for s in known if s.codebook is None and at_hand(s)]
        else:
            matches = [s for s in (*known, *_on_whole_windows()) if _matches(s, wanted)]
            if "/" not in wanted or any(c in wanted for c in "*?["):  # names and globs: what is at hand
                matches = [s for s in matches if at_hand(s)] or matches
            if not matches:
                ids = {i for s in known for i in (s.id, s.label, s.attack.name)}
                raise InputError(
                    f"no attack is called {wanted!r}{nearest(wanted, ids)}; "
                    f"expected 'all', 'paper', a glob, or one of {', '.join(ATTACKS)}"
                )
        found |= {s.id: s for s in matches}
    return list(found.values())


def _on_whole_windows() -> list[AttackSpec]:
    """Return the paper's attacks on the streams of a score in which every token counts."""
    labels = {name.partition("/")[0] for names in PAPER_FEATURES["symbolic"].values() for name in names}
    pooled = [s for needs in ATTACKS.values() for s in needs.specs(0) if s.stream == "contrast" and s.label in labels]
    return [replace(s, stream=stream) for stream in symbolic.WHOLE for s in pooled]


def _matches(spec: AttackSpec, wanted: str) -> bool:
    """Say whether a name, label, id or glob means this attack."""
    if wanted == spec.id:
        return True
    if spec.codebook is not None and "/q" not in wanted:
        return False
    return wanted in (spec.label, spec.attack.name) or (
        any(c in wanted for c in "*?[") and fnmatchcase(spec.id, wanted)
    )


def cost(specs: Iterable[AttackSpec]) -> dict[str, int]:
    """Return the passes that a set of attacks needs, with forward passes per segment (shared ones counted once)."""
    needed = {p for s in specs for p in s.passes}
    return {name: nfe for name, nfe in ALL_PASSES.items() if name in needed}


def audit_attacks(kind: str) -> list[str]:
    """Return everything that an audit of a kind of model scores: its frozen list, and every blind feature beside it."""
    return [*DEFAULT_FEATURES[kind], f"{BLIND_PREFIX}*"]


def specs_asked(attacks: str | Sequence[str], info: ModelInfo) -> list[AttackSpec]:
    """Return the attacks that a name, a pattern or a list of them means for this model.

    For a diffusion model ``"all"`` means those that the cheap passes suffice for, a pattern all but the tail.
    ``"audit"`` means all that an audit scores (``audit_attacks``).
    """
    if attacks == "audit":
        attacks = audit_attacks(info.kind)
    if info.scheme is not None:
        at_hand = {"blind_notes", "conditional"}
        return resolve(attacks, codebooks=len(info.scheme.groups), passes=at_hand, kind=info.kind)
    if info.family == "token":
        return resolve(attacks)
    specs = []
    for wanted in [attacks] if isinstance(attacks, str) else attacks:
        pattern = any(c in wanted for c in "*?[")
        offered = standard if wanted == "all" else partial(possible, tail=not pattern)
        specs += resolve(wanted, passes={"blind", *offered(info.conditions)}, kind=info.kind)
    return specs


def passes_asked(attacks: str | Sequence[str], info: ModelInfo) -> tuple[str, ...]:
    """Return the passes to run: for a token model those beyond the two standard ones, for diffusion all of them."""
    needed = cost(specs_asked(attacks, info))
    if info.family == "token":
        if info.scheme is not None and "null" in needed:  # of which the null stream and the contrast are made
            needed[symbolic.DECODER_ALONE] = ALL_PASSES[symbolic.DECODER_ALONE]
        asked = tuple(name for name in token_costly.EXTRA_PASSES if name in needed)
        token_costly.check(asked, info)
        return asked
    asked, can = tuple(name for name in needed if name in PASSES), possible(info.conditions)
    for name in asked:
        if name not in can:
            raise InputError(f"{info.name} cannot run {name!r}: it can be conditioned on {', '.join(info.conditions)}")
    if not asked:
        raise InputError(f"{info.name} is a diffusion model and none of the attacks asked for is one on diffusion")
    return asked
