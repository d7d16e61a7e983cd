"""The paper's two procedures, as its authors' code has them, on values worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_ind

from earwitness.errors import InputError
from earwitness.signals.evaluations import resolve
from earwitness.stats.peers import (
    PAPER_SIZES,
    inference_as_coded,
    mean_p,
    membership_as_coded,
    smallest_size,
)
from earwitness.stats.units import matching
from earwitness.types import PAPER_FEATURES


def test_the_papers_features_are_eighteen_attacks_that_exist():
    ids = [name for names in PAPER_FEATURES["token"].values() for name in names]
    assert len(ids) == len(set(ids)) == 18
    assert [spec.id for spec in resolve("paper")] == [spec.id for spec in resolve(ids)] == ids
    assert [spec.id for spec in resolve(["paper", "loss/null"])] == [*ids, "loss/null"]
    assert all(name.endswith("/contrast/q0") for name in ids)
    assert [len(names) for names in PAPER_FEATURES["diffusion"].values()] == [1, 1, 1, 1, 10, 10, 2]  # CDI's 26
    for kind, rows in PAPER_FEATURES.items():
        ids = [name for names in rows.values() for name in names]
        assert [spec.id for spec in resolve("paper", kind=kind)] == ids


@pytest.mark.parametrize("kind", PAPER_FEATURES)
def test_the_papers_features_are_chosen_by_one_word(kind):
    ids = [name for names in PAPER_FEATURES[kind].values() for name in names]
    assert matching([*ids, "loss/null", "blind/level"], "paper") == ids
    assert matching([*ids[::-1], "loss/null"], ["loss/null", "paper"]) == [*ids[::-1], "loss/null"]
    with pytest.raises(InputError, match=f"lacks 1 of the paper's {len(ids)} features for {kind} models, {ids[-1]}"):
        matching(ids[:-1], "paper")


def test_sizes_are_those_of_the_paper():
    assert PAPER_SIZES[:11] == (2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 30)
    assert PAPER_SIZES[-4:] == (900, 1000, 2000, 3000)
    assert len(PAPER_SIZES) == 9 + 9 + 9 + 2


def test_counts_of_the_lowest_share_need_no_floor_of_one():
    """int(k N) is what ``min_k`` counts, wherever it is at least one."""
    assert all(int(k * n) == int(k * n + 1e-9) for k in (0.1, 0.2, 0.3, 0.4, 0.5) for n in range(10, 5000))


def test_one_draw_of_inference_by_hand():
    """Features 0, 1, 3 | 2, 4, 5 scale to 0, .2, .6 | .4, .8, 1; the second is its mirror image times ten."""
    first = np.array([[0.0, 1, 3, 2, 4, 5]]).T
    both = np.hstack([first, first * 20])
    scaled = 2 * np.array([0, 0.2, 0.6, 0.4, 0.8, 1])
    expected = ttest_ind(scaled[:3], scaled[3:], equal_var=False).pvalue
    assert inference_as_coded(both[:3], both[3:]) == pytest.approx(expected)
    assert inference_as_coded(both[3:], both[:3]) == pytest.approx(expected)  # the direction is not used


def test_an_infinite_feature_is_dropped_and_a_missing_value_is_zero():
    rng = np.random.default_rng(0)
    s, h = rng.normal(1, 1, (6, 3)), rng.normal(1, 1, (6, 3))
    alone = inference_as_coded(s[:, :2], h[:, :2])
    s[4, 2] = -np.inf
    assert inference_as_coded(s, h) == alone
    s[4, 2], h[1, 0] = 0.5, np.nan
    filled = h.copy()
    filled[1, 0] = 0
    assert inference_as_coded(s, h) == inference_as_coded(s, filled)


def test_nothing_left_is_no_rejection():
    s, h = np.full((4, 1), np.inf), np.ones((4, 1))
    assert inference_as_coded(s, h) == 1
    assert inference_as_coded(h, h) == 1


def test_a_batch_of_draws_is_the_draws_one_by_one():
    rng = np.random.default_rng(1)
    s, h = rng.normal(size=(7, 5, 4)), rng.normal(size=(7, 6, 4))
    s[2, 3, 1] = np.inf
    together = inference_as_coded(s, h)
    assert together == pytest.approx([float(inference_as_coded(a, b)) for a, b in zip(s, h, strict=True)])


def test_the_smallest_size_is_where_mean_p_falls_below_one_percent():
    rng = np.random.default_rng(2)
    s, h = rng.normal(2, 1, (60, 3)), rng.normal(0, 1, (50, 3))
    table, smallest = smallest_size(inference_as_coded, s, h, n_draws=60, seed=3)
    assert table["size"].tolist() == [*range(2, 11), 20, 30, 40, 50]
    below = table.loc[table["mean_p"] <= 0.01, "size"]
    assert smallest == below.iloc[0]
    expected = mean_p(inference_as_coded, s, h, size=5, n_draws=60, seed=3)
    assert table.set_index("size").loc[5, "mean_p"] == expected


def test_no_size_is_enough_where_nothing_differs():
    rng = np.random.default_rng(3)
    table, smallest = smallest_size(inference_as_coded, rng.normal(size=(20, 3)), rng.normal(size=(20, 3)), n_draws=50)
    assert smallest is None
    assert (table["mean_p"] > 0.01).all()


def test_draws_come_from_the_first_three_thousand():
    rng = np.random.default_rng(4)
    s, h = rng.normal(size=(3100, 2)), rng.normal(size=(3050, 2))
    s[3000:] = 1e6
    table, _ = smallest_size(inference_as_coded, s, h, sizes=(3000,), n_draws=2)
    alone, _ = smallest_size(inference_as_coded, s[:3000], h[:3000], sizes=(3000,), n_draws=2)
    assert table.equals(alone)


def test_draws_larger_than_the_data_are_refused_by_name():
    with pytest.raises(InputError, match="between 2 and 4 units a side"):
        mean_p(inference_as_coded, np.zeros((5, 1)), np.zeros((4, 1)), size=5)


def one(member, nonmember):
    """The row of a table with one feature."""
    columns = (np.array([values], float).T for values in (member, nonmember))
    return membership_as_coded(*columns, ["a"], {"A": ["a"]}).iloc[0]


def test_a_membership_row_by_hand():
    """Members 4, 3, 2, 1 and non-members 2.5, 1.5, .5, -.2: two above all non-members, 13 of 16 pairs won."""
    row = one([4, 3, 2, 1], [2.5, 1.5, 0.5, -0.2])
    assert (row.tpr, row.auc, row.accuracy, row.n) == (0.5, 13 / 16, 0.75, 4)
    assert (row.tpr_sd, row.auc_sd, row.accuracy_sd) == (0, 0, 0)  # every draw is the same set


def test_a_negative_maximum_turns_the_order_round():
    """4, 3 | 2, 1 are -4, -3 | -2, -1 in the code: divided by -1, a perfect attack becomes a perfectly wrong one."""
    assert one([4, 3], [2, 1]).auc == 0
    assert one([-1, -2], [-3, -4]).auc == 1
    assert one([1, 2], [-3, -4]).auc == 1


def test_a_missing_or_infinite_score_counts_as_zero():
    """2, nothing | 1, -1: three of four pairs are won, for nothing counts as 0."""
    assert one([2, np.nan], [1, -1]).auc == 3 / 4
    assert one([2, np.inf], [1, -1]).auc == one([2, 0], [1, -1]).auc == 3 / 4


def test_the_larger_side_counts_with_its_first_units_only():
    assert one([3, 1], [2, 0, 9, 9, 9]).auc == one([3, 1], [2, 0]).auc == 3 / 4


def test_the_best_variant_is_chosen_on_the_data_that_are_shown():
    rng = np.random.default_rng(5)
    noise = rng.normal(size=(2, 100, 5))
    rows = {"Min-K %": list("abcde"), "Loss": ["a"]}
    table = membership_as_coded(*noise, list("abcde"), rows).set_index("row")
    singles = membership_as_coded(*noise, list("abcde"), {c: [c] for c in "abcde"}).set_index("row")
    assert table.loc["Min-K %", "tpr"] == singles["tpr"].max()
    assert table.loc["Min-K %", "variant"] == singles["tpr"].idxmax()
    assert table.loc["Loss", "auc"] == singles.loc["a", "auc"]


def test_beyond_five_thousand_units_draws_differ_and_overlap(monkeypatch):
    monkeypatch.setattr("earwitness.stats.peers.PAPER_MOST", 30)
    monkeypatch.setattr("earwitness.stats.peers.PAPER_DRAWS", 20)
    rng = np.random.default_rng(6)
    table = membership_as_coded(rng.normal(0.5, 1, (40, 1)), rng.normal(size=(45, 1)), ["a"], {"A": ["a"]})
    assert table.loc[0, "n"] == 30
    assert 0 < table.loc[0, "auc_sd"] < 0.1


def test_equal_scores_of_zero_are_a_coin():
    row = one([0, 0], [0, 0])
    assert (row.auc, row.accuracy, row.tpr) == (0.5, 0.5, 0)
