"""The audio chain: one treatment for all, and every bad recording named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

from earwitness.data.audio import LEVEL_DBFS, AudioSpec, condition, cut, level_dbfs, load, prepare, segments
from earwitness.errors import AudioError
from tests.tiny import RATE, recording, tune

SPEC = AudioSpec(RATE, 1, 0.64)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff"])
def test_formats_come_out_at_one_level_and_rate(tmp_path: Path, suffix: str) -> None:
    audio = load(recording(tmp_path / f"x.{suffix}", seconds=3, rate=22_050, channels=2), SPEC)
    assert audio.shape[0] == 1
    assert audio.shape[1] == pytest.approx(3 * RATE, rel=0.02)
    assert level_dbfs(audio) == pytest.approx(LEVEL_DBFS, abs=0.01)
    assert abs(audio.mean()) < 1e-6


def test_gain_and_offset_do_not_reach_the_model(tmp_path: Path) -> None:
    plain, changed = tmp_path / "a.wav", tmp_path / "b.wav"
    sf.write(plain, tune(2), RATE, subtype="FLOAT")
    sf.write(changed, 0.1 * tune(2) + 0.05, RATE, subtype="FLOAT")
    np.testing.assert_allclose(load(plain, SPEC), load(changed, SPEC), atol=1e-5)


def test_a_pure_tone_survives_resampling_with_its_frequency_and_level(tmp_path: Path) -> None:
    rate = 44_100
    sf.write(tmp_path / "a.wav", 0.5 * np.sin(2 * np.pi * 1000 * np.arange(2 * rate) / rate), rate, subtype="FLOAT")
    audio = load(tmp_path / "a.wav", SPEC)[0]
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio))))
    assert np.argmax(spectrum) * RATE / len(audio) == pytest.approx(1000, abs=1)
    assert np.sqrt(np.mean(audio**2)) == pytest.approx(0.1, rel=1e-3)


def test_stereo_models_hear_two_channels_and_mono_ones_the_mean_or_the_first(tmp_path: Path) -> None:
    left, right = tune(2, 1), tune(2, 2)
    sf.write(tmp_path / "a.wav", np.stack([left, right], 1), RATE, subtype="FLOAT")
    two = load(tmp_path / "a.wav", AudioSpec(RATE, 2, 0.64))
    one = load(tmp_path / "a.wav", SPEC)[0]
    assert two.shape[0] == 2
    assert np.corrcoef(two[0], left)[0, 1] > 0.999
    assert np.corrcoef(one, left + right)[0, 1] > 0.999
    first = AudioSpec(RATE, 1, 0.64, first_channel=True)
    assert np.corrcoef(load(tmp_path / "a.wav", first)[0], left)[0, 1] > 0.999
    for whole, streamed in zip(prepare(tmp_path / "a.wav", first), segments(tmp_path / "a.wav", first), strict=True):
        np.testing.assert_allclose(streamed.audio, whole.audio, atol=1e-5)
    assert first.key() != SPEC.key()
    assert "first_channel" not in SPEC.key()


@pytest.mark.parametrize("seconds", [10.0, 10.1, 10.24, 11.0])
def test_zeros_fill_only_the_window_that_training_filled(seconds: float) -> None:
    plain = AudioSpec(RATE, 1, 10.24)
    filled = AudioSpec(RATE, 1, 10.24, pad_seconds=0.24)
    assert filled.key() == plain.key() | {"pad_seconds": 0.24}
    audio = condition(tune(seconds, 1)[None] + 0.2, RATE, filled)
    (segment,) = cut(audio, filled)
    heard = min(audio.shape[1], filled.segment_samples)
    start = round(segment.start_s * RATE)
    np.testing.assert_array_equal(segment.audio[:, :heard], audio[:, start : start + heard])
    assert segment.audio.shape == (1, filled.segment_samples)
    assert not segment.audio[:, heard:].any()
    if seconds >= 10.24:
        (same,) = cut(audio, plain)
        assert (same.segment_id, same.start_s) == (segment.segment_id, segment.start_s)
    else:
        with pytest.raises(AudioError, match=r"segment of 10\.24 s; nothing is padded"):
            cut(audio, plain)
    with pytest.raises(AudioError, match=r"9\.99 s is shorter .* nothing under 10\.00 s is padded"):
        cut(audio[:, : round(9.99 * RATE)], filled)


@settings(max_examples=50, deadline=None)
@given(seconds=st.floats(0.65, 9), cap=st.integers(0, 4), seed=st.integers(0, 5))
def test_cuts_are_equal_long_disjoint_and_inside(seconds: float, cap: int, seed: int) -> None:
    spec = AudioSpec(RATE, 1, 0.64, seed, cap)
    audio = tune(seconds, seed)[None]
    found = cut(audio, spec)
    starts = np.array([round(s.start_s * RATE) for s in found])
    assert all(s.audio.shape == (1, spec.segment_samples) for s in found)
    assert len(found) == min(cap or 99, audio.shape[1] // spec.segment_samples)
    assert (np.diff(starts) >= spec.segment_samples).all()
    assert starts[-1] + spec.segment_samples <= audio.shape[1]
    assert [s.segment_id for s in cut(audio, spec)] == [s.segment_id for s in found]
    np.testing.assert_array_equal(found[0].audio, audio[:, starts[0] : starts[0] + spec.segment_samples])


def test_offsets_depend_on_content_and_seed_alone(tmp_path: Path) -> None:
    first = recording(tmp_path / "a.wav", 3, seed=1)
    again = recording(tmp_path / "other" / "z.wav", 3, seed=1)
    assert [s.segment_id for s in prepare(first, SPEC)] == [s.segment_id for s in prepare(again, SPEC)]
    offsets = {prepare(recording(tmp_path / f"{i}.wav", 3, seed=i), SPEC)[0].start_s for i in range(8)}
    assert len(offsets) == 8
    assert prepare(first, AudioSpec(RATE, 1, 0.64, seed=1))[0].start_s != prepare(first, SPEC)[0].start_s


def _write(path: Path, audio: np.ndarray) -> None:
    sf.write(path, audio, RATE, subtype="FLOAT")


def test_silent_segments_are_left_out(tmp_path: Path) -> None:
    audio = tune(0.64 * 4)
    audio[round(1.0 * RATE) :] = 0
    _write(tmp_path / "a.wav", audio)
    assert 1 <= len(prepare(tmp_path / "a.wav", SPEC)) <= 2


def _truncated(path: Path) -> None:
    recording(path, 4)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _nan(path: Path) -> None:
    audio = tune(2)
    audio[100] = np.nan
    _write(path, audio)


BAD = {
    "missing.wav": (lambda path: None, "expected an audio file, found no such file"),
    "text.wav": (lambda path: path.write_text("not audio"), "not readable as audio"),
    "empty.flac": (lambda path: path.write_bytes(b""), "not readable as audio"),
    "silent.wav": (lambda path: _write(path, np.zeros(RATE)), "silent"),
    "dc.wav": (lambda path: _write(path, np.full(RATE, 0.5)), "silent"),
    "opposed.wav": (lambda path: _write(path, np.stack([tune(1), -tune(1)], 1)), "silent once mixed"),
    "nan.wav": (_nan, "sample 100 is not a finite number"),
    "short.wav": (lambda path: recording(path, 0.5), "0.50 s is shorter than the model's segment of 0.64 s"),
    "none.wav": (lambda path: _write(path, np.zeros(0)), "silent"),
    "cut.wav": (_truncated, "header promises .* bytes"),
    "cut.mp3": (_truncated, "header promises|not readable"),
    "cut.flac": (_truncated, "header promises|not readable"),
    "wide.wav": (lambda path: _write(path, np.zeros((100, 17))), "17 channels"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_recordings_are_named_with_their_mend(tmp_path: Path, name: str) -> None:
    make, message = BAD[name]
    make(tmp_path / name)
    with pytest.raises(AudioError, match=message) as caught:
        prepare(tmp_path / name, SPEC)
    assert str(caught.value).startswith(name)
    assert str(tmp_path) not in str(caught.value)
    assert "\n" not in str(caught.value)
