"""The registry of attacks: how one is declared, and what is known of it beside what it needs.

An attack is a short pure function ``fn(signals, *, stream, codebook=None, **options) -> float``. Higher always means
more member-like; NaN means that it cannot say. What it needs (passes, streams, variants) stands in
``signals.evaluations.ATTACKS``. The book page *Attack catalogue* is written from this registry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from inspect import getdoc
from typing import Any

import pandas as pd

from earwitness.errors import InputError, nearest
from earwitness.signals import symbolic
from earwitness.signals.evaluations import ATTACKS, AttackSpec, Needs, cost

Function = Callable[..., float]


@dataclass(frozen=True, kw_only=True)
class Attack(Needs):
    """A registered attack: what it needs, its function, and where it comes from.

    Attributes
    ----------
    function : callable
        The scoring function; its docstring explains it.
    formula, source : str
        The score as LaTeX (oriented: higher is more member-like) and where it was published.
    access : str
        ``"none"`` (no model), ``"grey"`` (log-probabilities) or ``"white"`` (gradients).
    sign : str
        Who says that higher is more member-like: ``"published"``, ``"ours"`` (a convention fixed beforehand, which
        may turn out wrong), or ``"none"`` (no direction is claimed).
    """

    function: Function
    formula: str
    source: str
    access: str
    sign: str

    @property
    def summary(self) -> str:
        """First line of the function's docstring."""
        return (getdoc(self.function) or "").partition("\n")[0]


REGISTRY: dict[str, Attack] = {}


def attack(
    name: str,
    *,
    formula: str,
    source: str,
    access: str = "grey",
    sign: str = "published",
    needs: Needs | None = None,
) -> Callable[[Function], Function]:
    """Register the decorated function as an attack.

    Parameters
    ----------
    name : str
        A key of ``signals.evaluations.ATTACKS``, where it stands what the attack needs.
    formula, source, access, sign : str
        ``Attack``'s attributes.
    needs : Needs, optional
        For an attack outside this library: what it needs, added to ``ATTACKS``.

    Raises
    ------
    InputError
        A name that is taken, or one of which nothing says what it needs.
    """
    if name in REGISTRY:
        raise InputError(f"attack {name!r} is registered already; give the new one its own name")
    if needs is not None and needs.name != name:
        raise InputError(f"attack {name!r} was given the needs of {needs.name!r}; give both one name")
    if needs is None and name not in ATTACKS:
        raise InputError(
            f"attack {name!r} is not in ATTACKS (signals/evaluations.py){nearest(name, ATTACKS)}; "
            "add what it needs there"
        )

    def register(function: Function) -> Function:
        if needs is not None:
            ATTACKS[name] = needs
        own = {field: getattr(ATTACKS[name], field) for field in Needs.__dataclass_fields__}
        REGISTRY[name] = Attack(**own, function=function, formula=formula, source=source, access=access, sign=sign)
        return function

    return register


def bind(spec: AttackSpec, context: Mapping[str, Any]) -> Function:
    """Return the attack as a function of one segment's signals, with everything else fixed."""
    wanted = {name: context[name] for name in spec.attack.context}
    book = {"codebook": spec.codebook} if spec.attack.per_codebook else {}
    run = partial(REGISTRY[spec.attack.name].function, stream=spec.stream, **book, **spec.options, **wanted)
    if spec.stream in symbolic.WHOLE:  # the contrast of another view of the same window
        return lambda signals: run(symbolic.whole(signals, spec.stream), stream="contrast")
    return run


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
        for a in (REGISTRY[name] for name in ATTACKS)
    ]
    return pd.DataFrame(rows)
