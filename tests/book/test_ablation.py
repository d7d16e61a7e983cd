"""The ablation: ids taken apart, and what is left of an attack once others have spoken."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import earwitness as ew
from earwitness.book.studies import ablation
from earwitness.errors import InputError


def scores(columns, roles, artists):
    """Return a score table of one segment per track from {attack: values}."""
    n = len(roles)
    frames = [
        pd.DataFrame(
            {
                "track_id": [f"t{i}" for i in range(n)],
                "segment_id": [f"s{i}" for i in range(n)],
                "artist": artists,
                "work": [f"w{i}" for i in range(n)],
                "role": roles,
                "attack": attack,
                "score": values,
            }
        )
        for attack, values in columns.items()
    ]
    return pd.concat(frames, ignore_index=True)


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    n = 400
    member = np.arange(n) % 2 == 0
    signal, noise = rng.normal(size=n) + member, rng.normal(size=(4, n))
    columns = {
        "loss/conditional": signal,
        "zlib/null": signal + 0.1 * noise[0],
        "reference/conditional": signal + 0.5 * noise[1],  # the same again, with noise
        "gradient_norm-2/conditional": noise[2] + member,  # something of its own
        "recall/conditional": noise[3],  # nothing
    }
    return scores(columns, np.where(member, "member", "nonmember"), np.arange(n) % 8 // 2)


def test_ids_are_taken_apart():
    apart = ablation.taken_apart(pd.DataFrame({"attack": ["min_k-0.2/null/q1", "loss/contrast"]}))
    assert apart[["label", "stream", "codebook"]].to_numpy().tolist() == [
        ["min_k-0.2", "null", "q1"],
        ["loss", "contrast", ablation.POOLED],
    ]
    assert (ablation.taken_apart(pd.DataFrame({"attack": ["loss/null"]}))["codebook"] == ablation.POOLED).all()


def test_cells_hold_the_comparison_and_a_p_value_for_the_best_of_all(table):
    cells = ablation.cells(table, n_permutations=199)
    pd.testing.assert_frame_equal(
        cells[["attack", "auc", "auc_within"]], ew.compare(table)[["attack", "auc", "auc_within"]]
    )
    adjusted = cells.set_index("attack")["p_adjusted"]
    assert adjusted["loss/conditional"] == pytest.approx(1 / 200)
    assert adjusted["recall/conditional"] > 0.05


def test_an_echo_of_the_baseline_adds_nothing_and_something_new_does(table):
    gains = ablation.gains(
        table, ["reference", "gradient_norm-2", "recall"], ["loss/*", "zlib/*"], beside=["loss/conditional"]
    ).set_index("attack")
    assert gains.loc["loss/conditional", "costly"] == np.False_
    assert gains.loc["loss/conditional", "auc_within"] > 0.7
    assert gains.loc["loss/conditional", "beyond_low"] < 0.5 < gains.loc["loss/conditional", "beyond_high"]
    echo, new, none = (gains.loc[f"{name}/conditional"] for name in ("reference", "gradient_norm-2", "recall"))
    assert echo["auc_within"] > 0.65
    assert echo["beyond_low"] < 0.5 < echo["beyond_high"]
    assert new["beyond_low"] > 0.6
    assert none["beyond_low"] < 0.5 < none["beyond_high"]
    assert gains["nfe"].to_dict() == {
        "loss/conditional": 1, "reference/conditional": 2, "gradient_norm-2/conditional": 4, "recall/conditional": 2
    }  # fmt: skip
    assert (gains["tracks"] == 400).all()


def test_what_is_left_does_not_look_at_roles(table):
    """Exchanged roles exchange the two sides of every score and change none of them."""
    swapped = table.assign(role=table["role"].map({"member": "nonmember", "nonmember": "member"}))
    one, two = (ablation.beyond(t, "reference/*", "loss/*")["score"] for t in (table, swapped))
    np.testing.assert_allclose(one, two)


def test_units_that_cannot_be_scored_are_left_out_and_names_are_checked(table):
    holed = table.copy()
    holed.loc[(holed["attack"] == "recall/conditional") & (holed["track_id"] == "t7"), "score"] = np.nan
    assert "t7" not in set(ablation.beyond(holed, "recall/*", "loss/*")["track_id"])
    with pytest.raises(InputError, match="no attack 'recal/"):
        ablation.beyond(table, "recal/*", "loss/*")
