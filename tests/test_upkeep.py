"""What is stored, what no manifest uses, and that nothing goes before it was shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from earwitness import upkeep
from earwitness.cli import app
from earwitness.errors import InputError
from earwitness.gather import gather
from earwitness.intake import examine, write_manifest
from earwitness.manifest import read_manifest
from earwitness.signals import collect
from earwitness.store import CLAIMS, Claims
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
    monkeypatch.setattr("earwitness.shards.PART_TRACKS", 1)
    monkeypatch.setattr(upkeep, "manifests", list)
    return tmp_path / "results"


def test_status_counts_without_loading_a_model(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tracks = str(corpus / "model"), read_manifest(_manifest(corpus, "all.csv", [0, 1, 2, 3]))
    assert upkeep.status(model, tracks)["missing"] == 4
    collect(model, tracks[:3])
    monkeypatch.setattr("earwitness.signals.load_model", lambda *_, **__: pytest.fail("loaded"))
    found = upkeep.status(model, tracks)
    assert {k: found[k] for k in ("tracks", "stored", "missing", "segments", "parts", "damaged", "claimed")} == {
        "tracks": 4, "stored": 3, "missing": 1, "segments": 6, "parts": 3, "damaged": 0, "claimed": 0,
    }  # fmt: skip
    halves = [upkeep.status(model, tracks, shard=(i, 2)) for i in (1, 2)]
    assert sum(half["tracks"] for half in halves) == 4
    arguments = ["score", "--status", f"--model={model}", f"--manifest={corpus / 'all.csv'}"]
    assert json.loads(CliRunner().invoke(app, arguments).stdout)["stored"] == 3


def test_only_what_no_manifest_uses_goes_and_only_when_told(corpus: Path, results: Path) -> None:
    model = str(corpus / "model")
    collect(model, read_manifest(_manifest(corpus, "all.csv", [0, 1, 2, 3])))
    (store,) = (results / "signals").iterdir()
    (store / ".part-abc.parquet.77.tmp").write_bytes(b"half")
    (store / "part-def.damaged").write_bytes(b"bad")
    before = sorted(path.name for path in store.iterdir())
    kept = _manifest(corpus, "kept.csv", [1, 2])
    arguments = ["clean", f"--manifest={kept}"]
    shown = CliRunner().invoke(app, arguments)
    assert "4 files" in shown.stdout
    assert "--yes removes them" in shown.stdout
    for reason in ("left by an interrupted run", "damaged, and scored again since", "holds no track of a manifest"):
        assert reason in shown.stdout
    assert sorted(path.name for path in store.iterdir()) == before, "showing removes nothing"
    assert "4 files" in CliRunner().invoke(app, [*arguments, "--yes"]).stdout
    assert collect(model, read_manifest(kept)).provenance["tracks_scored_now"] == 0
    assert len(list(store.glob("part-*"))) == 2
    assert upkeep.leftovers([kept]) == []
    upkeep.remove(upkeep.leftovers([]))
    assert not store.exists()


def test_absent_recordings_are_no_proof_that_nothing_uses_them(corpus: Path, results: Path) -> None:
    collect(str(corpus / "model"), read_manifest(_manifest(corpus, "all.csv", [0, 1])))
    gone = corpus / "gone.csv"
    gone.write_text("path,role\nnever.wav,suspect\n")
    with pytest.raises(
        InputError, match="gone.csv: 1 of its recordings are not here and have no sha256.*--missing-audio"
    ):
        upkeep.leftovers([gone])
    assert len(upkeep.leftovers([gone], missing_audio=True)) == 2


def test_what_another_process_works_on_stays(corpus: Path, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collect(str(corpus / "model"), read_manifest(_manifest(corpus, "all.csv", [0, 1])))
    (store,) = (results / "signals").iterdir()
    held = next(store.glob("part-*.parquet")).name
    monkeypatch.setattr(Claims, "take", lambda self, name: name != held)
    assert [found.path.name == held for found in upkeep.leftovers([])] == [False]


def test_a_record_of_recordings_that_lie_elsewhere_keeps_their_signals(
    corpus: Path, results: Path, tmp_path: Path
) -> None:
    model = str(corpus / "model")
    given = corpus / "sides.csv"
    given.write_text("path,role,caption\n0.wav,suspect,slow\n1.wav,held_out,\n2.wav,held_out,\n")
    collect(model, read_manifest(given))
    found = gather(manifest=given)
    kept, _ = write_manifest(examine(found.tracks[:2], model, found=found), tmp_path / "kept.csv", title="kept")
    assert not read_manifest(kept)[0].path.exists()
    arguments = ["clean", f"--manifest={kept}"]
    assert "1 files" in CliRunner().invoke(app, arguments).stdout
    assert "1 files" in CliRunner().invoke(app, [*arguments, "--missing-audio", "--yes"]).stdout
    assert collect(model, read_manifest(kept, root=corpus)).provenance["tracks_scored_now"] == 0


def test_a_folder_that_may_only_be_read_is_told_about(corpus: Path, results: Path) -> None:
    model, tracks = str(corpus / "model"), read_manifest(_manifest(corpus, "all.csv", [0, 1]))
    collect(model, tracks)
    (store,) = (results / "signals").iterdir()
    (store / ".part-abc.parquet.77.tmp").write_bytes(b"half")
    (store / CLAIMS).unlink(missing_ok=True)
    (store / CLAIMS).mkdir()  # cannot be opened to be written to, whoever asks
    more = read_manifest(_manifest(corpus, "more.csv", [0, 1, 2]))
    found = upkeep.status(model, more)
    assert (found["stored"], found["missing"], found["claimed"]) == (2, 1, 0)
    assert [found.path.suffix for found in upkeep.leftovers([])] == [".parquet", ".parquet"]
