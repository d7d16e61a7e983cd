"""The check of shifts is drawn once for each size, and the same whoever asks; the check of the level has a bound."""

from __future__ import annotations

import inspect
from dataclasses import replace

import numpy as np
import pytest

from earwitness.audit import checks, scoring
from earwitness.audit.report import Shifts, Testable
from earwitness.stats.prepare import Prepared
from earwitness.stats.verdict import ALPHA
from earwitness.types import MOVED, ModelInfo
from earwitness_build.audit_reference import common

ASKED = {"kind": "symbolic", "sizes": (9, 9), "within": False, "alpha": ALPHA, "audits": 4}


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path))
    return tmp_path / "shifts"


@pytest.fixture
def drawn(monkeypatch):
    """Count the draws."""
    calls, draw = [], checks.draw_pocket
    monkeypatch.setattr(checks, "draw_pocket", lambda *a, **k: (calls.append((a, k)), draw(*a, **k))[1])
    return calls


def prepared(n_suspect, n_held_out, *, artists=1, seed=0):
    """Arrays of an audit as they were tested."""
    n, rng = n_suspect + n_held_out, np.random.default_rng(seed)
    fields = dict.fromkeys(inspect.signature(Prepared).parameters) | {
        "features": rng.normal(size=(n, 3)),
        "blind": rng.normal(size=(n, 9)),
        "positive": np.arange(n) < n_suspect,
        "artists": np.array([f"artist {i % artists}" if artists > 1 else "" for i in range(n)], dtype=object),
        "strata": np.arange(n) % artists if artists > 1 else None,
    }
    return Prepared(**fields)


def shifts(one, **changes):
    return checks.shifts(one, **{"kind": "symbolic", "alpha": ALPHA, "audits": 4, "seed": 1} | changes)


# ---- shipped


def test_everything_common_is_shipped_and_nothing_else():
    assert set(checks.shipped()) == {name for name, _ in common()}


@pytest.mark.parametrize(
    ("kind", "size", "within"),
    [
        ("symbolic", 10, False),
        *(pytest.param(kind, 12, True, marks=pytest.mark.slow) for kind in ("token", "diffusion", "symbolic")),
        *(pytest.param(kind, 20, False, marks=pytest.mark.slow) for kind in ("token", "diffusion", "symbolic")),
    ],
)
def test_what_is_shipped_is_what_is_drawn(kind, size, within):
    asked = {"kind": kind, "sizes": (size, size), "within": within, "alpha": ALPHA, "audits": 200}
    assert checks.pocket(**asked) == checks.draw_pocket(**asked)


def test_what_is_shipped_is_not_drawn(drawn, results):
    found = shifts(prepared(20, 20), audits=scoring.SHIFT_AUDITS, kind="token")
    assert (found.n_suspect, found.n_held_out, found.audits, found.material) == (20, 20, 200, "pocket")
    assert not drawn
    assert not results.exists()


# ---- kept


def test_other_sizes_are_drawn_once(drawn, results):
    first, again = checks.pocket(**ASKED), checks.pocket(**ASKED)
    assert first == again
    assert len(drawn) == len(list(results.iterdir())) == 1
    assert first == checks.draw_pocket(**ASKED)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"material": "pocket"', b"\xff"])
def test_a_damaged_one_is_drawn_again(results, content):
    first = checks.pocket(**ASKED)
    (place,) = results.iterdir()
    place.write_bytes(content)
    assert checks.pocket(**ASKED) == first
    assert Shifts.model_validate_json(place.read_bytes()) == first


def test_results_that_cannot_be_written_are_no_matter(results):
    results.write_text("a file where the folder would be")
    assert checks.pocket(**ASKED) == checks.draw_pocket(**ASKED)


@pytest.mark.parametrize(
    "change", [{"kind": "token"}, {"sizes": (9, 10)}, {"within": True}, {"alpha": 0.05}, {"audits": 5}]
)
def test_whatever_it_depends_on_has_a_file_of_its_own(results, change):
    checks.pocket(**ASKED)
    assert checks.pocket(**ASKED | change) == checks.draw_pocket(**ASKED | change)
    assert len(list(results.iterdir())) == 2


def test_another_rule_is_another_draw(drawn, results, monkeypatch):
    checks.pocket(**ASKED)
    monkeypatch.setattr(checks, "file_hash", lambda path: f"another {path.name}")
    checks.pocket(**ASKED)
    assert len(drawn) == len(list(results.iterdir())) == 2


# ---- what an audit is told


def test_the_scores_of_an_audit_do_not_matter(drawn):
    first, other = (shifts(prepared(9, 9, seed=seed), seed=seed) for seed in (0, 1))
    assert first == other
    assert len(drawn) == 1
    assert checks.ARTIST in {row.cause for row in first.rows}


def test_named_artists_are_no_cause(drawn):
    assert checks.ARTIST not in {row.cause for row in shifts(prepared(9, 9, artists=3)).rows}
    assert drawn[0][1]["within"] is True
    alone = prepared(9, 9)
    alone.artists[:] = "one"
    assert checks.ARTIST not in {row.cause for row in shifts(alone).rows}
    assert drawn[1][1]["within"] is False


def test_enough_held_out_recordings_are_the_material_and_are_not_kept(drawn, results):
    first, other = (shifts(prepared(9, 60, seed=seed)) for seed in (0, 1))
    assert first.material == other.material == "own"
    assert (first.n_suspect, first.n_held_out) == (9, 9)
    assert first != other
    assert not drawn
    assert not results.exists()


def test_sizes_are_capped(drawn):
    shifts(prepared(checks.MAX_UNITS + 7, checks.MAX_UNITS + 1), audits=1)
    assert drawn[0][0][1] == (checks.MAX_UNITS, checks.MAX_UNITS)


def test_earlier_versions_drew_with_the_seed_of_the_audit(results):
    one = prepared(9, 9)
    found = [shifts(one, seed=seed, older=True) for seed in (0, 1)]
    assert found[0] == shifts(one, seed=3) != found[1]


# ---- the level


@pytest.mark.parametrize(
    ("n", "deals", "dealt"), [(40, 500, 500), (60, 500, 500), (61, 500, 491), (61, 90, 90), (1000, 500, 100)]
)
def test_many_recordings_are_dealt_less_often(monkeypatch, n, deals, dealt):
    said = {}
    monkeypatch.setattr(checks, "level", lambda *_, deals, **__: said.setdefault("deals", deals))
    monkeypatch.setattr(checks, "shifts", lambda *_, audits, **__: said.setdefault("audits", audits))
    one = prepared(n // 2, n - n // 2)

    class Found:
        p_value, family = 0.5, "token"

        def model_copy(self, update):
            return update

    how = {"alpha": ALPHA, "deals": deals, "seed": 0, "pairs": None}
    scoring.behaving(Found(), one, **how)
    assert said == {"deals": dealt, "audits": min(scoring.SHIFT_AUDITS, deals)}
    said.clear()
    scoring.behaving(Found(), one, **how, older=True)
    assert said["deals"] == deals


def test_a_moved_objective_stands_in_what_is_reported_even_untested():
    info = ModelInfo("tuned", "diffusion", "r", 44_100, 2, 11.9, "float32", "cpu", "real", remark=MOVED)
    because = Testable(
        answer=False, smallest_detectable_auc=None, units_needed=9, blind_p=None, cost="", reasons=["few"], mends=[]
    )
    assert scoring.untested(info, "tuned", because, (1, 1), None).notes == [MOVED]
    assert scoring.untested(replace(info, remark=""), "base", because, (1, 1), None).notes == []
