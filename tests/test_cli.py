"""The command line as its user meets it: real processes, one-line errors, documented exit codes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from earwitness.cli import app
from earwitness.errors import InputError, ManifestError
from tests.tiny import musicgen, recording


def _run(*arguments: str, results: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "earwitness.cli", *arguments]
    environment = os.environ | {"EARWITNESS_RESULTS": str(results)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus")
    rows = ["path,role,caption"]
    for i, role in enumerate(["suspect", "held_out"]):
        recording(root / f"{i}.wav", 1.5, seed=i)
        rows.append(f"{i}.wav,{role},sad rock")
    (root / "m.csv").write_text("\n".join([*rows, "gone [bold].wav,suspect,x"]) + "\n")
    musicgen(root / "model")
    return root


def test_score_then_check(corpus: Path, tmp_path: Path) -> None:
    manifest, model = f"--manifest={corpus / 'm.csv'}", f"--model={corpus / 'model'}"
    done = tmp_path / "out" / "done.json"
    first = _run("score", model, manifest, f"--done={done}", results=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "2 tracks, 4 segments under model, shard 1/1: 2 scored now, 1 excluded" in first.stdout
    report = done.read_text()
    assert json.loads(report)["segments"] == 4
    second = _run("score", model, manifest, f"--done={done}", results=tmp_path)
    assert "0 scored now" in second.stdout
    assert done.read_text() == report
    checked = _run("check", model, manifest, results=tmp_path)
    assert checked.returncode == 0, checked.stderr
    assert re.search(r"suspects +2 +1 ", checked.stdout)
    assert re.search(r"gone \[bold\]\.wav +expected an audio file, found no such file", checked.stdout)
    assert "not testable: too few tracks: 1 suspect and 1 held-out" in " ".join(checked.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["score", "--model=nope", "--manifest=data_manifests/pocket.csv"], 3, "neither a pocket model"),
        (["score", "--model=pocket/musicgen-a", "--manifest=none.csv"], 2, "found no such file"),
        (["score", "--model=pocket/musicgen-a", "--manifest=none.csv", "--shard=3/2"], 2, "expected a shard"),
        (["score", "--modle=x"], 2, "No such option"),
        (["page", "no_such_page"], 2, "no_such_page"),
    ],
)
def test_mistakes_are_one_line_and_have_their_exit_code(
    arguments: list[str], code: int, message: str, tmp_path: Path
) -> None:
    done = _run(*arguments, results=tmp_path)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_help_lists_the_commands_of_an_audit_first(tmp_path: Path) -> None:
    shown = _run("--help", results=tmp_path).stdout
    listed = ["check", "plan", "audit", "verify", "models", "score", "page", "new", "manifest"]
    assert re.findall(r"^│ ([a-z]+) +\w", shown, re.M) == listed


@pytest.mark.parametrize("command", ["plan", "score"])
def test_a_seed_below_zero_is_refused_before_anything_is_read(command: str, corpus: Path, tmp_path: Path) -> None:
    options = [f"--model={corpus / 'model'}", f"--manifest={corpus / 'm.csv'}", "--seed=-1"]
    refused = _run(command, *options, results=tmp_path)
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr
    assert "--seed" in refused.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "--suspects", "", "--held-out", "h", "--model", "pocket/musicgen-a"),
        ("check", "--suspects=s", "--held-out=", "--model", "pocket/musicgen-a"),
        ("plan", "--manifest", " ", "--model", "pocket/musicgen-a"),
        ("audit", "--suspects", "s", "--held-out", "h", "--model", "m", "--out", ""),
        ("audit", "--suspects", "s", "--held-out", "h", "--model", "m", "--works", "", "--out", "o"),
        ("verify", ""),
        ("manifest", "build", "audiocaps", "--from", ""),
    ],
)
def test_an_empty_text_is_refused_by_every_command(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=r"expected a value, got an empty text; is a variable not set\?") as caught:
        app(list(arguments), standalone_mode=False)
    named = next(
        a.rstrip("=") for a, b in zip(arguments, (*arguments[1:], "x"), strict=True) if a.endswith("=") or not b.strip()
    )
    assert str(caught.value).startswith(named)


def test_values_that_only_hold_a_blank_or_an_equals_sign_are_values() -> None:
    with pytest.raises(ManifestError, match="a b=c"):
        app(["manifest", "verify", "a b=c"], standalone_mode=False)
