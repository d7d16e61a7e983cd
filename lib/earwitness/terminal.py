"""What ``check`` prints: an ``Intake`` and whether it can be tested, as tables for a terminal or as JSON for a program.

Every name is text from outside: markup is escaped, what is not printable is written as an escape.

Book page: *Audit your own*.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from earwitness.audit.intake import Intake
from earwitness.audit.report import Testable
from earwitness.audit.wording import testable_line
from earwitness.data.folders import CLOUD, say_passed_over, shorten
from earwitness.stats.power import reach, reach_of, refusals
from earwitness.stats.verdict import ALPHA, MAX_DETECTABLE_AUC, MIN_UNITS, POWER
from earwitness.types import ROLE_NAMES, SIDES
from earwitness.util import counted, plain

SHOWN = 10  # artists that are named

COUNTED = {  # what follows from a join, by unit
    "work": "; a work counts once. If they are several, say so in a table with path and work (--works)",
    "track": ". WARNING: they are counted for themselves (--unit track), although they are not independent",
}
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


def as_dict(intake: Intake, before: Testable | None = None, looks: int = 0) -> dict[str, Any]:
    """Return everything that was found as JSON types; NaN becomes null."""
    testable, why = enough(intake)
    tables = {name: getattr(intake, name) for name in ("files", "duplicates", "exclusions")}
    answered = {"answer": before.model_dump(), "looks": looks} if before else {}
    return {
        "testable": before.answer if before else testable,
        "size": why,
        **answered,
        "counts": intake.counts(),
        "imbalances": list(intake.imbalances),
        "straddling": list(intake.straddling),
        "joins": [{"tracks": [t.track_id for t in join.tracks], "why": join.why} for join in intake.joins],
        "unit": intake.unit,
        "passed_over": intake.passed_over,
        **{name: json.loads(table.to_json(orient="records")) for name, table in tables.items()},
    }


def show_check(intake: Intake, console: Console, before: Testable | None = None, looks: int = 0) -> None:
    """Print the tables that a person needs before anything is scored; last, whether that can be tested."""
    console.print(_overview(intake))
    console.print(escape(plain(_by_artist(intake))))
    _rows(console, "Left out", shorten(intake.exclusions), ("track_id", "reason"))
    if away := int((intake.exclusions["reason"] == CLOUD).sum()):
        console.print(f"{counted(away, 'recording')} not on this disk; download first")
    odd = intake.files[(intake.files["remark"] != "") & (intake.files["reason"] == "")]
    _rows(console, "Used whole, with a remark", odd, ("track_id", "remark"))
    pairs = intake.duplicates.assign(similarity=intake.duplicates["similarity"].map("{:.0%}".format))
    columns = ("track_id", "relation", "similarity")
    _rows(console, "Copies", pairs[~pairs["twins"]], columns)
    _rows(console, "Versions of one work, compared in pairs", pairs[pairs["twins"]], columns)
    for join in intake.joins:
        console.print(escape(plain(f"{join.describe()}{COUNTED[intake.unit]}")))
    for role, kinds in intake.passed_over.items():
        if kinds:
            console.print(escape(plain(f"Among {ROLE_NAMES[role]} {say_passed_over(kinds)}")))
    for sentence in intake.imbalances:
        console.print(f"The sides differ in {escape(plain(sentence))}")
    console.print(escape(enough(intake)[1]))
    if before is None:
        return
    console.print(escape(plain(before.cost)))
    if looks:
        told = "the first selection" if looks == 1 else f"selection {looks}"
        console.print(f"On record as a look at the gate: {told} of these suspects; a report says how many there were.")
    console.print(escape(plain(testable_line(before))), style="bold")


def _by_artist(intake: Intake) -> str:
    """Say whose recordings are compared, and whether albums count once."""
    sides = [Counter(t.artist for t in intake.tracks if t.role in SIDES[side]) for side in ("suspect", "held_out")]
    artists = sorted(sides[0].keys() | sides[1].keys())
    if not any(artists):
        return "No artist is named: all are compared as if by one (--by-folder takes the names of folders)."
    first = [f"{artist or 'nobody named'} {sides[0][artist]} v {sides[1][artist]}" for artist in artists[:SHOWN]]
    albums = {t.work for t in intake.tracks if t.work.startswith((f"{t.role}: ",))}
    more = f" and {len(artists) - SHOWN} more" if len(artists) > SHOWN else ""
    once = f"; {counted(len(albums), 'album')}, each of which counts once" if albums else ""
    return f"Artists, suspects v held-out: {', '.join(first)}{more}{once}"


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
