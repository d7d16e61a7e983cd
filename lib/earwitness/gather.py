"""What an audit is given: two folders or a manifest become tracks; nothing is opened yet.

The book page *Audit your own* shows both.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from os.path import commonpath
from pathlib import Path

import pandas as pd

from earwitness import folders
from earwitness.audio import SCORES, SUFFIXES
from earwitness.errors import ManifestError
from earwitness.manifest import Track, read_manifest

EXCLUSION_COLUMNS = ("track_id", "role", "reason")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """Recordings as given, before they are opened.

    ``refused`` (track_id, role, reason) are recordings that will not be opened; ``passed_over`` counts, per role, what
    is no recording by its name (``"hidden"``, or a suffix). ``root`` is the deepest folder that holds all of them.
    """

    tracks: tuple[Track, ...]
    refused: pd.DataFrame
    passed_over: dict[str, dict[str, int]]
    root: Path


def gather(
    *,
    suspects: Path | None = None,
    held_out: Path | None = None,
    manifest: Path | None = None,
    root: Path | None = None,
    model: str | None = None,
) -> Found:
    """Read two folders, or one manifest, without opening a recording.

    Parameters
    ----------
    suspects, held_out : Path, optional
        Folders, at any nesting.
    manifest : Path, optional
        A CSV with ``path`` and ``role``, or with splits that its card gives roles for ``model``.
    root : Path, optional
        What the manifest's paths are relative to; by default its own folder.

    Raises
    ------
    ManifestError
        Neither or both kinds of input; a folder that is missing, empty of recordings, or holds the other; a manifest
        that cannot be used.
    """
    if manifest is not None and suspects is None and held_out is None:
        tracks = read_manifest(manifest, target=model, root=root)
        return Found(tuple(tracks), pd.DataFrame(columns=EXCLUSION_COLUMNS), {}, common_folder(tracks))
    if manifest is not None or suspects is None or held_out is None:
        raise ManifestError("expected two folders (suspects and held-out) or one manifest; give the ones you have")
    _refuse_overlap(suspects, held_out)
    kept: list[Track] = []
    refused: list[tuple[str, str, str]] = []
    passed: dict[str, dict[str, int]] = {}
    for role, folder in (("suspect", suspects), ("held_out", held_out)):
        entries = folders.scan(folder)
        recordings = [entry for entry in entries if entry.kind == "recording"]
        if not recordings:
            scores = f"or {', '.join(sorted(SCORES))} for models of scores"
            raise ManifestError(f"{folder}: no audio file in it; expected {', '.join(sorted(SUFFIXES))}, {scores}")
        names = Counter(entry.name for entry in recordings)
        for entry in recordings:
            track_id = f"{role}/{entry.name}" if names[entry.name] == 1 else f"{role}/{str(entry.path)!a}"
            if entry.reason:
                refused.append((track_id, role, entry.reason))
            else:
                kept.append(Track(track_id, entry.path, role))
        others = ("hidden" if e.kind == "hidden" else e.path.suffix.lower() for e in entries if e.kind != "recording")
        passed[role] = dict(sorted(Counter(others).items()))
    return Found(tuple(kept), pd.DataFrame(refused, columns=list(EXCLUSION_COLUMNS)), passed, common_folder(kept))


def read_folders(*, suspects: str | Path, held_out: str | Path) -> list[Track]:
    """Read two folders of recordings (any nesting) as an audit's suspects and held-out; log what is left out.

    Raises
    ------
    ManifestError
        As ``gather``.
    """
    found = gather(suspects=Path(suspects), held_out=Path(held_out))
    for row in found.refused.itertuples():
        log.warning("%s: left out: %s", row.track_id, row.reason)
    return list(found.tracks)


def common_folder(tracks: Sequence[Track]) -> Path:
    """Return the deepest folder that holds all of them."""
    return Path(commonpath([track.path.absolute().parent for track in tracks])) if tracks else Path()


def _refuse_overlap(suspects: Path, held_out: Path) -> None:
    """Refuse two folders of which one holds the other: every file would stand on both sides."""
    try:
        first, second = suspects.resolve(), held_out.resolve()
    except (OSError, RuntimeError, ValueError):
        return  # reading them will say what is wrong
    if first == second:
        raise ManifestError(f"{suspects}: suspects and held-out are the same folder; give two")
    if first.is_relative_to(second) or second.is_relative_to(first):
        raise ManifestError(f"{suspects} and {held_out}: one lies inside the other; keep them side by side")
