"""What a page shows besides figures: badge, claim, tables, audio players, how to redo it.

Each function returns an :class:`Html` that Jupyter and the book show alike; ``book/_static/custom.css`` gives it its
looks. Numbers arrive in tables and are only formatted here. The book page *How to read a page* shows every piece.
"""

from __future__ import annotations

import base64
import html
import io
import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from earwitness.errors import InputError, nearest
from earwitness.figures import Figure, heard, spectrogram
from earwitness.types import BADGES
from earwitness.util import counted, guarded

ACCESS = {"none": "no model", "grey": "probabilities", "white": "gradients"}
SIGN = {"published": "as published", "ours": "fixed here beforehand", "none": "none claimed"}
MOST_COLUMNS = 5  # wider tables take the margin too
LONG_CELL = 44  # characters; longer cells wrap
SHORT_CELL = 15  # characters; shorter ones never do


@dataclass(frozen=True)
class Html:
    """A piece of a page."""

    html: str = field(repr=False)

    def _repr_html_(self) -> str:
        return self.html


def badge(kind: str) -> str:
    """Return the badge *pocket*, *tiny checkpoint* or *real model* as HTML, with what it means as its title."""
    if kind not in BADGES:
        raise InputError(f"badge: expected {', '.join(BADGES)}, got {kind!r}{nearest(kind, BADGES)}")
    name, meaning = BADGES[kind]
    return f'<span class="ew-badge ew-badge-{kind}" title="{html.escape(meaning)}">{name}</span>'


def claim(text: str, kind: str, detail: str = "") -> Html:
    """Show what a page found, in at most two sentences of HTML under its badge, with what else there is below the box.

    ``kind`` is a badge, or ``"none"``; ``detail`` holds attack ids, numbers of tracks and what only some readers ask.
    """
    worn = "" if kind == "none" else f"<p>{badge(kind)} <small>{BADGES[kind][1]}</small></p>"
    more = f'<p class="ew-detail">{detail}</p>' if detail else ""
    return Html(f'<div class="ew-claim">{worn}<p>{text}</p></div>{more}')


def ranking(row: pd.Series) -> str:
    """Say in HTML how often members rank above non-members, within artists where tracks name any.

    ``row`` is an attack's of ``ew.compare``.
    """
    own, name = (" of its own artist", "auc_within") if row["n_artists"] else ("", "auc")
    value, low, high = (f"{row[name + limit]:.0%}" for limit in ("", "_low", "_high"))
    return (
        f"A member ranks above a non-member{own} <strong>{value} of the time</strong> (95% interval {low} to {high}; a "
        "coin: 50%)"
    )


def measured(row: pd.Series, attack: str) -> str:
    """Say in HTML which attack a ranking is of, over which tracks, and what it finds at the false alarms allowed."""
    n = int(row["n_artists"])
    of = f" of {'one artist' if n == 1 else f'the same {n} artists'}" if n else ""
    return (
        f"The attack is <code>{html.escape(attack)}</code>, over {row['n_member']:.0f} members and "
        f"{row['n_nonmember']:.0f} non-members{of}. Allowed {row['fpr_target']:.0%} false alarms, it finds "
        f"{row['tpr']:.0%} of the members and wrongly flags {row['fpr']:.0%} of fresh non-members (means over many "
        "thresholds)."
    )


def interval(frame: pd.DataFrame, name: str) -> pd.Series:
    """Format ``name`` with ``name_low`` and ``name_high`` as "0.62 [0.57, 0.66]"; NaN becomes "cannot say"."""

    def text(row: pd.Series) -> str:
        if pd.isna(row[name]):
            return "cannot say"
        low, high = row[f"{name}_low"], row[f"{name}_high"]
        known = "" if pd.isna(low) else f" [{low:.2f}, {high:.2f}]"
        return f"{row[name]:.2f}{known}"

    return frame.apply(text, axis=1) if len(frame) else pd.Series(dtype=str)


def table(
    frame: pd.DataFrame,
    columns: Mapping[str, str],
    *,
    formats: Mapping[str, str | Callable[[Any], Any]] | None = None,
    source: str = "",
    mark: str = "",
) -> Html:
    """Show a result table in the one style of the book.

    Parameters
    ----------
    frame : pandas.DataFrame
        As written under ``results/tables/``.
    columns : mapping
        Column -> heading, in order. A column ``x`` with ``x_low`` and ``x_high`` beside it is shown with its interval.
    formats : mapping, optional
        Column -> format specification (``".3f"``) or a function (of text, or of :class:`Html`, which is shown as it
        is); default two decimals for numbers that are not whole.
    source : str
        Where the table lies: named below it, and offered for download.
    mark : str
        A boolean column; rows where it holds are set apart (blind and null rows).
    """
    for column in columns:
        if column not in frame:
            raise InputError(f"the table has no column {column!r}{nearest(column, frame.columns)}")
    cells = {column: _cells(frame, column, (formats or {}).get(column)) for column in columns}
    lengths = {c: max((len(re.sub("<[^>]+>", "", cell)) for cell in shown), default=0) for c, shown in cells.items()}
    looks = {column: " class=ew-long" for column, length in lengths.items() if length > LONG_CELL}
    if looks:
        looks |= {column: " class=ew-short" for column, length in lengths.items() if length <= SHORT_CELL}
    head = "".join(f"<th>{html.escape(heading)}</th>" for heading in columns.values())
    apart = frame[mark].to_list() if mark else [False] * len(frame)
    rows = []
    for i, flag in enumerate(apart):
        row = "".join(f"<td{looks.get(c, '')}>{shown[i]}</td>" for c, shown in cells.items())
        rows.append(f"<tr{' class=ew-apart' if flag else ''}>{row}</tr>")
    note = f"<p class=ew-source><code>{html.escape(source)}</code> {download(frame, source)}</p>" if source else ""
    if not rows:
        return Html(f"<p>Nothing.</p>{note}")
    wide = " full-width" if len(columns) > MOST_COLUMNS else ""  # the theme lets it reach into the margin
    named = f"table {source or ', '.join(columns.values())}"  # landmarks of a page need names of their own
    return Html(
        f'<div class="ew-scroll{wide}" tabindex="0" role="region" aria-label="{html.escape(named, quote=True)}">'
        f'<table class="ew-table"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>{note}'
    )


def _cells(frame: pd.DataFrame, column: str, how: str | Callable[[Any], Any] | None) -> list[str]:
    """Format a column; everything is escaped but what is :class:`Html` already."""
    values: list[Any] = frame[column].to_list()
    real = pd.api.types.is_float_dtype(frame[column])
    if callable(how):
        values = [how(value) for value in values]
    elif f"{column}_low" in frame:
        values = interval(frame, column).to_list()
    elif how or real:
        sign = "z" if real else ""  # no "-0.00"
        values = ["" if pd.isna(value) else format(value, sign + (how or ".2f")) for value in values]
    return [value.html if isinstance(value, Html) else html.escape(str(value)) for value in values]


def verdict(word: str) -> Html:
    """Show one of the three words in its colour."""
    return Html(f'<span class="ew-word ew-word-{word.replace(" ", "-")}">{html.escape(word)}</span>')


def download(frame: pd.DataFrame, source: str) -> str:
    """Return a link that saves ``frame`` as CSV, with its content in the page itself."""
    data = base64.b64encode(guarded(frame).to_csv(index=False).encode()).decode()
    return f'<a download="{html.escape(source.split("/")[-1])}" href="data:text/csv;base64,{data}">download</a>'


def saved(source: str) -> Html:
    """Return a link to the copy of a table (named as ``tables.source`` does) that the built book holds."""
    path = html.escape(source.removeprefix("results/"), quote=True)
    return Html(f'<a download href="../{path}">{html.escape(source.split("/")[-1])}</a>')


def player(audio: np.ndarray, sample_rate: int, title: str, note: str = "", surprise: np.ndarray | None = None) -> Html:
    """Show an audio player under the recording's spectrogram; the page holds the sound itself (MP3).

    Parameters
    ----------
    audio : numpy.ndarray, shape [samples]
        Mono, in [-1, 1].
    sample_rate : int
        Hz.
    title, note : str
        Heading and a line below it.
    surprise : numpy.ndarray, shape [frames], optional
        A model's surprise at each frame, drawn under the spectrogram (``TokenSignals.surprise``).
    """
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, audio, sample_rate, format="MP3")
    data = base64.b64encode(buffer.getvalue()).decode()
    name = html.escape(title, quote=True)
    drawn = spectrogram(audio, sample_rate, title=title)
    picture = (drawn if surprise is None else heard(audio, sample_rate, surprise, title=title)).svg
    sound = f'<audio controls preload="metadata" src="data:audio/mpeg;base64,{data}" aria-label="{name}"></audio>'
    shown = f"{picture}{sound}<figcaption>{html.escape(note)}</figcaption>"
    return Html(f'<figure class="ew-figure ew-player">{shown}</figure>')


def side_by_side(*pieces: Html | Figure, note: str = "") -> Html:
    """Put figures, players or tables beside each other where the screen is wide enough, and a sentence below them."""
    below = f"<p>{html.escape(note)}</p>" if note else ""
    return Html(f'<div class="ew-row">{"".join(f"<div>{piece.html}</div>" for piece in pieces)}</div>{below}')


def against_the_average(surprise: Mapping[str, float]) -> str:
    """Say whether one member and one non-member, of so much mean surprise each, show what members show on average.

    >>> against_the_average({"member": 4.2, "nonmember": 4.08})
    'This pair goes the other way: the model was surprised more by the member. A pair decides nothing.'
    """
    if not {"member", "nonmember"} <= surprise.keys():
        return ""
    if surprise["member"] < surprise["nonmember"]:
        return "This pair goes the expected way: the model was surprised less by the member. A pair decides nothing."
    return "This pair goes the other way: the model was surprised more by the member. A pair decides nothing."


def in_words(items: Sequence[str]) -> str:
    """List items in a sentence.

    >>> in_words(["0.5", "1", "1.5"])
    '0.5, 1 and 1.5'
    """
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def catalogue(attacks: pd.DataFrame) -> Html:
    """Show the attack registry, one entry each: name, cost, what it measures, its formula and its source.

    ``attacks`` is ``earwitness.attacks.catalogue()``. The page needs one formula in its text as well, so that the book
    loads MathJax for it.
    """
    entries = []
    for row in attacks.to_dict("records"):
        text = {name: html.escape(str(value)) for name, value in row.items()}
        entries.append(
            f'<dt><a href="../api.html#{text["function"]}"><code>{text["attack"]}</code></a> '
            f"<small>{text['family']}; {counted(row['ids'], 'id')}; "
            f"passes: {text['passes']}; access: {ACCESS[row['access']]}; "
            f"sign: {SIGN[row['sign']]}</small></dt>"
            f"<dd><p>{text['summary']}</p>"
            f'<div class="math notranslate nohighlight ew-scroll">\\[{text["formula"]}\\]</div>'
            f"<p class=ew-source>{text['source']}</p></dd>"
        )
    return Html(f'<dl class="ew-catalogue">{"".join(entries)}</dl>')


def redo(template: str, parameters: Mapping[str, Any]) -> Html:
    """Show the papermill line that runs a page again, and its parameters as a table.

    Parameters
    ----------
    template : str
        File name under ``notebooks/``, without its ending.
    parameters : mapping
        Name -> value as used by this run; values are quoted for a shell, lists written as YAML.
    """
    words = [
        f"-y {shlex.quote(f'{name}: {json.dumps(value)}')}"
        if isinstance(value, list)
        else f"-p {name} {shlex.quote(str(value))}"
        for name, value in parameters.items()
    ]
    line = " \\\n  ".join([f"papermill notebooks/{template}.ipynb out.ipynb", *words])
    listed = pd.DataFrame({"name": list(parameters), "value": [str(value) for value in parameters.values()]})
    shown = table(listed, {"name": "parameter", "value": "value on this page"}, formats={"name": code, "value": code})
    return Html(f'<div class="highlight"><pre>{html.escape(line)}</pre></div>{shown.html}')


def code(text: str) -> Html:
    """Show text as code."""
    return Html(f"<code>{html.escape(text)}</code>")


def footer(stamped: Mapping[str, Any]) -> Html:
    """Show a stamp folded away at the foot of a page."""

    def words(value: Any) -> str:
        if not isinstance(value, Mapping):
            return html.escape(str(value))
        named = [(html.escape(str(key)), html.escape(str(item))) for key, item in value.items()]
        return ", ".join(f"{key} <code>{item}</code>" for key, item in named)

    rows = "".join(f"<tr><th>{html.escape(k)}</th><td>{words(v)}</td></tr>" for k, v in stamped.items() if v or v == 0)
    return Html(
        '<details class="ew-provenance"><summary>What produced this page</summary>'
        f'<div class="ew-scroll"><table class="ew-table"><tbody>{rows}</tbody></table></div></details>'
    )
