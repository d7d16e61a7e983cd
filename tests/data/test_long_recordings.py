"""Long recordings read by window give what reading them whole would give, in a fraction of the memory."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy
import soundfile as sf

from earwitness.data import audio, containers, decode_pool
from earwitness.data.audio import AudioSpec
from earwitness.errors import AudioError
from tests.tiny import container, recording, tune


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "WHOLE_SECONDS", 2.0)
    monkeypatch.setattr(audio, "WINDOW_SECONDS", 1.0)


def _stereo(path: Path, seconds: float, rate: int, offset: float = 0.01) -> Path:
    left = tune(seconds * rate / 16_000, seed=1)
    right = 0.5 * tune(seconds * rate / 16_000, seed=2) + offset
    sf.write(path, np.stack([left, right], axis=1), rate, subtype="FLOAT")
    return path


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000, 22_050, 8_000, 11_025])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("seconds", [2.9, 5.0, 7.013])
def test_blocks_joined_are_the_whole_to_the_bit(tmp_path: Path, rate: int, channels: int, seconds: float) -> None:
    path = _stereo(tmp_path / "long.wav", seconds, rate)
    spec = AudioSpec(16_000, channels, 0.5)
    decoded = sf.read(path, dtype="float32", always_2d=True)[0].T
    mixed = audio._remix(decoded, spec)
    common = np.gcd(rate, 16_000)
    whole = mixed if rate == 16_000 else scipy.signal.resample_poly(mixed, 16_000 // common, rate // common, axis=1)
    np.testing.assert_array_equal(np.concatenate(list(audio.blocks(path, spec)), axis=1), whole)


def _coded(path: Path, seconds: float, channels: int, codec: str = "aac", rate: int = 44_100) -> Path:
    """Write M4A, or bare AAC where the name says so."""
    sound = np.stack([tune(seconds * rate / 16_000, seed=seed) for seed in range(channels)])
    return container(path, sound, codec=codec, layout="adts" if path.suffix == ".aac" else None, rate=rate)


def _look(path: Path, spec: AudioSpec) -> dict[str, Any]:
    ((found, arrays),) = decode_pool.look(path, spec)
    return found | arrays


@pytest.mark.parametrize("codec", ["aac", "alac"])
@pytest.mark.parametrize("channels", [1, 2])
def test_containers_read_bit_by_bit_are_the_whole_to_the_bit(tmp_path: Path, codec: str, channels: int) -> None:
    path = _coded(tmp_path / "a.m4a", 5.3, channels, codec)
    whole, rate = audio.decode(path)
    assert (len(whole), rate) == (channels, 44_100)
    for sizes in ([1000, 1, 1024, 70_000], [10**6]):
        with containers.opened(path) as sound:
            pieces = [sound.read(sizes[0])]
            while pieces[-1].shape[1] == sizes[(len(pieces) - 1) % len(sizes)]:
                assert sound.decoded == sum(piece.shape[1] for piece in pieces)
                pieces.append(sound.read(sizes[len(pieces) % len(sizes)]))
        np.testing.assert_array_equal(np.concatenate(pieces, axis=1), whole)
    for spec in (AudioSpec(44_100, channels, 0.5), AudioSpec(16_000, 1, 0.5)):
        mixed = audio._remix(whole, spec)
        if spec.sample_rate != rate:
            mixed = scipy.signal.resample_poly(mixed, 160, 441, axis=1)
        np.testing.assert_array_equal(np.concatenate(list(audio.blocks(path, spec)), axis=1), mixed)


def test_limits_hold_while_a_container_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bare AAC has no header that could promise a length."""
    path = _coded(tmp_path / "a.aac", 5.0, 1)
    with containers.opened(path) as sound:
        monkeypatch.setattr(containers, "MAX_SECONDS", 3.0)
        assert sound.info.duration_s == pytest.approx(5.0, abs=0.1)  # of its frames
        assert sound.read(2 * sound.rate).shape[1] == 2 * sound.rate
        with pytest.raises(AudioError, match=r"a\.aac: longer than 0 h; split it"):
            sound.read()
        assert sound.decoded == 2 * sound.rate


@pytest.mark.parametrize("seconds", [5.0, 60.0])
def test_bare_aac_is_as_long_as_it_decodes_to(tmp_path: Path, seconds: float) -> None:
    """FFmpeg's estimate from the bit rate was taken for a promise, and sound files for cut ones."""
    path = _coded(tmp_path / "a.aac", seconds, 2)
    whole, rate = audio.decode(path)
    ((values, _),) = decode_pool.look(path, AudioSpec(16_000, 1, 0.5))
    assert values["duration_s"] == whole.shape[1] / rate
    assert whole.shape[1] / rate == pytest.approx(seconds, abs=0.1)


@pytest.mark.parametrize("kind", ["wav", "mp3", "m4a", "aac"])
def test_a_long_recording_is_never_decoded_whole(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"a.{kind}"
    recording(path, 9.3, rate=44_100, channels=2) if kind in "wav mp3" else _coded(path, 9.3, 2)
    spec = AudioSpec(16_000, 1, 0.7)
    monkeypatch.setattr(audio, "WHOLE_SECONDS", 600.0)
    whole = _look(path, spec)
    monkeypatch.setattr(audio, "WHOLE_SECONDS", 2.0)
    sizes, read = [], containers.Sound.read
    monkeypatch.setattr(containers.Sound, "read", lambda *a: sizes.append((block := read(*a)).shape[1]) or block)
    kept, keep = [], audio.Gathered._take
    monkeypatch.setattr(audio.Gathered, "_take", lambda self, found: keep(self, found) or kept.append(len(self._kept)))
    assert len(list(audio.segments(path, spec))) == 13
    assert max(sizes) == 44_100  # a window of WINDOW_SECONDS
    assert max(kept) <= 2  # windows
    long = _look(path, spec)
    assert (long["reason"], long["segments"], long["words"].tolist()) == ("", 13, whole["words"].tolist())
    assert (long["level_dbfs"], long["bandwidth_hz"]) == (whole["level_dbfs"], whole["bandwidth_hz"])


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3", "m4a", "aac"])
def test_segments_are_those_of_the_whole_at_the_same_places(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"long.{kind}"
    _coded(path, 9.3, 2) if containers.handles(path) else recording(path, 9.3, rate=44_100, channels=2)
    spec = AudioSpec(16_000, 1, 0.7, seed=3)
    found = list(audio.segments(path, spec))
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
        [(s.segment_id, s.start_s) for s in audio.segments(p, spec)]
        for p in (path, Path(shutil.copy(path, tmp_path / "b.wav")))
    )
    assert first == second
    other = audio.segments(_stereo(tmp_path / "c.wav", 6, 16_000, offset=0.02), spec)
    assert {s.segment_id for s in other}.isdisjoint(name for name, _ in first)
    few = list(audio.segments(path, AudioSpec(16_000, 1, 0.5, max_segments=3)))
    assert len(few) == 3
    assert few == sorted(few, key=lambda s: s.start_s)


def test_short_recordings_are_prepared_as_ever(tmp_path: Path) -> None:
    path = recording(tmp_path / "short.flac", 1.9)
    spec = AudioSpec(16_000, 1, 0.5)
    for a, b in zip(audio.segments(path, spec), audio.prepare(path, spec), strict=True):
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
            list(audio.segments(path, spec))
    path = recording(tmp_path / "cut.wav", 6)
    path.write_bytes(path.read_bytes()[:-50_000])
    with pytest.raises(AudioError, match=r"cut.wav: header promises .*cut short"):
        list(audio.segments(path, spec))
    path = recording(tmp_path / "other.flac", 3)
    with pytest.raises(AudioError, match="other.flac: 3.00 s is shorter than the model's segment of 5.00 s"):
        list(audio.segments(path, AudioSpec(16_000, 1, 5.0)))


@pytest.mark.parametrize(("channels", "rate"), [(20, 8_000), (1, 400_000)])
@pytest.mark.parametrize("seconds", [1.0, 3.0])
def test_channels_and_rates_are_limited_in_long_recordings_too(
    tmp_path: Path, channels: int, rate: int, seconds: float
) -> None:
    path, spec = tmp_path / "a.wav", AudioSpec(16_000, 1, 0.5)
    sf.write(path, np.tile(tune(seconds * rate / 16_000)[:, None], channels), rate)
    reason = f"{channels} channels at {rate} Hz is beyond the limits"
    with pytest.raises(AudioError, match=f"a.wav: {reason}"):
        list(audio.segments(path, spec))
    assert _look(path, spec)["reason"].startswith(reason)


@pytest.mark.parametrize("kind", ["wav", "m4a", "aac"])
def test_what_is_too_long_is_refused_before_it_is_decoded(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, spec = tmp_path / f"a.{kind}", AudioSpec(16_000, 1, 0.5)
    _coded(path, 5.0, 1) if containers.handles(path) else recording(path, 5.0)
    monkeypatch.setattr(containers, "MAX_SECONDS", 4.0)
    for reader in (containers.Reader, sf.SoundFile):
        monkeypatch.setattr(reader, "read", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(AudioError, match=rf"a\.{kind}: longer than 0 h; split it"):
        list(audio.segments(path, spec))
    assert _look(path, spec)["reason"].startswith("longer than")


def test_silent_stretches_drop_out(tmp_path: Path) -> None:
    samples = np.concatenate([tune(2), np.zeros(16_000 * 2, np.float32), tune(2)])
    sf.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    found = list(audio.segments(tmp_path / "a.wav", AudioSpec(16_000, 1, 0.5)))
    assert 7 <= len(found) <= 9


@pytest.mark.slow
def test_an_hour_takes_no_more_memory_than_ten_minutes(tmp_path: Path) -> None:
    code = (
        "import sys, resource\nfrom pathlib import Path\nfrom earwitness.data.audio import AudioSpec\n"
        "from earwitness.data.audio import segments\n"
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
