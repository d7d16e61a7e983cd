"""Manifests: one CSV row per track, one card per corpus, and roles that depend on the target model.

A manifest never holds audio. ``path`` is relative to the corpus's audio root (the manifest's own folder unless the
card or the caller says otherwise). Membership is relative to a model: the card's ``targets`` say, per model, which
splits are members and which are not. A manifest may instead hold a ``role`` column (an audit's suspects and held-out).
The book page *Methods: manifests* documents every column.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from earwitness.errors import ManifestError, nearest

Role = Literal["member", "nonmember", "suspect", "held_out"]
ROLES: tuple[str, ...] = get_args(Role)
AUDIO_SUFFIXES = {".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif"}
TEXT_COLUMNS = ("track_id", "path", "artist", "work", "split", "caption", "sha256", "licence", "source", "released")


@dataclass(frozen=True)
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


class Card(BaseModel):
    """The card beside a manifest (``<name>.card.yml``): a corpus's origin, and whose members its splits are."""

    model_config = ConfigDict(extra="forbid")

    title: str
    version: int
    licence: str
    citation: str
    membership: str = Field(description="how it is known which tracks a model was trained on")
    control: str = Field("", description="which models saw neither side, and for which comparison")
    audio: str = Field("", description="formats, sample rates and lengths of the recordings")
    known_biases: list[str] = []
    counts: dict[str, int] = {}
    splits: dict[str, str] = {}
    generated_by: str = ""
    targets: dict[str, dict[Role, list[str]]] = {}


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


def _read_table(path: Path) -> pd.DataFrame:
    """Read the CSV with every column as text and missing cells empty; the index is the line number in the file."""
    if not path.is_file():
        raise ManifestError(f"{path.name}: expected a manifest (CSV), found no such file; check the path")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ManifestError(f"{path.name}: not a UTF-8 CSV table ({reason}); export it again as CSV") from None
    table.index = pd.RangeIndex(2, len(table) + 2)
    if "path" not in table:
        hint = nearest("path", table.columns)
        raise ManifestError(f"{path.name}: expected a column 'path', found {', '.join(table.columns)}{hint}; rename it")
    if table.empty:
        raise ManifestError(f"{path.name}: expected at least one track, found none; add one row per recording")
    return table


def _roles_of_splits(
    path: Path, table: pd.DataFrame, target: str | None, roles: Mapping[str, Sequence[str]] | None
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
    known = set(table["split"]) if "split" in table else set()
    mapping: dict[str, str] = {}
    for role, splits in roles.items():
        if role not in ROLES:
            raise ManifestError(f"{path.name}: role {role!r} is none of {', '.join(ROLES)}{nearest(role, ROLES)}")
        for split in [splits] if isinstance(splits, str) else splits:
            if split not in known:
                raise ManifestError(
                    f"{path.name}: no track has split {split!r}; found {', '.join(sorted(known)) or 'no split column'}"
                )
            if mapping.setdefault(split, role) != role:
                raise ManifestError(f"{path.name}: split {split!r} is given to both {mapping[split]} and {role}")
    return mapping


def _check_rows(path: Path, table: pd.DataFrame) -> None:
    """Refuse the first row that cannot be used, naming its line."""
    checks = {
        "an empty path": table["path"].str.strip() == "",
        "a path that leaves the audio folder": table["path"].map(_escapes),
        "a track_id used before": table["track_id"].duplicated(),
        f"a role that is none of {', '.join(ROLES)}": ~table["role"].isin(ROLES),
    }
    for problem, bad in checks.items():
        if bad.any():
            line = table.index[bad][0]
            row = table.loc[line]
            value = row["role"] if "role" in problem else row["track_id"] if "track_id" in problem else row["path"]
            raise ManifestError(f"{path.name}, line {line}: {problem} ({value!r}); mend this row")


def _escapes(path: str) -> bool:
    """Say whether a relative path is absolute or climbs out of its root."""
    return Path(path).is_absolute() or ".." in Path(path).parts


def _numbers(path: Path, column: pd.Series) -> pd.Series:
    """Turn a text column into numbers, empty cells into NaN; name the line of anything else."""
    values = pd.to_numeric(column.replace("", None), errors="coerce")
    bad = values.isna() & (column != "")
    if bad.any():
        line = column.index[bad][0]
        raise ManifestError(f"{path.name}, line {line}: duration_s is {column[line]!r}, expected seconds; mend it")
    return values


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
    table = _read_table(path)
    if roles is not None or "role" not in table:
        mapping = _roles_of_splits(path, table, target, roles)
        table = table[table["split"].isin(mapping)].assign(role=lambda t: t["split"].map(mapping))
    if "track_id" not in table:
        table = table.assign(track_id=table["path"])
    _check_rows(path, table)
    table["duration_s"] = _numbers(path, table["duration_s"]) if "duration_s" in table else float("nan")
    base = Path(root) if root is not None else _audio_root(path)
    present = [c for c in TEXT_COLUMNS if c in table and c != "path"]
    fields: list[dict[Any, Any]] = table[[*present, "role", "duration_s"]].to_dict("records")
    return [Track(path=base / cell, **row) for cell, row in zip(table["path"], fields, strict=True)]


def read_splits(path: str | Path, splits: Sequence[str] | None = None) -> list[Track]:
    """Read the tracks of some splits (all by default) for scoring, where roles do not matter yet.

    Raises
    ------
    ManifestError
        As ``read_manifest``.
    """
    table = _read_table(Path(path))
    if "split" not in table or "role" in table:
        return read_manifest(path)
    return read_manifest(path, roles={"suspect": list(splits or table["split"].unique())})


def read_folders(*, suspects: str | Path, held_out: str | Path) -> list[Track]:
    """Read two folders of recordings (any nesting) as an audit's suspects and held-out.

    Raises
    ------
    ManifestError
        A folder that does not exist or holds no audio file.
    """
    tracks: list[Track] = []
    for role, folder in (("suspect", Path(suspects)), ("held_out", Path(held_out))):
        if not folder.is_dir():
            raise ManifestError(f"{folder}: expected a folder of recordings ({role}), found none; check the path")
        files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES and p.is_file())
        if not files:
            raise ManifestError(f"{folder}: no audio file in it; expected {', '.join(sorted(AUDIO_SUFFIXES))}")
        tracks += [Track(f"{role}/{p.relative_to(folder).as_posix()}", p, role) for p in files]
    return tracks
