"""Long recordings read by window give what reading them whole would give, in a fraction of the memory."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from earwitness import audio, windows
from earwitness.audio import AudioSpec
from earwitness.errors import AudioError
from tests.tiny import recording, tune


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "WHOLE_SECONDS", 2.0)
    monkeypatch.setattr(windows, "WINDOW_SECONDS", 1.0)


def _stereo(path: Path, seconds: float, rate: int, offset: float = 0.01) -> Path:
    left = tune(seconds * rate / 16_000, seed=1)
    right = 0.5 * tune(seconds * rate / 16_000, seed=2) + offset
    sf.write(path, np.stack([left, right], axis=1), rate, subtype="FLOAT")
    return path


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000, 22_050, 8_000, 11_025])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("seconds", [2.9, 5.0, 7.013])
def testblocks_joined_are_the_whole_to_the_bit(tmp_path: Path, rate: int, channels: int, seconds: float) -> None:
    path = _stereo(tmp_path / "long.wav", seconds, rate)
    spec = AudioSpec(16_000, channels, 0.5)
    decoded = sf.read(path, dtype="float32", always_2d=True)[0].T
    mixed = audio._remix(decoded, spec)
    common = np.gcd(rate, 16_000)
    whole = mixed if rate == 16_000 else audio.resample_poly(mixed, 16_000 // common, rate // common, axis=1)
    np.testing.assert_array_equal(np.concatenate(list(windows.blocks(path, spec)), axis=1), whole)


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3"])
def test_segments_are_those_of_the_whole_at_the_same_places(tmp_path: Path, kind: str) -> None:
    path = recording(tmp_path / f"long.{kind}", 9.3, rate=44_100, channels=2)
    spec = AudioSpec(16_000, 1, 0.7, seed=3)
    found = list(windows.segments(path, spec))
    whole = audio.load(path, spec)
    assert len(found) == 13
    for segment in found:
        start = round(segment.start_s * spec.sample_rate)
        np.testing.assert_allclose(segment.audio, whole[:, start : start + spec.segment_samples], atol=1e-6)
        assert segment.audio.dtype == np.float32
    starts = np.array([segment.start_s for segment in found])
    np.testing.assert_allclose(np.diff(starts), 0.7)
    assert len({segment.segment_id for segment in found}) == 13


def test_a_recording_is_cut_alike_every_time_and_by_its_content(tmp_path: Path) -> None:
    path = _stereo(tmp_path / "a.wav", 6, 16_000)
    spec = AudioSpec(16_000, 1, 0.5)
    first, second = (
        [(s.segment_id, s.start_s) for s in windows.segments(p, spec)]
        for p in (path, Path(shutil.copy(path, tmp_path / "b.wav")))
    )
    assert first == second
    other = windows.segments(_stereo(tmp_path / "c.wav", 6, 16_000, offset=0.02), spec)
    assert {s.segment_id for s in other}.isdisjoint(name for name, _ in first)
    few = list(windows.segments(path, AudioSpec(16_000, 1, 0.5, max_segments=3)))
    assert len(few) == 3
    assert few == sorted(few, key=lambda s: s.start_s)


def test_short_recordings_are_prepared_as_ever(tmp_path: Path) -> None:
    path = recording(tmp_path / "short.flac", 1.9)
    spec = AudioSpec(16_000, 1, 0.5)
    for a, b in zip(windows.segments(path, spec), audio.prepare(path, spec), strict=True):
        assert (a.segment_id, a.start_s) == (b.segment_id, b.start_s)
        np.testing.assert_array_equal(a.audio, b.audio)


def test_long_recordings_are_refused_for_the_same_reasons(tmp_path: Path) -> None:
    spec = AudioSpec(16_000, 1, 0.5)
    cases = {
        "silent": np.zeros(16_000 * 4, np.float32),
        "sample 50000 is not a finite": np.where(np.arange(16_000 * 4) == 50_000, np.nan, tune(4)).astype(np.float32),
    }
    for reason, samples in cases.items():
        path = tmp_path / f"{reason[:6]}.wav"
        sf.write(path, samples, 16_000, subtype="FLOAT")
        with pytest.raises(AudioError, match=f"{path.name}: .*{reason}"):
            list(windows.segments(path, spec))
    path = recording(tmp_path / "cut.wav", 6)
    path.write_bytes(path.read_bytes()[:-50_000])
    with pytest.raises(AudioError, match=r"cut.wav: header promises .*cut short"):
        list(windows.segments(path, spec))
    path = recording(tmp_path / "other.flac", 3)
    with pytest.raises(AudioError, match="other.flac: 3.00 s is shorter than the model's segment of 5.00 s"):
        list(windows.segments(path, AudioSpec(16_000, 1, 5.0)))


def test_silent_stretches_drop_out(tmp_path: Path) -> None:
    samples = np.concatenate([tune(2), np.zeros(16_000 * 2, np.float32), tune(2)])
    sf.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    found = list(windows.segments(tmp_path / "a.wav", AudioSpec(16_000, 1, 0.5)))
    assert 7 <= len(found) <= 9


@pytest.mark.slow
def test_an_hour_takes_no_more_memory_than_ten_minutes(tmp_path: Path) -> None:
    code = (
        "import sys, resource\nfrom pathlib import Path\nfrom earwitness.audio import AudioSpec\n"
        "from earwitness.windows import segments\n"
        "n = sum(1 for _ in segments(Path(sys.argv[1]), AudioSpec(16000, 1, 30.0)))\n"
        "print(n, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks = []
    for minutes in (11, 60):
        path = tmp_path / f"{minutes}.flac"
        with sf.SoundFile(path, "w", 16_000, 1) as file:
            for part in range(minutes):
                file.write(tune(60, seed=part))
        run = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
        count, peak = map(int, run.stdout.split())
        assert count == 2 * minutes - (count % 2)
        peaks.append(peak)
    assert peaks[1] <= 1.05 * peaks[0]
