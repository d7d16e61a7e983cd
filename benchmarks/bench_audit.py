"""What an audit takes: 20 against 20 pocket recordings, from two folders to a report, in processor seconds.

Prints a table, or writes ``benchmarks/audit.csv`` with ``--write``. Per model the command runs as a user runs it, first
with nothing stored (*fresh*), then again on what that run stored (*stored*); counted are the processor seconds of it
and of every process that it started, decoders included, the least of the repeats. Beside it stands *bare scoring*: the
same segments through the extractor of the model's family alone, in a process that has loaded everything. ``ratio`` is
an audit over bare scoring; goals on two cores that do nothing else: 9 s fresh and 4 s stored. Linux only.

Run: OMP_NUM_THREADS=1 python benchmarks/bench_audit.py [--repeats 3] [--write benchmarks/audit.csv]
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import earwitness as ew
from earwitness.data.audio import segments, spec_of
from earwitness.models import load_model
from earwitness.signals.evaluations import passes_asked
from earwitness.signals.extraction import Further, score_part
from earwitness.types import Track
from earwitness.util import project_root

MODELS = {"pocket/musicgen-a": "a", "pocket/audioldm-a": "a"}  # model -> the lot that it was trained on
SIDE = 20
ADOPT = 36  # prctl's PR_SET_CHILD_SUBREAPER: whoever loses its parent becomes a child of this process
KINDS = ("fresh", "stored")


def tracks_of(lot: str) -> list[Track]:
    """Return the first tracks of every artist in turn, so many on each side, as two folders give them: bare."""
    manifest = project_root() / "data_manifests" / "pocket.csv"
    queues: dict[tuple[str, str], list[Track]] = defaultdict(list)
    for track in ew.read_manifest(manifest, roles={"suspect": [lot], "held_out": ["neither"]}):
        queues[track.role, track.artist].append(track)
    chosen = []
    for role in ("suspect", "held_out"):
        own = [queue for (side, _), queue in sorted(queues.items()) if side == role]
        turns = [queue[turn] for turn in range(SIDE) for queue in own if turn < len(queue)]
        chosen += [Track(track.track_id, track.path, track.role) for track in turns[:SIDE]]
    return chosen


def processor_seconds(command: list[str], results: Path) -> float:
    """Run a command and return the processor seconds of it and of all that it started."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"EARWITNESS_RESULTS": str(results)}
    )
    with suppress(ChildProcessError):  # until no decoder is left
        while True:
            os.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def bare_scoring(name: str, tracks: list[Track], repeats: int) -> tuple[int, float]:
    """Return the number of segments, and the least processor seconds of running the extractor over them."""
    model = load_model(name)
    spec, further = spec_of(model.info), Further(passes_asked("audit", model.info), None, {})
    cuts = [(track.track_id, track, cut) for track in tracks for cut in segments(track.path, spec)]
    score_part(model, cuts[:1], spec, further)
    taken = []
    for _ in range(repeats):
        started = time.process_time()
        score_part(model, cuts, spec, further)
        taken.append(time.process_time() - started)
    return len(cuts), min(taken)


def audits(name: str, tracks: list[Track], repeats: int) -> dict[str, list[float]]:
    """Return the processor seconds of fresh audits, and of stored ones."""
    taken: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as place:
        for track in tracks:
            folder = Path(place, track.role)
            folder.mkdir(exist_ok=True)
            shutil.copy(track.path, folder)
        command = [
            sys.executable, "-m", "earwitness.cli", "audit", "--suspects", f"{place}/suspect", "--held-out",
            f"{place}/held_out", "--model", name, "--out", f"{place}/report",
        ]  # fmt: skip
        for repeat in range(repeats):
            for kind in KINDS:
                taken[kind].append(processor_seconds(command, Path(place, f"results-{repeat}")))
    return taken


def measure(models: dict[str, str], repeats: int) -> list[dict[str, object]]:
    """Return two rows a model: the fresh audit, and the stored one. All audits come first: scoring starts a decoder."""
    tracks = {name: tracks_of(lot) for name, lot in models.items()}
    taken = {name: audits(name, own, repeats) for name, own in tracks.items()}
    bare = {name: bare_scoring(name, own, repeats) for name, own in tracks.items()}
    return [
        {"network": name, "recordings": len(tracks[name]), "segments": count, "signals": kind}
        | {"audit_s": f"{min(taken[name][kind]):.3g}", "bare_scoring_s": f"{seconds:.3g}"}
        | {"ratio": f"{min(taken[name][kind]) / seconds:.3g}"}
        for name, (count, seconds) in bare.items()
        for kind in KINDS
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--write", type=Path)
    asked = parser.parse_args()
    ctypes.CDLL(None).prctl(ADOPT, 1, 0, 0, 0)
    rows = measure(MODELS, asked.repeats)
    with asked.write.open("w", newline="") if asked.write else os.fdopen(os.dup(1), "w") as file:
        table = csv.DictWriter(file, rows[0], lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    main()
