"""Every recording whole, or left out with a true reason: containers, codecs, defects against FFmpeg's full decode."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile as sf

from earwitness.data import containers, decode_pool
from earwitness.data.audio import AudioSpec, decode, probe
from earwitness.data.containers import Reader, content_hash, opened, structure
from earwitness.errors import AudioError
from tests import odd_audio as odd
from tests.odd_audio import RATE, SECONDS, coded, sound, written

HEARD = AudioSpec(16_000, 1, 0.5)
MP3 = {"cbr": {"bitrate_mode": "CONSTANT", "compression_level": 0.5},
       "vbr": {"bitrate_mode": "VARIABLE", "compression_level": 0.5}}  # fmt: skip
ALL, HALF = (1 << 32) - 1, 1 << 31


def ffmpeg(path: Path) -> np.ndarray:
    """Return what FFmpeg makes of a file from its first frame to its last, ``[C, samples]``."""
    with av.open(str(path)) as file:
        stream = file.streams.audio[0]
        resampler = av.AudioResampler(format="fltp", rate=stream.codec_context.sample_rate)
        pieces = [p.to_ndarray() for frame in file.decode(stream) for p in resampler.resample(frame)]
    return np.concatenate(pieces, axis=1)


@cache
def _flac(bits: int) -> Callable[[Path], Path]:
    return lambda path: written(path, sound(), subtype=f"PCM_{bits}")


@cache
def _ogg(codec: str, rate: int) -> Callable[[Path], Path]:
    return lambda path: written(path, sound(rate=rate), rate, format="OGG", subtype=codec)


@cache
def _mp3(kind: str, rate: int = RATE) -> Callable[[Path], Path]:
    return lambda path: written(path, sound(rate=rate), rate, format="MP3", **MP3[kind])


@cache
def _wav(subtype: str) -> Callable[[Path], Path]:
    return lambda path: written(path, sound(), subtype=subtype)


@cache
def _as(codec: str, layout: str | None = None, rate: int = RATE) -> Callable[[Path], Path]:
    return lambda path: coded(path, codec, layout=layout, rate=rate)


def _late(path: Path) -> Path:
    return written(path, np.concatenate([np.zeros((2 * RATE, 2)), sound(seconds=SECONDS - 2)]), subtype="PCM_16")


_made: dict[tuple[str, Callable[[Path], Path]], bytes] = {}


def _odd(folder: Path, suffix: str, make: Callable[[Path], Path], change: odd.Odd) -> Path:
    """Make a recording, once, and what is odd about it."""
    path = folder / f"x.{suffix}"
    if (suffix, make) not in _made:
        _made[suffix, make] = make(path).read_bytes()
    path.write_bytes(change(_made[suffix, make]))
    return path


def _same(raw: bytes) -> bytes:
    return raw


# name: (suffix, how it is made, what is odd about it, seconds that are there, remark)
USED: dict[str, tuple[str, Callable[[Path], Path], odd.Odd, float, str]] = {
    **{f"wav {kind}": ("wav", _wav(kind), _same, SECONDS, "")
       for kind in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW")},
    **{f"flac of {bits} bits": ("flac", _flac(bits), _same, SECONDS, "") for bits in (16, 24)},
    "aiff": ("aiff", lambda path: written(path, sound()), _same, SECONDS, ""),
    "wav of a pipe": ("wav", _wav("PCM_16"), odd.sizes(ALL, ALL), SECONDS, "never completed"),
    "wav of another pipe": ("wav", _wav("PCM_24"), odd.sizes(0x7FFFF024, 0x7FFFF000), SECONDS, "never completed"),
    "wav of a third": ("wav", _wav("PCM_16"), odd.sizes(HALF + 36, HALF), SECONDS, "never completed"),
    "wav of a signed one": ("wav", _wav("FLOAT"), odd.sizes(HALF - 1, HALF - 37), SECONDS, "never completed"),
    "wav never closed": ("wav", _wav("PCM_16"), odd.sizes(0, 0), SECONDS, "never completed"),
    "wav of 24 bits never closed": ("wav", _wav("PCM_24"), odd.sizes(0, 0), SECONDS, "never completed"),
    "wav never closed that begins with silence": ("wav", lambda path: _late(path), odd.sizes(0, 0), SECONDS, "never"),
    "wav without its own size": ("wav", _wav("PCM_16"), odd.sizes(0, None), SECONDS, ""),
    "wav with a pad byte": ("wav", _wav("PCM_16"), odd.more(1, 1), SECONDS, "counts 1 byte more"),
    "wav counting its header": ("wav", _wav("PCM_16"), odd.more(8, 0), SECONDS, "counts 8 bytes more"),
    "wav with a tag": ("wav", _wav("PCM_16"), odd.followed_by(b"ID3\x04" + bytes(999)), SECONDS, ""),
    "wav with zeros": ("wav", _wav("PCM_16"), odd.followed_by(bytes(9999)), SECONDS, ""),
    "aiff of a pipe": (
        "aiff", lambda path: written(path, sound()), odd.sizes(ALL, ALL, b"SSND", ">"), SECONDS, "never completed",
    ),
    **{f"flac of {bits} bits and no length": ("flac", _flac(bits), odd.flac_total(lambda n: 0), SECONDS, "does not say")
       for bits in (16, 24)},
    "flac that promises half": ("flac", _flac(16), odd.flac_total(lambda n: n // 2), SECONDS, "88200 samples (2.00 s)"),
    "flac that promises one less": ("flac", _flac(16), odd.flac_total(lambda n: n - 1), SECONDS, "176399 samples"),
    "flac with a cover": ("flac", _flac(16), odd.with_picture, SECONDS, ""),
    "flac with a tag": ("flac", _flac(16), odd.followed_by(b"TAG" + bytes(125)), SECONDS, ""),
    "flac twice": ("flac", _flac(16), odd.twice, 2 * SECONDS, "352800 (8.00 s) decode and are used"),
    **{f"mp3 {kind} at {rate}": ("mp3", _mp3(kind, rate), _same, SECONDS, "")
       for kind in MP3 for rate in (RATE, 48_000, 22_050, 8_000)},
    **{f"mp3 {kind} at {rate} without xing": ("mp3", _mp3(kind, rate), odd.without_xing, SECONDS, "")
       for kind in MP3 for rate in (RATE, 48_000, 22_050, 8_000)},
    **{f"mp3 {kind} without xing and with a cover": (
        "mp3", _mp3(kind), lambda raw: odd.with_picture(odd.without_xing(raw)), SECONDS, "") for kind in MP3},
    **{f"mp3 {kind} whose xing counts {share}": ("mp3", _mp3(kind), odd.xing_counts(share), SECONDS, remark)
       for kind in MP3
       for share, remark in ((0.5, "are used"), (2.0, "are used"), (0.0, ""))},
    "mp3 with another tag": ("mp3", _mp3("cbr"), odd.followed_by(b"APETAGEX" + bytes(5000)), SECONDS, ""),
    "mp3 without xing, with another tag": (
        "mp3", _mp3("cbr"), lambda raw: odd.without_xing(raw) + b"APETAGEX" + bytes(5000), SECONDS, ""),
    "mp3 after zeros": ("mp3", _mp3("cbr"), lambda raw: bytes(5000) + raw, SECONDS, ""),
    "mp3 twice": ("mp3", _mp3("vbr"), odd.twice, 2 * SECONDS, "are used"),
    "mp3 without xing twice": ("mp3", _mp3("vbr"), lambda raw: odd.twice(odd.without_xing(raw)), 2 * SECONDS, ""),
    "vorbis": ("ogg", _ogg("VORBIS", RATE), _same, SECONDS, ""),
    "opus": ("opus", _ogg("OPUS", 48_000), _same, SECONDS, ""),
    "opus named ogg": ("ogg", _ogg("OPUS", 48_000), _same, SECONDS, ""),
    "vorbis chained": ("ogg", _ogg("VORBIS", RATE), odd.twice, 2 * SECONDS, "2 recordings follow one another"),
    "opus chained": ("opus", _ogg("OPUS", 48_000), odd.twice, 2 * SECONDS, "2 recordings follow one another"),
    "vorbis with zeros": ("ogg", _ogg("VORBIS", RATE), odd.followed_by(bytes(3000)), SECONDS, ""),
    "flac named wav": ("wav", lambda path: written(path, sound(), format="FLAC"), _same, SECONDS, "a FLAC named .wav"),
    "wav named mp3": ("mp3", lambda path: written(path, sound(), format="WAV", subtype="PCM_16"), _same, SECONDS,
                      "a WAV named .mp3"),
    **{f"{codec} in m4a": ("m4a", _as(codec, "mp4"), _same, SECONDS, "") for codec in ("aac", "alac")},
    "aac": ("aac", _as("aac", "adts"), _same, SECONDS, ""),
    "aac with a tag": ("aac", _as("aac", "adts"), odd.with_picture, SECONDS, ""),
}  # fmt: skip
LOSSLESS = {"wav", "flac", "aiff"}


@pytest.mark.parametrize("name", USED)
def test_a_recording_is_used_whole(name: str, tmp_path: Path) -> None:
    suffix, make, change, seconds, remark = USED[name]
    path = _odd(tmp_path, suffix, make, change)
    with opened(path) as file:
        heard = file.read()
        said, info = file.remark, file.whole_info()
    wanted = ffmpeg(path) if name != "mp3 after zeros" else heard
    assert (remark in said, bool(said)) == (True, bool(remark)), said
    assert info.duration_s == pytest.approx(seconds, abs=2 * 2304 / info.sample_rate)
    assert heard.shape == (2, heard.shape[1])
    if suffix in LOSSLESS or name.startswith(("wav", "flac")):
        np.testing.assert_array_equal(heard, wanted)
    else:
        frame = 1152 if suffix == "mp3" else 1024
        assert abs(heard.shape[1] - wanted.shape[1]) <= frame
        both = min(heard.shape[1], wanted.shape[1])
        np.testing.assert_allclose(heard[:, :both], wanted[:, :both], atol=1e-3)
    again, rate = decode(path)
    np.testing.assert_array_equal(again, heard)
    assert (rate, info.format != "") == (info.sample_rate, True)
    assert probe(path).duration_s == pytest.approx(info.duration_s, abs=0.5)


@cache
def _bytes(content: bytes) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        path.write_bytes(content)
        return path

    return make


def _theora(path: Path) -> Path:
    page = b"OggS\0\2" + bytes(8) + b"\1\0\0\0" + bytes(8) + b"\1\x2a" + b"\x80theora" + bytes(35)
    return _bytes(page)(path)


def _protected(path: Path) -> Path:
    return _bytes(coded(path, "aac", layout="mp4").read_bytes().replace(b"mp4a", b"drms"))(path)


def _dts(samples: np.ndarray) -> np.ndarray:
    """Return sound in which a DTS stream's mark stands every two thousand bytes."""
    raw = bytearray((samples * 32767).astype("<i2").tobytes())
    for at in range(0, len(raw) - 4, 2048):
        raw[at : at + 4] = b"\xfe\x7f\x01\x80"
    return np.frombuffer(bytes(raw), "<i2").reshape(-1, 2)


MENDED = "export it again as WAV or FLAC"
# name: (suffix, how it is made, what is odd about it, the reason)
LEFT_OUT: dict[str, tuple[str, Callable[[Path], Path], odd.Odd, str]] = {
    "wav cut": ("wav", _wav("PCM_16"), odd.cut(0.8), r"header promises \d+ bytes, \d+ arrived; the file is cut short"),
    "aiff cut": ("aiff", lambda path: written(path, sound()), odd.cut(0.8), r"header promises \d+ bytes, \d+ arrived"),
    "wav that promises half": (
        "wav", _wav("PCM_16"), odd.sizes(None, int(RATE * 2 * SECONDS)), r"352800 bytes of sound, 352800 more follow"),
    "wav twice": ("wav", _wav("PCM_16"), odd.twice, r"header promises \d+ bytes of sound, \d+ more follow"),
    "flac cut": ("flac", _flac(16), odd.cut(0.8), r"176400 samples \(4\.00 s\), \d+ \(3\.\d+ s\) are there"),
    "flac that promises more": ("flac", _flac(16), odd.flac_total(lambda n: n + 1), r"176401 samples .* 176400 .*re"),
    "flac blanked": ("flac", _flac(16), odd.blanked, r"are there; the file is cut short, or damaged|not readable"),
    "flac of no length blanked": (
        "flac", _flac(16), lambda raw: odd.blanked(odd.flac_total(lambda n: 0)(raw)), r"are missing in its middle"),
    "mp3 cut": ("mp3", _mp3("vbr"), odd.cut(0.8), r"header promises 4\.0\d s, 3\.\d\d s are there; the file is cut"),
    "mp3 that promises more": (
        "mp3", _mp3("vbr"), odd.xing_counts(1.5, size=False), r"header promises 6\.\d\d s, 4\.0\d s are there"),
    "mp3 blanked": ("mp3", _mp3("cbr"), odd.blanked, r"header promises 4\.0\d s, 3\.\d\d s are there|not readable"),
    **{f"{codec} cut": (suffix, _ogg(codec, rate), odd.cut(0.8), r"\d s are there, without a last page; .* short")
       for codec, suffix, rate in (("VORBIS", "ogg", RATE), ("OPUS", "opus", 48_000))},
    "vorbis without its last page": ("ogg", _ogg("VORBIS", RATE), odd.without_last_page, r"without a last page"),
    "vorbis without a page": ("ogg", _ogg("VORBIS", RATE), odd.without_a_page, r"1 pages are missing in its middle"),
    "vorbis cut and joined": (
        "ogg", _ogg("VORBIS", RATE), lambda raw: odd.without_last_page(raw) + raw, r"a part of it has no last page"),
    "theora": ("ogg", _theora, _same, r"a video \(Theora\) in Ogg is not read; export its sound"),
    "gsm": ("wav", lambda path: written(path, sound(channels=1, rate=8000), 8000, subtype="GSM610"), _same,
            r"GSM 6\.10 in WAV is not read; export as PCM"),
    "mp3 in wav": ("wav", _bytes(odd.wav(0x55, bytes(9999))), _same, r"MP3 in WAV is not read; export as PCM"),
    "dts tagged as such": ("wav", _bytes(odd.wav(0x2001, bytes(9999))), _same, r"DTS in WAV is not read"),
    "dts in wav": ("wav", lambda path: written(path, _dts(sound())), _same, r"noise: a DTS stream in a WAV"),
    "dts in flac": ("flac", lambda path: written(path, _dts(sound())), _same, r"noise: a DTS stream in a FLAC"),
    "wav without sound": ("wav", _bytes(odd.wav(1, b"")[:36]), _same, r"no sound follows its header"),
    **{f"{codec} in m4a": ("m4a", _as(codec, "mp4"), _same, rf"{called} in M4A is not read; {MENDED}")
       for codec, called in (("ac3", "AC-3"), ("eac3", "E-AC-3"))},
    "protected m4a": ("m4a", _protected, _same, r"encrypted \(a protected purchase\); get a copy"),
    "m4a cut": ("m4a", _as("aac", "mp4"), odd.cut(0.5), r"not readable as audio"),
    "m4a named mp3": ("mp3", _as("aac", "mp4"), _same, r"this is an M4A named \.mp3; rename it"),
    "m4a named wav": ("wav", _as("alac", "mp4"), _same, r"this is an M4A named \.wav; rename it"),
    "wav named m4a": ("m4a", lambda path: written(path, sound(), format="WAV", subtype="PCM_16"), _same,
                      r"this is a WAV named \.m4a; rename it"),
    "mp3 named aac": ("aac", _mp3("cbr"), _same, r"this is an MP3 named \.aac; rename it"),
    "aac named mp3": ("mp3", _as("aac", "adts"), _same, r"this is an AAC named \.mp3; rename it"),
    "wma named mp3": ("mp3", _bytes(b"0&\xb2u\x8ef\xcf\x11" + bytes(99)), _same, r"a WMA or WMV file named \.mp3"),
    "matroska named wav": ("wav", _as("aac", "matroska"), _same, r"this is a Matroska or WebM file named \.wav"),
    "wavpack named flac": ("flac", _as("wavpack", "wv"), _same, r"this is a WavPack file named \.flac"),
    "ac3 named mp3": ("mp3", _as("ac3", "ac3"), _same, r"this is an AC-3 stream named \.mp3"),
    "empty": ("mp3", _bytes(b""), _same, r"\(the file is empty\)"),
    "zeros": ("mp3", _bytes(bytes(99_999)), _same, r"begins with zeros; was it copied to the end\?"),
    "text": ("wav", _bytes(b"dear sirs, " * 99), _same, r"\(text\)"),
    "page": ("mp3", _bytes(b"\n<!DOCTYPE html><html><body>404</body></html>"), _same, r"\(a web page\)"),
    "zip": ("wav", _bytes(b"PK\x03\x04" + bytes(99)), _same, r"\(a ZIP archive\)"),
    "pdf": ("wav", _bytes(b"%PDF-1.7\n" + bytes(99)), _same, r"\(a PDF document\)"),
    "picture": ("mp3", _bytes(b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(range(256)) * 300), _same, r"\(a JPEG image\)"),
    "another picture": ("mp3", _bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 300), _same, r"\(a PNG image\)"),
    "midi": ("wav", _bytes(b"MThd\0\0\0\6\0\0\0\1\1\xe0"), _same, r"a MIDI file named \.wav; rename it to \.mid"),
    "midi in riff": ("wav", _bytes(b"RIFF\x20\0\0\0RMIDdata"), _same, r"a MIDI file in a RIFF wrapper .* export it as"),
    "pointer": ("flac", _bytes(b"version https://git-lfs.github.com/spec/v1\noid"), _same, r"a pointer of Git LFS"),
    "noise": ("mp3", _bytes(np.random.default_rng(0).bytes(99_999)), _same, r"nothing in it is known"),
}  # fmt: skip


@pytest.mark.parametrize("name", LEFT_OUT)
def test_a_recording_is_left_out_for_a_true_reason(name: str, tmp_path: Path) -> None:
    suffix, make, change, reason = LEFT_OUT[name]
    path = _odd(tmp_path, suffix, make, change)
    with pytest.raises(AudioError, match=reason) as caught:
        decode(path)
    assert str(caught.value).startswith(f"x.{suffix}: ")
    assert str(caught.value).count("\n") == 0
    ((found, _),) = decode_pool.look(path, HEARD)
    assert f"x.{suffix}: {found['reason']}" == str(caught.value)


def test_a_video_is_used_for_its_sound_and_said_to_be_one(tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    with av.open(str(path), "w") as file:
        picture, voice = file.add_stream("mpeg4", rate=5), file.add_stream("aac", rate=RATE, layout="stereo")
        picture.width = picture.height = 32
        for _ in range(10):
            file.mux(picture.encode(av.VideoFrame(32, 32, "yuv420p")))
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound().T), format="fltp", layout="stereo")
        frame.sample_rate = RATE
        for stream in (voice, picture):
            file.mux(stream.encode(frame if stream is voice else None))
        file.mux(voice.encode(None))
    with opened(path) as found:
        assert found.read().shape[1] == pytest.approx(SECONDS * RATE, abs=2048)
        assert found.remark == "a video; its sound is used"


def test_the_list_of_decoders_binds_the_one_that_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = coded(tmp_path / "x.m4a", "alac", layout="mp4")
    assert probe(path).codec == "ALAC"
    demuxer, decoders = containers.DEMUXERS["M4A"]
    monkeypatch.setitem(containers.DEMUXERS, "M4A", (demuxer, tuple(c for c in decoders if c != "alac")))
    with pytest.raises(AudioError, match="ALAC in M4A is not read"):
        decode(path)


def test_sound_that_libsndfile_reads_whole_is_read_by_libsndfile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stored signals of such files do not change with PyAV's version."""
    monkeypatch.setattr(Reader, "read", lambda *_, **__: pytest.fail("read by PyAV"))
    for name, make in {"a.wav": _wav("PCM_16"), "a.flac": _flac(16), "a.mp3": _mp3("vbr"), "b.mp3": _mp3("cbr"),
                       "a.ogg": _ogg("VORBIS", RATE)}.items():  # fmt: skip
        path = make(tmp_path / name)
        assert not structure(path).by_av
        wanted, rate = sf.read(path, dtype="float32", always_2d=True)
        heard, found = decode(path)
        np.testing.assert_array_equal(heard, wanted.T)
        assert found == rate


def test_every_prefix_of_every_container_is_refused_or_whole(tmp_path: Path) -> None:
    """Cut anywhere, no file raises anything but an ``AudioError``, and none that says its length is used in part."""
    makes = {"x.wav": _wav("PCM_16"), "x.flac": _flac(16), "x.ogg": _ogg("VORBIS", RATE), "x.mp3": _mp3("cbr"),
             "x.m4a": _as("aac", "mp4")}  # fmt: skip
    for name, make in makes.items():
        raw = make(tmp_path / name).read_bytes()
        for share in (0.0, 1e-5, 1e-4, 1e-3, 0.01, 0.1, 0.5, 0.9, 0.99):
            path = tmp_path / name
            path.write_bytes(raw[: int(share * len(raw))])
            with pytest.raises(AudioError, match=name):
                decode(path)


@pytest.mark.parametrize("seed", range(30))
def test_bytes_changed_at_random_raise_nothing_else(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    makes = [("x.wav", _wav("PCM_16")), ("x.flac", _flac(16)), ("x.ogg", _ogg("VORBIS", RATE)), ("x.mp3", _mp3("vbr")),
             ("x.m4a", _as("aac", "mp4")), ("x.aiff", lambda path: written(path, sound()))]  # fmt: skip
    name, make = makes[seed % len(makes)]
    path = _odd(tmp_path, name.partition(".")[2], make, _same)
    raw = bytearray(path.read_bytes())
    near = 200 if seed % 2 else len(raw)
    for at in rng.integers(0, near, 8):
        raw[at] = rng.integers(256)
    path.write_bytes(raw)
    (answer,) = decode_pool.inspect([path], HEARD)
    assert answer["reason"] or answer["duration_s"] > 0
    assert "TypeError" not in answer["reason"]
    assert "IndexError" not in answer["reason"]


def test_the_hash_is_of_the_whole_file(tmp_path: Path) -> None:
    import hashlib

    path = tmp_path / "x.bin"
    path.write_bytes(np.random.default_rng(0).bytes(3 * (1 << 20) + 7))
    assert content_hash(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_wav_header_of_every_size_field_is_understood_or_refused(tmp_path: Path) -> None:
    """Every pair of sizes: used whole, to the bit, or left out; never in part."""
    raw = _wav("PCM_16")(tmp_path / "whole.wav").read_bytes()
    wanted, _ = decode(tmp_path / "whole.wav")
    held = struct.unpack("<I", raw[raw.find(b"data") + 4 :][:4])[0]
    for whole in (0, 36, len(raw) - 9, len(raw) - 8, len(raw), len(raw) + 5000, 0x7FFFFFFF, HALF + 36, ALL):
        for data in (0, 4, held // 2, held - 4, held, held + 1, held + 8, held + 4000, 0x7FFFF000, HALF, ALL):
            path = tmp_path / "x.wav"
            path.write_bytes(odd.sizes(whole, data)(raw))
            try:
                heard, _ = decode(path)
            except AudioError as error:
                assert "header promises" in str(error)  # noqa: PT017
                continue
            assert heard.shape[1] in {wanted.shape[1], wanted.shape[1] - 1}, (whole, data)
            np.testing.assert_array_equal(heard, wanted[:, : heard.shape[1]])
