"""Tags are read where a file has them, and cost nothing where it has none or broken ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile

from earwitness.data import decode_pool
from earwitness.data.audio import AudioSpec
from earwitness.data.tags import LONGEST, read_tags
from tests.tiny import container, recording, tune

SAID = {"title": "River (Live)", "artist": "Calm Marine", "album": "Harbour"}


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff"])
def test_tags_of_every_format_are_read(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{suffix}"
    kind = {".opus": ("OGG", "OPUS")}.get(suffix, (None, None))
    with soundfile.SoundFile(path, "w", 16_000, 1, format=kind[0], subtype=kind[1]) as file:
        for name, text in SAID.items():
            setattr(file, name, text)
        file.write(tune(1.0))
    kept = SAID if suffix != ".aiff" else {name: SAID[name] for name in ("title", "artist")}  # all that it can hold
    assert read_tags(path) == kept


def test_tags_of_m4a_are_read(tmp_path: Path) -> None:
    import av

    path = container(tmp_path / "plain.m4a", tune(1.0))
    with av.open(str(path)) as source, av.open(str(tmp_path / "x.m4a"), "w") as target:
        target.metadata.update(SAID)
        stream = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    assert read_tags(tmp_path / "x.m4a") == SAID
    assert read_tags(path) == {}


def test_no_tags_broken_files_and_endless_tags(tmp_path: Path) -> None:
    assert read_tags(recording(tmp_path / "x.wav")) == {}
    (tmp_path / "y.flac").write_bytes(b"fLaC\x00")
    assert read_tags(tmp_path / "y.flac") == {}
    assert read_tags(tmp_path / "gone.m4a") == {}
    with soundfile.SoundFile(tmp_path / "z.flac", "w", 16_000, 1) as file:
        file.title = "x" * 5000
        file.write(tune(1.0))
    assert read_tags(tmp_path / "z.flac") == {"title": "x" * LONGEST}


def test_what_a_worker_says_of_a_file_holds_its_tags(tmp_path: Path) -> None:
    for name, title in (("x.flac", "River"), ("y.flac", "")):
        with soundfile.SoundFile(tmp_path / name, "w", 16_000, 1) as file:
            if title:
                file.title = title
            file.write(tune(3.0))
    told = decode_pool.inspect([tmp_path / "x.flac", tmp_path / "y.flac"], AudioSpec(16_000, 1, 1.0))
    assert [answer["tags"] for answer in told] == [{"title": "River"}, {}]
