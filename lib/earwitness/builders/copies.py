"""Copies of one recording in a corpus: they get one ``work``, and what must not be compared goes to a split of its own.

Of copies within one split the first stays; of copies in several splits none does, because one of them may have trained
a model under the other's name. The same rule as in an audit. The book page *Copies* says how many are found.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from earwitness import dedup, sandbox
from earwitness.manifest import Track
from earwitness.prints import SPEC
from earwitness.symbolic.windows import FigaroScheme, SymbolicSpec

NOTES = SymbolicSpec(FigaroScheme())  # the words of a score are those of the file, whatever a model makes of it
COPIES = "copies"
MEANING = "copies of recordings: of those within one split all but the first, of those in several splits all"


def set_apart(
    rows: pd.DataFrame, root: Path, workers: int = 2, *, scores: bool = False
) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows with copies moved to the split ``copies``, and sentences that say how many there were.

    Parameters
    ----------
    rows : pandas.DataFrame
        One row per recording: ``track_id, path, split, work``.
    root : Path
        What the paths are relative to.
    workers : int
        Files decoded at a time, each in a process of its own.
    scores : bool
        The files are MIDI files: copies share notes, in any key and tempo, instead of sound.
    """
    tracks = [
        Track(name, root / path, split)
        for name, path, split in zip(rows["track_id"], rows["path"], rows["split"], strict=True)
    ]
    told = sandbox.inspect([track.path for track in tracks], NOTES if scores else SPEC, workers=workers)
    prints = {track.track_id: answer["words"] for track, answer in zip(tracks, told, strict=True) if "words" in answer}
    split, work = rows["split"].tolist(), rows["work"].tolist()
    within = between = 0
    for group in dedup.groups(tracks, dedup.duplicates(tracks, prints, scores=scores)):
        across = len({split[place] for place in group}) > 1
        for place in group:
            work[place] = work[group[0]] or f"copies of {tracks[group[0]].track_id}"
        for place in group if across else group[1:]:
            split[place] = COPIES
        within, between = within + (0 if across else len(group) - 1), between + (len(group) if across else 0)
    notes = []
    if within or between:
        notes.append(f"{within} copies within a split and {between} across splits were set apart (split {COPIES})")
    if len(prints) < len(tracks):
        notes.append(
            f"{len(tracks) - len(prints)} recordings could not be decoded and were not looked through for copies"
        )
    return rows.assign(split=split, work=work), notes
