"""How sure one is from one unit and from many: found where there is something, at the promised rate where there is not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from earwitness.book.studies.power_comparison import share_found


def _units(shift: float, group: str, artists: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = []
    for artist in range(artists):
        level = rng.normal(0, 5)  # artists differ by far more than members do
        for role, mean in (("member", shift), ("nonmember", 0.0)):
            scores = level + mean + rng.normal(size=20)
            rows.append(pd.DataFrame({"group": group, "artist": f"{group} {artist}", "role": role, "score": scores}))
    return pd.concat(rows)


def test_shares_rise_with_the_number_of_units_and_stay_at_the_level_where_nothing_was_trained_on() -> None:
    table = share_found(pd.concat([_units(1.0, "trained", 12, 0), _units(0.0, "never", 60, 1)]), "never", seed=3)
    assert list(table["size"]) == [1, 5, 10, 20]
    assert table["trained"].is_monotonic_increasing
    assert table["trained"].iloc[0] < 0.3 < 0.7 < table["trained"].iloc[-1]
    assert (table["never"] < 0.04).all()


def test_where_all_the_units_stand_above_each_draw_is_found() -> None:
    units = pd.concat([_units(100.0, "trained", 3, 0), _units(0.0, "never", 20, 1)])
    assert (share_found(units, "never")["trained"] == 1).all()


def test_an_artist_with_fewer_units_is_left_out() -> None:
    units = pd.concat([_units(1.0, "trained", 3, 0), _units(0.0, "never", 9, 1)])
    assert list(share_found(units, "never", sizes=(20, 21))["size"]) == [20]


@pytest.mark.parametrize("seed", [0, 7])
def test_the_same_seed_draws_the_same(seed: int) -> None:
    units = pd.concat([_units(1.0, "trained", 3, 0), _units(0.0, "never", 9, 1)])
    pd.testing.assert_frame_equal(share_found(units, "never", seed=seed), share_found(units, "never", seed=seed))
