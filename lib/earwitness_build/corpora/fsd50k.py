"""FSD50K: ground truth and clip information; sounds of Freesound with their uploaders, titles and licences."""

from __future__ import annotations

from typing import Any

import pandas as pd

from earwitness.errors import ManifestError
from earwitness_build.corpora.official import Official
from earwitness_build.corpora.registry import builder

KEYS = ("title", "description", "license", "uploader")
EXPECTED = {"dev.csv": 40_966, "eval.csv": 10_231}


def clips(official: Official) -> pd.DataFrame:
    """Return one row per clip of FSD50K: number, part (train, validation or eval), and what its uploader says of it."""
    found = []
    for part in ("dev", "eval"):
        columns = ("fname", "labels", "split") if part == "dev" else ("fname", "labels")
        rows = official.table(f"{part}.csv", columns, key="fname")
        told = official.json(f"{part}_clips_info_FSD50K.json")
        facts = [_facts(told, name, part) for name in rows["fname"]]
        split = rows["split"].replace("val", "validation") if part == "dev" else "eval"
        found.append(rows.assign(split=split, **{key: [fact[key] for fact in facts] for key in KEYS}))
    return pd.concat(found, ignore_index=True)


def _facts(told: Any, name: str, part: str) -> dict[str, str]:
    """Return what the clip information says of one clip."""
    where = f"{part}_clips_info_FSD50K.json"
    if not isinstance(told, dict) or not isinstance(told.get(name), dict):
        raise ManifestError(f"{where}: expected an entry for clip {name} of {part}.csv, found none; fetch both again")
    for key in KEYS:
        if key not in told[name]:
            raise ManifestError(f"{where}: clip {name} has no {key!r}, only {', '.join(told[name])}; another version?")
    return {key: str(told[name][key] or "") for key in KEYS}


@builder("fsd50k", sides=(("train", "validation"), "eval"), alike=("length", "words"), expected=EXPECTED)
def fsd50k(official: Official) -> pd.DataFrame:
    """Return one row per clip; the title stands for a caption."""
    rows = clips(official)
    return pd.DataFrame(
        {
            "track_id": rows["fname"],
            "split": rows["split"],
            "audio": [(name,) for name in rows["fname"]],
            "artist": rows["uploader"],
            "caption": rows["title"],
            "licence": rows["license"],
            "source": "https://freesound.org/s/" + rows["fname"],
        }
    )
