"""Does a report agree with itself? Hashes are compared and the statistics are computed again from the stored scores.

This is consistency, not authenticity: whoever can change the scores can change the report to match. It shows that
nothing was changed afterwards in one place only, and that words and pictures follow from the numbers. With the
recordings and the model at hand, scores of a sample are computed again, which whoever made the report cannot foresee.
Whatever a stranger's report holds, this ends: what is larger than the limits of ``report`` is refused.

Book pages: *Audit your own*, *Threat model*.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import randbelow
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from pydantic import BaseModel

from earwitness import figures
from earwitness.audit import html, wording
from earwitness.audit.examples import EACH, UNSEEN
from earwitness.audit.references import SUSPECTS, rank
from earwitness.audit.report import MOST_FILE, PAGE, RECORD, Recording, Reference, Report, Result, read_scores
from earwitness.audit.report import read as read_report
from earwitness.audit.scoring import behaving, decide, entry, scores_of, together, totals, untested
from earwitness.data.folders import scan
from earwitness.data.redaction import Key, manifest_hash, read_key, seed_of
from earwitness.data.side_table import with_captions
from earwitness.errors import EarwitnessError, InputError
from earwitness.models import describe
from earwitness.stats.dataset_inference import COUNTS_ONCE
from earwitness.stats.features import feature_hash, frozen_features
from earwitness.stats.units import largest_difference
from earwitness.types import BLIND_PREFIX, MOVED, ModelInfo, Track
from earwitness.util import VERSION, file_hash, results_in, sha256, unreadable, versions

TOLERANCE = 1e-6  # relative: numbers are written to six digits
GIVEN = {"model", "badge", "family", "revision", "scores", "control", "control_scores", "rank", "rank_scores"}
TESTED = [name for name in Result.model_fields if name not in GIVEN]  # everything in a result that the tests give
SAMPLE = 8  # recordings that are scored again
CLOSE = 1e-3  # standard deviations by which scores of the same versions may differ
# column of the stored scores, field of the list of recordings, what a message calls it
LISTED = (("role", "role", "sides"), ("artist", "artist", "artists"), ("work", "pair", "works"))
UNCHECKED = (
    "not checked, because it does not follow from the scores: that scores belong to the listed recordings, that stored "
    "signals are genuine, the frozen plan, exclusions (among references too), duplicates, versions of one work, "
    "imbalances, minutes and formats of the sides, captions and their hash, what was said before a model was run, the "
    "weights, type of number and badge of a model, what a control model saw, that pictures and sound are of the "
    "recording, names and whether all were taken out, and when, by which command, machine and versions it was made"
)
KEYLESS = "not checked without the key: that the seed follows from the recordings"


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


def verify(
    folder: str | Path,
    recordings: str | Path | Iterable[str | Path] = (),
    *,
    model: str | Path | Iterable[str | Path] = (),
    captions: str | Path | None = None,
    seed: int | None = None,
    key: str | Path | None = None,
) -> Verification:
    """Compare a report with its own files, and with recordings and models where they are given.

    Parameters
    ----------
    folder : str or Path
        What ``earwitness audit`` wrote.
    recordings : str, Path or iterable of them
        Recordings, or folders of them, whose hashes are compared as well, whatever their names.
    model : str, Path or iterable of them
        Models whose weights are hashed again, and under which some of the recordings are scored again.
    captions : str or Path, optional
        Where the audit had captions: the table of them, as for ``audit``.
    seed : int, optional
        Draws the recordings that are scored again; default: by lot, and named.
    key : str or Path, optional
        Of a redacted report: brings the names back, and is needed to compare recordings.

    Returns
    -------
    Verification
        ``consistent``, and ``lines``: a line per question.

    Raises
    ------
    InputError
        No report or no key there; a model without recordings; recordings of a redacted report without its key.
    UncheckableError
        A record that cannot be read: damaged, beyond the limits, of another version.
    ModelError
        A model that cannot be loaded.
    """
    folder = Path(folder).expanduser()
    report, files = read_report(folder)
    secret = read_key(Path(key).expanduser()) if key else None
    at_hand, models = list(_listed_in(recordings)), _several(model)
    if at_hand and report.sealed and secret is None:
        raise InputError("a redacted report names recordings by HMAC; give its key too (--key)")
    if models and not at_hand:
        raise InputError("a model is given to score recordings again; give these too (--recordings)")
    known = _hashed(report, at_hand, secret)
    problems = [*_hashes(report, files), *(_recordings(report, known) if at_hand else ())]
    problems += _tried(_identity(report, secret), "the parts of the record cannot be compared")
    told: list[str] = []
    if not problems:  # scores that were changed have been named; computing with them would only repeat it
        problems += _tried(_statistics(report, files), "the stored scores cannot be tested again")
        problems += _tried(_pictures(report, files), "the pictures cannot be drawn again")
        problems += _tried(_page(report, files, folder), "the page cannot be drawn from the record")
    if not problems:
        named = [replace(track, track_id=f"{track.role}/{track.path.name}") for track in known.values()]
        texts = [track.caption for track in with_captions(named, Path(captions))] if captions else [""] * len(named)
        tracks = [replace(track, caption=text) for track, text in zip(known.values(), texts, strict=True)]
        for name in models:
            problems += _scored_again(report, files, name, tracks, randbelow(2**32) if seed is None else seed, told)
    seal = file_hash(folder / RECORD)
    unusual = report.repeat.unusual()
    head = (
        "consistent: hashes, statistics, words, pictures and page agree with the stored scores"
        if not problems
        else f"not consistent: {len(problems)} disagreements"
    ) + (f"; not the defaults: {unusual}" if unusual else "")
    tail: tuple[str, ...] = (
        *(_named(report, secret) if secret else [KEYLESS] if report.sealed else ()),
        UNCHECKED,
        "this is consistency, not authenticity: a report can be made up whole",
        "compare the next line with a copy noted elsewhere, or run the audit again",
        f"SHA-256 of {RECORD}: {seal}",
    )
    made_by = report.repeat.versions.get("earwitness")
    if problems and made_by != VERSION:
        tail = (f"made by version {made_by}, checked by {VERSION}: page and tables may differ", *tail)
    return Verification(not problems, (head, *problems, *told, *tail))


def _several(given: str | Path | Iterable[str | Path]) -> list[str]:
    return [str(one) for one in ([given] if isinstance(given, str | Path) else given)]


def _named(report: Report, key: Key) -> Iterator[str]:
    """Yield the names behind the numbers."""
    listed: list[Recording | Reference] = [*report.recordings, *report.references]
    for row in listed:
        known = key.recordings.get(row.sha256)
        artist = f", {row.artist} = {known.artist}" if known and row.artist else ""
        yield f"{row.number} = {known.name if known else 'not in this key'}{artist}"


def _hashed(report: Report, at_hand: Sequence[Path], key: Key | None) -> dict[str, Track]:
    """Return the recordings at hand that the report lists: its hash -> the recording by its number."""
    listed = {row.sha256: row for row in report.recordings}
    found = {}
    for path in at_hand:
        content = file_hash(path)
        row = listed.get(key.seal(content) if key and report.sealed else content)
        if row is not None:
            found[row.sha256] = Track(row.number, path, row.role, artist=row.artist, work=row.pair, sha256=content)
    return found


def _scored_again(
    report: Report, files: Mapping[str, bytes], model: str, tracks: Sequence[Track], seed: int, told: list[str]
) -> Iterator[str]:
    """Hash a model, score some recordings again in an empty store, and compare their scores with the stored ones.

    Yields what disagrees; ``told`` gets a line on what was done.
    """
    info = describe(model, allow_download=False)
    mine = [(r.scores, r.model) for r in report.results if r.revision == info.revision and r.scores]
    mine += [
        (r.control_scores, r.control.name)
        for r in report.results
        if r.control and r.control_scores and r.control.revision == info.revision
    ]
    if not mine:
        yield f"{info.name}: its weights (SHA-256 {info.revision}) are those of no model that the report scored"
        return
    stored = read_scores(files[mine[0][0]])
    if report.sealed:
        stored = stored[~stored["attack"].str.startswith(BLIND_PREFIX)]
    able = sorted((t for t in tracks if t.track_id in set(stored["track_id"])), key=lambda track: track.track_id)
    drawn = np.random.default_rng(seed).permutation(len(able))[:SAMPLE]
    sample = [able[i] for i in sorted(drawn)]
    if not sample:
        yield f"{mine[0][1]}: none of the recordings given was scored"
        return
    with TemporaryDirectory() as empty, results_in(empty):  # so that no store answers
        again = read_scores(scores_of(info, sample, report.repeat.seed if report.sealed else None).content)
    apart, attack, track = largest_difference(stored, again[again["attack"].isin(set(stored["attack"]))])
    text = (
        f"{mine[0][1]}: scored {len(sample)} of {len(able)} recordings again, drawn by seed {seed} "
        f"({', '.join(track.track_id for track in sample)}); the largest difference is {apart:.2g} standard deviations "
        f"({attack} of {track})"
    )
    theirs, ours = report.repeat.versions, versions()
    other = [
        f"{name} {theirs.get(name)} there, {number} here" for name, number in ours.items() if theirs.get(name) != number
    ]
    if other:
        told.append(f"{text}; other versions: {'; '.join(other)}")
    elif apart > CLOSE:
        yield f"{text}, more than {CLOSE:g}; were there captions (--captions), or another card or dtype?"
    else:
        told.append(text)


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
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
        EarwitnessError,
    ) as error:
        reason = " ".join(str(error).split())
        yield f"{failure} ({type(error).__name__}: {reason})"


def _hashes(report: Report, files: Mapping[str, bytes]) -> Iterator[str]:
    """Files of the folder against the hashes in the record."""
    kinds = ("scores", "control_scores", "rank_scores")
    needed = Counter(name for result in report.results for kind in kinds if (name := getattr(result, kind)))
    needed.update(name for item in report.pictures for name in (item.picture, item.audio, item.numbers) if name)
    for name in sorted({*needed, *report.repeat.files}):
        if name not in report.repeat.files:
            yield f"{name}: the record gives no hash for it"
        elif needed[name] != 1:  # scores that no result owns to may be those of a result that was exchanged
            yield f"{name}: belongs to {needed[name] or 'no'} results or pictures, expected one"
        elif name not in files:
            yield f"{name}: is missing"
        elif sha256(files[name]) != report.repeat.files[name]:
            yield f"{name}: was changed after the report was made"


def _identity(report: Report, key: Key | None) -> Iterator[str]:
    """Hashes that follow from other parts of the record."""
    repeat = report.repeat
    found = manifest_hash((row.sha256, row.role) for row in report.recordings)
    if found != repeat.manifest_hash:
        yield "the hash of the recordings and sides does not follow from the list of recordings"
    if repeat.seed_from == "manifest" and (not report.sealed or key):
        if key and not {row.sha256 for row in report.recordings} <= key.recordings.keys():
            yield "the key is not that of this report"
        elif repeat.seed != seed_of(
            manifest_hash((key.recordings[row.sha256].sha256, row.role) for row in report.recordings) if key else found
        ):
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


def _recordings(report: Report, known: Mapping[str, Track]) -> Iterator[str]:
    """Recordings at hand against the hashes in the record."""
    lost = sorted(row.number for row in report.recordings if row.sha256 not in known)
    if lost:
        first = ", ".join(lost[:10])
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
        if not ours | others >= set(ranked.itertuples(index=False, name=None)):  # one may have vanished: it is left out
            yield f"{result.model}: the recordings that were ranked differ from suspects and references in the record"


def _shown(report: Report) -> Iterator[str]:
    """Pictures against the list of recordings: suspects only, the most and the least familiar."""
    scored = {row.number: row.scores[0] for row in report.recordings if row.role == "suspect" and row.scores}
    known = {number: value for number, value in scored.items() if value is not None}
    order, each = sorted(known.values()), min(EACH, len(known) // 2)
    gone = any(row.reason == UNSEEN for row in report.exclusions) or (report.redacted and not report.pictures)
    if report.schema_version > 1 and len(report.pictures) != 2 * each and not gone:
        yield f"{2 * each} suspects are to be shown, {len(report.pictures)} are"
    if len({bool(item.audio) for item in report.pictures}) > 1:
        yield "the sound of some recordings that are shown is gone"
    for item in report.pictures:
        if item.number not in known or not each:
            yield f"{item.number}: is shown, but is no suspect that was scored"
        elif known[item.number] < order[-each] if item.label == "strongest" else known[item.number] > order[each - 1]:
            yield f"{item.number}: is shown as {item.label}, which does not follow from the scores"
        numbers = f"pictures/{item.number}.json" if report.schema_version > 1 else ""
        own = (f"pictures/{item.number}.svg", numbers)
        if (item.picture, item.numbers) != own or item.audio not in ("", f"audio/{item.number}.mp3"):
            yield f"{item.number}: is shown by the picture or sound of another recording"


def _differences(result: Result, found: Result, source: str = "the stored scores give") -> Iterator[str]:
    """Name each part of a result that does not follow from its source."""
    for name in TESTED:
        old, new = getattr(result, name), getattr(found, name)
        if not _same(old, new):
            yield f"{result.model}: {name} is {old!r}, {source} {new!r}"


def _info(result: Result) -> ModelInfo:
    """Return as much of the model as a result tells."""
    remark = MOVED if MOVED in result.notes else ""
    return ModelInfo(result.model, result.family, result.revision, 1, 1, 1.0, "", "", result.badge, remark=remark)


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


def _pictures(report: Report, files: Mapping[str, bytes]) -> Iterator[str]:
    """The pictures of recordings, drawn again from their numbers."""
    for item in report.pictures:
        drawn = files[item.picture]
        if report.schema_version == 1 and not html.only_shapes(drawn.decode()):
            yield f"{item.picture}: holds more than a drawing"
        if item.numbers and figures.from_numbers(files[item.numbers], item.number).svg.encode() != drawn:
            yield f"{item.picture}: is not what its numbers give"


def _page(report: Report, files: Mapping[str, bytes], folder: Path) -> Iterator[str]:
    """The page, drawn again from the record."""
    path = folder / PAGE
    if not path.exists():
        yield f"{PAGE}: is missing"
    elif reason := unreadable(path, folder, MOST_FILE):
        yield f"{PAGE}: {reason}"
    elif path.read_bytes() != html.page(report, files).encode():
        yield f"{PAGE}: is not what the record gives"
