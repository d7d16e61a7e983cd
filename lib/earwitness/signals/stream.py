"""Recordings become segments ahead of the model: here or in worker processes, in one fixed order, never many at once.

A worker is a Python process of its own that decodes, resamples, cuts and describes one recording after the other and
holds at most ``AHEAD`` segments. It ends when the process that started it ends, however that ends: its pipe is then
closed. Recordings go to the workers in turn and are taken back in the same turn, so results do not depend on how
many workers there are. See the book page *Methods: from audio to verdict*.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import traceback
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from queue import Queue
from types import TracebackType
from typing import IO, Any, Self

from earwitness.data.audio import Spec, segments
from earwitness.errors import AudioError
from earwitness.signals import blind
from earwitness.signals.store import track_key
from earwitness.types import Segment, Track
from earwitness.util import file_hash

AHEAD = 16  # segments a worker holds ready

Task = tuple[str, Path, str]  # track key, recording, caption
Answer = Segment | str | None  # a segment; at last None, or why the recording cannot be used


def answers(task: Task, spec: Spec) -> Iterator[Answer]:
    """Yield the segments of a recording with their blind features; at last None, or why it cannot be used."""
    key, path, caption = task
    try:
        for segment in segments(path, spec):
            yield replace(segment, blind=blind.of_segment(segment, spec, path, caption))
        changed = track_key(path, file_hash(path), caption) != key
    except (AudioError, OSError) as error:
        yield str(error)
        return
    yield f"{path.name}: its bytes changed while scoring; run the same command again" if changed else None


class _StreamWorker:
    """A process that answers tasks in the order they come."""

    def __init__(self, spec: Spec) -> None:
        one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "earwitness.signals.stream"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | one_thread,
            start_new_session=True,  # Ctrl-C at the terminal is for the process that started this one
        )
        self.send(spec)

    def send(self, message: Any) -> None:
        assert self.process.stdin is not None
        pickle.dump(message, self.process.stdin)
        self.process.stdin.flush()

    def take(self) -> Any:
        assert self.process.stdout is not None
        return pickle.load(self.process.stdout)  # noqa: S301 (written by our own process)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


class SegmentStream:
    """Segments of the recordings that are asked for, in that order.

    Parameters
    ----------
    spec : Spec
        What the model hears or reads.
    workers : int
        Worker processes; 0 decodes when a segment is asked for, in this process.
    """

    def __init__(self, spec: Spec, workers: int = 0) -> None:
        self.spec, self.number = spec, workers
        self.workers: list[_StreamWorker] = []
        self.asked: deque[tuple[Task, _StreamWorker | None]] = deque()
        self.turn = 0

    def __enter__(self) -> Self:
        """Workers start with the first recording."""
        return self

    def ask(self, part: Iterable[tuple[str, Track]]) -> None:
        """Ask for the recordings of a part; workers start on them at once."""
        for key, track in part:
            task = (key, track.path, track.caption)
            worker = None
            if self.number:
                if len(self.workers) < self.number:
                    self.workers.append(_StreamWorker(self.spec))
                worker = self.workers[self.turn % self.number]
                self.turn += 1
                self._send(worker, task)
            self.asked.append((task, worker))

    def take(self, part: Iterable[tuple[str, Track]], failed: dict[str, str]) -> Iterator[tuple[str, Track, Segment]]:
        """Yield (key, track, segment) of a part asked for before; why a recording failed is noted by its key."""
        for key, track in part:
            task, worker = self.asked.popleft()
            for answer in answers(task, self.spec) if worker is None else self._from(worker, task):
                if isinstance(answer, str):
                    failed[key] = answer
                elif answer is not None:
                    yield key, track, answer

    def _send(self, worker: _StreamWorker, task: Task) -> None:
        try:
            worker.send(task)
        except BrokenPipeError:
            return  # it has died; taking from it says so

    def _from(self, worker: _StreamWorker, task: Task) -> Iterator[Answer]:
        """Yield a worker's answers to its next task; a worker that died is replaced, and gets its other tasks again."""
        answer: Answer = Segment("", 0.0, None)  # type: ignore[arg-type]
        while isinstance(answer, Segment):
            try:
                answer = worker.take()
            except (EOFError, pickle.UnpicklingError):
                self._replace(worker)
                answer = f"{task[1].name}: the process that decoded it died; convert it to WAV or FLAC, or leave it out"
            yield answer

    def _replace(self, worker: _StreamWorker) -> None:
        worker.end()
        worker.__init__(self.spec)  # type: ignore[misc]
        for task, asked in self.asked:
            if asked is worker:
                self._send(worker, task)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the workers."""
        for worker in self.workers:
            worker.end()


def serve(pipe: IO[bytes], results: IO[bytes]) -> None:
    """Answer tasks until there are no more, with at most ``AHEAD`` segments ready (the worker's main loop)."""
    spec = pickle.load(pipe)  # noqa: S301 (from the process that started this one)
    tasks: Queue[Any] = Queue()
    ready: Queue[Any] = Queue(AHEAD)

    def listen() -> None:
        try:
            while True:
                tasks.put(pickle.load(pipe))  # noqa: S301
        except EOFError:
            os._exit(0)  # nobody is left to answer to

    def work() -> None:
        try:
            while True:
                for answer in answers(tasks.get(), spec):
                    ready.put(answer)
        except BaseException:
            traceback.print_exc()
            os._exit(1)

    for job in (listen, work):
        threading.Thread(target=job, daemon=True).start()
    while True:
        pickle.dump(ready.get(), results, protocol=5)
        results.flush()


if __name__ == "__main__":
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not end up among the results
    try:
        serve(sys.stdin.buffer, out)
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(0)
