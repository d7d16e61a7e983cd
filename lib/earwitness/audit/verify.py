"""Does a report agree with itself? Hashes are compared and the statistics are computed again from the stored scores.

This is consistency, not authenticity: whoever can change the scores can change the report to match. It shows that
nothing was changed afterwards in one place only, and that the words follow from the numbers. Compare the hash of
``report.json`` with one that was noted elsewhere, and run the audit again from the recordings, to know more.

Book page: *Audit your own*.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from earwitness.audit import html, wording
from earwitness.audit.anonymise import manifest_hash, seed_of
from earwitness.audit.examples import EACH
from earwitness.audit.references import SUSPECTS, rank
from earwitness.audit.report import PAGE, RECORD, Report, Result, read_scores
from earwitness.audit.report import read as read_report
from earwitness.audit.scoring import behaving, decide, entry, together, totals, untested
from earwitness.data.folders import scan
from earwitness.errors import EarwitnessError
from earwitness.stats.dataset_inference import COUNTS_ONCE
from earwitness.stats.features import feature_hash, frozen_features
from earwitness.types import ModelInfo
from earwitness.util import VERSION, file_hash, sha256

TOLERANCE = 1e-6  # relative: numbers are written to six digits
TESTED = (  # everything in a result that the tests give
    "verdict", "reasons", "p_value", "p_holm", "p_direction", "p_opposite", "blind_p", "blind_auc", "blind_explained",
    "residual_p", "unseen_sd", "auc",
    "auc_within", "hedges_g", "e_value", "n_suspect", "n_held_out", "n_segments", "segments_per_unit", "excluded",
    "smallest_detectable_auc", "labellings", "exact", "features", "features_hash", "design", "notes", "level", "shifts",
)  # fmt: skip
# column of the stored scores, field of the list of recordings, what a message calls it
LISTED = (("role", "role", "sides"), ("artist", "artist", "artists"), ("work", "pair", "works"))
UNCHECKED = (
    "not checked, because it does not follow from the scores: the frozen plan, exclusions (among references too), "
    "duplicates, imbalances, minutes and formats of the sides, captions and their hash, what was said before a model "
    "was run, the weights, type of number and badge of a model, what a control model saw, what pictures and sound "
    "show, names and whether all were taken out, and when, by which command, machine and versions it was made"
)


@dataclass(frozen=True)
class Verification:
    """Whether a report agrees with its own files. Printed, it is what ``earwitness verify`` says.

    Attributes
    ----------
    consistent : bool
        Nothing disagrees.
    lines : tuple of str
        The answer, each disagreement, what was not checked, and the SHA-256 of ``report.json``.
    """

    consistent: bool
    lines: tuple[str, ...]

    def __str__(self) -> str:
        """Return the lines, one below the other."""
        return "\n".join(self.lines)


def verify(folder: str | Path, recordings: str | Path | Iterable[str | Path] = ()) -> Verification:
    """Compare a report with its own files.

    Parameters
    ----------
    folder : str or Path
        What ``earwitness audit`` wrote.
    recordings : str, Path or iterable of them
        Recordings, or folders of them, whose hashes are compared as well, whatever their names.

    Returns
    -------
    Verification
        ``consistent``, and ``lines``: a line per question.

    Raises
    ------
    InputError
        No report, or a record that cannot be read.
    """
    folder = Path(folder).expanduser()
    report, files = read_report(folder)
    problems = [*_hashes(report, files), *_recordings(report, _listed_in(recordings))]
    problems += _tried(_identity(report), "the parts of the record cannot be compared")
    if not problems:  # scores that were changed have been named; computing with them would only repeat it
        problems += _tried(_statistics(report, files), "the stored scores cannot be tested again")
        problems += _tried(_page(report, files, folder), "the page cannot be drawn from the record")
    seal = file_hash(folder / RECORD)
    head = (
        "consistent: hashes, statistics, words and page agree with the stored scores"
        if not problems
        else f"not consistent: {len(problems)} disagreements"
    )
    tail: tuple[str, ...] = (
        UNCHECKED,
        "this is consistency, not authenticity: a report can be made up whole",
        "compare the next line with a copy noted elsewhere, or run the audit again",
        f"SHA-256 of {RECORD}: {seal}",
    )
    made_by = report.repeat.versions.get("earwitness")
    if problems and made_by != VERSION:
        tail = (f"made by version {made_by}, checked by {VERSION}: page and tables may differ", *tail)
    return Verification(not problems, (head, *problems, *tail))


def _listed_in(recordings: str | Path | Iterable[str | Path]) -> Iterator[Path]:
    """Yield recordings, those of folders one by one."""
    for place in map(Path, [recordings] if isinstance(recordings, str | Path) else recordings):
        if place.is_file():
            yield place
        else:
            yield from (one.path for one in scan(place) if one.kind == "recording" and not one.reason)


def _tried(found: Iterator[str], failure: str) -> Iterator[str]:
    """Yield what is found; a record so changed that the question cannot be asked is a disagreement too."""
    try:
        yield from found
    except (ArithmeticError, LookupError, TypeError, ValueError, EarwitnessError) as error:
        reason = " ".join(str(error).split())
        yield f"{failure} ({type(error).__name__}: {reason})"


def _hashes(report: Report, files: Mapping[str, bytes]) -> Iterator[str]:
    """Files of the folder against the hashes in the record."""
    kinds = ("scores", "control_scores", "rank_scores")
    needed = Counter(name for result in report.results for kind in kinds if (name := getattr(result, kind)))
    needed.update(name for item in report.pictures for name in (item.picture, item.audio) if name)
    for name in sorted({*needed, *report.repeat.files}):
        if name not in report.repeat.files:
            yield f"{name}: the record gives no hash for it"
        elif needed[name] != 1:  # scores that no result owns to may be those of a result that was exchanged
            yield f"{name}: belongs to {needed[name] or 'no'} results or pictures, expected one"
        elif name not in files:
            yield f"{name}: is missing"
        elif sha256(files[name]) != report.repeat.files[name]:
            yield f"{name}: was changed after the report was made"


def _identity(report: Report) -> Iterator[str]:
    """Hashes that follow from other parts of the record."""
    repeat = report.repeat
    found = manifest_hash((row.sha256, row.role) for row in report.recordings)
    if found != repeat.manifest_hash:
        yield "the hash of the recordings and sides does not follow from the list of recordings"
    if repeat.seed_from == "manifest" and repeat.seed != seed_of(repeat.manifest_hash):
        yield "the seed does not follow from the hash of the recordings"
    if repeat.seed < 0 or repeat.deals < 1:
        yield f"no audit is made with seed {repeat.seed} and {repeat.deals} deals"
    for result in report.results:
        if feature_hash(result.features) != result.features_hash:
            yield f"{result.model}: the hash of the features does not follow from their list"
        if result.features != frozen_features(result.family):
            yield f"{result.model}: the features are not this version's frozen list"
    if report.verdict != wording.overall(report.results) or report.answer != wording.answer(report.results):
        yield "the answer does not follow from the verdicts"
    sides = {role: sum(row.role == role for row in report.recordings) for role in ("suspect", "held_out")}
    if (report.suspects.tracks, report.held_out.tracks) != tuple(sides.values()):
        yield "the number of recordings on a side differs from the list"
    for role, side in (("suspect", report.suspects), ("held_out", report.held_out)):
        if side.artists != len({row.artist for row in report.recordings if row.role == role and row.artist}):
            yield "the number of artists on a side differs from the list"
    run = sum(bool(result.scores) for result in report.results)
    if any(len(row.scores) != run for row in report.recordings):
        yield f"a recording has more or fewer scores than models that were run ({run})"
    for result in report.results:
        if report.testable.answer and not result.scores:
            yield f"{result.model}: could be tested, but no scores are stored for it"
        if result.scores and not report.testable.answer:
            yield f"{result.model}: scores are stored for what could not be tested"
        if result.scores and bool(result.control) != bool(result.control_scores):
            yield f"{result.model}: a control model and its scores go together, one is missing"
        if bool(result.rank) != bool(result.rank_scores):
            yield f"{result.model}: a rank and its scores go together, one is missing"
        if not result.scores:  # nothing will be computed again, so nothing may stand there
            info = _info(result)
            blank = untested(info, result.model, report.testable, tuple(sides.values()), result.control)  # type: ignore[arg-type]
            yield from _differences(result, blank, "a model that was not run gives")


def _recordings(report: Report, recordings: Iterable[Path]) -> Iterator[str]:
    """Recordings at hand against the hashes in the record."""
    known = {row.sha256 for row in report.recordings}
    given = list(recordings)
    if not given:
        return
    found = {file_hash(path) for path in given}
    if lost := known - found:
        numbers = sorted(row.number for row in report.recordings if row.sha256 in lost)
        first = ", ".join(numbers[:10])
        yield f"{len(lost)} recordings of the report are not among those given, or were changed: {first}"


def _statistics(report: Report, files: Mapping[str, bytes]) -> Iterator[str]:
    """The tests, run again on the stored scores."""
    repeat = report.repeat
    tested = [result for result in report.results if result.scores]
    again = [
        decide(
            files[result.scores],
            files[result.control_scores] if result.control_scores else b"",
            alpha=repeat.alpha,
            permutations=repeat.permutations,
            seed=repeat.seed,
            pairs=repeat.pairs or None,
            unit=repeat.unit,
            repeats=not any(COUNTS_ONCE in note for note in result.notes),  # as before that note was written
        )
        for result in tested
    ]
    yield from _shown(report)
    for result in report.results:
        yield from _listed(report, result, files)
        if result.rank_scores and rank(files[result.rank_scores], repeat.seed) != result.rank:
            yield f"{result.model}: the rank among reference artists does not follow from the stored scores"
    decided = together([one for one, _ in again], repeat.alpha) if again else []
    for i, (result, one, (_, prepared)) in enumerate(zip(tested, decided, again, strict=True)):
        how: dict[str, Any] = {name: getattr(repeat, name) for name in ("alpha", "deals", "seed", "pairs")}
        found = behaving(_entry(result, one), prepared, **how)
        differences = list(_differences(result, found))
        if differences and any(_differences(result, behaving(found, prepared, **how, older=True))):
            yield from differences
        means = totals(prepared, files[result.scores])
        if any(not _same(row.scores[i], means.get(row.number)) for row in report.recordings):
            yield f"{result.model}: the scores in the list of recordings do not follow from the stored scores"


def _listed(report: Report, result: Result, files: Mapping[str, bytes]) -> Iterator[str]:
    """Recordings as the stored scores describe them against the lists of the record."""
    for name in filter(None, (result.scores, result.control_scores)):
        table = read_scores(files[name])
        for column, field, what in LISTED:
            known = {row.number: getattr(row, field) for row in report.recordings}
            pairs = table[["track_id", column]].drop_duplicates().itertuples(index=False, name=None)
            if any(known.get(number) != value for number, value in pairs):
                yield f"{result.model}: {what} in the stored scores differ from those in the list of recordings"
    if result.rank_scores:
        others = {(row.number, row.artist) for row in report.references}
        ours = {(row.number, SUSPECTS) for row in report.recordings if row.role == "suspect"}
        ranked = read_scores(files[result.rank_scores])[["track_id", "artist"]]
        if others | ours != set(ranked.itertuples(index=False, name=None)):
            yield f"{result.model}: the recordings that were ranked differ from suspects and references in the record"


def _shown(report: Report) -> Iterator[str]:
    """Pictures against the list of recordings: suspects only, the most and the least familiar."""
    scored = {row.number: row.scores[0] for row in report.recordings if row.role == "suspect" and row.scores}
    known = {number: value for number, value in scored.items() if value is not None}
    order, each = sorted(known.values()), min(EACH, len(known) // 2)
    for item in report.pictures:
        if item.number not in known or not each:
            yield f"{item.number}: is shown, but is no suspect that was scored"
        elif known[item.number] < order[-each] if item.label == "strongest" else known[item.number] > order[each - 1]:
            yield f"{item.number}: is shown as {item.label}, which does not follow from the scores"
        if item.picture != f"pictures/{item.number}.svg" or item.audio not in ("", f"audio/{item.number}.mp3"):
            yield f"{item.number}: is shown by the picture or sound of another recording"


def _differences(result: Result, found: Result, source: str = "the stored scores give") -> Iterator[str]:
    """Name each part of a result that does not follow from its source."""
    for name in TESTED:
        old, new = getattr(result, name), getattr(found, name)
        if not _same(old, new):
            yield f"{result.model}: {name} is {old!r}, {source} {new!r}"


def _info(result: Result) -> ModelInfo:
    """Return as much of the model as a result tells."""
    return ModelInfo(result.model, result.family, result.revision, 1, 1, 1.0, "", "", result.badge)


def _entry(result: Result, again: Any) -> Result:
    """Return the entry that a result computed again would have been written as."""
    files = {"scores": result.scores, "control_scores": result.control_scores}
    return entry(again, _info(result), result.model, control=result.control, **files)


def _same(old: Any, new: Any) -> bool:
    """Compare two values of a record; numbers up to rounding, however deep."""
    if isinstance(old, BaseModel) and isinstance(new, BaseModel):
        return _same(old.model_dump(), new.model_dump())
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(_same(value, new[name]) for name, value in old.items())
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(_same, old, new))
    if isinstance(old, float) or isinstance(new, float):
        return None not in (old, new) and bool(np.isclose(old, new, rtol=TOLERANCE, atol=TOLERANCE))
    return bool(old == new)


def _page(report: Report, files: Mapping[str, bytes], folder: Path) -> Iterator[str]:
    """The page, drawn again from the record."""
    path = folder / PAGE
    if not path.is_file():
        yield f"{PAGE}: is missing"
    elif path.read_bytes() != html.page(report, files).encode():
        yield f"{PAGE}: is not what the record gives"
