"""What an audit takes: 60 against 60 pocket recordings of three artists, from folders to a report.

    python benchmarks/bench_audit.py

Recordings are copied to a fresh folder and the store starts empty, so everything is done. Prints the seconds of each
stage, its share of the whole, and the whole against the bare time of scoring alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import earwitness as ew
from earwitness.util import project_root

ARTISTS = 3


def main() -> None:
    tracks = ew.read_manifest(
        project_root() / "data_manifests" / "pocket.csv", roles={"suspect": ["b"], "held_out": ["neither"]}
    )
    names = sorted({track.artist for track in tracks})[:ARTISTS]
    with tempfile.TemporaryDirectory() as place:
        for track in tracks:
            if track.artist in names:
                folder = Path(place) / track.role
                folder.mkdir(exist_ok=True)
                shutil.copy(track.path, folder)
        command = [
            sys.executable, "-u", "-m", "earwitness.cli", "audit", "--suspects", f"{place}/suspect", "--held-out",
            f"{place}/held_out", "--model", "pocket/musicgen-b", "--out", f"{place}/report",
        ]  # fmt: skip
        started = before = time.monotonic()
        stages: list[tuple[str, float]] = []
        name = "start"
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=os.environ | {"EARWITNESS_RESULTS": f"{place}/results"}
        ) as child:
            for line in child.stdout or ():
                now = time.monotonic()
                stages.append((name, now - before))
                before, name = now, line.strip()[:60]
        stages.append((name, time.monotonic() - before))
        whole = time.monotonic() - started
        for label, seconds in stages:
            print(f"{seconds:6.1f} s  {seconds / whole:5.0%}  {label}")
        scoring = next((seconds for label, seconds in stages if label.startswith("scoring")), float("nan"))
        print(f"{whole:6.1f} s in all; {whole / scoring:.1f} times the scoring alone")


if __name__ == "__main__":
    main()
