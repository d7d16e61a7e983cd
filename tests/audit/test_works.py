"""Versions of one piece count once, from the check to the report; a table or an option says otherwise, and is named."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from earwitness.audit import html, scoring
from earwitness.audit.intake import Intake, examine
from earwitness.audit.report import Report, scores_bytes
from earwitness.audit.report import read as read_report
from earwitness.audit.request import Request
from earwitness.data import decode_pool
from earwitness.data.folders import gather
from earwitness.errors import InputError
from earwitness.stats.features import DEFAULT_FEATURES
from earwitness.stats.power import reach_of, refusals
from earwitness.stats.units import add_units
from earwitness.terminal import as_dict, enough, show_check
from earwitness.types import Track
from earwitness.util import sha256
from tests.inference_tables import score_table

MODEL = "pocket/musicgen-a"
STEMS = ("{}.flac", "{} (Instrumental).flac", "{} (Acapella).flac", "{} - Drums+Bass.flac")
OLDER = Path(__file__).parents[1] / "older" / "201bafe" / "report"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """Say of every file that it is 12 s of its own, without decoding it; what a test puts here is said besides."""
    more: dict[str, dict[str, Any]] = {}

    def inspect(paths: list[Path], spec: object, **_: object) -> list[dict[str, Any]]:
        rng = np.random.default_rng(0)
        return [
            {
                "sha256": sha256(str(path)), "format": "FLAC", "codec": "PCM_16", "sample_rate": 44_100, "channels": 1,
                "duration_s": 12.0, "level_dbfs": -20.0, "bandwidth_hz": 1e4, "segments": 4, "reason": "",
                "words": rng.integers(1, 2**32, 500, dtype=np.uint32), **more.get(path.name, {}),
            }
            for path in paths
        ]  # fmt: skip

    monkeypatch.setattr(decode_pool, "inspect", inspect)
    return more


@pytest.fixture
def stems(tmp_path: Path) -> tuple[Path, Path]:
    """Five songs in four versions each among the suspects, twelve held-out recordings."""
    names = [form.format(f"{k:02d} Song {k}") for k in range(1, 6) for form in STEMS]
    for side, files in (("s", names), ("h", [f"h{i:02d}.flac" for i in range(12)])):
        (tmp_path / side).mkdir()
        for name in files:
            (tmp_path / side / name).write_bytes(b"fLaC")
    return tmp_path / "s", tmp_path / "h"


def _check(suspects: Path, held_out: Path, **how: Any) -> Intake:
    found = gather(suspects=suspects, held_out=held_out, works=how.pop("works", None))
    return examine(found.tracks, MODEL, found=found, **how)


def _printed(intake: Intake) -> str:
    console = Console(width=300, record=True, file=io.StringIO(), highlight=False)
    show_check(intake, console)
    return console.export_text()


def test_stems_are_one_unit_a_work_and_every_join_is_listed(
    stems: tuple[Path, Path], opened: dict[str, dict[str, Any]]
) -> None:
    found = _check(*stems)
    assert found.counts() == {"suspect": 20, "held_out": 12}
    assert sorted(len(join.tracks) for join in found.joins) == [4] * 5
    assert len({track.work for track in found.tracks if track.work}) == 5
    testable, why = enough(found)
    assert not testable
    assert "5 suspect and 12 held-out" in why
    text = _printed(found)
    assert text.count("are one work (the same title); a work counts once") == 5
    assert "--works" in text
    told = as_dict(found)
    assert json.loads(json.dumps(told))["unit"] == "work"
    assert len(told["joins"]) == 5


def test_every_track_may_count_but_the_check_warns_of_it(
    stems: tuple[Path, Path], opened: dict[str, dict[str, Any]]
) -> None:
    found = _check(*stems, unit="track")
    assert {track.work for track in found.tracks} == {""}
    assert "20 v 12 tracks" in enough(found)[1]
    assert _printed(found).count("WARNING: they are counted for themselves (--unit track)") == 5
    with pytest.raises(InputError, match=r"unit \(--unit\) track counts none"):
        _check(*stems, unit="track", pairs="work")
    with pytest.raises(InputError, match="expected unit"):
        _check(*stems, unit="album")


def test_a_table_of_works_corrects_the_joins(
    stems: tuple[Path, Path], opened: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    rows = [(path.name, "") for path in sorted(stems[0].iterdir()) if "Song 1" in path.name]
    rows += [("h00.flac", "Harbour"), ("h01.flac", "Harbour")]
    pd.DataFrame(rows, columns=["path", "work"]).to_csv(tmp_path / "w.csv", index=False)
    found = _check(*stems, works=tmp_path / "w.csv")
    assert len(found.joins) == 4
    assert [track.track_id for track in found.tracks if track.work == "Harbour"] == [
        "held_out/h00.flac", "held_out/h01.flac"
    ]  # fmt: skip
    assert "8 v 11 tracks" in enough(found)[1]


def test_a_version_on_the_other_side_leaves_both_out_and_names_what_to_do(
    stems: tuple[Path, Path], opened: dict[str, dict[str, Any]]
) -> None:
    (stems[1] / "01 Song 1 (Live).flac").write_bytes(b"fLaC")
    opened["01 Song 1 (Live).flac"] = {"tags": {"title": "Song 1 (Live)", "artist": "Somebody"}}
    for form in STEMS:  # by tags, as names that end in a number join within one folder only
        name = form.format("01 Song 1")
        title = name.removesuffix(".flac").removeprefix("01 ")
        opened[name] = {"tags": {"title": title, "artist": "Somebody"}}
    found = _check(*stems)
    left = found.exclusions.set_index("track_id")["reason"]
    assert len(left) == 5
    assert left["held_out/01 Song 1 (Live).flac"].startswith("the same work as suspect/01 Song 1")
    assert left.str.contains(r"--pairs work.*--works").all()
    assert found.counts() == {"suspect": 16, "held_out": 12}


def test_what_a_manifest_says_of_a_file_is_compared_with_it(tmp_path: Path, opened: dict[str, dict[str, Any]]) -> None:
    tracks = [Track(f"t{i}", tmp_path / f"{i}.flac", "suspect", duration_s=s) for i, s in enumerate((12.0, 12.4, 30.0))]
    found = examine(tracks, MODEL)
    assert [track.track_id for track in found.tracks] == ["t0", "t1"]
    assert "says 30.0 s and the file holds 12.0 s" in found.exclusions.loc[0, "reason"]


def test_a_remark_stands_with_a_recording_that_is_used(
    stems: tuple[Path, Path], opened: dict[str, dict[str, Any]]
) -> None:
    opened["h00.flac"] = {"remark": "its header counts half of the frames"}
    found = _check(*stems)
    assert "its header counts half of the frames" in _printed(found)
    assert found.files["remark"].ne("").sum() == 1


def test_a_hundred_thousand_missing_files_print_a_count_and_the_first_few(tmp_path: Path) -> None:
    tracks = [Track(f"t{i:06d}", tmp_path / f"{i}.wav", "suspect") for i in range(3000)]
    found = examine(tracks, MODEL)
    text = _printed(found)
    assert "and 2,995 more, 3,000 in all (the JSON lists each)" in text
    assert text.count("no such file") == 6
    assert len(as_dict(found)["exclusions"]) == 3000


# --- what is counted --------------------------------------------------------------------------------------------------


def _units_naively(scores: pd.DataFrame) -> list[str]:
    first: dict[tuple[str, str, str], str] = {}
    found = []
    for row in scores.to_dict("records"):
        key = (row["work"], row["artist"], row["role"])
        found.append(first.setdefault(key, row["track_id"]) if str(row["work"]).strip() else row["track_id"])
    return found


def test_a_unit_is_the_first_track_of_a_work_on_its_side() -> None:
    scores = score_table(9, 9, attacks=2, blind=1, seed=3)
    works = {f"t{i:04d}": ("", f"w{i // 3}", " ")[i % 3] for i in range(18)}
    scores["work"] = scores["track_id"].map(works)
    assert add_units(scores)["unit"].tolist() == _units_naively(scores)
    alone = add_units(scores.assign(work=""))
    assert (alone["unit"] == alone["track_id"]).all()
    single = add_units(scores.assign(work=scores["track_id"]))
    assert (single["unit"] == single["track_id"]).all()


def test_a_work_counts_once_in_what_can_be_seen() -> None:
    tracks = [
        Track(f"{role}{i}", Path("x"), role, work=f"{role}{i // 3}")
        for role in ("suspect", "held_out")
        for i in range(60)
    ]
    seen = reach_of(tracks, 0.01)
    assert (seen.n_suspect, seen.n_held_out) == (20, 20)
    assert reach_of([replace(track, work="") for track in tracks], 0.01).n_suspect == 60
    few = [track for track in tracks if int(track.track_id.removeprefix(track.role)) < 15]
    assert "too few works and tracks to compare: 5 suspect and 5 held-out" in refusals(few)[0]


def test_one_empty_side_is_named_with_what_would_mend_it() -> None:
    tracks = [Track(f"t{i}", Path("x"), "suspect") for i in range(12)]
    assert refusals(tracks) == ["there is no held-out track to compare with; add held-out tracks that can be used"]


FEATURES = DEFAULT_FEATURES["token"]


def _versions(seed: int, *, works: int = 12, versions: int = 3, share: float = 0.9) -> pd.DataFrame:
    """Score tables of works that nobody trained on, each in several versions that are much alike."""
    rng = np.random.default_rng(seed)
    rows = []
    for side in ("suspect", "held_out"):
        for work in range(works):
            common = rng.normal(size=len(FEATURES) + 1)
            for version in range(versions):
                own = np.sqrt(share) * common + np.sqrt(1 - share) * rng.normal(size=len(common))
                name = f"{side[0]}{work:02d}{version}"
                rows += [
                    (name, f"{name}-{part}", "", f"{side}{work}", side, attack, value + 0.1 * rng.normal())
                    for part in range(2)
                    for attack, value in zip((*FEATURES, "blind/x"), own, strict=True)
                ]
    return pd.DataFrame(rows, columns=["track_id", "segment_id", "artist", "work", "role", "attack", "score"])


def test_the_test_counts_works_and_each_recording_is_listed_with_its_works_score() -> None:
    content = scores_bytes(_versions(0))
    how: dict[str, Any] = {"alpha": 0.01, "permutations": 99, "seed": 1, "pairs": None}
    result, prepared = scoring.decide(content, **how)
    assert (result.n_suspect, result.n_held_out) == (12, 12)
    totals = scoring.totals(prepared, content)
    assert len(totals) == 72
    assert totals["s000"] == totals["s001"] == totals["s002"]
    tracks, each = scoring.decide(content, unit="track", **how)
    assert (tracks.n_suspect, tracks.n_held_out) == (36, 36)
    assert len(set(scoring.totals(each, content).values())) > 60


def test_works_of_one_track_each_change_no_digit() -> None:
    """Published audits have a work for every track: nothing of theirs may move."""
    scores = _versions(1, versions=1)
    how: dict[str, Any] = {"alpha": 0.01, "permutations": 199, "seed": 1, "pairs": None}
    first, _ = scoring.decide(scores_bytes(scores), **how)
    other, _ = scoring.decide(scores_bytes(scores), unit="track", **how)
    none, _ = scoring.decide(scores_bytes(scores.assign(work="")), **how)
    assert first.to_dict() == other.to_dict() == none.to_dict()


@pytest.mark.slow
def test_versions_handed_in_as_tracks_keep_the_level_where_the_work_counts() -> None:
    """Of true nulls at 5 %: counted for themselves versions reject far more often, as works they do not."""
    how: dict[str, Any] = {"alpha": 0.05, "permutations": 199, "pairs": None}
    audits = 150
    rejected = {"work": 0, "track": 0}
    for seed in range(audits):
        content = scores_bytes(_versions(1000 + seed))
        for unit in rejected:
            result, _ = scoring.decide(content, seed=seed, unit=unit, **how)
            rejected[unit] += bool(result.p_value is not None and result.p_value <= 0.05)
    assert rejected["work"] <= 16  # P(more of 150 at 5 %) is below .002
    assert rejected["track"] >= 2 * max(rejected["work"], 8)


# --- what the report says ---------------------------------------------------------------------------------------------


def test_the_report_lists_joins_and_warns_where_tracks_were_counted() -> None:
    report, files = read_report(OLDER)
    plain = html.page(report, files)
    assert "Versions of one work" not in plain
    assert "unit" not in json.loads(report.model_dump_json())["repeat"]
    said = "a and b are one work (the same title)"
    for unit, words in (("work", "A work counts once"), ("track", "Caution: every recording was counted for itself")):
        changed = report.model_copy(update={"works": [said], "repeat": report.repeat.model_copy(update={"unit": unit})})
        page = html.page(changed, files)
        assert said in page
        assert words in page
        again = Report.model_validate_json(changed.model_dump_json())
        assert (again.works, again.repeat.unit) == ([said], unit)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"unit": "track"}, "--unit track"),
        ({"works": Path.cwd() / "somebody" / "w.csv"}, f"--works {Path.cwd()}/somebody/w.csv"),
    ],
)
def test_the_command_to_repeat_an_audit_names_works_and_unit(changes: dict[str, Any], words: str) -> None:
    request = Request(models=("m",), suspects=Path("s"), held_out=Path("h"), **changes)
    command = request.command(redact=False)
    assert words in command
    assert ("--unit" in command) == ("unit" in changes)
    assert "somebody" not in request.command(redact=True)
