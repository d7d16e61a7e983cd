"""Experiments on published weights: all they name exists, the graph resolves, and no build runs or shows them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import yaml

from earwitness.audit.cost import forecast
from earwitness.audit.request import Request, gather_tracks
from earwitness.book import catalogues
from earwitness.book.experiments import Page, load_registry
from earwitness.book.pages import contents
from earwitness.data.audio import segments, spec_of
from earwitness.errors import AudioError, InputError
from earwitness.models.cards import identity, read_cards
from earwitness.signals.evaluations import passes_asked
from earwitness.types import Track
from earwitness_build.corpora import builders
from tests.tiny import SAMPLE, sample_audio

REAL = load_registry().tier("real")
PAPER = {"/audiogen", "/audioldm-", "/audioldm2", "/tango", "/tango2", "figaro"}
BEYOND = {"musicgen-small", "musicgen-medium", "musicgen-large", "magnet-", "musicldm", "stable-audio-open-1.0"}
BEYOND |= {"stable-audio-open-small", "stable-audio-3", "ACE-Step"}


def test_every_model_of_the_paper_and_beyond_is_prepared_for_both_questions() -> None:
    table = catalogues.experiments()
    for part in PAPER | BEYOND:
        assert table["model"].str.contains(part).any(), part
    public = table[table["corpus"] != catalogues.OWN]
    both = public.groupby(["model", "corpus"])["question"].agg(set)
    assert all(questions == {"membership", "dataset inference"} for questions in both)
    own = table[table["corpus"] == catalogues.OWN]
    assert set(own["question"]) == {"dataset inference"}, "a rights holder suspects members and does not know them"
    used = set(table["corpus"]) - {catalogues.OWN}
    assert used <= set(builders())
    assert (table["calls"] > 0).all()
    assert (table["hours_cpu"] > table["hours_gpu"]).all()


@pytest.mark.parametrize("page", REAL, ids=lambda page: page.id)
def test_an_experiment_names_what_exists(page: Page) -> None:
    """Model card, family of template, corpus, splits, and what is scored is what the page reads."""
    (card,) = [card for card in read_cards().models if card.name == page.scores[0].model]
    families = {
        "diffusers": "mia_diffusion",
        "tango": "mia_diffusion",
        "stable-audio-tools": "mia_diffusion",
        "figaro": "mia_symbolic",
    }
    family = families.get(card.format, "mia_token")
    assert page.template in {family, "artist_audit", "paper_membership", "paper_inference"}
    assert page.badge == "real"
    (run,) = page.scores
    named = page.parameters
    told = (
        [(named["model"], named["manifest"])]
        if "model" in named
        else [*zip(named["models"], named["manifests"], strict=True)]
    )
    assert told == [(run.model, run.manifest)]
    if card.channels:
        info, _ = identity(card.name, allow_download=False)
        asked = "audit" if page.template == "artist_audit" else "paper" if "models" in named else "all"
        assert passes_asked(run.attacks, info) == passes_asked(asked, info), "scored for the page, and again by it"
    corpus = Path(run.manifest).stem
    assert run.manifest == f"corpora/{corpus}/{corpus}.csv"
    if corpus != catalogues.OWN:
        roles = builders()[corpus].card.targets[run.model]
        wanted = {split for splits in roles.values() for split in splits}
        assert set(run.splits) <= set(builders()[corpus].card.splits)
        assert set(run.splits) <= wanted, "scored and on neither side"
        assert all(set(splits) & set(run.splits) for splits in roles.values())


CLIPS = {
    (page.scores[0].model, corpus): float(told[1])
    for page in REAL
    if (corpus := Path(page.scores[0].manifest).stem) in builders()
    and (told := re.match(r"clips of (\d+) s", builders()[corpus].card.audio))
}


@pytest.mark.parametrize(("model", "corpus"), CLIPS)
def test_the_clips_of_a_corpus_fill_its_models_window(model: str, corpus: str, tmp_path: Path) -> None:
    """As the card has their length; a hundredth of a second less is what no training filled."""
    seconds, spec = CLIPS[model, corpus], spec_of(identity(model, allow_download=False)[0])
    noise = 0.1 * np.random.default_rng(0).standard_normal(round(seconds * 44_100))
    sf.write(tmp_path / "clip.wav", noise, 44_100)
    (segment,) = segments(tmp_path / "clip.wav", spec)
    assert segment.audio.shape == (spec.channels, spec.segment_samples)
    tracks = [Track("clip", tmp_path / "clip.wav", "suspect")]
    found = forecast(model, tracks)
    assert (found.tracks, found.segments_missing, found.exclusions) == (1, 1, [])
    sf.write(tmp_path / "clip.wav", noise[:-441], 44_100)
    with pytest.raises(AudioError, match="shorter than the model's segment"):
        list(segments(tmp_path / "clip.wav", spec))
    assert forecast(model, tracks).tracks == 0


def test_the_corpora_of_ten_second_clips_are_tried_with_both_families() -> None:
    assert {corpus for _, corpus in CLIPS} == {"audiocaps", "audiocaps-paper", "audioset", "musiccaps"}
    assert {"declare-lab/tango2", "cvssp/audioldm-s-full-v2", "facebook/audiogen-medium"} <= {m for m, _ in CLIPS}


def test_no_build_runs_them_and_the_book_shows_only_what_was_run(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = load_registry()
    ids = {page.id for page in REAL}
    for tier in ("book", "full"):
        assert not ids & {page.id for page in registry.tier(tier)}
    for page in registry.pages:
        assert page.tier == "real" or not ids & set(page.needs)
    for name in ("notebooks", "book"):
        shutil.copytree(root / name, tmp_path / name, ignore=shutil.ignore_patterns("_build", "pages", "mathjax"))
    monkeypatch.chdir(tmp_path)
    contents("book", tmp_path / "toc.yml")
    assert not ids & set(re.findall(r"pages/(\S+)", (tmp_path / "toc.yml").read_text()))
    assert "Full scale" not in [part["caption"] for part in yaml.safe_load((tmp_path / "toc.yml").read_text())["parts"]]
    (tmp_path / "book" / "pages").mkdir(exist_ok=True)
    (tmp_path / "book" / "pages" / "tango-audiocaps.ipynb").write_text("{}")
    contents("book", tmp_path / "toc.yml")
    assert ids & set(re.findall(r"pages/(\S+)", (tmp_path / "toc.yml").read_text())) == {"tango-audiocaps"}


def test_an_experiment_whose_card_says_nothing_of_its_model_is_refused() -> None:
    page = next(page for page in REAL if page.id == "tango-audiocaps")

    def under(model: str) -> Page:
        return page.model_copy(update={"scores": (page.scores[0].model_copy(update={"model": model}),)})

    with pytest.raises(
        InputError, match="card of audiocaps does not say who is a member for 'facebook/musicgen-small'"
    ):
        catalogues._row(under("facebook/musicgen-small"))
    with pytest.raises(InputError, match="'no/model' has no model card"):
        catalogues._row(under("no/model"))


def test_an_audit_takes_members_for_suspects(tmp_path: Path) -> None:
    """Research manifests and audits name the sides differently; the same manifest serves both templates."""
    request = Request(models=("tiny/model",), manifest=SAMPLE, root=sample_audio(tmp_path))
    assert [track.role for track in gather_tracks(request).tracks] == ["suspect"] * 2 + ["held_out"] * 3


@pytest.mark.slow
def test_the_whole_graph_resolves_without_weights_or_recordings(root: Path, tmp_path: Path) -> None:
    """From building manifests over every shard to every page; and `book` wants none of it."""
    for name in ("notebooks", "data_manifests", "book"):
        shutil.copytree(root / name, tmp_path / name, ignore=shutil.ignore_patterns("_build", "pages", "mathjax"))
    (tmp_path / "lib").symlink_to(root / "lib")
    command = [sys.executable, "-m", "snakemake", "--snakefile", "notebooks/Snakefile", "--cores", "1", "--dry-run"]
    environment = {k: v for k, v in os.environ.items() if k != "EARWITNESS_RESULTS"} | {"PYTHONPATH": str(root / "lib")}
    said = {}
    for name, targets in {"real": [f"book/pages/{page.id}.ipynb" for page in REAL], "book": ["book"]}.items():
        run = subprocess.run(
            [*command, *targets], cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=280
        )
        assert run.returncode == 0, run.stderr
        said[name] = run.stdout + run.stderr
    pages = set(re.findall(r"executing page (\S+)", said["real"]))
    assert pages == {page.id for page in REAL}
    corpora = {Path(page.scores[0].manifest).stem for page in REAL}
    assert set(re.findall(r"building the manifest of (\S+)", said["real"])) == corpora
    shards = set(re.findall(r"scoring (\S+) under (\S+), shard (\S+)", said["real"]))
    runs = {(run.manifest, run.model): run.shards for page in REAL for run in page.scores}
    assert len(shards) == sum(runs.values())
    assert not {page.id for page in REAL} & set(re.findall(r"executing page (\S+)", said["book"]))


def test_what_an_experiment_takes_is_said_before_it_is_run() -> None:
    from typer.testing import CliRunner

    from earwitness.book import pages

    said = CliRunner().invoke(pages.app, ["needs", "audioldm-audiocaps"]).output
    for part in (
        "cvssp/audioldm-s-full-v2",
        " GB",
        "train.csv",
        "audiocaps.card.yml",
        "corpora/audiocaps/",
        "on two cores",
    ):
        assert part in said, part
    assert "a manifest of your own" in catalogues.needs("musicgen-small-catalogue")
    for page in load_registry().tier("real"):
        assert page.scores[0].manifest.rpartition("/")[0] in (told := catalogues.needs(page.id)), page.id
        assert "by arithmetic" in told
    refused = CliRunner().invoke(pages.app, ["needs", "mia-token"])
    assert refused.exit_code == 2
    assert "needs no published weights" in refused.output
