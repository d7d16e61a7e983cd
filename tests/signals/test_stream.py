"""Decoding ahead: whatever the number of workers, the same segments in the same order, and nobody left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from earwitness.data import decode_pool
from earwitness.data.audio import AudioSpec
from earwitness.signals import blind
from earwitness.signals.store import deal, key_tracks, parts_of, seconds_of
from earwitness.signals.stream import SegmentStream
from earwitness.types import Track
from tests.tiny import container, recording, tune

SPEC = AudioSpec(16_000, 1, 0.5)


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, Track]]:
    root = tmp_path_factory.mktemp("audio")
    kinds = ["wav", "flac", "ogg", "mp3"]
    tracks = [
        Track(f"t{i}", recording(root / f"t{i}.{kinds[i % 4]}", 1 + i % 3, seed=i), "suspect", caption="x" * i)
        for i in range(7)
    ]
    (root / "text.wav").write_text("no audio")
    tracks.insert(3, Track("text", root / "text.wav", "suspect"))
    return key_tracks(tracks)[0]


def _all(keyed: list[tuple[str, Track]], workers: int, parts: int = 2) -> tuple[list, dict[str, str]]:
    failed: dict[str, str] = {}
    found = []
    cuts = [keyed[i::parts] for i in range(parts)]
    with SegmentStream(SPEC, workers) as stream:
        for part in cuts:
            stream.ask(part)
        for part in cuts:
            found += list(stream.take(part, failed))
    return found, failed


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_nothing(keyed: list[tuple[str, Track]], workers: int) -> None:
    here, failed_here = _all(keyed, 0)
    there, failed_there = _all(keyed, workers)
    assert [(key, s.segment_id, s.start_s) for key, _, s in here] == [(k, s.segment_id, s.start_s) for k, _, s in there]
    for (*_, a), (*_, b) in zip(here, there, strict=True):
        np.testing.assert_array_equal(a.audio, b.audio)
        assert repr(a.blind) == repr(b.blind)
    assert failed_here == failed_there
    assert "not readable as audio" in next(iter(failed_here.values()))
    assert len(failed_here) == 1


def test_a_recording_that_changes_after_it_was_keyed_is_noticed(tmp_path: Path) -> None:
    track = Track("a", recording(tmp_path / "a.wav", 2, seed=1), "suspect")
    keyed = key_tracks([track])[0]
    recording(track.path, 2, seed=2)
    for workers in (0, 1):
        assert "its bytes changed while scoring" in next(iter(_all(keyed, workers, parts=1)[1].values()))


def test_another_decoder_is_another_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What PyAV decodes is keyed by PyAV; what soundfile decodes is keyed by the store (``AudioSpec.key``)."""
    paths = [container(tmp_path / "a.m4a", tune(2.0, 1)), recording(tmp_path / "b.wav", 2, seed=2)]
    tracks = [Track(path.name, path, "suspect") for path in paths]
    before = [key for key, _ in key_tracks(tracks)[0]]
    assert not _all(key_tracks(tracks)[0], 0, parts=1)[1]
    monkeypatch.setattr("earwitness.data.containers.version", lambda: "av 99")
    after = [key for key, _ in key_tracks(tracks)[0]]
    assert (before[0] != after[0], before[1] == after[1]) == (True, True)


def test_a_worker_that_dies_by_chance_costs_nothing(keyed: list[tuple[str, Track]]) -> None:
    failed: dict[str, str] = {}
    there = [(key, segment.segment_id) for key, _, segment in _all(keyed, 1, parts=1)[0]]
    with SegmentStream(SPEC, 2) as stream:
        stream.ask(keyed)
        cuts = stream.take(keyed, failed)
        found = [next(cuts)]
        for worker in stream.workers:  # in the middle of a recording, before another
            worker.process.kill()
            worker.process.wait()
        found += list(cuts)
    assert len(failed) == 1, "the text that is no audio"
    assert [(key, segment.segment_id) for key, _, segment in found] == there


def test_a_recording_that_kills_its_worker_costs_itself(keyed: list[tuple[str, Track]]) -> None:
    failed: dict[str, str] = {}
    with SegmentStream(SPEC, 1) as stream:
        stream.ask(keyed)
        for task in stream.sent[0]:
            if task.key == keyed[2][0]:
                task.request = task.request.replace(b"earwitness.signals.blind:described", b"tests.tiny:die")
        stream.workers[0].process.kill()  # so that it is asked again
        stream.workers[0].process.wait()
        found = list(stream.take(keyed, failed))
    assert "the decoder crashed on it" in failed[keyed[2][0]]
    assert len(failed) == 2
    assert {key for key, *_ in found} == {key for key, _ in keyed} - set(failed)


def test_a_crash_is_not_blamed_on_what_was_found_before_it(keyed: list[tuple[str, Track]]) -> None:
    """The worker works ahead: when it dies of the third recording, what it found in the first is not told yet."""
    failed: dict[str, str] = {}
    with SegmentStream(SPEC, 1) as stream:
        stream.ask(keyed)
        for task in stream.sent[0]:
            job = b"tests.tiny:die" if task.key == keyed[2][0] else b"tests.tiny:described_late"
            task.request = task.request.replace(b"earwitness.signals.blind:described", job)
        stream.workers[0].process.kill()  # so that it is asked for these
        stream.workers[0].process.wait()
        found = list(stream.take(keyed, failed))
    assert set(failed) == {keyed[2][0], keyed[3][0]}
    assert {key for key, *_ in found} == {key for key, _ in keyed} - set(failed)


def test_more_is_asked_than_a_pipe_holds(tmp_path: Path) -> None:
    """Neither side waits for the other: requests beyond what a worker's pipe takes are sent as answers come."""
    path = recording(tmp_path / "a.wav", 1)
    keyed = key_tracks([Track(f"t{i}", path, "suspect", caption=f"{i}") for i in range(400)])[0]
    with SegmentStream(SPEC, 1) as stream:
        stream.ask(keyed)
        assert sum(len(task.request) for task in stream.sent[0]) < 1 << 16
        assert len(stream.waiting[0]) > 100
        assert len({key for key, *_ in stream.take(keyed, {})}) == 400


def test_what_the_check_found_is_not_found_again(keyed: list[tuple[str, Track]]) -> None:
    """Blind features are made once, and are those that scoring would make."""
    tracks = [track for _, track in keyed]
    before = _all(keyed, 1)[0]
    answers = blind.inspect([track.path for track in tracks], SPEC)
    assert [bool(answer["reason"]) for answer in answers] == [track.track_id == "text" for track in tracks]
    with SegmentStream(SPEC, 1) as stream:
        stream.ask(keyed)
        assert [task.known is None for task, _ in stream.asked] == [track.track_id == "text" for track in tracks]
        after = list(stream.take(keyed, {}))
    for (*_, a), (*_, b) in zip(sorted(before, key=lambda x: x[0]), sorted(after, key=lambda x: x[0]), strict=True):
        assert (a.segment_id, repr(a.blind)) == (b.segment_id, repr(b.blind))


@pytest.mark.slow
def test_a_worker_holds_a_bounded_number_of_segments(tmp_path: Path) -> None:
    """A worker that nobody reads from stops working: its processor time does not grow any more."""
    track = Track("a", recording(tmp_path / "a.wav", 60), "suspect")
    keyed = key_tracks([track])[0]
    with SegmentStream(replace(SPEC, segment_seconds=0.1), 1) as stream:
        stream.ask(keyed)
        import psutil

        process = psutil.Process(stream.workers[0].process.pid)
        used = [-1.0, 0.0]
        while used[-1] != used[-2] or used[-1] < 0.3:
            time.sleep(0.5)
            used.append(process.cpu_times().user)
        assert decode_pool.AHEAD < 600
        assert len(list(stream.take(keyed, {}))) == 600


@pytest.mark.slow
def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    path = recording(tmp_path / "a.wav", 60)
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom earwitness.data.audio import AudioSpec\n"
        "from earwitness.types import Track\nfrom earwitness.signals.store import key_tracks\n"
        "from earwitness.signals.stream import SegmentStream\n"
        "stream = SegmentStream(AudioSpec(16000, 1, 0.1), 2)\n"
        "stream.ask(key_tracks([Track('a', Path(sys.argv[1]), 'suspect', caption=c) for c in 'abcd'])[0])\n"
        "print(*[worker.process.pid for worker in stream.workers], flush=True)\ntime.sleep(60)"
    )
    run = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    workers = [int(word) for word in run.stdout.readline().split()]
    assert len(workers) == 2
    run.send_signal(signal.SIGKILL)
    run.wait()
    deadline = time.monotonic() + 30
    while any(_alive(pid) for pid in workers):
        assert time.monotonic() < deadline, "a worker outlives its parent"
        time.sleep(0.1)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


# --- shards ---


def _tracks(lengths: list[float]) -> list[Track]:
    return [Track(f"t{i:03d}", Path("none.wav"), "suspect", duration_s=s) for i, s in enumerate(lengths)]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 40])
def test_shards_partition_the_tracks_and_are_balanced(count: int) -> None:
    rng = np.random.default_rng(0)
    tracks = _tracks(rng.lognormal(5, 1, 200).tolist())
    shards = [deal(tracks, (i + 1, count)) for i in range(count)]
    assert sorted(t.track_id for shard in shards for t in shard) == [t.track_id for t in tracks]
    loads = [sum(t.duration_s for t in shard) for shard in shards]
    assert max(loads) - min(loads) <= max(t.duration_s for t in tracks)
    again = [deal(tracks[::-1], (i + 1, count)) for i in range(count)]
    assert [{t.track_id for t in a} for a in shards] == [{t.track_id for t in b} for b in again]


def test_lengths_that_nobody_knows_count_alike(tmp_path: Path) -> None:
    tracks = _tracks([float("nan")] * 4 + [-5.0, 1e9])
    assert np.isnan(seconds_of(tracks[0]))
    assert len(deal(tracks, (1, 2))) == 1, "the longest is a shard of its own"


def test_parts_are_bounded_by_tracks_and_by_seconds() -> None:
    keyed = [(f"{i:03d}", track) for i, track in enumerate(_tracks([200.0] * 40 + [4000.0] * 2 + [1.0] * 70))]
    parts = parts_of(keyed[::-1])
    assert [key for part in parts for key, _ in part] == [key for key, _ in keyed]
    assert [len(part) for part in parts] == [18, 18, 4, 1, 1, 32, 32, 6]
    assert parts == parts_of(keyed)
