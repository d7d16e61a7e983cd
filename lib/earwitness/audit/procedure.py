"""The whole audit, in order.

Read and examine, number, fix the plan (and compare it with the frozen one), ask whether it can be tested at all, and
only then run a model; decide, check the procedure at this size, write. The statistics see numbers instead of names, so
a redacted report holds the same results.

Book page: *Audit your own*.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from earwitness.audit import examples, html, pretest, references, scoring, wording
from earwitness.audit.anonymise import place_of_key, sealed
from earwitness.audit.cost import estimate, present, told_of
from earwitness.audit.intake import Intake, examine
from earwitness.audit.plan import Plan, check_logs, earlier_runs, looks, record_look, record_run, run_log
from earwitness.audit.plan import check as check_plan
from earwitness.audit.plan import read as read_plan
from earwitness.audit.plan import write as write_plan
from earwitness.audit.references import References
from earwitness.audit.report import (
    PRINT,
    Control,
    Exclusion,
    Frozen,
    Recording,
    Reference,
    Repeat,
    Report,
    Result,
    Side,
    Testable,
    check_place,
    print_pdf,
)
from earwitness.audit.report import write as write_report
from earwitness.audit.request import PAIRED, Request, control_known, gather_tracks, refuse_kind, refuse_mixture, shown
from earwitness.data.folders import Found, shorten
from earwitness.data.redaction import Numbered, Redactor, manifest_hash, number, read_key, seed_of, texts_hash
from earwitness.data.side_table import coverage
from earwitness.errors import InputError
from earwitness.models import describe, number_type
from earwitness.stats.features import feature_hash, frozen_features
from earwitness.stats.verdict import GATE_P
from earwitness.types import SIDES, ModelInfo, Track
from earwitness.util import VERSION, code_state, counted, file_hash, hash_of, machine, plain, sha256, versions

# --- what was found, in the words and types of the report -------------------------------------------------------------


@dataclass(frozen=True)
class Examined:
    """Everything that is known before a model is run."""

    request: Request
    intake: Intake
    numbered: Numbered
    infos: list[ModelInfo]
    control: Control | None
    plan: Plan
    redactor: Redactor | None
    references: References | None = None
    beside: ModelInfo | None = None  # the control model


def name_of(known: Examined, track_id: str) -> str:
    """Return what the report calls a recording."""
    own = known.numbered.names.get(track_id, track_id)
    if known.redactor is None:
        return plain(own)
    return track_id if track_id in known.numbered.names else "a recording"


def exclusion_of(known: Examined, track_id: str, role: str, reason: str) -> Exclusion:
    """Return the entry of a recording that was left out; names are taken out of the reason where asked."""
    return Exclusion(name=name_of(known, track_id), role=role, reason=unnamed_text(known, reason))


def list_duplicates(known: Examined) -> list[str]:
    """Return a sentence per pair of copies."""
    sentences = []
    for row in known.intake.duplicates.to_dict("records"):
        where = "the same side" if row["role"] == row["other_role"] else "different sides"
        where += ", compared as a pair" if row["twins"] else ""
        said = f"{row['track_id']}: {row['relation']}, on {where} (similarity {row['similarity']:.2f})"
        sentences.append(unnamed_text(known, said))
    return sentences


def unnamed_text(known: Examined, text: str) -> str:
    """Return a sentence as the report may show it: names are taken out where asked."""
    return plain(known.redactor(text) if known.redactor else text)


def list_recordings(known: Examined, totals: Sequence[Mapping[str, float]]) -> list[Recording]:
    """Return the list of recordings, with the pre-oriented sum of each model that was run."""
    return [
        Recording(
            number=track.track_id,
            role=track.role,  # type: ignore[arg-type]
            name="" if known.redactor else plain(known.numbered.names[track.track_id]),
            sha256=track.sha256,
            artist=track.artist,
            pair=track.work,
            scores=[None if track.track_id not in one else round(one[track.track_id], 6) for one in totals],
        )
        for track in known.numbered.tracks
    ]


def list_references(known: Examined) -> list[Reference]:
    """Return the list of reference recordings."""
    if known.references is None:
        return []
    held = known.references.numbered
    return [
        Reference(
            number=track.track_id,
            artist=track.artist,
            name="" if known.redactor else plain(held.names[track.track_id]),
            sha256=track.sha256,
        )
        for track in held.tracks
    ]


def summarise_side(known: Examined, role: str) -> Side:
    """Return what was compared on one side."""
    tracks = [track for track in known.intake.tracks if track.role in SIDES[role]]
    formats = known.intake.files.set_index("track_id")["format"]
    counted = pd.Series([str(formats.get(track.track_id, "")) for track in tracks], dtype=str).value_counts()
    minutes = sum(track.duration_s for track in tracks) / 60
    return Side(
        tracks=len(tracks),
        minutes=round(minutes, 0 if known.redactor else 2) if minutes == minutes else None,
        artists=len({track.artist for track in tracks if track.artist}),
        formats={str(name): int(count) for name, count in sorted(counted.items())},
    )


def how_to_repeat(known: Examined, files: Mapping[str, bytes]) -> Repeat:
    """Return what it takes to do the audit again, and the hashes of the files beside the record."""
    request, plan = known.request, known.plan
    return Repeat(
        command=request.command(redact=request.redact),
        manifest_hash=plan.manifest_hash,
        texts_hash=plan.texts_hash,
        seed=plan.seed,
        seed_from="manifest" if request.seed is None else "given",
        alpha=request.alpha,
        permutations=request.n_permutations,
        deals=request.deals,
        pairs=plan.pairs,
        unit=request.unit,  # type: ignore[arg-type]
        code=code_state(),
        lock=hash_of("requirements/base.lock"),
        machine=machine(),
        versions=versions(),
        dtype=request.dtype,
        files={name: sha256(content) for name, content in sorted(files.items())},
    )


Say = Callable[[str], None]
FEW_BYTES = 20_000_000  # of recordings: one process opens them before a second has started


# --- in order ---------------------------------------------------------------------------------------------------------


def prepare(request: Request, say: Say = lambda _: None, *, download: bool = False) -> Examined:
    """Read, examine and number the recordings, and fix the plan; no model is run.

    Raises
    ------
    InputError
        As ``gather``, ``examine`` and ``control_known``; works with takes on both sides and no pairing.
    ModelError
        A model that is unknown, closed or not on this machine.
    """
    if request.frozen is not None:
        read_plan(request.frozen)
    for name in [*request.models, *([request.control_model] if request.control_model else [])]:
        present(name, download=download)
    request = replace(request, dtype=number_type(request.dtype))
    infos = [describe(name, dtype=request.dtype) for name in request.models]
    beside = describe(request.control_model, dtype=request.dtype) if request.control_model else None
    held = opened(request, infos, beside, say)
    _refuse_straddling(held.intake, request)
    intake, numbered, others = held.intake, held.numbered, held.others
    control = None
    if beside is not None:
        control = Control(name=shown(request.control_model or ""), revision=beside.revision, known_from=held.known_from)
    content, seed = held.content(request)
    lists = {info.kind: frozen_features(info.kind) for info in infos}
    plan = Plan(
        manifest_hash=content,
        texts_hash=texts_hash(intake.tracks),
        suspects=sum(track.role == "suspect" for track in numbered.tracks),
        held_out=sum(track.role == "held_out" for track in numbered.tracks),
        models={shown(name): info.revision for name, info in zip(request.models, infos, strict=True)},
        control={} if control is None else {control.name: control.revision},
        features=lists,
        features_hash=feature_hash([name for family in sorted(lists) for name in lists[family]]),
        alpha=request.alpha,
        permutations=request.n_permutations,
        seed=seed,
        pairs=request.pairs or "",
        references_hash=manifest_hash((t.sha256, t.artist) for t in others.numbered.tracks) if others else "",
        dtype=request.dtype,
        earwitness=VERSION,
    )
    redactor = None
    if request.redact:
        given = (request.suspects, request.held_out, request.manifest, request.reference_artists)
        ids = [*intake.files["track_id"], *(others.numbered.names.values() if others else ())]
        redactor = Redactor(held.found.tracks, ids=ids, places=[place for place in given if place is not None])
    return Examined(request, intake, numbered, infos, control, plan, redactor, others, beside)


def _refuse_straddling(intake: Intake, request: Request) -> None:
    if intake.straddling and request.pairs is None:
        raise InputError(
            f"{len(intake.straddling)} works have takes on both sides (first: {intake.straddling[0]!r}); compare takes "
            f"with {PAIRED}, or leave the works out on one side"
        )


@dataclass(frozen=True)
class Opened:
    """The recordings once each was opened; ``known_from``: how it is known that a control model saw neither side."""

    found: Found
    intake: Intake
    numbered: Numbered
    known_from: str = ""
    others: References | None = None

    def content(self, request: Request) -> tuple[str, int]:
        """Return the hash of recordings and sides, and the seed."""
        content = manifest_hash((track.sha256, track.role) for track in self.numbered.tracks)
        return content, seed_of(content) if request.seed is None else request.seed


def opened(
    request: Request, infos: Sequence[ModelInfo], beside: ModelInfo | None, say: Say, workers: int | None = None
) -> Opened:
    """Refuse what can be refused without opening a recording, then open, examine and number all of them."""
    refuse_mixture(infos, beside)
    if beside is not None and request.manifest is None:
        control_known(request, ())
    found = gather_tracks(request)
    if beside is not None:
        control_known(request, found.tracks)
    refuse_kind(infos[0], found.tracks)
    if request.reference_artists is not None:
        references.listed(request.reference_artists, found.tracks)
    say(f"{len(found.tracks) + len(found.refused)} recordings found; opening each")
    if request.captions is not None:
        say(coverage(found.tracks))
    small = sum(track.path.stat().st_size for track in found.tracks if track.path.is_file()) < FEW_BYTES
    how: dict[str, Any] = {"workers": workers or (1 if small else 2), "found": found, "pairs": request.pairs}
    intake = examine(found.tracks, request.models[0], describe=True, unit=request.unit, **how)
    if intake.joins:
        say(f"{len(intake.joins)} works have several versions here; the report lists them, and --works corrects them")
    known_from = "" if beside is None else control_known(request, intake.tracks)
    others = None
    if request.reference_artists:
        others = references.read(request.reference_artists, intake, request.models[0])
    numbered = number(intake.tracks)
    if gone := [(t.track_id, t.role, numbered.gone[t.track_id]) for t in intake.tracks if t.track_id in numbered.gone]:
        left = pd.concat([intake.exclusions, pd.DataFrame(gone, columns=intake.exclusions.columns)], ignore_index=True)
        stay = tuple(track for track in intake.tracks if track.track_id not in numbered.gone)
        intake = replace(intake, tracks=stay, exclusions=left)
    return Opened(found, intake, numbered, known_from, others)


def check(request: Request, say: Say = lambda _: None, *, workers: int | None = None) -> tuple[Intake, Testable, int]:
    """Say what an audit would be given and whether it could answer, without a model; its files need not be here.

    Everything that an audit refuses before it runs a model is refused here, the blind gate included. To look at the
    gate is to look at the recordings: it is recorded, and a report says how many selections were looked at before.

    Returns
    -------
    Intake, Testable, int
        What was found; whether that can be tested, and why not; how many selections of these suspects have been looked
        at, this one included (0 where the gate was not reached).

    Raises
    ------
    InputError, ModelError
        As :func:`prepare`, but for works with takes on both sides, which ``Testable`` speaks of.
    """
    logs = run_log(None)
    check_logs(logs)
    told = [told_of(name) for name in request.models]
    beside = told_of(request.control_model) if request.control_model else None
    held = opened(request, told, beside, say, workers)
    content, seed = held.content(request)
    before = pretest.look(
        held.numbered.tracks,
        told[0],
        alpha=request.alpha / len(told),
        permutations=request.n_permutations,
        seed=seed,
        cost=estimate(held.intake, told),
        pairs=request.pairs,
        clearly=GATE_P,
    )
    try:
        _refuse_straddling(held.intake, request)
    except InputError as error:
        before = before.model_copy(update={"answer": False, "reasons": [str(error)], "mends": []})
    suspects = [track.sha256 for track in held.numbered.tracks if track.role == "suspect"]
    if before.blind_p is None:
        return held.intake, before, 0
    record_look(content, suspects, before.answer, logs)
    return held.intake, before, len(looks(suspects, logs))


@contextmanager
def unnamed(redact: bool) -> Iterator[None]:
    """With ``redact``, replace an error by one without names: a notebook would keep the reason, which names files.

    Raises
    ------
    InputError
        Instead of any error, with ``redact`` only.
    """
    try:
        yield
    except Exception:
        if not redact:
            raise
        raise InputError(
            "the audit stopped; the reason may name files, and this notebook would keep it: run earwitness audit with "
            "the same options in a terminal to read it"
        ) from None


def freeze(request: Request, path: Path, *, download: bool = False) -> Plan:
    """Write the plan of an audit before anything is scored; see :mod:`earwitness.audit.plan`."""
    return write_plan(prepare(request, download=download).plan, path)


def run(request: Request, out: Path, *, say: Say = lambda _: None, download: bool = False) -> Report:
    """Run an audit and write its report folder.

    Parameters
    ----------
    request : Request
        What is asked.
    out : Path
        Folder of the report: new, empty, or holding an earlier report, which is replaced.
    say : callable
        Is told what happens, a line each.
    download : bool
        Whether hub models that are not on this machine may be fetched.

    Returns
    -------
    Report
        As written to ``report.json``; also where the verdict is *not testable*.

    Raises
    ------
    InputError, ModelError
        As :func:`prepare`; a plan that differs from the frozen one; a record of runs that cannot be written; a folder
        that holds something else or lies among the recordings; something else where the key of a redacted report goes.
    """
    started = time.monotonic()
    given = (request.suspects, request.held_out, request.reference_artists)
    check_place(out, [place for place in given if place is not None])
    secret = place_of_key(out)
    if request.redact and secret.exists():
        read_key(secret)
    logs = run_log(request.frozen)
    check_logs(logs)
    known = prepare(request, say, download=download)
    frozen = _frozen(request, known.plan)
    tracks, plan = known.numbered.tracks, known.plan
    before = pretest.look(
        tracks,
        known.infos[0],
        alpha=request.alpha / len(request.models),  # what Holm leaves to the smallest p-value
        permutations=request.n_permutations,
        seed=plan.seed,
        cost=estimate(known.intake, known.infos),
        pairs=request.pairs,
    )
    say(wording.before(before, paired=request.pairs is not None))
    seen = len(looks([track.sha256 for track in tracks if track.role == "suspect"], logs))
    results, files, recordings, shown_ones, left, origins = _models(known, before, say)
    for row in shorten(pd.DataFrame([(p.name, p.reason) for p in left], columns=["track_id", "reason"])).itertuples():
        say(f"left out: {row.track_id}: {row.reason}")
    suspects = [track.sha256 for track in tracks if track.role == "suspect"]
    earlier = earlier_runs(suspects, logs)
    unanswered = [reason for result in results if result.verdict == "not testable" for reason in result.reasons]
    report = Report(
        made=_made(earlier, plan, time.monotonic() - started, origins, seen),
        redacted=request.redact,
        verdict=wording.overall(results),
        answer=wording.answer(results),
        suspects=summarise_side(known, "suspect"),
        held_out=summarise_side(known, "held_out"),
        testable=before.model_copy(update={"mends": wording.mends(unanswered, before.units_needed)}),
        results=results,
        recordings=recordings,
        references=list_references(known),
        pictures=shown_ones,
        exclusions=left,
        duplicates=list_duplicates(known),
        works=[unnamed_text(known, join.describe()) for join in known.intake.joins],
        imbalances=[unnamed_text(known, text) for text in known.intake.imbalances],
        frozen=frozen,
        repeat=how_to_repeat(known, files),
        layout=2,
        earwitness=VERSION,
        by=request.by,
        made_for=request.made_for,
    )
    if request.redact:
        report = sealed(report, [known.numbered, *([known.references.numbered] if known.references else [])], secret)
        say(f"{secret}: the key that brings names back; keep it, and give the folder away without it")
    page = html.page(report, files)
    record_run(plan, suspects, report.verdict, logs)  # before anybody can see the answer
    if kept := write_report(report, files, page, out):
        say(f"{kept}: what lay in the folder under names of the new report")
    if request.pdf:
        problem_with_pdf = print_pdf(out)
        say(problem_with_pdf or f"{PRINT} written")
    return report


def _models(
    known: Examined, before: Testable, say: Say
) -> tuple[list[Result], dict[str, bytes], list[Recording], list, list[Exclusion], list[str]]:
    """Run every model, or none where the recordings alone gave the answer; say where signals come from."""
    request, tracks, plan = known.request, known.numbered.tracks, known.plan
    refused = known.intake.exclusions.astype(str).to_dict("records")
    refused += known.references.refused.astype(str).to_dict("records") if known.references else []
    left = [exclusion_of(known, row["track_id"], row["role"], row["reason"]) for row in refused]
    models = list(zip(request.models, known.infos, strict=True))
    if not before.answer:
        counts = (plan.suspects, plan.held_out)
        results = [scoring.untested(info, name, before, counts, known.control) for name, info in models]
        results, files, origins = _ranked(known, results, say, left)
        return results, files, list_recordings(known, []), [], left, origins
    scored = []
    for name, info in models:
        say(f"scoring {len(tracks)} recordings under {shown(name)}")
        scored.append(scoring.score_model(info, tracks, request, seed=plan.seed, beside=known.beside))
    decided = scoring.together([one.result for one in scored], request.alpha)
    files = {}
    results = []
    for i, (name, one, result) in enumerate(zip(request.models, scored, decided, strict=True), 1):
        files[f"scores-{i}.csv"] = one.heard.content
        if one.control:
            files[f"scores-{i}-control.csv"] = one.control.content
        entry = scoring.entry(
            result,
            one.info,
            name,
            scores=f"scores-{i}.csv",
            control=known.control,
            control_scores=f"scores-{i}-control.csv" if one.control else "",
        )
        say(f"{entry.model}: tested" + ("" if request.pairs else "; checking the procedure at this size"))
        results.append(
            scoring.behaving(
                entry, one.prepared, alpha=request.alpha, deals=request.deals, seed=plan.seed, pairs=request.pairs
            )
        )
        left += _left_out(known, one.heard.excluded, tracks, f"under {entry.model}: ")
    results, ranks, origins = _ranked(known, results, say, left)
    origins = [heard.origin for one in scored for heard in (one.heard, one.control) if heard] + origins
    totals = [scoring.totals(one.prepared, one.heard.content) for one in scored]
    if request.redact and not request.with_audio:  # whoever has a recording knows its picture
        return results, files | ranks, list_recordings(known, totals), [], left, origins
    drawn, more, unseen = examples.pictures(scored[0], tracks, totals[0], with_audio=request.with_audio)
    left += _left_out(known, unseen, tracks)
    return results, files | ranks | more, list_recordings(known, totals), drawn, left, origins


def _left_out(known: Examined, why: Mapping[str, str], tracks: Sequence[Track], under: str = "") -> list[Exclusion]:
    """Return the entries of recordings that a step left out."""
    roles = {track.track_id: track.role for track in tracks}
    return [exclusion_of(known, number, roles[number], f"{under}{reason}") for number, reason in why.items()]


def _ranked(
    known: Examined, results: list[Result], say: Say, left: list[Exclusion]
) -> tuple[list[Result], dict[str, bytes], list[str]]:
    """Add the rank of the suspects among reference artists, where there are any, whatever the verdict."""
    if known.references is None:
        return results, {}, []
    others = known.references.numbered.tracks
    suspects = [track for track in known.numbered.tracks if track.role == "suspect"]
    lot, ranked, files, origins = known.plan.seed if known.request.redact else None, [], {}, []
    for i, (info, result) in enumerate(zip(known.infos, results, strict=True), 1):
        say(f"{result.model}: ranking the suspects among {len({track.artist for track in others})} reference artists")
        file = f"scores-{i}-references.csv"
        heard = references.scored(info, suspects, others, lot)
        files[file] = heard.content
        origins.append(heard.origin)
        left += _left_out(known, heard.excluded, [*suspects, *others], f"under {result.model}, for the rank: ")
        found = references.rank(files[file], known.plan.seed)
        ranked.append(result.model_copy(update={"rank": found, "rank_scores": file}))
    return ranked, files, origins


def _frozen(request: Request, plan: Plan) -> Frozen:
    """Compare the plan with the frozen one, if there is one."""
    if request.frozen is None:
        return Frozen(checked=False)
    before = read_plan(request.frozen)
    check_plan(before, plan)
    return Frozen(checked=True, frozen_at=before.frozen_at, file_sha256=file_hash(request.frozen))


def _made(
    earlier: Sequence[Mapping[str, object]], plan: Plan, seconds: float, origins: Sequence[str] = (), seen: int = 0
) -> str:
    """Return the one line that differs between two runs of the same audit.

    What counts is how many plans were tried on these recordings: the same plan again gives the same answer.
    """
    plans = list(dict.fromkeys(str(entry.get("plan")) for entry in earlier))
    again = plan.digest() in plans
    place = plans.index(plan.digest()) if again else len(plans)
    past = "the first run on record with these recordings"
    if place:
        past = f"run {place + 1} on record with these recordings, after {place} with another plan"
    past += ", repeated" if again else ""
    if later := len(plans) - place - again:
        past += f"; {later} with another plan since"
    if seen:
        past += f"; {counted(seen, 'selection')} of them looked at with check before"
    when = f"{datetime.now(UTC).strftime('%Y-%m-%d %H:%M UTC')}, in {seconds:.0f} s"
    return "; ".join([when, *origins, past])
