"""Workers that die, hang, or talk nonsense cost one recording; the rest is inspected."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from earwitness.data import audio, decode_pool
from earwitness.data.audio import AudioSpec, load, prepare
from earwitness.data.fingerprint import SPEC, words
from earwitness.errors import EarwitnessError
from tests.tiny import RATE, recording

HEARD = AudioSpec(RATE, 1, 0.64)
STUB = """
import json, os, sys, time
print("ready", flush=True)
for line in sys.stdin:
    name = json.loads(line)["path"]
    if "crash" in name: os.abort()
    if "hang" in name: time.sleep(900)
    if "babble" in name: print("no json", flush=True); continue
    if "half" in name: print('{"reason": "", "words": "AAA="}', flush=True); continue
    print(json.dumps({"reason": "", "pid": os.getpid()}), flush=True)
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
    ("bad", "reason"), [("crash", "crashed"), ("hang", "longer than 1 s"), ("babble", "crashed"), ("half", "crashed")]
)
def test_a_bad_file_costs_one_recording(
    stub: None, bad: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_pool, "SECONDS", 1.0)
    found = decode_pool.inspect(_files(tmp_path, "a", bad, "b", "c"), HEARD, workers=1)
    assert [bool(answer["reason"]) for answer in found] == [False, True, False, False]
    assert reason in found[1]["reason"]
    assert found[0]["pid"] != found[2]["pid"] == found[3]["pid"]


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


def test_long_recordings_are_measured_by_window_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = recording(tmp_path / "a.wav", 90.0, seed=1)
    whole = decode_pool.look(path, HEARD)
    monkeypatch.setattr(audio, "WHOLE_SECONDS", 10.0)
    by_window = decode_pool.look(path, HEARD)
    assert by_window["segments"] == whole["segments"]
    assert by_window["level_dbfs"] == pytest.approx(whole["level_dbfs"], abs=1e-6)
    assert by_window["bandwidth_hz"] == whole["bandwidth_hz"]
    one, other = (np.frombuffer(base64.b64decode(f["words"]), np.uint32) for f in (whole, by_window))
    assert np.bitwise_count(one ^ other).mean() < 0.1


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

    monkeypatch.setattr(decode_pool, "decode", hungry)
    assert "needs more than" in decode_pool.look(recording(tmp_path / "a.wav"), HEARD)["reason"]
