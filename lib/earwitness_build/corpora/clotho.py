"""Clotho 2.1: captions and metadata per split; five captions a recording."""

from __future__ import annotations

from pathlib import PurePosixPath

import pandas as pd

from earwitness_build.corpora.official import Official
from earwitness_build.corpora.registry import builder

SPLITS = ("development", "validation", "evaluation")
CAPTIONS = tuple(f"caption_{i}" for i in range(1, 6))
METADATA = "latin-1"  # as published, for uploaders' names; the captions are UTF-8
FACTS = ("file_name", "sound_link", "manufacturer", "license")


@builder(
    "clotho",
    sides=("development", "evaluation"),
    alike=("length", "words"),
    expected={
        f"clotho_captions_{split}.csv": n for split, n in zip(SPLITS, (3_839, 1_045, 1_045), strict=True)
    },
)  # fmt: skip
def clotho(official: Official) -> pd.DataFrame:
    """Return one row per caption; file names repeat across splits, so the split's folder is part of the name."""
    found = []
    for split in SPLITS:
        captions = official.table(f"clotho_captions_{split}.csv", ("file_name", *CAPTIONS), key="file_name")
        facts = official.table(f"clotho_metadata_{split}.csv", FACTS, key="file_name", encoding=METADATA)
        rows = captions.merge(facts, on="file_name", how="left").fillna("")
        rows = rows.melt([*FACTS], list(CAPTIONS), value_name="caption")
        stem = rows["file_name"].map(lambda name: PurePosixPath(name).stem)
        found.append(
            pd.DataFrame(
                {
                    "track_id": f"{split}/" + rows["file_name"],
                    "split": split,
                    "audio": [(f"{split}/{name}",) for name in stem],
                    "artist": rows["manufacturer"],
                    "caption": rows["caption"],
                    "licence": rows["license"],
                    "source": rows["sound_link"],
                }
            )
        )
    return pd.concat(found)
