"""What is stored: counted from files alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from earwitness.cli import app
from earwitness.data.manifest import read_manifest
from earwitness.signals.extraction import collect, describe_stored
from earwitness.signals.store import Store
from tests.tiny import musicgen, recording


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus")
    musicgen(root / "model")
    for i in range(4):
        recording(root / f"{i}.wav", 1.5, seed=i)
    return root


def _manifest(corpus: Path, name: str, numbers: list[int]) -> Path:
    path = corpus / name
    path.write_text("path,role\n" + "".join(f"{i}.wav,suspect\n" for i in numbers))
    return path


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / "results"))
    monkeypatch.setattr("earwitness.signals.store.PART_TRACKS", 1)
    return tmp_path / "results"


def test_status_counts_without_loading_a_model(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tracks = str(corpus / "model"), read_manifest(_manifest(corpus, "all.csv", [0, 1, 2, 3]))
    assert describe_stored(model, tracks)["missing"] == 4
    collect(model, tracks[:3])
    monkeypatch.setattr("earwitness.signals.extraction.load_model", lambda *_, **__: pytest.fail("loaded"))
    found = describe_stored(model, tracks)
    assert {k: found[k] for k in ("tracks", "stored", "missing", "segments", "parts", "damaged", "claimed")} == {
        "tracks": 4, "stored": 3, "missing": 1, "segments": 6, "parts": 3, "damaged": 0, "claimed": 0,
    }  # fmt: skip
    halves = [describe_stored(model, tracks, shard=(i, 2)) for i in (1, 2)]
    assert sum(half["tracks"] for half in halves) == 4
    arguments = ["score", "--status", f"--model={model}", f"--manifest={corpus / 'all.csv'}"]
    assert json.loads(CliRunner().invoke(app, arguments).stdout)["stored"] == 3


def test_a_folder_that_may_only_be_read_is_told_about(corpus: Path, results: Path) -> None:
    model, tracks = str(corpus / "model"), read_manifest(_manifest(corpus, "all.csv", [0, 1]))
    collect(model, tracks)
    more = read_manifest(_manifest(corpus, "more.csv", [0, 1, 2]))
    (store,) = (results / "signals").iterdir()
    before = sorted(store.iterdir())
    found = describe_stored(model, more)
    assert (found["stored"], found["missing"], found["claimed"]) == (2, 1, 0)
    assert sorted(store.iterdir()) == before, "nothing is written to say what is stored"


def test_what_another_process_is_at_work_on_is_counted(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tracks = str(corpus / "model"), read_manifest(_manifest(corpus, "all.csv", [0, 1, 2]))
    monkeypatch.setattr(Store, "is_claimed", lambda self, name: name.startswith("part-"))
    assert describe_stored(model, tracks)["claimed"] == 3
    collect(model, tracks[:2])
    assert describe_stored(model, tracks)["claimed"] == 1


def test_status_counts_what_lies_in_stores_for_other_passes(corpus: Path, tmp_path: Path) -> None:
    model, tracks = str(corpus / "model"), read_manifest(_manifest(corpus, "all.csv", [0, 1, 2]))
    collect(model, tracks[:2], "neighbourhood")
    found = describe_stored(model, tracks)
    assert {k: found[k] for k in ("tracks", "stored", "missing", "parts")} == {
        "tracks": 3, "stored": 2, "missing": 1, "parts": 2,
    }  # fmt: skip
    assert found["bytes"] > 0
    costly = describe_stored(model, tracks, "token_neighbourhood")
    assert (costly["stored"], costly["segments"]) == (0, 0), "the streams are there, the neighbours are not"
