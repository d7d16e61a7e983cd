"""Folders as people have them: which files are recordings, what was passed over and why, and what becomes a track.

Deleted files, the inside of a music program's project, and what programs keep beside recordings are no recordings of
their own: they are passed over and counted by kind. What is in the cloud only is named.

The walk stays inside the folder: links that lead out are refused, links that lead in circles end, archives are not
unpacked, devices and pipes are not opened. Nothing is left out without being counted, and no recording is decoded.
Book pages: *Audit your own*, *Threat model*.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os.path import commonpath
from pathlib import Path, PurePath

import pandas as pd

from earwitness.data.audio import SUFFIXES
from earwitness.data.known_names import lists_of
from earwitness.data.manifest import read_manifest
from earwitness.data.works import with_works
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
SYSTEM = {"desktop.ini", "__macosx", "system volume information", "lost+found", "@tmp"}
TRASH = re.compile(r"\.?trash-\d+")  # a user's own, on a disk of several
BINS, BUNDLES, PROJECTS, MEDIA = lists_of("bins", "bundles", "projects", "media")
SIDECARS, BESIDE, ELSEWHERE, UNFINISHED = lists_of("sidecars", "beside", "elsewhere", "unfinished")
DATALESS = 0x40000000  # macOS: SF_DATALESS
OFFLINE = 0x1000 | 0x40000 | 0x400000  # Windows: offline, recall on open, recall on data access
CLOUD = "not on this disk (in the cloud only); download it first"
RECYCLED, PROJECT, SIDECAR = "in a recycle bin", "in a project", "sidecars"


@dataclass(frozen=True)
class FolderEntry:
    """Something found in a folder.

    ``name`` is its path relative to the folder, with ``/``. A recording, or a score, has ``kind`` ``"recording"``;
    ``reason`` says why it cannot be used, or is empty. Everything else is passed over and counted: ``"hidden"``,
    ``"other"`` (no recording by its name), ``"sidecars"`` of music programs and systems, and, with the folder's name
    behind it, what lies ``"in a recycle bin"`` or ``"in a project"``.
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
    pending, walked = [(folder, "")], set()
    while pending:
        here, within = pending.pop()
        target = here.resolve()
        if target in walked:
            continue
        walked.add(target)
        try:
            with os.scandir(here) as listed:
                names = sorted(item.name for item in listed)
        except OSError as error:
            if not within:
                yield _entry(here, folder, "recording", f"a folder that cannot be opened ({reason_of(error)})")
            continue
        clips = _clip_folders(here, names)
        for path in (here / name for name in names):
            label = within or _passed_over(path, clips)
            left = inside(path, root)
            opens = not label or label.startswith((RECYCLED, PROJECT))
            if opens and not left and path.is_dir() and path.suffix.lower() not in UNFINISHED:
                pending.insert(0, (path, label)) if path.is_symlink() else pending.append((path, label))
            elif label:
                yield _entry(path, folder, label)
            else:
                yield _classify(path, folder, left)


def _clip_folders(folder: Path, names: Sequence[str]) -> frozenset[str]:
    """Return the names of folders in which a music program keeps clips: none where the folder is no project of one."""
    if any(PurePath(name).suffix.lower() in PROJECTS for name in names) or "Ableton Project Info" in names:
        return MEDIA
    return frozenset({"samples"} if folder.name.lower().endswith(" project") else ())


def _passed_over(path: Path, clips: frozenset[str]) -> str:
    """Return the kind of what is no recording of its own by its name; empty for everything else."""
    name, suffix = path.name.lower(), path.suffix.lower()
    if name in BINS or TRASH.fullmatch(name):
        return f"{RECYCLED} ({plain(path.name)})"
    if suffix in BUNDLES and path.is_dir():
        return f"{PROJECT} ({plain(path.name)})"
    if (name in clips or (clips is MEDIA and name.endswith("_data"))) and path.is_dir():
        return f"{PROJECT} ({plain(path.parent.name)})"
    if name in BESIDE or suffix in SIDECARS or name.startswith("._"):
        return SIDECAR
    placeholder = suffix in ELSEWHERE | UNFINISHED and not path.is_dir()
    return "hidden" if name in SYSTEM or (name.startswith(".") and not placeholder) else ""


def _elsewhere(path: Path) -> str:
    """Return why a file has no content on this disk: system marks say so, or it has a length and takes no place."""
    try:
        found = path.stat()
        if getattr(found, "st_flags", 0) & DATALESS or getattr(found, "st_file_attributes", 0) & OFFLINE:
            return CLOUD
        if not found.st_size:
            return "0 bytes: nothing in it, or in the cloud only; download it or export it again"
        if getattr(found, "st_blocks", 1):
            return ""
        with path.open("rb") as file:  # some network drives count no blocks at all: a placeholder reads as zeros
            return "" if any(file.read(64)) else CLOUD
    except OSError:
        return ""


def _classify(path: Path, folder: Path, left: str) -> FolderEntry:
    """Say what a file is by its name, and what speaks against opening it."""
    suffix = path.suffix.lower()
    if suffix in ELSEWHERE | UNFINISHED:
        meant = path.with_name(path.stem.removeprefix(".") if suffix == ".icloud" else path.stem)
        if meant.suffix.lower() not in SUFFIXES | SCORES | OTHER_AUDIO:
            return _entry(path, folder, "other")
        left = CLOUD if suffix in ELSEWHERE else "a download that is not finished; finish it first"
        return FolderEntry(path, _entry(meant, folder, "").name, "recording", left)
    if suffix in ARCHIVES:
        return _entry(path, folder, "recording", "an archive, and nothing is unpacked; unpack it and run again")
    if suffix in OTHER_AUDIO:
        return _entry(path, folder, "recording", f"{suffix} files are not read; export it as WAV or FLAC")
    if suffix not in SUFFIXES | SCORES:  # a link that leads out may be a folder of recordings: never passed over unseen
        return _entry(path, folder, "recording" if left else "other", left)
    if not left and not path.is_file():
        left = "no regular file (a pipe, a socket or a device)"
    if not left and plain(str(path)) != str(path) and not _is_utf8(path):
        left = "its name is not valid UTF-8; rename it"
    return _entry(path, folder, "recording", left or _elsewhere(path))


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
SHARED, FIRST = 20, 5
WAYS = (
    "Held-out recordings are comparable ones by the same artists that the model cannot have been trained on. Three "
    "ways to get them: unreleased recordings of the same years; other takes of the released works, compared in pairs "
    "(--pairs work); recordings released after the model was trained. The book page Where honest held-out recordings "
    "come from weighs them"
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """Recordings as given, before they are opened.

    ``refused`` (track_id, role, reason) are recordings that will not be opened; ``passed_over`` counts, per role, what
    is no recording of its own (a suffix, or a kind of ``FolderEntry``). ``root`` is the deepest folder that holds all
    of them.
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
    works: Path | None = None,
    by_folder: bool = False,
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
    model : str, optional
        Whose members and non-members the splits of a manifest are.
    works : Path, optional
        CSV with ``path`` and ``work``, as ``works.with_works`` takes it.
    by_folder : bool
        The folders in a side's folder are its artists, those in an artist's folder are albums: works of their side.

    Raises
    ------
    ManifestError
        Neither or both kinds of input; a folder that is missing, empty of recordings, or holds the other; a manifest
        that cannot be used.
    """
    if manifest is not None and suspects is None and held_out is None:
        tracks = read_manifest(manifest, target=model, root=root)
        tracks = tracks if works is None else with_works(tracks, works)
        return Found(tuple(tracks), pd.DataFrame(columns=EXCLUSION_COLUMNS), {}, common_folder(tracks))
    if manifest is not None or suspects is None or held_out is None:
        raise ManifestError(
            f"expected two folders (suspects and held-out) or one manifest{'' if held_out else f'. {WAYS}'}"
        )
    _refuse_overlap(suspects, held_out)
    kept: list[Track] = []
    refused: list[tuple[str, str, str]] = []
    passed: dict[str, dict[str, int]] = {}
    for role, folder in (("suspect", suspects), ("held_out", held_out)):
        entries = scan(folder)
        recordings = [entry for entry in entries if entry.kind == "recording"]
        if not recordings:
            over, sound = say_passed_over(passed_over(entries)), ", ".join(sorted(SUFFIXES))
            raise ManifestError(
                f"{folder}: no audio file in it{over and f' ({over})'}; expected {sound}, or "
                f"{', '.join(sorted(SCORES))} for models that read MIDI"
            )
        names = Counter(entry.name for entry in recordings)
        for entry in recordings:
            track_id = f"{role}/{entry.name}" if names[entry.name] == 1 else f"{role}/{str(entry.path)!a}"
            if entry.reason:
                refused.append((track_id, role, entry.reason))
            else:
                artist, *album = (entry.name.split("/")[:-1] if by_folder else []) or [""]
                work = f"{role}: {artist}/{album[0]}" if album else ""
                kept.append(Track(track_id, entry.path, role, artist=artist, work=work))
        passed[role] = passed_over(entries)
    if works is not None:
        kept = with_works(kept, works, [name for name, *_ in refused])
    return Found(tuple(kept), pd.DataFrame(refused, columns=list(EXCLUSION_COLUMNS)), passed, common_folder(kept))


def passed_over(entries: Sequence[FolderEntry]) -> dict[str, int]:
    """Count what is no recording of its own, by kind; what is none by its name, by suffix."""
    heard = SUFFIXES | SCORES | OTHER_AUDIO | ARCHIVES  # of what a bin or a project holds nothing else is of interest
    kinds = Counter(
        e.path.suffix.lower() if e.kind == "other" else e.kind
        for e in entries
        if e.kind != "recording" and (not e.kind.startswith((RECYCLED, PROJECT)) or e.path.suffix.lower() in heard)
    )
    return dict(sorted(kinds.items()))


def say_passed_over(kinds: Mapping[str, int]) -> str:
    """Return what was passed over as a clause; empty if nothing was."""
    listed = ", ".join(f"{kind or 'no suffix'} {count}" for kind, count in kinds.items())
    return f"passed over: {listed}" if listed else ""


def shorten(left: pd.DataFrame) -> pd.DataFrame:
    """Return what was left out (``track_id, reason``) as a terminal shows it.

    Of a reason that more than ``SHARED`` recordings share, the first ``FIRST`` and their number; JSON holds all.
    """
    found = []
    for reason, rows in left.groupby("reason", sort=False):
        few = len(rows) <= SHARED
        found += [rows if few else rows[:FIRST]]
        more = f"and {len(rows) - FIRST:,} more, {len(rows):,} in all (the JSON lists each)"
        found += [] if few else [pd.DataFrame([{"track_id": more, "reason": reason}])]
    return pd.concat(found, ignore_index=True) if found else left


def read_folders(*, suspects: str | Path, held_out: str | Path) -> list[Track]:
    """Read two folders of recordings (any nesting) as an audit's suspects and held-out; log what is left out.

    Raises
    ------
    ManifestError
        As ``gather``.
    """
    for name, place in (("suspects", suspects), ("held_out", held_out)):
        if not str(place).strip():
            raise ManifestError(f"{name}: expected a folder, got an empty text; name the folder")
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
