"""The paper's tables with their levels under true nulls, and its defects: as coded beside as meant, worked by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import ttest_ind

from earwitness.book.studies import paper
from earwitness.errors import InputError
from earwitness.signals import symbolic
from earwitness.signals.token import TokenSignals
from earwitness.stats.peers import inference_as_coded
from earwitness.types import PAPER_FEATURES, Window

NAMES = [name for names in PAPER_FEATURES["token"].values() for name in names]


def scores(values, roles, names=NAMES, windows=1):
    """Return a score table from units [n, p] and their roles; every window of a unit scores alike."""
    n, p = values.shape
    unit, window = np.repeat(np.arange(n), windows), np.tile(np.arange(windows), n)
    rows = {
        "track_id": [f"t{u:03d}" for u in unit],
        "segment_id": [f"t{u:03d}-{w}" for u, w in zip(unit, window, strict=True)],
        "artist": "",
        "work": "",
        "role": [roles[u] for u in unit],
    }
    table = pd.DataFrame(rows).loc[np.repeat(np.arange(n * windows), p)]
    return table.assign(attack=list(names) * (n * windows), score=np.repeat(values, windows, axis=0).ravel())


@pytest.fixture(scope="module")
def found():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(80, 18)) + rng.normal(size=(80, 1))
    values[:40] += 1
    return paper.sides(scores(values, ["member"] * 40 + ["nonmember"] * 40))


def test_sides_hold_the_papers_features_in_an_order_of_its_own(found):
    assert found.names == tuple(NAMES)
    assert found.member.shape == found.nonmember.shape == (40, 18)
    assert found.rows == PAPER_FEATURES["token"]
    rising = np.arange(80.0)[:, None] + np.zeros(18)
    member = paper.sides(scores(rising, ["member", "nonmember"] * 40)).member[:, 0]
    assert sorted(member) == list(range(0, 80, 2))
    assert member.tolist() != sorted(member)


def test_a_membership_table_shows_what_nothing_would_give(found):
    table = paper.membership(found, n_nulls=20).set_index("row")
    assert list(table.index) == list(PAPER_FEATURES["token"])
    assert (table["auc"] > 0.6).all()
    assert table["null_n"].eq(20).all()
    assert table.loc["Loss", "null_auc"] == pytest.approx(0.5, abs=0.05)
    assert table.loc["CAMIA", "null_tpr"] > table.loc["Loss", "null_tpr"], "the best of five is better than one"
    assert ((table["tpr_low"] <= table["tpr"]) & (table["tpr"] <= table["tpr_high"])).all()


def test_deals_take_two_sides_without_repeats():
    units = np.arange(12.0)[:, None]
    for one, other in paper.deals(units, 6, 230, 0):
        assert (np.sort(np.concatenate([one, other], axis=1)[..., 0], axis=1) == np.arange(12)).all()
    with pytest.raises(InputError, match="two sides of 7 units need 14 non-members, got 12"):
        next(paper.deals(units, 7, 1, 0))


def test_sizes_beyond_the_data_are_simulated_and_say_so(found):
    recipes = {"as coded": inference_as_coded}
    table = paper.needed(found, recipes, sizes=(5, 20, 30, 60), n_draws=50, n_audits=200).set_index("size")
    assert table["source"].tolist() == ["units", "units", "units", "simulated"]
    assert table["null_source"].tolist() == ["units", "units", "simulated", "simulated"]
    assert table["mean_p"].is_monotonic_decreasing
    assert (table["null_rejected"] < 0.06).all()
    row = paper.smallest(table.reset_index()).iloc[0]
    assert row["as_coded"] == table.index[table["mean_p"] <= 0.01][0]
    assert row["as_meant"] <= row["as_coded"], "a mean of .01 asks for more than eight draws in ten below it"
    assert len(paper.needed(found, recipes, sizes=(5, 20), n_draws=5, n_audits=5, most=10)) == 1


def test_simulated_units_are_like_the_real_ones():
    rng = np.random.default_rng(1)
    like = rng.normal(size=(500, 3)) @ np.array([[1, 0.5, 0], [0, 1, 0], [0, 0, 2]]) + 7
    made = paper.normal_units(like, 20_000, rng)
    np.testing.assert_allclose(made.mean(axis=0), like.mean(axis=0), atol=0.06)
    np.testing.assert_allclose(np.cov(made.T), np.cov(like.T), atol=0.12)


def test_one_sided_by_hand():
    """The same sums: the half of the two-sided p-value on the right side, all but that half on the wrong one."""
    s, h = np.array([[3.0], [4], [5]]), np.array([[1.0], [2], [4]])
    both = float(inference_as_coded(s, h))
    assert float(paper._one_sided(s, h)) == pytest.approx(both / 2)
    assert float(paper._one_sided(h, s)) == pytest.approx(1 - both / 2)


def test_defects_are_measured_against_the_same_test_without_them(found):
    table = pd.DataFrame(paper.defects(found, n_audits=400, n_sets=10)).set_index("where")
    right = table.loc["missing scores: 0", "as_meant"]
    assert right < 0.04
    assert table.loc["test clips: one row per caption", "as_coded"] > 0.08
    assert table.loc["Min-K %++: kept or dropped after the result", "as_coded"] >= right
    turned = table.loc["direction: not used"]
    assert turned["as_coded"] < 0.3 < 0.7 < turned["as_meant"]
    best = table.loc["best variant: chosen on these data"]
    assert best["as_coded"] > best["as_meant"]


def told(monkeypatch, suspect, held_out, plus_plus=None, **options):
    """Return the table of defects where the only audit is one of these units, alike in all 18 features; also by hand.

    ``plus_plus``: what stands in the five features of Min-K %++ instead, suspects first.
    """
    sides = []
    for i, side in enumerate((suspect, held_out)):
        values = np.repeat(np.asarray(side, float)[:, None], 18, axis=1)
        if plus_plus is not None:
            values[:, [j for j, name in enumerate(NAMES) if "++" in name]] = np.asarray(plus_plus[i], float)[:, None]
        sides.append(values[None])
    monkeypatch.setattr(paper, "deals", lambda *_: iter([sides]))
    units = np.random.default_rng(0).normal(size=(8, 18))
    table = paper.defects(paper.Sides(units, units, tuple(NAMES), PAPER_FEATURES["token"]), n_sets=1, **options)
    return pd.DataFrame(table).set_index("where")[["as_coded", "as_meant"]]


def test_a_clip_that_counts_once_per_caption_by_hand(monkeypatch):
    """Of ten rows the code sees two clips, five times each: p falls from .5 to .001."""
    suspect = np.arange(10) / 9
    held_out = np.array([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.5])
    assert ttest_ind(suspect, np.repeat([0, 0.1], 5), equal_var=False).pvalue < 0.01
    assert ttest_ind(suspect, held_out, equal_var=False).pvalue > 0.01
    row = told(monkeypatch, suspect, held_out).loc["test clips: one row per caption"]
    assert row.to_list() == [1, 0]


def test_a_missing_score_that_counts_as_zero_by_hand(monkeypatch):
    """All suspects missing, all others 1 to 2: zeros against their like is a difference, 1 to 2 against it none."""
    values = 1 + np.arange(6) / 5
    row = told(monkeypatch, values, values, missing=1.1).loc["missing scores: 0"]
    assert row.to_list() == [1, 0]
    assert told(monkeypatch, values, values, missing=0).loc["missing scores: 0"].to_list() == [0, 0]


def test_a_feature_group_that_may_be_dropped_afterwards_by_hand(monkeypatch):
    """Thirteen features tell the sides apart, five of Min-K %++ are noise three times as wide, and may go."""
    sides, noise = (np.array([4, 5, 6, 5]), np.array([1, 2, 3, 2])), ([0, 9, 0, 9], [9, 0, 9, 0])
    scaled = [13 * (x - 1) / 5 + 5 * np.array(n) / 9 for x, n in zip(sides, noise, strict=True)]
    assert ttest_ind(*scaled, equal_var=False).pvalue > 0.01 > ttest_ind(*sides, equal_var=False).pvalue
    row = told(monkeypatch, *sides, noise).loc["Min-K %++: kept or dropped after the result"]
    assert row.to_list() == [1, 0]


def test_a_headline_that_takes_any_size_by_hand(monkeypatch):
    """Two a side have p = .005 in every draw, all ten p = .5: the headline finds a size, the test of all does not."""

    def p_of(suspect, held_out, **_):
        return np.full(suspect.shape[:-2], 0.005 if suspect.shape[-2] == 2 else 0.5)

    monkeypatch.setattr(paper, "inference_as_coded", p_of)
    row = paper._headline(np.arange(20.0)[:, None], 3, n_draws=2)
    assert (row["as_coded"], row["as_meant"]) == (1, 0)


def test_windows_that_count_as_items_by_hand(monkeypatch):
    """Four pieces a side of three equal windows: as items n is 12, and p falls below .01."""
    sides = np.array([0.0, 2, 4, 6]), np.array([3.0, 5, 7, 9])
    assert ttest_ind(*sides, equal_var=False).pvalue > 0.01
    assert ttest_ind(*(np.repeat(x, 3) for x in sides), equal_var=False).pvalue < 0.01
    dealt = [np.tile(x[None, :, None, None], (1, 1, 3, 18)) for x in sides]
    monkeypatch.setattr(paper, "deals", lambda *_: iter([dealt]))
    values = np.random.default_rng(0).normal(size=(40, 18))
    row = paper.windows_as_items(scores(values, ["member"] * 20 + ["nonmember"] * 20, windows=3))
    assert (row["as_coded"], row["as_meant"]) == (1, 0)


def test_positive_scores_are_turned_round_by_the_division(found):
    """Shares of tokens are never negative: in the code they are negated, and all of them lie below 0."""
    here = np.arange(18) == NAMES.index("camia_running/contrast/q0")
    changed = [np.where(here, np.exp(side), -1.0) for side in (found.member, found.nonmember)]
    shifted = paper.Sides(*changed, found.names, found.rows)
    rows = [row for row in paper._variants(shifted, n_nulls=1) if row["where"].startswith("scores")]
    assert [row["measure"] for row in rows] == ["AUC of camia_running/contrast/q0"]
    assert rows[0]["as_coded"] == pytest.approx(1 - rows[0]["as_meant"])


def test_twice_the_windows_are_not_twice_the_pieces():
    """Two equal windows a piece: as items they double n and add nothing, so that true nulls fall."""
    values = np.random.default_rng(2).normal(size=(120, 18))
    roles = ["member"] * 40 + ["nonmember"] * 80
    row = paper.windows_as_items(scores(values, roles, windows=2), n_audits=1000)
    assert row["as_meant"] < 0.03
    assert row["as_coded"] > 2 * row["as_meant"] + 0.01
    with pytest.raises(InputError, match="need pieces of two windows"):
        paper.windows_as_items(scores(values, roles))


def test_targets_of_the_next_token_and_of_the_input_by_hand():
    """Two entries, contrast logits (ln 3, 0): entry 0 has 3/4. Tokens 1, 0, 0, 1: labels 0, 0, 1, inputs 1, 0, 0."""

    def logits(codes, windows, told=("description",)):
        one = torch.tensor([np.log(3.0), 0.0]) if told else torch.zeros(2)
        return one.expand(1, 1, 3, 2).clone(), None

    tokens = np.array([1, 0, 0, 1], np.int32)
    window = Window(0, 0, tokens, np.zeros(3, np.int8), np.zeros(3, np.int32))
    held = symbolic.decoder_alone(SimpleNamespace(logits=logits), torch.zeros(1, 1, 3), [window])
    extras = {f"decoder_alone/{name}": values[0] for name, values in held.items()}
    signal = TokenSignals(tokens[None, 1:], np.ones((1, 3), bool), {}, extras)
    likely, unlikely = np.log(0.75), np.log(0.25)
    for stream, wanted in {
        "contrast_whole": [likely, likely, unlikely],
        "contrast_inputs": [unlikely, likely, likely],
    }.items():
        every = symbolic.whole(signal, stream)
        np.testing.assert_allclose(every.series("logp", "contrast", 0), wanted, rtol=1e-6)
        np.testing.assert_allclose(every.series("logp", "null", 0), np.log(0.5), rtol=1e-6)


def test_padding_that_counts_by_hand():
    """All tokens at -2 nats: their mean is -2 whatever the length; with padding at 0 a shorter piece looks better."""

    class Fake:
        def items(self, family):
            for i in range(20):
                logp = np.full((1, 256), -2, np.float32)
                held = np.stack([np.stack([logp[0]] * 5)] * 3)
                extras = {"decoder_alone/labels": held, "decoder_alone/tokens": np.zeros(257, np.int32)}
                signal = TokenSignals(np.zeros((1, 256), np.int32), np.ones((1, 256), bool), {}, extras)
                yield {"role": "nonmember", "window": 0, "track_id": f"t{i}"}, signal
                yield {"role": "nonmember", "window": 1, "track_id": f"t{i}"}, signal
                yield {"role": "member", "window": 0, "track_id": f"m{i}"}, signal

    row = paper.padded_loss(Fake())
    assert (row["as_coded"], row["as_meant"]) == (1.0, 0.5)
    assert row["source"] == "planted"


def test_streams_of_scores_are_compared_feature_by_feature():
    names = [name for rows in PAPER_FEATURES["symbolic"].values() for name in rows]
    coded = [name.replace("contrast_whole", "contrast_inputs") for name in names]
    values = np.tile([[4.0], [3], [2], [1]], 36)
    values[:, 18:] *= -1  # against its inputs every feature is exactly wrong
    table = paper.against_inputs(scores(values, ["member", "member", "nonmember", "nonmember"], [*names, *coded]))
    assert [(row["as_coded"], row["as_meant"]) for row in table] == [(0.0, 1.0)] * 18
