"""AudioSet: the segment lists; ten-second clips of videos, with labels and no captions."""

from __future__ import annotations

import pandas as pd

from earwitness.errors import ManifestError
from earwitness_build.corpora.official import Official, clip_names
from earwitness_build.corpora.registry import builder

FILES = {
    "balanced_train_segments.csv": "balanced-train",
    "unbalanced_train_segments.csv": "unbalanced-train",
    "eval_segments.csv": "eval",
}
COLUMNS = ["video", "start", "end", "labels"]


@builder(
    "audioset",
    sides=(("balanced-train", "unbalanced-train"), "eval"),
    expected={
        "balanced_train_segments.csv": 22_160, "unbalanced_train_segments.csv": 2_041_789, "eval_segments.csv": 20_371,
    },
)  # fmt: skip
def audioset(official: Official) -> pd.DataFrame:
    """Return one row per segment of the lists that are there; lines that begin with ``#`` are remarks."""
    found = []
    for name, split in FILES.items():
        if split == "unbalanced-train" and not official.holds(name):
            continue
        rows = {}
        for line, cells in official.rows(name, skipinitialspace=True):
            if not cells[0].startswith("#"):
                if len(cells) != len(COLUMNS):
                    raise ManifestError(
                        f"{name}, line {line}: expected video, start, end and labels, found {len(cells)} cells; fetch "
                        "the official file again"
                    )
                rows[line] = cells
        if rows and official.any_version and not rows[top := next(iter(rows))][1][:1].isdigit():
            official.notes.append(f"{name}, line {top}: taken for a heading without #, and left out")
            del rows[top]
        table = pd.DataFrame.from_dict(rows, orient="index", columns=COLUMNS, dtype=str)
        official.count(name, len(table))
        official.unique(name, table["video"], "video")
        edges = [official.numbers(name, table[edge], edge) for edge in ("start", "end")]
        start = table["start"].str.partition(".")[0]
        first = zip("Y" + table["video"], table["video"], table["video"] + "_" + start, strict=True)
        spans = [clip_names(*clip) for clip in zip(table["video"], *edges, strict=True)]
        names = [(*own, *more) for own, more in zip(first, spans, strict=True)]
        found.append(
            pd.DataFrame(
                {
                    "track_id": table["video"],
                    "split": split,
                    "audio": names,
                    "source": "https://www.youtube.com/watch?v=" + table["video"] + "&t=" + start + "s",
                }
            )
        )
    return pd.concat(found)
