"""What it takes to read a large manifest: seconds and memory for a million rows of eleven columns.

Prints one JSON object: ``rows``, ``seconds`` (goal 10), ``cpu_seconds``, ``peak_mb`` of the whole process in 10^6 bytes
(goal 1000), and ``over_csv``: seconds over those of Python's own ``csv.reader``, which validates nothing.

Run: OMP_NUM_THREADS=1 python benchmarks/bench_manifest.py [--rows 1000000]
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COLUMNS = ("track_id", "path", "artist", "work", "split", "caption", "duration_s", "sha256", "licence", "source")
COLUMNS = (*COLUMNS, "released")
CHILD = """
import json, resource, sys, time
from earwitness.data.manifest import read_manifest
started, used = time.perf_counter(), time.process_time()
tracks = read_manifest(sys.argv[1], roles={"member": ["train"], "nonmember": ["test"]})
print(json.dumps({"rows": len(tracks), "seconds": time.perf_counter() - started,
                  "cpu_seconds": time.process_time() - used,
                  "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6}))
"""


def write(path, rows):
    """Write a manifest of distinct ids, paths, captions and hashes, with artists and works that repeat."""
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for i in range(rows):
            caption = f"a person says something number {i} while a dog barks, far away"
            table.writerow(
                [f"t{i:07d}", f"audio/{i % 1000:03d}/{i:07d}.flac", f"artist {i % 20000}", f"work {i // 2}",
                 "test" if i % 10 == 0 else "train", caption, f"{10 + i % 200}.5", f"{i:064x}", "CC-BY-4.0",
                 "https://example.org", "2019-05-01"]
            )  # fmt: skip
    return path


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "m.csv", arguments.rows)
        command = [sys.executable, "-c", CHILD, str(path)]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        started = time.perf_counter()
        with path.open(newline="") as file:
            read = sum(1 for _ in csv.reader(file)) - 1
        found["over_csv"] = found["seconds"] / (time.perf_counter() - started)
    if read != found["rows"]:
        sys.exit(f"expected {read} tracks, got {found['rows']}")
    print(json.dumps({name: round(value, 2) for name, value in found.items()}))


if __name__ == "__main__":
    main()
