"""Workers that die, hang, or talk nonsense cost one recording; the rest is inspected."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy

from earwitness.data import audio, containers, decode_pool
from earwitness.data.audio import AudioSpec, load, prepare
from earwitness.data.containers import content_hash
from earwitness.data.fingerprint import SPEC, words
from earwitness.errors import AudioError, EarwitnessError
from tests.tiny import RATE, recording, tune

HEARD = AudioSpec(RATE, 1, 0.64)
STUB = """
import json, os, sys, time
say = lambda values, arrays=(): print(json.dumps({"values": values, "arrays": list(arrays)}), flush=True)
print("ready", flush=True)
for line in sys.stdin:
    path = json.loads(line)["path"]
    name = os.path.basename(path)
    if "crash" in name: os.abort()
    if "hang" in name: time.sleep(900)
    if "spin" in name: import resource; resource.setrlimit(resource.RLIMIT_CPU, (1, 2)); exec("while True: pass")
    if "babble" in name: print("no json", flush=True); continue
    if "list" in name: print("[]", flush=True); continue
    if "pickle" in name: say({"reason": ""}, [["words", "|O", [1]]]); print("x" * 8, flush=True); continue
    if "huge" in name: say({"reason": ""}, [["words", "<u4", [1 << 40]]]); continue
    if "less" in name: say({"reason": ""}, [["words", "<u4", [-5]]]); continue
    if "half" in name: say({"reason": ""}, [["words", "<u4", [9]]]); print("short", flush=True); os._exit(0)
    if "once" in name and not os.path.exists(path + ".tried"): open(path + ".tried", "w").close(); os.abort()
    say({"reason": "", "pid": os.getpid()})
    say({"end": ""})
"""


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_pool, "COMMAND", [sys.executable, "-c", STUB])
    monkeypatch.setattr(decode_pool, "_idle", [])


def _files(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).write_bytes(b"x")
    return [folder / name for name in names]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("hang", "longer than 1 s"),
        ("spin", "longer than 0 s"),
        *((name, "crashed") for name in ("crash", "babble", "list", "pickle", "huge", "less", "half")),
    ],
)
def test_a_bad_file_costs_one_recording(
    stub: None, bad: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_pool, "SECONDS", 0.2)
    monkeypatch.setattr(decode_pool, "PATIENCE", 5 if bad == "hang" else 100)
    found = decode_pool.inspect(_files(tmp_path, "a", bad, "b", "c"), HEARD, workers=1)
    assert [bool(answer["reason"]) for answer in found] == [False, True, False, False]
    assert reason in found[1]["reason"]
    assert found[0]["pid"] != found[2]["pid"] == found[3]["pid"]


def test_a_crash_by_chance_costs_nothing(stub: None, tmp_path: Path) -> None:
    assert [answer["reason"] for answer in decode_pool.inspect(_files(tmp_path, "once", "b"), HEARD)] == ["", ""]


def test_workers_are_kept_for_the_next_call(stub: None, tmp_path: Path) -> None:
    paths = _files(tmp_path, *"abcdef")
    first = {answer["pid"] for answer in decode_pool.inspect(paths, HEARD, workers=2)}
    assert {answer["pid"] for answer in decode_pool.inspect(paths, HEARD, workers=2)} <= first
    assert len(first) <= 2


@pytest.mark.timeout(60)
def test_an_interruption_does_not_wait_for_a_file(stub: None, tmp_path: Path) -> None:
    threading.Timer(1.0, os.kill, [os.getpid(), signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        decode_pool.inspect(_files(tmp_path, "a", "hang"), HEARD, workers=1)
    assert not decode_pool._busy


def test_no_worker_at_all_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(decode_pool, "_idle", [])
    monkeypatch.setattr(decode_pool, "COMMAND", [sys.executable, "-c", ""])
    with pytest.raises(EarwitnessError, match="did not start"):
        decode_pool.inspect(_files(tmp_path, "a"), HEARD)


def test_real_workers_say_what_scoring_will_use(tmp_path: Path) -> None:
    path = recording(tmp_path / "a.flac", 3.0, seed=1, rate=22_050, channels=2)
    found, text = decode_pool.inspect([path, *_files(tmp_path, "b.wav")], HEARD)
    assert {k: found[k] for k in ("format", "codec", "sample_rate", "channels", "reason")} == {
        "format": "FLAC", "codec": "PCM_16", "sample_rate": 22_050, "channels": 2, "reason": "",
    }  # fmt: skip
    assert found["segments"] == len(prepare(path, HEARD))
    assert found["duration_s"] == pytest.approx(3.0)
    np.testing.assert_array_equal(found["words"], words(load(path, SPEC)[0]))
    assert "not readable as audio" in text["reason"]
    assert "words" not in text


def _look(path: Path, spec: AudioSpec) -> dict[str, Any]:
    ((found, arrays),) = decode_pool.look(path, spec)
    return found | arrays


def test_long_recordings_are_measured_by_window_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = recording(tmp_path / "a.wav", 90.0, seed=1)
    whole = _look(path, HEARD)
    monkeypatch.setattr(audio, "WHOLE_SECONDS", 10.0)
    by_window = _look(path, HEARD)
    assert by_window["segments"] == whole["segments"]
    assert by_window["level_dbfs"] == whole["level_dbfs"]
    assert by_window["bandwidth_hz"] == whole["bandwidth_hz"]
    assert np.bitwise_count(whole["words"] ^ by_window["words"]).mean() < 0.1


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100])
@pytest.mark.parametrize("seconds", [0.05, 0.2, 3.0, 61.3])
def test_the_bandwidth_is_that_of_welch(seconds: float, rate: int) -> None:
    """In pieces of any size, what scipy says of the whole; a recording under one frame is one frame."""
    sound = tune(seconds * rate / RATE, seed=3)
    for sizes in ([len(sound)], [1000, 1, 2048, 70_000]):
        spectrum, at, number = decode_pool.Spectrum(), 0, 0
        while at < len(sound):
            spectrum.push(sound[at : at + sizes[number % len(sizes)]])
            at += sizes[number % len(sizes)]
            number += 1
        frequency, density = scipy.signal.welch(sound, rate, nperseg=min(2048, len(sound)))
        wanted = frequency[density >= density.max() * 1e-6][-1]
        assert spectrum.bandwidth(rate) == pytest.approx(wanted)


def test_a_worker_may_write_no_file_and_has_limits(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from earwitness.data import decode_pool; decode_pool._confine();"
        "print(*(resource.getrlimit(k)[0] for k in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE, resource.RLIMIT_AS)));"
        "sys.stdout.flush(); open(sys.argv[1], 'w', buffering=1).write('x\\n')"
    )
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path / "x")], capture_output=True, text=True, check=False)
    assert run.stdout.split() == ["0", "0", str(decode_pool.MEMORY_GIB << 30)]
    assert run.returncode != 0
    assert not (tmp_path / "x").exists() or (tmp_path / "x").stat().st_size == 0


def test_memory_that_runs_out_is_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def hungry(path: Path) -> None:
        raise MemoryError

    monkeypatch.setattr(decode_pool, "opened", hungry)
    assert "needs more than" in _look(recording(tmp_path / "a.wav"), HEARD)["reason"]


def test_segments_come_from_a_worker_to_the_bit(tmp_path: Path) -> None:
    path = recording(tmp_path / "a.mp3", 4.0, seed=1, rate=44_100, channels=2)
    here, there = list(audio.segments(path, HEARD)), list(decode_pool.segments(path, HEARD))
    assert [(s.segment_id, s.start_s) for s in here] == [(s.segment_id, s.start_s) for s in there]
    for one, other in zip(here, there, strict=True):
        np.testing.assert_array_equal(one.audio, other.audio)
        assert other.audio.flags.writeable
    assert decode_pool.probe(path) == audio.probe(path)
    with pytest.raises(AudioError, match=r"none\.wav: expected an audio file, found no such file"):
        decode_pool.probe(tmp_path / "none.wav")
    with pytest.raises(AudioError, match=r"a\.mp3: .* is shorter than the model's segment"):
        list(decode_pool.segments(path, AudioSpec(RATE, 1, 30.0)))


def test_who_takes_one_segment_leaves_a_worker_that_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_pool, "_idle", [])
    path = recording(tmp_path / "a.wav", 9.0)
    first = next(decode_pool.segments(path, HEARD))
    (worker,) = decode_pool._idle
    assert next(decode_pool.segments(path, HEARD)).segment_id == first.segment_id
    assert decode_pool._idle == [worker]


def test_a_long_recording_is_surveyed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the check found of the whole goes with the request to cut it; the segments are the same."""
    path = recording(tmp_path / "a.wav", 6.0)
    monkeypatch.setattr(audio, "WHOLE_SECONDS", 2.0)
    survey = _look(path, HEARD)["survey"]
    apart = [values for values, _ in decode_pool.cuts(path, HEARD)]
    monkeypatch.setattr(audio, "gather", lambda *_: pytest.fail("surveyed again"))
    plain = json.loads(json.dumps(survey))
    assert [values for values, _ in decode_pool.cuts(path, HEARD, survey=plain)] == apart


# --- limits on what is opened and hashed ------------------------------------------------------------------------------


@pytest.mark.timeout(60)
def test_pipes_devices_and_absurd_sizes_are_neither_hashed_nor_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    recording(tmp_path / "sparse.wav")
    os.truncate(tmp_path / "sparse.wav", 1 << 40)
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "device.wav").symlink_to("/dev/zero")
    names = ["pipe.wav", "sparse.wav", "folder.wav", "device.wav", "none.wav"]
    found = [answer["reason"] for answer in decode_pool.inspect([tmp_path / name for name in names], HEARD)]
    wanted = ["no regular file", "1024 GiB, and at most 32 GiB are read", "a folder", "no regular file", "no such file"]
    assert all(part in reason for part, reason in zip(wanted, found, strict=True)), found
    for name, part in zip(names, wanted, strict=True):
        with pytest.raises(AudioError, match=part):
            content_hash(tmp_path / name)


@pytest.mark.timeout(60)
def test_a_file_that_grows_is_read_to_where_it_ended(tmp_path: Path) -> None:
    path, stop = recording(tmp_path / "a.wav", 2.0), threading.Event()

    def write() -> None:
        with path.open("ab") as file:
            while not stop.is_set():
                file.write(bytes(1 << 16))
                file.flush()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        reasons = {answer["reason"] for answer in decode_pool.inspect([path] * 3, HEARD)}
    finally:
        stop.set()
        writer.join()
    assert any("it changes while it is read" in reason for reason in reasons)


def test_bytes_are_hashed_once_while_a_file_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, hashed = recording(tmp_path / "a.wav", 2.0), []
    monkeypatch.setattr(containers, "sha256", lambda: hashed.append(path) or hashlib.sha256())
    assert content_hash(path) == content_hash(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(hashed) == 1
    recording(path, 2.0, seed=5)
    assert content_hash(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(hashed) == 2
