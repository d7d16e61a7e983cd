"""What keeps a large audit small gives what the plain way gives: labellings in blocks, sums per artist, score files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earwitness.errors import InputError
from earwitness.stats import compare, infer, write_scores
from earwitness.stats import permutation_test as primary
from earwitness.stats.blind_gate import run_clauses
from earwitness.stats.metrics import auc_within, placements
from earwitness.stats.multiple_testing import max_t
from earwitness.stats.permutation_test import (
    Drawn,
    centred,
    labellings,
    members,
    primary_test,
    rank_standardise,
    sign_flips,
)
from earwitness.stats.power import reach, within
from earwitness.stats.score_file import opened
from earwitness.stats.sequential import pair_by_lot
from earwitness.stats.units import unit_table
from tests.inference_tables import score_table

CODES = st.lists(st.integers(0, 6), min_size=1, max_size=40).map(np.array)
SEEDS = st.integers(0, 2**31)


@contextmanager
def nothing_is_held(cells: int = 50, dense: int = 0) -> Iterator[None]:
    """Have all labellings drawn in blocks of so many cells, and artists summed where a matrix would have more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(primary, "HELD", 0)
        patch.setattr(primary, "_CELLS", cells)
        patch.setattr(primary, "_DENSE", dense)
        yield


def assembled(drawn: Drawn) -> np.ndarray:
    """Put the blocks together; every cell is in one."""
    whole = np.full(drawn.shape, np.nan)
    for rows, start, part in drawn.blocks():
        place = np.ix_(rows, np.arange(start, start + len(part)))
        assert np.isnan(whole[place]).all()
        whole[place] = part.T
    return whole


def by_loop(positive: np.ndarray, codes: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Draw labellings as the first version of this library did: whole strata, one after the other, all held."""
    rng, drawn = np.random.default_rng((seed, 1)), np.empty((count + 1, len(positive)))
    drawn[...] = centred(positive.astype(float)[:, None], codes)[:, 0]
    for code in np.unique(codes):
        rows = np.flatnonzero(codes == code)
        drawn[1:, rows] = rng.permuted(drawn[1:, rows], axis=-1)
    return drawn.T


# --- artists ----------------------------------------------------------------------------------------------------------


@given(CODES)
@settings(max_examples=30)
def test_members_are_those_of_a_loop(codes: np.ndarray) -> None:
    found = members(codes)
    assert [rows.tolist() for rows in found] == [np.flatnonzero(codes == c).tolist() for c in np.unique(codes)]


def test_nobody_has_no_members() -> None:
    assert members(np.zeros(0, dtype=np.int64)) == []


@given(CODES, SEEDS, st.booleans(), st.integers(0, 3), st.booleans())
@settings(deadline=None, max_examples=60)
def test_sums_per_artist_are_those_of_the_matrix(
    codes: np.ndarray, seed: int, gaps: bool, batch: int, apart: bool
) -> None:
    rng = np.random.default_rng(seed)
    shape = (*([batch] if batch else []), len(codes))
    strata = rng.permuted(np.broadcast_to(codes, shape), axis=-1) if apart else codes
    values = np.round(rng.normal(size=(*shape, 3)), 1)  # ties
    known = rng.random((*shape, 3)) < 0.7 if gaps else None
    if known is not None:
        values[~known] = np.nan
    expected = centred(values, strata, known)
    with nothing_is_held():
        np.testing.assert_allclose(centred(values, strata, known), expected, atol=1e-13)


@given(CODES, SEEDS)
@settings(deadline=None, max_examples=50)
def test_counts_per_artist_are_those_of_a_loop(codes: np.ndarray, seed: int) -> None:
    positive = np.random.default_rng(seed).random(len(codes)) < 0.5
    seen, (suspects, held_out, artists, _) = reach(positive, codes), within(positive, codes)
    both = [c for c in np.unique(codes) if 0 < positive[codes == c].sum() < (codes == c).sum()]
    assert (seen.artists, int(artists)) == (len(both), len(both))
    assert int(suspects) + int(held_out) == np.isin(codes, both).sum()
    together = within(positive, np.stack([codes, np.zeros_like(codes)]))
    assert together[2].tolist() == [len(both), int(0 < positive.sum() < len(positive))]
    pairs = pair_by_lot(positive, seed, codes)
    assert (codes[pairs[:, 0]] == codes[pairs[:, 1]]).all()
    assert len(pairs) == sum(min(positive[codes == c].sum(), (~positive)[codes == c].sum()) for c in both)
    assert positive[pairs[:, 0]].all()
    assert not positive[pairs[:, 1]].any()


@given(CODES, SEEDS)
@settings(deadline=None, max_examples=50)
def test_auc_within_is_that_of_a_loop(codes: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = np.array([f"artist {c}" for c in codes], dtype=object)
    scores, positive = rng.integers(0, 5, len(codes)).astype(float), rng.random(len(codes)) < 0.5
    if min(positive.sum(), (~positive).sum()) < 2:
        return
    wins = pairs = used = 0
    for name in set(names):
        mine, others = scores[positive & (names == name)], scores[~positive & (names == name)]
        if min(len(mine), len(others)) >= 2:
            wins += len(mine) * len(others) * float(placements(mine, others)[0].mean())
            pairs, used = pairs + len(mine) * len(others), used + 1
    found, artists = auc_within(scores[positive], scores[~positive], names[positive], names[~positive])
    assert artists == used
    assert found.value == pytest.approx(wins / pairs if pairs else np.nan, nan_ok=True)


def test_more_artists_on_one_side_than_an_array_has_dimensions() -> None:
    codes = np.r_[np.arange(100), 100, 100, 101, 101, 101]
    positive = np.r_[np.arange(100) % 2 == 0, True, False, True, False, False]
    labels, observed, exact = labellings(positive, 999, np.random.default_rng(0), codes)
    assert exact
    assert labels.shape == (105, 2 * 3)
    assert ((labels[100:, observed] > 0) == positive[100:]).all()
    assert labels[:100] == pytest.approx(0)
    alone, observed, exact = labellings(positive[:100], 999, np.random.default_rng(0), codes[:100])
    assert (alone.shape, observed, exact) == ((100, 1), 0, True)


# --- labellings in blocks ---------------------------------------------------------------------------------------------


@given(CODES, SEEDS, st.integers(1, 200))
@settings(deadline=None, max_examples=40)
def test_blocks_hold_the_labellings_of_the_whole(codes: np.ndarray, seed: int, cells: int) -> None:
    positive = np.random.default_rng(seed).random(len(codes)) < 0.5
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(primary, "_EXACT_PER_DRAW", 0)
        held, observed, exact = labellings(positive, 12, np.random.default_rng((seed, 1)), codes)
        patch.setattr(primary, "HELD", 0)
        patch.setattr(primary, "_CELLS", cells)
        drawn, *same = labellings(positive, 12, np.random.default_rng((seed, 1)), codes)
    assert isinstance(held, np.ndarray)
    assert isinstance(drawn, Drawn)
    assert ([observed, exact], drawn.shape) == (same, held.shape)
    with nothing_is_held(cells):
        once, again = assembled(drawn), assembled(drawn)
    np.testing.assert_array_equal(held, by_loop(positive, codes, 12, seed))
    np.testing.assert_array_equal(once, held)
    np.testing.assert_array_equal(again, held)


@pytest.mark.parametrize("strata", [None, np.arange(40) % 3])
def test_one_large_stratum_is_cut_between_labellings(strata: np.ndarray | None) -> None:
    positive = np.arange(40) % 2 == 0
    held = labellings(positive, 99, np.random.default_rng(3), strata)[0]
    with nothing_is_held(130, dense=10**6):  # three labellings of 40 units, nine of 13
        drawn = labellings(positive, 99, np.random.default_rng(3), strata)[0]
        assert isinstance(drawn, Drawn)
        assert {len(part) for _, _, part in drawn.blocks()} == ({3, 1} if strata is None else {9, 10, 1})
        np.testing.assert_array_equal(assembled(drawn), held)


@given(st.integers(10, 60), SEEDS, st.integers(1, 2000))
@settings(deadline=None, max_examples=30)
def test_signs_in_blocks_are_those_of_the_whole(n: int, seed: int, cells: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(primary, "_EXACT_PER_DRAW", 0)
        held, *facts = sign_flips(n, 20, np.random.default_rng(seed))
        patch.setattr(primary, "HELD", 0)
        patch.setattr(primary, "_CELLS", cells)
        drawn, *same = sign_flips(n, 20, np.random.default_rng(seed))
        assert isinstance(drawn, Drawn)
        assert same == facts
        np.testing.assert_array_equal(assembled(drawn), held)


@given(CODES.filter(lambda codes: len(codes) > 12), SEEDS, st.booleans(), st.sampled_from([1, 60, 5000]))
@settings(deadline=None, max_examples=30)
def test_every_p_value_is_that_of_labellings_held(codes: np.ndarray, seed: int, ties: bool, cells: int) -> None:
    """With many artists or few, ties and gaps, in all three clauses, for every labelling."""
    rng = np.random.default_rng(seed)
    positive, values = rng.random(len(codes)) < 0.5, rng.normal(size=(len(codes), 7))
    values = np.round(values) if ties else values
    values[rng.random(values.shape) < 0.1] = np.nan
    ranked = rank_standardise(values, codes)
    both = []
    for hold in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(primary, "_EXACT_PER_DRAW", 0)
            if not hold:
                patch.setattr(primary, "HELD", 0)
                patch.setattr(primary, "_CELLS", cells)
            both.append(run_clauses(ranked[:, :4], ranked[:, 4:], positive, strata=codes, n_permutations=49))
    for held, drawn in zip(*(vars(clauses).values() for clauses in both), strict=True):
        np.testing.assert_array_equal(drawn.p_values, held.p_values)
        assert (drawn.p_value, drawn.p_direction, drawn.p_opposite, drawn.n_labellings, drawn.exact) == (
            held.p_value, held.p_direction, held.p_opposite, held.n_labellings, held.exact,
        )  # fmt: skip


def test_pairs_and_batches_in_blocks() -> None:
    rng = np.random.default_rng(5)
    features, positive = rank_standardise(rng.normal(size=(3, 60, 4))), np.arange(60) < 30
    pairs = np.column_stack((np.arange(30), np.arange(30) + 30))
    for design in ({"pairs": pairs}, {}, {"oriented": False}, {"oriented": features[..., 0]}):
        held = primary_test(features, positive, n_permutations=199, **design)
        with nothing_is_held():
            drawn = primary_test(features, positive, n_permutations=199, **design)
        np.testing.assert_array_equal(drawn.p_values, held.p_values)


def test_the_best_of_many_attacks_in_blocks() -> None:
    table = unit_table(score_table(30, 30, attacks=5, shift=0.4))
    held = max_t(table, n_permutations=199)
    with nothing_is_held():
        pd.testing.assert_frame_equal(max_t(table, n_permutations=199), held)


@pytest.mark.parametrize("design", [{}, {"pairs": "work"}, {"unit": "artist"}], ids=["levels", "pairs", "artists"])
def test_a_whole_inference_in_blocks(design: dict[str, str]) -> None:
    artists = {"unit": 60, "pairs": 1}.get(next(iter(design), ""), 7)
    table = score_table(30, 30, shift=0.6, artists=artists, takes="pairs" in design, seed=3)
    table.loc[::17, "score"] = np.nan
    how = {"features": "x*", "n_permutations": 199, **design}
    held = infer(table, **how).to_dict()
    with nothing_is_held():
        drawn = infer(table, **how).to_dict()
    exact = ("verdict", "reasons", "p_value", "p_direction", "p_opposite", "residual_p", "excluded", "parameters")
    assert {name: drawn[name] for name in exact} == {name: held[name] for name in exact}
    for name in ("auc", "auc_within", "hedges_g"):
        assert drawn[name] == pytest.approx(held[name], nan_ok=True)


# --- files of scores --------------------------------------------------------------------------------------------------


def saved(table: pd.DataFrame, folder: Path, parts: int = 1) -> Path:
    """Write a table to so many files, whole segments in each, and return their folder."""
    place = pd.factorize(table["segment_id"])[0] % parts
    for part in range(parts):
        write_scores(table[place == part], folder / f"{part}.parquet")
    return folder


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize(
    ("made", "how"),
    [
        ({}, {}),
        ({"segments": 3, "artists": 1}, {"unit": "work", "blind": "blind/1"}),
        ({"takes": True, "artists": 1}, {"pairs": "work"}),
        ({"artists": 40}, {"unit": "artist"}),
    ],
    ids=["levels", "works", "pairs", "artists"],
)
def test_a_file_says_what_its_table_says(made: dict[str, int], how: dict[str, str], parts: int, tmp_path: Path) -> None:
    table = score_table(**made, shift=0.5).sample(frac=1, random_state=parts).reset_index(drop=True)
    table.loc[table.index % 23 == 0, "score"] = np.nan
    how = {"features": "x*", "n_permutations": 99, **how}
    folder = saved(table, tmp_path, parts)
    expected = infer(table, **how).to_dict()
    assert infer(folder, **how).to_dict() == expected
    assert infer(str(folder / "0.parquet"), **how).to_dict() == expected or parts > 1


def test_a_control_may_be_a_file_and_compare_reads_files(tmp_path: Path) -> None:
    table, control = score_table(shift=0.5), score_table(seed=1)
    paths = [tmp_path / "own.parquet", tmp_path / "control.parquet"]
    write_scores(table, paths[0])
    write_scores(control[control["attack"].str.startswith("x")], paths[1])
    how = {"features": ["x0", "x2"], "n_permutations": 99, "control_saw": "neither"}
    plain = infer(table, control_scores=control, **how).to_dict()
    assert infer(paths[0], control_scores=paths[1], **how).to_dict() == plain
    pd.testing.assert_frame_equal(compare(paths[0]), compare(table))
    pd.testing.assert_frame_equal(compare(paths[0], attacks="x?"), compare(table, attacks="x?"))


def test_what_a_table_says_besides_is_kept(tmp_path: Path) -> None:
    table = score_table(artists=1).assign(artist=None)
    table = table.assign(track_id=table["track_id"].str[1:].astype(int), album=table["work"].str[:4])
    table["window"] = pd.factorize(table["segment_id"])[0] % 2
    write_scores(table, tmp_path / "s.parquet")
    for unit in ("track_id", "album"):
        held, read = unit_table(table, unit), unit_table(opened(tmp_path / "s.parquet", [unit]), unit)
        for name, value in vars(held).items():
            np.testing.assert_array_equal(getattr(read, name), value, err_msg=name)


def test_only_what_is_asked_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_scores(score_table(attacks=9).assign(album="one"), tmp_path / "s.parquet")
    asked: list[str] = []
    plain = pq.ParquetFile.read
    monkeypatch.setattr(
        pq.ParquetFile, "read", lambda self, columns, **how: asked.extend(columns) or plain(self, columns, **how)
    )
    infer(tmp_path / "s.parquet", features=["x3", "x1"], blind="blind/2", n_permutations=9)
    assert asked == ["track_id", "segment_id", "artist", "work", "role", "x1", "x3", "blind/2"]


def test_a_row_that_is_absent_is_not_one_that_cannot_say(tmp_path: Path) -> None:
    table = score_table()
    table.loc[(table["track_id"] == "t0003") & (table["attack"] == "x1"), "score"] = np.nan
    infer(saved(table, tmp_path), features="x*", n_permutations=9)
    gone = table[(table["track_id"] != "t0003") | (table["attack"] != "x1")]
    for given_ in (gone, saved(gone, tmp_path)):
        with pytest.raises(InputError, match="'x1' has no row for 1 of 20 suspect units"):
            infer(given_, features="x*", n_permutations=9)


@pytest.mark.parametrize(
    ("harm", "match"),
    [
        (lambda t: t.drop(columns="work"), "missing: work"),
        (lambda t: t.iloc[:0], "no rows"),
        (lambda t: pd.concat([t, t.iloc[:1]]), "duplicate rows: attack 'x0' scores segment 's00000'"),
        (lambda t: t.assign(score=t["score"].where(t.index != 5, np.inf)), "non-finite score: attack 'x0'"),
        (lambda t: t.assign(score="high"), "must hold numbers"),
        (lambda t: t.assign(role=t["role"].where(t.index != 0, "held_out")), "segment with more than one role"),
        (lambda t: t.assign(album=t["attack"]), "segment with more than one album: segment_id 's00000'"),
        (lambda t: t.assign(album=t["segment_id"].map(lambda s: 1 if s == "s00001" else s)), "'album'.*mixes kinds"),
    ],
)
def test_a_table_that_is_no_table_is_not_written(harm, match: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=match):
        write_scores(harm(score_table()), tmp_path / "s.parquet")
    assert not list(tmp_path.iterdir())


def test_files_that_cannot_be_read_are_refused_by_name(tmp_path: Path) -> None:
    table, path = score_table(), tmp_path / "s.parquet"
    with pytest.raises(InputError, match=r"s\.parquet: expected score tables .*found none there; check the path"):
        infer(path)
    with pytest.raises(InputError, match="found none"):
        infer(tmp_path)
    path.write_bytes(b"track_id,score\n")
    with pytest.raises(InputError, match=r"s\.parquet: expected a score table"):
        infer(path)
    table.to_parquet(path)
    with pytest.raises(InputError, match="is no score table; write it with"):
        infer(path)
    write_scores(table, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    with pytest.raises(InputError, match=r"s\.parquet: expected a score table"):
        infer(path)
    path.write_bytes(whole[:300] + bytes([whole[300] ^ 1]) + whole[301:])
    with pytest.raises(InputError, match=r"s\.parquet: expected a score table"):
        infer(path, features="x*")
    path.write_bytes(whole)
    with pytest.raises(InputError, match="no attack 'y9' in the score table"):
        infer(path, features="y9")
    with pytest.raises(InputError, match="no column 'album' to pair by"):
        infer(path, features="x*", pairs="album")
    with pytest.raises(InputError, match="missing: album"):
        infer(path, "album", features="x*")
    write_scores(table[table["attack"] != "x2"], tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"t\.parquet: scores other attacks than s\.parquet .first: 'x2'."):
        infer(tmp_path, features="x*")
    write_scores(table.assign(window=0, segment_id="r" + table["segment_id"]), path)
    write_scores(table, tmp_path / "t.parquet")
    with pytest.raises(InputError, match="'window' of the score table needs a number in every row; row 80 has none"):
        infer(tmp_path, features="x*")
    write_scores(table, path)
    with pytest.raises(InputError, match="segment 's00000' of track 't0000' stands more than once"):
        infer(tmp_path, features="x*")


def test_endless_scores_of_another_writer_are_refused(tmp_path: Path) -> None:
    write_scores(score_table(), tmp_path / "s.parquet")
    table = pq.read_table(tmp_path / "s.parquet")
    values = table["x1"].to_numpy().copy()
    values[7] = -np.inf
    pq.write_table(table.set_column(table.column_names.index("x1"), "x1", pa.array(values)), tmp_path / "s.parquet")
    with pytest.raises(InputError, match="non-finite score: attack 'x1', segment 's00007', track 't0003' is -inf"):
        infer(tmp_path / "s.parquet", features="x*")
