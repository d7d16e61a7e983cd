"""A plan refuses what an audit or a run would refuse, and names what cannot be used as they do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import earwitness as ew
from earwitness.audit import cost
from earwitness.audit.cost import Forecast, forecast, refusals
from earwitness.audit.display import SHOWN, table
from earwitness.audit.intake import examine
from earwitness.cli import app
from earwitness.data.decode_pool import MISTAKEN
from earwitness.errors import ModelError
from earwitness.types import Track
from tests import odd_audio as odd
from tests.tiny import musicgen, recording
from tests.tiny_figaro import write
from tests.tiny_midi import golden_a


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
    assert "(--held-out) is missing" in str(CliRunner().invoke(app, [*arguments, sides[0]]).exception)


def test_a_model_named_twice_is_refused(folder: str, manifest: Path) -> None:
    arguments = ["plan", f"--model={folder}", f"--model={folder}", "--no-probe", f"--manifest={manifest}"]
    assert "a model is named twice" in str(CliRunner().invoke(app, arguments).exception)


def test_the_level_counts_for_a_manifest_alone(folder: str, tmp_path: Path) -> None:
    for number in range(16):
        recording(tmp_path / f"{number}.wav", 1.5, seed=number)
    rows = [f"{number}.wav,{('suspect', 'held_out')[number % 2]}\n" for number in range(16)]
    (tmp_path / "m.csv").write_text("".join(["path,role\n", *rows]))
    arguments = ["plan", f"--model={folder}", "--no-probe", "--json", f"--manifest={tmp_path / 'm.csv'}"]
    strict, mild = (CliRunner().invoke(app, [*arguments, *more]).stdout for more in ([], ["--alpha=0.05"]))
    assert "too few tracks: 8 suspect and 8 held-out" in json.loads(strict)["refusals"][0]
    assert json.loads(mild)["refusals"] == []


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that reads scores."""
    return str(write(tmp_path_factory.mktemp("models") / "figaro"))


@pytest.fixture
def mixed(manifest: Path) -> list[Track]:
    """A suspect recording and a held-out score."""
    return [
        Track("sound", manifest.parent / "suspect" / "suspect.wav", "suspect"),
        Track("score", golden_a(manifest.parent / "a.mid"), "held_out"),
    ]


def test_recordings_of_the_other_kind_are_left_out(folder: str, scores: str, mixed: list[Track]) -> None:
    heard, read = (forecast(name, mixed, "audit", probe=False) for name in (folder, scores))
    assert {row["track_id"]: row["reason"] for row in heard.exclusions} == {"score": MISTAKEN[True]}
    assert {row["track_id"]: row["reason"] for row in read.exclusions} == {"sound": MISTAKEN[False]}
    assert (heard.tracks, read.tracks) == (1, 1)


def _plan(sides: Path, *options: str) -> Any:
    arguments = [f"--suspects={sides / 'suspect'}", f"--held-out={sides / 'held_out'}", "--no-probe", "--json"]
    return CliRunner().invoke(app, ["plan", *arguments, *options])


def test_models_that_do_not_go_together_are_refused(
    folder: str, scores: str, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = shutil.copytree(folder, tmp_path / "twin")
    both = _plan(manifest.parent, f"--model={folder}", f"--model={scores}")
    assert "audit them apart" in str(both.exception)
    other = _plan(manifest.parent, f"--model={folder}", f"--control-model={scores}")
    assert "name a control of the same kind" in str(other.exception)
    same = _plan(manifest.parent, f"--model={folder}", f"--control-model={twin}")
    assert "has the weights of" in str(same.exception)

    def absent(name: str, *, allow_download: bool) -> Path:
        raise ModelError(f"{name}: not in the local cache, {allow_download}")

    monkeypatch.setattr("earwitness.models.files._from_hub", absent)
    cards = _plan(manifest.parent, "--model=facebook/musicgen-small", "--control-model=facebook/musicgen-medium")
    assert cards.exit_code == 0, "weights that are not known are not the same weights"
    assert len(json.loads(cards.stdout)) == 2


def _shown(found: Forecast) -> list[tuple[str, str]]:
    """Return a forecast's table as rows of text."""
    name, text = table(found).columns
    return list(zip(map(str, name.cells), map(str, text.cells), strict=True))


def test_a_plan_without_a_usable_track_says_so_and_not_that_roles_lack(folder: str, tmp_path: Path) -> None:
    many = [
        Track(f"{n}", recording(tmp_path / f"{n}.wav", 0.2 + n / 50, seed=n), ["suspect", "held_out"][n % 2])
        for n in range(3)
    ]
    found = forecast(folder, many, probe=False)
    assert (found.refusals, found.notes) == (["no track can be used"], [])
    assert [text for name, text in _shown(found) if name == "left out"] == ["3 x shorter than 0.64 s"]
    usable = [Track(f"u{n}", recording(tmp_path / f"u{n}.wav", 1.5, seed=n), "") for n in range(2)]
    assert "no track has a role" in forecast(folder, [*usable, *many], probe=False).notes[0]
    beside = [Track("r", usable[0].path, "reference"), *many]
    assert forecast(folder, beside, probe=False).refusals == ["no track can be used"]


def test_reasons_are_counted_without_names_and_the_rest_is_said(folder: str, tmp_path: Path) -> None:
    gone = [Track(f"{n}", tmp_path / f"gone: {n}.wav", "suspect") for n in range(3)]
    found = forecast(folder, gone, probe=False)
    reason = "expected an audio file, found no such file; check the path"
    assert {row["reason"] for row in found.exclusions} == {reason}
    left = [text for name, text in _shown(found) if name == "left out"]
    assert left == [f"3 x {reason}"]
    found.exclusions.extend({"track_id": "x", "role": "", "reason": f"reason {n}"} for n in range(SHOWN + 1))
    left = [text for name, text in _shown(found) if name == "left out"]
    assert len(left) == SHOWN + 1
    assert left[-1] == "and 2 more; --json lists all"


WHOLE = {  # name -> how it is written, what is odd about it, the remark
    "hushed.mp3": ({"format": "MP3", "bitrate_mode": "VARIABLE", "compression_level": 0.5}, odd.without_xing, ""),
    "half.mp3": ({"format": "MP3", "bitrate_mode": "VARIABLE", "compression_level": 0.5}, odd.xing_counts(0.5), "used"),
    "cover.mp3": (
        {"format": "MP3", "bitrate_mode": "CONSTANT", "compression_level": 0.5},
        lambda raw: odd.with_picture(odd.without_xing(raw)),
        "",
    ),
    "stream.flac": ({}, odd.flac_total(lambda n: 0), "does not say"),
    "padded.wav": ({"subtype": "PCM_24"}, odd.more(1, 1), "counts 1 byte more"),
    "size.wav": ({"subtype": "PCM_16"}, odd.more(8, 0), "counts 8 bytes more"),
    "crashed.wav": ({"subtype": "PCM_16"}, odd.sizes(0, 0), "never completed"),
}
PART = {
    "phone.wav": ({"subtype": "GSM610"}, bytes, "GSM 6.10 in WAV is not read; export as PCM"),
    "cut.ogg": ({}, odd.cut(0.8), "without a last page; the file is cut short; export it again"),
    "cut.opus": ({"format": "OGG", "subtype": "OPUS"}, odd.cut(0.8), "without a last page; the file is cut short"),
    "cut.wav": ({}, odd.cut(0.8), "arrived; the file is cut short; export it again"),
    "picture.mp3": ({"format": "WAV"}, lambda raw: b"\x89PNG" + raw, "not readable as audio (a PNG image)"),
    "empty.flac": ({}, lambda raw: b"", "not readable as audio (the file is empty)"),
}


def test_every_command_uses_a_recording_whole_or_says_the_same_of_it(folder: str, tmp_path: Path) -> None:
    """In values: how long what is used is, and in which words the rest is left out by check, plan and score."""
    for number, (name, (how, change, _)) in enumerate({**WHOLE, **PART}.items()):
        rate = {"phone.wav": 8_000, "cut.opus": 48_000}.get(name, odd.RATE)
        path = odd.written(tmp_path / "s" / name, odd.sound(number, channels=1, rate=rate), rate, **how)
        path.write_bytes(change(path.read_bytes()))
    for name, codec in (("ac3.m4a", "ac3"), ("eac3.m4a", "eac3"), ("named.mp3", "aac")):
        odd.coded(tmp_path / "s" / name, codec, layout="mp4")
    reasons = {name: reason for name, (*_, reason) in PART.items()}
    reasons |= {"ac3.m4a": "AC-3 in M4A is not read", "eac3.m4a": "E-AC-3 in M4A is not read"}
    reasons |= {"named.mp3": "this is an M4A named .mp3; rename it"}
    tracks = [Track(path.name, path, "suspect") for path in sorted((tmp_path / "s").iterdir())]
    checked = examine(tracks, folder)
    files = checked.files.set_index("track_id")
    for name, (*_, remark) in WHOLE.items():
        assert files.loc[name, "duration_s"] == pytest.approx(odd.SECONDS, abs=0.06), name
        assert remark in files.loc[name, "remark"], name
        assert bool(remark) == bool(files.loc[name, "remark"]), name
    said = checked.exclusions.set_index("track_id")["reason"].to_dict()
    assert said.keys() == reasons.keys()
    assert all(reason in said[name] for name, reason in reasons.items()), said
    planned = {row["track_id"]: row["reason"] for row in forecast(folder, tracks, probe=False).exclusions}
    scored = ew.collect(folder, tracks, max_segments=1, progress=False).exclusions
    assert planned == said
    told = zip(scored["track_id"], scored["reason"], strict=True)
    assert {name: reason.removeprefix(f"{name}: ") for name, reason in told} == said


def test_pairs_need_works_on_both_sides(folder: str, manifest: Path) -> None:
    listed = manifest.with_name("works.csv")
    listed.write_text("path,role,work\nsuspect/suspect.wav,suspect,a\nheld_out/held_out.wav,held_out,b\n")
    arguments = ["plan", f"--model={folder}", f"--manifest={listed}", "--pairs=work", "--no-probe", "--json"]
    found = json.loads(CliRunner().invoke(app, arguments).stdout)
    assert found["refusals"] == ["no work has takes on both sides, so there is no pair to compare"]
    takes = [Track(f"{role}{n}", Path("x.wav"), role, work=str(n)) for n in range(20) for role in cost.SIDES]
    assert refusals(takes, "work") == []
    few = [Track(t.track_id, t.path, t.role, work=t.work if int(t.work) < 4 else "") for t in takes]
    assert "too few pairs: 4 works with takes on both sides show only an AUC above" in refusals(few, "work")[0]
