"""What ``check`` and ``plan`` print: an ``Intake`` and forecasts, as tables for a terminal or as JSON for a program.

Every name is text from outside: markup is escaped, what is not printable is written as an escape.

Book page: *Audit your own*.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from earwitness.audit.cost import Forecast
from earwitness.audit.intake import Intake
from earwitness.stats.power import reach, reach_of, refusals
from earwitness.stats.verdict import ALPHA, MAX_DETECTABLE_AUC, MIN_UNITS, POWER
from earwitness.types import ROLE_NAMES
from earwitness.util import plain, span

# --- what check prints ------------------------------------------------------------------------------------------------

PAIRED = " within pairs (the share in which the suspect scores above its twin)"


def enough(intake: Intake) -> tuple[bool, str]:
    """Say whether the number of usable tracks can be tested at all, and with what power."""
    if intake.straddling:
        pairs = len(intake.straddling)
        seen = reach(np.repeat([True, False], pairs), None, paired=True)
        smallest = seen.detectable_auc or 1.0
        large = pairs >= MIN_UNITS and smallest <= MAX_DETECTABLE_AUC
        return large, (
            f"{pairs} works have takes on both sides: the paired test counts works, not tracks, and "
            + (_shows(smallest, PAIRED) if large else f"needs at least {seen.units_needed} of them")
        )
    problems = refusals(intake.tracks) if intake.tracks else ["no recording can be used"]
    if problems:
        return False, f"not testable: {'; '.join(problems)}"
    seen = reach_of(intake.tracks, ALPHA)
    return True, f"{seen.n_suspect} v {seen.n_held_out} tracks: {_shows(seen.detectable_auc or 1.0)}"


def _shows(auc: float, of: str = "") -> str:
    return f"an AUC{of} of {auc:.2f} or more would be seen with {POWER:.0%} power"


def as_dict(intake: Intake) -> dict[str, Any]:
    """Return everything that was found as JSON types; NaN becomes null."""
    testable, why = enough(intake)
    tables = {name: getattr(intake, name) for name in ("files", "duplicates", "exclusions")}
    return {
        "testable": testable,
        "size": why,
        "counts": intake.counts(),
        "imbalances": list(intake.imbalances),
        "straddling": list(intake.straddling),
        "passed_over": intake.passed_over,
        **{name: json.loads(table.to_json(orient="records")) for name, table in tables.items()},
    }


def show_check(intake: Intake, console: Console) -> None:
    """Print the tables that a person needs before anything is scored."""
    console.print(_overview(intake))
    _rows(console, "Left out", intake.exclusions, ("track_id", "reason"))
    pairs = intake.duplicates.assign(similarity=intake.duplicates["similarity"].map("{:.0%}".format))
    columns = ("track_id", "other_id", "similarity")
    _rows(console, "Copies of one recording", pairs[~pairs["twins"]], columns)
    _rows(console, "Versions of one work, compared in pairs", pairs[pairs["twins"]], columns)
    for role, kinds in intake.passed_over.items():
        if kinds:
            listed = ", ".join(f"{kind or 'no suffix'} {count}" for kind, count in kinds.items())
            console.print(
                f"Passed over among {ROLE_NAMES[role]}, no recordings by their names: {escape(plain(listed))}"
            )
    for sentence in intake.imbalances:
        console.print(f"The sides differ in {escape(plain(sentence))}")
    console.print(escape(enough(intake)[1]))


def _overview(intake: Intake) -> Table:
    """Return one row per role: tracks found and usable, length, formats."""
    table = Table(box=box.SIMPLE)
    for heading in ("", "found", "usable", "length", "formats"):
        table.add_column(heading, justify="left" if heading in ("", "formats") else "right")
    for role in [role for role in ROLE_NAMES if (intake.files["role"] == role).any()]:
        found = intake.files[intake.files["role"] == role]
        usable = found[found["reason"] == ""]
        formats = ", ".join(f"{kind} {count}" for kind, count in usable["format"].value_counts().items())
        minutes = f"{usable['duration_s'].sum() / 60:.1f} min"
        table.add_row(ROLE_NAMES[role], str(len(found)), str(len(usable)), minutes, escape(plain(formats)))
    return table


def _rows(console: Console, title: str, frame: pd.DataFrame, columns: tuple[str, ...]) -> None:
    """Print a table whole: a list that is cut short would drop data silently."""
    if frame.empty:
        return
    table = Table(title=title, title_justify="left", box=box.SIMPLE, show_header=False)
    for _ in columns:
        table.add_column(overflow="fold")
    for row in frame[list(columns)].astype(str).itertuples(index=False):
        table.add_row(*(escape(plain(cell)) for cell in row))
    console.print(table)


# --- what plan prints -------------------------------------------------------------------------------------------------

SHOWN = 10  # reasons for which recordings are left out
LENGTH = re.compile(r"^[\d.]+ s, ")  # each recording's own, before what it is shorter than


def show_forecasts(forecasts: Sequence[Forecast], console: Console) -> None:
    """Print one table per model; where there are several, what they take together."""
    for found in forecasts:
        console.print(table(found))
    hours = [found.hours or 0.0 for found in forecasts if found.probe or not found.tracks_missing]
    if len(hours) == len(forecasts) > 1:
        disk = sum(found.disk_gib or 0.0 for found in forecasts)
        console.print(f"together: {span(sum(hours) * 3600)} in one process, {disk:.3g} GiB")


def table(found: Forecast) -> Table:
    """Return a forecast as a table for a terminal."""

    def row(name: str, text: str) -> None:
        shown.add_row(name, escape(text))

    what = "control model, " if found.control else ""
    shown = Table("", f"{escape(found.model)} ({what}{found.revision[:16]})", show_lines=False)
    row("tracks", f"{found.tracks} usable, {len(found.exclusions)} not; {found.audio_hours:.2f} h of audio")
    if found.references:
        row("of them", f"{found.references} for the rank among reference artists")
    row("stored", f"{found.tracks_stored} tracks")
    row("to score", f"{found.tracks_missing} tracks, at most {found.segments_missing} segments")
    alone = ", ".join(f"{name} {n}" for name, n in found.evaluations.items())
    row("network calls a segment", f"{found.evaluations_shared} shared ({found.evaluations_separate} if not: {alone})")
    if found.probe:
        p = found.probe
        row(
            f"measured on {p.segments} segments ({p.device})",
            f"{p.score_s_per_segment:.3g} s a segment, {p.prepare_s_per_track:.3g} s a track to decode",
        )
        gpu = "" if p.peak_gpu_memory_mib is None else f", {p.peak_gpu_memory_mib:.0f} MiB on the card"
        row("peak memory", f"{p.peak_memory_mib:.0f} MiB{gpu}")
    if found.hours is not None:
        row("time, one process" if found.probe else "time on two cores, by the card", span(found.hours * 3600))
    if found.disk_gib is not None:
        row("disk", f"{found.disk_gib:.3g} GiB")
    reasons = Counter(LENGTH.sub("", row["reason"]) for row in found.exclusions).most_common()
    for reason, number in reasons[:SHOWN]:
        row("left out", f"{number} x {reason}")
    if more := sum(number for _, number in reasons[SHOWN:]):
        row("left out", f"and {more} more; --json lists all")
    for text in found.refusals:
        row("not testable", text)
    for text in found.notes:
        row("note", text)
    return shown
