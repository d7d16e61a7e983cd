"""Folders as people have them: which files are recordings, what was passed over and why, and what becomes a track.

The walk stays inside the folder: links that lead out are refused, links that lead in circles end, archives are not
unpacked, devices and pipes are not opened. Nothing is left out without being counted, and no recording is decoded.
Book pages: *Audit your own*, *Threat model*.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os.path import commonpath
from pathlib import Path

import pandas as pd

from earwitness.data.audio import SUFFIXES
from earwitness.data.manifest import read_manifest
from earwitness.errors import ManifestError
from earwitness.types import SCORES, Track
from earwitness.util import inside, plain, reason_of

# --- what lies in a folder --------------------------------------------------------------------------------------------

MAX_ENTRIES = 100_000
ARCHIVES = {".zip", ".rar", ".7z", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".dmg", ".iso"}
OTHER_AUDIO = {
    ".wma", ".ape", ".wv", ".dsf", ".dff", ".mka", ".webm", ".amr", ".ac3", ".dts", ".ra", ".m4p", ".aax", ".mp2",
    ".tta", ".caf", ".au", ".w64", ".weba", ".3gp", ".mov", ".mkv",
}  # fmt: skip
OTHER_SCORES = {".rmi", ".rmid"}  # MIDI inside a RIFF file
SYSTEM = {"thumbs.db", "desktop.ini", "__macosx", "$recycle.bin", "@eadir", "system volume information"}


@dataclass(frozen=True)
class FolderEntry:
    """Something found in a folder.

    ``name`` is its path relative to the folder, with ``/``. A recording, or a score, has ``kind`` ``"recording"``;
    ``reason`` says why it cannot be used, or is empty. ``"hidden"`` and ``"other"`` (no recording by its name) are
    passed over and counted.
    """

    path: Path
    name: str
    kind: str
    reason: str = ""


def scan(folder: Path) -> list[FolderEntry]:
    """List what a folder holds, at any depth, in order of names.

    Raises
    ------
    ManifestError
        No folder, one that cannot be opened, or more than ``MAX_ENTRIES`` entries.
    """
    try:
        root = folder.resolve(strict=True)
        os.scandir(root).close()
    except NotADirectoryError:
        raise ManifestError(f"{folder}: expected a folder of recordings, found a file; name its folder") from None
    except (OSError, RuntimeError, ValueError) as error:
        raise ManifestError(f"{folder}: expected a folder of recordings, {reason_of(error)}; check the path") from None
    found: list[FolderEntry] = []
    for entry in _walk(folder, root):
        found.append(entry)
        if len(found) > MAX_ENTRIES:
            raise ManifestError(f"{folder}: more than {MAX_ENTRIES} entries; is this the folder you meant?")
    return sorted(found, key=lambda entry: entry.name)


def _walk(folder: Path, root: Path) -> Iterator[FolderEntry]:
    """Yield entries folder by folder; a folder that was walked under another name is not walked again."""
    pending, walked = [folder], set()
    while pending:
        here = pending.pop()
        target = here.resolve()
        if target in walked:
            continue
        walked.add(target)
        try:
            with os.scandir(here) as listed:
                names = sorted(item.name for item in listed)
        except OSError as error:
            yield _entry(here, folder, "recording", f"a folder that cannot be opened ({reason_of(error)})")
            continue
        for path in (here / name for name in names):
            if path.name.startswith(".") or path.name.lower() in SYSTEM:
                yield _entry(path, folder, "hidden")
                continue
            left = inside(path, root)
            if not left and path.is_dir():
                pending.insert(0, path) if path.is_symlink() else pending.append(path)
            else:
                yield _classify(path, folder, left)


def _classify(path: Path, folder: Path, left: str) -> FolderEntry:
    """Say what a file is by its name, and what speaks against opening it."""
    suffix = path.suffix.lower()
    if suffix in ARCHIVES:
        return _entry(path, folder, "recording", "an archive, and nothing is unpacked; unpack it and run again")
    if suffix in OTHER_AUDIO:
        return _entry(path, folder, "recording", f"{suffix} files are not read; export it as WAV or FLAC")
    if suffix in OTHER_SCORES:
        return _entry(path, folder, "recording", f"{suffix} files are not read; export it as a MIDI file (.mid)")
    if suffix not in SUFFIXES | SCORES:  # a link that leads out may be a folder of recordings: never passed over unseen
        return _entry(path, folder, "recording" if left else "other", left)
    if not left and not path.is_file():
        left = "no regular file (a pipe, a socket or a device)"
    if not left and plain(str(path)) != str(path) and not _is_utf8(path):
        left = "its name is not valid UTF-8; rename it"
    return _entry(path, folder, "recording", left)


def _entry(path: Path, folder: Path, kind: str, reason: str = "") -> FolderEntry:
    return FolderEntry(path, plain(path.relative_to(folder).as_posix()), kind, reason)


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


# --- what an audit is given -------------------------------------------------------------------------------------------

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
        entries = scan(folder)
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
