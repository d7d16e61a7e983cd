"""The audit as Python asks for it: the same report, forecast and check as the command line's."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

import earwitness as ew
from earwitness.errors import InputError
from tests.tiny import hearing, musicgen, recording

SIDE = 9
FACE = {
    *("audit", "plan", "verify", "load_model", "read_manifest", "read_folders", "collect", "score", "infer", "compare"),
    *("Track", "ModelInfo", "InferenceResult", "Report", "__version__"),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Two folders of recordings and a toy checkpoint."""
    root = tmp_path_factory.mktemp("face")
    for side, role in enumerate(("suspect", "held_out")):
        for i in range(SIDE):
            recording(root / role / f"{role}-{i}.wav", 1.6, seed=100 * side + i)
    hearing(musicgen(root / "model"))
    return root


@pytest.fixture(scope="module")
def asked(home):
    """What an audit is asked, as Python does; text and paths alike."""
    return {"suspects": str(home / "suspect"), "held_out": home / "held_out", "model": str(home / "model")}


@pytest.fixture(autouse=True)
def _own_results(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path_factory.getbasetemp() / "face-results"))


def command(*words):
    answer = subprocess.run(
        [sys.executable, "-m", "earwitness.cli", *map(str, words)], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def record(folder):
    found = json.loads((Path(folder) / "report.json").read_text())
    found.pop("made")
    return found


def test_the_face_is_what_is_documented():
    assert set(dir(ew)) == FACE == set(ew.__all__)
    assert all(getattr(ew, name) for name in FACE)
    with pytest.raises(AttributeError, match="no attribute 'sandbox'"):
        ew.sandbox  # noqa: B018


@pytest.mark.parametrize("before", ["", "import earwitness.audit", "from earwitness.audit.report import Report"])
def test_audit_is_room_and_function_whatever_was_imported_before(before):
    code = f"""
import sys
{before}
import earwitness as ew
from earwitness import audit
assert audit is ew.audit is sys.modules["earwitness.audit"]
assert callable(audit) and audit.Request.__module__ == "earwitness.audit.request"
assert audit.run.__name__ == "run" and audit.html.__name__ == "earwitness.audit.html"
assert "Request" in dir(audit) and "verify" in dir(audit)
try:
    ew.audit(suspects="a", model="b", out="c")
except ew.audit.request.InputError as error:
    assert "--held-out is missing" in str(error)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_audit_and_request_offer_the_same():
    from earwitness.audit.request import Request

    given = inspect.signature(ew.audit).parameters
    assert {one.kind for one in given.values()} == {inspect.Parameter.KEYWORD_ONLY}
    fields = {name.replace("models", "model"): one for name, one in Request.__dataclass_fields__.items()}
    assert set(given) == {*fields, "out", "allow_download", "say"}
    assert all(given[name].default == one.default for name, one in fields.items() if name != "model")
    assert "Parameters\n" in type(ew.audit).__call__.__doc__


@pytest.mark.slow
def test_the_report_is_that_of_the_command(home, asked, tmp_path):
    said = []
    report = ew.audit(**asked, out=tmp_path / "python", say=said.append)
    assert isinstance(report, ew.Report)
    assert report.verdict in {"evidence", "no evidence", "not testable"}
    assert said[0].startswith(f"{2 * SIDE} recordings found")
    out = tmp_path / "command"
    sides = ("--suspects", home / "suspect", "--held-out", home / "held_out")
    command("audit", *sides, "--model", home / "model", "--out", out)
    assert record(tmp_path / "python") == record(out)
    found = ew.verify(str(out), recordings=[home / "suspect", home / "held_out"])
    assert found.consistent, found.lines
    assert list(found.lines) == command("verify", out).splitlines()
    changed = (out / "report.json").read_text().replace(report.verdict, "proof")
    (out / "report.json").write_text(changed)
    with pytest.raises(InputError, match=r"report\.json"):
        ew.verify(out)


@pytest.mark.slow
def test_the_forecast_is_that_of_the_command_and_can_be_frozen(home, asked, tmp_path):
    planned = ew.plan(**asked, probe=False)
    sides = ("--suspects", home / "suspect", "--held-out", home / "held_out")
    said = command("plan", *sides, "--model", home / "model", "--no-probe", "--json")
    assert planned.to_dict() == [json.loads(said)]
    assert planned.testable == (not planned.refusals)
    assert "network calls a segment" in str(planned)
    fixed = planned.freeze(str(tmp_path / "plan.json"))
    assert fixed.suspects == fixed.held_out == SIDE
    report = ew.audit(**asked, frozen=tmp_path / "plan.json", out=str(tmp_path / "out"), deals=20)
    assert report.frozen.checked
    assert report.frozen.frozen_at == fixed.frozen_at
    with pytest.raises(InputError, match=r"plan\.json: expected a new file, found one"):
        planned.freeze(tmp_path / "plan.json")
    with pytest.raises(InputError, match="not the audit that was frozen on .*: the seed changed since"):
        ew.audit(**asked, frozen=tmp_path / "plan.json", seed=5, out=tmp_path / "again")


def test_a_plan_says_why_nothing_could_be_tested(home, asked, tmp_path):
    for i in range(2):
        recording(tmp_path / "few" / f"{i}.wav", 1.6, seed=500 + i)
    planned = ew.plan(**asked | {"suspects": tmp_path / "few"}, probe=False)
    assert not planned.testable
    assert planned.refusals[0].startswith("too few tracks: 2 suspect and 9 held-out")


def test_bad_input_is_one_line(home, asked, tmp_path):
    with pytest.raises(InputError, match="expected two folders, --held-out is missing"):
        ew.plan(suspects=home / "suspect", model="pocket/musicgen-b")
    with pytest.raises(InputError, match="expected a model, got none"):
        ew.audit(**asked | {"model": []}, out=tmp_path / "out")
    with pytest.raises(InputError, match="nowhere"):
        ew.verify(tmp_path / "nowhere")
