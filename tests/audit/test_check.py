"""``earwitness check``: it says yes or no as the audit would, it is recorded; what needs no recording comes first."""

from __future__ import annotations

import io
import json
import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import soundfile
from rich.console import Console
from typer.testing import CliRunner

from earwitness import cli
from earwitness.audit import procedure
from earwitness.audit.plan import earlier_runs, looks, record_look, record_run, run_log
from earwitness.audit.procedure import Examined, check, prepare
from earwitness.audit.request import Request, refuse_kind
from earwitness.data.folders import gather
from earwitness.errors import EarwitnessError, InputError
from earwitness.models import describe
from earwitness.terminal import as_dict, show_check
from earwitness.types import Track
from earwitness.util import VERSION
from tests.tiny import RATE, recording, tune

MODEL = "pocket/musicgen-a"
N = 10


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results"


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten recordings a side that differ in nothing, and ten with a hiss."""
    root, hiss = tmp_path_factory.mktemp("sides"), np.random.default_rng(0)
    for i in range(N):
        recording(root / "suspect" / f"s{i}.wav", 3.0, seed=i)
        recording(root / "fair" / f"f{i}.wav", 3.0, seed=100 + i)
        (root / "noisy").mkdir(exist_ok=True)
        sound = tune(3.0, 200 + i)
        soundfile.write(root / "noisy" / f"n{i}.wav", 0.5 * sound + 0.2 * hiss.normal(size=len(sound)), RATE)
    return root


def asked(sides: Path, held_out: str = "fair", **more: object) -> Request:
    given = {"models": (MODEL,), "n_permutations": 199}
    return Request(suspects=sides / "suspect", held_out=sides / held_out, **given | more)


def last_line(sides: Path, held_out: str) -> str:
    printed = io.StringIO()
    show_check(*_first_two(check(asked(sides, held_out)), Console(file=printed, width=4000)))
    return printed.getvalue().rstrip().splitlines()[-1]


def _first_two(found, console):
    intake, before, seen = found
    return intake, console, before, seen


def test_the_last_line_is_yes_or_no_with_the_reason_and_every_look_is_on_record(sides: Path, results: Path) -> None:
    assert re.match(
        r"Can this be tested\? Yes, because there are enough recordings and the gate", last_line(sides, "fair")
    )
    said = last_line(sides, "noisy")
    assert said.startswith("Can this be tested? No, because the two sets can be told apart by properties that have")
    assert "Choose held-out recordings that differ from the suspects in nothing but training" in said
    assert check(asked(sides, "noisy"))[2] == 2  # the same selection again is no further look
    lines = (results / "audits" / "runs.jsonl").read_text().splitlines()
    assert [json.loads(line)["verdict"] for line in lines] == ["a look: can be tested", "a look: cannot be tested"]


def test_what_check_says_of_two_sides_is_what_the_audit_says_before_it_runs_a_model(sides: Path) -> None:
    intake, before, _ = check(asked(sides, "noisy"))
    known = prepare(asked(sides, "noisy"))
    assert isinstance(known, Examined)
    assert known.plan.seed == procedure.Opened(None, intake, known.numbered).content(asked(sides, "noisy"))[1]
    again = procedure.pretest.look(
        known.numbered.tracks, known.infos[0], alpha=0.01, permutations=199, seed=known.plan.seed, cost=before.cost
    )
    assert again.blind_p == before.blind_p
    assert (before.answer, again.answer) == (False, again.blind_p > procedure.pretest.CLEARLY)


def test_too_few_and_straddling_works_are_a_no_and_no_look(sides: Path, tmp_path: Path, results: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    (few / "one.wav").write_bytes((sides / "fair" / "f0.wav").read_bytes())
    intake, before, seen = check(Request(models=(MODEL,), suspects=sides / "suspect", held_out=few))
    assert (before.answer, seen) == (False, 0)
    assert "too few units: 10 suspect and 1 held-out" in before.reasons[0]
    assert as_dict(intake, before, seen)["testable"] is False
    assert not (results / "audits").exists()
    table = tmp_path / "takes.csv"
    named = {"suspect": "suspect/s", "held_out": "fair/f"}
    rows = [f"{place}{i}.wav,{role},w{i}" for role, place in named.items() for i in range(N)]
    table.write_text("\n".join(["path,role,work", *rows]))
    _, before, _ = check(Request(models=(MODEL,), manifest=table, root=sides))
    assert not before.answer
    assert "10 works have takes on both sides" in before.reasons[0]


def test_looks_are_no_runs_and_runs_no_looks(tmp_path: Path, sides: Path) -> None:
    plan = prepare(asked(sides)).plan
    logs = [tmp_path / "runs.jsonl"]
    for content, testable in (("one", True), ("two", False), ("two", False), ("two", True)):
        record_look(content, ["a" * 64, "b" * 64], testable, logs)
    record_run(plan, ["a" * 64], "no evidence", logs)
    assert looks(["b" * 64], logs) == {"one", "two"}
    assert looks(["c" * 64], logs) == set()
    assert [run["verdict"] for run in earlier_runs(["a" * 64], logs)] == ["no evidence"]
    assert earlier_runs(["b" * 64], logs) == []
    made = procedure._made(earlier_runs(["a" * 64], logs), plan, 1.0, seen=2)
    assert made.endswith(
        "the first run on record with these recordings, repeated; 2 selections of them looked at with check before"
    )
    assert "looked" not in procedure._made([], plan, 1.0)
    assert run_log(None)[0].name == "runs.jsonl"


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"frozen": Path("no-such-plan.json")}, "no-such-plan.json: expected a frozen plan"),
        ({"control_model": "pocket/musicgen-b"}, "nothing says that 'pocket/musicgen-b' saw neither side"),
        (
            {"control_model": "pocket/figaro-b", "control_saw": "neither"},
            "cannot be compared; name a control of the same",
        ),
        ({"reference_artists": Path("nobody")}, "expected one folder per reference artist, found 0"),
        ({"captions": Path("captions.csv")}, "captions.csv"),
        ({"works": Path("works.csv")}, "works.csv"),
        ({"models": ("pocket/figaro-a",)}, "10 suspects: pocket/figaro-a reads MIDI files, and all of these are sound"),
        ({"models": ("pocket/musicgen-z",)}, "musicgen-z"),
    ],
)
def test_what_needs_no_recording_is_refused_before_any_is_opened(sides, monkeypatch, more, match) -> None:
    def opened(*_: object, **__: object) -> None:
        raise AssertionError("a recording was opened")

    monkeypatch.setattr(procedure, "examine", opened)
    with pytest.raises(EarwitnessError, match=match):
        prepare(asked(sides, **more))
    if "frozen" not in more:
        with pytest.raises(EarwitnessError, match=match):
            check(asked(sides, **more))


def test_a_side_is_refused_for_its_kind_only_if_all_of_it_is_of_the_other(tmp_path: Path) -> None:
    info = describe(MODEL)
    notes = [Track(f"s{i}", tmp_path / f"{i}.MID", "suspect") for i in range(3)]
    sound = [Track(f"h{i}", tmp_path / f"{i}.flac", "held_out") for i in range(2)]
    with pytest.raises(InputError, match=r"3 suspects: .* reads sound files, and all of these are MIDI files"):
        refuse_kind(info, [*notes, *sound])
    refuse_kind(info, [*notes, Track("s9", tmp_path / "9.wav", "suspect"), *sound])
    refuse_kind(info, [])


@pytest.mark.parametrize(
    "given", [{"suspects": Path("s")}, {"suspects": Path("s"), "reference_artists": Path("r")}, {}]
)
def test_without_held_out_three_ways_to_get_one_are_named(given: dict[str, Path]) -> None:
    with pytest.raises(InputError) as caught:
        Request(models=(MODEL,), **given)
    said = str(caught.value)
    for way in ("unreleased", "other takes", "released after the model", "Where honest held-out recordings come from"):
        assert way in said
    with pytest.raises(InputError, match="suspects \\(--suspects\\) is missing; a comparison needs both sides$"):
        Request(models=(MODEL,), held_out=Path("h"))


def test_the_command_that_repeats_an_audit_has_whole_paths(sides: Path, tmp_path: Path) -> None:
    request = asked(sides, frozen=Path("plan.json"), by_folder=True, by="A. B.", made_for="C & D")
    line = request.command(redact=False)
    assert f"--suspects {sides}/suspect --held-out {sides}/fair --frozen {Path.cwd()}/plan.json" in line
    assert "--by-folder" in line
    assert "--by 'A. B.' --for 'C & D'" in line
    hidden = asked(sides, redact=True).command(redact=True)
    assert str(sides) not in hidden
    assert "--suspects SUSPECTS --held-out HELD_OUT" in hidden
    with pytest.raises(InputError, match="at most 200 characters"):
        asked(sides, by="x" * 201)


def test_folders_are_artists_and_albums_if_asked(tmp_path: Path) -> None:
    names = ("Ann/1.wav", "Ann/Blue/2.wav", "Ann/Blue/3.wav", "Bob/Red/CD 1/4.wav", "5.wav")
    for seed, (side, name) in enumerate(product(("s", "h"), names)):
        recording(tmp_path / side / name, 3.0, seed=seed)
    given = {"suspects": tmp_path / "s", "held_out": tmp_path / "h"}
    assert {(t.artist, t.work) for t in gather(**given).tracks} == {("", "")}
    found = {t.track_id: (t.artist, t.work) for t in gather(**given, by_folder=True).tracks}
    assert {name.split("/", 1)[1]: held for name, held in found.items() if name.startswith("suspect/")} == {
        "Ann/1.wav": ("Ann", ""),
        "Ann/Blue/2.wav": ("Ann", "suspect: Ann/Blue"),
        "Ann/Blue/3.wav": ("Ann", "suspect: Ann/Blue"),
        "Bob/Red/CD 1/4.wav": ("Bob", "suspect: Bob/Red"),
        "5.wav": ("", ""),
    }
    assert not {work for _, work in found.values() if work.startswith("suspect")} & {
        work for name, (_, work) in found.items() if name.startswith("held_out")
    }
    with pytest.raises(InputError, match="by_folder .* is for two folders"):
        Request(models=(MODEL,), manifest=Path("m.csv"), by_folder=True)
    intake, before, _ = check(Request(models=(MODEL,), **given, by_folder=True))
    printed = io.StringIO()
    show_check(intake, Console(file=printed, width=4000), before)
    assert np.all(
        [word in printed.getvalue() for word in ("Artists, suspects v held-out:", "Ann ", "each of which counts once")]
    )


# ---- the command line


@pytest.mark.parametrize("command", ["check", "plan", "audit", "verify", "score"])
def test_no_option_is_cut_at_80_columns(command: str) -> None:
    shown = CliRunner().invoke(cli.app, [command, "--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"}).output
    assert "…" not in shown
    assert "<list" not in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_options_stand_in_groups() -> None:
    shown = CliRunner().invoke(cli.app, ["audit", "--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"}).output
    groups = re.findall(r"╭─ (.+?) ─", shown)
    assert {"Recordings", "Models", "How they are compared", "Report", "Advanced"} <= set(groups)


def test_the_command_says_which_version_it_is() -> None:
    assert CliRunner().invoke(cli.app, ["--version"]).output == f"earwitness {VERSION}\n"


@pytest.mark.parametrize("command", ["check", "plan", "audit"])
def test_without_options_everything_that_is_missing_is_named(command: str) -> None:
    found = CliRunner().invoke(cli.app, [command])
    assert isinstance(found.exception, InputError)
    assert re.search(r"--model.*--suspects, --held-out.*--manifest", str(found.exception))
