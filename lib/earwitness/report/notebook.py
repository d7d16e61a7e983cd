"""Executed notebooks without the folders of whoever ran them.

Papermill writes its parameters, and the paths of the notebooks, into what it executes. In a redacted audit everything
else is by number already; this takes the rest out. A model keeps the name that the report gives it: a pocket or hub
name whole, of a folder its last part.

Book page: *Audit your own*.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import nbformat

from earwitness.errors import InputError
from earwitness.models.files import HUB_NAME
from earwitness.paths import project_root

PLACES = ("suspects", "held_out", "manifest", "reference_artists", "captions", "frozen", "out")
MODELS = ("model", "control_model", "other_models")
TAGS = {"parameters", "injected-parameters"}
INSTEAD = "REDACTED"


def redact(path: Path) -> None:
    """Take the values of path parameters, and papermill's own record, out of an executed notebook, in place.

    Raises
    ------
    InputError
        No notebook, none that papermill executed, or one that was not asked to redact and so names recordings.
    """
    try:
        text = path.read_text(encoding="utf-8")
        node = nbformat.reads(text, as_version=4)
    except (OSError, UnicodeDecodeError, ValueError, nbformat.reader.NotJSONError) as error:
        raise InputError(
            f"{path.name}: expected an executed notebook ({type(error).__name__}); check the path"
        ) from None
    record = node.metadata.get("papermill")
    if record is None:
        raise InputError(
            f"{path.name}: papermill has no record in it; it was redacted before, or execute it with papermill"
        )
    given = record.get("parameters", {})
    if given.get("redact") is not True:  # its tables hold the names of recordings, which nothing here knows
        raise InputError(f"{path.name}: executed without redact, so it names recordings; run it with -p redact True")
    values = [given.get(name) for name in PLACES] + [record.get("input_path"), record.get("output_path")]
    values += [model for model in _models(given) if _is_folder(model, path.parent)]
    values += [sys.prefix, Path.home(), project_root()]  # warnings of libraries name the file that they come from
    words = {form for value in values if value for form in _forms(str(value))}
    long = _swap(re.escape(word) for word in words if re.search(r"[/\\]", word))
    # a folder called "model" or "table" must not take these words out of code and prose
    bare = _swap(
        rf"(?<=[\"'/\\]){re.escape(word)}(?!\w)|(?<!\w){re.escape(word)}(?=[\"'/\\])|^{re.escape(word)}$"
        for word in words
        if not re.search(r"[/\\]", word)
    )
    node.metadata.pop("papermill", None)
    for cell in node.cells:
        cell.metadata.pop("papermill", None)
    node = _through(node, long)
    for cell in node.cells:
        if TAGS & set(cell.metadata.get("tags", ())):
            cell.source = bare(cell.source)
        for output in cell.get("outputs", ()):
            for part in output.keys() - {"output_type", "name", "ename"}:
                output[part] = _through(output[part], bare)
    text = nbformat.writes(node)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text + "\n", encoding="utf-8")
    part.replace(path)


def _models(given: Mapping[str, Any]) -> list[str]:
    """Return every model that the parameters name."""
    values = [given.get(name) or [] for name in MODELS]
    return [str(model) for value in values for model in ([value] if isinstance(value, str) else value)]


def _is_folder(model: str, beside: Path) -> bool:
    """Whether a model is a place on a machine: it is no pocket and no hub name, or a folder is called so here."""
    if model.startswith("pocket/"):
        return False
    bases = (Path.cwd(), beside, project_root())
    return not HUB_NAME.fullmatch(model) or any((base / Path(model).expanduser()).is_dir() for base in bases)


def _forms(value: str) -> set[str]:
    """Return how a path may be written in a notebook: as given, made whole, escaped once, twice and by papermill."""
    place = Path(value)
    forms = {value, str(place), str(place.expanduser().absolute())}
    once = {json.dumps(form)[1:-1] for form in forms}
    twice = {json.dumps(form)[1:-1] for form in once}
    # papermill writes an accent as \xfc, where JSON has \u00fc
    given = {form.encode("unicode_escape").decode().replace('"', r"\"") for form in forms}
    return {form for form in forms | once | twice | given if form.strip("./\\ ")}


def _swap(patterns: Iterable[str]) -> Callable[[str], str]:
    """Return what puts ``INSTEAD`` in the place of every match, the longest first."""
    ordered = sorted(patterns, key=len, reverse=True)
    pattern = re.compile("|".join(ordered) or r"(?!)", flags=re.MULTILINE)
    return lambda text: pattern.sub(INSTEAD, text)


def _through(value: Any, swap: Callable[[str], str]) -> Any:
    """Apply ``swap`` to every text in a value of a notebook; keys stay."""
    if isinstance(value, str):
        return swap(value)
    if isinstance(value, list):
        return [_through(one, swap) for one in value]
    if isinstance(value, dict):
        return type(value)({name: _through(one, swap) for name, one in value.items()})
    return value
