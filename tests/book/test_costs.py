"""The arithmetic of costs, from a file; what each page was made from, from what each page left."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from earwitness.audit import cost
from earwitness.book import stamps, tables
from earwitness.book.experiments import load_registry
from earwitness.errors import InputError
from earwitness.figures import growth, hours
from earwitness.util import STAMP

ROW = {"network": "n", "device": "one core", "segment_seconds": 30.0, "score_s_per_segment": 3.5,
       "prepare_s_per_segment": 0.1, "bytes_per_segment": 2.0**20}  # fmt: skip


def test_the_arithmetic_by_hand() -> None:
    found = cost.budget(pd.DataFrame([ROW]), [1, 1000], track_seconds=95, days=1)
    one, many = found.to_dict("records")
    assert (one["segments"], one["hours"], one["processes"]) == (3, pytest.approx(3 * 3.6 / 3600), 1)
    assert (many["segments"], many["hours"], many["disk_gib"]) == (3000, pytest.approx(3.0), pytest.approx(3000 / 1024))
    assert cost.budget(pd.DataFrame([ROW]), [10**7], track_seconds=95, days=10)["processes"].iloc[0] == 125


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"track_seconds": 29, "days": 1}, "a track of 29 s is shorter than a segment of 30 s"),
        ({"track_seconds": 60, "days": 0}, "expected days > 0"),
    ],
)
def test_impossible_plans_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        cost.budget(pd.DataFrame([ROW]), [1], **options)
    with pytest.raises(InputError, match="numbers of tracks"):
        cost.budget(pd.DataFrame([ROW]), [], track_seconds=60, days=1)


def test_the_committed_measurement_is_read_and_one_s_own_added(root: Path) -> None:
    held = pd.read_csv(root / cost.MEASURED)
    found = cost.throughput(own_seconds=0.25)
    assert found["network"].tolist() == [*held["network"], "yours"]
    assert found["score_s_per_segment"].tolist() == [*held["score_s_per_segment"], 0.25]
    assert (held[["score_s_per_segment", "bytes_per_segment"]] > 0).all(axis=None)


def test_growth_by_hand() -> None:
    rows = [("line", n, n / 100, 50.0) for n in (100, 1000, 10_000)] + [("square", n, n**2, n) for n in (10, 100)]
    measured = pd.DataFrame(rows, columns=["step", "size", "cpu_s", "peak_mb"]).sample(frac=1, random_state=1)
    found = tables.growth(measured).set_index("step")
    assert found.loc["line", ["size", "cpu_s", "peak_mb"]].tolist() == [10_000, 100, 50]
    exponents = found[["time_exponent", "memory_exponent", "last_time_exponent"]]
    assert exponents.loc["line"].tolist() == pytest.approx([1, 0, 1], abs=1e-9)
    assert exponents.loc["square"].tolist() == pytest.approx([2, 1, 2])
    figure = growth(measured, source="results/tables/costs/scale.csv")
    assert "peak memory, MB" in figure.svg
    assert "line" in figure.alt
    assert "square" in figure.alt
    with pytest.raises(InputError, match="needs a column 'peak_mb'"):
        growth(measured.drop(columns="peak_mb"))


def test_what_was_measured_at_scale_keeps_its_promises() -> None:
    measured = tables.measured_scale()
    found = tables.growth(measured).set_index("step")
    assert found.loc[["infer", "infer, one artist", "find copies"], "size"].eq(100_000).all()
    assert found.loc["read manifest", "size"] == 1_000_000
    assert (found["peak_mb"] <= 4000).all()
    assert found.loc["read manifest", "peak_mb"] <= 1024
    assert (found["cpu_s"] <= 2 * 600).all()
    assert (found[["time_exponent", "memory_exponent"]] <= 1.1).all(axis=None)
    # Reading a whole table, which no audit does, meets the limits of a processor's caches between the last two sizes.
    assert (found.loc[found.index != "read scores", "last_time_exponent"] <= 1.1).all()


@pytest.fixture
def adding(root: Path) -> dict[str, Any]:
    """What the script behind ``benchmarks/book.csv`` defines."""
    return runpy.run_path(str(root / "benchmarks" / "bench_book.py"))


def test_the_seconds_of_a_build_are_those_its_jobs_left(
    adding: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = {f"page-{page.id}" for page in load_registry().tier("book")}
    left = pages | {f"score-{job}" for job in adding["jobs"]()} | {"render-corpus", "html-book"}
    (tmp_path / "cpu").mkdir()
    for name in left - {"page-costs"}:
        # The shell's own times first, then those of all it started: user's and system's.
        (tmp_path / "cpu" / f"{name}.txt").write_text("5m0.100s 0m0.200s\n1m1.500s 0m0.250s\n")
    out = tmp_path / "book.csv"
    monkeypatch.setattr("sys.argv", ["bench_book.py", f"--results={tmp_path}", f"--out={out}"])
    with pytest.raises(SystemExit, match=r"nothing of page-costs; run `make book`"):
        adding["main"]()
    (tmp_path / "cpu" / "page-costs.txt").write_text("0m0.000s 0m0.000s\n0m0.000s 2m0.000s\n")
    adding["main"]()
    found = pd.read_csv(out)
    assert set(found["kind"] + "-" + found["job"]) == left
    assert found.set_index("job").loc["costs", "cpu_s"] == 120
    assert set(found["cpu_s"]) == {61.8, 120.0}
    assert found["before_s"].isna().all()
    monkeypatch.setattr("sys.argv", ["bench_book.py", f"--results={tmp_path}", f"--out={out}", f"--before={out}"])
    adding["main"]()
    again = pd.read_csv(out)
    assert again["before_s"].tolist() == again["cpu_s"].tolist()


def test_the_figure_shows_every_network() -> None:
    table = cost.budget(pd.DataFrame([ROW, ROW | {"network": "m"}]), [1000, 10_000], track_seconds=95, days=1)
    figure = hours(table, source="results/tables/costs/plan.csv")
    assert "a week" in figure.svg
    assert "1,000 to 10,000 tracks" in figure.alt
    with pytest.raises(InputError, match="needs a column 'hours'"):
        hours(table.drop(columns="hours"))


def test_the_status_page_lists_what_each_page_was_made_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path))
    (tmp_path / "pages").mkdir()
    monkeypatch.setenv(STAMP, str(tmp_path / "pages" / "one.stamp.json"))
    stamped = stamps.stamp("one", manifests=["data_manifests/pocket.csv"], seeds={"seed": 3})
    assert json.loads((tmp_path / "pages" / "one.stamp.json").read_text()) == stamped
    (tmp_path / "pages" / "one.status.json").write_text(json.dumps({"state": "ok", "seconds": 4.5}))
    (tmp_path / "pages" / "two.status.json").write_text("{half a file")
    found = stamps.statuses([SimpleNamespace(id=name) for name in ("one", "two")])
    one, two = found.to_dict("records")
    assert (one["state"], one["seconds"], one["commit"], one["seeds"]) == ("ok", 4.5, stamped["code"], "seed 3")
    assert one["manifests"].startswith("pocket.csv ")
    assert (two["state"], two["commit"]) == ("not run", "")


def test_the_share_of_stored_signals_is_what_the_process_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from earwitness.signals import extraction

    monkeypatch.setattr(extraction, "USE", extraction.Counter())
    assert stamps._stored_share() == ""
    extraction.USE.update(asked=8, scored=2)
    assert stamps._stored_share() == "75%"
