from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import earwitness as ew
from earwitness.errors import InputError
from earwitness.stats import features as frozen
from earwitness.stats.dataset_inference import _unseen
from earwitness.stats.features import DEFAULT_FEATURES, default_features, feature_hash
from earwitness.stats.power import smallest_detectable_auc
from tests.inference_tables import score_table

FAST = {"features": "x*", "n_permutations": 499}


def audit(table, **options):
    return ew.infer(table, **(FAST | options))


def test_membership_is_evidence():
    result = audit(score_table(40, 40, shift=1.5))
    assert result.verdict == "evidence"
    assert result.p_value <= 0.01
    assert result.residual_p <= 0.01
    assert result.blind.p_value > 0.05
    assert result.auc.low > 0.6
    assert result.auc_within.value == pytest.approx(result.auc.value, abs=0.05)
    assert result.hedges_g.low > 0
    assert result.e_value > 5
    assert (result.n_suspect, result.n_held_out, result.n_segments) == (40, 40, 160)
    assert result.smallest_detectable_auc == pytest.approx(0.70, abs=0.01)


def test_nothing_is_no_evidence_with_what_could_have_been_seen():
    result = audit(score_table(40, 40, seed=2))
    assert result.verdict == "no evidence"
    assert "0.70 or more would have been seen" in result.reasons[0]


def test_a_blind_shift_is_not_testable():
    result = audit(score_table(40, 40, shift=1.5, blind_shift=1.5))
    assert result.verdict == "not testable"
    assert "never touch the model" in result.reasons[0]


def test_the_wrong_direction_is_an_alarm_not_evidence():
    """A two-sided test with the order looked at afterwards would call this a rejection."""
    result = audit(score_table(40, 40, shift=-1.5))
    assert result.verdict == "not testable"
    assert "shift alarm" in result.reasons[0]
    assert result.auc.high < 0.5
    assert result.p_direction > 0.9


def test_without_blind_features_nothing_is_evidence():
    table = score_table(40, 40, shift=1.5, blind=0)
    result = audit(table)
    assert (result.verdict, result.blind) == ("not testable", None)
    units = sorted(table["track_id"].unique())
    metadata = pd.DataFrame({"year": np.random.default_rng(0).normal(size=80)}, index=units)
    assert audit(table, blind=metadata).verdict == "evidence"
    with pytest.raises(InputError, match="blind features lack 1 units"):
        audit(table, blind=metadata.iloc[1:])


def test_blind_features_never_enter_the_attack_side():
    result = audit(score_table(40, 40), features=["x0", "x1"])
    assert result.parameters["features"] == ["x0", "x1"]
    with pytest.raises(InputError, match="no attack 'blind/0'"):
        audit(score_table(40, 40), features="blind/0")


def test_too_few_units_give_no_p_value_but_the_number_needed():
    result = audit(score_table(7, 40, shift=3))
    assert (result.verdict, result.p_value, result.smallest_detectable_auc) == ("not testable", None, None)
    assert "7 suspect and 40 held-out; at least 9 of each" in result.reasons[0]
    assert np.isfinite(result.auc.value)
    json.dumps(audit(score_table(1, 1)).to_dict(), allow_nan=False)


def test_eight_against_many_is_enough():
    assert audit(score_table(8, 20, shift=4), n_permutations=9999).verdict == "evidence"


def test_result_is_plain_and_says_what_fixed_it():
    result = audit(score_table(12, 12), seed=3)
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    parameters = plain["parameters"]
    assert parameters["features_hash"] == feature_hash(["x0", "x1", "x2", "x3"])
    assert (parameters["alpha"], parameters["seed"], parameters["unit"]) == (0.01, 3, "track_id")
    assert parameters["design"] == "levels"
    assert parameters["n_labellings"] == 500


def test_same_seed_same_result_whatever_the_row_order():
    table = score_table(15, 15, shift=0.5, segments=3)
    one = audit(table, segments_per_unit=2)
    again = audit(table.sample(frac=1, random_state=5), segments_per_unit=2)
    assert one.to_dict() == again.to_dict()
    assert audit(table, segments_per_unit=2, seed=1).p_value != one.p_value


def test_permuting_segments_within_a_track_changes_nothing():
    table = score_table(12, 12, shift=0.5)
    renamed = table.copy()
    renamed["segment_id"] = table.groupby(["track_id", "attack"])["segment_id"].transform(lambda s: s.to_numpy()[::-1])
    assert audit(renamed).p_value == audit(table).p_value


def test_adding_a_constant_changes_nothing():
    table = score_table(12, 12, shift=0.5)
    table.loc[3, "score"] = np.nan
    moved = table.assign(score=table["score"] + 1000)
    assert audit(moved).p_value == audit(table).p_value
    assert audit(moved).auc.value == pytest.approx(audit(table).auc.value)


# --- features ---


def test_default_features_are_few_and_frozen():
    for family, listed in DEFAULT_FEATURES.items():
        assert 1 <= len(listed) <= 24, family
        assert len(set(listed)) == len(listed)
    assert len(feature_hash(DEFAULT_FEATURES["token"])) == 64
    assert feature_hash(["a", "b"]) != feature_hash(["b", "a"])


def test_default_features_are_all_or_none(monkeypatch):
    monkeypatch.setattr(frozen, "DEFAULT_FEATURES", {"token": ("x0", "x1"), "other": ("y0",)})
    assert default_features(["x0", "x1", "x2"]) == ["x0", "x1"]
    result = ew.infer(score_table(12, 12), n_permutations=99)
    assert result.parameters["features"] == ["x0", "x1"]
    assert result.parameters["feature_list"] == "default"
    assert not any("exploratory" in note for note in result.notes)
    assert any("exploratory" in note for note in audit(score_table(12, 12)).notes)
    with pytest.raises(InputError, match="lacks default features of the token family: x1"):
        default_features(["x0"])
    with pytest.raises(InputError, match="no default feature of any family"):
        default_features(["z"])


def test_unusable_features_are_left_out_and_said():
    table = score_table(20, 20, shift=1)
    table.loc[table["attack"] == "x0", "score"] = np.nan
    table.loc[table["attack"] == "x1", "score"] = 2.0
    table.loc[(table["attack"] == "x2") & (table["track_id"] < "t0012"), "score"] = np.nan
    result = audit(table)
    assert result.parameters["features_unusable"] == {
        "x0": "no unit has a score",
        "x1": "constant over all units",
        "x2": "30% of the units have no score (at most 20% allowed)",
    }
    assert any("'x1' left out: constant" in note for note in result.notes)
    with pytest.raises(InputError, match="no usable feature is left .x0: no unit has a score; x1"):
        audit(table, features=["x0", "x1"])


def _doubled(table, name="x0", copy="x0/null"):
    """Return a score table with an attack that repeats another."""
    again = table[table["attack"] == name].assign(attack=copy)
    return pd.concat([table, again], ignore_index=True)


@pytest.mark.parametrize("flip", [False, True])
def test_a_feature_that_repeats_another_counts_once_whatever_the_labels(flip):
    table = score_table(20, 20, shift=0.6)
    if flip:
        table["role"] = table["role"].map({"suspect": "held_out", "held_out": "suspect"})
    plain, result = audit(table, features="x*"), audit(_doubled(table), features="x*")
    assert result.parameters["features_repeated"] == {"x0/null": "x0"}
    assert any("1 feature repeats another exactly, as without captions" in note for note in result.notes)
    assert (result.p_value, result.auc, result.hedges_g) == (plain.p_value, plain.auc, plain.hedges_g)
    assert plain.parameters["features_repeated"] == {}


def test_features_that_differ_for_one_unit_both_count():
    table = _doubled(score_table(20, 20))
    at = table.index[table["attack"] == "x0/null"][0]
    table.loc[at, "score"] += 1e-9
    assert audit(table, features="x*").parameters["features_repeated"] == {}


def test_features_that_repeat_each_other_under_one_of_two_models_both_count():
    own, control = _doubled(score_table(20, 20)), _doubled(score_table(20, 20, seed=1), "x1", "x0/null")
    found = audit(own, features="x*", control_scores=control, control_saw="neither")
    assert found.parameters["features_repeated"] == {}
    control = _doubled(score_table(20, 20, seed=1))
    found = audit(own, features="x*", control_scores=control, control_saw="neither")
    assert found.parameters["features_repeated"] == {"x0/null": "x0"}


def test_missing_scores_in_the_same_places_repeat_too():
    table = score_table(20, 20)
    table.loc[(table["attack"] == "x0") & (table["track_id"] == "t0003"), "score"] = np.nan
    assert audit(_doubled(table), features="x*").parameters["features_repeated"] == {"x0/null": "x0"}


def test_units_that_nothing_can_score_are_counted():
    table = score_table(20, 20)
    table.loc[(table["track_id"] == "t0001") & table["attack"].str.startswith("x"), "score"] = np.nan
    result = audit(table)
    assert result.excluded == {"units that no feature can score": 1}
    assert result.n_suspect == 19


def test_short_units_are_counted():
    segments = np.array([3] * 29 + [1] + [3] * 30)
    result = audit(score_table(30, 30, segments=segments), segments_per_unit=3)
    assert result.excluded == {"suspect units with fewer than 3 segments": 1}


@pytest.mark.parametrize("role", ["suspect", "held_out"])
def test_mismatched_attacks(role):
    table = score_table(12, 12)
    side = role.replace("_", "-")
    with pytest.raises(InputError, match=f"mismatched attacks: 'x2' has no row for 12 of 12 {side}"):
        audit(table[~((table["attack"] == "x2") & (table["role"] == role))])
    with pytest.raises(InputError, match="mismatched attacks: 'blind/1'"):
        audit(table[~((table["attack"] == "blind/1") & (table["role"] == role))])


@pytest.mark.parametrize("options", [{"alpha": 0}, {"alpha": 0.7}, {"n_permutations": 0}])
def test_bad_parameters(options):
    with pytest.raises(InputError, match="need 0 < alpha"):
        audit(score_table(12, 12), **options)


def test_unknown_feature_suggests_the_nearest():
    with pytest.raises(InputError, match="no attack 'x9'.*did you mean"):
        audit(score_table(12, 12), features=["x0", "x9"])


# --- artists ---


def test_a_difference_between_artists_is_not_membership():
    """Suspects mostly by artists whom the model predicts well: a test on shuffled tracks would call it training."""
    table = score_table(40, 40, artists=4, seed=5)
    track = table["track_id"].str[1:].astype(int)
    favoured = np.where(track < 40, track % 8 < 6, track % 8 < 2)  # three in four suspects, one in four held-out
    table["artist"] = np.where(favoured, "loud", "quiet")
    own = table["attack"].str.startswith("x")
    table.loc[own, "score"] += 4.0 * favoured[own]
    assert audit(table.assign(artist="one")).p_value <= 0.01
    result = audit(table)
    assert result.p_value > 0.05
    assert result.auc.value > 0.65 > result.auc_within.value
    assert any("2 artists on both sides" in note for note in result.notes)


def test_several_artists_with_membership_are_evidence_all_the_same():
    table = score_table(40, 40, shift=1.5, artists=5)
    artist = table["artist"].str[-1].astype(int)
    own = table["attack"].str.startswith("x")
    table.loc[own, "score"] += 3 * artist[own]
    result = audit(table)
    assert result.verdict == "evidence"
    assert result.auc_within.value > result.auc.value + 0.05


def test_artists_on_one_side_only_are_left_out_and_counted():
    table = score_table(24, 24, shift=1.5)
    lone = table["track_id"].isin(["t0000", "t0004", "t0008"])
    table.loc[lone, "artist"] = "stranger"
    result = audit(table)
    assert result.excluded == {"units of artists who are on one side only": 3}
    assert (result.n_suspect, result.n_held_out) == (21, 24)


def test_no_artist_on_both_sides_is_not_testable_however_large_the_difference():
    table = score_table(40, 40, shift=3)
    table["artist"] = table["role"]
    result = audit(table)
    assert (result.verdict, result.p_value, result.e_value) == ("not testable", None, None)
    assert "no artist is on both sides" in result.reasons[0]
    assert result.auc.value > 0.9  # still described, and not called evidence
    json.dumps(result.to_dict(), allow_nan=False)


def uneven(shares, **options):
    """As many suspects as held-out, but artists whose tracks are mostly on one side: (suspect, held-out) of each."""
    counts = np.array(shares).sum(axis=0)
    table = score_table(*counts, artists=1, **options)
    names = [f"artist {k}" for side in (0, 1) for k, pair in enumerate(shares) for _ in range(pair[side])]
    table["artist"] = table["track_id"].map(dict(zip(sorted(table["track_id"].unique()), names, strict=True)))
    return table


def test_artists_mostly_on_one_side_leave_little_to_compare():
    """Labels move within artists: 9 v 9 tracks can give 81 labellings, of which none could ever reject at 1 %."""
    result = audit(uneven([(8, 1), (1, 8)], shift=4), n_permutations=9999)
    assert (result.verdict, result.parameters["n_labellings"]) == ("not testable", 81)
    assert result.p_value == pytest.approx(1 / 81)
    assert result.smallest_detectable_auc == 1
    assert "at least 19 of each" in " ".join(result.reasons)
    even, odd = (audit(uneven(s)).smallest_detectable_auc for s in ([(10, 10), (10, 10)], [(15, 5), (5, 15)]))
    assert even == pytest.approx(smallest_detectable_auc(20, 20, df=37))
    assert odd == pytest.approx(smallest_detectable_auc(15, 15, df=37))  # three quarters of the units, by variance


def test_where_each_unit_is_an_artist_artists_are_compared():
    table = score_table(20, 20, shift=2)
    table["artist"] = table["track_id"]
    assert audit(table).verdict == "evidence"
    several = score_table(60, 60, shift=2)
    several["artist"] = several["role"] + (several["track_id"].str[1:].astype(int) % 15).astype(str)
    assert audit(several).verdict == "not testable"
    assert audit(several, unit="artist").n_suspect == 15
    assert audit(several, unit="artist").verdict == "evidence"


def test_a_result_says_what_an_unseen_shift_would_have_to_be():
    strong, none = audit(score_table(40, 40, shift=1.5)), audit(score_table(40, 40, seed=2))
    assert 0.3 < strong.unseen_shift < strong.hedges_g.value
    assert none.unseen_shift == 0
    assert 0 <= strong.blind.explained <= 1
    assert 0.3 < strong.blind.foreseen_auc < 0.7


# --- pairs ---


def test_pairs_by_work():
    table = score_table(20, 20, shift=2, takes=True)
    lone = table[table["track_id"] != "t0025"]
    result = audit(lone, pairs="work")
    assert result.parameters["design"] == "paired levels"
    assert (result.n_suspect, result.n_held_out) == (19, 19)
    assert result.excluded == {"units without a partner by work": 1}
    assert result.p_value <= 0.01


def test_pairs_are_of_one_artist():
    table = score_table(20, 20, shift=2, takes=True)
    table.loc[table["track_id"] == "t0003", "artist"] = "someone else"
    assert audit(table, pairs="work").excluded == {"units without a partner by work": 2}
    table["artist"] = table["role"]
    with pytest.raises(InputError, match="no unit has a partner of the same artist by 'work'"):
        audit(table, pairs="work")


def twins(shift, n=60, seed=0):
    """Pairs alike but for a hundredth of what works differ by, and for a shift of the suspects' scores."""
    rng = np.random.default_rng(seed)
    works = np.repeat(rng.normal(size=(n, 1)), 4, axis=1)
    rows = []
    for role, moved in (("suspect", shift), ("held_out", 0.0)):
        scores = works + moved + 0.1 * rng.normal(size=works.shape)
        for i in range(n):
            named = {f"x{j}": scores[i, j] for j in range(4)} | {f"blind/b{j}": rng.normal() for j in range(3)}
            fixed = {"track_id": f"{role}{i}", "segment_id": f"{role}{i}/0", "artist": "", "work": f"w{i}"}
            rows += [fixed | {"role": role, "attack": name, "score": score} for name, score in named.items()]
    return pd.DataFrame(rows)


def test_pairs_say_how_small_a_hidden_difference_would_do():
    result = audit(twins(0.1, seed=2), pairs="work")
    assert result.verdict == "evidence"
    assert result.hedges_g.low < 0  # what unpaired recordings would say
    assert 0.05 < result.unseen_shift < 0.1
    assert any("may mistake for training, far smaller differences" in note for note in result.notes)
    assert audit(twins(0.0), pairs="work").unseen_shift == 0
    assert audit(twins(-0.1), pairs="work").unseen_shift == 0
    assert not any("pairs" in note for note in audit(score_table(20, 20)).notes)


def test_the_limit_within_pairs_holds_as_often_as_it_says():
    rng, n = np.random.default_rng(1), 20
    works = rng.normal(size=(600, n))
    works /= works.std(axis=1, ddof=1, keepdims=True)
    suspects = works + 0.3 + 0.2 * rng.normal(size=works.shape)
    pairs = np.arange(n)[:, None] + np.array([0, n])
    scores = np.concatenate((suspects, works), axis=1)
    limits = np.array([_unseen(score, np.arange(2 * n) < n, pairs, 0.1) for score in scores])
    assert 0.86 < (limits < 0.3).mean() < 0.93  # nine times in ten


def test_bad_pairs():
    table = score_table(12, 12)
    with pytest.raises(InputError, match="no column 'album' to pair by"):
        audit(table, pairs="album")
    with pytest.raises(InputError, match="ambiguous pairs: artist .* more than one unit on a side"):
        audit(table, pairs="artist")


# --- control model ---


def shared_shift(seed=0, member=0.0):
    """Suspects that any model scores higher, and a control that was trained on neither side."""
    table = score_table(40, 40, shift=1.0 + member, seed=seed)
    return table, score_table(40, 40, shift=1.0, seed=seed + 100)


def test_difference_to_control_removes_what_both_models_see():
    table, control = shared_shift()
    assert audit(table).p_value <= 0.01
    result = audit(table, control_scores=control, control_saw="neither")
    assert result.parameters["design"] == "difference to control"
    assert result.verdict == "no evidence"
    member, control = shared_shift(member=2.0)
    assert audit(member, control_scores=control, control_saw="neither").p_value <= 0.01


@pytest.mark.parametrize("saw", [None, "suspect", "held_out", "both", "unknown"])
def test_a_control_that_saw_either_side_is_refused(saw):
    table, control = shared_shift()
    with pytest.raises(InputError, match="refused: the control model must have been trained on neither"):
        audit(table, control_scores=control, control_saw=saw)


def test_a_twin_trained_on_the_held_out_side_would_convict_the_innocent():
    """Why it is refused: nothing was trained on, yet the control's memory of the held-out side makes a difference."""
    table = score_table(40, 40, seed=3)
    twin = score_table(40, 40, shift=-1.5, seed=103)
    assert audit(table).p_value > 0.05
    assert audit(table, control_scores=twin, control_saw="neither").p_value <= 0.01


def test_bad_controls():
    table, control = shared_shift()
    told = {"control_saw": "neither"}
    with pytest.raises(InputError, match="control_saw='neither' without control_scores"):
        audit(table, **told)
    with pytest.raises(InputError, match="control scores lack 1 of 80 units .first: 't0004'"):
        audit(table, control_scores=control[control["track_id"] != "t0004"], **told)
    with pytest.raises(InputError, match="control scores lack the attacks x3"):
        audit(table, control_scores=control[control["attack"] != "x3"], **told)
    swapped = control.assign(role=control["role"].map({"suspect": "held_out", "held_out": "suspect"}))
    with pytest.raises(InputError, match="one role in the scores and another in the control"):
        audit(table, control_scores=swapped, **told)
