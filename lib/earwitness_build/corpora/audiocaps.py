"""AudioCaps: ``train.csv``, ``val.csv``, ``test.csv``; five captions per validation and test clip, one per other.

Two corpora of the same files: ``audiocaps``, a caption drawn by lot and both sides matched; ``audiocaps-paper`` as the
code of arXiv 2512.09654 takes it, clips that speak of speech left out, one processed caption a clip, nothing matched.
"""

from __future__ import annotations

import pandas as pd

from earwitness_build.corpora import captions
from earwitness_build.corpora.official import Official, clip_names
from earwitness_build.corpora.registry import builder

COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")
FILES = {"train.csv": "train", "val.csv": "validation", "test.csv": "test"}


PUBLISHED = {"train.csv": 49_838, "val.csv": 2_475, "test.csv": 4_875}
SECONDS = 10  # of a clip
SPEECH = ("speech", "speak")  # as substrings, as they stand


@builder("audiocaps-paper", expected=PUBLISHED)
def audiocaps_paper(official: Official) -> pd.DataFrame:
    """Return one row per clip: its last caption, where that does not speak of speech, processed as in the paper."""
    rows = audiocaps(official)
    clips = rows.drop_duplicates("track_id", keep="last")
    for split, part in rows.groupby("split", sort=False):
        if len(part) > part["track_id"].nunique():
            official.notes.append(f"{split}: {len(part)} captions are {part['track_id'].nunique()} clips, the units")
    spoken = clips["caption"].map(lambda text: any(word in text for word in SPEECH))
    official.notes.append(f"{int(spoken.sum())} of {len(clips)} clips were left out: their caption speaks of speech")
    kept = clips[~spoken]
    texts, official.captions, notes = captions.processed(kept["caption"].to_list())
    official.notes += notes
    return kept.assign(caption=texts)


@builder("audiocaps", sides=("train", "test"), expected=PUBLISHED)
def audiocaps(official: Official) -> pd.DataFrame:
    """Return one row per caption; a clip is known by its video and where in it it begins."""
    rows = pd.concat(
        [official.table(name, COLUMNS, key="audiocap_id").assign(split=split) for name, split in FILES.items()]
    )
    video, start = rows["youtube_id"], rows["start_time"]
    begins = official.numbers("train.csv", start, "start_time")
    spans = [clip_names(name, begin, begin + SECONDS) for name, begin in zip(video, begins, strict=True)]
    first = zip(video + "_" + start, "Y" + video, video, rows["audiocap_id"], strict=True)
    names = [(*own, *(name for name in more if name not in own)) for own, more in zip(first, spans, strict=True)]
    return pd.DataFrame(
        {
            "track_id": video + "_" + start,
            "split": rows["split"],
            "audio": _by_track(video + "_" + start, names),
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
