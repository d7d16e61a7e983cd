"""From official files and a folder of audio to a manifest and its card: the steps that are the same for every corpus.

Read and check, draw one caption per track, find the recordings on disk, count what is gone, set copies apart, draw
comparable members and non-members, write. Everything is written or nothing is, and nothing is overwritten unasked.

Copies of one recording get one ``work``, by the same rule as in an audit (``data.copies``): of copies within one split
one stays; of copies in several splits none does, because one of them may have trained a model under the other's name.
The book pages *Methods: manifests* and *Copies* show the command and how many copies are found.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd
import yaml

from earwitness.data import decode_pool, fingerprint
from earwitness.data.audio import SUFFIXES
from earwitness.data.containers import content_hash
from earwitness.data.copies import ACROSS, collections_of, families, left_out, links_of
from earwitness.data.decode_pool import probe
from earwitness.data.fingerprint import SPEC
from earwitness.data.folders import BINS
from earwitness.data.manifest import DATE, CorpusCard
from earwitness.errors import AudioError, ManifestError
from earwitness.symbolic.midi import survey
from earwitness.symbolic.windows import FigaroScheme, SymbolicSpec
from earwitness.types import SCORES, Track
from earwitness.util import counted, inside, reason_of, write_csv
from earwitness_build.corpora import matching
from earwitness_build.corpora.official import Official
from earwitness_build.corpora.registry import Builder, find

NOTES = SymbolicSpec(FigaroScheme())  # the words of a score are those of the file, whatever a model makes of it
COPIES = "copies"
MEANING = "copies of recordings: of those within one split all but one, of those in several splits all"


def set_apart(rows: pd.DataFrame, root: Path, *, scores: bool = False) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows with copies moved to the split ``copies``, and sentences that say how many there were.

    Parameters
    ----------
    rows : pandas.DataFrame
        One row per recording: ``track_id, path, split, work``.
    root : Path
        What the paths are relative to.
    scores : bool
        The files are MIDI files: copies share notes, in any key and tempo, instead of sound.
    """
    tracks = [
        Track(name, root / path, split)
        for name, path, split in zip(rows["track_id"], rows["path"], rows["split"], strict=True)
    ]
    told = decode_pool.inspect([track.path for track in tracks], NOTES if scores else SPEC)
    facts = {track.track_id: answer for track, answer in zip(tracks, told, strict=True) if "words" in answer}
    known = [track for track in tracks if track.track_id in facts]
    prints = {name: answer["words"] for name, answer in facts.items()}
    links = links_of(fingerprint.duplicates(known, prints, scores=scores), facts)
    left = left_out(known, links, facts)
    split = [COPIES if track.track_id in left else track.role for track in tracks]
    works = dict(zip(rows["track_id"], rows["work"], strict=True))
    for family in families(facts, links, apart=collections_of(links, facts)):
        works |= dict.fromkeys(family, works[family[0]] or f"copies of {family[0]}")
    between = sum(ACROSS in reason for reason in left.values())
    within = len(left) - between
    notes = []
    if within or between:
        notes.append(f"{within} copies within a split and {between} across splits were set apart (split {COPIES})")
    if len(facts) < len(tracks):
        lost = [(t.path.name, a["reason"]) for t, a in zip(tracks, told, strict=True) if "words" not in a]
        notes.append(
            f"{len(lost)} recordings could not be decoded and were not looked through for copies; the first: "
            + ": ".join(lost[0])
        )
    return rows.assign(split=split, work=[works[name] for name in rows["track_id"]]), notes


TEXT = ("artist", "work", "caption", "licence", "source", "released")
COLUMNS = ("track_id", "path", "artist", "work", "split", "caption", "duration_s", "sha256", "licence", "source",
           "released")  # fmt: skip
REST = "-rest"  # split of what has no counterpart on the other side


@dataclass(frozen=True)
class Built:
    """What ``build`` wrote: ``counts`` has one row per split (``split, published, found, gone, drawn``)."""

    manifest: Path
    card: Path
    gone: Path
    counts: pd.DataFrame
    notes: tuple[str, ...]


def build(
    name: str,
    folder: Path,
    *,
    audio: Path | None = None,
    out: Path | None = None,
    seed: int = 0,
    match: bool = True,
    copies: bool = True,
    any_version: bool = False,
    force: bool = False,
) -> Built:
    """Write the manifest and card of a corpus.

    Parameters
    ----------
    name : str
        One of ``registry.builders()``.
    folder : Path
        The official files, at any depth.
    audio : Path, optional
        The recordings, at any depth and in any format that is read; default ``folder``. Paths are relative to it.
    out : Path, optional
        The manifest; default ``<audio>/<name>.csv``, so that it needs no root. Beside it go ``<name>.card.yml`` and
        ``<name>.gone.csv``, which lists the recordings that are not there.
    seed : int
        Of captions and matching.
    match : bool
        Move what has no counterpart of similar length, caption and artist on the other side into splits of its own.
    copies : bool
        Look for copies of one recording by sound, of one score by its notes, and set them apart before anything is
        matched.
    any_version : bool
        Take official files with another number of records than published.
    force : bool
        Overwrite an earlier manifest.

    Raises
    ------
    InputError
        No such corpus.
    ManifestError
        Official files that cannot be used, two recordings for one id, none at all, an earlier manifest.
    """
    corpus = find(name)
    root = audio or folder
    target = out or root / f"{name}.csv"
    files = [target, target.with_suffix(".card.yml"), target.with_suffix(".gone.csv")]
    for path in files:
        if path.is_dir():
            raise ManifestError(f"{path.name}: is a folder; name another manifest")
        if path.exists() and not force:
            raise ManifestError(f"{path.name}: exists; --force builds it again")
    official = Official(
        folder, corpus.expected, any_version=any_version, card=f"lib/earwitness_build/corpora/{corpus.name}.card.yml"
    )
    rows, undated = _dated(_complete(corpus, corpus.read(official)))
    if official.paths & {path.resolve() for path in files}:
        raise ManifestError(f"{target.name}: is one of the official files; name another manifest")
    rows = matching.one_caption(rows, seed).reset_index(drop=True)
    published = rows["split"].value_counts()
    rows = _located(rows, root, corpus)
    gone, rows = rows[rows["path"] == ""], rows[rows["path"] != ""].copy()
    if rows.empty:
        names = ", ".join(gone["audio"].iloc[0])
        raise ManifestError(
            f"{root}: none of {len(gone)} recordings found; the first was looked for as {names} with one of the "
            f"suffixes {', '.join(sorted(corpus.suffixes))}"
        )
    rows = _measured(rows, root, corpus)
    notes = [*official.notes, *undated, *_notes(rows, gone)]
    found = rows["split"].value_counts()
    if copies:
        rows, more = set_apart(rows, root, scores=corpus.suffixes <= SCORES)
        notes += more
    if match and corpus.sides:
        member, nonmember = (rows["split"].isin(side) for side in corpus.sides)
        drawn = matching.matched(rows, member, nonmember, seed, corpus.alike)
        rows["split"] = rows["split"].where(drawn | ~(member | nonmember), rows["split"] + REST)
        if not drawn.any():
            notes.append(_unmatched([int(member.sum()), int(nonmember.sum())], corpus))
    counts = pd.DataFrame({"published": published, "found": found}).fillna(0).astype(int)
    counts["gone"] = counts["published"] - counts["found"]
    counts["drawn"] = rows["split"].value_counts().reindex(counts.index, fill_value=0)
    card = _card(corpus.card, rows, counts, official, notes, seed)
    _write(files, rows, gone, card)
    return Built(files[0], files[1], files[2], counts.rename_axis("split").reset_index(), tuple(notes))


def _complete(corpus: Builder, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the reader's rows with every column; refuse an id whose rows differ in more than captions."""
    rows = rows.reset_index(drop=True)
    for column in TEXT:
        rows[column] = rows[column].fillna("").astype(str) if column in rows else ""
    rows["duration_s"] = rows["duration_s"].astype(float) if "duration_s" in rows else float("nan")
    if rows.empty:
        raise ManifestError(f"{corpus.name}: the official files list no recording; fetch them again")
    for column, what in (("split", "splits"), ("audio", "recordings"), ("licence", "licences")):
        many = rows.drop_duplicates(["track_id", column])["track_id"]
        if many.duplicated().any():
            name = many[many.duplicated()].iloc[0]
            of = " and ".join(map(str, rows.loc[rows["track_id"] == name, column].drop_duplicates()[:2]))
            raise ManifestError(f"{corpus.name}: {name!r} is listed with two {what} ({of}); mend the official files")
    return rows


def _dated(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows without release dates that no manifest may hold, and a note that counts and quotes them."""
    bad = ~rows["released"].str.fullmatch(f"({DATE})?")
    if not bad.any():
        return rows, []
    tracks, first = rows.loc[bad, "track_id"].nunique(), rows.loc[bad, "released"].iloc[0]
    note = f"{counted(tracks, 'release date')} of the official files can be no date (first: {first!r}): left empty"
    return rows.assign(released=rows["released"].mask(bad, "")), [note]


def _located(rows: pd.DataFrame, root: Path, corpus: Builder) -> pd.DataFrame:
    """Return the rows with ``path`` filled in where a recording was found under ``root``, and empty elsewhere."""
    found: dict[str, list[str]] = {}
    for here, folders, names in os.walk(root):
        folders[:] = sorted(folder for folder in folders if folder.lower() not in BINS)
        for name in names:
            if PurePosixPath(name).suffix.lower() in corpus.suffixes and not name.startswith("."):
                relative = (Path(here) / name).relative_to(root).as_posix()
                found.setdefault(PurePosixPath(name).stem, []).append(relative)
    paths = [_path(names, found, root) for names in rows["audio"]]
    used = pd.Series([path for path in paths if path])
    if used.duplicated().any():
        raise ManifestError(f"{used[used.duplicated()].iloc[0]}: would be the recording of two tracks; rename it")
    return rows.assign(path=paths)


def _path(names: Sequence[str], found: dict[str, list[str]], root: Path) -> str:
    """Return the path of the recording that has one of ``names``, tried in this order; empty if none has."""
    for name in names:
        stem = name.rpartition("/")[2]
        fits = [p for p in found.get(stem, ()) if f"/{p}".rpartition(".")[0].endswith(f"/{name}")]
        if len(fits) > 1:
            raise ManifestError(f"{name}: expected one recording of this name, found {fits[0]} and {fits[1]}; keep one")
        if fits and not inside(root / fits[0], root.resolve()):
            return fits[0]
    return ""


def _measured(rows: pd.DataFrame, root: Path, corpus: Builder) -> pd.DataFrame:
    """Return the rows with SHA-256, the length from the header where no official file tells it, and a score's notes."""
    hashes, lengths, notes = [], [], []
    for path, told in zip(rows["path"], rows["duration_s"], strict=True):
        try:
            hashes.append(content_hash(root / path))
            suffix = PurePosixPath(path).suffix.lower()
            audible = suffix in SUFFIXES | SCORES
            lengths.append(probe(root / path).duration_s if pd.isna(told) and audible else told)
        except AudioError as error:
            if len(hashes) == len(lengths):
                raise ManifestError(f"{path}: {error}; mend it and build again") from None
            lengths.append(float("nan"))  # scoring will leave it out and say why
        readable = suffix in SCORES and not pd.isna(lengths[-1])
        notes.append(survey((root / path).read_bytes()).notes if readable else float("nan"))
    return rows.assign(sha256=hashes, duration_s=lengths, notes=notes)


def _unmatched(counts: Sequence[int], corpus: Builder) -> str:
    """Say why matching drew nothing: a side (members, non-members) without recordings, or no cell that both have."""
    for here, side, splits in zip(counts, ("member", "non-member"), corpus.sides, strict=False):
        if not here:
            return (
                f"no {side} is left ({' and '.join(splits)}: gone, or copies), so nothing could be matched and the "
                "other side is in -rest; build with --no-match to keep its splits"
            )
    return (
        f"none of {counts[0]} members and {counts[1]} non-members agree in {', '.join(corpus.alike)}: everything is in "
        "-rest; build with --no-match to compare them as they are"
    )


def _notes(rows: pd.DataFrame, gone: pd.DataFrame) -> list[str]:
    """Say what a reader of the manifest should know about it."""
    notes = []
    for split, n in gone["split"].value_counts(sort=False).items():
        total = n + (rows["split"] == split).sum()
        notes.append(f"{n} of {total} recordings of {split} are gone")
    bare = int((rows["licence"].str.strip() == "").sum())
    if bare:
        notes.append(f"{bare} of {len(rows)} recordings have no licence in the official files")
    return notes


def _card(
    card: CorpusCard, rows: pd.DataFrame, counts: pd.DataFrame, official: Official, notes: list[str], seed: int
) -> CorpusCard:
    """Return the corpus's card with what was found and drawn."""
    splits = dict(card.splits)
    if COPIES in set(rows["split"]):
        splits[COPIES] = MEANING
    for split in sorted(set(rows["split"])):
        if split.endswith(REST):
            splits[split] = f"recordings of {split.removesuffix(REST)} without a counterpart on the other side"
    held = set(rows["split"])
    targets = {
        model: {role: [split for split in names if split in held] for role, names in roles.items()}
        for model, roles in card.targets.items()
    }
    kept = {model: {role: names for role, names in roles.items() if names} for model, roles in targets.items()}
    numbers = {"tracks": len(rows), "gone": int(counts["gone"].sum()), "seed": seed}
    held_notes = rows["notes"].dropna().astype(int)  # of scores
    if len(held_notes):
        fewest, most = int(held_notes.min()), int(held_notes.max())
        numbers |= {"notes": int(held_notes.sum()), "fewest_notes_in_a_track": fewest, "most_notes_in_a_track": most}
    return card.model_copy(
        update={
            "splits": {split: text for split, text in splits.items() if split in held},
            "counts": numbers | rows["split"].value_counts().to_dict(),
            "files": dict(official.files),
            "captions": official.captions,
            "known_biases": [*card.known_biases, *notes],
            "targets": {model: roles for model, roles in kept.items() if roles},
            "sources": {model: text for model, text in card.sources.items() if kept.get(model)},
        }
    )


def _write(files: Sequence[Path], rows: pd.DataFrame, gone: pd.DataFrame, card: CorpusCard) -> None:
    """Write manifest, card and list of what is gone: all three, or none."""
    manifest, beside, lost = files
    try:
        manifest.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=manifest.parent, prefix=".building-") as place:
            made = [Path(place) / path.name for path in files]
            write_csv(rows[list(COLUMNS)], made[0], bare=("track_id", "path"))
            made[1].write_text(
                yaml.safe_dump(card.model_dump(exclude_defaults=True), sort_keys=False, allow_unicode=True, width=120),
                encoding="utf-8",
            )
            write_csv(gone[["track_id", "split", "source"]], made[2], bare=("track_id",))
            for part, path in zip(reversed(made), (lost, beside, manifest), strict=True):
                part.replace(path)
    except OSError as error:
        raise ManifestError(f"{manifest.parent}: cannot be written to ({reason_of(error)})") from None
