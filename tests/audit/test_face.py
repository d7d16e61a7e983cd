"""The audit as Python asks for it: the same report, forecast and check as the command line's."""

from __future__ import annotations

import inspect
import json
import pydoc
import subprocess
import sys
from pathlib import Path

import pytest

import earwitness as ew
from earwitness.errors import InputError, ModelError
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
assert "Request" in dir(audit) and "verify" in dir(audit) and "audit" in dir(audit)
try:
    ew.audit(suspects="a", model="b", out="c")
except ew.audit.request.InputError as error:
    assert "held_out (--held-out) is missing" in str(error)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_audit_and_request_offer_the_same():
    from earwitness.audit.request import Request

    given = inspect.signature(ew.audit).parameters
    assert {one.kind for one in given.values()} == {inspect.Parameter.KEYWORD_ONLY}
    fields = {name.replace("models", "model"): one for name, one in Request.__dataclass_fields__.items()}
    assert set(given) == {*fields, "out", "allow_download", "say"}
    assert all(given[name].default == one.default for name, one in fields.items() if name != "model")
    sides = ["suspects", "held_out", "model"]
    shared = [
        "manifest",
        "root",
        "captions",
        "control_model",
        "control_saw",
        "reference_artists",
        "pairs",
        "works",
        "unit",
        "by_folder",
    ]
    settings = ["seed", "alpha", "n_permutations"]
    assert list(given)[:18] == [*sides, "out", *shared, "frozen", *settings]
    planned = inspect.signature(ew.plan).parameters
    assert list(planned)[:16] == [*sides, *shared, *settings]
    assert all(planned[name].default == given[name].default for name in list(planned)[:16])


def test_help_shows_how_an_audit_is_called():
    shown = pydoc.render_doc(ew.audit, renderer=pydoc.plaintext)
    functions = shown.partition("\nFUNCTIONS\n")[2].partition("\nFILE\n")[0]
    assert functions.strip().startswith("audit(*, suspects: ")
    assert "Parameters\n" in functions
    assert "ew.audit(suspects=…, held_out=…, model=…, out=…)" in shown.partition("\n\n    ")[0]


def test_the_commands_have_the_defaults_of_python_and_its_order():
    from earwitness import cli

    for command, function in ((cli.audit, ew.audit), (cli.plan, ew.plan)):
        options, given = inspect.signature(command).parameters, inspect.signature(function).parameters
        same = [name for name in given if name in options]
        assert {"suspects", "model", "seed", "alpha", "n_permutations"} <= set(same)
        assert [name for name in options if name in given and name != "attacks"] == [n for n in same if n != "attacks"]
        for name in set(same) - {"model", "out", "attacks"}:
            assert options[name].default == given[name].default
    assert list(inspect.signature(cli.check).parameters)[:3] == ["suspects", "held_out", "model"]


def test_the_command_to_repeat_names_what_is_not_the_default():
    from earwitness.audit.request import Request

    asked = {"models": ("m",), "suspects": Path("s"), "held_out": Path("h")}
    usual = f"earwitness audit --suspects {Path.cwd()}/s --held-out {Path.cwd()}/h --model m"
    assert Request(**asked).command(redact=False) == f"{usual} --out report"
    other = Request(**asked, seed=0, alpha=0.05, n_permutations=99, deals=20, pdf=True)
    settings = "--seed 0 --alpha 0.05 --permutations 99 --deals 20"
    assert other.command(redact=False) == f"{usual} {settings} --pdf --out report"


def test_a_plan_is_frozen_with_the_settings_of_its_audit(home, asked, tmp_path):
    from earwitness.audit.plan import check, read
    from earwitness.audit.procedure import freeze, prepare
    from earwitness.audit.request import Request

    settings = {"seed": 5, "alpha": 0.05, "n_permutations": 99}
    fixed = ew.plan(**asked, **settings, probe=False).freeze(tmp_path / "python.json")
    assert (fixed.seed, fixed.alpha, fixed.permutations) == (5, 0.05, 99)
    request = Request((asked["model"],), home / "suspect", home / "held_out", **settings)
    check(fixed, prepare(request).plan)
    sides = ("--suspects", home / "suspect", "--held-out", home / "held_out", "--model", home / "model")
    said = command(
        "plan", *sides, "--seed", 5, "--alpha", 0.05, "--permutations", 99, "--freeze", tmp_path / "command.json"
    )
    assert "seed 5" in said
    check(read(tmp_path / "command.json"), fixed)
    usual = ew.plan(**asked, probe=False).freeze(tmp_path / "usual.json")
    bare = freeze(Request((asked["model"],), home / "suspect", home / "held_out"), tmp_path / "bare.json")
    assert usual.digest() == bare.digest()
    assert usual.seed not in {0, 5}


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
    assert str(report) == repr(report) == f"{report.verdict}: {report.answer}"
    found = ew.verify(str(out), recordings=[home / "suspect", home / "held_out"])
    assert found.consistent, found.lines
    assert str(found) == "\n".join(found.lines)
    one = ew.verify(folder=out, recordings=str(home / "suspect"))
    assert one.lines == ew.verify(out, recordings=[home / "suspect"]).lines
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
    with pytest.raises(InputError, match=r"expected two folders, held_out \(--held-out\) is missing"):
        ew.plan(suspects=home / "suspect", model="pocket/musicgen-b")
    out = tmp_path / "out"
    for none in (None, "", [], [asked["model"], None]):
        with pytest.raises(InputError, match="expected a model, got none"):
            ew.audit(**asked | {"model": none}, out=out)
    for changes, message in (
        ({"suspects": [home / "suspect"]}, r"suspects: expected one path, got \["),
        ({"held_out": ""}, "held_out: expected one path, got ''"),
        ({"out": ["a", "b"]}, "out: expected one path"),
        ({"alpha": 5}, r"above 0 and up to 0\.5, got 5"),
        ({"n_permutations": 0}, "expected counts from 1, got 0 permutations"),
        ({"deals": -1}, "-1 deals"),
        ({"seed": -1}, "expected a seed from 0"),
    ):
        with pytest.raises(InputError, match=message):
            ew.audit(**asked | {"out": out} | changes)
    with pytest.raises(InputError, match="expected a seed from 0"):
        ew.plan(**asked, seed=-1)
    with pytest.raises(ModelError, match=r"'\./no/such' is neither .*check the path"):
        ew.plan(**asked | {"model": "./no/such"})
    with pytest.raises(TypeError, match=r"audit\(\) takes 0 positional arguments"):
        ew.audit(*asked.values())
    assert not out.exists()
    with pytest.raises(InputError, match="nowhere"):
        ew.verify(tmp_path / "nowhere")
