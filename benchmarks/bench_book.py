"""What a build of the book costs: processor seconds of every job, from what the jobs of `make book` leave behind.

Every job of ``notebooks/Snakefile`` writes the processor seconds of all that it started to ``results/cpu/<job>.txt``.
This adds them up and writes ``benchmarks/book.csv``, which the page *What an audit costs* draws: ``kind`` (render,
score, page, html), ``job``, ``cpu_s`` and ``before_s`` (of the same job in an earlier file, empty where it had none).
Seconds differ from machine to machine and from build to build; what is told of them are shares and ratios.

Only the last run of each job counts: remove ``results`` first, or run it on a fresh checkout, so that nothing was
scored before.

Run, after `make book`: python benchmarks/bench_book.py [--results results] [--before FILE] [--out benchmarks/book.csv]
"""

import argparse
import re
from pathlib import Path

import pandas as pd

from earwitness.book.experiments import load_registry
from earwitness.util import project_root, results_dir, write_csv

TIME = re.compile(r"(\d+)m([\d.]+)s")


def seconds(text):
    """Return the seconds that `times` printed for a shell's children, user's and system's together.

    >>> seconds("0m0.002s 0m0.000s\\n1m13.204s 0m6.201s\\n")
    79.405
    """
    return round(sum(60 * int(minutes) + float(rest) for minutes, rest in TIME.findall(text.splitlines()[1])), 3)


def measured(results):
    """Return one row per job: ``kind``, ``job``, ``cpu_s``, the dearest of each kind first."""
    files = sorted((results / "cpu").glob("*.txt"))
    rows = [(*path.stem.split("-", 1), seconds(path.read_text())) for path in files]
    table = pd.DataFrame(rows, columns=["kind", "job", "cpu_s"])
    return table.sort_values(["kind", "cpu_s"], ascending=[True, False], ignore_index=True)


def jobs():
    """Return the names of the shards that the pages of the book ask for."""
    files = {file for page in load_registry().tier("book") for run in page.scores for file in run.done_files}
    return {"-".join(Path(file).with_suffix("").parts[1:]) for file in files}


def main():
    """Write the table and print what each kind of job took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=results_dir())
    parser.add_argument("--before", type=Path)
    parser.add_argument("--out", type=Path, default=project_root() / "benchmarks" / "book.csv")
    given = parser.parse_args()
    table = measured(given.results)
    expected = {f"page-{page.id}" for page in load_registry().tier("book")}
    expected |= {"render-corpus", "html-book"} | {f"score-{name}" for name in jobs()}
    if lacking := sorted(expected - set(table["kind"] + "-" + table["job"])):
        names = ", ".join(lacking)
        raise SystemExit(f"{given.results / 'cpu'}: nothing of {names}; run `make book` from nothing first")
    before = pd.read_csv(given.before)[["kind", "job", "cpu_s"]] if given.before else table.iloc[:0]
    table = table.merge(before.rename(columns={"cpu_s": "before_s"}), on=["kind", "job"], how="left")
    write_csv(table, given.out, float_format="%.1f")
    print(table.groupby("kind")[["cpu_s", "before_s"]].sum())
    print(f"{table['cpu_s'].sum():.0f} processor seconds")


if __name__ == "__main__":
    main()
