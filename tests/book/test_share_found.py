"""How sure one is from one track and from many: found where there is something, at the level where there is not."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import t as student

from earwitness.book.studies.power_comparison import share_found
from earwitness.stats.prepare import prepare
from tests.inference_tables import score_table


def _scores(shift: float, artists: int, seed: int) -> pd.DataFrame:
    table = score_table(20 * artists, 20 * artists, shift=shift, artists=artists, seed=seed)
    return table


def _asked(scores: pd.DataFrame, **options: object) -> pd.DataFrame:
    return share_found(scores, features=["x0", "x1", "x2", "x3"], **options)  # type: ignore[arg-type]


def test_shares_rise_with_the_number_of_tracks() -> None:
    found = _asked(_scores(1.0, 8, 0)).groupby("size")["found"].mean()
    assert list(found.index) == [1, 5, 10, 20]
    assert found.is_monotonic_increasing
    assert found[1] < 0.4 < 0.8 < found[20]


def test_the_level_holds_where_nothing_was_trained_on() -> None:
    found = pd.concat([_asked(_scores(0.0, 20, seed)) for seed in range(4)]).groupby("size")["found"].mean()
    assert (found <= 0.035).all(), found  # 80 artists; .01 with a standard error of .011 at 20 tracks


def test_all_tracks_of_an_artist_by_hand() -> None:
    scores = _scores(0.8, 3, 5)
    prepared = prepare(scores, "track_id", ["x0", "x1", "x2", "x3"], seed=0)
    for row in _asked(scores, sizes=(20,)).itertuples():
        own = prepared.artists == row.artist
        mean = prepared.features.mean(axis=1)
        one, other = mean[own & prepared.positive], mean[own & ~prepared.positive]
        t = (one.mean() - other.mean()) / (other.std(ddof=1) * np.sqrt(2 / 20))
        assert row.found == float(t > student.ppf(0.99, 19))


def test_an_artist_with_fewer_tracks_is_left_out_and_a_seed_draws_the_same() -> None:
    scores = _scores(0.5, 3, 1)
    assert set(_asked(scores, sizes=(20, 21))["size"]) == {20}
    pd.testing.assert_frame_equal(_asked(scores, seed=4), _asked(scores, seed=4))
