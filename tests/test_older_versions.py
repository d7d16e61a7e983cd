"""What an earlier version left is read and served: ``tests/older/<commit>/``, written by ``tests/older/make.py``.

Whatever moves inside the library, nobody's frozen plan, report, manifest or stored signals may be lost by it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import earwitness as ew
from earwitness.audit import plan as plans
from earwitness.audit import report as reports
from earwitness.audit.html import page
from earwitness.audit.verify import verify
from earwitness.data import audio
from earwitness.data.manifest import read_card, read_splits
from earwitness.errors import InputError
from earwitness.models import describe
from earwitness.signals import extraction
from earwitness.signals.evaluations import audit_attacks
from earwitness.signals.store import digest, facts_of
from earwitness.util import VERSION, file_hash
from tests.tiny import musicgen, recording
from tests.tiny_diffusion import audioldm
from tests.tiny_midi import golden_a

OLDER = Path(__file__).parent / "older" / "201bafe"
SIDES = ("suspect", "held_out")


def _edited(path: Path, **changes: object) -> Path:
    """Change fields of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return path


# ---- plans, reports, manifests


def test_a_frozen_plan_has_the_digest_that_its_log_names() -> None:
    plan = plans.read(OLDER / "plan.json")
    logs = plans.run_log(OLDER / "plan.json")[1:]
    (run,) = plans.earlier_runs([row["sha256"] for row in _recordings()], logs)
    assert plan.digest() == run["plan"]
    assert run["verdict"] == "no evidence"
    again = plan.model_copy(update={"frozen_at": "", "earwitness": VERSION})
    if plan.earwitness == VERSION:
        plans.check(plan, again)
    else:
        with pytest.raises(InputError, match=r"the version of Earwitness changed since; run it as frozen, or freeze"):
            plans.check(plan, again)


def _recordings() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((OLDER / "report" / "report.json").read_text())["recordings"]
    return rows


def test_a_report_is_consistent_and_its_page_the_same() -> None:
    found = verify(OLDER / "report")
    assert found.consistent, found.lines
    report, files = reports.read(OLDER / "report")
    assert set(report.repeat.files) == {"scores-1.csv", "scores-1-references.csv"}
    assert report.repeat.code == "201bafe87575"
    assert report.frozen.file_sha256 == file_hash(OLDER / "plan.json")
    assert page(report, files) == (OLDER / "report" / "report.html").read_text()
    assert (report.model_dump_json(indent=1) + "\n").encode() == (OLDER / "report" / "report.json").read_bytes()


def test_manifests_and_their_cards_are_read() -> None:
    tracks = ew.read_manifest(OLDER / "record.csv", "pocket/musicgen-a")
    assert {track.sha256: track.role for track in tracks} == {row["sha256"]: row["role"] for row in _recordings()}
    record, card = (read_card(OLDER / f"{name}.csv") for name in ("record", "built"))
    assert record
    assert record.counts == {"tracks": 18, "suspect": 9, "held_out": 9, "left_out": 0}
    built = read_splits(OLDER / "built.csv")
    assert {track.track_id for track in built} >= {"-tr00_0"}, "an apostrophe that kept a cell from being a formula"
    assert card
    assert {track.split for track in built} == set(card.splits)


# ---- stored signals


def _remade(kind: str, folder: Path) -> tuple[Any, Path]:
    """Return what the stored signals are of: the description of the model, and the manifest with its recordings."""
    if kind == "symbolic":
        golden_a(folder / "a.mid")
        (folder / "m.csv").write_text("path,role\na.mid,suspect\n")
        return describe("pocket/figaro-b"), folder / "m.csv"
    rows = ["path,role,artist,caption,split"]
    for side, role in enumerate(SIDES):
        for i in range(2):
            recording(folder / role / f"{i}.wav", 0.9, seed=100 * side + i)
            rows.append(f"{role}/{i}.wav,{role},Ann,sad rock,{role}s")
    (folder / "m.csv").write_text("\n".join(rows) + "\n")
    make: dict[str, Callable[[Path], Path]] = {"token": musicgen, "diffusion": lambda at: audioldm(at, sample_size=32)}
    return describe(str(make[kind](folder / kind))), folder / "m.csv"


@pytest.mark.parametrize("kind", ["token", "diffusion", "symbolic"])
def test_stored_signals_are_served_and_nothing_is_scored_again(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their key may follow from weights and versions of libraries that moved on; all else in it is as it was."""
    part, done = OLDER / "signals" / f"{kind}.parquet", json.loads((OLDER / "signals" / f"{kind}.json").read_text())
    old = facts_of(pq.read_schema(part))["identity"]
    info, manifest = _remade(kind, tmp_path)
    info = replace(info, revision=old["model"]["revision"], versions=old["model"]["versions"])
    monkeypatch.setattr(extraction, "describe", lambda *_, **__: info)
    monkeypatch.setattr(extraction, "load_model", lambda *_, **__: pytest.fail("a model was run"))
    if kind != "symbolic":
        monkeypatch.setattr(audio.sf, "__libsndfile_version__", old["audio"]["soundfile"])
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / "results"))
    place = tmp_path / "results" / "signals" / done["store"]
    place.mkdir(parents=True)
    assert digest(old)[:16] == done["store"][-16:]
    shutil.copy(part, place / f"part-{'0' * 16}.parquet")

    signals = ew.collect(info.name, read_splits(manifest))
    assert json.loads(json.dumps(signals.store.identity)) == old
    assert extraction.summary(signals) == done
    assert signals.provenance["tracks_scored_now"] == 0
    scores = ew.score(signals)
    assert len(scores)
    assert np.isfinite(scores["score"]).mean() > 0.5
    for asked in ("audit", str(scores["attack"][~scores["attack"].str.startswith("blind")].iloc[0])):
        few = ew.collect(info.name, read_splits(manifest), asked)  # keyed by fewer passes of a diffusion model
        assert few.provenance["tracks_scored_now"] == 0
        again = ew.score(few, asked if asked != "audit" else audit_attacks(info.kind))
        both = again.merge(scores, on=["track_id", "segment_id", "attack"], suffixes=("", "_whole"))
        assert len(both)
        np.testing.assert_array_equal(both["score"], both["score_whole"])

    table, shapes = pq.read_table(part), facts_of(pq.read_schema(part))["shapes"]
    for family in {name.partition(":")[0] for name in table.column_names if ":" in name}:
        for row, (_, stored) in enumerate(signals.store.read(f"part-{'0' * 16}.parquet", family)):
            for name, values in stored.items():
                column = f"{family}:{name}"
                given = np.array(table[column][row].as_py()).reshape(shapes.get(column, []))
                np.testing.assert_array_equal(values, given.astype(values.dtype))


# ---- what another version or a hand changed


def test_a_report_of_another_version_is_one_line(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(OLDER / "report", tmp_path / "r"))
    _edited(copy / "report.json", schema_version=3)
    with pytest.raises(InputError, match=r"/r/report\.json: schema_version: .* another version of Earwitness wrote it"):
        verify(copy)


@pytest.mark.parametrize(("field", "value"), [("version", 2), ("surprise", 1)])
def test_a_plan_of_another_version_is_one_line(field: str, value: object, tmp_path: Path) -> None:
    copy = Path(shutil.copy(OLDER / "plan.json", tmp_path))
    _edited(copy, **{field: value})
    with pytest.raises(InputError, match=rf"/plan\.json: {field}: .* another version of Earwitness wrote it") as said:
        plans.read(copy)
    assert "\n" not in str(said.value)
