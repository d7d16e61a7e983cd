"""Runs and draws the pages of the book: the only room that knows notebooks.

May import every other room, and ``earwitness_build`` for the catalogue of corpora.

``experiments`` (the registry, ``notebooks/experiments.yml``), ``pages`` (runs a template and publishes it), ``html``
(claims, tables, players, footers), ``stamps`` (what produced a page), ``tables`` (written to and read from
``results/tables/``), ``model_page`` (what the page of models draws), ``catalogues`` (what corpora and full-scale
experiments there are), ``studies`` (what single pages compute), ``skeletons`` (what ``earwitness new`` writes).

Names that matter, as notebooks use them: ``book.html.table``, ``book.tables.write``, ``book.studies``,
``book.project_root``.
"""

from __future__ import annotations

from earwitness.util import lazily, project_root, results_dir

__all__ = ["project_root", "results_dir"]
__getattr__, __dir__ = lazily(__name__, {})
