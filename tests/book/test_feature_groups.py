"""What groups of features are worth: the one that carries the effect, and those that do not."""

from __future__ import annotations

import numpy as np
import pytest

from earwitness import figures
from earwitness.book.studies.feature_groups import group_worth
from earwitness.errors import InputError
from tests.inference_tables import score_table

ROLES = ("member", "nonmember")
GROUPS = {"signal": ["x0"], "noise": ["x[12]"], "more noise": ["x3"]}


@pytest.fixture(scope="module")
def table():
    scores = score_table(40, 40, attacks=4, artists=4, roles=ROLES, seed=3)
    raised = (scores["role"] == "member") & (scores["attack"] == "x0")
    return scores.assign(score=scores["score"] + 2.5 * raised)


@pytest.fixture(scope="module")
def found(table):
    return group_worth(table, GROUPS, n_artists=2, n_audits=60, n_permutations=199)


def test_the_group_that_carries_the_effect_is_found(found):
    assert found["features"].to_list() == ["all", *["alone"] * 3, *["without"] * 3]
    row = found.set_index(["features", "group"])
    assert row["n_features"].to_list() == [4, 1, 2, 1, 3, 2, 3]
    assert row.loc[("alone", "signal"), "power"] > 0.8
    assert row.loc[("alone", "more noise"), "power"] < 0.3
    assert row.loc[("without", "signal"), "power"] < 0.3
    assert row.loc[("without", "noise"), "power"] > row.loc[("without", "signal"), "power"] + 0.4
    assert row.loc[("alone", "signal"), "auc_within"] > 0.85
    assert (row["auc_within_low"] < row["auc_within"]).all()
    assert set(found["n_side"]) == {20}
    assert set(found["n_member"]) == {40}


def test_a_difference_between_artists_changes_nothing(table):
    shift = table["artist"].map({f"artist {i}": 5.0 * i for i in range(4)})
    options = {"n_artists": 2, "n_audits": 60, "n_permutations": 199}
    moved = group_worth(table.assign(score=table["score"] + shift), GROUPS, **options)
    still = group_worth(table, GROUPS, **options)
    np.testing.assert_allclose(moved["power"], still["power"], atol=0.1)


def test_the_same_seed_gives_the_same_table(table):
    options = {"n_artists": 2, "n_audits": 20, "n_permutations": 99}
    first = group_worth(table, GROUPS, **options)
    assert first.equals(group_worth(table, GROUPS, **options))
    assert not first.equals(group_worth(table, GROUPS, **options, seed=1))


def test_units_that_one_group_cannot_score_are_left_out_of_all(table):
    gone = (table["track_id"] == "t0000") & (table["attack"] == "x1")
    lacking = table.assign(score=table["score"].mask(gone, np.nan))
    found = group_worth(lacking, {"a": ["x0"], "b": ["x1"]}, n_artists=2, n_audits=5, n_permutations=99)
    assert set(found["n_member"]) == {39}
    assert set(found["n_side"]) == {18}, "every artist gives as many tracks as the one with the fewest"


def test_the_figure_names_the_strongest_group(found):
    picture = figures.worth(found, source="results/tables/x/worth.csv")
    assert "The strongest alone, signal" in picture.alt
    assert picture.svg.count("var(--ew-member") >= 3
    with pytest.raises(InputError, match="power"):
        figures.worth(found.drop(columns="power"))


@pytest.mark.parametrize(
    ("groups", "artists", "message"),
    [
        ({"only": ["x*"]}, 2, "expected at least 2, got 1"),
        ({"a": ["x*"], "b": ["x0"]}, 2, "group 'a' holds every feature"),
        ({"a": ["x0"], "b": ["y0"]}, 2, "no attack 'y0'"),
        ({"a": ["x0"], "b": ["x1"]}, 5, "audits of 5 artists need as many .* has 4"),
    ],
)
def test_what_cannot_be_compared_is_refused(table, groups, artists, message):
    with pytest.raises(InputError, match=message):
        group_worth(table, groups, n_artists=artists, n_audits=5)
