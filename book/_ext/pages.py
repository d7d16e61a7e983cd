"""What the theme leaves to be done in the built pages: nothing loaded that is not needed, everything reachable by key.

Jupyter Book adds every script under ``_static`` to every page, MathJax (1.2 MB) too, which Sphinx itself already adds
where there is a formula; and it always adds Thebe, whose script lives on another server. The theme lets wide tables
scroll, but only under a mouse. The functions of attacks say their formula and source, which the registry holds.
"""

from __future__ import annotations

from inspect import getdoc
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util import rst

from earwitness import audit
from earwitness.attacks import REGISTRY


def drop_mathjax_copies(_app: Sphinx, config: Config) -> None:
    """Leave MathJax to ``mathjax_path``."""
    config.html_js_files = [file for file in config.html_js_files if "mathjax" not in str(file)]


def drop_thebe(_app: Sphinx, _page: str, _template: str, context: dict[str, Any], _doctree: Any) -> None:
    """Take Thebe's scripts and style out of a page."""
    for kind in ("script_files", "css_files"):
        files = context.get(kind, [])
        context[kind] = [file for file in files if "thebe" not in f"{file} {getattr(file, 'attributes', '')}".lower()]


MENDED = {  # what the theme writes -> what it should say
    '<div class="pst-scrollable-table-container"': '<div class="pst-scrollable-table-container" tabindex="0"',
    '<div role="list" class="citation-list"': '<div class="citation-list"',  # its children are no list items
}


def mend_for_all(_app: Sphinx, _page: str, _template: str, context: dict[str, Any], _doctree: Any) -> None:
    """Let the keyboard scroll what the mouse can, and screen readers hear what is there."""
    for written, mended in MENDED.items():
        context["body"] = context.get("body", "").replace(written, mended)


ATTACKS = {attack.function: attack for attack in REGISTRY.values()}


def describe_attack(_app: Sphinx, _what: str, _name: str, thing: Any, _options: Any, lines: list[str]) -> None:
    """Add formula and source of a registered attack to its function's text."""
    found = ATTACKS.get(thing) if callable(thing) else None
    if found:
        said = f"*Id* ``{found.name}``. *Source*: {rst.escape(found.source)}."
        lines += ["", ".. math::", "", f"   {found.formula}", "", said]


def describe_call(_app: Sphinx, _what: str, _name: str, thing: Any, _options: Any, lines: list[str]) -> None:
    """Take the text of ``earwitness.audit``, which is room and function, from the function."""
    if thing is audit:
        lines[:] = (getdoc(audit.audit) or "").splitlines()


def setup(app: Sphinx) -> dict[str, Any]:
    """Register all of it."""
    app.connect("config-inited", drop_mathjax_copies)
    app.connect("html-page-context", drop_thebe, priority=900)
    app.connect("html-page-context", mend_for_all, priority=900)
    app.connect("autodoc-process-docstring", describe_attack)
    app.connect("autodoc-process-docstring", describe_call, priority=100)  # before napoleon reads the sections
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
