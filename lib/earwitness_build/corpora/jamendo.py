"""MTG-Jamendo: the official split 0 (no artist in two parts), with metadata and licences."""

from __future__ import annotations

import csv
import re

import pandas as pd

from earwitness_build.corpora.official import Official, relative
from earwitness_build.corpora.registry import builder

FACTS, LICENCES = "raw.meta.tsv", "audio_licenses.txt"
PARTS = {part: f"split-0/autotagging-{part}.tsv" for part in ("train", "validation", "test")}
COLUMNS = ("TRACK_ID", "ARTIST_ID", "PATH", "DURATION", "TAGS")


SPLIT = "split-0"


@builder("mtg-jamendo", expected={SPLIT: 55_525})  # tracks in the three lists together, as the corpus's readme counts
def jamendo(official: Official) -> pd.DataFrame:
    """Return one row per track of the official split; tags stand for a caption."""
    found = []
    for part, name in PARTS.items():
        rows = official.table(
            name, COLUMNS, key="TRACK_ID", separator="\t", last_takes_rest=True, quoting=csv.QUOTE_NONE
        )
        relative(name, rows["PATH"])
        seconds = official.numbers(name, rows["DURATION"], "DURATION")
        found.append(rows.assign(split=part, seconds=seconds))
    rows = pd.concat(found, ignore_index=True)
    official.count(SPLIT, len(rows))
    facts = {cells[0]: cells for _, cells in official.rows(FACTS, "\t", quoting=csv.QUOTE_NONE)}
    ledger = official.text(LICENCES)
    licences = dict(re.findall(r"^(\d+/\d+\.mp3)\n.*\n.*(https?://creativecommons\.org/\S+)", ledger, flags=re.M))
    number = rows["PATH"].str.removesuffix(".mp3")
    return pd.DataFrame(
        {
            "track_id": rows["TRACK_ID"],
            "split": rows["split"],
            "audio": list(zip(number, number + ".low", strict=True)),
            "artist": rows["ARTIST_ID"],
            "caption": rows["TAGS"].map(lambda tags: ", ".join(re.findall(r"---(\S+)", tags))),
            "duration_s": rows["seconds"],
            "licence": rows["PATH"].map(licences).fillna(""),
            "source": rows["TRACK_ID"].map(lambda track: facts[track][-1] if track in facts else ""),
            "released": rows["TRACK_ID"].map(lambda track: facts[track][-2] if track in facts else ""),
        }
    )
