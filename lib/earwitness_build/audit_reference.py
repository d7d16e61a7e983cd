"""The pocket reference of an audit's check of shifts: ``python -m earwitness_build.audit_reference KIND FILE``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

import earwitness as ew
from earwitness.signals.evaluations import audit_attacks
from earwitness.stats.permutation_test import unusable_features
from earwitness.stats.units import unit_table
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


if __name__ == "__main__":
    write_reference(sys.argv[1], Path(sys.argv[2]))
