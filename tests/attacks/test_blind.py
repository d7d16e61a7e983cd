"""Blind features: closed forms on known sounds, and blind attacks in the registry."""

import math
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

import earwitness as ew
from earwitness import attacks
from earwitness.data.audio import AudioSpec
from earwitness.errors import AudioError
from earwitness.signals import blind
from earwitness.signals.blind import (
    AUDIO_FEATURES,
    BUCKET_FEATURES,
    CAPTION_FEATURES,
    FEATURES,
    FILE_FEATURES,
    BlindSignals,
)
from earwitness.types import FileInfo, Segment
from tests.inference_tables import score_table

RATE = 16_000


def tone(frequency=440.0, amplitude=0.5, seconds=2.6, rate=RATE):
    return (amplitude * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def noise(amplitude=0.1, seconds=2.6, seed=0):
    return (amplitude * np.random.default_rng(seed).standard_normal(int(seconds * RATE))).astype(np.float32)


def features(audio, rate=RATE):
    segment, spec = Segment("", 0.0, np.atleast_2d(audio)), AudioSpec(rate, 1, 1.0)
    values = blind._values(segment, spec, Path(__file__), FileInfo("WAV", "PCM_16", rate, 1, 1.0))
    return dict(zip(AUDIO_FEATURES, values.tolist(), strict=False))


def described(path, caption):
    return blind.of_segment(Segment("", 0.0, tone()[None]), AudioSpec(RATE, 1, 2.6), path, caption)


def test_levels_of_a_sine():
    found = features(tone(amplitude=0.5))
    assert found["level"] == pytest.approx(20 * math.log10(0.5 / math.sqrt(2)), abs=0.01)
    assert found["peak"] == pytest.approx(20 * math.log10(0.5), abs=0.01)
    assert found["crest"] == pytest.approx(20 * math.log10(math.sqrt(2)), abs=0.01)
    assert found["silence"] == 0


@pytest.mark.parametrize("frequency", [300.0, 1000.0, 5000.0])
def test_spectrum_of_a_sine(frequency):
    found = features(tone(frequency))
    assert found["centroid"] == pytest.approx(frequency, abs=8)
    assert found["rolloff"] == pytest.approx(frequency, abs=32)
    assert found["bandwidth"] == pytest.approx(frequency, abs=100)
    assert found["zero_crossings"] == pytest.approx(2 * frequency, rel=0.01)
    assert found["flatness"] < 0.01
    assert found["flux"] < 0.01


def test_spectrum_of_noise():
    found = features(noise())
    assert found["centroid"] == pytest.approx(RATE / 4, rel=0.03)
    assert found["rolloff"] == pytest.approx(0.85 * RATE / 2, rel=0.03)
    assert found["flatness"] > 0.9
    assert found["flux"] > 0.2
    assert features(noise())["flac_rate"] > 2 * features(tone())["flac_rate"]


def test_bandwidth_sees_a_low_pass():
    spectrum = np.fft.rfft(noise())
    spectrum[np.fft.rfftfreq(len(noise()), 1 / RATE) > 5000] = 0
    assert features(np.fft.irfft(spectrum).astype(np.float32))["bandwidth"] == pytest.approx(5000, abs=100)


@pytest.mark.parametrize(("note", "frequency"), [("a", 440.0), ("c", 261.626), ("fs", 1479.98), ("gs", 207.652)])
def test_chroma_of_a_note(note, frequency):
    found = features(tone(frequency))
    assert found[f"chroma_{note}"] > 0.95
    assert sum(found[f"chroma_{name}"] for name in blind.PITCH_CLASSES) == pytest.approx(1)


def test_mel_and_mfcc_agree_with_librosa():
    librosa = pytest.importorskip("librosa")
    reference = librosa.filters.mel(sr=RATE, n_fft=blind.WINDOW, n_mels=blind.MEL_BANDS, htk=True, norm=None)
    assert blind._mel_map(RATE) == pytest.approx(reference.T, abs=1e-5)
    power = blind._power(noise(), blind.WINDOW)
    expected = librosa.feature.mfcc(
        S=np.log(power @ blind._mel_map(RATE) + blind.TINY).T, n_mfcc=blind.MFCCS, dct_type=2, norm="ortho"
    ).mean(axis=1)
    found = features(noise())
    assert [found[f"mfcc_{i:02d}"] for i in range(blind.MFCCS)] == pytest.approx(expected, abs=1e-3)


def test_silence_share_and_digital_silence():
    half = tone()
    half[len(half) // 2 :] = 0
    assert features(half)["silence"] == pytest.approx(0.5, abs=0.03)
    nothing = features(np.zeros(RATE, np.float32))
    assert nothing["level"] == -200
    assert nothing["silence"] == 1
    assert math.isnan(nothing["centroid"])
    assert math.isnan(nothing["chroma_a"])


def test_channels_are_averaged_and_short_audio_is_described():
    stereo = np.stack([tone(), np.zeros_like(tone())])
    assert features(stereo)["level"] == pytest.approx(features(tone(amplitude=0.25))["level"])
    assert set(features(tone(seconds=0.01))) == set(AUDIO_FEATURES)


def test_gain_moves_the_level_and_nothing_spectral():
    soft, loud = features(noise(0.05)), features(noise(0.1))
    assert loud["level"] - soft["level"] == pytest.approx(6.02, abs=0.01)
    for name in ("centroid", "spread", "rolloff", "bandwidth", "flatness", "zero_crossings", "chroma_c", "mfcc_03"):
        assert loud[name] == pytest.approx(soft[name], rel=1e-3), name


@pytest.mark.parametrize(
    ("name", "format_"), [("a.wav", "wav"), ("a.flac", "flac"), ("a.ogg", "ogg"), ("a.mp3", "mp3"), ("a.aiff", "aiff")]
)
def test_file_features(tmp_path, name, format_):
    sf.write(tmp_path / name, np.stack([tone(rate=22_050)] * 2, axis=1), 22_050)
    found = described(tmp_path / name, "slow sad piano").features
    assert set(found) == set(FEATURES)
    assert found["duration"] == pytest.approx(2.6, abs=0.1)
    assert found["source_sample_rate"] == 22_050
    assert found["source_channels"] == 2
    assert found["file_rate"] == pytest.approx((tmp_path / name).stat().st_size / found["duration"])
    assert [f for f in blind.FORMATS if found[f"format_{f.lower()}"]] == [format_.upper()]
    assert (found["caption_words"], found["caption_characters"]) == (3, 14)


def test_words_are_a_bag_without_case_or_punctuation():
    found = blind.caption_features("Slow, sad slow piano.")
    assert list(found) == list(CAPTION_FEATURES)
    expected = dict.fromkeys(BUCKET_FEATURES, 0.0)
    for word in ("slow", "sad", "slow", "piano"):
        expected[f"caption_bucket_{zlib.crc32(word.encode()) % 16:02d}"] += 1 / 4
    assert {name: found[name] for name in BUCKET_FEATURES} == expected
    again = blind.caption_features("piano sad SLOW slow")
    assert {name: again[name] for name in BUCKET_FEATURES} == expected
    assert set(blind.caption_features("").values()) == {0.0}


def test_the_bucket_of_a_word_is_the_same_on_every_machine():
    found = blind.caption_features("piano")
    assert [name for name in BUCKET_FEATURES if found[name]] == ["caption_bucket_12"]


@pytest.mark.parametrize("same", [False, True])
def test_captions_of_equal_length_with_other_words_close_the_gate(same):
    words = [("calm", "warm", "soft"), ("loud", "cold", "hard")]  # as many words and characters on either side
    table = score_table(40, 40, shift=1.5, segments=3)
    rng = np.random.default_rng(0)
    captions = {
        track: " ".join(rng.permutation(words[0 if same or role == "suspect" else 1]))
        for track, role in table.drop_duplicates("track_id").set_index("track_id")["role"].items()
    }
    rows = table[table["attack"] == "x0"].reset_index(drop=True)
    told = pd.DataFrame([blind.caption_features(captions[track]) for track in rows["track_id"]])
    assert {*zip(told["caption_words"], told["caption_characters"], strict=True)} == {(3, 14)}
    columns = [rows.assign(attack=f"blind/{name}", score=told[name]) for name in CAPTION_FEATURES]
    result = ew.infer(pd.concat([table, *columns]), features="x*", n_permutations=999)
    gate = result.blind
    assert result.verdict == ("evidence" if same else "not testable"), result.reasons
    assert any("caption_bucket" in name for name in gate.features) == (not same)
    assert not {"blind/caption_words", "blind/caption_characters"} & set(gate.features)
    assert gate.p_value <= 0.01 or same


def test_a_file_that_is_no_audio_is_named(tmp_path):
    (tmp_path / "notes.wav").write_text("no audio")
    with pytest.raises(AudioError, match=r"notes\.wav: not readable as audio"):
        described(tmp_path / "notes.wav", "")


def test_arrays_round_trip_and_absent_features_are_nan():
    signals = BlindSignals(features(tone()))
    again = BlindSignals.from_arrays(signals.to_arrays())
    assert {name: again.features[name] for name in AUDIO_FEATURES} == signals.features
    assert all(math.isnan(again.features[name]) for name in FILE_FEATURES + CAPTION_FEATURES)


def test_every_feature_is_a_blind_attack():
    specs = attacks.resolve("blind")
    assert [s.id for s in specs] == [f"blind/{name}" for name in FEATURES]
    signals = BlindSignals(features(tone()))
    for spec in specs:
        expected = signals.features.get(spec.stream, math.nan)
        assert attacks.bind(spec, {})(signals) == pytest.approx(expected, nan_ok=True)
    assert math.isnan(attacks.bind(attacks.resolve("blind/level")[0], {})(BlindSignals({})))
    assert [s.id for s in attacks.resolve("blind/chroma_*")] == [f"blind/chroma_{n}" for n in blind.PITCH_CLASSES]
