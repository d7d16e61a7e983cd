"""What an audit report holds (``report.json``, version 1), and its files on disk.

The JSON Schema is published as ``book/_static/report.schema.json`` (``python -m earwitness.audit.report FILE`` writes
it; a test compares the two). Everything in a report follows from the recordings, the weights and the settings, but for
the one line ``made``. Recordings are named by number; ``name`` is empty in a redacted report.

``scores-<i>.csv`` holds one row per segment and one column per attack; of a MIDI file a segment's place in it
(``window``) too, by which segments are chosen. Numbers are written so that they read back exactly. Nothing in it comes
from a name or a caption, so no cell can be a formula. All files are hashed and written whole, the record last.

Book page: *Audit your own*.
"""

from __future__ import annotations

import glob
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from shutil import which
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from earwitness.errors import InputError
from earwitness.stats.units import ScoreColumns
from earwitness.stats.verdict import Word
from earwitness.types import WINDOW
from earwitness.util import reason_of, write_whole

SCHEMA_VERSION: Literal[1] = 1
Number = float | None


# --- the record -------------------------------------------------------------------------------------------------------


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Estimate(_Record):
    """A number with its 95 % limits; null where it cannot be said."""

    value: Number
    low: Number
    high: Number


class Side(_Record):
    """One side of the comparison, after exclusions."""

    tracks: int
    minutes: Number
    artists: int
    formats: dict[str, int] = Field(description="file format -> recordings")


class Testable(_Record):
    """What could be said before any model was run."""

    answer: bool
    smallest_detectable_auc: Number
    units_needed: int = Field(description="recordings on each side that the rule asks for at least")
    blind_p: Number = Field(description="p-value of the blind features alone, before any model was run")
    cost: str
    reasons: list[str]
    mends: list[str] = Field(description="what would make it testable")


class Level(_Record):
    """How often the whole rule says evidence when the same recordings are dealt to the two sides by lot."""

    deals: int
    evidence: int
    rejected: int = Field(description="deals in which the primary test alone rejects")
    rate: Estimate
    alpha: float


class Shift(_Record):
    """How often the rule says evidence when nothing was trained on and the two sides differ in one cause."""

    cause: str
    hidden: bool = Field(description="built so that the blind features cannot show it")
    sd: float = Field(
        description="difference of the sides in standard deviations of the cause, at the worst dose tried"
    )
    evidence: Estimate
    noticed: float = Field(description="share of these audits that came out as not testable")


class Shifts(_Record):
    """The curve of shifts, and where its material comes from."""

    material: Literal["own", "pocket"]
    n_suspect: int
    n_held_out: int
    audits: int
    gate_sd: Number = Field(description="smallest shift of one blind feature that the gate sees four times in five")
    rows: list[Shift]


class Control(_Record):
    """The control model: the difference to it is what was tested."""

    name: str
    revision: str
    known_from: str


class Rank(_Record):
    """The suspects' artist among reference artists."""

    p_value: float
    floor: float
    references: int
    tracks_each: int


class Result(_Record):
    """One model."""

    model: str
    badge: str = Field(pattern="^(pocket|tiny|real)$")
    family: str
    revision: str = Field(description="SHA-256 over weights, configuration and tokenizer")
    verdict: Word
    reasons: list[str]
    notes: list[str]
    p_value: Number
    p_holm: Number
    p_direction: Number
    p_opposite: Number
    blind_p: Number
    blind_auc: Number
    blind_explained: Number = Field(description="share of the score's variance that blind features foresee")
    residual_p: Number
    unseen_sd: Number = Field(description="standard deviations of a hidden difference that would explain it")
    auc: Estimate
    auc_within: Estimate
    hedges_g: Estimate
    e_value: Number
    n_suspect: int
    n_held_out: int
    n_segments: int
    segments_per_unit: int
    smallest_detectable_auc: Number
    excluded: dict[str, int]
    labellings: int | None
    exact: bool | None
    design: str
    features: list[str]
    features_hash: str
    scores: str = Field(description="file of the report folder that holds the scores")
    control: Control | None = None
    control_scores: str = ""
    rank: Rank | None = None
    rank_scores: str = Field(default="", description="file of the report folder with the scores behind the rank")
    level: Level | None = None
    shifts: Shifts | None = None


class Recording(_Record):
    """One recording that was compared."""

    number: str
    role: Literal["suspect", "held_out"]
    name: str
    sha256: str
    artist: str
    pair: str
    scores: list[Number] = Field(description="pre-oriented sum per model that was run, in the order of ``results``")


class Reference(_Record):
    """One recording of a reference artist."""

    number: str
    artist: str
    name: str
    sha256: str


class Exclusion(_Record):
    """One recording that was left out."""

    name: str
    role: str
    reason: str


class Picture(_Record):
    """A recording shown: files of the report folder."""

    number: str
    label: Literal["strongest", "weakest"]
    picture: str
    audio: str = ""


class Frozen(_Record):
    """Whether the plan was fixed before scoring."""

    checked: bool
    frozen_at: str = ""
    file_sha256: str = ""


class Repeat(_Record):
    """What it takes to do it again."""

    command: str
    manifest_hash: str
    texts_hash: str
    seed: int
    seed_from: Literal["manifest", "given"]
    alpha: float
    permutations: int
    deals: int
    pairs: str
    code: str
    lock: str
    machine: str
    versions: dict[str, str]
    dtype: str = Field(default="float32", exclude_if="float32".__eq__, description="type of number of every model")
    files: dict[str, str] = Field(description="file of the report folder -> SHA-256")
    unit: Literal["work", "track"] = Field(
        default="track", exclude_if=lambda unit: unit == "track", description="what was counted; older reports: track"
    )


class Report(_Record):
    """An audit, whole. Printed, it is the verdict and the answer; everything else is in its fields.

    Attributes
    ----------
    schema_version : int
        Version of this layout.
    made : str
        The one line that differs between two runs: date, time taken, which run on these recordings it was.
    redacted : bool
        Names and paths were left out.
    verdict : str
        ``"evidence"``, ``"no evidence"`` or ``"not testable"``, over all models.
    answer : str
        The verdict in a sentence or two for each model.
    suspects, held_out : Side
        What was compared: recordings, minutes, artists, file formats.
    testable : Testable
        What could be said before any model was run, and what would make a test possible (``mends``).
    results : list of Result
        One per model: verdict, reasons, p-values, AUC with limits, checks of the procedure.
    recordings : list of Recording
        Every recording that was compared: number, side, name, hash, artist, scores.
    references : list of Reference
        Recordings of the reference artists.
    pictures : list of Picture
        The recordings that are shown, with the names of their files.
    exclusions : list of Exclusion
        What was left out, and why.
    duplicates, works, imbalances : list of str
        A sentence for each pair of copies, for each work that recordings were joined to, and for each way in which the
        sides differ.
    frozen : Frozen
        Whether a plan was fixed before scoring, and when.
    repeat : Repeat
        What it takes to do it again: command, seed, settings, hashes, versions.
    """

    model_config = ConfigDict(json_schema_extra={"description": "An audit, whole."})
    schema_version: Literal[1] = SCHEMA_VERSION
    made: str = Field(description="the one line that differs between two runs: date, run, time taken")
    redacted: bool
    verdict: Word
    answer: str
    suspects: Side
    held_out: Side
    testable: Testable
    results: list[Result] = Field(min_length=1)
    recordings: list[Recording]
    references: list[Reference]
    pictures: list[Picture]
    exclusions: list[Exclusion]
    duplicates: list[str]
    works: list[str] = Field(default=[], exclude_if=lambda works: not works)
    imbalances: list[str]
    frozen: Frozen
    repeat: Repeat

    def __str__(self) -> str:
        """Return the verdict and the answer."""
        return f"{self.verdict}: {self.answer}"

    __repr__ = __str__


def schema_text() -> str:
    """Return the JSON Schema as it is published."""
    return json.dumps(Report.model_json_schema(), indent=2, sort_keys=True) + "\n"


RECORD, PAGE, PRINT = "report.json", "report.html", "report.pdf"
# --- the files --------------------------------------------------------------------------------------------------------

KEYS = ["track_id", "segment_id", "artist", "work", "role"]
UNFINISHED = ".report.unfinished"  # there while a report is written
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def scores_bytes(scores: pd.DataFrame) -> bytes:
    """Return a tidy score table as the bytes of its file."""
    order = list(dict.fromkeys(scores["attack"]))
    keys = _keys(scores)
    wide = scores.set_index([*keys, "attack"])["score"].unstack().sort_index()  # noqa: PD010 (refuses duplicates)
    return wide[order].reset_index().to_csv(index=False).encode()


def read_columns(content: bytes) -> ScoreColumns:
    """Return the scores that a file holds, exactly as written, one row per segment as in the file."""
    wide = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
    keys, wide = _keys(wide), wide.astype({WINDOW: int} if WINDOW in wide else {})
    scores = wide.drop(columns=keys).replace("", "nan").astype(np.float64)
    return ScoreColumns(wide[keys], tuple(map(str, scores)), scores.to_numpy(), np.zeros(scores.shape, dtype=bool))


def read_scores(content: bytes) -> pd.DataFrame:
    """Return the tidy score table that a file of scores holds, exactly as written."""
    held = read_columns(content)
    scores = pd.DataFrame(held.scores, columns=list(held.attacks))
    return held.keys.join(scores).melt(list(held.keys), var_name="attack", value_name="score")


def _keys(table: pd.DataFrame) -> list[str]:
    """Columns that name a segment; a score's has its place too."""
    return [*KEYS, *([WINDOW] if WINDOW in table else [])]


def check_place(out: Path, recordings: Iterable[Path] = ()) -> None:
    """Refuse a folder that holds something else than an earlier report, or lies where recordings are looked for.

    Parameters
    ----------
    out : Path
        Folder of the report.
    recordings : iterable of Path
        Folders of recordings: the next audit would take the sound in a report for one of them.

    Raises
    ------
    InputError
        The folder is not empty and holds no report, lies inside a folder of recordings, or cannot be written to.
    """
    place = Path(os.path.realpath(out))  # unlike resolve it takes loops of links, which are named where they are read
    within = next((given for given in recordings if place.is_relative_to(os.path.realpath(given))), None)
    if within is not None:
        raise InputError(
            f"{out.name}: lies in {within.name}, where the next audit would take its sound for a recording; choose a "
            "folder outside"
        )
    if out.exists() and not out.is_dir():
        raise InputError(f"{out.name}: expected a folder for the report, found a file; choose another name")
    if out.is_dir() and any(out.iterdir()) and not (_earlier(out) or (out / UNFINISHED).is_file()):
        raise InputError(
            f"{out.name}: not empty and no report of this version; choose a new folder, "
            "nothing of yours is written over"
        )
    try:  # the folder itself is made with the report: an audit that is refused leaves nothing behind
        tempfile.TemporaryFile(dir=next(place for place in (out, *out.absolute().parents) if place.is_dir())).close()
    except OSError as error:
        raise InputError(f"{out.name}: cannot be written to ({reason_of(error)}); choose another folder") from None


def write(report: Report, files: Mapping[str, bytes], page: str, out: Path) -> None:
    """Write a report with its files; what an earlier report left and this one does not have is removed.

    Each file is written whole or not at all, the record last. An interruption leaves a mark by which ``read`` refuses
    the folder and the next run may write it again.
    """
    record = report.model_dump_json(indent=1) + "\n"
    wanted = {**files, PAGE: page.encode(), RECORD: record.encode()}
    out.mkdir(parents=True, exist_ok=True)
    mark = out / UNFINISHED
    named = mark.read_text(encoding="utf-8").splitlines() if mark.is_file() else []
    earlier = _earlier(out)
    ours = {*wanted, *named, *(earlier.repeat.files if earlier else ()), *([PRINT] if earlier or named else [])}
    mark.write_text("\n".join(sorted(ours)), encoding="utf-8")  # so that what an interruption leaves is known as ours
    for name, content in wanted.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    for name in filter(_inside, ours):
        path = out / name
        for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
            part.unlink(missing_ok=True)
        if name not in wanted:
            path.unlink(missing_ok=True)
    mark.unlink()


def _earlier(out: Path) -> Report | None:
    """Return the record of an earlier report; none where a file only bears its name."""
    try:
        return Report.model_validate_json((out / RECORD).read_bytes())
    except (OSError, ValidationError):
        return None


def _inside(name: str) -> bool:
    """Whether a name that a record gives lies in its folder."""
    return not Path(name).is_absolute() and ".." not in Path(name).parts


def read(folder: Path) -> tuple[Report, dict[str, bytes]]:
    """Read a report and the files it names (those that are there).

    Raises
    ------
    InputError
        No report, one that was not finished, one that is damaged, or one of another version.
    """
    if (folder / UNFINISHED).exists():
        raise InputError(f"{folder.name}: the audit was interrupted while it wrote this; run the same command again")
    try:
        report = Report.model_validate_json((folder / RECORD).read_bytes())
    except OSError as error:
        reason = reason_of(error)
        raise InputError(f"{folder.name}: expected a report folder with {RECORD}, {reason}; check the path") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(
            f"{folder.name}/{RECORD}: {where}: {first['msg']}; it was changed, or another version of Earwitness wrote "
            "it and is the one to verify it"
        ) from None
    files = {}
    for name in report.repeat.files:
        path = folder / name
        if not _inside(name):
            raise InputError(f"{folder.name}/{RECORD}: names a file outside the report; it was changed")
        if path.is_file():
            files[name] = path.read_bytes()
    return report, files


def print_pdf(out: Path) -> str:
    """Print ``report.html`` to ``report.pdf`` with a headless Chromium; return why not, or an empty string."""
    browser = next(filter(None, map(which, BROWSERS)), None)
    if browser is None:
        return "no PDF: no Chromium on this machine; open report.html and print it"
    root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory() as profile:
        command = [
            browser, "--headless", *root, "--disable-gpu", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", f"--user-data-dir={profile}", "--no-pdf-header-footer",
            f"--print-to-pdf={(out / PRINT).resolve()}", (out / PAGE).resolve().as_uri(),
        ]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, timeout=120, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return "no PDF: Chromium did not finish; open report.html and print it"
    return "" if done.returncode == 0 and (out / PRINT).is_file() else "no PDF: Chromium failed; print report.html"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(schema_text(), encoding="utf-8")
