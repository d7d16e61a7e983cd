"""An audit of folders of MIDI files: one artist that the model was trained on, one that it never saw, and bad files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from earwitness.audit import Request, run
from earwitness.audit.intake import examine
from earwitness.audit.report import read_scores
from earwitness.audit.verify import verify
from earwitness.data.folders import gather
from earwitness.data.manifest import read_splits
from earwitness.util import project_root, results_dir
from tests.score_changes import transposed
from tests.tiny import recording

MODEL = "pocket/figaro-b"
MANIFEST = project_root() / "data_manifests" / "pocket-midi.csv"


def _folders(place: Path, artist: str, suspects: str, held_out: str) -> dict[str, Path]:
    """Copy the scores of two splits of an artist into two folders."""
    found = {}
    for side, split in (("suspects", suspects), ("held_out", held_out)):
        found[side] = place / side
        found[side].mkdir(parents=True)
        for track in read_splits(MANIFEST, [split]):
            if track.artist == artist:
                shutil.copy(track.path, found[side] / track.path.name)
    return found


@pytest.fixture
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results of their own, so that no other run counts; the corpus stays where it is."""
    read_splits(MANIFEST)  # writes the files if they are not there
    corpus = (results_dir() / "pocket").resolve()
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / "results"))
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "pocket").symlink_to(corpus)
    return tmp_path


def test_an_artist_it_was_trained_on_and_one_it_never_saw(apart: Path) -> None:
    words = {}
    for artist, splits in {"Selvarosa": ("b", "neither"), "Thistledrone": ("never-1", "never-2")}.items():
        folders = _folders(apart / artist, artist, *splits)
        out = apart / f"report-{artist}"
        report = run(Request(models=(MODEL,), **folders, deals=100), out)
        words[artist] = report.verdict
        (result,) = report.results
        assert result.family == "symbolic"
        assert min(result.n_suspect, result.n_held_out) >= 18, "all but pieces with fewer windows than the others"
        assert result.blind_p is not None
        assert report.suspects.formats == {"MIDI": 20}
        assert all("Piano rolls" in (out / shown.picture).read_text() for shown in report.pictures)
        assert len(report.pictures) == 4
        assert read_scores((out / result.scores).read_bytes()).groupby("track_id")["window"].min().eq(0).all()
        assert verify(out).consistent, "it chooses by the stored windows too"
    assert words == {"Selvarosa": "evidence", "Thistledrone": "no evidence"}


def test_copies_strangers_and_broken_files_are_left_out_with_a_reason(apart: Path) -> None:
    import numpy as np
    import pretty_midi

    folders = _folders(apart, "Ovelune", "b", "neither")
    first = sorted(folders["suspects"].iterdir())[0]
    transposed(pretty_midi.PrettyMIDI(str(first)), np.random.default_rng(0)).write(
        str(folders["held_out"] / "in-d.mid")
    )
    (folders["suspects"] / "broken.mid").write_bytes(first.read_bytes()[:50])
    recording(folders["suspects"] / "sound.wav", 2.0, seed=0)
    found = gather(**folders)
    intake = examine(found.tracks, MODEL, found=found)
    why = dict(zip(intake.exclusions["track_id"], intake.exclusions["reason"], strict=True))
    assert set(why) == {f"suspect/{first.name}", "held_out/in-d.mid", "suspect/broken.mid", "suspect/sound.wav"}
    assert why["held_out/in-d.mid"].startswith(f"the same piece as suspect/{first.name} on the other side")
    assert "not a MIDI file that can be used" in why["suspect/broken.mid"]
    assert why["suspect/sound.wav"].startswith("a recording, and this model reads MIDI")
    assert intake.files.set_index("track_id").loc[f"suspect/{first.name}", "notes"] > 100


def test_scores_are_no_recordings(apart: Path) -> None:
    folders = _folders(apart, "Ovelune", "b", "neither")
    found = gather(**folders)
    intake = examine(found.tracks[:2], "pocket/musicgen-b", found=found)
    assert set(intake.exclusions["reason"].str.partition(";")[0]) == {"a MIDI file, and this model hears sound"}
