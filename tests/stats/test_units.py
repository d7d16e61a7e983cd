from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earwitness.errors import InputError
from earwitness.stats.permutation_test import rank_standardise
from earwitness.stats.units import largest_difference, unit_table, without_origin
from tests.inference_tables import score_table


def test_units_are_means_of_equally_many_segments():
    table = score_table(6, 6, segments=np.array([3] * 11 + [5]))
    units = unit_table(table)
    assert units.segments_per_unit == 3
    assert units.means.shape == (12, 7)
    plain = table[table["attack"] == "x0"].groupby("track_id")["score"].mean()
    assert units.means[:11, 0] == pytest.approx(plain.to_numpy()[:11])
    five = table[(table["attack"] == "x0") & (table["track_id"] == "t0011")]["score"].to_numpy()
    means = [five[list(c)].mean() for c in combinations(range(5), 3)]
    assert np.isclose(units.means[11, 0], means).any()


def test_shorter_units_are_left_out_and_counted_by_side():
    segments = np.array([4] * 18 + [1, 1] + [4] * 19 + [2])
    units = unit_table(score_table(20, 20, segments=segments), segments_per_unit=4)
    assert len(units.units) == 37
    assert units.excluded == {
        "suspect units with fewer than 4 segments": 2,
        "held-out units with fewer than 4 segments": 1,
    }


def test_default_number_of_segments_keeps_nine_units_in_ten():
    segments = np.array([5] * 36 + [1] * 4)
    assert unit_table(score_table(20, 20, segments=segments)).segments_per_unit == 1
    assert unit_table(score_table(20, 20, segments=np.array([5] * 37 + [1] * 3))).segments_per_unit == 5


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=15, deadline=None)
def test_segments_drawn_depend_neither_on_row_order_nor_on_roles(seed, swap):
    table = score_table(5, 5, segments=np.array([4, 6] * 5))
    units = unit_table(table, segments_per_unit=3, seed=7)
    shuffled = table.sample(frac=1, random_state=seed)
    if swap:
        shuffled = shuffled.assign(role=shuffled["role"].map({"suspect": "held_out", "held_out": "suspect"}))
    again = unit_table(shuffled, segments_per_unit=3, seed=7)
    assert list(again.units) == list(units.units)
    assert again.columns(units.attacks) == pytest.approx(units.means)


def test_categories_serve_as_well_as_strings():
    table = score_table(5, 5)
    named = [column for column in table.columns if column != "score"]
    found = unit_table(table.astype(dict.fromkeys(named, "category")))
    assert found.means == pytest.approx(unit_table(table).means)
    assert found.attacks == unit_table(table).attacks


def test_seed_changes_the_draw():
    table = score_table(5, 5, segments=8)
    assert not np.allclose(
        unit_table(table, segments_per_unit=2, seed=1).means, unit_table(table, segments_per_unit=2, seed=2).means
    )


def test_duplicating_all_segments_changes_nothing():
    table = score_table(6, 6)
    twice = pd.concat([table, table.assign(segment_id=table["segment_id"] + "-copy")])
    assert unit_table(twice).means == pytest.approx(unit_table(table).means)


def test_missing_scores_and_missing_rows_are_told_apart():
    table = score_table(4, 4)
    table.loc[(table["attack"] == "x0") & (table["segment_id"] == "s00000"), "score"] = np.nan
    table = table[~((table["attack"] == "x1") & (table["segment_id"] == "s00002"))]
    units = unit_table(table)
    assert np.isnan(units.means[0, 0])
    assert not units.absent[0, 0]
    assert np.isnan(units.means[1, 1])
    assert units.absent[1, 1]


def test_artist_as_unit_pools_its_tracks():
    table = score_table(8, 8, artists=16)
    table["artist"] = table["role"] + table["artist"].str[-1]
    units = unit_table(table, "artist", segments_per_unit=1)
    assert set(units.units) == set(table["artist"])


@pytest.mark.parametrize(
    ("break_it", "match"),
    [
        (lambda t: t.drop(columns=["work", "score"]), "missing: work, score"),
        (lambda t: t.iloc[:0], "no rows"),
        (lambda t: pd.concat([t, t.iloc[[5]]]), "duplicate rows: attack 'x0' scores segment 's00005' of track 't0002'"),
        (lambda t: t.assign(score=t["score"].where(t.index != 3, np.inf)), "non-finite score.*x0.*s00003.*inf"),
        (lambda t: t.assign(role=t["role"].where(t.index != 3, "held_out")), "track_id 't0001' is in both roles"),
        (lambda t: t.assign(role=t["role"].replace("held_out", "heldout")), "unknown role 'heldout'"),
        (lambda t: t.assign(role=t["role"].where(t.index != 3, None)), "'role' .*empty value in row 3"),
        (lambda t: t.assign(track_id=t["track_id"].where(t.index != 3, None)), "'track_id' .*empty value in row 3"),
        (lambda t: t.assign(attack=t["attack"].where(t.index != 3, None)), "'attack' .*empty value in row 3"),
        (lambda t: t.assign(score=t["score"].astype(str)), "'score' of the score table must hold numbers"),
        (lambda t: t[t["role"] == "suspect"], "no held_out or nonmember rows"),
        (lambda t: t[t["role"] == "held_out"], "no suspect or member rows"),
    ],
)
def test_bad_tables(break_it, match):
    with pytest.raises(InputError, match=match):
        unit_table(break_it(score_table(4, 4)))


def test_bad_units():
    table = score_table(4, 4)
    with pytest.raises(InputError, match="missing: album"):
        unit_table(table, "album")
    with pytest.raises(InputError, match="artist 'artist 0' is in both roles"):
        unit_table(table, "artist")
    table["take"] = np.where(np.arange(len(table)) < 5, "one", "two")
    with pytest.raises(InputError, match="segment belongs to more than one take"):
        unit_table(table, "take")
    with pytest.raises(InputError, match="at least 1"):
        unit_table(table, segments_per_unit=0)
    with pytest.raises(InputError, match="no unit has 9 segments; the longest has 2"):
        unit_table(table, segments_per_unit=9)


def test_windows_of_scores_are_the_first_ones_on_both_sides():
    """Two sides that differ in nothing but length: a later window scores lower, and only members have many."""
    n = 60
    table = score_table(n, n, segments=np.array([6] * n + [2] * n), attacks=1, blind=0)
    place = table.groupby("track_id").cumcount()
    table = table.assign(score=table["score"] - 3.0 * place, window=place)
    drawn, first = unit_table(table.drop(columns="window")), unit_table(table)
    assert first.segments_per_unit == 2
    below = np.subtract.outer(*(drawn.means[drawn.positive == side, 0] for side in (True, False))) > 0
    assert below.mean() < 0.2  # by lot, members stand further back in the piece
    for one in ("t0000", "t0100"):
        wanted = table.loc[(table["track_id"] == one) & (place < 2), "score"].mean()
        assert first.means[first.units == one, 0] == pytest.approx(wanted)
    shuffled = unit_table(table.sample(frac=1, random_state=1))
    assert shuffled.means == pytest.approx(first.means)


def test_a_window_without_its_number_is_refused():
    table = score_table(4, 4).assign(window=0)
    table["window"] = table["window"].where(table.index != 3)
    with pytest.raises(InputError, match="column 'window' .* row 3 has none"):
        unit_table(table)


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=15, deadline=None)
def test_without_origin_the_same_segments_are_chosen_and_ranks_are_the_same(seed, placed):
    """Not one bit of what is tested moves, though no name and no length of a recording is left."""
    table = score_table(6, 6, segments=np.array([3, 4, 5] * 4))
    rng = np.random.default_rng(seed)
    lengths = dict(zip(table["track_id"].unique(), rng.choice([1.234, 2.5, 9.75, np.nan], 12), strict=True))
    first = table[table["attack"] == "x0"]
    table = pd.concat([table, first.assign(attack="blind/duration", score=first["track_id"].map(lengths))])
    table["segment_id"] = [
        f"{hash((track, cut)) & 0xFFFFFF:x}" for track, cut in zip(table["track_id"], table["segment_id"], strict=True)
    ]
    if placed:
        table["window"] = table.groupby(["track_id", "attack"]).cumcount()
    told = without_origin(table, seed)
    assert set(told["segment_id"]) <= {f"{i:03d}" for i in range(5)}
    before, after = (unit_table(t, segments_per_unit=3, seed=seed) for t in (table, told))
    assert list(before.units) == list(after.units)
    assert before.attacks == after.attacks
    own = [name for name in before.attacks if name != "blind/duration"]
    np.testing.assert_array_equal(before.columns(own), after.columns(own))
    one, other = (rank_standardise(units.columns(["blind/duration"])) for units in (before, after))
    np.testing.assert_array_equal(one, other)
    known = told.loc[told["attack"] == "blind/duration", "score"].dropna()
    assert set(known) == set(range(1, len(set(known)) + 1))


def test_the_largest_difference_names_where_it_is():
    table = score_table(4, 4, segments=np.array([2] * 8))
    assert largest_difference(table, table.sample(frac=1, random_state=0))[0] == 0
    some = table[table["track_id"].isin(["t0001", "t0005"])]
    spread = table[table["attack"] == "x1"]["score"].std()
    there = (some["attack"] == "x1") & (some["track_id"] == "t0005")
    moved = some.assign(score=some["score"] + 0.25 * spread * there)
    assert largest_difference(table, moved) == (pytest.approx(0.25), "x1", "t0005")
    gap = some.assign(score=some["score"].where(~there))
    assert largest_difference(table, gap) == (np.inf, "x1", "t0005")
    assert largest_difference(gap, gap)[0] == 0
    assert largest_difference(table, some[~there])[0] == np.inf
    assert largest_difference(table[~table.index.isin(some[there].index)], some) == (np.inf, "x1", "t0005")
    flat = table.assign(score=1.0)
    assert largest_difference(flat, flat.assign(score=1.0005))[0] == pytest.approx(0.0005)
