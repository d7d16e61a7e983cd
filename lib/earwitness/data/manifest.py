"""Manifests: one CSV row per track, one card per corpus, and roles that depend on the target model.

A manifest never holds audio. ``path`` is relative to the corpus's audio root (the manifest's own folder unless the
card or the caller says otherwise). Membership is relative to a model: the card's ``targets`` say, per model, which
splits are members and which are not. A manifest may instead hold a ``role`` column (an audit's suspects and held-out).

``Row`` is one line of the CSV; columns that it does not name are allowed and not read. Row and card are published as
JSON Schema (``book/_static/manifest.schema.json`` and ``card.schema.json``; a test compares): ``python -m
earwitness.data.manifest FOLDER`` writes them.

``holdings`` says what of a manifest is on disk. A file that is missing is a fact about a corpus, a file that is corrupt
is a mistake to mend; neither is repaired here. ``draw`` chooses the tracks of a costly run: some by name, the others by
lot. The book page *Methods: manifests* documents every column and every command.
"""

from __future__ import annotations

import gc
import json
import os
import re
import sys
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cache
from itertools import repeat
from math import nan
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, Self, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from earwitness.data.csv_table import Lines, read_table
from earwitness.errors import ManifestError, nearest
from earwitness.types import Track
from earwitness.util import file_hash, inside, plain, project_root, reason_of, sha256, write_csv, write_whole

# --- rows and cards, as data ------------------------------------------------------------------------------------------

SCHEMA_VERSION: Literal[1] = 1
Role = Literal["member", "nonmember", "suspect", "held_out"]
ROLES: tuple[str, ...] = get_args(Role)
MAX_SECONDS = 1e7  # of a recording, in a manifest: four months, far beyond what is read
PART = re.compile(  # columns by which other tables say which part of a file is meant
    r"(clip_)?(start|end|offset|onset|begin|from|to)(_?time)?(_?(s|sec|secs|seconds|ms))?", re.IGNORECASE
)
DATE = "[0-9]{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12][0-9]|3[01]))?)?"  # a year, month or day as ISO 8601 writes it


class Row(BaseModel):
    """One recording. In the CSV every cell is text; an empty cell means that nothing is known."""

    model_config = ConfigDict(extra="allow", title="Earwitness manifest row, version 1")

    path: str = Field(
        min_length=1, description="file, relative to the audio folder; may not leave it, not by a link either"
    )
    track_id: str = Field("", description="unique name; the path, if there is no such column")
    artist: str = Field("", description="groups tracks for audits per artist and for comparisons within artist")
    work: str = Field("", description="groups takes of one work, and copies of one recording")
    split: str = Field("", description="part of a corpus; its card says what that means for a model")
    role: Role | None = Field(
        None, description="member, nonmember (known truth, for research), suspect, held_out (an audit)"
    )
    caption: str = Field("", description="the text the model is conditioned on")
    duration_s: Annotated[float, Field(ge=0, le=MAX_SECONDS, allow_inf_nan=False)] | None = Field(
        None, description="length of the whole file in seconds; no part of a file is ever cut out by a manifest"
    )
    sha256: str = Field("", pattern="^([0-9A-Fa-f]{64})?$", description="SHA-256 of the file's bytes, in hexadecimal")
    licence: str = Field("", description="licence of the recording, as its source states it")
    source: str = Field("", description="where the recording comes from: an address or a name")
    released: str = Field(
        "", pattern=f"^({DATE})?$", description="date of release or upload: 2019, 2019-05 or 2019-05-01"
    )


TEXT_COLUMNS = tuple(name for name in Row.model_fields if name not in {"role", "duration_s"})


class CorpusCard(BaseModel):
    """The card beside a manifest (``<name>.card.yml``): a corpus's origin, and whose members its splits are."""

    model_config = ConfigDict(extra="forbid", title="Earwitness corpus card, version 1")

    schema_version: Literal[1] = Field(SCHEMA_VERSION, description="version of this schema")
    title: str
    version: int | str = Field(description="version of the corpus")
    source: str = Field("", description="where the official files come from")
    licence: str
    citation: str
    membership: str = Field(description="how it is known which tracks a model was trained on")
    control: str = Field("", description="which models saw neither side, and for which comparison")
    audio: str = Field("", description="formats, sample rates and lengths of the recordings")
    captions: Literal["", "exact", "approximate"] = Field(
        "", description="whether captions are those that a paper's own processing makes; empty: not processed"
    )
    known_biases: list[str] = []
    counts: dict[str, int] = {}
    splits: dict[str, str] = Field({}, description="split -> what it holds")
    generated_by: str = ""
    files: dict[str, str] = Field({}, description="official file that was read -> SHA-256 of its bytes")
    targets: dict[str, dict[Role, list[str]]] = Field({}, description="model -> role -> splits")
    sources: dict[str, str] = Field({}, description="model -> where it is said whose members these are")

    @model_validator(mode="after")
    def _names(self) -> Self:
        for model in self.sources:
            if model not in self.targets:
                raise ValueError(f"sources: {model!r} is no target; name it under targets too")
        for model, roles in self.targets.items():
            for split in (split for splits in roles.values() for split in splits if self.splits):
                if split not in self.splits:
                    raise ValueError(f"targets: {model!r} names a split {split!r} that splits does not describe")
        return self


@cache
def _column(name: str) -> TypeAdapter[list[Any]]:
    field = Row.model_fields[name]
    return TypeAdapter(list[Annotated[field.annotation, field]])  # type: ignore[name-defined]


def checked(name: str, cells: list[Any]) -> tuple[list[Any], int, str]:
    """Validate a whole column of a manifest against ``Row`` in one call.

    Returns
    -------
    list, int, str
        The values, and -1 and an empty string if all are good; otherwise the index of the first bad cell and why.
    """
    try:
        return _column(name).validate_python(cells), -1, ""
    except ValidationError as error:
        first = error.errors()[0]
        return cells, int(first["loc"][0]), str(first["msg"]).lower()


def schema_texts() -> dict[str, str]:
    """Return the published JSON Schemas: file name -> text."""
    models: dict[str, type[BaseModel]] = {"manifest.schema.json": Row, "card.schema.json": CorpusCard}
    return {
        name: json.dumps(model.model_json_schema(), indent=2, sort_keys=True) + "\n" for name, model in models.items()
    }


__all__ = ["ROLES", "CorpusCard", "Track", "file_hash", "read_card", "read_manifest", "read_splits"]

# --- reading a manifest -----------------------------------------------------------------------------------------------

SLICE = 1 << 14  # rows that become tracks at a time
SHARED = 1 << 15  # different cells of a column that are looked for in later rows too
PROBLEMS = {
    "path": "an empty path",
    "sha256": "a sha256 that is not 64 hexadecimal digits",
    "role": f"a role that is none of {', '.join(ROLES)}",
    "released": "a date that is none like 2019, 2019-05 or 2019-05-01",
}


def read_card(manifest: Path) -> CorpusCard | None:
    """Read the card of a manifest, or return None where there is none."""
    path = manifest.with_suffix(".card.yml")
    if not path.is_file():
        return None
    try:
        return CorpusCard.model_validate(yaml.safe_load(path.read_text()))
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
                f"{', '.join(targets) or 'no model'}{nearest(target, targets)}; add it under 'targets' in "
                "the card, or say by which of these names it goes there: target= (of a page: -p target NAME)"
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
    for part in (name for name in cells.column_names if PART.fullmatch(name)):
        if any(cell.strip() for cell in pc.unique(cells[part]).to_pylist()):
            raise ManifestError(
                f"{path.name}: a column {part!r} asks for a part of each file, and files are taken whole; cut the "
                "parts out into files of their own, or take the column out"
            )
    if roles is not None or "role" not in cells.column_names:
        splits = cells["split"] if "split" in cells.column_names else pa.array([], pa.string())
        mapping = _roles_of_splits(path, set(pc.unique(splits).to_pylist()), target, roles)
        place = pc.index_in(splits, pa.array(list(mapping), pa.string()))  # null: a split without a role
        kept = np.flatnonzero(place.is_valid().to_numpy())
        cells = cells.drop_columns("role") if "role" in cells.column_names else cells
        named_roles = pa.array(list(mapping.values()), pa.string())
        cells = cells.append_column("role", pa.DictionaryArray.from_arrays(place.combine_chunks(), named_roles))
        del splits, place
    base = Path(root) if root is not None else _audio_root(path)
    parts = deque(cells.select([name for name in cells.column_names if name in Row.model_fields]).to_batches(SLICE))
    del cells  # what has become tracks is given back while the rest is read
    with _no_collection():
        return _tracks(lines, parts, kept, base)


def _tracks(lines: Lines, parts: deque[pa.RecordBatch], kept: np.ndarray | None, base: Path) -> list[Track]:
    """Validate rows column by column and turn them into tracks, slice by slice; empties ``parts``."""
    found: list[Track] = []
    hashes = np.empty(sum(part.num_rows for part in parts), np.int64)
    known: defaultdict[str, dict[str, str]] = defaultdict(dict)
    while parts:
        whole, start = parts.popleft(), len(found)
        part = whole.filter(whole["role"].is_valid())
        held = set(part.schema.names)
        present = [name for name in TEXT_COLUMNS if name in held and name not in {"path", "track_id"}]
        columns: dict[str, list[Any]] = {name: _shared(part[name], known[name]) for name in present}
        columns["role"] = _shared(part["role"], known["role"])
        paths = part["path"].to_pylist()
        ids = [plain(cell) for cell in part["track_id"].to_pylist()] if "track_id" in held else paths
        for name, problem in PROBLEMS.items():
            values = paths if name == "path" else columns.get(name, [])
            blank = [cell.strip() for cell in values] if name == "path" else values
            _, row, _ = checked(name, blank)
            if row >= 0:
                _refuse(lines, kept, start + row, f"{problem} ({values[row]!r})")
        if "sha256" in columns:
            some = {cell: cell.lower() for cell in columns["sha256"] if not cell.islower()}  # as some systems print it
            columns["sha256"] = [some.get(cell, cell) for cell in columns["sha256"]]
        if (row := _outside(paths, base)) >= 0:
            _refuse(lines, kept, start + row, f"a path that leaves the audio folder ({paths[row]!r})")
        if (row := _backslashed(paths, base)) >= 0:
            _refuse(lines, kept, start + row, f'a path with backslashes ("{paths[row]}"): use "/" between folders')
        hashes[start : start + len(ids)] = list(map(hash, ids))  # a set of a million names takes 70 MB
        if "duration_s" in held:
            cells_given = _shared(part["duration_s"], known["duration_s"])
            lengths, row, why = checked("duration_s", [cell.strip() or None for cell in cells_given])
            if row >= 0:
                _refuse(lines, kept, start + row, f"duration_s is {cells_given[row]!r}, expected seconds ({why})")
            same = dict(zip(cells_given, lengths, strict=True))  # one number for equal cells
            columns["duration_s"] = [nan if same[cell] is None else same[cell] for cell in cells_given]
        given = {"track_id": ids, "path": [base / cell for cell in paths], **columns}
        defaults = {field.name: field.default for field in fields(Track)}
        rows = zip(*(given.get(name, repeat(default)) for name, default in defaults.items()), strict=False)
        found += [Track(*row) for row in rows]
        del whole, part
        pa.default_memory_pool().release_unused()
    hashes = hashes[: len(found)]
    hashes.sort()
    if (hashes[1:] == hashes[:-1]).any():
        names = set[str]()
        for row, track in enumerate(found):
            if track.track_id in names:
                _refuse(lines, kept, row, f"a track_id used before ({track.track_id!r})")
            names.add(track.track_id)
    return found


def _shared(column: pa.Array, known: dict[str, str]) -> list[str]:
    """Return a column's cells so that equal ones are one object: most columns of a large manifest repeat themselves."""
    coded = column.dictionary_encode()
    words = coded.dictionary.to_pylist()
    words = [known.setdefault(word, word) if len(known) < SHARED else known.get(word, word) for word in words]
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


# --- what is on disk --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Holdings:
    """What was found of a manifest's recordings, as track ids in the manifest's order.

    Attributes
    ----------
    good : tuple of str
        Present, and its bytes are those of the manifest's SHA-256.
    unhashed : tuple of str
        Present, but the manifest holds no SHA-256 to compare with.
    missing : tuple of str
        No such file.
    corrupt : tuple of str
        Present, but its bytes differ from the manifest's SHA-256.
    unreadable : dict of str
        Present, but not to be read: track id -> why.
    """

    good: tuple[str, ...]
    unhashed: tuple[str, ...]
    missing: tuple[str, ...]
    corrupt: tuple[str, ...]
    unreadable: dict[str, str]

    @property
    def sound(self) -> bool:
        """Whether nothing is corrupt or unreadable; recordings may be missing."""
        return not self.corrupt and not self.unreadable


def holdings(tracks: Sequence[Track], *, workers: int = 2) -> Holdings:
    """Compare the files of a manifest with what it says about them.

    Parameters
    ----------
    tracks : sequence of Track
        From ``read_manifest`` or ``read_splits``.
    workers : int
        Files that are read at a time.
    """
    with ThreadPoolExecutor(workers) as pool:
        states = list(pool.map(_state, tracks, chunksize=64))
    kinds: dict[str, list[str]] = {name: [] for name in ("good", "unhashed", "missing", "corrupt")}
    unreadable = {}
    for track, state in zip(tracks, states, strict=True):
        if state in kinds:
            kinds[state].append(track.track_id)
        else:
            unreadable[track.track_id] = state
    return Holdings(**{name: tuple(ids) for name, ids in kinds.items()}, unreadable=unreadable)


def _state(track: Track) -> str:
    """Return good, unhashed, missing or corrupt, or why a file cannot be read."""
    path = Path(track.path)
    try:
        if not track.sha256:
            with path.open("rb"):
                return "unhashed"
        return "good" if file_hash(path) == track.sha256 else "corrupt"
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return reason_of(error)


def disagreement(track: Track, found: Mapping[str, Any]) -> str:
    """Say in what a file that was opened is not what its manifest says: other bytes, another length; or nothing.

    A length is rounded in many tables, and taken from a header in others: a second, or a twentieth, is no disagreement.

    Parameters
    ----------
    track : Track
        A row of the manifest.
    found : mapping
        ``sha256`` and ``duration_s`` (s) of the file.
    """
    if track.sha256 and track.sha256 != found["sha256"]:
        return "its bytes differ from the manifest's sha256; restore the file or its hash"
    told, there = track.duration_s, float(found.get("duration_s") or 0)
    if told == told and abs(told - there) > max(1.0, 0.05 * there):
        return (
            f"the manifest says {told:.1f} s and the file holds {there:.1f} s: files are taken whole, so cut it, or "
            "correct duration_s or leave it empty"
        )
    return ""


# --- draws by lot -----------------------------------------------------------------------------------------------------


def named(tracks: Sequence[Track], ids: Mapping[str, str]) -> dict[str, Path]:
    """Return the recordings of some tracks, by what they are wanted for: ``{"nonmember": "t17"}`` to its path.

    Raises
    ------
    ManifestError
        A track_id that the manifest does not have.
    """
    paths = {track.track_id: track.path for track in tracks}
    for kind, track_id in ids.items():
        if track_id not in paths:
            raise ManifestError(
                f"{kind} is to be track {track_id!r}, which is not in the manifest{nearest(track_id, paths)}"
            )
    return {kind: paths[track_id] for kind, track_id in ids.items()}


def draw(tracks: Sequence[Track], count: int, *, seed: int = 0, without: Iterable[Path] = ()) -> list[Track]:
    """Draw tracks by lot for what is too costly to run on all: as many of each split, and evenly over its artists.

    The lot hashes names and seed, and roles count only where there are no splits: a scoring run, which knows no roles
    yet, and a page, which does, draw the same tracks.

    Parameters
    ----------
    tracks : sequence of Track
        From ``read_manifest`` or ``read_splits``.
    count : int
        How many; 0, or more than there are, means all.
    seed : int
        Another seed is another lot.
    without : iterable of Path
        Recordings that must stay out, because they serve another purpose.

    Returns
    -------
    list of Track
        In manifest order.
    """

    def lot(name: str) -> str:
        return sha256(f"{seed}:{name}")

    kept_out = set(without)
    free = [track for track in tracks if track.path not in kept_out]
    sides: dict[str, list[tuple[int, str, Track]]] = {}
    turns: Counter[tuple[str, str]] = Counter()
    for track in sorted(free, key=lambda t: lot(t.track_id)):
        side = track.split or track.role
        sides.setdefault(side, []).append((turns[side, track.artist], lot(track.artist), track))
        turns[side, track.artist] += 1
    in_turn = [
        (turn, lot(side), track.track_id)
        for side, rows in sides.items()
        for turn, (*_, track) in enumerate(sorted(rows, key=lambda row: row[:2]))
    ]
    drawn = {name for *_, name in sorted(in_turn)[: count or None]}
    return [track for track in free if track.track_id in drawn]


if __name__ == "__main__":
    for file_name, text in schema_texts().items():
        (Path(sys.argv[1]) / file_name).write_text(text, encoding="utf-8")


# --- the record of an audit -------------------------------------------------------------------------------------------


def record_path(name: str) -> Path:
    """Return where a record called ``name`` lies: ``data_manifests/artists/<name>.csv`` of the project.

    Raises
    ------
    ManifestError
        A name that is not lower-case letters, digits and hyphens.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", name):
        raise ManifestError(f"expected a name of lower-case letters, digits and hyphens, got {name!r}; choose another")
    return project_root() / "data_manifests" / "artists" / f"{name}.csv"


def write_record(intake: Any, path: Path, *, title: str) -> tuple[Path, Path]:
    """Write the usable tracks of an audit's ``Intake`` as a manifest and its card; paths are relative to its ``root``.

    Returns
    -------
    Path, Path
        The CSV and the card. Read it again with ``read_manifest(path, root=…)``.

    Raises
    ------
    ManifestError
        Either exists: a record is not overwritten. Or its folder cannot be written to.
    """
    import pandas as pd

    card = path.with_suffix(".card.yml")
    for target in (path, card):
        if target.exists():
            raise ManifestError(f"{target.name}: exists, and a record is not overwritten; choose another name")
    fields = ("artist", "work", "caption", "duration_s", "sha256", "released", "licence", "source")
    rows = [
        {"track_id": t.track_id, "path": "./" + t.path.absolute().relative_to(intake.root).as_posix(), "role": t.role}
        | {name: getattr(t, name) for name in fields}
        for t in intake.tracks
    ]
    facts = {
        "title": title,
        "version": 1,
        "licence": "not stated",
        "citation": "not stated",
        "membership": "unknown: an audit's suspects and held-out recordings",
        "audio": ", ".join(sorted(set(intake.files.loc[intake.files["reason"] == "", "format"]))),
        "known_biases": list(intake.imbalances),
        "counts": {"tracks": len(rows), **intake.counts(), "left_out": len(intake.exclusions)},
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_csv(pd.DataFrame(rows), path, bare=("track_id", "path"))
        write_whole(card, yaml.safe_dump(facts, sort_keys=False, allow_unicode=True))
    except OSError as error:
        raise ManifestError(f"{path.parent.name}: cannot be written to ({reason_of(error)})") from None
    return path, card
