"""Folders as people have them: which files are recordings, what was passed over and why.

The walk stays inside the folder: links that lead out are refused, links that lead in circles end, archives are not
unpacked, devices and pipes are not opened. Nothing is left out without being counted. The book page *Threat model*
says why.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from earwitness.audio import SCORES, SUFFIXES
from earwitness.errors import ManifestError
from earwitness.paths import inside, reason_of
from earwitness.text import plain

MAX_ENTRIES = 100_000
ARCHIVES = {".zip", ".rar", ".7z", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".dmg", ".iso"}
OTHER_AUDIO = {
    ".wma", ".ape", ".wv", ".dsf", ".dff", ".mka", ".webm", ".amr", ".ac3", ".dts", ".ra", ".m4p", ".aax", ".mp2",
    ".tta", ".caf", ".au", ".w64", ".weba", ".3gp", ".mov", ".mkv",
}  # fmt: skip
OTHER_SCORES = {".rmi", ".rmid"}  # MIDI inside a RIFF file
SYSTEM = {"thumbs.db", "desktop.ini", "__macosx", "$recycle.bin", "@eadir", "system volume information"}


@dataclass(frozen=True)
class Entry:
    """Something found in a folder.

    ``name`` is its path relative to the folder, with ``/``. A recording, or a score, has ``kind`` ``"recording"``;
    ``reason`` says why it cannot be used, or is empty. ``"hidden"`` and ``"other"`` (no recording by its name) are
    passed over and counted.
    """

    path: Path
    name: str
    kind: str
    reason: str = ""


def scan(folder: Path) -> list[Entry]:
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
    found: list[Entry] = []
    for entry in _walk(folder, root):
        found.append(entry)
        if len(found) > MAX_ENTRIES:
            raise ManifestError(f"{folder}: more than {MAX_ENTRIES} entries; is this the folder you meant?")
    return sorted(found, key=lambda entry: entry.name)


def _walk(folder: Path, root: Path) -> Iterator[Entry]:
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


def _classify(path: Path, folder: Path, left: str) -> Entry:
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


def _entry(path: Path, folder: Path, kind: str, reason: str = "") -> Entry:
    return Entry(path, plain(path.relative_to(folder).as_posix()), kind, reason)


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
