"""The pocket reference of an audit's check of shifts, and what is drawn from it at common sizes.

``python -m earwitness_build.audit_reference KIND FILE`` writes the reference of a kind of model,
``python -m earwitness_build.audit_reference shifts FILE`` all draws: ten minutes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import earwitness as ew
from earwitness.audit import checks
from earwitness.audit.scoring import SHIFT_AUDITS
from earwitness.signals.evaluations import audit_attacks
from earwitness.stats.permutation_test import unusable_features
from earwitness.stats.units import unit_table
from earwitness.stats.verdict import ALPHA
from earwitness.types import BLIND_PREFIX
from earwitness.util import project_root

REFERENCES = {  # kind of model -> the second twin of that kind, and the manifest of what it did not hear
    "token": ("pocket/musicgen-b", "pocket.csv"),
    "diffusion": ("pocket/audioldm-b", "pocket.csv"),
    "symbolic": ("pocket/figaro-b", "pocket-midi.csv"),
}


def write_reference(kind: str, path: Path) -> None:
    """Write the pocket reference: non-members of the second twin as unit means of the default and blind features."""
    model, manifest = REFERENCES[kind]
    roles = {"suspect": ["never-1"], "held_out": ["never-2", "neither"]}
    tracks = ew.read_manifest(project_root() / "data_manifests" / manifest, roles=roles)
    units = unit_table(ew.score(ew.collect(model, tracks, "audit"), audit_attacks(kind)))
    unusable = unusable_features(units.means)
    table = pd.DataFrame(
        {
            f"{'blind' if name.startswith(BLIND_PREFIX) else 'attack'}:{name}": units.means[:, j].astype(np.float32)
            for j, name in enumerate(units.attacks)
            if j not in unusable
        }
    )
    table.insert(0, "artist", units.artists)
    table.to_parquet(path, index=False, compression="zstd")


SIZES = (10, 12, 15, 20, 25, 30, 40, 50, 60, 80, checks.MAX_UNITS)  # recordings on each side


def common() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and the settings of every draw that is shipped."""
    for kind, within, size in product(REFERENCES, (False, True), SIZES):
        how: dict[str, Any] = {
            "kind": kind,
            "sizes": (size, size),
            "within": within,
            "alpha": ALPHA,
            "audits": SHIFT_AUDITS,
        }
        yield checks.name_of(**how), how


def write_shifts(path: Path) -> None:
    """Write the draws from the pocket reference at common sizes."""
    found = {name: checks.draw_pocket(**how).model_dump() for name, how in common()}
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1] == "shifts":
        write_shifts(Path(sys.argv[2]))
    else:
        write_reference(sys.argv[1], Path(sys.argv[2]))
