"""The audit from recordings to a report folder: end to end on toy recordings and a toy checkpoint."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from earwitness import audit
from earwitness.audit import Request, checks, cost, html, references, scoring, wording
from earwitness.audit.plan import check as check_plan
from earwitness.audit.plan import check_logs, earlier_runs, record_run
from earwitness.audit.plan import read as read_plan
from earwitness.audit.procedure import _made, prepare
from earwitness.audit.report import (
    BROWSERS,
    KEYS,
    PAGE,
    PRINT,
    RECORD,
    Report,
    check_place,
    print_pdf,
    read_scores,
    schema_text,
    scores_bytes,
)
from earwitness.audit.report import read as read_report
from earwitness.audit.verify import verify
from earwitness.data import audio, containers, decode_pool
from earwitness.data.redaction import Redactor, manifest_hash, number, seed_of
from earwitness.data.side_table import coverage, with_captions
from earwitness.errors import InputError, ModelError, StoppedError
from earwitness.models import describe
from earwitness.signals import extraction
from earwitness.stats.features import DEFAULT_FEATURES
from earwitness.stats.multiple_testing import adjust
from earwitness.stats.power import smallest_detectable_auc
from earwitness.stats.units import unit_table
from earwitness.types import Track
from earwitness.util import file_hash, plain
from tests.tiny import hearing, musicgen, recording

SIDE = 11
HOSTILE = [
    "<img src=x onerror=alert(1)>.wav",
    "=HYPERLINK(cmd).wav",
    "{{ 7 * 7 }}.wav",
    "a' \" onload=alert(2) .wav",
    "[bold]markup[-bold].wav",
]
ARTIST, CAPTION, WORK = "Zanzibarista", "xylophonic gloom", "Quixotica"


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """Two folders of recordings with names of all kinds, a manifest of the same, and a toy checkpoint."""
    root = tmp_path_factory.mktemp("zebrafolder")
    rows = ["path,role,artist,caption,work"]
    for side, role in enumerate(("suspect", "held_out")):
        names = [*HOSTILE[side * 3 : side * 3 + 3], *(f"wombat-{side}-{i}.wav" for i in range(SIDE))][:SIDE]
        for i, name in enumerate(names):
            recording(root / role / name, 1.6, seed=100 * side + i)
            quoted = f"{role}/{name}".replace('"', '""')
            rows.append(f'"{quoted}",{role},{ARTIST},{CAPTION},{WORK}-{side}-{i}')
    (root / "walrus.csv").write_text("\n".join(rows) + "\n")
    hearing(musicgen(root / "model"))
    hearing(musicgen(root / "other", seed=1))
    return root


@pytest.fixture(scope="session")
def request_of(home):
    """The small audit of the two folders, with some settings changed."""

    def make(**changes):
        fields = {"suspects": home / "suspect", "held_out": home / "held_out"}
        if "manifest" in changes:
            fields = {}
        given = {"models": (str(home / "model"),), "n_permutations": 199, "deals": 20} | fields | changes
        return Request(**given)

    return make


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


@pytest.fixture(autouse=True)
def _own_results(results, monkeypatch):
    monkeypatch.setenv("EARWITNESS_RESULTS", str(results))


@pytest.fixture(scope="session")
def report(request_of, tmp_path_factory, results):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EARWITNESS_RESULTS", str(results))
        out = tmp_path_factory.mktemp("out") / "report"
        audit.run(request_of(), out)
    return out


def copied(folder_, tmp_path):
    return Path(shutil.copytree(folder_, tmp_path / "copy"))


def contents(out):
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


# ---- end to end


def test_the_report_is_whole(report):
    found, files = read_report(report)
    assert found.verdict in {"evidence", "no evidence", "not testable"}
    assert found.results[0].p_value is not None
    assert found.suspects.tracks == found.held_out.tracks == SIDE
    assert set(files) == set(found.repeat.files) == set(contents(report)) - {RECORD, PAGE}
    assert found.results[0].level.deals == 20
    assert {row.hidden for row in found.results[0].shifts.rows} == {True, False}
    assert all(row.scores[0] is not None for row in found.recordings)
    assert found.repeat.seed == seed_of(found.repeat.manifest_hash)
    page = (report / PAGE).read_text()
    for text in (
        wording.plainly(found.results[0]),
        "This does not cover a real difference",
        found.repeat.manifest_hash,
    ):
        assert text in page


def test_a_recording_is_decoded_twice_and_hashed_once(home, request_of, tmp_path, monkeypatch):
    """At the check and to be scored, in a worker; what the pre-test and the pictures need is kept."""
    shutil.copytree(home, tmp_path / "copy")
    folders_ = {role: tmp_path / "copy" / role for role in ("suspect", "held_out")}
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / "results"))
    asked, hashed, send, digest = Counter(), [], decode_pool.DecodeWorker.send, containers.sha256

    def counted(self, request):
        asked[json.loads(request)["path"]] += 1
        send(self, request)

    monkeypatch.setattr(decode_pool.DecodeWorker, "send", counted)
    monkeypatch.setattr(containers, "structure", lambda path: pytest.fail(f"{path.name} is decoded in this process"))
    monkeypatch.setattr(containers, "sha256", lambda: hashed.append(1) or digest())
    one = request_of(suspects=folders_["suspect"], held_out=folders_["held_out"])
    found = audit.run(one, tmp_path / "out")
    assert found.results[0].p_value is not None
    assert len(found.pictures) == 4
    paths = {str(path) for folder in folders_.values() for path in folder.iterdir()}
    assert asked == dict.fromkeys(paths, 2)
    assert len(hashed) == len(paths) == 2 * SIDE


def test_equal_inputs_give_equal_bytes_but_for_one_line(report, request_of, tmp_path):
    audit.run(request_of(), tmp_path / "again")
    first, second = contents(report), contents(tmp_path / "again")
    assert first.keys() == second.keys()
    for name in first:
        pairs = zip(first[name].splitlines(), second[name].splitlines(), strict=True)
        different = [(a, b) for a, b in pairs if a != b]
        assert all(b"ade" in a and b"UTC" in a for a, b in different), name
        assert len(different) == (name in {RECORD, PAGE}), name


def test_an_audit_whose_signals_are_stored_loads_no_network_library(report, request_of, results, tmp_path):
    asked = request_of()
    code = (
        "import sys; from pathlib import Path; from earwitness.audit import Request, run; "
        "model, suspects, held_out, out = sys.argv[1:]; "
        "sides = {'suspects': Path(suspects), 'held_out': Path(held_out)}; "
        "run(Request(models=(model,), **sides, n_permutations=199, deals=20), Path(out)); "
        "print([name for name in ('torch', 'transformers', 'statsmodels', 'diffusers') if name in sys.modules])"
    )
    places = [asked.models[0], str(asked.suspects), str(asked.held_out), str(tmp_path / "again")]
    done = subprocess.run([sys.executable, "-c", code, *places], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert read_report(tmp_path / "again")[0].results == read_report(report)[0].results


def test_the_page_is_self_contained_and_forbids_the_rest(report):
    text = (report / PAGE).read_text()
    assert re.search(r'<meta http-equiv="Content-Security-Policy" content="default-src &#39;none&#39;;', text)
    assert "script" not in re.sub(r"description|transcript", "", text)
    assert re.findall(r"(?:https?:)?//(?!www\.w3\.org)[\w.]+\.\w+", text) == []
    assert all(value.startswith("data:") for value in re.findall(r'(?:src|href)="([^"#]*)', text) if value)


def test_hostile_names_are_inert(report):
    text = (report / PAGE).read_text()
    assert "<img src=x" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;" in text
    assert "{{ 7 * 7 }}" in text
    assert not re.search(r"<[^>]*onload", text)
    for name, content in contents(report).items():
        if name.endswith(".csv"):
            assert not re.search(rb"(?m)(?:^|,)[\"']?[=+@]", content)
            assert b"HYPERLINK" not in content


def test_a_redacted_report_names_nothing_and_says_the_same(report, home, request_of, tmp_path):
    shutil.copytree(home, tmp_path / "zebrafolder")
    recording(tmp_path / "zebrafolder" / "suspect" / "hippogriff.wav", 0.3)
    manifest = tmp_path / "zebrafolder" / "walrus.csv"
    manifest.write_text(manifest.read_text() + f"suspect/hippogriff.wav,suspect,{ARTIST},,\n")
    out = tmp_path / "out"
    found = audit.run(request_of(manifest=manifest, redact=True, with_audio=True), out)
    assert found.results[0].p_value is not None
    assert any("shorter" in row.reason for row in found.exclusions)
    everything = b"\n".join(content + name.encode() for name, content in contents(out).items())
    secret = [
        ARTIST,
        CAPTION,
        WORK,
        "walrus",
        "wombat",
        "hippogriff",
        "zebrafolder",
        str(tmp_path),
        "HYPERLINK",
        "onload",
    ]
    assert [word for word in secret if word.encode() in everything] == []
    assert {p.stem for p in (out / "audio").iterdir()} == {p.stem for p in (out / "pictures").iterdir()}
    sides = {row.number: row.role for row in found.recordings}
    assert {sides[item.number] for item in found.pictures} == {"suspect"}
    assert all(item.audio for item in found.pictures)
    assert "data:audio/mpeg;base64," in (out / PAGE).read_text()
    assert verify(out).consistent


def test_names_and_order_do_not_change_the_numbers(report, home, request_of, tmp_path):
    for role in ("suspect", "held_out"):
        (tmp_path / role).mkdir()
        for i, path in enumerate(sorted((home / role).iterdir(), reverse=True)):
            shutil.copy(path, tmp_path / role / f"{i}.wav")
    found = audit.run(request_of(suspects=tmp_path / "suspect", held_out=tmp_path / "held_out"), tmp_path / "out")
    before = read_report(report)[0]
    assert found.results == before.results
    assert [row.scores for row in found.recordings] == [row.scores for row in before.recordings]


# ---- can it be tested?


def test_too_few_recordings_end_politely_and_no_model_is_run(home, request_of, tmp_path, monkeypatch):
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted((home / "suspect").iterdir())[:5]:
        shutil.copy(path, few)
    monkeypatch.setattr(scoring, "collect", lambda *_, **__: pytest.fail("a model was run"))
    found = audit.run(request_of(suspects=few), tmp_path / "out")
    assert found.verdict == "not testable"
    assert "too few" in found.testable.reasons[0]
    assert "at least 9" in found.testable.mends[0]
    assert "Add recordings" in (tmp_path / "out" / PAGE).read_text()
    assert verify(tmp_path / "out").consistent


def test_sides_that_differ_in_themselves_stop_before_a_model_is_run(home, request_of, tmp_path, monkeypatch):
    import soundfile

    for path in (home / "suspect").iterdir():
        audio, rate = soundfile.read(path)
        (tmp_path / "flac").mkdir(exist_ok=True)
        soundfile.write(tmp_path / "flac" / f"{len(path.name)}-{path.stem[-1]}.flac", audio * 0.9, rate)
    monkeypatch.setattr(scoring, "collect", lambda *_, **__: pytest.fail("a model was run"))
    found = audit.run(request_of(suspects=tmp_path / "flac"), tmp_path / "out")
    assert found.verdict == "not testable"
    assert found.testable.blind_p <= 0.05
    assert "never touch the model" in found.testable.reasons[0]
    assert found.testable.mends
    assert verify(tmp_path / "out").consistent


def test_where_every_recording_is_an_artist_of_its_own_artists_are_compared(home, request_of, tmp_path):
    rows = pd.read_csv(home / "walrus.csv").assign(artist=lambda t: [f"artist {i}" for i in range(len(t))])
    rows.to_csv(home / "each.csv", index=False)
    found = audit.run(request_of(manifest=home / "each.csv"), tmp_path / "out")
    assert found.testable.answer
    assert found.results[0].n_suspect == SIDE


@pytest.mark.parametrize(
    ("reason", "mend"),
    [
        ("shift alarm: suspects look less member-like than held-out (p = 0.0010)", "look for what sets the two sides"),
        ("features that never touch the model separate suspects from held-out (p = 0.0300)", "the same years"),
        ("the difference does not survive removing what blind features explain (residual p = 0.2)", "or use a control"),
    ],
)
def test_what_only_the_scores_show_comes_with_what_would_help(home, request_of, tmp_path, monkeypatch, reason, mend):
    models = (str(home / "model"), str(home / "other"))

    def told(results, _):
        return [replace(results[0], verdict="not testable", reasons=(reason,)), results[1]]

    for module in (scoring, sys.modules["earwitness.audit.verify"]):
        monkeypatch.setattr(module, "together", told)
    found = audit.run(request_of(models=models, deals=1), tmp_path / "out")
    assert found.testable.answer
    assert [mend in text for text in found.testable.mends] == [True]
    assert found.testable.mends[0] in (tmp_path / "out" / PAGE).read_text()
    assert verify(tmp_path / "out").consistent


# ---- several models, control


def test_several_models_share_one_level(home, request_of, tmp_path):
    found = audit.run(request_of(models=(str(home / "model"), str(home / "other"))), tmp_path / "out")
    p_values = [result.p_value for result in found.results]
    assert [result.p_holm for result in found.results] == pytest.approx(list(adjust(p_values)))
    alone = smallest_detectable_auc(SIDE, SIDE)
    assert found.testable.smallest_detectable_auc == found.results[0].smallest_detectable_auc > alone
    assert len(found.recordings[0].scores) == 2
    assert "Holm" in (tmp_path / "out" / PAGE).read_text()
    assert verify(tmp_path / "out").consistent


CARD = """title: t
version: 1
licence: none
citation: none
membership: by lot
targets:
  {name}:
    {seen}: [one]
    nonmember: [two]
"""


def with_card(home, tmp_path, name, seen):
    """The manifest with splits ``one`` (suspects) and ``two``, and a card that says what a model saw."""
    lines = (home / "walrus.csv").read_text().splitlines()
    rows = [line + (",one" if ",suspect," in line else ",two") for line in lines[1:]]
    path = home / f"{tmp_path.name}.csv"
    path.write_text("\n".join([lines[0] + ",split", *rows]) + "\n")
    path.with_suffix(".card.yml").write_text(CARD.format(name=name, seen=seen))
    return path


def test_a_control_that_saw_a_side_is_refused_whatever_is_stated(home, request_of, tmp_path):
    control = str(home / "other")
    manifest = with_card(home, tmp_path, control, "member")
    with pytest.raises(InputError, match="the card says that .* was trained on suspect tracks"):
        audit.run(request_of(manifest=manifest, control_model=control, control_saw="neither"), tmp_path / "out")


def test_a_control_that_nobody_vouches_for_is_refused(home, request_of, tmp_path):
    for saw in (None, "unknown"):
        with pytest.raises(InputError, match="nothing says that .* saw neither side"):
            audit.run(request_of(control_model=str(home / "other"), control_saw=saw), tmp_path / "out")


def test_a_control_that_saw_neither_is_what_is_tested(home, request_of, tmp_path):
    control = str(home / "other")
    manifest = with_card(home, tmp_path, control, "nonmember")
    manifest.with_suffix(".card.yml").write_text(
        CARD.format(name=control, seen="nonmember").replace("[one]\n    nonmember: [two]", "[one, two]")
    )
    found = audit.run(request_of(manifest=manifest, control_model=control), tmp_path / "out")
    assert found.results[0].design == "difference to control"
    assert "card" in found.results[0].control.known_from
    assert verify(tmp_path / "out").consistent
    stated = audit.run(request_of(control_model=control, control_saw="neither"), tmp_path / "out")
    assert "whoever ran the audit" in stated.results[0].control.known_from


# ---- frozen plans and the count of runs


def test_a_frozen_plan_is_checked_and_runs_are_counted(home, request_of, tmp_path, monkeypatch):
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / "results"))
    plan = tmp_path / "plan.json"
    written = audit.freeze(request_of(), plan)
    assert (written.suspects, written.held_out) == (SIDE, SIDE)
    with pytest.raises(InputError, match="never written over"):
        audit.freeze(request_of(), plan)
    few = tmp_path / "held"
    shutil.copytree(home / "held_out", few)
    found = audit.run(request_of(frozen=plan, held_out=few), tmp_path / "a")
    assert found.frozen.checked
    assert "first run on record" in found.made
    assert "was checked against it before anything was scored" in (tmp_path / "a" / PAGE).read_text()
    next(few.iterdir()).unlink()
    with pytest.raises(InputError, match="not the audit that was frozen .* the recordings or their sides"):
        audit.run(request_of(frozen=plan, held_out=few), tmp_path / "b")
    again = audit.run(request_of(held_out=few), tmp_path / "b")
    assert again.made.endswith("run 2 on record with these recordings, after 1 with another plan")
    beside = tmp_path / "plan.json.runs.jsonl"
    assert len(beside.read_text().splitlines()) == 1
    shutil.rmtree(tmp_path / "results")
    found = audit.run(request_of(frozen=plan), tmp_path / "c")
    assert found.made.endswith("the first run on record with these recordings, repeated")
    assert len(beside.read_text().splitlines()) == 1, "the same plan with the same answer is no further look"


def test_only_other_plans_count_as_other_runs(home, request_of, tmp_path):
    plan = prepare(request_of()).plan
    other = plan.model_copy(update={"seed": 1})
    logs = [tmp_path / "runs.jsonl"]
    for one in (plan, plan, other, plan):
        record_run(one, ["a" * 64], "no evidence", logs)
    earlier = earlier_runs(["a" * 64, "b" * 64], logs)
    assert [entry["plan"] for entry in earlier] == [plan.digest(), other.digest()]
    assert earlier_runs(["b" * 64], logs) == []
    assert _made(earlier, plan, 1).endswith(
        "the first run on record with these recordings, repeated; 1 with another plan since"
    )
    assert _made(earlier, other, 1).endswith(
        "run 2 on record with these recordings, after 1 with another plan, repeated"
    )
    new = plan.model_copy(update={"seed": 2})
    assert _made(earlier, new, 1).endswith("run 3 on record with these recordings, after 2 with another plan")


# ---- reference artists


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """Four artists in folders of their own: one with a hostile name, one with a copy of a suspect, one unreadable."""
    root = tmp_path_factory.mktemp("platypus")
    for i, name in enumerate(("<b>ocelot", "=quokka()", "dingo", "numbat")):
        for j in range(4):
            recording(root / name / f"{j}.wav", 1.6, seed=1000 + 10 * i + j)
    recording(root / "dingo" / "copy.wav", 1.6, seed=3)  # of the fourth suspect
    (root / "dingo" / "broken.wav").write_text("no audio")
    return root


def test_suspects_are_ranked_among_reference_artists(home, request_of, others, tmp_path):
    out = tmp_path / "out"
    found = audit.run(request_of(reference_artists=others), out)
    (result,) = found.results
    assert (result.rank.references, result.rank.floor, result.rank.tracks_each) == (4, 0.2, 4)
    assert round(result.rank.p_value * 5) in range(1, 6)
    assert len(found.references) == 16
    left = {row.name: row.reason for row in found.exclusions}
    assert "not readable" in left["dingo/broken.wav"]
    assert "stands on one of the sides" in left["dingo/copy.wav"]
    text = (out / PAGE).read_text()
    assert "among 4 reference artists" in text
    assert "&lt;b&gt;ocelot/0.wav" in text
    assert "<b>ocelot" not in text
    assert verify(out).consistent
    slow = read_scores((out / "scores-1-references.csv").read_bytes())
    assert set(slow["artist"]) == {references.SUSPECTS, "B01", "B02", "B03", "B04"}
    (again,) = audit.run(request_of(), tmp_path / "without").results
    assert result.model_copy(update={"rank": None, "rank_scores": ""}) == again, "references decide nothing"
    edit(out, lambda data: data["references"].pop())
    assert "the recordings that were ranked differ" in "\n".join(verify(out).lines)
    edit(out, lambda data: data["results"][0]["rank"].update(p_value=0.01))
    assert "the rank among reference artists does not follow" in "\n".join(verify(out).lines)


def test_reference_artists_answer_where_no_artist_is_on_both_sides(home, request_of, others, tmp_path):
    manifest = home / "apart.csv"
    lines = (home / "walrus.csv").read_text().splitlines()
    manifest.write_text(
        "\n".join(line.replace(ARTIST, "Someone Else") if ",held_out," in line else line for line in lines) + "\n"
    )
    out = tmp_path / "out"
    found = audit.run(request_of(manifest=manifest, reference_artists=others, redact=True), out)
    assert found.verdict == "not testable"
    assert found.results[0].rank.references == 4
    assert set(found.repeat.files) == {"scores-1-references.csv"}
    everything = b"".join(contents(out).values())
    assert not re.search(rb"ocelot|quokka|dingo|numbat|platypus", everything)
    assert verify(out).consistent


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "one folder per reference artist, found 0"),
        (("a",), "one folder per reference artist, found 1"),
        (("a", "b"), "at least 2 reference artists, found those of 0"),
        (("a", ARTIST.upper()), "is on one of the sides; references must be other artists"),
    ],
)
def test_reference_artists_that_cannot_serve(home, request_of, tmp_path, names, message):
    for name in names:
        recording(tmp_path / "refs" / name / "x.wav", 0.1)
    with pytest.raises(InputError, match=message):
        audit.run(request_of(manifest=home / "walrus.csv", reference_artists=tmp_path / "refs"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ---- interrupted


def test_a_report_half_written_is_none_and_written_again(report, request_of, tmp_path, monkeypatch):
    out = tmp_path / "out"
    calls = []
    replace_ = Path.replace

    def stop(self, target):
        calls.append(target)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return replace_(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            audit.run(request_of(), out)
    assert not list(tmp_path.iterdir()), "neither the report nor a part of it"
    audit.run(request_of(), out)
    assert contents(out).keys() == contents(report).keys()
    assert verify(out).consistent


SLOW = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore interruptions
import earwitness.signals.store as shards, earwitness.signals.extraction as engine
shards.PART_TRACKS = 4
real = engine.score_part
engine.score_part = lambda *given: (real(*given), time.sleep(0.4))[0]
from earwitness.cli import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_audit_leaves_no_report_and_goes_on(home, number, tmp_path, monkeypatch):
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / "results"))
    out = tmp_path / "out"
    sides = [f"--suspects={home / 'suspect'}", f"--held-out={home / 'held_out'}"]
    arguments = [*sides, f"--model={home / 'model'}", f"--out={out}"]
    child = subprocess.Popen(
        [sys.executable, "-c", SLOW, "audit", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not list((tmp_path / "results").rglob("part-*.parquet")):
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child.send_signal(number)
    shown = child.communicate(timeout=30)[1]
    assert not out.exists()
    assert not (tmp_path / "results" / "audits").exists(), "it is not counted as a run"
    if number == signal.SIGKILL:
        assert child.returncode == -signal.SIGKILL
    else:
        assert child.returncode == StoppedError.exit_code
        line = shown.strip().splitlines()[-1]
        assert line.startswith(
            "earwitness: interrupted; finished parts are stored, to go on: earwitness audit --suspects="
        )
        assert "Traceback" not in shown
    stored = len(list((tmp_path / "results").rglob("part-*.parquet")))
    assert 0 < stored < 2 * SIDE / 4
    scored = []
    real = extraction.score_part
    monkeypatch.setattr("earwitness.signals.store.PART_TRACKS", 4)
    monkeypatch.setattr(extraction, "score_part", lambda *given: (scored.append(len(given[1])), real(*given))[1])
    request = Request(models=(str(home / "model"),), suspects=home / "suspect", held_out=home / "held_out", deals=20)
    found = audit.run(request, out)
    assert len(scored) == -(-2 * SIDE // 4) - stored, "finished parts are not scored again"
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / "elsewhere"))
    assert audit.run(request, tmp_path / "whole").results == found.results
    assert verify(out).consistent


def test_nobody_sees_an_answer_that_is_not_on_record(request_of, tmp_path, monkeypatch):
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / "results"))
    said = []

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["earwitness.audit.procedure"], "write_report", stop)
    with pytest.raises(KeyboardInterrupt):
        audit.run(request_of(), tmp_path / "out", say=said.append)
    (log,) = (tmp_path / "results" / "audits").iterdir()
    verdict = json.loads(log.read_text())["verdict"]
    assert verdict in {"evidence", "no evidence", "not testable"}
    assert not [line for line in said if "evidence" in line or "not testable" in line]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"control_model": "model", "control_saw": "neither"}, "'same' has the weights of 'model'; name another"),
        (
            {"control_model": "pocket/audioldm-a", "control_saw": "neither"},
            "'pocket/audioldm-a' is a diffusion model and 'model' a token model",
        ),
        ({"models": ("model", "same")}, "'model' and 'same' have the same weights; name the model once"),
        ({"models": ("pocket/musicgen-a", "pocket/figaro-a")}, "reads MIDI files and 'pocket/musicgen-a' hears sound"),
    ],
)
def test_models_that_do_not_go_together_are_refused_before_anything_is_opened(
    home, request_of, tmp_path, monkeypatch, changes, message
):
    monkeypatch.setattr(decode_pool, "inspect", lambda *_, **__: pytest.fail("recordings were opened"))
    if changes.get("control_model") == "model":
        changes = changes | {"control_model": str(shutil.copytree(home / "model", tmp_path / "same"))}
    if changes.get("models") == ("model", "same"):
        changes = {"models": (str(home / "model"), str(shutil.copytree(home / "model", tmp_path / "same")))}
    with pytest.raises(InputError, match=re.escape(message)):
        prepare(request_of(**changes))


def test_what_is_not_ours_in_the_folder_stays(report, request_of, tmp_path):
    out = copied(report, tmp_path)
    mine = {
        "notes.txt",
        "audio/Tuesday.wav",
        "audio/T900.mp3",
        "pictures/me.svg",
        "pictures/T999.svg",
        "scores-old.csv",
    }
    for name in mine:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("mine")
    shown = next(name for name in contents(out) if name.startswith("pictures/T") and name not in mine)
    known = json.loads((out / "report.json").read_text())
    known["repeat"]["files"]["pictures/T998.svg"] = known["repeat"]["files"][shown]
    (out / "report.json").write_text(json.dumps(known))
    (out / "pictures" / "T998.svg").write_text("of the report before")
    audit.run(request_of(), out)
    assert {name for name, content in contents(out).items() if content == b"mine"} == mine
    assert not (out / "pictures" / "T998.svg").exists()


def test_a_file_called_report_makes_no_report(tmp_path):
    (tmp_path / "report.json").write_text('{"mine": true}')
    with pytest.raises(InputError, match="not empty and no report of this version; choose a new folder"):
        check_place(tmp_path)
    assert json.loads((tmp_path / "report.json").read_text()) == {"mine": True}


def test_a_recording_that_changes_or_vanishes_is_left_out_with_the_reason(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"examined")
    tracks = [
        Track("a", path, "suspect", sha256="0" * 64),
        Track("b", path, "suspect"),
        Track("c", path / "x", "suspect"),
    ]
    found = number(tracks)
    assert [found.names[track.track_id] for track in found.tracks] == ["b"]
    assert found.gone == {
        "a": "was changed since it was examined",
        "c": "could not be read any more when it was to be scored (expected an audio file, found no such file; "
        "check the path)",
    }


@pytest.mark.parametrize(
    "moment", ["scored", *(pytest.param(one, marks=pytest.mark.slow) for one in ("numbered", "drawn"))]
)
def test_files_that_grow_or_vanish_cost_one_recording_each(home, request_of, tmp_path, monkeypatch, moment):
    """Whenever it happens: before they are numbered, while they are scored, before they are drawn."""
    shutil.copytree(home, tmp_path / "home")
    sides = {side: tmp_path / "home" / side for side in ("suspect", "held_out")}
    grows, vanishes = sides["suspect"] / "wombat-0-5.wav", sides["held_out"] / "wombat-1-5.wav"
    run = sys.modules["earwitness.audit.procedure"]

    def spoil():
        with grows.open("ab") as file:
            file.write(b"more")
        vanishes.unlink()

    def after(real):
        return lambda *given, **more: (spoil(), real(*given, **more))[1]

    if moment == "drawn":
        monkeypatch.setattr("earwitness.audit.examples.EACH", 5)  # so that the one that grew is shown
        monkeypatch.setattr("earwitness.audit.verify.EACH", 5)
        monkeypatch.setattr(run.examples, "pictures", after(run.examples.pictures))
    else:
        where, name = (run, "number") if moment == "numbered" else (run.scoring, "score_model")
        monkeypatch.setattr(where, name, after(getattr(where, name)))
    found = audit.run(request_of(suspects=sides["suspect"], held_out=sides["held_out"]), tmp_path / "out")
    assert found.results[0].p_value is not None
    left = {row.name: row.reason for row in found.exclusions}
    if moment == "drawn":
        assert set(left) <= {"suspect/wombat-0-5.wav"}
        assert all(reason.startswith("no picture of it: its file vanished or changed") for reason in left.values())
        assert len(found.pictures) == 10 - len(left)
    else:
        assert set(left) == {"suspect/wombat-0-5.wav", "held_out/wombat-1-5.wav"}
        assert re.search("was changed|bytes differ", left["suspect/wombat-0-5.wav"])
        assert re.search("no such file", left["held_out/wombat-1-5.wav"])
    assert verify(tmp_path / "out").consistent, verify(tmp_path / "out").lines


@pytest.mark.slow
def test_a_reference_that_vanishes_costs_one_recording(home, request_of, others, tmp_path, monkeypatch):
    run = sys.modules["earwitness.audit.procedure"]
    shutil.copytree(others, tmp_path / "others")
    gone = sorted((tmp_path / "others").rglob("*.wav"))[-1]
    real = run.references.scored
    monkeypatch.setattr(run.references, "scored", lambda *given: (gone.unlink(missing_ok=True), real(*given))[1])
    found = audit.run(request_of(manifest=home / "walrus.csv", reference_artists=tmp_path / "others"), tmp_path / "out")
    assert found.results[0].rank is not None
    (row,) = (row for row in found.exclusions if "for the rank: " in row.reason)
    assert "no such file" in row.reason
    assert verify(tmp_path / "out").consistent, verify(tmp_path / "out").lines


# ---- printed


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason="no Chromium here")
def test_the_page_is_printed(request_of, tmp_path):
    audit.run(request_of(pdf=True), tmp_path / "out")
    assert (tmp_path / "out" / PRINT).read_bytes().startswith(b"%PDF")
    assert verify(tmp_path / "out").consistent
    audit.run(request_of(), tmp_path / "out")
    assert not (tmp_path / "out" / PRINT).exists(), "a print of another report"


def test_without_a_browser_the_report_stands_and_says_how(report, tmp_path, monkeypatch):
    monkeypatch.setattr("earwitness.audit.report.which", lambda name: None)
    assert "open report.html and print it" in print_pdf(report)
    script = tmp_path / "chromium"
    script.write_text("#!/bin/sh\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setattr("earwitness.audit.report.which", lambda name: str(script))
    assert print_pdf(report) == "no PDF: Chromium failed; print report.html"
    assert not (report / PRINT).exists()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 3}, "the seed"),
        ({"alpha": 0.05}, "the level"),
        ({"n_permutations": 99}, "the number of relabellings"),
        ({"models": ("other",)}, "the models or their weights"),
    ],
)
def test_whatever_was_frozen_may_not_change(home, request_of, tmp_path, change, named):
    before = prepare(request_of()).plan
    if "models" in change:
        change = {"models": (str(home / "other"),)}
    with pytest.raises(InputError, match=named):
        check_plan(before, prepare(request_of(**change)).plan)


def test_a_file_that_is_no_plan(tmp_path):
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(InputError, match="not a frozen plan"):
        read_plan(tmp_path / "x.json")
    with pytest.raises(InputError, match="no such file"):
        read_plan(tmp_path / "y.json")


# ---- verify


def edit(out, change):
    data = json.loads((out / RECORD).read_text())
    change(data)
    (out / RECORD).write_text(json.dumps(data, indent=1) + "\n")


def set_in(key, value):
    return lambda data: data["results"][0].update({key: value})


def set_below(*keys, **values):
    def change(data):
        place = data["results"][0]
        for key in keys:
            place = place[key]
        place.update(values)

    return change


def score_changed(out):
    path = out / "scores-1.csv"
    lines = path.read_text().splitlines()
    cells = lines[1].split(",")
    cells[5] = "1.5"
    path.write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]) + "\n")


def score_changed_and_hashed(out):
    score_changed(out)
    sealed = file_hash(out / "scores-1.csv")
    edit(out, lambda data: data["repeat"]["files"].update({"scores-1.csv": sealed}))


def verdict_changed(out):
    def change(data):
        data["verdict"] = data["results"][0]["verdict"] = "evidence"

    edit(out, change)


@pytest.mark.parametrize(
    ("tamper", "named"),
    [
        (score_changed, r"scores-1\.csv: was changed"),
        (score_changed_and_hashed, "do not follow from the stored scores|the stored scores give"),
        (verdict_changed, "the answer does not follow"),
        (lambda out: edit(out, set_in("p_value", 0.0001)), "p_value is 0.0001, the stored scores give"),
        (lambda out: edit(out, set_in("reasons", ["because"])), "reasons is"),
        (lambda out: edit(out, set_in("notes", ["trust me"])), "notes is"),
        (lambda out: edit(out, set_in("level", None)), "level is None, the stored scores give Level"),
        (lambda out: edit(out, set_below("level", evidence=19)), "level is Level.*evidence=19.*, the stored scores"),
        (lambda out: edit(out, set_below("level", "rate", high=0.001)), "level is .*high=0.001.*, the stored scores"),
        (lambda out: edit(out, set_in("shifts", None)), "shifts is None, the stored scores give Shifts"),
        (lambda out: edit(out, set_below("shifts", gate_sd=0.1)), "shifts is .*gate_sd=0.1.*, the stored scores"),
        (
            lambda out: edit(out, set_below("shifts", "rows", 0, "evidence", value=0.999)),
            "shifts is .*value=0.999.*, the stored scores",
        ),
        (lambda out: edit(out, lambda d: d["results"][0]["shifts"]["rows"].pop()), "shifts is .*, the stored scores"),
        (lambda out: edit(out, lambda d: d["repeat"].update(deals=0)), "no audit is made with seed .* and 0 deals"),
        (lambda out: edit(out, lambda d: d["repeat"].update(seed=-1, seed_from="given")), "no audit is made"),
        (lambda out: edit(out, lambda d: d["recordings"][0].update(sha256="0" * 64)), "hash of the recordings"),
        (lambda out: edit(out, lambda d: d["recordings"][0].update(scores=[9.0])), "scores in the list of recordings"),
        (lambda out: edit(out, lambda d: d["repeat"].update(seed=1)), "the seed does not follow"),
        (lambda out: edit(out, set_in("features", ["loss/null"])), "features"),
        (lambda out: edit(out, lambda d: d.update(made="yesterday")), r"report\.html: is not what the record gives"),
        (lambda out: (out / "scores-1.csv").unlink(), "is missing"),
        (lambda out: (out / PAGE).unlink(), r"report\.html: is missing"),
        (
            lambda out: (out / PAGE).write_text((out / PAGE).read_text().replace("no evidence", "evidence")),
            r"report\.html: is not what the record gives",
        ),
    ],
)
def test_verify_finds_what_was_changed(report, tmp_path, tamper, named):
    out = copied(report, tmp_path)
    assert verify(out).consistent
    tamper(out)
    found = verify(out)
    assert not found.consistent
    assert re.search(named, "\n".join(found.lines[1:]))
    assert "not authenticity" in found.lines[-3]
    assert re.search(
        "not checked.*frozen.*exclusions.*duplicates.*imbalances.*names.*machine.*versions", found.lines[-4]
    )


def test_verify_compares_recordings_at_hand(report, home, tmp_path):
    files = [path for role in ("suspect", "held_out") for path in (home / role).iterdir()]
    assert verify(report, files).consistent
    assert "1 recordings of the report are not among" in verify(report, files[1:]).lines[1]


def test_verify_refuses_what_is_no_report(report, tmp_path):
    with pytest.raises(InputError, match="expected a report folder"):
        verify(tmp_path)
    out = copied(report, tmp_path)
    edit(out, lambda data: data.update(extra=1))
    with pytest.raises(InputError, match="extra"):
        verify(out)
    edit(out, lambda data: (data.pop("extra"), data["repeat"]["files"].update({"../x": "0"})))
    with pytest.raises(InputError, match="outside the report"):
        verify(out)


def forged(out, change):
    """Change the record, then make answer, hashes and page follow, as a forger would."""
    edit(out, change)
    data = json.loads((out / RECORD).read_text())
    results = Report.model_validate(data).results
    named = {name for result in results for name in (result.scores, result.control_scores, result.rank_scores)}
    edit(out, lambda d: d.update(verdict=wording.overall(results), answer=wording.answer(results)))
    for path in sorted(out.glob("scores*.csv")):
        if path.name not in named:
            path.unlink()
            edit(out, lambda d, name=path.name: d["repeat"]["files"].pop(name, None))
    (out / PAGE).write_bytes(html.page(*read_report(out)).encode())


EVIDENCE = {"verdict": "evidence", "reasons": [], "p_value": 0.0001, "p_holm": None}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (set_below(scores="", **EVIDENCE), "could be tested, but no scores"),
        (set_below(scores="", verdict="not testable"), "could be tested, but no scores"),
        (
            lambda d: (d["testable"].update(answer=False), d["results"][0].update(scores="", **EVIDENCE)),
            "verdict is 'evidence', a model that was not run gives 'not testable'",
        ),
        (
            lambda d: (d["testable"].update(answer=False), d["results"][0].update(scores="", verdict="not testable")),
            "level is Level.*, a model that was not run gives None",
        ),
        (lambda d: d["testable"].update(answer=False), "scores are stored for what could not be tested"),
    ],
)
def test_verify_finds_a_result_without_its_scores(report, tmp_path, change, named):
    out = copied(report, tmp_path)
    forged(out, change)
    assert re.search(named, "\n".join(verify(out).lines[1:-4]))


def test_verify_finds_scores_that_no_result_owns_to(report, tmp_path):
    out = copied(report, tmp_path)
    (out / "scores-2.csv").write_bytes((out / "scores-1.csv").read_bytes())
    edit(out, lambda d: d["repeat"]["files"].update({"scores-2.csv": d["repeat"]["files"]["scores-1.csv"]}))
    assert verify(out).lines[1] == "scores-2.csv: belongs to no results or pictures, expected one"
    edit(out, lambda d: d.update(results=[*d["results"], d["results"][0] | {"model": "other"}]))
    assert verify(out).lines[1] == "scores-1.csv: belongs to 2 results or pictures, expected one"


def held_out(data):
    return next(row["number"] for row in data["recordings"] if row["role"] == "held_out")


def pictures_swapped(data):
    first, second = data["pictures"][:2]
    first["picture"], second["picture"] = second["picture"], first["picture"]


def artist_added(data):
    row = data["recordings"][0]
    row["artist"] = "A01"
    data["suspects" if row["role"] == "suspect" else "held_out"]["artists"] = 1


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (set_below(labellings=None), "the page cannot be drawn from the record .TypeError"),
        (set_below(features=["loss/null"], family="smell"), "the parts of the record cannot be compared .InputError"),
        (lambda d: d["repeat"].update(alpha=7.0), "the stored scores cannot be tested again .InputError"),
        (lambda d: d["recordings"][0].update(scores=[]), "more or fewer scores than models that were run .1"),
        (lambda d: d["pictures"][0].update(audio="audio/T001.mp3"), "audio/T001.mp3: the record gives no hash"),
        (lambda d: d["repeat"]["files"].update({"audio/T001.mp3": "0"}), "audio/T001.mp3: belongs to no"),
        (
            set_below(control={"name": "twin", "revision": "0", "known_from": "its card"}),
            "control model and its scores",
        ),
        (set_below(rank={"p_value": 0.01, "floor": 0.01, "references": 99, "tracks_each": 9}), "a rank and its scores"),
        (artist_added, "artists in the stored scores differ"),
        (lambda d: d["recordings"][0].update(pair="W09"), "works in the stored scores differ"),
        (lambda d: d["suspects"].update(artists=3), "number of artists on a side"),
        (lambda d: d["pictures"][0].update(label="weakest"), "shown as weakest, which does not follow"),
        (lambda d: d["pictures"][0].update(number=held_out(d)), "is no suspect that was scored"),
        (pictures_swapped, "the picture or sound of another"),
    ],
)
def test_verify_names_what_no_audit_would_have_written(report, tmp_path, change, named):
    out = copied(report, tmp_path)
    edit(out, change)
    assert re.search(named, "\n".join(verify(out).lines[1:-4]))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda d: d.update(results=[]), "results: List should have at least 1 item"),
        (set_below(badge="genuine"), r"results\.0\.badge: String should match"),
    ],
)
def test_verify_refuses_a_record_that_is_out_of_its_schema(report, tmp_path, change, named):
    out = copied(report, tmp_path)
    edit(out, change)
    with pytest.raises(InputError, match=named):
        verify(out)


# ---- scored again, redacted, opened with a key


def test_a_sample_is_scored_again_by_the_seed_of_whoever_asks(report, home, monkeypatch):
    sides = [home / "suspect", home / "held_out"]
    scored = []
    real = extraction.score_part
    monkeypatch.setattr(extraction, "score_part", lambda *given: (scored.append(given[1]), real(*given))[1])
    found = verify(report, sides, model=home / "model", seed=5)
    assert found.consistent, found.lines
    assert scored, "the store was not asked"
    said = re.fullmatch(
        r"model: scored 8 of 22 recordings again, drawn by seed 5 \((T\d+(?:, T\d+){7})\); the largest difference is "
        r"(\S+) standard deviations \(.+ of T\d+\)",
        found.lines[1],
    )
    assert said, found.lines
    assert float(said[2]) <= 1e-3
    other = verify(report, sides, model=[str(home / "model")], seed=6).lines[1]
    assert re.search(r"\((T\d.*?)\)", other)[1] != said[1]
    assert re.search(r"drawn by seed \d+", verify(report, sides, model=home / "model").lines[1])


@pytest.mark.slow
def test_made_up_scores_are_found_by_scoring_again(report, home, request_of, tmp_path, monkeypatch):
    """Consistent in itself, with scores that no model gave."""

    def lie(content):
        table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
        table["zlib/null"] = [f"{float(value) + 0.01 * i}" for i, value in enumerate(table["zlib/null"])]
        return table.to_csv(index=False).encode()

    real = scoring.scores_bytes
    monkeypatch.setattr(scoring, "scores_bytes", lambda scores: lie(real(scores)))
    out = tmp_path / "out"
    audit.run(request_of(), out)
    monkeypatch.undo()
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / "results"))
    sides = [home / "suspect", home / "held_out"]
    assert verify(out, sides).consistent
    found = verify(out, sides, model=home / "model", seed=1)
    assert not found.consistent
    assert re.search(
        r"largest difference is .* \(zlib/null of T\d+\), more than 0.001; were there captions", found.lines[1]
    )
    assert "EARWITNESS_RESULTS" in os.environ
    assert not (tmp_path / "results" / "signals").exists()  # scored in an empty store that is gone again


@pytest.mark.slow
def test_other_weights_and_other_versions_are_told_apart(report, home, tmp_path):
    sides = [home / "suspect", home / "held_out"]
    found = verify(report, sides, model=home / "other", seed=1)
    assert re.match(
        r"other: its weights \(SHA-256 [0-9a-f]{64}\) are those of no model that the report", found.lines[1]
    )
    out = copied(report, tmp_path)
    edit(out, lambda d: d["repeat"]["versions"].update(torch="1.0"))
    (out / PAGE).write_bytes(html.page(*read_report(out)).encode())
    found = verify(out, sides, model=home / "model", seed=1)
    assert found.consistent
    assert re.search(r"standard deviations .*; other versions: torch 1\.0 there, \S+ here$", found.lines[1])


@pytest.mark.slow
def test_an_audit_with_captions_is_scored_again_with_them(home, request_of, tmp_path):
    out = tmp_path / "out"
    names = [f"{role}/{path.name}" for role in ("suspect", "held_out") for path in sorted((home / role).iterdir())]
    (tmp_path / "captions.csv").write_text(
        pd.DataFrame({"track_id": names, "caption": [CAPTION] * len(names)}).to_csv(index=False)
    )
    audit.run(request_of(captions=tmp_path / "captions.csv"), out)
    sides = [home / "suspect", home / "held_out"]
    assert verify(out, sides, model=home / "model", captions=tmp_path / "captions.csv", seed=1).consistent
    assert "were there captions (--captions)" in verify(out, sides, model=home / "model", seed=1).lines[1]


@pytest.mark.slow
def test_where_signals_come_from_is_said(report, request_of, tmp_path, monkeypatch):
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / "results"))
    first = audit.run(request_of(), tmp_path / "first")
    assert "; the signals under model were computed in this run; " in first.made
    (part,) = (tmp_path / "results" / "signals").rglob("part-*.parquet")
    os.utime(part, (86_400, 86_400))
    second = audit.run(request_of(), tmp_path / "second")
    when = "1970-01-02 00:00 to 1970-01-02 00:00 UTC"
    assert f"; the signals of all recordings under model came from the store, written {when}; " in second.made
    assert second.made in html.page(second, read_report(tmp_path / "second")[1])


@pytest.fixture(scope="session")
def redacted(request_of, tmp_path_factory, results):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EARWITNESS_RESULTS", str(results))
        out = tmp_path_factory.mktemp("redacted") / "report"
        audit.run(request_of(redact=True), out)
    return out


def identifying(home):
    """What would name a recording: hashes of files and of their decoded cuts, lengths to the sample, bytes a second."""
    tracks = prepare(
        Request(models=(str(home / "model"),), suspects=home / "suspect", held_out=home / "held_out")
    ).numbered
    yield from (track.sha256 for track in tracks.tracks)
    spec = audio.spec_of(describe(str(home / "model")), 0)
    for track in tracks.tracks:
        yield from (cut.segment_id for cut in audio.segments(track.path, spec))
        info = audio.probe(track.path)
        yield f"{info.duration_s!r},{track.path.stat().st_size / info.duration_s!r}"
    content = manifest_hash((track.sha256, track.role) for track in tracks.tracks)
    yield content


def test_nothing_in_a_redacted_report_names_a_recording_and_the_numbers_are_the_same(report, redacted, home):
    plain_text = b"\n".join(contents(report).values())
    everything = b"\n".join(content + name.encode() for name, content in contents(redacted).items())
    secrets = list(identifying(home))
    assert len(secrets) > 3 * 22
    assert all(word.encode() in plain_text for word in secrets)
    found = [word for word in secrets if re.search(rf"{word[:12]}", everything.decode(errors="replace"))]
    assert not [word for word in found if word.encode() in everything]
    assert not found
    assert not [name for name in contents(redacted) if name.startswith(("pictures", "audio"))]
    assert b"data:audio" not in everything
    mine, theirs = read_report(report)[0], read_report(redacted)[0]
    assert [r.model_dump() for r in mine.results] == [r.model_dump() for r in theirs.results]
    assert [row.scores for row in mine.recordings] == [row.scores for row in theirs.recordings]
    assert mine.repeat.seed == theirs.repeat.seed
    assert not re.search(r"\d\.\d+ s\b", theirs.model_dump_json(exclude={"made", "testable", "results"}))


def test_a_redacted_report_verifies_without_its_key_and_the_key_brings_names_back(redacted, report, home, tmp_path):
    found = verify(redacted)
    assert found.consistent, found.lines
    assert "not checked without the key: that the seed follows from the recordings" in found.lines
    key = redacted.with_name("report.key")
    assert key.stat().st_mode & 0o777 == 0o600
    opened = verify(redacted, key=key)
    assert opened.consistent
    names = {row.number: row.name for row in read_report(report)[0].recordings}
    assert {f"{number} = {name}" for number, name in names.items()} <= {plain(line) for line in opened.lines}
    sides = [home / "suspect", home / "held_out"]
    assert verify(redacted, sides, key=key, model=home / "model", seed=3).consistent
    with pytest.raises(InputError, match=r"names recordings by HMAC; give its key too \(--key\)"):
        verify(redacted, sides)
    assert "11 recordings of the report are not among" in verify(redacted, sides[:1], key=key).lines[1]


def test_a_key_that_is_another_or_was_changed(redacted, tmp_path):
    data = json.loads(redacted.with_name("report.key").read_text())
    first = next(iter(data["recordings"]))
    (tmp_path / "other.key").write_text(json.dumps({"key": "00" * 32, "recordings": {}}))
    assert "the key is not that of this report" in verify(redacted, key=tmp_path / "other.key").lines
    data["recordings"][first]["sha256"] = "0" * 64
    (tmp_path / "changed.key").write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"changed\.key: what it says of the recordings does not follow from its key"):
        verify(redacted, key=tmp_path / "changed.key")
    for text in ("", "{}", '{"key": "xyz", "recordings": {}, "more": 1}', "\xff"):
        (tmp_path / "no.key").write_text(text)
        with pytest.raises(InputError, match="no key of a redacted report"):
            verify(redacted, key=tmp_path / "no.key")
    with pytest.raises(InputError, match="expected the key of a redacted report, no such file"):
        verify(redacted, key=tmp_path / "none.key")
    os.mkfifo(tmp_path / "pipe.key")
    with pytest.raises(InputError, match="found no regular file"):
        verify(redacted, key=tmp_path / "pipe.key")


def test_a_key_is_used_again_and_loses_no_name(redacted, request_of, tmp_path):
    before = redacted.with_name("report.key").read_bytes()
    shutil.copy(redacted.with_name("report.key"), tmp_path / "out.key")
    found = audit.run(request_of(redact=True), tmp_path / "out")
    assert (tmp_path / "out.key").read_bytes() == before
    assert found.recordings == read_report(redacted)[0].recordings
    (tmp_path / "away.key").write_text("my diary")
    with pytest.raises(InputError, match=r"away\.key: no key of a redacted report; move it"):
        audit.run(request_of(redact=True), tmp_path / "away")
    assert (tmp_path / "away.key").read_text() == "my diary"
    assert not (tmp_path / "away").exists()


# ---- mistakes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": ()}, "expected a model"),
        ({"models": ("a", "a")}, "named twice"),
        ({"held_out": None}, r"held_out \(--held-out\) is missing"),
        ({"suspects": None, "held_out": None}, r"two folders \(--suspects, --held-out\) or a manifest \(--manifest\)"),
        ({"pairs": "artist"}, r'expected pairs="work" \(--pairs work\)'),
        ({"control_saw": "nothing", "control_model": "b"}, "expected neither"),
        ({"control_saw": "neither"}, r"without control_model \(--control-model\)"),
        ({"models": ("a",), "control_model": "a"}, "its own control"),
        ({"seed": -1}, "a seed from 0"),
        *(({"alpha": level}, r"a level alpha \(--alpha\) above 0") for level in (0, -0.1, 0.6, float("nan"))),
        ({"deals": 0}, "counts from 1"),
        ({"n_permutations": 0}, "counts from 1"),
    ],
)
def test_requests_that_mean_nothing(request_of, changes, message):
    with pytest.raises(InputError, match=message):
        request_of(**changes)


def test_places_that_hold_something_else_are_not_written_to(request_of, tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(InputError, match="not empty and no report"):
        audit.run(request_of(), tmp_path)
    with pytest.raises(InputError, match="found a file"):
        audit.run(request_of(), tmp_path / "mine.txt")


@pytest.mark.parametrize("side", ["suspects", "held_out", "reference_artists"])
def test_a_report_among_the_recordings_is_refused(request_of, tmp_path, side, monkeypatch):
    for name in ("suspects", "held_out", "reference_artists"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to(tmp_path / side)
    run = sys.modules["earwitness.audit.procedure"]
    monkeypatch.setattr(run, "prepare", lambda *_, **__: pytest.fail("recordings were opened"))
    request = request_of(**{name: tmp_path / name for name in ("suspects", "held_out", "reference_artists")})
    for out in (tmp_path / side / "rep", tmp_path / side, tmp_path / "link" / "a" / "rep"):
        with pytest.raises(InputError, match=f"^{re.escape(str(out))}: lies in .*{side}, .* choose a folder outside"):
            audit.run(request, out)
    check_place(tmp_path / f"{side}-report", [tmp_path / side])


def test_takes_on_both_sides_need_pairs(home, request_of, tmp_path):
    text = (home / "walrus.csv").read_text()
    path = home / f"{tmp_path.name}-takes.csv"
    path.write_text(re.sub(rf"{WORK}-\d-", f"{WORK}-", text))
    with pytest.raises(InputError, match="takes on both sides"):
        audit.run(request_of(manifest=path), tmp_path / "out")
    told = []
    found = audit.run(request_of(manifest=path, pairs="work"), tmp_path / "out", say=told.append)
    assert found.testable.mends == []
    assert found.results[0].design == "paired levels"
    assert found.results[0].level is found.results[0].shifts is None  # both are of single recordings
    assert verify(tmp_path / "out").consistent
    page = (tmp_path / "out" / PAGE).read_text()
    for text in ("hidden difference needed", "This was not measured", "may mistake for training", "its own twin"):
        assert text in page
    assert any("is asked once they are scored" in line for line in told)
    assert "do not clearly tell the two sides apart" not in page


def test_before_a_run_only_what_was_asked_is_said(report):
    found = read_report(report)[0].testable
    assert "do not clearly tell the two sides apart" in wording.before(found, paired=False)
    unasked = wording.before(found.model_copy(update={"blind_p": None}), paired=False)
    assert "is asked once they are scored" in unasked
    assert "do not clearly" not in unasked


def test_no_hidden_difference_is_said_to_be_none(report):
    found, files = read_report(report)
    result = found.results[0].model_copy(update={"unseen_sd": 0.0})
    page = html.page(found.model_copy(update={"results": [result]}), files)
    assert "<th>hidden difference needed</th><td>0</td>" in page


@pytest.mark.parametrize("freeze", [True, False])
def test_pairs_that_cannot_be_compared_are_refused_before_anything_is_scored(home, request_of, tmp_path, freeze):
    path = home / f"{tmp_path.name}-twice.csv"
    text = re.sub(rf"{WORK}-\d-", f"{WORK}-", (home / "walrus.csv").read_text())
    path.write_text(text.replace(f"{WORK}-10", f"{WORK}-9"))
    asked = request_of(manifest=path, pairs="work")
    with pytest.raises(InputError, match=rf"'suspect/wombat-0-6.wav' and .*-0-7.wav' are both .* work '{WORK}-9'"):
        audit.freeze(asked, tmp_path / "plan.json") if freeze else audit.run(asked, tmp_path / "out")
    with pytest.raises(InputError, match="no work is named on both sides"):
        prepare(request_of(pairs="work"))
    assert not list(tmp_path.iterdir())


def captions_of(request_of, table):
    """The captions that a table gives, by recording; those without one are left out."""
    tracks = audit.gather_tracks(request_of(captions=table)).tracks
    return {track.track_id: track.caption for track in tracks if track.caption}


def test_captions_of_folders(home, request_of, tmp_path):
    table = tmp_path / "captions.csv"
    table.write_text(f"path,caption\nwombat-0-0.wav,{CAPTION}\n")
    plan = prepare(request_of(captions=table)).plan
    assert plan.texts_hash != prepare(request_of()).plan.texts_hash
    assert captions_of(request_of, table) == {"suspect/wombat-0-0.wav": CAPTION}
    found = audit.gather_tracks(request_of(captions=table)).tracks
    assert coverage(found) == f"captions for 1 of {SIDE} suspects, 0 of {SIDE} held-out"


@pytest.mark.parametrize(
    "content",
    [
        "path;caption\nwombat-0-0.wav;a, b\nwombat-1-0.wav;c\n".encode("utf-8-sig"),
        'caption,path\n"a, b",wombat-0-0.wav\nc,wombat-1-0.wav\n'.encode("utf-16"),
        b'track_id,caption\nsuspect/wombat-0-0.wav,"a, b"\nheld_out/wombat-1-0.wav,c\n',
        b"track_id\tpath\tcaption\nsuspect/wombat-0-0.wav\t\ta, b\nheld_out/wombat-1-0.wav\t?\tc\n",
    ],
    ids=["semicolons and a mark", "UTF-16", "ids", "ids before paths"],
)
def test_tables_of_captions_as_spreadsheets_write_them(request_of, tmp_path, content):
    (tmp_path / "captions.csv").write_bytes(content)
    found = captions_of(request_of, tmp_path / "captions.csv")
    assert found == {"suspect/wombat-0-0.wav": "a, b", "held_out/wombat-1-0.wav": "c"}


def test_what_a_row_of_captions_may_call_a_recording(tmp_path):
    names = ["a.wav", "sub/a.wav", "sub/b.wav", "e\u0301.wav"]
    tracks = [Track(f"suspect/{name}", tmp_path / "s" / name, "suspect") for name in names]
    tracks.append(Track("held_out/a.wav", tmp_path / "h" / "a.wav", "held_out", caption="from before"))
    table = tmp_path / "captions.csv"
    for name, index in {
        "suspect/a.wav": 0, "s/a.wav": 0, "sub/a.wav": 1, "b.wav": 2, "\u00e9.wav": 3, str(tmp_path / "h" / "a.wav"): 4,
        "./sub/b.wav": 2, "./s/a.wav": 0,
    }.items():  # fmt: skip
        table.write_text(f"path,caption\n{name},x\n")
        found = [track.caption for track in with_captions(tracks, table)]
        expected = ["", "", "", "", "from before"]
        assert found == [*expected[:index], "x", *expected[index + 1 :]], name
    table.write_text("path,caption\na.wav,x\n")
    with pytest.raises(
        InputError, match=r"line 2: 'a.wav' fits 2 recordings .suspect/a.wav, held_out/a.wav.; write the"
    ):
        with_captions(tracks, table)
    deeper = [*tracks, Track("held_out/sub/e\u0301.wav", tmp_path / "h" / "sub" / "e\u0301.wav", "held_out")]
    table.write_text("path,caption\n\u00e9.wav,x\n")
    with pytest.raises(InputError, match=r"fits 2 recordings .suspect/e.*, held_out/sub/e.*; write the folder before"):
        with_captions(deeper, table)
    table.write_text("path,caption\ny/1,x\n")
    assert with_captions([Track("x/y/1", tmp_path / "1.wav", "suspect")], table)[0].caption == "x"
    table.write_text("path,caption\ngone.wav,x\n")
    assert with_captions(tracks, table, ["suspect/gone.wav"]) == tracks


def test_a_hub_model_that_is_not_here_says_what_it_takes():
    with pytest.raises(ModelError, match=r"not on this machine.*GB.*on two cores.*--allow-download"):
        cost.present("facebook/musicgen-small", download=False)
    with pytest.raises(ModelError, match="closed service"):
        cost.present("suno/v4", download=False)
    with pytest.raises(ModelError, match="not in the local cache"):
        cost.present("nobody/nothing", download=False)


# ---- parts


def test_the_published_schema_is_the_one_in_use(root):
    assert (root / "book" / "_static" / "report.schema.json").read_text() == schema_text()


@pytest.mark.parametrize("kind", DEFAULT_FEATURES)
def test_the_pocket_reference_of_each_kind_fits_the_frozen_features(kind):
    from importlib.resources import files

    table = pd.read_parquet(str(files("earwitness") / "audit" / f"reference-{kind}.parquet"))
    named = [c.partition(":")[2] for c in table if c.startswith("attack:")]
    assert sorted(named) == sorted(DEFAULT_FEATURES[kind]), f"write it again: python -m earwitness.audit.checks {kind}"
    pool, causes = checks.reference(kind)
    assert len(pool.artists) >= 1000
    assert np.isfinite(pool.attacks).all()
    assert np.isfinite(pool.blind).all()
    assert list(causes)[-1] == checks.HIDDEN
    assert ("lossy or lossless files" in causes) == (kind != "symbolic")


def test_scores_read_back_exactly():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        [
            {"track_id": f"T{i:03d}", "segment_id": f"00{i}", "artist": "", "work": "", "role": "suspect", "attack": a,
             "score": np.nan if a == "x" and i == 2 else rng.normal() * 10.0 ** rng.integers(-9, 9)}
            for i in range(5) for a in ("zz", "x")
        ]
    )  # fmt: skip
    back = read_scores(scores_bytes(table))
    joined = table.merge(back, on=[*KEYS, "attack"])
    assert len(joined) == len(table)
    assert joined["score_x"].equals(joined["score_y"])
    assert list(dict.fromkeys(back["attack"])) == ["zz", "x"]


def test_the_place_of_a_window_is_kept_with_the_scores_of_a_report():
    place = np.array([0, 1, 2])
    table = pd.concat(
        pd.DataFrame(
            {"track_id": f"T{i}", "segment_id": [f"{i}{k}" for k in (2, 0, 1)], "artist": "", "work": "",
             "role": "suspect" if i % 2 else "held_out", "attack": "x", "score": place * 0.1, "window": place}
        )
        for i in range(4)
    )  # fmt: skip
    back = read_scores(scores_bytes(table))
    joined = table.merge(back, on=[*KEYS, "attack", "window"])
    assert (joined["score_x"] == joined["score_y"]).tolist() == [True] * 12
    assert unit_table(back, segments_per_unit=2).means.ravel() == pytest.approx([0.05] * 4)


def test_the_manifest_hash_depends_on_content_and_side_only():
    pairs = [("aa", "suspect"), ("bb", "held_out")]
    assert manifest_hash(pairs) == manifest_hash(pairs[::-1])
    assert manifest_hash(pairs) != manifest_hash([("aa", "held_out"), ("bb", "suspect")])


def test_numbers_do_not_follow_roles_or_names(home, request_of):
    tracks = prepare(request_of()).intake.tracks
    renamed = [replace(t, track_id=f"x{i}", role="suspect") for i, t in enumerate(reversed(tracks))]
    first, second = ({t.sha256: t.track_id for t in number(given).tracks} for given in (tracks, renamed))
    assert first == second


def test_the_redactor_leaves_other_words_alone(home, request_of):
    tracks = prepare(request_of()).intake.tracks
    redact = Redactor(tracks, ids=["suspect/gone.wav"])
    assert redact("suspect/gone.wav: expected 2 channels") == "[a recording]: expected 2 channels"
    assert redact(f"{tracks[0].path}: broken") == "[a recording]: broken"
    assert redact("the suspect is recorded") == "the suspect is recorded"


def test_a_report_of_another_version_is_refused(report):
    data = json.loads((report / RECORD).read_text()) | {"schema_version": 3}
    with pytest.raises(ValueError, match="schema_version"):
        Report.model_validate(data)


def test_the_log_survives_a_line_cut_short(tmp_path):
    log = tmp_path / "runs.jsonl"
    log.write_bytes(b'{"id": "1", "suspects": ["aa"]}\n{"id": "2", "susp\n[]\n\xff{\n{"id": "3", "suspects": ["bb"]}\n')
    assert [entry["id"] for entry in earlier_runs(["aa"], [log, tmp_path / "none"])] == ["1"]


@pytest.mark.parametrize("beside", [False, True], ids=["in the results", "beside the plan"])
def test_a_record_of_runs_that_cannot_be_written_stops_before_scoring(request_of, tmp_path, monkeypatch, beside):
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / "results"))
    monkeypatch.setattr(scoring, "collect", lambda *_, **__: pytest.fail("a model was run"))
    audit.freeze(request_of(), tmp_path / "plan.json")
    log = tmp_path / ("plan.json.runs.jsonl" if beside else "results/audits/runs.jsonl")
    log.mkdir(parents=True)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"runs.jsonl: .* cannot be written .not a directory"):
        check_logs([tmp_path / "file" / "runs.jsonl"])
    check_logs([tmp_path / "new" / "runs.jsonl"])
    assert not (tmp_path / "new").exists(), "a run that is stopped leaves nothing behind"
    with pytest.raises(
        InputError, match=f"^{re.escape(str(log))}: this record of runs cannot be written .is a directory"
    ):
        audit.run(request_of(frozen=tmp_path / "plan.json"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_tables_of_a_report(report):
    from earwitness.book import tables

    found = tables.frames(read_report(report)[0])
    assert list(found["verdicts"]["model"]) == ["model"]
    assert len(found["recordings"]) == 2 * SIDE
    assert not any(str(name).startswith(("=", "+", "@")) for name in found["recordings"]["name"])
    assert next(iter(found["checks"]["cause"])).startswith("nothing")
    assert len(found["checks"]) == 1 + len(read_report(report)[0].results[0].shifts.rows)


# ---- a redacted notebook keeps no path


def test_a_notebook_may_take_its_paths_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("WOMBATS", str(tmp_path))
    given = {
        "suspects": "$WOMBATS/a",
        "held_out": "${WOMBATS}",
        "captions": "",
        "other_models": ["$WOMBATS", "no$such"],
    }
    found = audit.from_environment(False, **given)
    assert found == {
        "suspects": f"{tmp_path}/a",
        "held_out": str(tmp_path),
        "captions": "",
        "other_models": [str(tmp_path), "no$such"],
    }
    names = {"suspects": "$WOMBATS", "model": "pocket/musicgen-b", "other_models": ["gpt2", "${WOMBATS}"], "out": ""}
    assert audit.from_environment(True, **names)["other_models"] == ["gpt2", str(tmp_path)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("suspects", "zebra"),
        ("suspects", "$WOMBATS/zebra"),
        ("manifest", "data_manifests/zebra.csv"),
        ("out", "/zebra"),
        ("model", "./zebra"),
        ("model", "a/zebra/model"),
        ("model", "zebra"),
        ("other_models", ["gpt2", "/zebra/model"]),
    ],
)
def test_a_redacted_notebook_refuses_a_literal_path(monkeypatch, tmp_path, name, value):
    monkeypatch.setenv("WOMBATS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zebra").mkdir()
    with pytest.raises(InputError, match=rf"'{name}', got a path that the notebook would keep; export") as caught:
        audit.from_environment(True, **{name: value})
    assert "zebra" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_redacted_notebook_needs_its_variables(monkeypatch):
    monkeypatch.delenv("WOMBATS", raising=False)
    with pytest.raises(InputError, match="redact: 'suspects' names a variable that is not set; export it"):
        audit.from_environment(True, suspects="$WOMBATS")


def test_an_error_of_a_redacted_notebook_names_nothing():
    with pytest.raises(InputError, match="run earwitness audit with the same options in a terminal") as caught:  # noqa: SIM117
        with audit.unnamed(True):
            raise OSError(2, "no such file", "zebra.wav")
    assert caught.value.__suppress_context__
    with pytest.raises(OSError, match="zebra"), audit.unnamed(False):
        raise OSError(2, "no such file", "zebra.wav")


@pytest.mark.slow
def test_a_redacted_notebook_keeps_no_path(home, tmp_path):
    """Everything but papermill's own two: the template, and the file that the user asks for."""
    secret = tmp_path / "zebra-archive"
    shutil.copytree(home / "suspect", secret / "zebra-released")
    shutil.copytree(home / "held_out", secret / "zebra-unreleased")
    shutil.copytree(home / "model", secret / "zebra-models" / "model")
    variables = {
        "SUSPECTS": secret / "zebra-released",
        "HELD_OUT": secret / "zebra-unreleased",
        "MODEL": secret / "zebra-models" / "model",
        "OUT": secret / "zebra-report",
    }
    names = {"suspects": "$SUSPECTS", "held_out": "$HELD_OUT", "model": "$MODEL", "out": "$OUT"}
    root = Path(__file__).resolve().parents[2]
    options = [part for name, value in names.items() for part in ("-p", name, value)]
    command = [Path(sys.executable).with_name("papermill"), root / "notebooks" / "artist_audit.ipynb", "out.ipynb"]
    command += [*options, "-p", "deals", "20", "-p", "redact", "True"]
    (tmp_path / "cwd").mkdir()
    environment = os.environ | {name: str(value) for name, value in variables.items()}
    run = {"cwd": tmp_path / "cwd", "env": environment, "capture_output": True, "text": True, "check": False}
    answer = subprocess.run(list(map(str, command)), **run)
    assert answer.returncode == 0, answer.stderr[-2000:]
    assert (secret / "zebra-report" / "report.html").is_file()
    kept = (tmp_path / "cwd" / "out.ipynb").read_text()
    kept = kept.replace(str(root / "notebooks" / "artist_audit.ipynb"), "")
    left = re.findall(r".{0,60}(?:zebra|wombat|onerror|HYPERLINK).{0,60}|.{0,60}" + re.escape(str(tmp_path)), kept)
    assert not left
    assert "$SUSPECTS" in kept
    shutil.rmtree(secret / "zebra-unreleased")
    answer = subprocess.run(list(map(str, command)), **run)
    assert answer.returncode != 0
    assert "zebra" not in (tmp_path / "cwd" / "out.ipynb").read_text()
    assert "the audit stopped; the reason may name files" in (tmp_path / "cwd" / "out.ipynb").read_text()
