"""AudioCaps: ``train.csv``, ``val.csv``, ``test.csv``; five captions per validation and test clip, one per other."""

from __future__ import annotations

import pandas as pd

from earwitness_build.corpora.official import Official
from earwitness_build.corpora.registry import builder

COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")
FILES = {"train.csv": "train", "val.csv": "validation", "test.csv": "test"}


@builder(
    "audiocaps",
    sides=("train", "test"),
    expected={"train.csv": 49_838, "val.csv": 2_475, "test.csv": 4_875},
)
def audiocaps(official: Official) -> pd.DataFrame:
    """Return one row per caption; a clip is known by its video and where in it it begins."""
    rows = pd.concat(
        [official.table(name, COLUMNS, key="audiocap_id").assign(split=split) for name, split in FILES.items()]
    )
    video, start = rows["youtube_id"], rows["start_time"]
    names = zip(video + "_" + start, "Y" + video, video, rows["audiocap_id"], strict=True)
    return pd.DataFrame(
        {
            "track_id": video + "_" + start,
            "split": rows["split"],
            "audio": _by_track(video + "_" + start, list(names)),
            "caption": rows["caption"],
            "source": "https://www.youtube.com/watch?v=" + video + "&t=" + start + "s",
        }
    )


def _by_track(track: pd.Series, names: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Give all captions of a clip the same names: any of its captions' numbers may be the recording's."""
    held: dict[str, list[str]] = {}
    for name, given in zip(track, names, strict=True):
        held.setdefault(name, []).extend(n for n in given if n not in held.get(name, []))
    return [tuple(held[name]) for name in track]
