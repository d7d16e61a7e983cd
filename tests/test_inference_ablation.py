"""What groups of features are worth: the one that carries the effect, and those that do not."""

from __future__ import annotations

import numpy as np
import pytest

from earwitness.errors import InputError
from earwitness.inference.ablation import ablate
from tests.inference_tables import score_table

ROLES = ("member", "nonmember")


@pytest.fixture(scope="module")
def table():
    scores = score_table(40, 40, attacks=4, roles=ROLES, seed=3)
    raised = (scores["role"] == "member") & (scores["attack"] == "x0")
    return scores.assign(score=scores["score"] + 2.5 * raised)


def test_the_group_that_carries_the_effect_is_found(table):
    found = ablate(table, {"signal": ["x0"], "noise": ["x[12]"], "more noise": ["x3"]}, size=15, n_audits=60)
    assert found["features"].to_list() == ["all", *["alone"] * 3, *["without"] * 3]
    row = found.set_index(["features", "group"])
    assert row.loc[("alone", "signal"), "power"] > 0.9
    assert row.loc[("alone", "noise"), "power"] < 0.2
    assert row.loc[("without", "signal"), "power"] < 0.2
    assert row.loc[("without", "noise"), "power"] > row.loc[("without", "signal"), "power"] + 0.5
    assert row["n_features"].to_list() == [4, 1, 2, 1, 3, 2, 3]
    assert (row["level"] < 0.12).all()
    assert row.loc[("alone", "signal"), "auc_within"] > 0.85
    assert (row["auc_within_low"] < row["auc_within"]).all()
    assert (row["n_member"] == 40).all()


def test_the_same_seed_gives_the_same_table(table):
    groups = {"signal": ["x0"], "noise": ["x1"]}
    first = ablate(table, groups, size=10, n_audits=20)
    assert first.equals(ablate(table, groups, size=10, n_audits=20))
    assert not first.equals(ablate(table, groups, size=10, n_audits=20, seed=1))


def test_units_that_one_group_cannot_score_are_left_out_of_all(table):
    gone = (table["track_id"] == "t0000") & (table["attack"] == "x1")
    found = ablate(
        table.assign(score=table["score"].mask(gone, np.nan)), {"a": ["x0"], "b": ["x1"]}, size=10, n_audits=5
    )
    assert (found["n_member"] == 39).all()


@pytest.mark.parametrize(
    ("groups", "size", "message"),
    [
        ({"only": ["x*"]}, 10, "expected at least 2, got 1"),
        ({"a": ["x*"], "b": ["x0"]}, 10, "group 'a' holds every feature"),
        ({"a": ["x0"], "b": ["y0"]}, 10, "no attack 'y0'"),
        ({"a": ["x0"], "b": ["x1"]}, 21, "audits of 21 units a side need"),
    ],
)
def test_what_cannot_be_compared_is_refused(table, groups, size, message):
    with pytest.raises(InputError, match=message):
        ablate(table, groups, size=size, n_audits=5)
