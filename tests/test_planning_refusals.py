"""A plan refuses what an audit or a run would refuse, and names what cannot be used as they do."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from earwitness.cli import app
from tests.tiny import musicgen, recording


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(musicgen(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / "results"))


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """A suspect and a held-out recording, in folders and in a list."""
    for number, side in enumerate(("suspect", "held_out")):
        recording(tmp_path / side / f"{side}.wav", 1.5, seed=number)
    path = tmp_path / "m.csv"
    path.write_text("path,role\nsuspect/suspect.wav,suspect\nheld_out/held_out.wav,held_out\n")
    return path


def test_folders_beside_a_manifest_are_refused(folder: str, manifest: Path) -> None:
    sides = [f"--suspects={manifest.parent / 'suspect'}", f"--held-out={manifest.parent / 'held_out'}"]
    arguments = ["plan", f"--model={folder}", "--no-probe", f"--manifest={manifest}"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert "and not both" in str(CliRunner().invoke(app, [*arguments, *sides]).exception)
    assert "--held-out is missing" in str(CliRunner().invoke(app, [*arguments, sides[0]]).exception)


def test_a_model_named_twice_is_refused(folder: str, manifest: Path) -> None:
    arguments = ["plan", f"--model={folder}", f"--model={folder}", "--no-probe", f"--manifest={manifest}"]
    assert "a model is named twice" in str(CliRunner().invoke(app, arguments).exception)
