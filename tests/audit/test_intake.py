"""What is found before any model is loaded: text made plain, the sides compared, M4A, works on both sides."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from earwitness.audit import intake
from earwitness.audit.intake import examine
from earwitness.book import html, tables
from earwitness.data import containers, decode_pool, folders
from earwitness.data.audio import decode, probe
from earwitness.data.folders import gather
from earwitness.errors import AudioError, ManifestError
from earwitness.signals.blind import file_features
from earwitness.terminal import enough, show_check
from earwitness.types import Track
from earwitness.util import FORMULA_STARTS, guard, plain, unguard, write_csv
from earwitness_build.corpora.build import NOTES
from tests import tiny_midi
from tests.tiny import RATE, container, recording, tune

MODEL = "pocket/musicgen-a"


@given(st.text())
def test_plain_text_is_printable_and_else_unchanged(text: str) -> None:
    assert plain(text).isprintable()
    assert plain(plain(text)) == plain(text)
    if text.isprintable():
        assert plain(text) == text


@given(st.text())
def test_guarded_cells_start_no_formula_and_come_back(text: str) -> None:
    safe = guard(text)
    assert not str(safe).startswith(FORMULA_STARTS)
    if not text.startswith("'"):
        assert unguard(str(safe)) == text


def test_tables_for_people_hold_no_formula(tmp_path: Path) -> None:
    write_csv(pd.DataFrame({"=a": ["=cmd()", "fine"], "n": [-1.5, 2.0]}), tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == "'=a,n\n'=cmd(),-1.5\nfine,2.0\n"
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_tables_of_pages_hold_no_formula_and_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path))
    frame = pd.DataFrame(
        {"name": ["=cmd|' !A0'", "null", None], "-x": [-1.5, 2.0, np.nan], "sure": [True, False, True]}
    )
    found = tables.write(frame, "page", "t")
    assert (
        tmp_path / "tables/page/t.csv"
    ).read_text() == "name,'-x,sure\n'=cmd|' !A0',-1.5,True\nnull,2,False\n,,True\n"
    pd.testing.assert_frame_equal(found, frame, check_dtype=False)
    assert b"'=cmd" in base64.b64decode(html.download(frame, "t.csv").split("base64,")[1].split('"')[0])


@pytest.mark.parametrize(
    ("name", "codec", "layout"), [("x.m4a", "aac", None), ("x.m4a", "alac", None), ("x.aac", "aac", "adts")]
)
def test_containers_decode_to_what_was_written(name: str, codec: str, layout: str | None, tmp_path: Path) -> None:
    wanted = tune(3.0, 1)
    path = container(tmp_path / name, wanted, codec=codec, layout=layout)
    audio, rate = decode(path)
    assert (rate, audio.shape[0], audio.dtype) == (RATE, 1, np.float32)
    lag = int(np.argmax(np.correlate(audio[0], wanted[4000:12_000], "valid"))) - 4000
    assert 0 <= lag <= 2048  # the coder's delay
    piece = audio[0, lag + 4000 : lag + 40_000]
    assert np.corrcoef(piece, wanted[4000 : 4000 + len(piece)])[0, 1] > 0.95
    info = probe(path)
    assert (info.format, info.codec, info.sample_rate, info.channels) == (name[2:].upper(), codec.upper(), RATE, 1)
    assert info.duration_s == pytest.approx(3.0, abs=0.15)
    features = file_features(info, path.stat().st_size)
    assert features["source_sample_rate"] == RATE
    assert not any(value for key, value in features.items() if key.startswith("format_"))


@pytest.mark.parametrize(
    ("limit", "value", "message"),
    [
        ("MAX_CHANNELS", 0, "beyond the limits"),
        ("MAX_SAMPLE_RATE", 8000, "beyond the limits"),
        ("MAX_SECONDS", 1.0, "longer than"),
    ],
)
def test_limits_hold_for_containers(
    limit: str, value: float, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = container(tmp_path / "x.m4a", tune(3.0, 1))
    monkeypatch.setattr(containers, limit, value)
    with pytest.raises(AudioError, match=message):
        decode(path)


def _files(**columns: list[object]) -> pd.DataFrame:
    n = 20
    base = {
        "role": ["suspect"] * 10 + ["held_out"] * 10, "duration_s": np.tile(np.arange(10.0), 2),
        "level_dbfs": [-20.0] * n, "bandwidth_hz": [8000.0] * n, "year": [np.nan] * n,
        "format": ["WAV"] * n, "codec": ["PCM_16"] * n, "sample_rate": [44_100] * n, "channels": [2] * n,
    }  # fmt: skip
    return pd.DataFrame(base | columns)


@pytest.mark.parametrize(
    ("column", "suspects", "held_out", "sentence"),
    [
        ("level_dbfs", -14.0, -20.0, "loudness: median -14.0 dBFS (suspects), -20.0 dBFS (held-out)"),
        ("duration_s", 200.0, 100.0, "length: median 200.0 s (suspects), 100.0 s (held-out)"),
        ("bandwidth_hz", 16_000.0, 22_000.0, "bandwidth: median 16000 Hz (suspects), 22000 Hz (held-out)"),
        ("year", 2019.5, 2024.5, "release date: median 2019.5 (suspects), 2024.5 (held-out)"),
        ("format", "MP3", "WAV", "format: suspects MP3 10; held-out WAV 10"),
        ("sample_rate", 48_000, 44_100, "sample rate (Hz): suspects 48000 10; held-out 44100 10"),
        ("channels", 1, 2, "channels: suspects 1 10; held-out 2 10"),
    ],
)
def test_what_differs_is_named_with_both_values(column: str, suspects: object, held_out: object, sentence: str) -> None:
    assert intake.sentences(_files(**{column: [suspects] * 10 + [held_out] * 10})) == (sentence,)


def test_equal_sides_and_one_side_alone_are_silent() -> None:
    assert intake.sentences(_files()) == ()
    assert intake.sentences(_files().query("role == 'suspect'")) == ()
    known = intake.sentences(_files(year=[2020.0] * 10 + [np.nan] * 10))
    assert known == ("release date: known for suspects only",)


def test_dates_become_years() -> None:
    dates = pd.Series(["2024", "2024-07", "2024-07-15", "", "spring"])
    np.testing.assert_allclose(intake.years(dates)[:3], 2024.54, atol=0.01)
    assert intake.years(dates)[3:].isna().all()


def test_takes_of_one_work_on_both_sides_are_said(tmp_path: Path) -> None:
    tracks = [
        Track(
            f"{role}{i}",
            recording(tmp_path / f"{role}{i}.wav", 3.0, seed=i + 50 * (role == "held_out")),
            role,
            work=f"w{i}",
        )
        for role in ("suspect", "held_out")
        for i in range(2)
    ]
    found = examine(tracks, MODEL)
    assert found.straddling == ("w0", "w1")
    assert found.exclusions.empty
    testable, why = enough(found)
    assert not testable
    assert "2 works have takes on both sides" in why
    assert "needs at least 10 of them" in why
    pairs = [enough(replace(found, straddling=tuple(map(str, range(k))))) for k in (9, 10)]
    assert [large for large, _ in pairs] == [False, True]
    assert "its twin) of 0.89 or more would be seen" in pairs[1][1]


def test_files_that_are_not_what_the_manifest_hashed_are_left_out(tmp_path: Path) -> None:
    track = Track("a", recording(tmp_path / "a.wav", 3.0), "suspect", sha256="0" * 64)
    found = examine([track], MODEL)
    assert found.tracks == ()
    assert "its bytes differ" in found.exclusions.loc[0, "reason"]


def test_a_copy_chain_over_both_sides_leaves_none(tmp_path: Path) -> None:
    first = recording(tmp_path / "s" / "a.wav", 3.0, seed=1)
    for name in ("s/b.wav", "h/c.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(first.read_bytes())
    recording(tmp_path / "h" / "other.wav", 3.0, seed=2)
    given_ = gather(suspects=tmp_path / "s", held_out=tmp_path / "h")
    found = examine(given_.tracks, MODEL, found=given_)
    assert [track.track_id for track in found.tracks] == ["held_out/other.wav"]
    assert len(found.duplicates) == 3
    assert found.exclusions["reason"].str.contains("both are left out").all()


def test_an_album_in_one_file_goes_its_tracks_stay_and_every_reason_is_true(tmp_path: Path) -> None:
    songs = [tune(4.0, seed) for seed in range(4)]
    for i, song in enumerate(songs):
        soundfile.write(_in(tmp_path / "s", f"s{i}.wav"), song, RATE)
        soundfile.write(_in(tmp_path / "h", f"h{i}.wav"), tune(4.0, 50 + i), RATE)
    soundfile.write(tmp_path / "s" / "all of it.flac", np.concatenate(songs), RATE)
    soundfile.write(tmp_path / "h" / "h9.flac", songs[3], RATE)
    given_ = gather(suspects=tmp_path / "s", held_out=tmp_path / "h")
    found = examine(given_.tracks, MODEL, found=given_)
    left = found.exclusions.set_index("track_id")["reason"].to_dict()
    assert set(left) == {"suspect/all of it.flac", "suspect/s3.wav", "held_out/h9.flac"}
    assert left["suspect/all of it.flac"].startswith("holds suspect/s0.wav and suspect/s1.wav and 3 more")
    assert left["suspect/s3.wav"] == "the same recording as held_out/h9.flac on the other side; both are left out"
    assert found.counts() == {"suspect": 3, "held_out": 4}
    assert not found.joins


def test_music_in_the_cloud_is_counted_and_named(tmp_path: Path) -> None:
    for side in "sh":
        recording(_in(tmp_path / side, "a.wav"), 3.0, seed=ord(side))
    for i in range(3):
        (tmp_path / "s" / f".{i} Song.m4a.icloud").write_bytes(b"bplist00")
    given_ = gather(suspects=tmp_path / "s", held_out=tmp_path / "h")
    console = Console(width=120, record=True, file=io.StringIO())
    show_check(examine(given_.tracks, MODEL, found=given_), console)
    text = console.export_text()
    assert "3 recordings not on this disk; download first" in text
    assert all(f"suspect/{i} Song.m4a" in text for i in range(3))


def _in(folder: Path, name: str) -> Path:
    folder.mkdir(exist_ok=True)
    return folder / name


def test_twins_of_works_stay_where_they_are_compared_in_pairs(tmp_path: Path) -> None:
    """Versions published by the toss of a coin: another fade, another dither, else the same to any fingerprint."""
    tracks = []
    for i in range(12):
        first = recording(tmp_path / f"released{i}.wav", 3.0, seed=i)
        samples, rate = soundfile.read(first)
        dither = np.random.default_rng(i).uniform(-0.5, 0.5, samples.shape) / 2**15
        soundfile.write(tmp_path / f"kept{i}.wav", samples + dither, rate, subtype="PCM_16")
        tracks += [
            Track(f"{name}{i}", tmp_path / f"{name}{i}.wav", role, work=f"w{i}")
            for name, role in (("released", "suspect"), ("kept", "held_out"))
        ]
    found = examine(tracks, MODEL, pairs="work")
    assert found.counts() == {"suspect": 12, "held_out": 12}
    assert len(found.straddling) == len(found.duplicates) == found.duplicates["twins"].sum() == 12
    assert enough(found)[0]
    console = Console(width=120, record=True, file=io.StringIO())
    show_check(found, console)
    assert "Versions of one work" in console.export_text()

    alone = examine(tracks, MODEL)
    assert alone.tracks == ()
    assert alone.exclusions["reason"].str.contains("with --pairs work").all()

    (tmp_path / "kept0.wav").write_bytes((tmp_path / "released0.wav").read_bytes())  # the very same file
    tracks[3] = replace(tracks[3], work="")  # a copy of work 1, of no work
    again = examine(tracks, MODEL, pairs="work")
    assert set(again.exclusions["track_id"]) == {"released0", "kept0", "released1", "kept1"}
    assert again.counts() == {"suspect": 10, "held_out": 10}


def test_scores_in_other_clothes_are_read_or_named_never_passed_over(tmp_path: Path) -> None:
    data = tiny_midi.golden_a(tmp_path / "song.KAR").read_bytes()
    for name in ("song.rmi", "called.mid"):
        wrapped = b"RMIDdata" + len(data).to_bytes(4, "little") + data
        (tmp_path / name).write_bytes(b"RIFF" + len(wrapped).to_bytes(4, "little") + wrapped)
    found = {entry.name: (entry.kind, entry.reason) for entry in folders.scan(tmp_path)}
    assert set(found.values()) == {("recording", "")}
    for name, remark in (
        ("song.KAR", ""),
        ("song.rmi", "it lies in a RIFF wrapper"),
        ("called.mid", "it lies in a RIFF"),
    ):
        ((heard, _),) = decode_pool.look(tmp_path / name, NOTES)
        assert (heard["format"], heard["notes"] > 0) == ("MIDI", True)
        assert heard["remark"].startswith(remark)
        assert bool(heard["remark"]) == bool(remark)


def test_the_walk_ends_and_stays_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording(tmp_path / "in" / "a" / "x.wav")
    recording(tmp_path / "out" / "y.wav")
    (tmp_path / "in" / "a" / "up").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "away").symlink_to(tmp_path / "out")
    found = {entry.name: entry.reason for entry in folders.scan(tmp_path / "in")}
    assert set(found) == {"a/x.wav", "away"}
    assert found["a/x.wav"] == ""
    assert "leaves the folder" in found["away"]
    monkeypatch.setattr(folders, "MAX_ENTRIES", 1)
    with pytest.raises(ManifestError, match="is this the folder you meant"):
        folders.scan(tmp_path / "in")
