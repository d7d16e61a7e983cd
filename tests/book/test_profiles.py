"""The engine's profiles by dry run, and values of the registry that try to break out of a shell command."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from earwitness.book.experiments import Registry, ScoreRun, load_registry

pytestmark = pytest.mark.slow
PROFILES = ["default", "gpus", "slurm", "kubernetes"]


@pytest.fixture
def project(root: Path, tmp_path: Path) -> Path:
    """A project folder without results, whose code is the checkout's; one scoring run is cut into four."""
    for name in ("notebooks", "benchmarks", "data_manifests", "book"):
        skip = shutil.ignore_patterns("_build", "pages", "mathjax")
        shutil.copytree(root / name, tmp_path / name, ignore=skip)
    registry = tmp_path / "notebooks" / "experiments.yml"
    text = registry.read_text()
    assert text.count("&twin-b {") == 1
    registry.write_text(text.replace("&twin-b {", "&twin-b {shards: 4, "))
    (tmp_path / "lib").symlink_to(root / "lib")
    return tmp_path


def _snakemake(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snakemake", "--snakefile", "notebooks/Snakefile", *arguments]
    environment = {k: v for k, v in os.environ.items() if k != "EARWITNESS_RESULTS"}
    environment["PYTHONPATH"] = str(project / "lib")
    return subprocess.run(command, cwd=project, capture_output=True, text=True, env=environment, timeout=280)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_plans_every_shard_and_page(project: Path, profile: str) -> None:
    """The executors of SLURM and Kubernetes are not installed: the local one stands in, everything else is theirs."""
    settings = yaml.safe_load((project / "notebooks" / "profiles" / profile / "config.yaml").read_text())
    assert settings["rerun-triggers"] == ["mtime", "params", "input"]
    arguments = ["--workflow-profile", f"notebooks/profiles/{profile}", "--executor", "local", "--dry-run", "-p"]
    run = _snakemake(project, *arguments, "book")
    assert run.returncode == 0, run.stderr
    text = run.stdout + run.stderr
    pages = load_registry(project / "notebooks" / "experiments.yml").tier("book")
    runs = {run.name: run for page in pages for run in page.scores}
    shards = [(i, run) for run in runs.values() for i in range(1, run.shards + 1)]
    assert set(re.findall(r"--shard (\S+)", text)) == {f"{i}/{run.shards}" for i, run in shards}
    left = {f"score-{run.name}-{i}-of-{run.shards}" for i, run in shards}
    left |= {f"page-{page.id}" for page in pages} | {"render-corpus", "html-book"}
    assert left <= set(re.findall(r"times > results/cpu/(\S+)\.txt", text)), "what benchmarks/bench_book.py reads"
    cards = set(re.findall(r"CUDA_VISIBLE_DEVICES=(\d)", text))
    assert cards == (set("0123") if profile == "gpus" else set()), "every card is used"
    if profile == "gpus":
        assert "--workers $((4 - 1))" in text
    if profile in {"slurm", "kubernetes"}:
        refused = _snakemake(project, *arguments[:2], "--dry-run", "book")
        assert refused.returncode != 0
        assert f"invalid choice: '{profile}'" in refused.stderr, "the plugin is here: run this profile as it is"
        assert settings["retries"] >= 1
        assert settings["set-resources"]["score"]["gpu"] == 1


HOSTILE = "x'; touch pwned; echo \"$(touch pwned)`touch pwned` {output} {{params}} && touch pwned #"


def test_values_meant_to_break_out_of_a_shell_stay_values(project: Path) -> None:
    manifest = "data_manifests/'; touch pwned; $(touch pwned).csv"
    (project / manifest).write_text("path,role\na.wav,suspect\n")
    run = {"model": HOSTILE, "manifest": manifest, "splits": [HOSTILE, "--model"], "attacks": HOSTILE, "shards": 1}
    page = {"id": "one", "template": "welcome", "title": HOSTILE, "part": HOSTILE, "badge": "pocket", "scores": [run]}
    (project / "notebooks" / "experiments.yml").write_text(yaml.safe_dump({"pages": [page]}))
    (done,) = ScoreRun.model_validate(run).done_files
    assert re.fullmatch(r"scored/[A-Za-z0-9-]+/1-of-1\.json", done)
    ran = _snakemake(project, "--cores", "1", "--retries", "0", f"results/{done}")
    assert ran.returncode != 0
    shown = ran.stdout + ran.stderr
    assert "earwitness: " in shown, shown
    assert "is neither a pocket model, a folder nor a hub name" in shown, "the model's name arrived whole"
    assert not list(project.rglob("pwned"))


def test_all_needs_are_the_pages_built_along() -> None:
    def page(name: str, **more: object) -> dict[str, object]:
        return {"id": name, "template": "t", "title": "T", "part": "P", "badge": "none", **more}

    pages = [page("a"), page("b", needs=["a"]), page("c", tier="full"), page("all", needs="all")]
    registry = Registry.model_validate({"pages": pages})
    assert registry.page("all").needs == ("a", "b")
    full = Registry.model_validate({"pages": [*pages[:3], page("all", needs="all", tier="full")]})
    assert full.page("all").needs == ("a", "b", "c")
    assert [p.id for p in full.in_order()][-1] == "all"
