"""An interactive figure for a static page: a table of answers, and sliders that pick one.

Everything that can be asked is computed beforehand and stands in the page as data; a few lines of plain JavaScript show
the row that the reader has dialled. Without JavaScript the figure is a sentence with the answer to its first setting.
"""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from earwitness.errors import InputError
from earwitness.figures.style import need
from earwitness.util import sha256

SLIDER_FROM = 7  # an axis with so many values is a slider, with fewer a list

_SCRIPT = """(() => {
  const box = document.getElementById("ID"), data = JSON.parse(box.querySelector("script").textContent);
  const inputs = [...box.querySelectorAll("input, select")], line = box.querySelector("p");
  const show = () => {
    const at = inputs.map((input) => +input.value), said = {};
    const row = data.axes.reduce((sum, axis, i) => sum * axis.text.length + at[i], 0);
    data.axes.forEach((axis, i) => {
      said[axis.name] = axis.text[at[i]];
      if (inputs[i].type !== "range") return; // a list says its own value
      inputs[i].setAttribute("aria-valuetext", axis.text[at[i]]);
      inputs[i].parentNode.querySelector("output").textContent = axis.text[at[i]];
    });
    for (const name in data.columns) said[name] = data.columns[name][row];
    line.innerHTML = data.sentence.replace(/{(\\w+)}/g, (_, name) => said[name]);
    if (data.meter) box.querySelector(".ew-dial-meter span").style.width = data.meter[row] + "%";
  };
  inputs.forEach((input) => input.addEventListener("input", show));
  box.querySelector(".ew-dial-controls").hidden = false;
  show();
})();"""


@dataclass(frozen=True)
class Dial:
    """An interactive figure, shown as HTML; ``alt`` is the sentence it shows without JavaScript."""

    html: str = field(repr=False)
    alt: str

    def _repr_html_(self) -> str:
        return self.html


def dial(
    table: pd.DataFrame,
    axes: Mapping[str, str],
    sentence: str,
    *,
    start: Mapping[str, Any] | None = None,
    formats: Mapping[str, str | Callable[[Any], str]] | None = None,
    meter: str = "",
    source: str = "",
) -> Dial:
    """Let the reader pick a row of a table that holds every combination of the axes exactly once.

    Parameters
    ----------
    table : pandas.DataFrame
        One column per axis, and those that the sentence names.
    axes : mapping
        Column -> label, in order; up to six values make a list, more a slider.
    sentence : str
        HTML with ``{column}`` where the row's value goes, axes included.
    start : mapping, optional
        Axis -> value shown first; default the first of each.
    formats : mapping, optional
        Column -> format specification or function of the value; default as ``str`` has it.
    meter : str
        A positive column that is drawn as a bar, logarithmically from its smallest to its largest value.
    source : str
        Where the table lies.

    Raises
    ------
    InputError
        A column that is missing, or combinations of the axes that are missing or given twice.
    """
    need(table, *axes, *([meter] if meter else []))
    values = {name: sorted(table[name].unique().tolist()) for name in axes}
    size = int(np.prod([len(v) for v in values.values()]))
    if len(table) != size or table.duplicated(list(axes)).any():
        raise InputError(
            f"a dial needs every combination of {', '.join(axes)} exactly once: {size} rows, got {len(table)}"
        )
    ordered = table.sort_values(list(axes)).reset_index(drop=True)
    shown = [str(name) for name in ordered.columns if name not in axes and f"{{{name}}}" in sentence]
    text = {name: _texts(values.get(name, ordered[name]), (formats or {}).get(name)) for name in (*axes, *shown)}
    first = {name: (start or {}).get(name, values[name][0]) for name in axes}
    for name, value in first.items():
        if value not in values[name]:
            raise InputError(f"a dial cannot start at {name} = {value!r}; the table has {values[name]}")
    at = {name: values[name].index(first[name]) for name in axes}
    row = int(np.ravel_multi_index(list(at.values()), [len(v) for v in values.values()]))
    data: dict[str, Any] = {
        "axes": [{"name": name, "text": text[name]} for name in axes],
        "columns": {name: text[name] for name in shown},
        "sentence": sentence,
    }
    bar = ""
    if meter:
        scale = np.log(ordered[meter].to_numpy(dtype=np.float64))
        data["meter"] = np.round(100 * (scale - scale.min()) / max(float(np.ptp(scale)), 1e-9), 1).tolist()
        bar = f'<div class="ew-dial-meter" aria-hidden="true"><span style="width:{data["meter"][row]}%"></span></div>'
    said = {name: text[name][at[name]] for name in axes} | {name: text[name][row] for name in shown}
    answer = sentence.format(**said)
    packed = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    mark = "ew-dial-" + sha256(packed)[:10]
    controls = "".join(_control(label, text[name], at[name]) for name, label in axes.items())
    caption = f"<figcaption>Drawn from <code>{html.escape(source)}</code></figcaption>" if source else ""
    return Dial(
        f'<figure class="ew-figure ew-dial" id="{mark}"><div class="ew-dial-controls" hidden>{controls}</div>'
        f'<p aria-live="polite">{answer}</p>{bar}'
        "<noscript><small>With JavaScript this figure answers other settings too.</small></noscript>"
        f'<script type="application/json">{packed}</script><script>{_SCRIPT.replace("ID", mark)}</script>'
        f"{caption}</figure>",
        answer,
    )


def _texts(values: Any, how: str | Callable[[Any], str] | None) -> list[str]:
    """Format values, escaped for a page."""
    return [html.escape(how(v) if callable(how) else format(v, how or "")) for v in values]


def _control(label: str, texts: list[str], at: int) -> str:
    """One slider or list, labelled."""
    name = f"<span>{html.escape(label)}</span>"
    if len(texts) < SLIDER_FROM:
        options = "".join(
            f'<option value="{i}"{" selected" if i == at else ""}>{text}</option>' for i, text in enumerate(texts)
        )
        return f"<label>{name}<select>{options}</select></label>"
    slider = f'<input type="range" min="0" max="{len(texts) - 1}" value="{at}">'
    return f"<label>{name}<output>{texts[at]}</output>{slider}</label>"
