"""MAESTRO 3: ``maestro-v3.0.0.csv``; piano performances, the same pieces played by several people kept in one split."""

from __future__ import annotations

import pandas as pd

from earwitness_build.corpora.official import Official, relative
from earwitness_build.corpora.registry import builder

NAME = "maestro-v3.0.0.csv"
COLUMNS = ("canonical_composer", "canonical_title", "split", "year", "audio_filename", "duration")


@builder("maestro", sides=("train", ("validation", "test")), expected={NAME: 1_276})
def maestro(official: Official) -> pd.DataFrame:
    """Return one row per performance; the composer stands for the artist, the piece for the work."""
    rows = official.table(NAME, COLUMNS, key="audio_filename")
    relative(NAME, rows["audio_filename"])
    name = rows["audio_filename"].str.rpartition(".")[0]
    return pd.DataFrame(
        {
            "track_id": name,
            "split": rows["split"],
            "audio": [(path,) for path in name],
            "artist": rows["canonical_composer"],
            "work": rows["canonical_composer"] + ": " + rows["canonical_title"],
            "duration_s": official.numbers(NAME, rows["duration"], "duration"),
            "licence": "CC-BY-NC-SA-4.0",
            "released": rows["year"],
        }
    )
