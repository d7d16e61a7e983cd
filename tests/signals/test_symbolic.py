"""Symbolic models through the whole line: store, groups as rows, cheap attacks, passes of scores, blind features."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import earwitness as ew
from earwitness.attacks import REGISTRY, resolve
from earwitness.audit.cost import forecast
from earwitness.audit.pretest import Unheard
from earwitness.data import decode_pool
from earwitness.data.audio import from_plain, segments, to_plain
from earwitness.errors import InputError
from earwitness.models import load_model
from earwitness.models.figaro import HALVES
from earwitness.signals import symbolic
from earwitness.signals.store import seconds_of
from earwitness.signals.token import STREAMS
from earwitness.stats.units import matching, unit_table
from earwitness.symbolic.figaro_tokens import GROUPS
from earwitness.symbolic.windows import FigaroScheme, SymbolicSpec
from earwitness.types import Track
from tests import tiny_figaro, tiny_midi
from tests.symbolic.test_figaro_tokens import BAD

SPEC = SymbolicSpec(FigaroScheme())


def piece(path: Path, seed: int, length: int = 150) -> Path:
    """Write a random piece of two instruments and drums."""
    rng = np.random.default_rng(seed)
    rows = [(240 * i, 240 * i + 200, int(rng.integers(40, 80)), int(rng.integers(1, 128))) for i in range(length)]
    return tiny_midi.write(path, [(0, rows[::2]), (33, rows[1::2]), ("drum", rows[::5])])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_figaro.write(tmp_path_factory.mktemp("models") / "both", "both")


@pytest.fixture(scope="module")
def tracks(tmp_path_factory: pytest.TempPathFactory) -> list[Track]:
    where = tmp_path_factory.mktemp("midi")
    found = [
        Track(f"t{i}", piece(where / f"{i}.mid", i), "member" if i % 2 else "nonmember", artist="a", work=f"t{i}")
        for i in range(4)
    ]
    short = piece(where / "short.mid", 9, length=8)
    (where / "bad.mid").write_bytes(b"MThd")
    return [*found, Track("short", short, "member"), Track("bad", where / "bad.mid", "nonmember")]


@pytest.fixture
def signals(folder, tracks, monkeypatch, tmp_path_factory):
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path_factory.getbasetemp() / "results"))
    return ew.collect(str(folder), tracks, progress=False)


def test_pieces_become_windows_and_what_cannot_is_listed(signals) -> None:
    assert signals.index.groupby("track_id").size().to_dict() == {f"t{i}": 4 for i in range(4)}
    reasons = signals.exclusions.set_index("track_id")["reason"]
    assert "shorter than one window" in reasons["short"]
    assert "ends in the middle" in reasons["bad"]
    again = signals.provenance["tracks_scored_now"]
    assert again in {0, 4}  # stored by the first test that asked
    assert signals.provenance["audio"]["scheme"] == "figaro"


def test_rows_are_the_groups_of_tokens_and_hold_nothing_else(signals) -> None:
    for row, signal in signals.items("token"):
        assert signal.codes.shape == (len(GROUPS), 256)
        assert set(signal.streams) == {"conditional"}
        (cut,) = [s for s in segments(_path(row), SPEC) if s.segment_id == row["segment_id"]]
        groups = cut.context.groups
        for q in range(len(GROUPS)):
            assert signal.mask[q].tolist() == (groups == q).tolist()
            assert np.isfinite(signal.streams["conditional"].logp[q]).tolist() == (groups == q).tolist()
        assert signal.codes[0].tolist() == cut.context.tokens[1:].tolist()
        assert signal.tokens().tolist() == cut.context.tokens[1:][groups >= 0].tolist()
        assert np.isfinite(signal.surprise()).tolist() == (groups >= 0).tolist()


def test_passes_of_scores_are_added_to_stored_windows(signals, folder, tracks, monkeypatch, tmp_path) -> None:
    """To the bit what a run gives that finds nothing stored; what was not asked for is not served."""
    asked = ["loss/description", "transposition"]
    added = ew.collect(str(folder), tracks, asked)
    assert added.index["part"].str.contains("../", regex=False).all(), "the streams lie elsewhere"
    served = {row["segment_id"]: signal.to_arrays() for row, signal in added.items("token")}
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path))
    for row, signal in ew.collect(str(folder), tracks, asked).items("token"):
        arrays = served.pop(row["segment_id"])
        assert arrays.keys() == signal.to_arrays().keys()
        for name, values in signal.to_arrays().items():
            np.testing.assert_array_equal(arrays[name], values, err_msg=name)
    assert not served
    (few, *_) = (signal for _, signal in ew.collect(str(folder), tracks).items("token"))
    assert (set(few.streams), {name.partition("/")[0] for name in few.extras}) == ({"conditional"}, {"sdm"})


def _path(row) -> Path:
    return next(t.path for t in PATHS if t.track_id == row["track_id"])


PATHS: list[Track] = []


@pytest.fixture(autouse=True)
def _known(tracks):
    PATHS[:] = tracks


def test_every_cheap_token_attack_says_something_of_a_score(signals) -> None:
    scores = ew.score(signals)
    ids = {s.id for s in resolve("all", codebooks=5, passes={"conditional", "blind_notes"})}
    assert set(scores["attack"]) == ids
    wanted = {
        a.name for a in REGISTRY.values() if a.family == "token" and not a.passes and not a.context
        and "conditional" in a.streams
    }  # fmt: skip
    assert {i.partition("/")[0].partition("-")[0] for i in ids if not i.startswith("blind/")} == wanted
    modelled = scores[~scores["attack"].str.startswith("blind/")]
    assert modelled["score"].notna().all(), set(modelled.loc[modelled["score"].isna(), "attack"])
    assert {i for i in ids if i.startswith("blind/")} == {f"blind/{name}" for name in symbolic.FEATURES}
    assert not any(f"/{stream}" in i for stream in STREAMS[1:] for i in ids)
    per_group = ew.score(signals, [f"loss/conditional/q{q}" for q in range(5)])
    means = per_group.groupby("segment_id")["score"].mean()
    pooled = scores[scores["attack"] == "loss/conditional"].set_index("segment_id")["score"]
    pd.testing.assert_series_equal(means, pooled.sort_index(), check_names=False)


def test_one_score_per_piece_from_equally_many_windows(signals) -> None:
    table = unit_table(ew.score(signals, "loss"), unit="track_id", segments_per_unit=2)
    assert table.units.tolist() == ["t0", "t1", "t2", "t3"]
    assert table.segments_per_unit == 2


def test_a_windows_number_goes_with_its_score_and_the_first_are_taken(signals, tracks) -> None:
    scores = ew.score(signals, ["loss", "blind/notes_number"])
    starts = signals.index.set_index("segment_id")["start_s"]
    order = scores[scores["attack"] == "loss/conditional"].sort_values(["track_id", "window"])
    assert order.groupby("track_id")["window"].agg(list).tolist() == [[0, 1, 2, 3]] * 4
    assert order["segment_id"].map(starts).groupby(order["track_id"]).is_monotonic_increasing.all()
    for seed in range(3):
        table = unit_table(scores, segments_per_unit=2, seed=seed)
        wanted = order[order["window"] < 2].groupby("track_id")["score"].mean()
        assert table.columns(["loss/conditional"])[:, 0] == pytest.approx(wanted.loc[table.units].to_numpy())
    unheard = ew.score(Unheard(tracks, SPEC), "blind/notes_number").set_index("segment_id")["window"]
    assert unheard.loc[order["segment_id"]].tolist() == order["window"].tolist()


def test_a_null_or_contrast_is_refused_by_name(signals) -> None:
    for name in ("loss/null", "cfg_loglik/contrast"):
        with pytest.raises(InputError, match="needs the pass"):
            ew.score(signals, name)


def test_the_papers_streams_are_those_of_the_logits_themselves(signals, folder, tracks) -> None:
    """Null and contrast by group, and every token of a window against the next one and, as coded, against itself."""
    asked = ["paper", "loss/null", "loss/contrast/q2", "zlib/contrast_inputs"]
    stored = ew.collect(str(folder), tracks, asked, progress=False)
    scores = ew.score(stored, asked).pivot_table(index="segment_id", columns="attack", values="score")
    assert scores.columns.nunique() == 18 + 3
    assert scores.notna().all(axis=None)
    assert set(matching(scores.columns.to_list(), "paper")) == set(scores) - {*asked[1:]}
    model = load_model(str(folder), device="cpu")
    row, signal = next(iter(stored.items("token")))
    (cut,) = [s for s in segments(_path(row), SPEC) if s.segment_id == row["segment_id"]]
    window, tokens = cut.context, torch.from_numpy(cut.context.tokens[None, None])
    with torch.inference_mode():
        own, null = (model.logits(model.encode(tokens), [window], told=told)[0][0, 0] for told in (HALVES, ()))
    flat = {"null": torch.log_softmax(null, -1), "contrast": torch.log_softmax(own - null, -1)}
    for shift, stream in ((1, "contrast_whole"), (0, "contrast_inputs")):
        targets = torch.from_numpy(window.tokens[shift : shift + 256]).long()
        logp = flat["contrast"].gather(-1, targets[:, None])[:, 0].numpy()
        every = symbolic.whole(signal, stream)
        assert every.tokens(0).tolist() == targets.tolist()
        np.testing.assert_allclose(every.series("logp", "contrast"), logp, atol=1e-4)
        size = len(zlib.compress(str(targets.tolist()).encode()))
        if stream == "contrast_whole":
            assert scores.loc[cut.segment_id, "loss/contrast_whole"] == pytest.approx(logp.mean(), rel=1e-4)
            lowest = np.sort(logp)[: int(0.3 * 256)].mean()
            assert scores.loc[cut.segment_id, "min_k-0.3/contrast_whole"] == pytest.approx(lowest, rel=1e-4)
        else:
            assert scores.loc[cut.segment_id, "zlib/contrast_inputs"] == pytest.approx(logp.mean() / size, rel=1e-4)
    targets = torch.from_numpy(window.tokens[1:]).long()
    for name, table in flat.items():
        logp = table.gather(-1, targets[:, None])[:, 0].numpy()
        for q in range(len(GROUPS)):
            np.testing.assert_allclose(signal.series("logp", name, q), logp[window.groups == q], atol=1e-4)


def test_the_null_stream_moves_nothing_that_was_stored(signals, folder, tracks) -> None:
    before = {row["segment_id"]: signal.to_arrays() for row, signal in signals.items("token")}
    ew.collect(str(folder), tracks, ["loss/contrast"], progress=False)
    for row, signal in ew.collect(str(folder), tracks, progress=False).items("token"):
        arrays = signal.to_arrays()
        assert arrays.keys() == before[row["segment_id"]].keys()
        for name, values in arrays.items():
            np.testing.assert_array_equal(values, before[row["segment_id"]][name])


def test_a_model_that_is_told_nothing_has_no_null_stream(tracks, tmp_path) -> None:
    baseline = str(tiny_figaro.write(tmp_path / "baseline", "none"))
    for asked in ("paper", "loss/null", "loss/contrast"):
        with pytest.raises(InputError, match="told nothing of a piece, so it has no null stream and no contrast"):
            ew.collect(baseline, tracks, [asked], progress=False)


@pytest.mark.parametrize("name", ["neighbourhood", "token_neighbourhood", "recall"])
def test_passes_for_sound_are_refused_for_scores(folder, tracks, name) -> None:
    with pytest.raises(InputError, match="reads notes, and the pass"):
        ew.collect(str(folder), tracks, [name], progress=False)


@pytest.mark.parametrize("name", ["transposition", "tempo", "loss/description", "loss/contrast_whole"])
def test_passes_for_scores_are_refused_for_sound(tracks, name) -> None:
    with pytest.raises(InputError, match="hears sound, and the pass"):
        ew.collect("pocket/musicgen-a", tracks, [name], progress=False)


def test_neighbours_halves_reference_and_gradients_are_declared_passes(folder, tracks, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path))
    other = load_model(str(tiny_figaro.write(tmp_path / "other", "both", seed=5)), device="cpu")
    asked = ["transposition", "dynamics", "tempo", "loss/description", "loss/latent", "reference", "gradient_norm"]
    found = ew.collect(str(folder), tracks[:2], asked, reference=other, max_segments=2, progress=False)
    assert len(found.index) == 4
    scores = ew.score(found, [*asked, "loss/conditional", "transposition/conditional/q2"])
    table = scores.pivot_table(index="segment_id", columns="attack", values="score")
    assert table.notna().all(axis=None)
    assert (table["loss/description"] != table["loss/latent"]).all()
    assert (table["loss/description"] != table["loss/conditional"]).all()

    # A neighbour's score is that of the neighbour itself, window beside window.
    model = load_model(str(folder), device="cpu")
    scheme = model.info.scheme
    row = found.index.iloc[0]
    read = scheme.read(_path(row))
    number = [s.segment_id for s in segments(_path(row), SPEC)].index(row["segment_id"])
    moved = [scheme.windows(other)[number] for other in scheme.neighbours("transposition", read)]
    own = scheme.windows(read)[number]

    def likelihood(window) -> float:
        with torch.inference_mode():
            (signal,) = symbolic.score(model, model.encode(torch.from_numpy(window.tokens[None, None])), [window])
        return float(np.mean([signal.series("logp", "conditional", q).mean() for q in range(5)]))

    wanted = likelihood(own) - np.mean([likelihood(w) for w in moved])
    assert table.loc[row["segment_id"], "transposition/conditional"] == pytest.approx(wanted, abs=1e-5)


def test_halves_are_of_models_that_are_told_both(tmp_path, tracks, monkeypatch) -> None:
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path))
    expert = tiny_figaro.write(tmp_path / "m", "description")
    with pytest.raises(InputError, match="this one is told description"):
        ew.collect(str(expert), tracks[:1], ["loss/latent"], progress=False)


def test_workers_and_order_change_nothing(folder, tracks, signals, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path))
    other = ew.collect(str(folder), tracks[::-1], workers=1, progress=False)
    a, b = (
        ew.score(s, "loss").set_index("segment_id")["score"].sort_index() for s in (signals, other)
    )  # fmt: skip
    pd.testing.assert_series_equal(a, b, atol=1e-5, rtol=0)


def test_windows_are_numbered_within_a_track_though_two_are_one_file(folder, tracks, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path))
    found = ew.collect(str(folder), [tracks[0], replace(tracks[0], track_id="again")], progress=False)
    assert found.index.groupby("track_id")["window"].agg(sorted).to_dict() == {
        "t0": [0, 1, 2, 3],
        "again": [0, 1, 2, 3],
    }


def test_a_pass_over_the_plan_says_what_scoring_would_take(folder, tracks, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path))
    found = forecast(str(folder), tracks, ["loss", "tempo"], probe=False)
    assert found.evaluations == {"loss": 1, "tempo": 3}
    assert found.evaluations_shared == 3
    assert found.segments_missing == 16
    assert [row["track_id"] for row in found.exclusions] == ["bad"]
    assert seconds_of(tracks[0]) == pytest.approx(150 * 0.25, rel=0.02)


def test_every_bad_file_is_an_exclusion_on_record(folder, tracks, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / "results"))
    given = [tracks[0]]
    for i, (content, _) in enumerate(BAD.values()):
        path = tmp_path / f"bad{i}.mid"
        path.write_bytes(content)
        given.append(Track(f"bad{i}", path, "nonmember"))
    found = ew.collect(str(folder), given, max_segments=1, progress=False)
    reasons = found.exclusions.set_index("track_id")["reason"]
    assert set(reasons.index) == {t.track_id for t in given[1:]}
    for i, (_, reason) in enumerate(BAD.values()):
        assert reason in reasons[f"bad{i}"]
    assert found.index["track_id"].unique().tolist() == ["t0"]


def test_a_worker_looks_into_midi_files_first(tracks, tmp_path) -> None:
    assert from_plain(to_plain(SPEC)) == SPEC
    good, short, bad = (decode_pool.inspect([t.path], SPEC)[0] for t in (tracks[0], *tracks[4:]))
    assert (good["reason"], good["segments"], good["format"], good["codec"]) == ("", 4, "MIDI", "type 1")
    assert "shorter than one window" in short["reason"]
    assert "ends in the middle" in bad["reason"]


def test_blind_features_are_those_of_the_notes(tmp_path) -> None:
    rows = [(480 * i, 480 * i + 480, 60 + i % 2, 64) for i in range(120)]
    path = tiny_midi.write(tmp_path / "x.mid", [(0, rows)])
    first = next(iter(segments(path, SPEC))).context
    found = symbolic.blind(first, path)
    held = len(np.unique(first.notes[first.notes >= 0]))
    assert found["notes_number"] == held
    assert found["notes_pitch_mean"] == pytest.approx(60.5, abs=0.02)
    assert found["notes_velocity_spread"] == 0
    assert found["notes_length_mean"] == pytest.approx(0.5)
    assert found["notes_per_second"] == pytest.approx(2, rel=0.01)
    assert found["notes_classes"] == pytest.approx(np.log(2), rel=0.01)
    assert (found["notes_repeats"], found["notes_drums"], found["notes_offgrid"]) == (0, 0, 0)
    assert (found["notes_piece_notes"], found["notes_piece_bars"], found["notes_metre"]) == (120, 30, 4)
    assert set(found) == set(symbolic.FEATURES)
