"""The type of number of an audit: one for every model, in the plan, the report and the line that repeats it."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import earwitness as ew
from earwitness import audit, models
from earwitness.attacks import score
from earwitness.audit import plan as plans
from earwitness.audit import procedure, scoring
from earwitness.audit.report import Repeat
from earwitness.audit.request import Request
from earwitness.cli import app
from earwitness.errors import InputError, ModelError
from earwitness.models import describe, load_model, number_type
from earwitness.signals.evaluations import audit_attacks
from tests.tiny import hearing, musicgen, recording

SIDE = 4


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Two small folders and two toy checkpoints."""
    root = tmp_path_factory.mktemp("numbers")
    for side, role in enumerate(("suspect", "held_out")):
        for i in range(SIDE):
            recording(root / role / f"{side}-{i}.wav", 1.6, seed=10 * side + i)
    hearing(musicgen(root / "model"))
    hearing(musicgen(root / "other", seed=1))
    return root


@pytest.fixture(autouse=True)
def _own_results(tmp_path, monkeypatch):
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / "results"))


def request_of(home, **changes):
    given = {"models": (str(home / "model"),), "suspects": home / "suspect", "held_out": home / "held_out"}
    return Request(**given | {"n_permutations": 99, "deals": 5} | changes)


def card(monkeypatch, *, there=True, able=True):
    """Pretend that this machine has a card, or none."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: able or including_emulation)


# ---- what a name means


@pytest.mark.parametrize(
    ("there", "able", "device", "meant"),
    [
        (False, False, None, "float32"),
        (True, True, None, "bfloat16"),
        (True, True, "cuda:1", "bfloat16"),
        (True, True, "cpu", "float32"),
        (True, False, None, "float32"),  # a card that would only emulate it
    ],
)
def test_auto_is_bfloat16_on_a_card_that_computes_with_it(monkeypatch, there, able, device, meant):
    card(monkeypatch, there=there, able=able)
    assert number_type("auto", device) == meant
    assert [number_type(name, device) for name in models.DTYPES[:3]] == list(models.DTYPES[:3])


def test_auto_is_the_type_that_it_stands_for(home, monkeypatch):
    folder = str(home / "model")
    card(monkeypatch, there=False)
    assert describe(folder, dtype="auto") == describe(folder)
    assert load_model(folder, dtype="auto").info == load_model(folder).info
    card(monkeypatch)
    assert describe(folder, dtype="auto") == describe(folder, dtype="bfloat16")
    assert load_model(folder, dtype="auto", device="cpu").info.dtype == "float32"


@pytest.mark.parametrize("name", ["", "float64", "bf16", "Auto", "int8"])
def test_other_types_are_refused(home, name):
    with pytest.raises(ModelError, match="expected dtype float32, bfloat16, float16, auto, got"):
        number_type(name)
    with pytest.raises(InputError, match=r"expected a type of number \(--dtype\) out of float32, .*, auto, got"):
        request_of(home, dtype=name)
    asked = {"suspects": home / "suspect", "held_out": home / "held_out", "model": home / "model", "dtype": name}
    with pytest.raises(InputError, match="expected a type of number"):
        ew.plan(**asked)
    with pytest.raises(InputError, match="expected a type of number"):
        ew.audit(**asked, out=home / "never")


# ---- the plan


def test_the_plan_fixes_it(home, tmp_path, monkeypatch):
    card(monkeypatch, there=False)
    usual, auto, half = (procedure.prepare(request_of(home, dtype=d)).plan for d in ("float32", "auto", "bfloat16"))
    assert usual == auto
    assert usual.digest() == auto.digest() != half.digest()
    assert "dtype" not in usual.model_dump()  # as in plans of earlier versions
    assert half.model_dump()["dtype"] == "bfloat16"
    for one in (usual, half):
        path = tmp_path / f"{one.dtype}.json"
        plans.write(one, path)
        again = plans.read(path)
        assert again.digest() == one.digest()
        plans.check(again, one)
    with pytest.raises(InputError, match="the type of number changed since"):
        plans.check(plans.read(tmp_path / "bfloat16.json"), usual)
    with pytest.raises(InputError, match="the type of number changed since"):
        plans.check(plans.read(tmp_path / "float32.json"), half)
    card(monkeypatch)
    with pytest.raises(InputError, match="the type of number changed since"):  # the same word on another machine
        plans.check(plans.read(tmp_path / "float32.json"), procedure.prepare(request_of(home, dtype="auto")).plan)


def test_plan_measures_and_says_it(home):
    sides = ["--suspects", str(home / "suspect"), "--held-out", str(home / "held_out"), "--model", str(home / "model")]
    done = CliRunner().invoke(app, ["plan", *sides, "--dtype", "bfloat16", "--json"])
    assert done.exit_code == 0, done.output
    assert "the model runs in bfloat16" in done.output
    assert "the model runs in" not in str(ew.plan(**_sides(home), model=home / "model", probe=False))


def _sides(home):
    return {"suspects": home / "suspect", "held_out": home / "held_out"}


# ---- scores


def test_both_sides_and_the_control_run_in_one_type(home, monkeypatch):
    known = procedure.prepare(
        request_of(home, dtype="bfloat16", control_model=str(home / "other"), control_saw="neither")
    )
    seen, collect = [], scoring.collect

    def collected(*arguments, **how):
        signals = collect(*arguments, **how)
        seen.append((signals.info.name, signals.info.dtype, signals.provenance["model"]["dtype"]))
        return signals

    monkeypatch.setattr(scoring, "collect", collected)
    scoring.score_model(known.infos[0], known.numbered.tracks, known.request, seed=0)
    assert seen == [("model", "bfloat16", "bfloat16"), ("other", "bfloat16", "bfloat16")]


def test_types_have_stores_of_their_own_and_scores_differ_little(home):
    tracks = ew.read_folders(**_sides(home))
    found = {
        dtype: scoring.scores_of(describe(str(home / "model"), dtype=dtype), tracks)
        for dtype in ("float32", "bfloat16")
    }
    stores = {heard.signals.store.folder for heard in found.values()}
    assert len(stores) == 2
    held = [score(heard.signals, audit_attacks("token")) for heard in found.values()]
    exact, rounded = (scores.set_index(["segment_id", "attack"])["score"] for scores in held)
    blind = exact.index.get_level_values("attack").str.startswith("blind/")
    assert rounded[blind].equals(exact[blind])  # no model is involved
    difference = (rounded - exact)[~blind].to_numpy()
    assert 0 < np.abs(difference).max() < 0.5
    signal = next(item for _, item in found["bfloat16"].signals.items("token"))
    assert {array.dtype for array in signal.to_arrays().values() if array.dtype.kind == "f"} <= {
        np.dtype("float32"),
        np.dtype("float64"),
    }


# ---- the report


def test_the_report_says_it_and_how_to_repeat_it(home, tmp_path, monkeypatch):
    card(monkeypatch, there=False)
    half, auto = (audit.run(request_of(home, dtype=d), tmp_path / d).repeat for d in ("bfloat16", "auto"))
    assert "--dtype bfloat16" in half.command
    assert half.dtype == "bfloat16"
    assert "<th>type of number</th>" in (tmp_path / "bfloat16" / "report.html").read_text()
    assert ew.verify(tmp_path / "bfloat16").consistent
    assert "--dtype" not in auto.command
    assert auto.dtype == "float32"
    assert "dtype" not in auto.model_dump()
    assert "<th>type of number</th>" not in (tmp_path / "auto" / "report.html").read_text()
    assert Repeat.model_validate(auto.model_dump()) == auto


# ---- imports


def test_before_a_model_is_run_nothing_slow_is_imported():
    code = (
        "import sys, earwitness.audit.procedure; "
        "slow = ['torch', 'transformers', 'scipy.stats', 'scipy.signal', 'scipy.optimize', 'statsmodels', 'sklearn',"
        " 'matplotlib.pyplot']; print([name for name in slow if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True)
    assert done.stdout.strip() == "[]"
