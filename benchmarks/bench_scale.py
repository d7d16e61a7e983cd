"""Whether a hundred thousand works fit: processor seconds and peak memory against the size, each in its own process.

What is measured, at sizes from 10^3 to ``--largest`` works (a tenth as many artists, ten works each):

- ``infer``: dataset inference with its default settings (9,999 relabellings, frozen features, all blind features) from
  score tables as ``write_scores`` writes them, 3 segments a work;
- ``infer, one artist``: the same, all works by one artist;
- ``read scores``: the same tables to units, which is part of both;
- ``find copies``: the search for copies among fingerprints of 20 s each, one recording in a hundred with a copy;
- ``read manifest``: ten manifest rows a work, to a million.

Imports and the making of the inputs, in a process of its own, are not in the seconds; the imports are in the memory.
Writes one row per measurement (``step, size, cpu_s, peak_mb``, in 10^6 bytes) and prints growth exponents: slopes of
the logarithms over all sizes, and between the two largest.

Run: OMP_NUM_THREADS=1 nice -n 19 python benchmarks/bench_scale.py [--largest 100000] [--out benchmarks/scale.csv]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

SEGMENTS, WORKS, BLIND = 3, 10, 71  # segments a work, works an artist, blind features, as many as a real audit has
SIZES = (1_000, 3_162, 10_000, 31_623, 100_000)
PART = 10_000  # works in one file of scores
STEPS = ("infer", "infer, one artist", "read scores", "find copies", "read manifest")


def score_parts(folder, works, *, one_artist):
    """Write score tables without any effect of training: tracks, their artist and chance, one file per part."""
    from earwitness.stats.score_file import write_scores
    from earwitness.stats.units import ScoreColumns
    from earwitness.types import DEFAULT_FEATURES

    names = [*DEFAULT_FEATURES["token"], *(f"blind/{j}" for j in range(BLIND))]
    rng = np.random.default_rng(works)
    for start in range(0, works, PART):
        track = np.repeat(np.arange(start, min(start + PART, works)), SEGMENTS)
        keys = {
            "track_id": [f"track-{i:06d}" for i in track],
            "segment_id": [f"{i:064x}" for i in np.arange(len(track)) + SEGMENTS * start],
            "artist": [f"artist-{0 if one_artist else i // WORKS:05d}" for i in track],
            "work": [f"work-{i:06d}" for i in track],
            "role": np.where(track % 2, "suspect", "held_out"),
        }
        own = rng.normal(size=(PART, 1))[track - start] + rng.normal(size=(len(track), len(names)))
        held = ScoreColumns(pd.DataFrame(keys), tuple(names), own, np.zeros(own.shape, dtype=bool))
        write_scores(held, folder / f"part-{start:06d}.parquet")


def prepared(step, size, folder):
    """Make the input of a step."""
    if step in {"infer", "infer, one artist", "read scores"}:
        score_parts(folder, size, one_artist=step == "infer, one artist")
    elif step == "read manifest":
        from bench_manifest import write

        write(folder / "m.csv", WORKS * size)


def measured(step, size, folder):
    """Return processor seconds of a step in this process."""
    clock = time.process_time
    if step == "read manifest":
        from earwitness.data.manifest import read_manifest

        started = clock()
        read = read_manifest(folder / "m.csv", roles={"member": ["train"], "nonmember": ["test"]})
        assert len(read) == WORKS * size
    elif step == "find copies":
        from bench_dedup import SHARE, prints

        from earwitness.data.fingerprint import WordFile, duplicates
        from earwitness.types import Track

        held, kept, copies = WordFile(), {}, {}
        for start in range(0, size, SHARE):  # a hundred at a time, so that only the file holds them all
            words, again = prints(SHARE, 1000, seed=start)
            kept |= {f"r{start + i}": held.put(row) for i, row in enumerate(words)}
            copies[f"c{start}"] = held.put(again[0])
        tracks = [Track(name, Path(name), "") for name in (*kept, *copies)]
        started = clock()
        found = duplicates(tracks, kept | copies)
        assert set(zip(found["track_id"], found["other_id"], strict=True)) <= {(f"r{c[1:]}", c) for c in copies}
        assert len(found) > 0.9 * len(copies)
    else:
        from earwitness.stats import infer
        from earwitness.stats.prepare import prepare

        started = clock()
        if step == "read scores":
            prepare(folder, "track_id", None, seed=0)
        else:
            result = infer(folder)
            assert result.n_suspect + result.n_held_out == size, result
            assert result.parameters["n_labellings"] == 10_000, result
    return clock() - started


def child(arguments):
    """Run one half of a measurement in this process."""
    step, size, folder = arguments.child[0], int(arguments.child[1]), Path(arguments.child[2])
    if arguments.prepare:
        prepared(step, size, folder)
        return
    import resource

    seconds = measured(step, size, folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    size *= WORKS if step == "read manifest" else 1  # of its rows
    print(json.dumps({"step": step, "size": size, "cpu_s": round(seconds, 2), "peak_mb": round(peak)}))


def main():
    """Measure, write, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--largest", type=int, default=SIZES[-1])
    parser.add_argument("--only", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument("--out", type=Path, help="CSV to write; rows of other steps and sizes that it holds stay")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--prepare", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments)
        return
    rows = pd.read_csv(arguments.out).to_dict("records") if arguments.out and arguments.out.exists() else []
    for size in (size for size in SIZES if size <= arguments.largest):
        for step in arguments.only:
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, __file__, "--child", step, str(size), folder]
                subprocess.run([*command, "--prepare"], check=True)
                told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            row = json.loads(told)
            print(json.dumps(row), flush=True)
            rows = [old for old in rows if (old["step"], old["size"]) != (row["step"], row["size"])] + [row]
            if arguments.out:
                table = pd.DataFrame(rows).sort_values("size", kind="stable")
                table = table.assign(order=table["step"].map(STEPS.index)).sort_values("order", kind="stable")
                table.drop(columns="order").to_csv(arguments.out, index=False)
    if arguments.largest > SIZES[0]:
        from earwitness.book.tables import growth

        print(growth(pd.DataFrame(rows)).round(2).to_string(index=False))


if __name__ == "__main__":
    main()
