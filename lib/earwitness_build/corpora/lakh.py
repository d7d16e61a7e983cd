"""Lakh MIDI (lmd_full) with FIGARO's lists ``train.txt``, ``val.txt``, ``test.txt``: a ``<digit>/<md5>.mid`` a line."""

from __future__ import annotations

import re

import pandas as pd

from earwitness.errors import ManifestError
from earwitness.types import SCORES
from earwitness_build.corpora.official import Official
from earwitness_build.corpora.registry import builder

LISTS = {"train": "train.txt", "validation": "val.txt", "test": "test.txt"}
LINE = re.compile(r"([0-9a-f])/(\1[0-9a-f]{31})\.mid")  # a folder is the first digit of its files' names


@builder(
    "lakh", sides=("train", "test"), alike=("length",), suffixes=SCORES,
    expected={"train.txt": 151_777, "val.txt": 17_856, "test.txt": 8_928},
)  # fmt: skip
def lakh(official: Official) -> pd.DataFrame:
    """Return one row per listed file; its name is the MD5 of its bytes as they were collected."""
    parts = []
    for split, name in LISTS.items():
        lines = official.text(name).splitlines()
        names = pd.Series(lines, index=range(1, len(lines) + 1), dtype=str).str.strip()
        bad = ~names.map(lambda line: bool(LINE.fullmatch(line)))
        if bad.any():
            line = names.index[bad][0]
            raise ManifestError(
                f"{name}, line {line}: expected <digit>/<32 hexadecimal digits>.mid, found {names[line]!r}; take the "
                "list as it was published"
            )
        official.unique(name, names, "path")
        official.count(name, len(names))
        stems = names.str.removesuffix(".mid")
        parts.append(pd.DataFrame({"track_id": stems.str[2:], "split": split, "audio": [(stem,) for stem in stems]}))
    return pd.concat(parts, ignore_index=True).assign(licence="CC-BY-4.0")
