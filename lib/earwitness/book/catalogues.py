"""What a reader can choose from: corpora with their cards, and experiments on published weights.

Corpora are the manifests under ``data_manifests/`` and those that can be built. Experiments are the pages of tier
``real`` in ``notebooks/experiments.yml``, made from the same templates as every other page; no build runs them by
itself, ``make real PAGE=<id>`` runs one. Book pages: *Manifest catalogue*, *Full-scale experiments*.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from earwitness.audit.cost import CPU_GFLOPS, GPU_GFLOPS, TOKENS_PER_SECOND, evaluations, hours
from earwitness.book.experiments import Page, load_registry
from earwitness.data.manifest import read_card
from earwitness.errors import InputError, ManifestError
from earwitness.models.cards import card_of, identity
from earwitness.util import file_hash, project_root, results_dir, span
from earwitness_build.corpora import builders

# --- corpora ----------------------------------------------------------------------------------------------------------

COLUMNS = {
    "manifests": ["manifest", "title", "tracks", "artists", "licence", "membership", "control", "biases", "sha256"],
    "splits": ["manifest", "split", "tracks", "meaning"],
    "targets": ["manifest", "model", "role", "splits", "tracks"],
    "builders": ["corpus", "title", "official_files", "licence", "membership"],
    "claims": ["corpus", "model", "members", "nonmembers", "source"],
}


def catalogue(folder: Path | None = None) -> dict[str, pd.DataFrame]:
    """List the manifests of a folder and below, in the order of their names.

    Returns
    -------
    dict of pandas.DataFrame
        ``manifests``: a row each, with path below ``folder``, counts (``artists`` is 0 where no column names them), how
        membership is known, which models saw neither side, known biases and SHA-256. ``splits``: what each split holds.
        ``targets``: a row for each model and role, with the splits that have it. ``builders``: the corpora that can be
        built, and ``claims``: whose members their splits are, and who says so.

    Raises
    ------
    ManifestError
        A manifest without a card, or with one that cannot be read.
    """
    folder = folder or project_root() / "data_manifests"
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in COLUMNS}
    for path in sorted(folder.rglob("*.csv")):
        card = read_card(path)
        if card is None:
            raise ManifestError(f"{path.name}: expected a card beside it, found none; write {path.stem}.card.yml")
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        name = path.relative_to(folder).as_posix()
        held = table["split"].value_counts() if "split" in table else pd.Series(dtype=int)
        rows["manifests"].append(
            {
                "manifest": name,
                "title": card.title,
                "tracks": len(table),
                "artists": table["artist"].nunique() if "artist" in table else 0,
                "licence": card.licence,
                "membership": " ".join(card.membership.split()),
                "control": " ".join(card.control.split()) or "none named",
                "biases": " ".join(card.known_biases) or "none named",
                "sha256": file_hash(path),
            }
        )
        rows["splits"] += [
            {"manifest": name, "split": split, "tracks": held.get(split, 0), "meaning": meaning}
            for split, meaning in card.splits.items()
        ]
        rows["targets"] += [
            {"manifest": name, "model": model, "role": role, "splits": ", ".join(splits), "tracks": held[splits].sum()}
            for model, roles in card.targets.items()
            for role, splits in roles.items()
        ]
    for name, builder in builders().items():
        card = builder.card
        rows["builders"].append(
            {
                "corpus": name,
                "title": card.title,
                "official_files": card.source,
                "licence": card.licence,
                "membership": card.membership,
            }
        )
        rows["claims"] += [
            {
                "corpus": name,
                "model": model,
                "members": ", ".join(roles.get("member", ())) or "none known",
                "nonmembers": ", ".join(roles.get("nonmember", ())),
                "source": card.sources[model],
            }
            for model, roles in card.targets.items()
        ]
    return {name: pd.DataFrame(found, columns=COLUMNS[name]) for name, found in rows.items()}


# --- experiments on published weights ---------------------------------------------------------------------------------

QUESTIONS = dict.fromkeys(("mia_token", "mia_diffusion", "mia_symbolic", "paper_membership"), "membership") | {
    **dict.fromkeys(("artist_audit", "paper_inference"), "dataset inference")
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
    model, manifest, attacks = page.scores[0].model, Path(page.scores[0].manifest), page.scores[0].attacks
    card = card_of(model)
    if card is None:
        raise InputError(f"{page.id}: {model!r} has no model card; add it to models/cards.yml")
    if card.channels:
        info, _ = identity(model, allow_download=False)
        window, calls = info.segment_seconds, evaluations(attacks, info)[1]
    else:  # a model of scores: one pass; the paper's contrast takes two more
        window, calls = float("nan"), 1 + 2 * (attacks == "paper")
    seconds = WINDOWS * (window if card.channels else SCORE_WINDOW)
    cpu, gpu = (hours(model, calls, seconds, speed) for speed in (CPU_GFLOPS, GPU_GFLOPS))
    return {
        "id": page.id,
        "question": QUESTIONS[page.template],
        "model": model,
        "corpus": manifest.stem,
        **_sides(page.id, model, manifest.stem),
        "window_s": window,
        "calls": calls,
        "download_gb": card.download_gb,
        "hours_cpu": cpu,
        "hours_gpu": gpu,
        "state": _state(page.id),
        "command": f"make real PAGE={page.id}",
    }


def needs(page_id: str) -> str:
    """Say what an experiment on published weights takes: what to fetch, where it goes, which card says how, how long.

    Raises
    ------
    InputError
        A page that is none of these.
    """
    page = load_registry().page(page_id)
    if page.tier != "real":
        raise InputError(f"{page_id!r} needs no published weights; make book executes it")
    row, manifest = _row(page), page.scores[0].manifest
    corpus = f"a manifest of your own, {manifest} (columns path, role)"
    if row["corpus"] != OWN:
        official = builders()[row["corpus"]]
        files = ", ".join(official.expected) or "the official files"
        card = f"lib/earwitness_build/corpora/{row['corpus']}.card.yml"
        folder = Path(manifest).parent
        corpus = f"{official.card.title} in {folder}/: {files} and the recordings; {card} says where they come from"
    took = ", ".join(
        f"{span(3600 * row[f'hours_{kind}'])} {on}" for kind, on in (("cpu", "on two cores"), ("gpu", "on a GPU"))
    )
    return (
        f"{page_id}\n  model      {row['model']}, {row['download_gb']:.3g} GB, fetched if it is not here\n"
        f"  recordings {corpus}\n  time       about {took} per {WINDOWS:,} windows, by arithmetic"
    )


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
