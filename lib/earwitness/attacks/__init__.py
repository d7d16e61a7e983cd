"""Attacks: short pure functions on stored signals, a registry that knows them, and ``score``, which runs them.

May import ``signals``, and ``errors``, ``util`` and ``types``; an attack reads signals and nothing else: no model, no
file.

In order: ``registry`` (the decorator and the catalogue), ``token``, ``camia`` and ``token_costly``, ``diffusion``,
``blind``. What an attack needs stands in ``signals.evaluations``.

Names that matter: ``score`` (on the public face), ``attack`` (the decorator), ``catalogue``, ``audit_attacks``.

The book pages *Methods: token attacks* and *Attack catalogue* explain each one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from earwitness.attacks import blind, camia, diffusion, token, token_costly  # noqa: F401 (they fill the registry)
from earwitness.attacks.registry import REGISTRY, Attack, attack, bind, catalogue
from earwitness.attacks.token import token_frequencies
from earwitness.errors import InputError, nearest
from earwitness.signals import symbolic
from earwitness.signals.evaluations import DEFAULT_CODEBOOKS, AttackSpec, Needs, audit_attacks, cost, resolve
from earwitness.types import WINDOW

__all__ = [
    "REGISTRY",
    "Attack",
    "AttackSpec",
    "Needs",
    "attack",
    "audit_attacks",
    "bind",
    "catalogue",
    "cost",
    "resolve",
    "score",
    "token_frequencies",
]

FAMILIES = ("token", "diffusion", "blind")
MODELLED = ("token", "diffusion")  # families whose signals come from a model, by passes
ROW = ("track_id", "segment_id", "artist", "work", "role")


def score(signals: Any, attacks: str | AttackSpec | Iterable[str | AttackSpec] = "all", **context: Any) -> pd.DataFrame:
    """Run attacks over stored signals.

    Parameters
    ----------
    signals : Signals
        What ``collect`` returns; anything whose ``items(family)`` yields (row, signal) pairs.
    attacks : str or iterable
        See ``resolve``. ``"all"`` means every pooled attack that the stored passes and ``context`` suffice for.
    **context
        What single attacks need besides the signals, for example ``frequencies`` for ``dc_pdd``.

    Returns
    -------
    DataFrame
        One row per segment and attack: ``track_id, segment_id, artist, work, role, attack, score`` (higher: more
        member-like; NaN: the attack cannot say); for a symbolic model also ``window``, its number within the piece.

    Raises
    ------
    InputError
        An unknown attack, or one whose context or signals are missing.
    """
    known = sorted({name for registered in REGISTRY.values() for name in registered.context})
    for name in context:
        if name not in known:
            raise InputError(f"no attack takes {name!r}{nearest(name, known)}; expected {', '.join(known)}")
    heads: dict[str, tuple[Any, Iterator[Any]]] = {}
    for family in FAMILIES:
        items = iter(signals.items(family))
        first = next(items, None)
        if first is not None:
            heads[family] = (first[1], chain([first], items))
    sample = next((heads[family][0] for family in MODELLED if family in heads), None)
    specs = resolve(
        attacks,
        codebooks=len(sample.codes) if "token" in heads and sample else DEFAULT_CODEBOOKS,
        passes={p for signal, _ in heads.values() for p in signal.passes},
        context=context,
        kind=_kind(heads),
    )
    for s in specs:
        missing = [name for name in s.attack.context if name not in context]
        if missing:
            raise InputError(f"{s.id} needs {missing[0]!r}: pass {missing[0]}=... to score, or leave the attack out")
        if s.attack.family not in heads:
            raise InputError(f"{s.id} reads {s.attack.family} signals and none are stored; collect them first")
        absent = sorted(s.passes.difference(sample.passes)) if s.attack.family != "blind" and sample else []
        if absent:
            raise InputError(f"{s.id} needs the pass {absent[0]!r}, which is not stored; name the attack to collect")
    grouped = {family: [s for s in specs if s.attack.family == family] for family in heads}
    frames = [_table(heads[family][1], chosen, context) for family, chosen in grouped.items() if chosen]
    if not frames:
        raise InputError("there is nothing to score: no signals are stored; run collect first")
    return pd.concat(frames, ignore_index=True)


def _kind(heads: dict[str, tuple[Any, Iterator[Any]]]) -> str:
    """Return the kind of model that signals are of, as far as it can be told from them."""
    if "diffusion" in heads:
        return "diffusion"
    return "symbolic" if "token" in heads and symbolic.DECODER_ALONE in heads["token"][0].passes else "token"


def _table(items: Iterable[Any], specs: list[AttackSpec], context: dict[str, Any]) -> pd.DataFrame:
    """Score every item with every attack of one family."""
    functions = [bind(s, context) for s in specs]
    rows: dict[str, list[Any]] = {}
    values = []
    for row, signal in items:
        for name in filter(row.__contains__, (*ROW, WINDOW)):
            rows.setdefault(name, []).append(row[name])
        values.append(np.array([function(signal) for function in functions], float))
    columns = {name: repeated(held, len(specs)) for name, held in rows.items()}
    ids = repeated([s.id for s in specs], len(values), whole=True)
    return pd.DataFrame({**columns, "attack": ids, "score": np.concatenate(values)})


def repeated(cells: Sequence[Any], times: int, *, whole: bool = False) -> pd.Series:
    """Return a column of cells, each ``times`` over, or the whole list again and again; a text is kept once.

    Text that is copied into every row costs a long table most of its memory: 27 kB a segment with all attacks, where
    this takes 11. A file (``stats.write_scores``) takes less than 2.
    """
    held = np.array(cells, dtype=object)
    many = np.tile(held, times) if whole else np.repeat(held, times)
    text = all(isinstance(cell, str) for cell in cells)
    return pd.Series(many, dtype=pd.StringDtype("python", na_value=np.nan) if text else np.asarray(cells).dtype)
