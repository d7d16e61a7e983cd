"""Nothing that was scored is lost: killed, interrupted, crowded and robbed runs, with real processes and signals."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from earwitness import cli
from earwitness.data.manifest import read_manifest
from earwitness.errors import ModelError, StoppedError
from earwitness.signals import extraction
from earwitness.signals.extraction import Signals, collect
from tests.tiny import musicgen, recording

TRACKS = 9
SMALL = "import earwitness.signals.store as s\ns.PART_TRACKS = 1\n"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, a manifest and a few recordings in four formats, one of them no audio at all."""
    root = tmp_path_factory.mktemp("corpus")
    rows = ["path,role,caption"]
    for i in range(TRACKS):
        recording(root / f"{i}.{['wav', 'flac', 'ogg', 'mp3'][i % 4]}", 1.4 + i % 3, seed=i)
        rows.append(f"{i}.{['wav', 'flac', 'ogg', 'mp3'][i % 4]},{['suspect', 'held_out'][i % 2]},sad rock")
    (root / "text.wav").write_text("no audio")
    (root / "m.csv").write_text("\n".join([*rows, "text.wav,suspect,x"]) + "\n")
    musicgen(root / "model")
    return root


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / "results"))
    monkeypatch.setattr("earwitness.signals.store.PART_TRACKS", 2)
    return tmp_path / "results"


def _collect(corpus: Path, **options: object) -> Signals:
    return collect(str(corpus / "model"), read_manifest(corpus / "m.csv"), **options)


def _content(signals: Signals) -> dict[str, bytes]:
    """Everything that was scored, by segment, as bytes: equal dictionaries mean equality to the bit."""
    return {
        row["segment_id"]: b"".join(np.ascontiguousarray(a).tobytes() for _, a in sorted(s.to_arrays().items()))
        for row, s in signals.items("token")
    }


@pytest.fixture(scope="module")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an undisturbed run gives."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EARWITNESS_RESULTS", str(tmp_path_factory.mktemp("whole")))
        patch.setattr("earwitness.signals.store.PART_TRACKS", 2)
        return _content(_collect(corpus))


# --- killed ---

KILLED = """
import json, os, signal, sys, time
from pathlib import Path
import numpy as np
import earwitness.signals.store
import earwitness.signals.extraction
from earwitness.data.manifest import read_manifest
from earwitness.models import load_model
from earwitness.signals.extraction import collect

earwitness.signals.store.PART_TRACKS = 2
score_part = earwitness.signals.extraction.score_part


def score_slowly(*given, **named):
    time.sleep(0.3)  # spreads the parts over the whole run, so that kills fall between them on any machine
    return score_part(*given, **named)


earwitness.signals.extraction.score_part = score_slowly
corpus, root, kills = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
tracks = read_manifest(corpus / "m.csv")
load_model(str(corpus / "model"))  # what is imported once need not be imported by every process that is killed


def begin(folder, workers):
    pid = os.fork()
    if pid:
        return pid
    os.environ["EARWITNESS_RESULTS"] = str(folder)
    collect(str(corpus / "model"), tracks, workers=workers)
    os._exit(0)


started = time.monotonic()
os.waitpid(begin(root / "timing", 0), 0)
span = time.monotonic() - started
rng = np.random.default_rng(int(sys.argv[4]))
left = []
for number in range(kills):
    folder = root / str(number)
    pid = begin(folder, number % 2)
    time.sleep(float(rng.uniform(0, span)))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    left.append(len(list(folder.rglob("part-*.parquet"))))
    _, code = os.waitpid(begin(folder, 0), 0)
    assert code == 0, code
print(json.dumps(left))
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_at_any_moment_the_next_run_ends_bit_identical(
    corpus: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = 24
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    arguments = [sys.executable, str(script), str(corpus), str(tmp_path), str(kills), "1"]
    run = subprocess.run(arguments, capture_output=True, text=True, timeout=500)
    assert run.returncode == 0, run.stderr
    left = json.loads(run.stdout)
    assert len(left) == kills
    assert len(set(left)) >= 3, f"the kills were to fall before, between and after parts: {left}"
    monkeypatch.setattr(
        extraction, "load_model", lambda *_, **__: pytest.fail("something is missing after a second run")
    )
    for number in range(kills):
        monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / str(number)))
        signals = _collect(corpus)
        assert _content(signals) == whole
        assert signals.exclusions["track_id"].tolist() == ["text.wav"]


MOMENTS = {
    "before the file": "os.open = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)",
    "in the middle of it": (
        "def half(*_):\n    unfinished = next(Path(sys.argv[1]).rglob('.part-*.part'))\n"
        "    os.truncate(unfinished, unfinished.stat().st_size // 2)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "os.fsync = half"
    ),
    "before it is flushed": "os.fsync = lambda *_: os.kill(os.getpid(), signal.SIGKILL)",
    "before it is renamed": "Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)",
    "after it is renamed": (
        "replace = Path.replace\nPath.replace = lambda *a: (replace(*a), os.kill(os.getpid(), signal.SIGKILL))"
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_while_a_part_is_written(moment: str, results: Path) -> None:
    """Every step of a write is a moment to die at; the store is then as before it, or as after it."""
    code = (
        "import os, signal, sys\nfrom tests.signals.test_store import *\nstore = Store(INFO, SPEC)\n"
        "store.write(rows(2, seed=1), 'part-first.parquet')\n" + MOMENTS[moment] + "\nstore.write(rows())"
    )
    run = subprocess.run([sys.executable, "-c", code, str(results)], capture_output=True, text=True, timeout=60)
    assert run.returncode == -signal.SIGKILL, run.stderr
    from tests.signals.test_store import INFO, SPEC, rows

    store = extraction.Store(INFO, SPEC)
    assert len(store.index()) == (6 if moment == "after it is renamed" else 2)
    store.write(rows())
    assert len(store.index()) == 6
    assert len(list(results.rglob("part-*.parquet"))) == 2
    assert not list(results.rglob("*.damaged"))


# --- interrupted ---


def _command(corpus: Path, *more: str, before: str = SMALL) -> subprocess.Popen[str]:
    code = f"{before}from earwitness.cli import main\nmain()"
    arguments = ["score", f"--model={corpus / 'model'}", f"--manifest={corpus / 'm.csv'}", *more]
    # What a shell starts in the background ignores interruptions, and its children with it; a person's shell does not.
    heard = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    return subprocess.Popen(
        [sys.executable, "-c", heard + code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_says_how_to_go_on(
    corpus: Path, whole: dict[str, bytes], results: Path, number: signal.Signals
) -> None:
    slow = SMALL + "import time, earwitness.signals.extraction as e\nreal = e.score_part\n"
    slow += "e.score_part = lambda *a: (real(*a), time.sleep(0.3))[0]\n"
    process = _command(corpus, "--workers=1", before=slow)
    _wait_for(lambda: list(results.rglob("part-*.parquet")), process)
    process.send_signal(number)
    _, shown = process.communicate(timeout=30)
    assert process.returncode == StoppedError.exit_code
    line = shown.strip().splitlines()[-1]
    assert line.startswith("earwitness: interrupted; finished parts are stored, to go on: earwitness score --model=")
    assert "Traceback" not in shown
    assert not list(results.rglob("*.part"))
    assert 0 < len(list(results.rglob("part-*.parquet"))) < TRACKS
    again = _command(corpus)
    assert f"{TRACKS} tracks" in again.communicate(timeout=120)[0]
    assert _content(_collect(corpus)).keys() == whole.keys()


def test_an_interruption_that_gets_lost_comes_again() -> None:
    """The first signal falls where its exception is swallowed; the second stops the command."""
    code = (
        "import os, signal, sys, time\nfrom earwitness import cli\n"
        "def app():\n    try:\n        os.kill(os.getpid(), signal.SIGINT)\n        time.sleep(0.1)\n"
        "    except BaseException:\n        print('went on', flush=True)\n    time.sleep(60)\n"
        "cli.app = app\ncli.main()"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=40)
    assert run.stdout == "went on\n", "the first one was dropped"
    assert run.returncode == StoppedError.exit_code
    assert "earwitness: interrupted; finished parts are stored" in run.stderr


@pytest.mark.parametrize("where", ["__del__", "vio_read"])
def test_an_interruption_waits_where_python_would_print_and_lose_it(where: str) -> None:
    """Destructors, and soundfile's callbacks from C: what is raised there would reach the user as a traceback."""
    code = (
        "import os, signal, sys, time\nfrom earwitness import cli\n"
        f"class Held:\n    def {where}(self):\n        os.kill(os.getpid(), signal.SIGINT)\n        time.sleep(0.2)\n"
        "        print('went on', flush=True)\n"
        f"def app():\n    held = Held()\n    {'del held' if where == '__del__' else 'held.vio_read()'}\n"
        "    time.sleep(60)\ncli.app = app\ncli.main()"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=40)
    assert run.stdout == "went on\n"
    assert run.returncode == StoppedError.exit_code
    assert run.stderr.count("\n") == 1, run.stderr
    assert run.stderr.startswith("earwitness: interrupted")


# --- crowded ---


@pytest.mark.slow
def test_two_processes_share_the_work_whatever_their_clocks_say(
    corpus: Path, whole: dict[str, bytes], results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second writer's clock is a day ahead and the parts' times are of the next century: nothing asks for them."""
    monkeypatch.setattr("earwitness.signals.store.PART_TRACKS", 1)
    skew = SMALL + "import time\nreal = time.time\ntime.time = lambda: real() + 86400\n"
    slow = "import earwitness.signals.extraction as e\nscore = e.score_part\n"
    slow += "e.score_part = lambda *a: (score(*a), time.sleep(0.2))[0]\n"
    processes = [_command(corpus, before=SMALL + "import time\n" + slow), _command(corpus, before=skew + slow)]
    while any(process.poll() is None for process in processes):
        for path in results.rglob("part-*.parquet"):
            os.utime(path, (4e9, 4e9))
        time.sleep(0.05)
    shown = [process.communicate()[0] for process in processes]
    assert all(f"{TRACKS} tracks, {len(whole)} segments" in text and "1 excluded" in text for text in shown), shown
    scored = [int(text.split(" scored now")[0].split()[-1]) for text in shown]
    assert sum(scored) == TRACKS, "every part is claimed by one of them"
    parts = list(results.rglob("part-*.parquet"))
    assert len(parts) == TRACKS
    index = _collect(corpus).index
    assert not index.duplicated(["track_id", "segment_id"]).any()
    assert set(index["segment_id"]) == whole.keys()


def test_a_part_that_another_process_wrote_meanwhile_is_not_scored_again(
    corpus: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process is played by a second call, once the first has seen what is missing."""
    real, calls = extraction.Store.prepare, []

    def interposed(store: extraction.Store) -> None:
        calls.append(1)
        if len(calls) == 1:
            _collect(corpus)
        real(store)

    monkeypatch.setattr(extraction.Store, "prepare", interposed)
    signals = _collect(corpus)
    assert signals.provenance["tracks_scored_now"] == 0
    assert _content(signals) == whole
    assert signals.exclusions["track_id"].tolist() == ["text.wav"]


# --- robbed ---


def test_a_model_removed_in_mid_run(
    corpus: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(corpus / "model", tmp_path / "model")
    tracks = read_manifest(corpus / "m.csv")
    real = extraction.load_model

    def gone(name: str, **options: object) -> object:
        shutil.rmtree(folder)
        return real(name, **options)

    with monkeypatch.context() as patch:
        patch.setattr(extraction, "load_model", gone)
        with pytest.raises(ModelError, match="neither a pocket model, a folder nor a hub name"):
            collect(str(folder), tracks)
    shutil.copytree(corpus / "model", folder)
    score = extraction.score_part

    def later(*arguments: object) -> list[dict[str, object]]:
        shutil.rmtree(folder, ignore_errors=True)
        return score(*arguments)

    monkeypatch.setattr(extraction, "score_part", later)
    assert _content(collect(str(folder), tracks)) == whole, "a loaded model does not need its files any more"


def test_a_manifest_that_changes_while_it_is_scored(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = corpus / "changing.csv"
    manifest.write_text("path,role\n0.wav,suspect\n")
    real = extraction.collect

    def meanwhile(*arguments: object, **options: object) -> Signals:
        signals = real(*arguments, **options)
        manifest.write_text("path,role\n0.wav,suspect\n1.flac,suspect\n")
        return signals

    monkeypatch.setattr(extraction, "collect", meanwhile)
    arguments = ["score", f"--model={corpus / 'model'}", f"--manifest={manifest}", f"--done={tmp_path / 'done.json'}"]
    run = CliRunner().invoke(cli.app, arguments)
    assert isinstance(run.exception, StoppedError)
    assert "changing.csv changed while it was scored; run the same command again" in str(run.exception)
    assert not (tmp_path / "done.json").exists()
    monkeypatch.undo()


def test_results_on_another_file_system(corpus: Path, whole: dict[str, bytes], tmp_path: Path, results: Path) -> None:
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system here")
    folder = shared / f"earwitness-test-{os.getpid()}"
    folder.mkdir()
    try:
        results.symlink_to(folder)
        assert _content(_collect(corpus)) == whole
        assert list(folder.rglob("part-*.parquet"))
    finally:
        shutil.rmtree(folder)


def test_a_device_that_fails_stops_the_run_and_keeps_what_is_stored(
    corpus: Path, whole: dict[str, bytes], results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = extraction.score_part, []

    def broken(model: object, *arguments: object) -> list[dict[str, object]]:
        calls.append(1)
        if len(calls) == 3:
            model.info = replace(model.info, device="cuda:0")
            raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore lines")
        return real(model, *arguments)

    monkeypatch.setattr(extraction, "score_part", broken)
    with pytest.raises(StoppedError, match=r"cuda:0 failed \(CUDA error: an illegal .*\); finished parts are stored"):
        _collect(corpus)
    assert len(list(results.rglob("part-*.parquet"))) == 2
    signals = _collect(corpus)
    assert signals.provenance["tracks_scored_now"] < TRACKS
    assert _content(signals) == whole


def test_an_error_of_our_own_on_a_processor_is_not_hidden(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: object) -> None:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(extraction, "score_part", wrong)
    with pytest.raises(ModelError, match=r"cannot be run \(RuntimeError: shapes differ\)") as caught:
        _collect(corpus)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_workers_give_the_same_signals(corpus: Path, whole: dict[str, bytes]) -> None:
    assert _content(_collect(corpus, workers=2)) == whole


# --- progress ---


def _shown(show: bool | None, monkeypatch: pytest.MonkeyPatch, *, terminal: bool) -> str:
    """Return what 100 tracks write to standard error, five every 20 seconds."""
    import tqdm

    clock, stream = SimpleNamespace(now=1000.0), io.StringIO()
    stream.isatty = lambda: terminal  # type: ignore[method-assign]
    with monkeypatch.context() as patch:
        patch.setattr(tqdm.std, "time", lambda: clock.now)
        patch.setattr(tqdm.tqdm, "_time", lambda: clock.now, raising=False)
        patch.setattr(sys, "stderr", stream)
        with extraction._progress("model", 100, show) as bar:
            bar._time = lambda: clock.now
            for _ in range(20):
                clock.now += 20
                bar.update(5)
                bar.set_postfix_str("waiting", refresh=terminal)
    return stream.getvalue()


def test_progress_is_for_terminals_and_for_those_who_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook's standard error is no terminal, so a page holds none of it."""
    lines = [line.strip() for line in _shown(True, monkeypatch, terminal=False).splitlines() if line.strip()]
    assert 4 <= len(lines) <= 7, "about one a minute"
    assert re.fullmatch(r"model: 15 of 100 tracks, +4\.00s/track, 05:40 left", lines[0])
    assert _shown(None, monkeypatch, terminal=False) == ""
    assert "model" in _shown(None, monkeypatch, terminal=True)
    assert "waiting" in _shown(True, monkeypatch, terminal=True)
    assert _shown(False, monkeypatch, terminal=True) == ""
    with extraction._progress("model", 0, True) as bar:
        assert bar.disable, "nothing to do"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3, "3 s"), (200, "3 min"), (3600 * 5 + 60, "5 h 1 min"), (3600 * 100, "4 d 4 h"), (7199, "2 h 0 min")],
)
def test_spans_are_for_people(seconds: float, text: str) -> None:
    from earwitness.util import span

    assert span(seconds) == text
