"""What it costs to look at a folder of recordings: processor seconds and memory of this checkout and of another.

    python benchmarks/bench_check.py --before ../earwitness-before

Both look at the same files (FLAC, MP3, Vorbis and WAV, stereo, 44.1 kHz), each in a process of its own, in turn. The
processor seconds are those of all processes together, workers included; so that a busy machine changes little, what is
printed is the ratio. Memory is the largest worker's, on a tenth of the folder and on all of it.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile as sf

RATE = 44_100
LOOK = """
import json, resource, sys
from pathlib import Path
from earwitness.data import decode_pool
from earwitness.data.audio import AudioSpec
if __name__ == "__main__":
    paths = sorted(Path(sys.argv[1]).iterdir())[: int(sys.argv[2])]
    found = decode_pool.inspect(paths, AudioSpec(32_000, 1, 5.0), workers=2)
    for worker in decode_pool._idle:
        worker.end()
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(json.dumps({
        "usable": sum(not answer["reason"] for answer in found),
        "segments": sum(answer.get("segments", 0) for answer in found),
        "cpu_s": own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime,
        "worker_mib": children.ru_maxrss / 1024,
    }))
"""


def corpus(folder: Path, files: int, seconds: float) -> None:
    """Write the files: a few dozen recordings, under as many names as are asked for."""
    rng, kinds = np.random.default_rng(0), ("flac", "mp3", "ogg", "wav")
    first = min(files, 32)
    for number in range(first):
        path = folder / f"{number:05d}.{kinds[number % 4]}"
        time = np.arange(round(seconds * RATE)) / RATE
        tone = 0.2 * np.sin(2 * np.pi * rng.uniform(100, 900) * time)[:, None]
        with sf.SoundFile(path, "w", RATE, 2) as file:
            for start in range(0, len(tone), RATE):
                file.write(
                    tone[start : start + RATE] + 0.05 * rng.standard_normal((len(tone[start : start + RATE]), 2))
                )
    for number in range(first, files):
        kind = kinds[number % 4]
        shutil.copy(folder / f"{number % first:05d}.{kind}", folder / f"{number:05d}.{kind}")


def look(checkout: Path, folder: Path, files: int) -> dict[str, float]:
    """Return what looking at so many files takes in a checkout."""
    environment = os.environ | {"PYTHONPATH": str(checkout / "lib"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", LOOK, str(folder), str(files)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=checkout)
    return json.loads(run.stdout)


def main() -> None:
    """Run everything and print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, help="another checkout to compare with")
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--repeats", type=int, default=1)
    given = parser.parse_args()
    here = Path(__file__).resolve().parent.parent
    report: dict[str, object] = {"files": given.files, "seconds": given.seconds}
    with tempfile.TemporaryDirectory() as place:
        corpus(Path(place), given.files, given.seconds)
        few = look(here, Path(place), max(1, given.files // 10))
        pairs = []
        for _ in range(given.repeats):
            before = look(given.before.resolve(), Path(place), given.files) if given.before else None
            pairs.append((before, look(here, Path(place), given.files)))
        now = pairs[-1][1]
        report |= {"cpu_s": statistics.median(after["cpu_s"] for _, after in pairs), "usable": now["usable"]}
        report |= {
            "worker_mib": [few["worker_mib"], now["worker_mib"]],
            "memory": now["worker_mib"] / few["worker_mib"],
        }
        if given.before:
            report["before_cpu_s"] = statistics.median(before["cpu_s"] for before, _ in pairs)
            report["times_as_fast"] = statistics.median(before["cpu_s"] / after["cpu_s"] for before, after in pairs)
            report["same_segments"] = all(before["segments"] == after["segments"] for before, after in pairs)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
