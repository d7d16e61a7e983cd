"""The registry of attacks: how one is declared, found by name, priced and run over stored signals.

An attack is a short pure function ``fn(signals, *, stream, codebook=None, **options) -> float``. Higher always means
more member-like; NaN means that it cannot say. Its ids read ``<name>[-<option>]/<stream>[/q<codebook>]``, for example
``min_k-0.2/contrast`` or ``loss/null/q0``; for blind attacks the feature stands where the stream would.
The book page *Attack catalogue* is written from this registry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from inspect import getdoc
from typing import Any

import pandas as pd

from earwitness.errors import InputError, nearest
from earwitness.extractors import plan
from earwitness.extractors.notes import FEATURES as NOTE_FEATURES
from earwitness.extractors.notes import HALF_PASSES
from earwitness.extractors.passes import EXTRA_PASSES
from earwitness.extractors.token import STREAMS

Function = Callable[..., float]

# What is run per segment, in forward passes (NFE). Attacks on one stream share its pass; the contrast needs two.
PASSES = {"blind": 0, "blind_notes": 0, "conditional": 1, "null": 1, **EXTRA_PASSES, **plan.PASSES}
STANDARD_PASSES = ("blind", "conditional", "null")
DEFAULT_CODEBOOKS = 4  # MusicGen, AudioGen and MAGNeT in mono


@dataclass(frozen=True)
class Attack:
    """A registered attack, before its variants, streams and codebooks are spelled out.

    Attributes
    ----------
    name, family : str
        Family is ``"token"``, ``"diffusion"`` or ``"blind"``: which kind of signals the function takes.
    function : callable
        The scoring function; its docstring explains it.
    formula, source : str
        The score as LaTeX (oriented: higher is more member-like) and where it was published.
    access : str
        ``"none"`` (no model), ``"grey"`` (log-probabilities) or ``"white"`` (gradients).
    streams : tuple of str
        Streams (or blind features) that it is defined on.
    variants : tuple of mappings
        Option sets that get their own ids.
    passes : tuple of str
        Passes it needs beyond the stream's own, keys of ``PASSES``. For diffusion: the probes it reads on its stream,
        and on other streams if spelled out (``grid/conditional``).
    context : tuple of str
        Keyword arguments that the caller of ``score`` must supply.
    per_codebook : bool
        Whether it is also defined on a single codebook.
    sign : str
        Who says that higher is more member-like: ``"published"``, ``"ours"`` (a convention fixed beforehand, which
        may turn out wrong), or ``"none"`` (no direction is claimed).
    """

    name: str
    family: str
    function: Function
    formula: str
    source: str
    access: str
    streams: tuple[str, ...]
    variants: tuple[Mapping[str, Any], ...]
    passes: tuple[str, ...]
    context: tuple[str, ...]
    per_codebook: bool
    sign: str

    @property
    def summary(self) -> str:
        """First line of the function's docstring."""
        return (getdoc(self.function) or "").partition("\n")[0]

    def specs(self, codebooks: int) -> list[AttackSpec]:
        """Spell out every id, pooled ones first, for a model with so many codebooks."""
        books = [None, *range(codebooks if self.per_codebook else 0)]
        return [AttackSpec(self, s, q, options) for q in books for options in self.variants for s in self.streams]


@dataclass(frozen=True)
class AttackSpec:
    """One runnable attack: a registered one with its stream, codebook and options fixed."""

    attack: Attack
    stream: str
    codebook: int | None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Name and option values, without the stream: ``min_k-0.2``."""
        return "-".join([self.attack.name, *(f"{v:g}" for v in self.options.values())])

    @property
    def id(self) -> str:
        """The ``attack`` column of score tables."""
        return f"{self.label}/{self.stream}" + ("" if self.codebook is None else f"/q{self.codebook}")

    @property
    def passes(self) -> frozenset[str]:
        """Names of everything that must have been run for it."""
        if self.attack.family == "blind":
            return frozenset({"blind_notes" if self.stream in NOTE_FEATURES else "blind"})
        if self.attack.family == "diffusion":
            return frozenset(p if "/" in p else f"{p}/{self.stream}" for p in self.attack.passes)
        own = ("conditional", "null") if self.stream == "contrast" else (self.stream,)
        return frozenset((*own, *self.attack.passes))

    def bind(self, context: Mapping[str, Any]) -> Function:
        """Return the function of one segment's signals, with everything else fixed."""
        wanted = {name: context[name] for name in self.attack.context}
        book = {"codebook": self.codebook} if self.attack.per_codebook else {}
        return partial(self.attack.function, stream=self.stream, **book, **self.options, **wanted)


REGISTRY: dict[str, Attack] = {}


def attack(
    name: str,
    *,
    family: str,
    formula: str,
    source: str,
    access: str = "grey",
    streams: Sequence[str] = (*STREAMS, *HALF_PASSES),
    variants: Sequence[Mapping[str, Any]] = ({},),
    passes: Sequence[str] = (),
    context: Sequence[str] = (),
    per_codebook: bool = True,
    sign: str = "published",
) -> Callable[[Function], Function]:
    """Register the decorated function as an attack; the arguments are ``Attack``'s attributes.

    Raises
    ------
    InputError
        A name that is taken, or a pass that nothing produces.
    """
    if name in REGISTRY:
        raise InputError(f"attack {name!r} is registered already; give the new one its own name")
    unknown = [p for p in passes if p not in PASSES and p not in plan.PROBES]
    if unknown:
        raise InputError(f"attack {name!r} asks for the unknown pass {unknown[0]!r}{nearest(unknown[0], PASSES)}")

    def register(function: Function) -> Function:
        REGISTRY[name] = Attack(
            name,
            family,
            function,
            formula,
            source,
            access,
            tuple(streams),
            tuple(variants),
            tuple(passes),
            tuple(context),
            per_codebook,
            sign,
        )
        return function

    return register


def resolve(
    spec: str | AttackSpec | Iterable[str | AttackSpec],
    *,
    codebooks: int = DEFAULT_CODEBOOKS,
    passes: Iterable[str] = STANDARD_PASSES,
    context: Iterable[str] = (),
) -> list[AttackSpec]:
    """Turn names into runnable attacks.

    Parameters
    ----------
    spec : str, AttackSpec or iterable of them
        ``"all"``; a name (``"min_k"``), a label (``"min_k-0.2"``), an id (``"min_k-0.2/null/q1"``) or a glob
        (``"min_k*/contrast"``). ``"all"``, names and labels mean the pooled scores; a glob reaches single codebooks
        only if it spells out ``/q`` (``"loss/*/q*"``).
    codebooks : int
        How many codebooks the model has.
    passes, context : iterable of str
        What is at hand: ``"all"`` and globs take only the attacks that these suffice for.

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
    known = [s for registered in REGISTRY.values() for s in registered.specs(codebooks)]
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
            matches = [s for s in known if _matches(s, wanted)]
            if "/" not in wanted or any(c in wanted for c in "*?["):  # names and globs: what is at hand
                matches = [s for s in matches if at_hand(s)] or matches
            if not matches:
                ids = {i for s in known for i in (s.id, s.label, s.attack.name)}
                raise InputError(
                    f"no attack is called {wanted!r}{nearest(wanted, ids)}; "
                    f"expected 'all', a glob, or one of {', '.join(REGISTRY)}"
                )
        found |= {s.id: s for s in matches}
    return list(found.values())


def _matches(spec: AttackSpec, wanted: str) -> bool:
    """Say whether a name, label, id or glob means this attack."""
    if wanted == spec.id:
        return True
    if spec.codebook is not None and "/q" not in wanted:
        return False
    return wanted in (spec.label, spec.attack.name) or fnmatchcase(spec.id, wanted)


def cost(specs: Iterable[AttackSpec]) -> dict[str, int]:
    """Return the passes that a set of attacks needs, with forward passes per segment (shared ones counted once)."""
    needed = {p for s in specs for p in s.passes}
    return {name: nfe for name, nfe in PASSES.items() if name in needed}


def catalogue() -> pd.DataFrame:
    """Return one row per registered attack: what it is, what it costs, where it comes from."""
    rows = [
        {
            "attack": a.name,
            "family": a.family,
            "summary": a.summary,
            "formula": a.formula,
            "source": a.source,
            "sign": a.sign,
            "access": a.access,
            "passes": ", ".join(cost(a.specs(0)[:1])),
            "nfe": sum(cost(a.specs(0)[:1]).values()),
            "context": ", ".join(a.context),
            "ids": len(a.specs(0)),
            "function": f"{a.function.__module__}.{a.function.__name__}",
        }
        for a in REGISTRY.values()
    ]
    return pd.DataFrame(rows)
