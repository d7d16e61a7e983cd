"""What ``plan`` prints: forecasts, as tables for a terminal.

Every name is text from outside: markup is escaped, what is not printable is written as an escape.

Book page: *Audit your own*.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from earwitness.audit.cost import Forecast
from earwitness.util import span

SHOWN = 10  # reasons for which recordings are left out, and artists

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
