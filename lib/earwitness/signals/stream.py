"""Recordings become segments ahead of the model, in the processes of ``data.decode_pool``, in one fixed order.

A worker decodes, resamples, cuts and describes one recording after the other and holds at most ``decode_pool.AHEAD``
segments. Recordings go to the workers in turn and are taken back in the same turn, so results do not depend on how many
workers there are. See the book page *Methods: from audio to verdict*.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from itertools import islice
from types import TracebackType
from typing import Self

from earwitness.data import decode_pool
from earwitness.data.audio import Spec
from earwitness.data.containers import State, content_hash, state_of
from earwitness.data.decode_pool import DecodeWorker, WorkerDiedError
from earwitness.errors import AudioError
from earwitness.signals import blind
from earwitness.signals.store import track_key
from earwitness.types import Segment, Track

BYTES = 1 << 15  # of requests that wait in a worker's pipe, so that asking never has to wait

Answer = Segment | str | None  # a segment; at last None, or why the recording cannot be used


class _Task:
    """A recording that was asked for: under which key, in which state, and what is known of its segments."""

    def __init__(self, key: str, track: Track, spec: Spec) -> None:
        self.key, self.path, self.caption, self.spec = key, track.path, track.caption, spec
        self.alone = False  # whether a worker died in its turn, so that it is tried with no other task behind it
        self.state: State | None = None
        with suppress(OSError):
            self.state = state_of(self.path)
        self.known = blind.known(self.path, spec)
        job = f"{blind.JOBS}:described"
        self.request = decode_pool.request_for(job, self.path, spec, bare=self.known is not None)

    def segment(self, answer: decode_pool.Answer) -> Segment:
        """Return a segment with its blind features."""
        if self.known is None:
            return blind.segment_of(answer, self.path, self.spec, self.caption)
        segment = decode_pool.segment_of(answer, self.path, self.spec)
        values = self.known[segment.segment_id]
        return replace(segment, blind=blind.signals_of(values, self.spec, self.caption))

    def changed(self) -> str:
        """Say whether the file is no longer what was keyed; it is hashed again only if it was touched."""
        try:
            same = self.state == state_of(self.path) and self.key == self._key()
        except (AudioError, OSError) as error:
            return str(error)
        return "" if same else f"{self.path.name}: its bytes changed while scoring; run the same command again"

    def _key(self) -> str:
        return track_key(self.path, content_hash(self.path), self.caption)


class SegmentStream:
    """Segments of the recordings that are asked for, in that order.

    Parameters
    ----------
    spec : Spec
        What the model hears or reads.
    workers : int
        Worker processes; one at least, for recordings are decoded in no other.
    """

    def __init__(self, spec: Spec, workers: int = 0) -> None:
        self.spec, self.number = spec, max(1, workers)
        self.workers: list[DecodeWorker] = []
        self.asked: deque[tuple[_Task, int]] = deque()
        self.waiting: list[deque[_Task]] = []  # of each worker: what it was asked, and what it will be asked
        self.sent: list[deque[_Task]] = []
        self.turn = 0

    def __enter__(self) -> Self:
        """Workers start with the first recording."""
        return self

    def ask(self, part: Iterable[tuple[str, Track]]) -> None:
        """Ask for the recordings of a part; workers start on them at once."""
        for key, track in part:
            if len(self.workers) < self.number:
                self.workers.append(decode_pool.borrow())
                self.waiting.append(deque())
                self.sent.append(deque())
            number, task = self.turn % self.number, _Task(key, track, self.spec)
            self.turn += 1
            self.asked.append((task, number))
            self.waiting[number].append(task)
            self._send(number)

    def take(self, part: Iterable[tuple[str, Track]], failed: dict[str, str]) -> Iterator[tuple[str, Track, Segment]]:
        """Yield (key, track, segment) of a part asked for before; why a recording failed is noted by its key."""
        for key, track in part:
            task, number = self.asked.popleft()
            for answer in self._from(task, number):
                if isinstance(answer, str):
                    failed[key] = answer
                elif answer is not None:
                    yield key, track, answer

    def _send(self, number: int) -> None:
        """Send a worker what it can hold; while a task is tried alone, nothing else."""
        waiting, sent = self.waiting[number], self.sent[number]
        while waiting and not (sent and sent[0].alone):
            if sent and sum(len(task.request) for task in (*sent, waiting[0])) > BYTES:
                break
            task = waiting.popleft()
            sent.append(task)
            self.workers[number].send(task.request)

    def _from(self, task: _Task, number: int) -> Iterator[Answer]:
        """Yield a worker's answers to its next task, and at last None or why it failed.

        A worker that died is replaced, and its successor is asked for this task alone: one that works ahead can die of
        a later task, before it has told what it found. A task that kills two is given up.
        """
        told, why = 0, ""
        for last in (False, True):
            try:
                with closing(self.workers[number].answers(task.path)) as found:
                    for answer in islice(found, told, None):
                        segment = task.segment(answer)
                        if not told:
                            decode_pool.keep_first(task.path, self.spec, segment)
                        told += 1
                        yield segment
                why = task.changed()
                break
            except AudioError as error:
                why = str(error)
                if self.workers[number].process.poll() is None:  # it goes on with the next
                    break
                again = isinstance(error, WorkerDiedError) and not last
                self._replace(number, again=again)
                if not again:
                    yield why
                    return
        self.sent[number].popleft()
        self._send(number)
        yield why or None

    def _replace(self, number: int, *, again: bool) -> None:
        """Start another worker for what this one was asked; ``again``: also for the task that it died of, alone."""
        decode_pool.give_back(self.workers[number])
        self.workers[number] = decode_pool.borrow()
        self.sent[number][0].alone = again
        if not again:
            self.sent[number].popleft()
        self.waiting[number].extendleft(reversed(self.sent[number]))
        self.sent[number].clear()
        self._send(number)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the workers back; one that is in the middle of something ends."""
        for worker in self.workers:
            decode_pool.give_back(worker)
