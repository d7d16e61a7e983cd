"""A catalogue of bad input, through the command line: what people and the hostile among them hand in, and what happens.

Whatever arrives, there is no traceback, the exit code is the documented one, nothing but what was asked for is written,
and a recording that is left out is named with its reason.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from earwitness import cli
from earwitness.data import decode_pool
from tests.tiny import RATE, container, recording, tune

MODEL = "pocket/musicgen-a"
SECONDS = 3.0
Build = Callable[[Path, pytest.MonkeyPatch], object]


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A recording that lies outside the folders that are given."""
    return recording(tmp_path / "outside" / "private.wav", SECONDS, seed=90)


def _run(arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run the command line in this process as ``main`` does; return the exit code and everything printed."""
    monkeypatch.setattr(sys, "argv", ["earwitness", *arguments])
    monkeypatch.setenv("COLUMNS", "500")
    code, handlers = 0, {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        cli.main()
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    out, err = capsys.readouterr()
    for line in (out + err).splitlines():
        assert line.isprintable(), f"not printable: {line!r}"
    assert "Traceback" not in out + err
    if code:
        assert len(err.strip().splitlines()) == 1, err
    return code, out + err


def _two_folders(root: Path) -> list[str]:
    recording(root / "s" / "good.wav", SECONDS, seed=1)
    recording(root / "h" / "good.wav", SECONDS, seed=2)
    return [f"--suspects={root / 's'}", f"--held-out={root / 'h'}"]


def _everything(root: Path) -> set[str]:
    return {f"{here}/{name}" for here, folders, names in os.walk(root) for name in [*folders, *names]}


# ---- files: each is put among the suspects beside a good one


def _float(path: Path, audio: np.ndarray, rate: int = RATE, **options: str) -> None:
    sf.write(path, audio, rate, **({"subtype": "FLOAT"} | options))


def _cut(name: str, share: float = 0.5) -> Build:
    def build(folder: Path, _: pytest.MonkeyPatch) -> None:
        whole = recording(folder.parent / f"whole{Path(name).suffix}", SECONDS, seed=3)
        (folder / name).write_bytes(whole.read_bytes()[: int(whole.stat().st_size * share)])
        whole.unlink()

    return build


def _header(offset: int, value: int, size: int = 4) -> Build:
    """A WAV of which one number in the header is changed."""

    def build(folder: Path, _: pytest.MonkeyPatch) -> None:
        path = recording(folder / "x.wav", SECONDS, seed=3)
        raw = bytearray(path.read_bytes())
        raw[offset : offset + size] = value.to_bytes(size, "little")
        path.write_bytes(bytes(raw))

    return build


def _bytes(name: str, content: bytes) -> Build:
    return lambda folder, _: (folder / name).write_bytes(content)


def _with_nan(folder: Path, _: pytest.MonkeyPatch) -> None:
    audio = tune(SECONDS, 3)
    audio[1000] = np.nan
    _float(folder / "x.wav", audio)


def _protected(folder: Path, _: pytest.MonkeyPatch) -> None:
    container(folder / "x.m4a", tune(SECONDS, 3))
    (folder / "x.m4a").write_bytes((folder / "x.m4a").read_bytes().replace(b"mp4a", b"drms"))


def _pointing(name: str, text: str) -> Build:
    """A playlist under a recording's name that leads to a file outside."""

    def build(folder: Path, _: pytest.MonkeyPatch) -> None:
        target = container(folder.parent / "outside" / "private.m4a", tune(SECONDS, 90))
        (folder / name).write_text(text.format(target=target))

    return build


def _socket(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)  # the name of a socket may not be long
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("x.wav")


def _unreadable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, opened = recording(folder / "x.wav", SECONDS, seed=3), os.open

    def refuse(name: object, *arguments: int, **options: int) -> int:
        if name == path:
            raise PermissionError(13, "Permission denied", str(name))
        return opened(name, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)


def _link(target: str) -> Build:
    return lambda folder, _: (folder / "x.wav").symlink_to(target)


FILES: dict[str, tuple[Build, str]] = {
    "empty wav": (_bytes("x.wav", b""), r"x\.\w+ +0 bytes: nothing in it"),
    "empty m4a": (_bytes("x.m4a", b""), r"x\.\w+ +0 bytes: nothing in it"),
    "text renamed wav": (_bytes("x.wav", b"dear sirs, " * 50), r"not readable as audio"),
    "text renamed mp3": (_bytes("x.mp3", b"dear sirs, " * 50), r"x\.mp3 +.*(not readable|silent|shorter)"),
    "noise renamed flac": (_bytes("x.flac", bytes(range(256)) * 9), r"not readable as audio"),
    "zip renamed wav": (_bytes("x.wav", b"PK\x03\x04" + b"\0" * 99), r"not readable as audio"),
    "no frames": (lambda f, _: _float(f / "x.wav", np.zeros(0)), r"silent"),
    "one frame": (lambda f, _: _float(f / "x.wav", np.ones(1)), r"silent|shorter"),
    "nan": (_with_nan, r"sample 1000 is not a finite number"),
    "infinite": (lambda f, _: _float(f / "x.wav", np.full(48_000, np.inf)), r"not a finite number"),
    "silence": (lambda f, _: _float(f / "x.wav", np.zeros(48_000)), r"silent"),
    "constant": (lambda f, _: _float(f / "x.wav", np.full(48_000, 0.5)), r"silent"),
    "opposite channels": (
        lambda f, _: _float(f / "x.wav", np.stack([tune(SECONDS, 3), -tune(SECONDS, 3)], 1)),
        r"silent once mixed",
    ),
    "too short": (lambda f, _: recording(f / "x.wav", 1.0, seed=3), r"1\.00 s is shorter than the model's segment"),
    "17 channels": (lambda f, _: _float(f / "x.wav", np.ones((99, 17))), r"17 channels"),
    "absurd sample rate": (_header(24, 2_000_000_000), r"2000000000 Hz is beyond|not readable"),
    "sample rate of zero": (_header(24, 0), r"not readable|beyond"),
    "header longer than the file": (_header(4, 400_000_000), r"header promises 400000008 bytes"),
    "cut wav": (_cut("x.wav"), r"header promises \d+ bytes"),
    "cut mp3": (_cut("x.mp3"), r"header promises|not readable"),
    "cut flac": (_cut("x.flac"), r"header promises|not readable"),
    "cut ogg": (_cut("x.ogg", 0.1), r"without a last page; the file is cut short"),
    "cut m4a": (
        lambda f, _: (f / "x.m4a").write_bytes(container(f / "x.m4a", tune(SECONDS, 3)).read_bytes()[:9000]),
        r"not readable as audio",
    ),
    "protected m4a": (_protected, r"encrypted"),
    "wav renamed m4a": (
        lambda f, _: (f / "x.m4a").write_bytes(recording(f / "also.wav", SECONDS, seed=4).read_bytes()),
        r"x\.m4a +this is a WAV named \.m4a; rename it",
    ),
    "playlist renamed m4a": (
        _pointing("x.m4a", "#EXTM3U\n#EXTINF:3,\n{target}\n#EXT-X-ENDLIST\n"), r"not readable as audio",
    ),
    "playlist renamed aac": (
        _pointing("x.aac", "#EXTM3U\n#EXTINF:3,\nfile://{target}\n#EXT-X-ENDLIST\n"), r"not readable as audio",
    ),
    "concat list renamed m4a": (_pointing("x.m4a", "ffconcat version 1.0\nfile '{target}'\n"), r"not readable"),
    "concat list renamed wav": (_pointing("x.wav", "ffconcat version 1.0\nfile '{target}'\n"), r"not readable"),
    "archive": (_bytes("x.zip", b"PK\x03\x04"), r"x\.zip +an archive, and nothing is unpacked"),
    "format that is not read": (_bytes("x.ape", b"MAC "), r"x\.ape +\.ape files are not read"),
    "pipe": (lambda f, _: os.mkfifo(f / "x.wav"), r"no regular file"),
    "socket": (_socket, r"no regular file"),
    "unreadable": (_unreadable, r"permission denied"),
    "broken link": (_link("nowhere.wav"), r"a broken link"),
    "link to itself": (_link("x.wav"), r"cannot be followed"),
    "link out of the folder": (_link("../outside/private.wav"), r"a link that leaves the folder"),
    "device by link": (_link("/dev/zero"), r"a link that leaves the folder"),
    "copy of a neighbour": (
        lambda f, _: (f / "x.wav").write_bytes((f / "good.wav").read_bytes()),
        r"x\.wav +the same recording as suspect/good\.wav on the same side, which is kept",
    ),
    "copy of a held-out recording": (
        lambda f, _: (f / "x.wav").write_bytes((f.parent / "h" / "good.wav").read_bytes()),
        r"x\.wav +the same recording as held_out/good\.wav on the other side; both are left out",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_files(
    name: str, tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build, message = FILES[name]
    arguments = _two_folders(tmp_path)
    build(tmp_path / "s", monkeypatch)
    before = _everything(tmp_path)
    code, text = _run(["check", f"--model={MODEL}", *arguments], monkeypatch, capsys)
    assert code == 0
    assert re.search(message, text), text
    assert "not testable" in text
    assert "private" not in text
    assert _everything(tmp_path) == before


FINE: dict[str, Build] = {
    "clipped": lambda f, _: _float(f / "x.wav", np.clip(30 * tune(SECONDS, 3), -1, 1)),
    "beyond full scale": lambda f, _: _float(f / "x.wav", 4 * tune(SECONDS, 3)),
    "8 bit": lambda f, _: _float(f / "x.wav", tune(SECONDS, 3), subtype="PCM_U8"),
    "24 bit": lambda f, _: _float(f / "x.wav", tune(SECONDS, 3), subtype="PCM_24"),
    "192 kHz": lambda f, _: recording(f / "x.wav", SECONDS, rate=192_000, seed=3),
    "8 kHz": lambda f, _: recording(f / "x.wav", SECONDS, rate=8000, seed=3),
    "stereo m4a": lambda f, _: container(f / "x.m4a", np.stack([tune(SECONDS, 3), tune(SECONDS, 4)])),
    "aac": lambda f, _: container(f / "x.aac", tune(SECONDS, 3), layout="adts"),
    "streamed, of no stated length": _header(40, 0xFFFFFFFF),
    "upper case suffix": lambda f, _: recording(f / "x.wav", SECONDS, seed=3).rename(f / "x.WAV"),
    "folder called wav": lambda f, _: recording(f / "x.wav" / "y.flac", SECONDS, seed=3),
    "deep": lambda f, _: recording(f.joinpath(*"abcdefghijklmnop") / "x.wav", SECONDS, seed=3),
    "circle of folders": lambda f, _: (recording(f / "a" / "x.wav", SECONDS, seed=3), (f / "a" / "b").symlink_to(f)),
    "line break": lambda f, _: recording(f / "x\nsuspects 99 99.wav", SECONDS, seed=3),
    "terminal markup": lambda f, _: recording(f / "[red]x[/red][/].wav", SECONDS, seed=3),
    "escape sequence": lambda f, _: recording(f / "x\x1b[2J\x1b]0;owned\x07.wav", SECONDS, seed=3),
    "html": lambda f, _: recording(f / "<script>alert(1)<>&'\".wav", SECONDS, seed=3),
    "shell": lambda f, _: recording(f / "$(touch owned); `rm x` && *.wav", SECONDS, seed=3),
    "option": lambda f, _: recording(f / "--help.wav", SECONDS, seed=3),
    "formula": lambda f, _: recording(f / "=cmd|' !A0'.wav", SECONDS, seed=3),
    "right to left": lambda f, _: recording(f / "x\u202e3pm.wav", SECONDS, seed=3),
    "255 bytes": lambda f, _: recording(f / f"{'x' * 251}.wav", SECONDS, seed=3),
    "only spaces": lambda f, _: recording(f / "   .wav", SECONDS, seed=3),
}


@pytest.mark.parametrize("name", FINE)
def test_unusual_files_and_names_are_used(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = _two_folders(tmp_path)
    FINE[name](tmp_path / "s", monkeypatch)
    before = _everything(tmp_path)
    code, text = _run(["check", f"--model={MODEL}", *arguments, "--json"], monkeypatch, capsys)
    assert code == 0
    found = json.loads(text)
    assert found["counts"] == {"suspect": 2, "held_out": 1}, found
    assert found["exclusions"] == []
    assert len({row["track_id"] for row in found["files"]}) == 3
    assert _everything(tmp_path) == before
    code, text = _run(["check", f"--model={MODEL}", *arguments], monkeypatch, capsys)
    assert (code, len(re.findall(r"^ *suspects +2 +2 ", text, flags=re.M))) == (0, 1)


def test_names_that_are_no_text_are_refused_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = _two_folders(tmp_path)
    recording(tmp_path / "s" / "x.wav", SECONDS, seed=3).rename(os.fsdecode(bytes(tmp_path / "s") + b"/\xff\xfe.wav"))
    code, text = _run(["check", f"--model={MODEL}", *arguments], monkeypatch, capsys)
    assert code == 0
    assert r"suspect/\udcff\udcfe.wav" in text
    assert "its name is not valid UTF-8; rename it" in text


def test_what_is_no_recording_is_passed_over_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = _two_folders(tmp_path)
    for name in (".DS_Store", "._good.wav", "Thumbs.db", "cover.jpg", "list.m3u8", "README"):
        (tmp_path / "s" / name).write_bytes(b"x")
    recording(tmp_path / "s" / ".trash" / "x.wav", SECONDS, seed=3)
    code, text = _run(["check", f"--model={MODEL}", *arguments], monkeypatch, capsys)
    assert code == 0
    assert "no suffix 1, .jpg 1, .m3u8 1, in a recycle bin (.trash) 1, sidecars 3" in text


# ---- what is refused as a whole: exit code 2, or 3 for the model


def _table(text: str | bytes) -> Build:
    def build(root: Path, _: pytest.MonkeyPatch) -> list[str]:
        recording(root / "a.wav", SECONDS, seed=1)
        recording(root / "b.wav", SECONDS, seed=2)
        (root / "m.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
        return [f"--manifest={root / 'm.csv'}"]

    return build


def _folders(suspects: str, held_out: str, prepare: Callable[[Path], object] = lambda root: None) -> Build:
    def build(root: Path, _: pytest.MonkeyPatch) -> list[str]:
        _two_folders(root)
        prepare(root)
        return [f"--suspects={root / suspects}", f"--held-out={root / held_out}"]

    return build


def _works(*rows: str) -> Build:
    """A manifest of different recordings by artists and works, compared in pairs."""

    def build(root: Path, _: pytest.MonkeyPatch) -> list[str]:
        names = [f"{chr(97 + i)}.wav" for i in range(len(rows))]
        for i, name in enumerate(names):
            recording(root / name, SECONDS, seed=i)
        lines = ["path,role,artist,work", *(f"{name},{row}" for name, row in zip(names, rows, strict=True))]
        (root / "m.csv").write_text("\n".join(lines))
        return [f"--manifest={root / 'm.csv'}", "--pairs=work"]

    return build


def _locked(root: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    arguments, scandir = _two_folders(root), os.scandir

    def refuse(path: Path) -> object:
        if Path(path) == (root / "h").resolve():
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    return arguments


def _pictures(root: Path) -> None:
    (root / "e").mkdir()
    (root / "e" / "x.jpg").write_bytes(b"")


def _bad_card(root: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    (root / "m.card.yml").write_text("a: [")
    return _table("path,split\na.wav,x\n")(root, monkeypatch)


ROWS = "path,role\na.wav,suspect\nb.wav,held_out\n"
REFUSED: dict[str, tuple[Build, int, str]] = {
    "no such folder": (_folders("s", "gone"), 2, "expected a folder of recordings, no such file"),
    "empty folder": (_folders("s", "e", lambda root: (root / "e").mkdir()), 2, "no audio file in it"),
    "folder of other things": (_folders("s", "e", _pictures), 2, "no audio file in it"),
    "file instead of a folder": (_folders("s/good.wav", "h"), 2, "found a file"),
    "the same folder twice": (_folders("s", "s"), 2, "the same folder"),
    "the same folder by a link": (_folders("s", "l", lambda root: (root / "l").symlink_to("s")), 2, "the same folder"),
    "one folder in the other": (_folders("s", "s/h", lambda root: (root / "s/h").mkdir()), 2, "inside the other"),
    "folder that links to itself": (_folders("s", "l", lambda root: (root / "l").symlink_to("l")), 2, "expected a"),
    "locked folder": (_locked, 2, "permission denied"),
    "one folder only": (lambda root, _: _two_folders(root)[:1], 2, "expected two folders"),
    "nothing": (lambda root, _: [], 2, "expected (two folders|either --suspects)"),
    "folders and a manifest": (lambda root, _: [*_two_folders(root), *_table(ROWS)(root, _)], 2, "not both|one man"),  # type: ignore[misc]
    "no such manifest": (lambda root, _: [f"--manifest={root / 'm.csv'}"], 2, "found no such file"),
    "folder as manifest": (lambda root, _: [f"--manifest={root}"], 2, "expected a manifest"),
    "empty manifest": (_table(""), 2, "it is empty"),
    "header alone": (_table("path,role\n"), 2, "at least one row"),
    "latin 1": (_table("path,role\ncafé.wav,suspect\n".encode("latin-1")), 2, "not a UTF-8"),
    "a picture": (_table(b"\x89PNG\r\n\x1a\n\0\0\0"), 2, "not a UTF-8"),
    "null bytes": (_table(b"path,role\na\0.wav,suspect\n"), 2, r"m\.csv, line 2"),
    "missing column": (_table("file,role\na.wav,suspect\n"), 2, "expected a column 'path'"),
    "column twice": (_table("path,role,role\na.wav,suspect,held_out\n"), 2, "each column once"),
    "ragged row": (_table("path,role\na.wav,suspect,x\n"), 2, "line 2: expected 2 cells, found 3"),
    "open quote": (_table('path,role\n"a.wav,suspect\n'), 2, "line 2: a quote that opens here"),
    "wrong role": (_table("path,role\na.wav,accused\n"), 2, "line 2: a role that is none of"),
    "role in capitals": (_table("path,role\na.wav,Suspect\n"), 2, "line 2: a role that is none of"),
    "no role for this model": (_table("path,split\na.wav,x\n"), 2, "its card does not say who is a member"),
    "same row twice": (_table("path,role\na.wav,suspect\na.wav,suspect\n"), 2, "line 3: a track_id used before"),
    "both roles": (_table("path,role\na.wav,suspect\na.wav,held_out\n"), 2, "line 3: a track_id used before"),
    "absolute path": (_table("path,role\n/etc/passwd,suspect\n"), 2, "line 2: a path that leaves"),
    "path upwards": (_table("path,role\n../outside/private.wav,suspect\n"), 2, "line 2: a path that leaves"),
    "empty path": (_table("path,role\n,suspect\n"), 2, "line 2: an empty path"),
    "path with backslashes": (_table("path,role\nnew\\a.wav,suspect\n"), 2, 'line 2: .* use "/" between folders'),
    "path of a drive": (_table("path,role\nC:\\a.wav,suspect\n"), 2, 'line 2: .* use "/" between folders'),
    "short hash": (_table("path,role,sha256\na.wav,suspect,ABC\n"), 2, "line 2: a sha256 that is not 64 .*'ABC'"),
    "date of one country": (
        _table("path,role,released\na.wav,suspect,31/12/2019\n"), 2, "line 2: a date that is none like .*'31/12/2019'",
    ),
    "date with a time": (
        _table("path,role,released\na.wav,suspect,2019-12-31 10:00\n"), 2, "line 2: a date that is none like 2019",
    ),
    "month that is none": (_table("path,role,released\na.wav,suspect,2019-13\n"), 2, "line 2: a date that is none"),
    "bad length": (_table("path,role,duration_s\na.wav,suspect,3:40\n"), 2, "line 2: duration_s is '3:40'"),
    "markup in a cell": (_table("path,role\na.wav,[red]\x1b[2J\n"), 2, "line 2: a role"),
    "endless cell": (_table(f"path,role\n{'x' * 200_000},suspect\n"), 2, "not a UTF-8 CSV"),
    "bad card": (_bad_card, 2, "not YAML"),
    "pairing that is none": (
        lambda root, _: [*_two_folders(root), "--pairs=artist"], 2, 'expected pairs="work" .--pairs work., got',
    ),
    "pairs of two folders": (lambda root, _: [*_two_folders(root), "--pairs=work"], 2, "no work is named on both"),
    "pairs of no work": (_works("suspect,x,", "held_out,x,"), 2, "no work is named on both sides"),
    "pairs of different works": (_works("suspect,x,one", "held_out,x,two"), 2, "no work is named on both sides"),
    "two suspects of a work": (
        _works("suspect,x,one", "suspect,x,one", "held_out,x,one"), 2,
        "'a.wav' and 'b.wav' are both suspect takes of .*'one'",
    ),
    "two suspects of a work without a partner": (
        _works("suspect,x,one", "held_out,x,one", "suspect,x,two", "suspect,y,two"), 2,
        "'c.wav' and 'd.wav' are both suspect",
    ),
    "a pair of two artists": (
        _works("suspect,x,one", "held_out,y,one"), 2,
        "work 'one' is by 'x' in 'a.wav' and by 'y' in 'b.wav'; a pair is of one",
    ),
    "record with a path for a name": (lambda root, _: [*_two_folders(root), "--write=../../x"], 2, "expected a name"),
}  # fmt: skip
MODELS: dict[str, tuple[str, str]] = {
    "misspelt": ("pocket/musicgen-aa", "did you mean 'pocket/musicgen-a'"),
    "misspelt pocket": ("poket/musicgen-a", "did you mean 'pocket/musicgen-a'"),
    "no name": ("", "neither a pocket model"),
    "words": ("that one model", "neither a pocket model"),
    "suno": ("Suno v5", "closed service that gives out no weights.*What can be done instead"),
    "udio": ("udio.com", "closed service"),
    "elevenlabs": ("ElevenLabs Music", "closed service"),
    "eleven labs": ("Eleven Labs", "closed service"),
    "closed as a hub name": ("suno/chirp-v4", "closed service"),
    "a file": ("{root}/s/good.wav", "is a file; a model is the folder"),
    "folder without weights": ("{root}/s", "expected config.json, model_index.json"),
    "folder of something else": ("{root}/other", "is no family we load"),
    "config that is no JSON": ("{root}/broken", "not JSON"),
    "upwards": ("pocket/../../x", "no pocket model"),
    "too long": ("x" * 5000, "cannot be read|neither"),
    "hostile": ("[red]\x1b[2J\n", "neither a pocket model"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(
    name: str, tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build, expected, message = REFUSED[name]
    arguments = build(tmp_path, monkeypatch)
    before = _everything(tmp_path)
    for command in (["check"], ["audit", f"--out={tmp_path / 'report'}"]):
        if command[0] == "audit" and any("--write" in argument for argument in arguments):  # type: ignore[union-attr]
            continue
        code, text = _run([*command, f"--model={MODEL}", *arguments], monkeypatch, capsys)  # type: ignore[misc]
        assert code == expected
        assert re.search(message, text), text
        assert _everything(tmp_path) == before


CAPTIONS: dict[str, tuple[str | bytes | None, str]] = {
    "no such table": (None, r"c\.csv: expected captions \(CSV\), found no such file"),
    "empty": ("", "it is empty"),
    "header alone": ("path,caption\n", "at least one row"),
    "latin 1": ("path,caption\nonly.wav,café\n".encode("latin-1"), "not a UTF-8"),
    "a picture": (b"\x89PNG\r\n\x1a\n\0\0\0", "not a UTF-8"),
    "ragged row": ("path,caption\nonly.wav,slow, sad\n", "line 2: expected 2 cells, found 3"),
    "no caption": ("path,text\nonly.wav,x\n", "expected columns 'caption' and 'path'"),
    "no name": ("file,caption\nonly.wav,x\n", r"expected columns 'caption' and 'path' \(or 'track_id'\), found file"),
    "column twice": ("path,caption,caption\nonly.wav,x,y\n", "each column once"),
    "no such recording": ("path,caption\nonly.wav,x\noni.wav,y\n", "line 3: 'oni.wav' fits no recording; did you mean"),
    "empty name": ("path,caption\n,x\n", "line 2: '' fits no recording"),
    "backslashes": ("path,caption\ns\\only.wav,x\n", 'line 2: .*fits no recording; use "/" between folders'),
    "path as id": ("track_id,caption\nonly.wav,x\n", "line 2: 'only.wav' fits no recording; did you mean 'suspect/"),
    "same row twice": ("path,caption\nonly.wav,x\nonly.wav,x\n", "line 3: a second caption for 'suspect/only.wav'"),
    "two names for one": ("path,caption\nonly.wav,x\ns/only.wav,y\n", "line 3: a second caption"),
    "same name on both sides": ("path,caption\ngood.wav,x\n", "line 2: 'good.wav' fits 2 recordings"),
    "same name in two folders": (
        "path,caption\nx.wav,x\n", r"line 2: 'x.wav' fits 2 recordings \(suspect/one/x.wav, suspect/two/x.wav\)",
    ),
    "empty captions": ("path,caption\nonly.wav, \n", "expected captions, found empty cells only"),
    "hostile": ("path,caption\n[red]\x1b[2J,x\n", r"line 2: '\[red\].*fits no recording"),
}  # fmt: skip


@pytest.mark.parametrize("name", CAPTIONS)
def test_captions(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content, message = CAPTIONS[name]
    folders = _two_folders(tmp_path)
    for i, place in enumerate(("only.wav", "one/x.wav", "two/x.wav")):
        recording(tmp_path / "s" / place, SECONDS, seed=3 + i)
    if content is not None:
        (tmp_path / "c.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    arguments = [f"--model={MODEL}", *folders, f"--captions={tmp_path / 'c.csv'}"]
    before = _everything(tmp_path)
    for command in (
        ["audit", f"--out={tmp_path / 'report'}"],
        ["plan", f"--freeze={tmp_path / 'plan.json'}"],
        ["plan"],
    ):
        code, text = _run([*command, *arguments], monkeypatch, capsys)
        assert code == 2
        assert re.search(message, text), text
        assert _everything(tmp_path) == before


UNVERIFIED = (
    "no such manifest", "folder as manifest", "empty manifest", "header alone", "latin 1", "a picture", "null bytes",
    "missing column", "column twice", "ragged row", "open quote", "wrong role", "same row twice", "both roles",
    "absolute path", "path upwards", "empty path", "bad length", "endless cell", "path with backslashes",
    "path of a drive", "short hash", "date of one country", "date with a time", "month that is none",
)  # fmt: skip


@pytest.mark.parametrize("name", UNVERIFIED)
def test_a_manifest_that_cannot_be_read_cannot_be_verified(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build, expected, message = REFUSED[name]
    (argument,) = build(tmp_path, monkeypatch)  # type: ignore[misc]
    code, text = _run(["manifest", "verify", argument.removeprefix("--manifest=")], monkeypatch, capsys)
    assert code == expected
    assert re.search(message, text), text


@pytest.mark.parametrize("name", MODELS)
def test_models(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    model, message = MODELS[name]
    arguments = _two_folders(tmp_path)
    for folder, config in (("other", '{"model_type": "bert"}'), ("broken", "{")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text(config)
    before = _everything(tmp_path)
    for command in (["check"], ["audit", f"--out={tmp_path / 'report'}"]):
        code, text = _run([*command, f"--model={model.format(root=tmp_path)}", *arguments], monkeypatch, capsys)
        assert code == 3
        assert re.search(message, text), text
        assert _everything(tmp_path) == before


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + ROWS.encode(), ROWS.replace(",", ";").encode(), ROWS.replace(",", "\t").encode("utf-16"),
        ROWS.replace("\n", "\r\n").encode(), (ROWS + "\n\n").encode(), ROWS.replace("path,", " path ,").encode(),
    ],
    ids=["byte order mark", "semicolons", "UTF-16 with tabs", "Windows line ends", "blank lines", "spaces in header"],
)  # fmt: skip
def test_tables_as_spreadsheets_write_them(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments: list[str] = _table(content)(tmp_path, monkeypatch)  # type: ignore[assignment]
    code, text = _run(["check", f"--model={MODEL}", *arguments, "--json"], monkeypatch, capsys)
    assert code == 0
    assert json.loads(text)["counts"] == {"suspect": 1, "held_out": 1}


def test_a_manifest_without_held_out_is_not_testable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = _table("path,role\na.wav,suspect\nb.wav,suspect\ngone.wav,suspect\n")(tmp_path, monkeypatch)
    code, text = _run(["check", f"--model={MODEL}", *arguments], monkeypatch, capsys)  # type: ignore[misc]
    assert code == 0
    assert "not testable: there is no held-out track" in text
    assert re.search(r"gone\.wav +expected an audio file, found no such file", text)


@pytest.mark.timeout(60)
def test_an_interruption_has_its_own_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "leave", sys.exit)
    monkeypatch.setattr(decode_pool, "_idle", [])
    monkeypatch.setattr(decode_pool, "COMMAND", [sys.executable, "-c", "print('ready', flush=True); input(); input()"])
    arguments = _two_folders(tmp_path)
    before = _everything(tmp_path)
    threading.Timer(2.0, os.kill, [os.getpid(), signal.SIGINT]).start()
    code, text = _run(["check", f"--model={MODEL}", *arguments], monkeypatch, capsys)
    assert code == 4
    assert "interrupted" in text
    assert _everything(tmp_path) == before


def test_a_disk_that_cannot_be_written_to_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "[x]\n.csv"))

    monkeypatch.setattr("earwitness.data.manifest.project_root", lambda: tmp_path / "project")
    monkeypatch.setattr("earwitness.data.manifest.write_csv", full)
    code, text = _run(["check", f"--model={MODEL}", *_two_folders(tmp_path), "--write=x"], monkeypatch, capsys)
    assert code == 2
    assert "no space left on device" in text


def test_a_record_is_written_whole_and_never_over_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("earwitness.data.manifest.project_root", lambda: tmp_path)
    arguments = ["check", f"--model={MODEL}", *_two_folders(tmp_path), "--write=mine"]
    recording(tmp_path / "s" / "=cmd().wav", SECONDS, seed=3)
    assert _run(arguments, monkeypatch, capsys)[0] == 0
    folder = tmp_path / "data_manifests" / "artists"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(before) == {"mine.csv", "mine.card.yml"}
    assert not re.search(r"(^|,)[=+@-]", before["mine.csv"].decode(), flags=re.M)
    code, text = _run(arguments, monkeypatch, capsys)
    assert (code, "exists, and a record is not overwritten" in text) == (2, True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    again = ["check", f"--model={MODEL}", f"--manifest={folder / 'mine.csv'}", f"--root={tmp_path}", "--json"]
    code, text = _run(again, monkeypatch, capsys)
    assert (code, json.loads(text)["counts"]) == (0, {"suspect": 2, "held_out": 1})
