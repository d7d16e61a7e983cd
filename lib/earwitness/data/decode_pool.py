"""Files are opened in worker processes that may die without taking the audit along: at the check, and to be scored.

A decoder is the part of this program that a hostile file talks to. Each worker is a process of its own with limits on
memory, on time and on writing, and no other process decodes. It answers in data, JSON and raw arrays of numbers, so
that nothing it says is executed. A crash, a hang or a refusal costs one recording, which is left out with the reason.
The book page *Threat model* says what this does not stop.

A worker is asked to do a job: ``inspect`` and ``segments`` name them. Workers stay until the process that started them
ends, and serve whoever asks next.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import import_module
from itertools import islice
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy.fft import rfft

from earwitness.data import audio
from earwitness.data.audio import Gathered, LongRecording, Loudness, Spec, from_plain, pieces_of, to_plain
from earwitness.data.containers import State, content_hash, opened, refuse_no_score, state_of
from earwitness.data.fingerprint import SPEC, WordFile, words
from earwitness.data.tags import read_tags
from earwitness.errors import AudioError, EarwitnessError
from earwitness.symbolic import fingerprint
from earwitness.symbolic.midi import read
from earwitness.symbolic.windows import SymbolicSpec
from earwitness.types import SCORES, FileInfo, Segment, Window
from earwitness.util import plain, reason_of

MEMORY_GIB = 8  # address space of a worker
SECONDS, SECONDS_PER_GB = 60.0, 300.0  # of computing for one file: a base, and more for larger ones
PATIENCE = 5  # times as long by the clock, as other programs want the processor too
START_SECONDS = 120.0
WRITABLE_BYTES = 0  # what a worker may write to any one file
AHEAD = 16  # answers a worker holds ready
MESSAGE_BYTES = 1 << 30  # of one answer's arrays
FIRSTS_BYTES = 1 << 28  # of first segments that are kept
KINDS = ("|b1", "|i1", "|u1", *(f"<{kind}" for kind in ("i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")))
BANDWIDTH_DB = -60.0  # relative to the strongest frequency
FRAME = 2048  # samples of one spectrum; they overlap by half
MISTAKEN = {
    True: "a MIDI file, and this model hears sound; name a model that reads MIDI, or give the recordings",
    False: "a recording, and this model reads MIDI; give MIDI files, or name a model that hears",
}
TOO_LONG = "decoding took longer than {:.0f} s; export it again as WAV or FLAC"
COMMAND = [sys.executable, "-m", "earwitness.data.decode_pool"]
HERE = "earwitness.data.decode_pool"

Answer = tuple[dict[str, Any], dict[str, NDArray[Any]]]
Key = tuple[Path, State, str]

_idle: list[DecodeWorker] = []
_busy: set[DecodeWorker] = set()
_lock = threading.Lock()
_surveys: dict[Key, dict[str, Any]] = {}  # of long recordings, which need not be surveyed again
_firsts: dict[Key, Segment] = {}  # first segments of what was scored: some are shown in the report

# --- what is asked ----------------------------------------------------------------------------------------------------


def inspect(paths: Sequence[Path], spec: Spec, *, workers: int = 2, job: str = f"{HERE}:look") -> list[dict[str, Any]]:
    """Open every file in a worker and say what is in it.

    Parameters
    ----------
    paths : sequence of Path
        Files, whatever they hold.
    spec : Spec
        What the target model hears; decides how many segments a recording gives.
    workers : int
        Processes at a time. They stay until this process ends, and serve the next call.
    job : str
        ``module:function``, as :func:`look` or one that finds out more.

    Returns
    -------
    list of dict
        In the order of ``paths``; whatever could be found out of ``sha256``, ``format``, ``codec``, ``sample_rate``,
        ``channels``, ``duration_s``, ``level_dbfs``, ``bandwidth_hz``, ``notes`` (of a score), ``segments``, ``words``
        (the fingerprint, in a temporary file: ``StoredWords``), ``tags``, ``remark`` (what is odd about a
        recording that is used whole all the same); and ``reason``, empty for a recording that can be used.

    Raises
    ------
    EarwitnessError
        Workers cannot be started at all, or fingerprints cannot be written.
    """
    pool = ThreadPoolExecutor(max(1, workers))
    held = WordFile()
    asked = [pool.submit(_one, path, spec, job, held) for path in paths]
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


def _one(path: Path, spec: Spec, job: str, held: WordFile) -> dict[str, Any]:
    """Hash a file here and have it opened by an idle worker, or a new one."""
    found: dict[str, Any] = {}
    try:
        found["sha256"] = content_hash(path)
        key = key_of(path, spec)
        for values, arrays in ask(job, path, spec):
            found |= values | arrays
        if key != key_of(path, spec):
            found["reason"] = "it changes while it is read; wait until it is written, and run again"
    except AudioError as error:
        found["reason"] = str(error).removeprefix(f"{path.name}: ")
    except (OSError, ValueError) as error:
        found["reason"] = f"cannot be read ({reason_of(error)}); check its path and permissions"
    if survey := found.pop("survey", None):
        _surveys[key] = survey
    if "words" in found:
        found["words"] = held.put(found["words"])
    return found | {"reason": plain(found["reason"]), "remark": plain(found.get("remark", ""))}


def segments(path: Path, spec: Spec) -> Iterator[Segment]:
    """Yield the segments of a recording, as ``audio.segments`` cuts them, in a worker.

    Raises
    ------
    AudioError
        As ``audio.segments``; a decoder that crashes or takes too long.
    """
    told = 0
    with contextlib.suppress(OSError):
        if (first := _firsts.get(key_of(path, spec))) is not None:
            told = 1
            yield first
    for answer in islice(ask(f"{HERE}:cuts", path, spec), told, None):
        yield segment_of(answer, path, spec)


def key_of(path: Path, spec: Spec) -> Key:
    """Return what everything that is known of a recording as a model hears it is kept by."""
    return path, state_of(path), json.dumps(to_plain(spec), sort_keys=True)


def keep_first(path: Path, spec: Spec, segment: Segment) -> None:
    """Keep a recording's first segment for those who ask for no more."""
    if (len(_firsts) + 1) * segment.audio.nbytes <= FIRSTS_BYTES:  # one model's are of one size
        with contextlib.suppress(OSError):
            _firsts[key_of(path, spec)] = segment


def probe(path: Path) -> FileInfo:
    """Say what a file is, as ``audio.probe``, in a worker; once, as long as the file stays as it is."""
    try:
        return _probe(path.absolute(), state_of(path))
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError)
        why = "no such file" if missing else reason_of(error)
        raise AudioError(f"{path.name}: expected an audio file, found {why}; check the path") from None


@lru_cache(maxsize=1 << 16)
def _probe(path: Path, state: State) -> FileInfo:
    ((values, _),) = ask(f"{HERE}:header", path, None)
    return FileInfo(**values)


def ask(job: str, path: Path, spec: Spec | None, **more: Any) -> Iterator[Answer]:
    """Have a job done by an idle worker, or a new one, and yield what it answers.

    Parameters
    ----------
    job : str
        ``module:function``: a generator of (values, arrays) that is called with ``path``, ``spec`` and ``more``.

    Raises
    ------
    AudioError
        What the job raises; a worker that dies or takes too long.
    EarwitnessError
        No worker can be started.
    """
    request, told = request_for(job, path, spec, **more), 0
    for last in (False, True):  # once more: what crashes by chance does not cost a recording
        worker = borrow()
        try:
            worker.send(request)
            with contextlib.closing(worker.answers(path)) as found:
                for answer in islice(found, told, None):
                    told += 1
                    yield answer
                return
        except WorkerDiedError:
            if last:
                raise
        finally:
            give_back(worker)


def request_for(job: str, path: Path, spec: Spec | None, **more: Any) -> bytes:
    """Return the line that asks a worker for a job."""
    seconds = SECONDS
    with contextlib.suppress(OSError, ValueError):
        seconds += SECONDS_PER_GB * path.stat().st_size / 1e9
        if spec is not None and (survey := _surveys.get(key_of(path, spec))):
            more = more | {"survey": survey}
    plainly = None if spec is None else to_plain(spec)
    asked = {"job": job, "path": str(path), "spec": plainly, "seconds": seconds, "more": more}
    return json.dumps(asked).encode() + b"\n"


# --- workers, as this process sees them -------------------------------------------------------------------------------


class WorkerDiedError(AudioError):
    """A worker that is gone, or talks nonsense, where an answer was expected."""


def borrow() -> DecodeWorker:
    """Return an idle worker, or a new one."""
    with _lock:
        while _idle:
            worker = _idle.pop()
            if worker.process.poll() is None:
                _busy.add(worker)
                return worker
    return DecodeWorker()


def give_back(worker: DecodeWorker) -> None:
    """Keep a worker for the next to ask, unless it is in the middle of something."""
    with _lock:
        _busy.discard(worker)
        if worker.process.poll() is None and not worker.pending:
            _idle.append(worker)
            return
    worker.end()


class DecodeWorker:
    """A process that does jobs one by one; it ends when its input does, so it never outlives this process."""

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
        self.pending = 0  # jobs asked for and not answered to their end
        self._seconds: list[float] = []
        self._held = bytearray()
        _busy.add(self)  # while it starts too: an interruption ends it at once
        try:
            ready = self._line(START_SECONDS)
        except (OSError, TimeoutError, EOFError):
            ready = bytearray()
        if ready != b"ready":
            _busy.discard(self)
            self.end()
            raise EarwitnessError("the process that decodes files did not start; is the installation complete?")

    def send(self, request: bytes) -> None:
        """Ask for a job; its answers come after those to the jobs before."""
        assert self.process.stdin is not None
        self.pending += 1
        self._seconds.append(PATIENCE * json.loads(request)["seconds"])
        with contextlib.suppress(BrokenPipeError):  # it has died; taking from it says so
            self.process.stdin.write(request)

    def answers(self, path: Path) -> Generator[Answer]:
        """Yield the answers to the next job.

        Raises
        ------
        AudioError
            What the job raises; a worker that dies (``WorkerDiedError``) or takes too long.
        """
        seconds = self._seconds.pop(0)
        try:
            while True:
                values, arrays = self._answer(seconds)
                if "end" in values:
                    self.pending -= 1
                    if values["end"]:
                        raise AudioError(str(values["end"]))
                    return
                yield values, arrays
        except TimeoutError:
            self.end()
            raise AudioError(f"{path.name}: {TOO_LONG.format(seconds)}") from None
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5.0 if isinstance(error, EOFError) else 0.0)  # how it ended is then known
            self.end()
            if self.process.returncode == -signal.SIGXCPU:
                raise AudioError(f"{path.name}: {TOO_LONG.format(seconds / PATIENCE)}") from None
            text = "the decoder crashed on it; export it again as WAV or FLAC, from a program you trust"
            raise WorkerDiedError(f"{path.name}: {text}") from None
        except GeneratorExit:  # nobody wants the rest: it is on its way
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, EOFError, TimeoutError):
                while "end" not in self._answer(seconds)[0]:
                    pass
                self.pending -= 1
            raise

    def _answer(self, seconds: float) -> Answer:
        """Read one answer: a line of JSON, then the arrays that it announces."""
        until = time.monotonic() + seconds
        line = json.loads(self._line(seconds))
        values, arrays = line["values"], {}
        for name, kind, shape in line["arrays"]:
            if kind not in KINDS or min(shape, default=0) < 0:
                raise ValueError("no array of numbers")
            size = math.prod(shape) * np.dtype(kind).itemsize
            if size > MESSAGE_BYTES:
                raise ValueError("an array too large")
            arrays[str(name)] = np.frombuffer(self._take(size, until), kind).reshape(shape)
        if not isinstance(values, dict):
            raise TypeError("no values by name")
        return values, arrays

    def _line(self, seconds: float) -> bytearray:
        """Return the next line of the worker, without its end."""
        until, seen = time.monotonic() + seconds, 0
        while (end := self._held.find(b"\n", seen)) < 0:
            seen = len(self._held)
            if seen > MESSAGE_BYTES >> 4:
                raise ValueError("a line too long")
            self._more(until)
        return self._take(end + 1, until)[:-1]

    def _take(self, size: int, until: float) -> bytearray:
        while len(self._held) < size:
            self._more(until)
        found = self._held[:size]
        del self._held[:size]
        return found

    def _more(self, until: float) -> None:
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], max(0.0, until - time.monotonic()))[0]:
            raise TimeoutError
        more = os.read(self.process.stdout.fileno(), 1 << 20)
        if not more:
            raise EOFError
        self._held += more

    def end(self) -> None:
        """End the process, whatever it is doing."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


# --- jobs: what a worker does -----------------------------------------------------------------------------------------


def header(path: Path, spec: None) -> Iterator[Answer]:
    """Say what a file is by its structure; the job of ``probe``."""
    yield asdict(audio.probe(path)), {}


def cuts(path: Path, spec: Spec, survey: dict[str, Any] | None = None) -> Iterator[Answer]:
    """Cut a recording; the job of ``segments``."""
    known = LongRecording.from_plain(survey) if survey else None
    for segment in audio.segments(path, spec, known):
        yield answer_of(segment)


def look(path: Path, spec: Spec, survey: dict[str, Any] | None = None) -> Iterator[Answer]:
    """Say what is in a file; the job of ``inspect``."""
    found, arrays, _ = examined(path, spec)
    yield found, arrays


def examined(path: Path, spec: Spec) -> tuple[dict[str, Any], dict[str, NDArray[Any]], list[Segment] | LongRecording]:
    """Decode a file once: return what ``inspect`` does, and its segments or, of a long recording, what cuts them."""
    found: dict[str, Any] = {"reason": ""}
    arrays: dict[str, NDArray[Any]] = {}
    pieces: list[Segment] | LongRecording = []
    try:
        score = path.suffix.lower() in SCORES
        if score != isinstance(spec, SymbolicSpec):
            raise AudioError(MISTAKEN[score])  # noqa: TRY301
        if isinstance(spec, SymbolicSpec):
            pieces = _score(path, spec, found, arrays)
        else:
            pieces = _recording(path, spec, found, arrays)
    except Exception as error:  # whatever a decoder may raise costs this recording only
        found["reason"] = reason_for(path, error).removeprefix(f"{path.name}: ")
    return found, arrays, pieces


def reason_for(path: Path, error: Exception) -> str:
    """Return why a file cannot be used, after its name."""
    if isinstance(error, AudioError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"{path.name}: needs more than {MEMORY_GIB} GiB to decode; split it into works first"
    why = reason_of(error) if isinstance(error, OSError) else type(error).__name__
    return f"{path.name}: cannot be read ({why}); check the file and its permissions"


def _score(path: Path, spec: SymbolicSpec, found: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> list[Segment]:
    """Measure a score and return its windows."""
    refuse_no_score(path)
    found |= asdict(audio.probe(path))
    notes = fingerprint.notes_of(read(path))
    found["notes"], arrays["words"] = len(notes), fingerprint.words(notes)
    pieces = list(audio.segments(path, spec))
    found["segments"] = len(pieces)
    return pieces


def _recording(
    path: Path, spec: audio.AudioSpec, found: dict[str, Any], arrays: dict[str, NDArray[Any]]
) -> list[Segment] | LongRecording:
    """Measure a recording while it is decoded, once, and cut it."""
    with opened(path) as sound:
        found |= asdict(sound.info)
        printed, heard = Gathered(sound.rate, SPEC, path.name, keep=True), Gathered(sound.rate, spec, path.name)
        spectrum, loudness = Spectrum(), Loudness()
        for piece in pieces_of(sound, path, loudness):
            mean = audio.mean_of(piece)
            printed.push(mean)
            heard.push(mean if spec.channels == 1 and not spec.first_channel else piece)
            spectrum.push(mean[0])
        found |= {"duration_s": sound.decoded / sound.rate, "remark": sound.remark, "tags": read_tags(path)}
        if math.isfinite(loudness.dbfs()):
            found |= {"level_dbfs": loudness.dbfs(), "bandwidth_hz": spectrum.bandwidth(sound.rate)}
    loudness.refuse_silence(path)
    mono = printed.end()
    assert isinstance(mono, np.ndarray)
    arrays["words"] = words(mono[0])
    pieces = heard.end()
    if isinstance(pieces, LongRecording):
        found |= {"survey": pieces.to_plain(), "segments": len(audio.offsets(pieces.digest, pieces.samples, spec))}
        return pieces
    cut = audio.cut(pieces, spec)
    found["segments"] = len(cut)
    return cut


class Spectrum:
    """Mean power of a recording by frequency: Welch's method, all frames of a piece in one transform."""

    def __init__(self) -> None:
        self._rest, self._power = np.zeros(0, np.float32), np.zeros(FRAME // 2 + 1)
        self._number = 0

    def push(self, mono: NDArray[np.float32]) -> None:
        """Take ``[samples]``."""
        mono = np.concatenate([self._rest, mono]) if len(self._rest) else mono
        number = max(0, (len(mono) - FRAME // 2) // (FRAME // 2))
        if number:
            self._add(np.lib.stride_tricks.sliding_window_view(mono, FRAME)[:: FRAME // 2])
        self._rest = mono[number * (FRAME // 2) :].copy()
        self._number += number

    def _add(self, frames: NDArray[np.float32]) -> None:
        taper = scipy.signal.get_window("hann", frames.shape[1]).astype(np.float32)
        for start in range(0, len(frames), 128):  # as much as a cache holds
            some = frames[start : start + 128]
            spectrum = rfft((some - some.mean(axis=1, keepdims=True)) * taper, axis=1)
            self._power += (np.square(spectrum.real) + np.square(spectrum.imag)).sum(axis=0, dtype=np.float64)

    def bandwidth(self, rate: int) -> float:
        """Return the highest frequency (Hz) less than 60 dB under the strongest."""
        size = FRAME
        if not self._number:
            size = len(self._rest)
            self._power = np.zeros(size // 2 + 1)
            self._add(self._rest[None])
        power = self._power.copy()
        power[1 : None if size % 2 else -1] *= 2  # of both signs
        strong = np.flatnonzero(power >= power.max() * 10 ** (BANDWIDTH_DB / 10))
        return float(strong[-1] * rate / size)


# --- segments as data -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class RemoteScore:
    """What is known here of a score: its notes, and the file whose neighbours a worker makes."""

    notes: NDArray[Any]
    path: Path
    spec: SymbolicSpec

    def neighbours(self, kind: str) -> list[list[Window]]:
        """Return the windows of each neighbour of one kind."""
        found: list[list[Window]] = []
        for values, arrays in ask(f"{HERE}:moved", self.path, self.spec, kind=kind):
            found += [[] for _ in range(values["neighbour"] + 1 - len(found))]
            if arrays:
                found[values["neighbour"]].append(_window(values, arrays, None))
        return found


def moved(path: Path, spec: SymbolicSpec, kind: str) -> Iterator[Answer]:
    """Make the neighbours of a score; the job of ``RemoteScore.neighbours``."""
    for number, other in enumerate(spec.scheme.neighbours(kind, spec.scheme.read(path))):
        yield {"neighbour": number}, {}
        for window in spec.scheme.windows(other):
            values, arrays = _plain_window(window)
            yield values | {"neighbour": number}, arrays


def answer_of(segment: Segment) -> Answer:
    """Return a segment as values and arrays."""
    values = {"segment_id": segment.segment_id, "start_s": segment.start_s}
    if segment.context is None:
        values |= {"total_s": segment.total_s}
        return values, {"audio": segment.audio}
    more, arrays = _plain_window(segment.context)
    notes = segment.context.score.notes
    return values | more | {"fields": list(notes.dtype.names)}, {
        **arrays,
        **{f"note:{name}": notes[name] for name in notes.dtype.names},
    }


def segment_of(answer: Answer, path: Path, spec: Spec) -> Segment:
    """Undo ``answer_of``."""
    values, arrays = answer
    name, start = str(values["segment_id"]), float(values["start_s"])
    if not isinstance(spec, SymbolicSpec):
        return Segment(name, start, arrays["audio"], total_s=float(values["total_s"]))
    columns = {field: arrays[f"note:{field}"] for field in values["fields"]}
    notes = np.zeros(len(next(iter(columns.values()))), [(field, column.dtype) for field, column in columns.items()])
    for field, column in columns.items():
        notes[field] = column
    window = _window(values, arrays, RemoteScore(notes, path, spec))
    return Segment(name, start, window.tokens[None], context=window)


def _plain_window(window: Window) -> Answer:
    lengths = np.array([len(bar) for bar in window.bar_tokens], np.int32)
    bars = np.concatenate([np.zeros(0, np.int32), *window.bar_tokens]).astype(np.int32)
    arrays: dict[str, NDArray[Any]] = {"tokens": window.tokens, "groups": window.groups, "label_notes": window.notes}
    arrays |= {f"input:{name}": values for name, values in window.inputs.items()}
    return {"index": int(window.index), "start": int(window.start)}, arrays | {"bars": bars, "lengths": lengths}


def _window(values: dict[str, Any], arrays: dict[str, NDArray[Any]], score: Any) -> Window:
    inputs = {name.removeprefix("input:"): held for name, held in arrays.items() if name.startswith("input:")}
    bars = np.split(arrays["bars"], np.cumsum(arrays["lengths"])[:-1]) if len(arrays["lengths"]) else []
    held = (arrays["tokens"], arrays["groups"], arrays["label_notes"])
    return Window(int(values["index"]), int(values["start"]), *held, inputs, tuple(bars), score)


# --- a worker's own life ----------------------------------------------------------------------------------------------


def _confine() -> None:
    """Give up what a decoder does not need: memory without end, files of its own, a core dump."""
    for kind, limit in (
        (resource.RLIMIT_AS, MEMORY_GIB << 30),
        (resource.RLIMIT_FSIZE, WRITABLE_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        with contextlib.suppress(ValueError, OSError):  # not every system knows every limit
            resource.setrlimit(kind, (limit, limit))


def _allow(seconds: float) -> None:
    """Let this process compute for so many seconds more; beyond that the system ends it."""
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used + seconds) + 1, resource.RLIM_INFINITY))


def _write(ready: Queue[Answer], answers: Any) -> None:
    try:
        while True:
            values, arrays = ready.get()
            held = [(name, np.ascontiguousarray(array)) for name, array in arrays.items()]
            listed = [[name, array.dtype.str, list(array.shape)] for name, array in held]
            answers.write(json.dumps({"values": values, "arrays": listed}).encode() + b"\n")
            for _, array in held:
                answers.write(array.data.cast("B") if array.size else b"")
            answers.flush()
    except OSError:
        os._exit(0)  # nobody is left to answer to


def _serve(request: dict[str, Any]) -> Iterator[Answer]:
    """Do one job and say how it ended."""
    path, text = Path(request["path"]), ""
    spec = None if request["spec"] is None else from_plain(request["spec"])
    module, _, name = request["job"].partition(":")
    try:
        yield from getattr(import_module(module), name)(path, spec, **request["more"])
    except Exception as error:  # whatever a decoder may raise costs this recording only
        text = reason_for(path, error)
    yield {"end": text}, {}


def main() -> None:
    """Serve requests, one JSON object a line, until the input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints must not write between the answers
    for library in ("av", "scipy.signal"):  # on this process's time, not on the first file's
        import_module(library)
    _confine()
    ready: Queue[Answer] = Queue(AHEAD)
    answers.write(b"ready\n")
    answers.flush()
    threading.Thread(target=_write, args=(ready, answers), daemon=True).start()
    for line in sys.stdin.buffer:
        request = json.loads(line)
        _allow(request["seconds"])
        for answer in _serve(request):
            ready.put(answer)
    os._exit(0)


if __name__ == "__main__":
    main()
