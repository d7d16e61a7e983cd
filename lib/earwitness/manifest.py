"""Manifests: one CSV row per track, one card per corpus, and roles that depend on the target model.

A manifest never holds audio. ``path`` is relative to the corpus's audio root (the manifest's own folder unless the
card or the caller says otherwise). Membership is relative to a model: the card's ``targets`` say, per model, which
splits are members and which are not. A manifest may instead hold a ``role`` column (an audit's suspects and held-out).
The book page *Methods: manifests* documents every column.
"""

from __future__ import annotations

import gc
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import repeat
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from pydantic import ValidationError

from earwitness.csvtable import Lines, read_table
from earwitness.errors import ManifestError, nearest
from earwitness.paths import inside
from earwitness.schema import ROLES, TEXT_COLUMNS, Card, checked
from earwitness.text import plain

__all__ = ["ROLES", "Card", "Track", "file_hash", "read_card", "read_manifest", "read_splits"]

SLICE = 1 << 16  # rows that become tracks at a time
PROBLEMS = {
    "path": "an empty path",
    "sha256": "a sha256 that is not 64 hexadecimal digits",
    "role": f"a role that is none of {', '.join(ROLES)}",
    "released": "a date that is none like 2019, 2019-05 or 2019-05-01",
}


@dataclass(frozen=True, slots=True)
class Track:
    """One recording of a manifest. Text fields are empty where the manifest is silent; ``duration_s`` is then NaN."""

    track_id: str
    path: Path
    role: str
    artist: str = ""
    work: str = ""
    split: str = ""
    caption: str = ""
    duration_s: float = float("nan")
    sha256: str = ""
    licence: str = ""
    source: str = ""
    released: str = ""


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_card(manifest: Path) -> Card | None:
    """Read the card of a manifest, or return None where there is none."""
    path = manifest.with_suffix(".card.yml")
    if not path.is_file():
        return None
    try:
        return Card.model_validate(yaml.safe_load(path.read_text()))
    except (ValidationError, yaml.YAMLError) as error:
        detail = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        where = ".".join(map(str, detail["loc"]))
        raise ManifestError(f"{path.name}: {where or 'not YAML'}: {detail['msg']}; mend the card") from None


def _roles_of_splits(
    path: Path, known: set[str], target: str | None, roles: Mapping[str, Sequence[str]] | None
) -> dict[str, str]:
    """Return split -> role, from the caller's ``roles`` or the card's entry for ``target``."""
    if roles is None:
        card = read_card(path)
        targets = card.targets if card else {}
        if target is None:
            raise ManifestError(
                f"{path.name}: has no 'role' column, so say which model it is about: target= one of "
                f"{', '.join(targets) or '(its card names none)'}, or roles= a mapping of role to splits"
            )
        if target not in targets:
            raise ManifestError(
                f"{path.name}: its card does not say who is a member for {target!r}; it knows "
                f"{', '.join(targets) or 'no model'}{nearest(target, targets)}; add it under 'targets' in the card"
            )
        roles = {str(role): splits for role, splits in targets[target].items()}
    mapping: dict[str, str] = {}
    for role, splits in roles.items():
        if role not in ROLES:
            raise ManifestError(f"{path.name}: role {role!r} is none of {', '.join(ROLES)}{nearest(role, ROLES)}")
        for split in [splits] if isinstance(splits, str) else splits:
            _refuse_unknown(path, split, known)
            if mapping.setdefault(split, role) != role:
                raise ManifestError(f"{path.name}: split {split!r} is given to both {mapping[split]} and {role}")
    return mapping


def _refuse_unknown(path: Path, split: str, known: set[str]) -> None:
    """Refuse a split that no row is in."""
    if split not in known:
        raise ManifestError(
            f"{path.name}: no track has split {split!r}; found {', '.join(sorted(known)) or 'no split column'}"
        )


def _outside(paths: list[str], base: Path) -> int:
    """Return the index of the first path that is absolute, climbs out of ``base``, or leads out of it by a link; or -1.

    Each folder is looked into once, so that a million rows do not ask the disk a million times.
    """
    root = base.resolve()
    links: dict[str, set[str] | None] = {}  # None: the folder itself lies outside
    for row, cell in enumerate(paths):
        folder, _, name = cell.rpartition("/")
        if cell.startswith("/") or "\0" in cell or (".." in cell and ".." in cell.split("/")):
            return row
        if folder not in links:
            links[folder] = None if "leaves" in inside(base / folder, root) else _links(base / folder)
        found = links[folder]
        if found is None or (name in found and "leaves" in inside(base / cell, root)):
            return row
    return -1


def _links(folder: Path) -> set[str]:
    """Return the names of the links in a folder; none if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_symlink()}
    except (OSError, ValueError):
        return set()


def _backslashed(paths: list[str], base: Path) -> int:
    """Return the index of the first path written as on Windows where no file is called so, or -1."""
    if os.sep == "\\":
        return -1
    return next((row for row, cell in enumerate(paths) if "\\" in cell and not (base / cell).exists()), -1)


def _refuse(lines: Lines, kept: np.ndarray | None, row: int, problem: str) -> NoReturn:
    """Refuse a row, naming its line."""
    raise lines.fault(int(kept[row]) if kept is not None else row, problem)


def _audio_root(path: Path) -> Path:
    """Return where a manifest's audio lies, rendering the pocket corpus first if it is the one meant."""
    card = read_card(path)
    if card and card.generated_by == "earwitness.pocket":
        from earwitness.pocket.corpus import ensure_corpus

        return ensure_corpus()
    return path.parent


def read_manifest(
    path: str | Path,
    target: str | None = None,
    roles: Mapping[str, Sequence[str]] | None = None,
    root: str | Path | None = None,
) -> list[Track]:
    """Read a manifest and resolve each track's role.

    Parameters
    ----------
    path : str or Path
        CSV with a header; only ``path`` is required, plus either a ``role`` or a ``split`` column.
    target : str, optional
        The model in question; its entry in the card maps splits to roles. Not needed where rows hold a ``role``.
    roles : mapping, optional
        Role -> splits, instead of the card: ``{"suspect": ["a"], "held_out": ["neither"]}``.
    root : str or Path, optional
        Folder that ``path`` cells are relative to.

    Returns
    -------
    list of Track
        In manifest order. Tracks whose split has no role for this target are left out.

    Raises
    ------
    ManifestError
        A missing column, an unknown role, split or target, a repeated track_id, a path that leaves the root.
    """
    path = Path(path)
    cells, lines = read_table(path)
    kept = None
    if "path" not in cells.column_names:
        hint = nearest("path", cells.column_names)
        raise ManifestError(
            f"{path.name}: expected a column 'path', found {', '.join(cells.column_names)}{hint}; rename it"
        )
    if roles is not None or "role" not in cells.column_names:
        splits = cells["split"] if "split" in cells.column_names else pa.array([], pa.string())
        mapping = _roles_of_splits(path, set(pc.unique(splits).to_pylist()), target, roles)
        kept = np.flatnonzero(pc.is_in(splits, pa.array(list(mapping), pa.string())).to_numpy())
        cells = cells.take(kept)
        role = pa.array([mapping[split] for split in cells["split"].to_pylist()], pa.string())
        cells = cells.drop_columns("role") if "role" in cells.column_names else cells
        cells = cells.append_column("role", role)
    base = Path(root) if root is not None else _audio_root(path)
    with _no_collection():
        return _tracks(lines, cells, kept, base)


def _tracks(lines: Lines, cells: pa.Table, kept: np.ndarray | None, base: Path) -> list[Track]:
    """Validate rows column by column and turn them into tracks, slice by slice."""
    found: list[Track] = []
    names: set[str] = set()
    present = [name for name in TEXT_COLUMNS if name in cells.column_names and name not in {"path", "track_id"}]
    for start in range(0, cells.num_rows, SLICE):
        part = cells.slice(start, SLICE)
        columns: dict[str, list[Any]] = {name: _shared(part[name]) for name in present}
        columns["role"] = _shared(part["role"])
        paths = part["path"].to_pylist()
        ids = [plain(cell) for cell in part["track_id"].to_pylist()] if "track_id" in cells.column_names else paths
        for name, problem in PROBLEMS.items():
            values = paths if name == "path" else columns.get(name, [])
            blank = [cell.strip() for cell in values] if name == "path" else values
            _, row, _ = checked(name, blank)
            if row >= 0:
                _refuse(lines, kept, start + row, f"{problem} ({values[row]!r})")
        if "sha256" in columns:
            columns["sha256"] = [cell.lower() for cell in columns["sha256"]]  # some systems print it in capitals
        if (row := _outside(paths, base)) >= 0:
            _refuse(lines, kept, start + row, f"a path that leaves the audio folder ({paths[row]!r})")
        if (row := _backslashed(paths, base)) >= 0:
            _refuse(lines, kept, start + row, f'a path with backslashes ("{paths[row]}"): use "/" between folders')
        for row, name in enumerate(ids):
            if name in names:
                _refuse(lines, kept, start + row, f"a track_id used before ({name!r})")
            names.add(name)
        if "duration_s" in cells.column_names:
            cells_given = part["duration_s"].to_pylist()
            lengths, row, why = checked("duration_s", [cell.strip() or None for cell in cells_given])
            if row >= 0:
                _refuse(lines, kept, start + row, f"duration_s is {cells_given[row]!r}, expected seconds ({why})")
            columns["duration_s"] = [float("nan") if length is None else length for length in lengths]
        given = {"track_id": ids, "path": [base / cell for cell in paths], **columns}
        defaults = {field.name: field.default for field in fields(Track)}
        rows = zip(*(given.get(name, repeat(default)) for name, default in defaults.items()), strict=False)
        found += [Track(*row) for row in rows]
    return found


def _shared(column: pa.ChunkedArray) -> list[str]:
    """Return a column's cells so that equal ones are one object: most columns of a large manifest repeat themselves."""
    coded = column.combine_chunks().dictionary_encode()
    words = coded.dictionary.to_pylist()
    return [words[code] for code in coded.indices.to_numpy()]


@contextmanager
def _no_collection() -> Iterator[None]:
    """Look for no garbage meanwhile: among a million new objects that are all kept there is none."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


def read_splits(path: str | Path, splits: Sequence[str] | None = None, root: str | Path | None = None) -> list[Track]:
    """Read the tracks of some splits (all by default) for scoring, where roles do not matter yet.

    Raises
    ------
    ManifestError
        As ``read_manifest``; a split that no track is in, or a manifest without splits.
    """
    path = Path(path)
    cells, _ = read_table(path)
    known = set(pc.unique(cells["split"]).to_pylist()) if "split" in cells.column_names else set()
    for split in splits or ():
        _refuse_unknown(path, split, known)
    if known and "role" not in cells.column_names:
        return read_manifest(path, roles={"suspect": list(splits or known)}, root=root)
    tracks = read_manifest(path, root=root)
    return [track for track in tracks if track.split in splits] if splits else tracks
