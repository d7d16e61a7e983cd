"""Files are opened first in worker processes that may die without taking the audit along.

A decoder is the part of this program that a hostile file talks to. Each worker is a process of its own with limits on
memory, on time and on writing; it answers in JSON, so that nothing it says is executed. A crash, a hang or a refusal
costs one recording, which is left out with the reason. The book page *Threat model* says what this does not stop.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import math
import os
import resource
import select
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from earwitness.data.audio import (
    Spec,
    blocks,
    condition,
    decode,
    from_plain,
    is_long,
    opened,
    probe,
    segments,
    to_plain,
)
from earwitness.data.fingerprint import SPEC, WordFile, words
from earwitness.data.tags import read_tags
from earwitness.errors import AudioError, EarwitnessError
from earwitness.symbolic import fingerprint
from earwitness.symbolic.midi import read
from earwitness.symbolic.windows import SymbolicSpec
from earwitness.types import SCORES
from earwitness.util import plain, reason_of

MEMORY_GIB = 8  # address space of a worker
SECONDS, SECONDS_PER_GB = 60.0, 300.0  # time for one file: a base, and more for larger ones
START_SECONDS = 120.0
WRITABLE_BYTES = 0  # what a worker may write to any one file
BANDWIDTH_DB = -60.0  # relative to the strongest frequency
MISTAKEN = {
    True: "a score, and this model hears recordings; name a model of scores, or give the recordings",
    False: "a recording, and this model reads scores; give MIDI files, or name a model that hears",
}
COMMAND = [sys.executable, "-m", "earwitness.data.decode_pool"]

_idle: list[_DecodeWorker] = []
_busy: set[_DecodeWorker] = set()
_lock = threading.Lock()


def inspect(paths: Sequence[Path], spec: Spec, *, workers: int = 2) -> list[dict[str, Any]]:
    """Open every file in a worker and say what is in it.

    Parameters
    ----------
    paths : sequence of Path
        Files, whatever they hold.
    spec : Spec
        What the target model hears; decides how many segments a recording gives.
    workers : int
        Processes at a time. They stay until this process ends, and serve the next call.

    Returns
    -------
    list of dict
        In the order of ``paths``; whatever could be found out of ``sha256``, ``format``, ``codec``, ``sample_rate``,
        ``channels``, ``duration_s``, ``level_dbfs``, ``bandwidth_hz``, ``notes`` (of a score), ``segments``, ``words``
        (the fingerprint, in a temporary file: ``StoredWords``); and ``reason``, empty for a recording that can be used.

    Raises
    ------
    EarwitnessError
        Workers cannot be started at all, or fingerprints cannot be written.
    """
    pool, held = ThreadPoolExecutor(max(1, workers)), WordFile()
    asked = [pool.submit(_one, path, spec, held) for path in paths]
    try:
        while wait(asked, timeout=0.2).not_done:  # a signal that another thread gets does not end an endless wait
            pass
        return [one.result() for one in asked]
    except BaseException:  # interrupted: nobody waits for a file that takes minutes, or for a worker that starts
        pool.shutdown(wait=False, cancel_futures=True)
        while not all(one.done() for one in asked):
            for worker in list(_busy):
                worker.end()
            time.sleep(0.02)
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _one(path: Path, spec: Spec, held: WordFile) -> dict[str, Any]:
    """Hash a file here and have it opened by an idle worker, or a new one."""
    try:
        if not path.is_file():
            kind = "no such file" if not path.exists() else "a folder" if path.is_dir() else "no regular file"
            return {"reason": f"expected an audio file, found {kind}; check the path"}
        with path.open("rb") as file:
            found: dict[str, Any] = {"sha256": hashlib.file_digest(file, "sha256").hexdigest()}
        size = path.stat().st_size
    except (OSError, ValueError) as error:
        return {"reason": f"cannot be read ({reason_of(error)}); check its path and permissions"}
    with _lock:
        worker = _idle.pop() if _idle else None
    if worker is None or worker.process.poll() is not None:
        worker = _DecodeWorker()
    _busy.add(worker)
    found |= worker.ask({"path": str(path), "spec": to_plain(spec)}, SECONDS + SECONDS_PER_GB * size / 1e9)
    with _lock:
        _busy.discard(worker)
        if worker.process.poll() is None:
            _idle.append(worker)
    if "words" in found:
        found["words"] = held.put(found["words"])
    return found | {"reason": plain(found["reason"])}


class _DecodeWorker:
    """A process that inspects files one by one; it ends when its input does, so it never outlives this process."""

    def __init__(self) -> None:
        threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS", "NUMBA")}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            COMMAND,
            stdin=pipe,
            stdout=pipe,
            stderr=subprocess.DEVNULL,
            env=os.environ | threads,
            bufsize=0,
            start_new_session=True,  # Ctrl-C at the terminal is for the process that started this one
        )
        _busy.add(self)  # while it starts too: an interruption ends it at once
        if self._line(START_SECONDS) != b"ready":
            _busy.discard(self)
            self.end()
            raise EarwitnessError("the process that decodes files did not start; is the installation complete?")

    def ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Return the answer, or a ``reason`` alone if there is none in time."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            line = self._line(seconds)
            answer: dict[str, Any] = json.loads(line)
            if "words" in answer:
                answer["words"] = np.frombuffer(base64.b64decode(answer["words"]), np.uint32)
        except TimeoutError:
            self.end()
            return {"reason": f"decoding took longer than {seconds:.0f} s; export it again as WAV or FLAC"}
        except (OSError, ValueError):
            self.end()
            return {"reason": "the decoder crashed on it; export it again as WAV or FLAC, from a program you trust"}
        return answer

    def _line(self, seconds: float) -> bytes:
        """Return the next line of the worker, without its end; empty if the worker is gone."""
        assert self.process.stdout is not None
        deadline, held = time.monotonic() + seconds, b""
        while not held.endswith(b"\n"):
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError
            more = os.read(self.process.stdout.fileno(), 1 << 20)
            if not more:
                return b""
            held += more
        return held.strip()

    def end(self) -> None:
        """End the process, whatever it is doing."""
        self.process.kill()
        self.process.wait()


def look(path: Path, spec: Spec) -> dict[str, Any]:
    """Say what is in a file (the work of a worker); see ``inspect``."""
    found: dict[str, Any] = {"reason": ""}
    try:
        score = path.suffix.lower() in SCORES
        if score != isinstance(spec, SymbolicSpec):
            raise AudioError(MISTAKEN[score])  # noqa: TRY301
        found |= asdict(probe(path))
        found |= {} if score else {"tags": read_tags(path)}
        if score:
            notes = fingerprint.notes_of(read(path))
            found["notes"], printed = len(notes), fingerprint.words(notes)
        else:
            printed = words(_long(path, found) if is_long(path) else _whole(path, found))
        found["words"] = base64.b64encode(printed.tobytes()).decode()
        found["segments"] = sum(1 for _ in segments(path, spec))
    except AudioError as error:
        found["reason"] = str(error).removeprefix(f"{path.name}: ")
    except MemoryError:
        found["reason"] = f"needs more than {MEMORY_GIB} GiB to decode; split it into works first"
    except Exception as error:  # whatever a decoder may raise costs this recording only
        why = reason_of(error) if isinstance(error, OSError) else type(error).__name__
        found["reason"] = f"cannot be read ({why}); check the file and its permissions"
    return found


def _whole(path: Path, found: dict[str, Any]) -> np.ndarray:
    """Measure a recording that fits into memory and return it as the fingerprint hears it, ``[samples]``."""
    audio, rate = decode(path)
    found["duration_s"] = audio.shape[1] / rate
    found |= _measures(float(np.mean(np.square(audio, dtype=np.float64))) if audio.size else 0.0, audio, rate)
    mono: np.ndarray = condition(audio, rate, SPEC, path.name)[0]
    return mono


def _long(path: Path, found: dict[str, Any]) -> np.ndarray:
    """Do the same by window; of the bandwidth only the middle minute is asked."""
    power, samples, position, middle = 0.0, 0, 0, []
    with opened(path) as file:
        start = max(0, round(found["duration_s"] * file.samplerate) // 2 - 30 * file.samplerate)
        end = start + 60 * file.samplerate
        while len(block := file.read(1 << 20, dtype="float32", always_2d=True)):
            power += float(np.square(block, dtype=np.float64).sum())
            samples += block.size
            middle.append(block[max(0, start - position) : max(0, end - position)].copy())
            position += len(block)
        found |= _measures(power / max(1, samples), np.concatenate(middle).T, file.samplerate)
    return np.concatenate(list(blocks(path, SPEC)), axis=1)[0]


def _measures(power: float, audio: np.ndarray, rate: int) -> dict[str, float]:
    """Return level and bandwidth: the highest frequency less than 60 dB under the strongest, where it can be told."""
    if not math.isfinite(power) or power <= 0:
        return {}
    frequency, density = scipy.signal.welch(audio.mean(axis=0), rate, nperseg=min(2048, audio.shape[1]))
    strong = frequency[density >= density.max() * 10 ** (BANDWIDTH_DB / 10)]
    return {"level_dbfs": 10 * math.log10(power), "bandwidth_hz": float(strong[-1])}


def _confine() -> None:
    """Give up what a decoder does not need: memory without end, files of its own, a core dump."""
    for kind, limit in (
        (resource.RLIMIT_AS, MEMORY_GIB << 30),
        (resource.RLIMIT_FSIZE, WRITABLE_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        with contextlib.suppress(ValueError, OSError):  # not every system knows every limit
            resource.setrlimit(kind, (limit, limit))


def main() -> None:
    """Serve requests, one JSON object a line, until the input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # a library that prints must not write between the answers
    _confine()
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(look(Path(request["path"]), from_plain(request["spec"]))), file=answers, flush=True)


if __name__ == "__main__":
    main()
