"""What the theme leaves to be done in the built pages: nothing loaded that is not needed, everything reachable by key.

Jupyter Book adds every script under ``_static`` to every page, MathJax (1.2 MB) too, which Sphinx itself already adds
where there is a formula; and it always adds Thebe, whose script lives on another server. The theme lets wide tables
scroll, but only under a mouse. The functions of attacks say their formula and source, which the registry holds. Code
stands below what it produced, one fold per result. A word of the glossary is a link where a page first uses it. Pages
on one question link each other below the title.
"""

from __future__ import annotations

import re
from functools import cache
from html import escape
from inspect import getdoc
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from myst_nb.sphinx_ import HideCodeCellNode
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import rst
from sphinx.util.nodes import make_refnode

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


@cache
def _chapters(toc: Path) -> list[list[dict[str, str]]]:
    """Return each chapter that has sections, with them; a build reads its table of contents once."""
    parts = yaml.safe_load(toc.read_text(encoding="utf-8"))["parts"]
    return [[c, *c["sections"]] for part in parts for c in part["chapters"] if "sections" in c]


def add_switch(app: Sphinx, page: str, _template: str, context: dict[str, Any], _doctree: Any) -> None:
    """Link a chapter and its sections from below the title of each: the same question on other models."""
    for files in _chapters(Path(app.confdir, app.config.external_toc_path)):
        if page in {one["file"] for one in files}:
            links = [
                f'<strong aria-current="page">{escape(one["title"])}</strong>'
                if one["file"] == page
                else f'<a href="{context["pathto"](one["file"])}">{escape(one["title"])}</a>'
                for one in files
            ]
            switch = f'<nav class="ew-switch" aria-label="The same question">{"".join(links)}</nav>'
            context["body"] = context["body"].replace("</h1>", f"</h1>\n{switch}", 1)


class CodeBelow(SphinxPostTransform):
    """Put hidden code below the next result, cells without a result included."""

    default_priority = 198  # before MyST-NB hides it above
    formats = ("html",)

    def run(self, **_: Any) -> None:
        """Hand the code of each cell to the next cell that shows something; to the last, if none follows."""
        cells = [c for c in self.document.findall(nodes.container) if c.get("nb_element") == "cell_code"]
        cells = [cell for cell in cells if cell.get("hide_mode") == "input"]
        showing = [cell for cell in cells if _result(cell)]
        waiting: list[nodes.Node] = []
        for cell in cells if showing else []:
            shown = _result(cell)
            waiting += [part for part in cell if part not in shown]
            if shown:
                fold = HideCodeCellNode("", *waiting, prompt_show=cell["prompt_show"], prompt_hide=cell["prompt_hide"])
                fold["classes"].append("above-input")
                cell.children, waiting = [], []
                cell.extend([*shown, fold])
                del cell["hide_mode"]
            else:
                cell.parent.remove(cell)
        if waiting:
            showing[-1][-1].extend(waiting)


def _result(cell: nodes.Element) -> list[nodes.Node]:
    return [part for part in cell if part.get("nb_element") != "cell_code_source"]


NOT_PROSE = (
    nodes.reference,
    nodes.title,
    nodes.thead,
    nodes.literal,
    nodes.raw,
    nodes.math,
    nodes.term,
    addnodes.desc,
    addnodes.pending_xref,
)


COMMON = {"dose", "effect", "level", "signals", "unit"}  # words that are mostly meant as everybody means them


class FirstUse(SphinxPostTransform):
    """Link each word of the glossary where a page first uses it."""

    default_priority = 300  # other links stand
    formats = ("html",)

    def run(self, **_: Any) -> None:
        """Replace the first plain mention of each term by a link to its entry."""
        objects = self.env.domaindata["std"]["objects"]
        terms = {name.lower(): at for (kind, name), at in objects.items() if kind == "term"}
        terms = {name: at for name, at in terms.items() if at[0] != self.env.docname and name not in COMMON}
        queue = [text for text in self.document.findall(nodes.Text) if _is_plain(text)]
        while queue and terms:
            text = queue.pop(0)
            words = "|".join(re.escape(name) for name in sorted(terms, key=len, reverse=True))
            if found := re.search(rf"(?<![\w/-])({words})s?(?![\w/-])", text, re.IGNORECASE):
                page, label = terms.pop(found[1].lower())
                inner = nodes.inline("", found[0], classes=["std", "std-term"])
                link = make_refnode(self.app.builder, self.env.docname, page, label, inner)
                after = nodes.Text(text[found.end() :])
                text.parent.replace(text, [nodes.Text(text[: found.start()]), link, after])
                queue.insert(0, after)


def _is_plain(text: nodes.Text) -> bool:
    """Say whether a text is running prose: no heading, link, code or formula."""
    above = text.parent
    prose = isinstance(above, nodes.paragraph | nodes.emphasis | nodes.strong)
    while above is not None:
        prose, above = prose and not isinstance(above, NOT_PROSE), above.parent
    return prose


def setup(app: Sphinx) -> dict[str, Any]:
    """Register all of it."""
    app.add_post_transform(CodeBelow)
    app.add_post_transform(FirstUse)
    app.connect("config-inited", drop_mathjax_copies)
    app.connect("html-page-context", drop_thebe, priority=900)
    app.connect("html-page-context", mend_for_all, priority=900)
    app.connect("html-page-context", add_switch, priority=900)
    app.connect("autodoc-process-docstring", describe_attack)
    app.connect("autodoc-process-docstring", describe_call, priority=100)  # before napoleon reads the sections
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
