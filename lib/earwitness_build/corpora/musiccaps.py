"""MusicCaps: ``musiccaps-public.csv``; ten seconds of music a row, from AudioSet's training or evaluation part."""

from __future__ import annotations

import pandas as pd

from earwitness.errors import ManifestError
from earwitness_build.corpora.official import Official
from earwitness_build.corpora.registry import builder

NAME = "musiccaps-public.csv"
COLUMNS = ("ytid", "start_s", "end_s", "caption", "author_id", "is_audioset_eval")


@builder("musiccaps", sides=("audioset-train", "audioset-eval"), expected={NAME: 5_521})
def musiccaps(official: Official) -> pd.DataFrame:
    """Return one row per clip."""
    rows = official.table(NAME, COLUMNS, key="ytid")
    part = rows["is_audioset_eval"].str.lower().map({"true": "audioset-eval", "false": "audioset-train"})
    if part.isna().any():
        line = part.index[part.isna()][0]
        raise ManifestError(
            f"{NAME}, line {line}: is_audioset_eval is {rows['is_audioset_eval'][line]!r}, expected True or False"
        )
    video, start, end = rows["ytid"], rows["start_s"], rows["end_s"]
    cut = video + "-[" + start + "-" + end + "]"  # as the usual download script names them
    return pd.DataFrame(
        {
            "track_id": video,
            "split": part,
            "audio": list(zip(video, "Y" + video, video + "_" + start, cut, strict=True)),
            "caption": rows["caption"],
            "source": "https://www.youtube.com/watch?v=" + video + "&t=" + start + "s",
        }
    )
