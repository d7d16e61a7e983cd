"""What produced a page: code, lock, weights, manifests, seeds, machine, time.

``stamp`` gathers it, ``book.html.footer`` shows it at the foot of a page, ``statuses`` lists it for all pages. Only the
date, the duration and the share of stored signals differ between two runs of the same thing on the same machine. The
book page *How to read a page* explains each line.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from earwitness.types import ModelInfo
from earwitness.util import STAMP, code_state, hash_of, machine, results_dir, versions, write_whole


def stamp(
    experiment: str,
    *,
    models: Iterable[ModelInfo] = (),
    manifests: Iterable[str | Path] = (),
    seeds: Mapping[str, int] | None = None,
    seconds: float | None = None,
) -> dict[str, Any]:
    """Gather what produced a result.

    Parameters
    ----------
    experiment : str
        Id of the page.
    models : iterable of ModelInfo
        Models scored; their weights are named by hash.
    manifests : iterable of str or Path
        Manifests read, relative to the project.
    seeds : mapping, optional
        Name -> seed.
    seconds : float, optional
        How long it took.

    Returns
    -------
    dict
        Plain types, ready for ``json.dumps``. ``stored`` is the share of tracks whose signals were stored before. The
        page runner has it kept as ``results/pages/<id>.stamp.json``, from which ``statuses`` makes the status page.
    """
    distinct = {info.name: info for info in models}
    stamped = {
        "experiment": experiment,
        "code": code_state(),
        "lock": hash_of("requirements/base.lock"),
        "models": {name: info.revision[:16] for name, info in distinct.items()},
        "manifests": {Path(path).name: hash_of(path) for path in manifests},
        "seeds": dict(seeds or {}),
        "device": ", ".join(sorted({info.device for info in distinct.values()})) or "cpu",
        "machine": machine(),
        "versions": versions(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "seconds": None if seconds is None else round(seconds, 1),
        "stored": _stored_share(),
    }
    kept = os.environ.get(STAMP)
    if kept:
        write_whole(Path(kept), json.dumps(stamped, indent=2) + "\n")
    return stamped


def _stored_share() -> str:
    """Say what share of the tracks that this process asked for was stored before; empty if it asked for none."""
    engine = sys.modules.get("earwitness.signals.extraction")
    asked = engine.USE["asked"] if engine else 0
    return f"{1 - engine.USE['scored'] / asked:.0%}" if engine and asked else ""


def statuses(pages: Iterable[Any]) -> pd.DataFrame:
    """Return one row per page of the registry: how its last run ended and what it was made from.

    Parameters
    ----------
    pages : iterable of Page
        As ``load_registry().pages`` lists them.

    Returns
    -------
    DataFrame
        ``page, state, commit, lock, manifests, weights, seeds, device, seconds, stored, date``; empty where unknown.
    """
    rows = []
    for page in pages:
        held = [_read(results_dir() / "pages" / f"{page.id}.{kind}.json") for kind in ("status", "stamp")]
        status, stamped = held
        rows.append(
            {
                "page": page.id,
                "state": status.get("state", "not run"),
                "commit": stamped.get("code", ""),
                "lock": stamped.get("lock", ""),
                "manifests": _listed(stamped.get("manifests", {})),
                "weights": _listed(stamped.get("models", {})),
                "seeds": _listed(stamped.get("seeds", {})),
                "device": stamped.get("device", ""),
                "seconds": status.get("seconds"),
                "stored": stamped.get("stored", ""),
                "date": stamped.get("date", ""),
            }
        )
    return pd.DataFrame(rows)


def _read(path: Path) -> dict[str, Any]:
    """Return a JSON object, or nothing where there is none."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def _listed(items: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in items.items())
