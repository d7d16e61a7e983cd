"""Executed notebooks without the folders of whoever ran them.

Papermill writes its parameters, and the paths of the notebooks, into what it executes. In a redacted audit everything
else is by number already; this takes the rest out.

Book page: *Audit your own*.
"""

from __future__ import annotations

import json
from pathlib import Path

import nbformat

from earwitness.errors import InputError

PLACES = ("suspects", "held_out", "manifest", "reference_artists", "captions", "frozen", "out")
INSTEAD = "REDACTED"


def redact(path: Path) -> None:
    """Take the values of path parameters, and papermill's own record, out of an executed notebook, in place.

    Raises
    ------
    InputError
        No notebook.
    """
    try:
        text = path.read_text(encoding="utf-8")
        node = nbformat.reads(text, as_version=4)
    except (OSError, UnicodeDecodeError, ValueError, nbformat.reader.NotJSONError) as error:
        raise InputError(
            f"{path.name}: expected an executed notebook ({type(error).__name__}); check the path"
        ) from None
    record = node.metadata.get("papermill", {})
    given = record.get("parameters", {})
    values = [given.get(name) for name in PLACES] + [record.get("input_path"), record.get("output_path")]
    words = sorted({str(Path(v)) for v in values if v} | {str(v) for v in values if v}, key=len, reverse=True)
    node.metadata.pop("papermill", None)
    for cell in node.cells:
        cell.metadata.pop("papermill", None)
    text = nbformat.writes(node)
    for word in words:
        text = text.replace(json.dumps(word)[1:-1], INSTEAD).replace(json.dumps(json.dumps(word)[1:-1])[1:-1], INSTEAD)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text + "\n", encoding="utf-8")
    part.replace(path)
