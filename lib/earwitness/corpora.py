"""The corpora there are: every manifest under ``data_manifests/`` with what its card says.

Book page: *Manifest catalogue*.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from earwitness.builders import builders
from earwitness.errors import ManifestError
from earwitness.manifest import file_hash, read_card
from earwitness.paths import project_root

COLUMNS = {
    "manifests": ["manifest", "title", "tracks", "artists", "licence", "membership", "control", "biases", "sha256"],
    "splits": ["manifest", "split", "tracks", "meaning"],
    "targets": ["manifest", "model", "role", "splits", "tracks"],
    "builders": ["corpus", "title", "official_files", "licence", "membership"],
    "claims": ["corpus", "model", "members", "nonmembers", "source"],
}


def catalogue(folder: Path | None = None) -> dict[str, pd.DataFrame]:
    """List the manifests of a folder and below, in the order of their names.

    Returns
    -------
    dict of pandas.DataFrame
        ``manifests``: a row each, with path below ``folder``, counts (``artists`` is 0 where no column names them), how
        membership is known, which models saw neither side, known biases and SHA-256. ``splits``: what each split holds.
        ``targets``: a row for each model and role, with the splits that have it. ``builders``: the corpora that can be
        built, and ``claims``: whose members their splits are, and who says so.

    Raises
    ------
    ManifestError
        A manifest without a card, or with one that cannot be read.
    """
    folder = folder or project_root() / "data_manifests"
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in COLUMNS}
    for path in sorted(folder.rglob("*.csv")):
        card = read_card(path)
        if card is None:
            raise ManifestError(f"{path.name}: expected a card beside it, found none; write {path.stem}.card.yml")
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        name = path.relative_to(folder).as_posix()
        held = table["split"].value_counts() if "split" in table else pd.Series(dtype=int)
        rows["manifests"].append(
            {
                "manifest": name,
                "title": card.title,
                "tracks": len(table),
                "artists": table["artist"].nunique() if "artist" in table else 0,
                "licence": card.licence,
                "membership": " ".join(card.membership.split()),
                "control": " ".join(card.control.split()) or "none named",
                "biases": " ".join(card.known_biases) or "none named",
                "sha256": file_hash(path),
            }
        )
        rows["splits"] += [
            {"manifest": name, "split": split, "tracks": held.get(split, 0), "meaning": meaning}
            for split, meaning in card.splits.items()
        ]
        rows["targets"] += [
            {"manifest": name, "model": model, "role": role, "splits": ", ".join(splits), "tracks": held[splits].sum()}
            for model, roles in card.targets.items()
            for role, splits in roles.items()
        ]
    for name, builder in builders().items():
        card = builder.card
        rows["builders"].append(
            {
                "corpus": name,
                "title": card.title,
                "official_files": card.source,
                "licence": card.licence,
                "membership": card.membership,
            }
        )
        rows["claims"] += [
            {
                "corpus": name,
                "model": model,
                "members": ", ".join(roles.get("member", ())) or "none known",
                "nonmembers": ", ".join(roles.get("nonmember", ())),
                "source": card.sources[model],
            }
            for model, roles in card.targets.items()
        ]
    return {name: pd.DataFrame(found, columns=COLUMNS[name]) for name, found in rows.items()}
