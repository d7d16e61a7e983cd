"""Manifests: one CSV row per track, one card per corpus, and roles that depend on the target model.

A manifest never holds audio. ``path`` is relative to the corpus's audio root (the manifest's own folder unless the
card or the caller says otherwise). Membership is relative to a model: the card's ``targets`` say, per model, which
splits are members and which are not. A manifest may instead hold a ``role`` column (an audit's suspects and held-out).
The book page *Methods: manifests* documents every column.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from earwitness.errors import ManifestError, nearest
from earwitness.paths import inside, reason_of
from earwitness.text import plain, unguard

Role = Literal["member", "nonmember", "suspect", "held_out"]
ROLES: tuple[str, ...] = get_args(Role)
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


def _read_text(path: Path) -> str:
    """Return a table's text: UTF-8, with or without a mark, or UTF-16 with one, as spreadsheets write them."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise ManifestError(f"{path.name}: expected a manifest (CSV), found no such file; check the path") from None
    except (OSError, ValueError) as error:
        raise ManifestError(f"{path.name}: expected a manifest (CSV): {reason_of(error)}; check the path") from None
    marked = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return raw.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path.name}: not a UTF-8 CSV table ({error.reason}); export it again as CSV") from None


def _read_table(path: Path) -> pd.DataFrame:
    """Read the CSV with every column as text and missing cells empty; the index is the line number in the file.

    Columns may be separated by commas, semicolons or tabs: spreadsheets differ by country.
    """
    text = _read_text(path)
    heading = text.partition("\n")[0]
    rows = csv.reader(io.StringIO(text), delimiter=max(",;\t", key=heading.count), strict=True)
    table: dict[int, list[str]] = {}
    try:
        columns = [name.strip() for name in next(rows, [])]
        for row in rows:
            if row and len(row) != len(columns):
                raise ManifestError(
                    f"{path.name}, line {rows.line_num}: expected {len(columns)} cells, found {len(row)}; quote cells "
                    "that hold the separator"
                )
            if row:
                table[rows.line_num] = [unguard(cell) for cell in row]
    except csv.Error as error:
        raise ManifestError(
            f"{path.name}, line {rows.line_num}: not a UTF-8 CSV table ({error}); export it again as CSV"
        ) from None
    if not columns:
        raise ManifestError(f"{path.name}: not a UTF-8 CSV table (it is empty); export it again as CSV")
    if len(set(columns)) < len(columns):
        raise ManifestError(f"{path.name}: expected each column once, found {', '.join(columns)}; rename one")
    if "path" not in columns:
        hint = nearest("path", columns)
        raise ManifestError(f"{path.name}: expected a column 'path', found {', '.join(columns)}{hint}; rename it")
    if not table:
        raise ManifestError(f"{path.name}: expected at least one track, found none; add one row per recording")
    return pd.DataFrame.from_dict(table, orient="index", columns=columns, dtype=str)


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


def _check_rows(path: Path, table: pd.DataFrame, base: Path) -> None:
    """Refuse the first row that cannot be used, naming its line."""
    root = base.resolve()
    checks = {
        "an empty path": table["path"].str.strip() == "",
        "a path that leaves the audio folder": table["path"].map(lambda cell: _escapes(cell, base, root)),
        "a track_id used before": table["track_id"].duplicated(),
        f"a role that is none of {', '.join(ROLES)}": ~table["role"].isin(ROLES),
    }
    for problem, bad in checks.items():
        if bad.any():
            line = table.index[bad][0]
            row = table.loc[line]
            value = row["role"] if "role" in problem else row["track_id"] if "track_id" in problem else row["path"]
            raise ManifestError(f"{path.name}, line {line}: {problem} ({value!r}); mend this row")


def _escapes(cell: str, base: Path, root: Path) -> bool:
    """Say whether a relative path is absolute, climbs out of its root, or is a link that leads out of it."""
    if "\0" in cell or Path(cell).is_absolute() or ".." in Path(cell).parts:
        return True
    return "leaves" in inside(base / cell, root)


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
    table = table.assign(track_id=table["track_id"].map(plain))
    base = Path(root) if root is not None else _audio_root(path)
    _check_rows(path, table, base)
    table["duration_s"] = _numbers(path, table["duration_s"]) if "duration_s" in table else float("nan")
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
