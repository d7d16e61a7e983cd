"""What an audit report holds (``report.json``, version 2; version 1 is read), and its files on disk.

The JSON Schema is published as ``book/_static/report.schema.json`` (``python -m earwitness.audit.report FILE`` writes
it; a test compares the two). Everything in a report follows from the recordings, the weights and the settings, but for
the one line ``made``. Recordings are named by number; ``name`` is empty in a redacted report.

``scores-<i>.csv`` holds one row per segment and one column per attack; of a MIDI file a segment's place in it
(``window``) too, by which segments are chosen. Numbers are written so that they read back exactly. Nothing in it comes
from a name or a caption, so no cell can be a formula. All files are hashed and written whole, the record last.

Book page: *Audit your own*.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from operator import not_
from pathlib import Path
from shutil import which
from typing import Annotated, Literal, TypeVar

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError

from earwitness.errors import InputError, UncheckableError
from earwitness.stats.units import ScoreColumns
from earwitness.stats.verdict import ALPHA, Word
from earwitness.types import WINDOW
from earwitness.util import reason_of, refuse_ambiguous, unreadable, write_folder, write_whole

SCHEMA_VERSION: Literal[2] = 2
MOST_PERMUTATIONS, MOST_DEALS = 1_000_000, 20_000  # what can be computed again in an hour
Number = float | None
Entry = TypeVar("Entry")
Many = Annotated[list[Entry], FailFast()]  # a million wrong entries are refused at the first


# --- the record -------------------------------------------------------------------------------------------------------


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


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
    sha256: str = Field(
        description="of the file; in a redacted report of version 2, its HMAC under a key kept elsewhere"
    )
    artist: str
    pair: str
    scores: Many[Number] = Field(description="pre-oriented sum per model that was run, in the order of ``results``")


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
    numbers: str = Field(default="", exclude_if=not_, description="what the picture is drawn from; since version 2")


class Frozen(_Record):
    """Whether the plan was fixed before scoring."""

    checked: bool
    frozen_at: str = ""
    file_sha256: str = ""


USUAL = {"alpha": ALPHA, "permutations": 9999, "deals": 500}


class Repeat(_Record):
    """What it takes to do it again."""

    command: str
    manifest_hash: str
    texts_hash: str
    seed: int
    seed_from: Literal["manifest", "given"]
    alpha: float
    permutations: int = Field(le=MOST_PERMUTATIONS)
    deals: int = Field(le=MOST_DEALS)
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

    def unusual(self) -> str:
        """Name the settings that are not the defaults, such as ``"alpha 0.05 (0.01)"``; empty if all are."""
        found = [
            f"{name} {value} ({usual})" for name, usual in USUAL.items() if (value := getattr(self, name)) != usual
        ]
        found += [f"seed {self.seed} (derived from the recordings)"] * (self.seed_from == "given")
        return ", ".join(found)


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
    layout : int
        How the page is laid out: 2 has a first page of its own and annexes.
    earwitness, by, made_for : str
        Version that made it; who made it and for whom, as they say themselves.
    """

    model_config = ConfigDict(json_schema_extra={"description": "An audit, whole."})
    schema_version: Literal[1, 2] = SCHEMA_VERSION
    made: str = Field(description="the one line that differs between two runs: date, run, time taken")
    redacted: bool
    verdict: Word
    answer: str
    suspects: Side
    held_out: Side
    testable: Testable
    results: Many[Result] = Field(min_length=1, max_length=100)
    recordings: Many[Recording]
    references: Many[Reference]
    pictures: Many[Picture]
    exclusions: Many[Exclusion]
    duplicates: Many[str]
    works: Many[str] = Field(default=[], exclude_if=lambda works: not works)
    imbalances: Many[str]
    frozen: Frozen
    repeat: Repeat
    layout: Literal[1, 2] = Field(default=1, exclude_if=(1).__eq__, description="how the page is laid out")
    earwitness: str = Field(default="", exclude_if=not_, description="version that made it; in older reports not said")
    by: str = Field(default="", exclude_if=not_, max_length=200, description="who made it, as stated")
    made_for: str = Field(default="", exclude_if=not_, max_length=200, description="for whom, as stated")

    @property
    def sealed(self) -> bool:
        """Whether HMACs stand in place of the hashes of recordings."""
        return self.redacted and self.schema_version > 1

    def __str__(self) -> str:
        """Return the verdict, settings that are not the defaults, and the answer."""
        unusual = self.repeat.unusual()
        return f"{self.verdict}{unusual and f' (not the defaults: {unusual})'}: {self.answer}"

    __repr__ = __str__


def schema_text() -> str:
    """Return the JSON Schema as it is published."""
    return json.dumps(Report.model_json_schema(), indent=2, sort_keys=True) + "\n"


RECORD, PAGE, PRINT = "report.json", "report.html", "report.pdf"
# --- the files --------------------------------------------------------------------------------------------------------

KEYS = ["track_id", "segment_id", "artist", "work", "role"]
UNFINISHED = ".report.unfinished"  # left by an earlier version that was interrupted
OURS = re.compile(r"scores-\d+(-control|-references)?\.csv|pictures/T\d+\.(svg|json)|audio/T\d+\.mp3")
MOST_RECORD, MOST_FILE, MOST_CELLS = 2**24, 2**27, 10_000_000  # bytes, bytes, cells of a table
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
    """Refuse a folder that cannot be replaced as a whole, holds no earlier report, or lies among recordings.

    Parameters
    ----------
    out : Path
        Folder of the report.
    recordings : iterable of Path
        Folders of recordings: the next audit would take the sound in a report for one of them.

    Raises
    ------
    InputError
        The folder is a link, the working folder or a mount, is not empty and holds no report, lies inside a folder of
        recordings, or the folder around it cannot be written to.
    """
    place = Path(os.path.realpath(out))  # unlike resolve it takes loops of links, which are named where they are read
    within = next((given for given in recordings if place.is_relative_to(os.path.realpath(given))), None)
    if within is not None:
        raise InputError(
            f"{out}: lies in {within}, where the next audit would take its sound for a recording; choose a "
            "folder outside"
        )
    if out.is_symlink():
        raise InputError(f"{out}: a link, and nothing is written through links; name the folder it leads to")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: expected a folder for the report, found a file; choose another name")
    if out.is_dir() and (Path.cwd().is_relative_to(place) or place.is_mount()):
        raise InputError(f"{out}: a report replaces its folder as a whole, and this is in use; name a folder inside it")
    if out.is_dir() and any(out.iterdir()) and not _earlier(out):
        raise InputError(
            f"{out}: not empty and no report of this version; choose a new folder, nothing of yours is written over"
        )
    try:  # the folder itself is made with the report: an audit that is refused leaves nothing behind
        tempfile.TemporaryFile(dir=next(above for above in place.parents if above.is_dir())).close()
    except OSError as error:
        reason = reason_of(error)
        raise InputError(f"{out}: the folder around it cannot be written to ({reason}); choose another") from None


def write(report: Report, files: Mapping[str, bytes], page: str, out: Path) -> Path | None:
    """Write a report with its files, whole or not at all; see ``util.write_folder``, whose answer is returned."""
    wanted = {**files, PAGE: page.encode(), RECORD: (report.model_dump_json(indent=1) + "\n").encode()}
    check_place(out)
    earlier = _earlier(out)
    return write_folder(out, wanted, {RECORD, PAGE, PRINT, *(earlier.repeat.files if earlier else ())})


def _earlier(out: Path) -> Report | None:
    """Return the record of an earlier report; none where a file only bears its name."""
    try:
        return _record(out)
    except InputError:
        return None


def _record(folder: Path) -> Report:
    """Read a record; whatever its text may be, it is refused within seconds or follows the schema."""
    try:
        text = _content(folder, RECORD, MOST_RECORD)
        refuse_ambiguous(text)
        report = Report.model_validate_json(text)
    except OSError as error:
        reason = reason_of(error)
        raise InputError(f"{folder}: expected a report folder with {RECORD}, {reason}; check the path") from None
    except (ValueError, RecursionError) as error:
        where, why = "the file", "is nested too deeply" if isinstance(error, RecursionError) else f"{error}"
        if isinstance(error, ValidationError):
            first = error.errors(include_url=False, include_input=False)[0]
            where, why = ".".join(map(str, first["loc"])) or where, first["msg"]
        raise UncheckableError(
            f"{folder}/{RECORD}: {where}: {why}; it was changed, or another version of Earwitness wrote it and is "
            "the one to verify it"
        ) from None
    if any(not OURS.fullmatch(name) for name in report.repeat.files):
        raise UncheckableError(f"{folder}/{RECORD}: names a file outside the report; it was changed")
    return report


def _content(folder: Path, name: str, most: int) -> bytes:
    """Return the bytes of a file of a report; refuse links that leave it, pipes, devices and what is too large."""
    if reason := unreadable(folder / name, folder, most):
        raise UncheckableError(f"{folder}/{name}: {reason}; this is no report as it was written")
    with (folder / name).open("rb") as file:
        return file.read(most)


def read(folder: Path) -> tuple[Report, dict[str, bytes]]:
    """Read a report and the files it names (those that are there).

    Raises
    ------
    InputError
        No report there.
    UncheckableError
        One that was not finished, one that is damaged or beyond the limits, or one of another version.
    """
    if os.path.lexists(folder / UNFINISHED):
        raise UncheckableError(f"{folder}: an earlier version was interrupted while it wrote this; audit again")
    report, files = _record(folder), {}
    for name in report.repeat.files:
        with suppress(FileNotFoundError):
            files[name] = _content(folder, name, MOST_FILE)
            if name.endswith(".csv") and files[name].count(b",") > MOST_CELLS:
                raise UncheckableError(f"{folder}/{name}: more than {MOST_CELLS:,} cells; nothing so large is read")
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
            f"--print-to-pdf={Path(profile, PRINT)}", (out / PAGE).resolve().as_uri(),
        ]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, timeout=120, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return "no PDF: Chromium did not finish; open report.html and print it"
        if done.returncode or not Path(profile, PRINT).is_file():
            return "no PDF: Chromium failed; print report.html"
        write_whole(out / PRINT, Path(profile, PRINT).read_bytes())
    return ""


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(schema_text(), encoding="utf-8")
