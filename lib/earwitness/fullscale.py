"""Experiments on published weights and real corpora: what is registered, what it would take, and whether it was run.

They are pages of tier ``real`` in ``notebooks/experiments.yml``, made from the same templates as every other page. No
build runs them by itself; ``make real PAGE=<id>`` runs one. The book page *Full-scale experiments* lists them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from earwitness.audit.cost import (
    CPU_GFLOPS,
    GPU_GFLOPS,
    TOKENS_PER_SECOND,
    card_of,
    download_gb,
    hours,
    parameters,
)
from earwitness.builders import builders
from earwitness.errors import InputError
from earwitness.experiments import Page, load_registry
from earwitness.paths import results_dir
from earwitness.planning import evaluations, identity

QUESTIONS = dict.fromkeys(("mia_token", "mia_diffusion", "mia_symbolic"), "membership") | {
    "artist_audit": "dataset inference"
}
SCORE_WINDOW = 256 / TOKENS_PER_SECOND  # FIGARO's window of tokens, in the seconds of sound that cost as much
OWN = "catalogue"  # the corpus that nobody publishes: whoever has one writes its manifest
WINDOWS = 1000  # what hours are given for


def experiments() -> pd.DataFrame:
    """List the registered full-scale experiments.

    Returns
    -------
    pandas.DataFrame
        One row per page: ``id, question, model, corpus, members, nonmembers, source`` (who says whose members they
        are), ``window_s`` (NaN for scores), ``calls`` (network evaluations a window of what the page scores, as
        ``earwitness plan`` counts them), ``download_gb``, ``hours_cpu`` and ``hours_gpu`` (arithmetic from the
        number of parameters, per thousand windows), ``state`` (``not run``, or what the page runner says) and
        ``command``.

    Raises
    ------
    InputError
        An experiment whose model has no card, or whose corpus says nothing of its model.
    """
    return pd.DataFrame([_row(page) for page in load_registry().tier("real")])


def _row(page: Page) -> dict[str, Any]:
    model, manifest = str(page.parameters["model"]), Path(str(page.parameters["manifest"]))
    card = card_of(model)
    if card is None:
        raise InputError(f"{page.id}: {model!r} has no model card; add it to models/cards.yml")
    if card.channels:
        info, _ = identity(model, allow_download=False)
        (run,), diffusion, window = page.scores, info.family == "diffusion", info.segment_seconds
        calls = evaluations(run.attacks, info)[1]
    else:  # a model of scores: one pass, for it has no null condition
        diffusion, window, calls = False, float("nan"), 1
    size, seconds = parameters(card), WINDOWS * (window if card.channels else SCORE_WINDOW)
    cpu, gpu = (hours(size, seconds, calls, diffusion=diffusion, gflops=speed) for speed in (CPU_GFLOPS, GPU_GFLOPS))
    return {
        "id": page.id,
        "question": QUESTIONS[page.template],
        "model": model,
        "corpus": manifest.stem,
        **_sides(page.id, model, manifest.stem),
        "window_s": window,
        "calls": calls,
        "download_gb": download_gb(card),
        "hours_cpu": cpu,
        "hours_gpu": gpu,
        "state": _state(page.id),
        "command": f"make real PAGE={page.id}",
    }


def _sides(name: str, model: str, corpus: str) -> dict[str, str]:
    """Return which splits are compared, and who says so."""
    if corpus == OWN:
        own = "your own records: the training list was never published"
        return {"members": "suspects", "nonmembers": "held-out", "source": own}
    card = builders()[corpus].card
    if not {"member", "nonmember"} <= set(card.targets.get(model, {})):
        raise InputError(
            f"{name}: the card of {corpus} does not say who is a member for {model!r}; add it to its targets"
        )
    roles = card.targets[model]
    sides = {"members": ", ".join(roles["member"]), "nonmembers": ", ".join(roles["nonmember"])}
    return {**sides, "source": card.sources[model]}


def _state(name: str) -> str:
    """Return how the page's last run ended, or that there was none."""
    path = results_dir() / "pages" / f"{name}.status.json"
    return str(json.loads(path.read_text(encoding="utf-8"))["state"]) if path.is_file() else "not run"
