"""Stored is stored: a pass is run once for a track, whatever else was asked for when it was, and in whatever order."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import earwitness as ew
from earwitness.audit import cost
from earwitness.signals import extraction
from earwitness.signals.evaluations import PASSES, grouped, passes_asked, plan_evaluations, without_caption
from earwitness.signals.extraction import Signals, collect, describe_stored
from earwitness.types import Track
from tests.tiny import musicgen, recording
from tests.tiny_diffusion import audioldm

Content = dict[tuple[str, str], dict[str, Any]]

DIFFUSION: dict[str, str | list[str]] = {
    "one": ["multiple_loss-300/null"],
    "audit": "audit",
    "all": "all",
    "costly": ["all", "secmi/conditional", "clid/half"],
}
TOKEN: dict[str, str | list[str]] = {
    "one": "loss",
    "near": ["loss", "neighbourhood"],
    "more": ["neighbourhood", "token_neighbourhood", "recall"],
}


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / "results"))
    monkeypatch.setattr("earwitness.signals.store.PART_TRACKS", 3)
    return tmp_path / "results"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus")
    audioldm(root / "diffusion", sample_size=8)
    musicgen(root / "token")
    for i in range(6):
        recording(root / f"{i}.wav", 0.4 + 0.2 * (i % 2), seed=i)
        recording(root / f"long-{i}.wav", 0.7 + 0.7 * (i % 2), seed=i)
    return root


@pytest.fixture(scope="module")
def diffusion(corpus: Path) -> Any:
    return ew.load_model(str(corpus / "diffusion"))


@pytest.fixture(scope="module")
def token(corpus: Path) -> Any:
    return ew.load_model(str(corpus / "token"))


@pytest.fixture
def tracks(corpus: Path) -> list[Track]:
    return [
        Track(f"t{i}", corpus / f"{i}.wav", "member" if i % 2 else "nonmember", "A", f"w{i}",
              caption="" if i == 1 else f"{'sad' * (i % 3 > 0)} rock {i}")
        for i in range(5)
    ]  # fmt: skip


@pytest.fixture
def heard(corpus: Path, tracks: list[Track]) -> list[Track]:
    """The same for the token model, whose window is longer; all with a caption."""
    return [replace(t, path=corpus / f"long-{t.path.name}", caption=t.caption or "sad rock") for t in tracks]


@pytest.fixture
def prefixes(corpus: Path) -> dict[str, Any]:
    return {"prefixes": {"nonmember": corpus / "long-5.wav"}}


@pytest.fixture
def counted(diffusion: Any, token: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows that networks were shown, call by call."""
    rows: list[int] = []

    def counts(real: Callable[..., Any]) -> Callable[..., Any]:
        return lambda first, *rest, **more: (rows.append(len(first)), real(first, *rest, **more))[1]

    monkeypatch.setattr(diffusion, "predict_noise", counts(diffusion.predict_noise))
    monkeypatch.setattr(token, "logits", counts(token.logits))
    return rows


def content(signals: Signals) -> Content:
    """Everything that is served, by track and segment."""
    family = signals.info.family
    held = [(row, signal.to_arrays()) for kind in (family, "blind") for row, signal in signals.items(kind)]
    found: Content = {}
    for row, arrays in held:
        found.setdefault((row["track_id"], row["segment_id"]), {}).update(arrays)
    return found


def same(one: Content, other: Content) -> None:
    """Compare to the bit, names and types too."""
    assert one.keys() == other.keys()
    for key, arrays in one.items():
        assert arrays.keys() == other[key].keys()
        for name, values in arrays.items():
            assert values.dtype == other[key][name].dtype
            np.testing.assert_array_equal(values, other[key][name], err_msg=name)


def rows_of(passes: Set[str], signals: Signals) -> int:
    """Rows that a network must be shown for passes; without a caption every text is the null condition."""
    silent = int((signals.index["caption"] == "").sum())
    assert silent
    told = plan_evaluations(passes).nfe * (len(signals.index) - silent)
    return told + plan_evaluations(without_caption(passes)).nfe * silent


_fresh: dict[tuple[Any, ...], Content] = {}


def fresh(model: Any, tracks: Sequence[Track], asked: str | list[str], tmp_path: Path, **options: Any) -> Content:
    """What a run gives that finds nothing stored; remembered."""
    key = model.info.name, str(asked), str(options)
    if key not in _fresh:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("EARWITNESS_RESULTS", str(tmp_path / f"fresh-{len(_fresh)}"))
            signals = collect(model, tracks, asked, **options)
            assert signals.provenance["tracks_scored_now"] == len(tracks)
            _fresh[key] = content(signals)
    return _fresh[key]


def orders(names: Sequence[str]) -> list[Any]:
    """Every order; the first and its reverse in the fast suite."""
    found = list(permutations(names))
    return [
        pytest.param(order, id="-".join(order), marks=[] if number in {0, 5} else pytest.mark.slow)
        for number, order in enumerate(found)
    ]


# --- diffusion models: every pass by itself ---


@pytest.mark.parametrize("order", orders(["one", "audit", "all"]))
def test_three_runs_in_any_order_run_each_pass_once(
    order: tuple[str, ...], diffusion: Any, tracks: list[Track], counted: list[int], tmp_path: Path
) -> None:
    stored: set[str] = set()
    for name in order:
        wanted = set(passes_asked(DIFFUSION[name], diffusion.info))
        expected = fresh(diffusion, tracks, DIFFUSION[name], tmp_path)
        counted.clear()
        signals = collect(diffusion, tracks, DIFFUSION[name])
        assert sum(counted) == rows_of(wanted - stored, signals)
        assert signals.provenance["tracks_scored_now"] == (len(tracks) if wanted - stored else 0)
        same(content(signals), expected)
        stored |= wanted
    counted.clear()
    for name in order:
        assert collect(diffusion, tracks, DIFFUSION[name]).provenance["tracks_scored_now"] == 0
    assert counted == []


def test_costly_passes_are_added_and_a_name_is_enough_to_read(
    corpus: Path, diffusion: Any, tracks: list[Track], counted: list[int], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    expected = {name: fresh(diffusion, tracks, asked, tmp_path) for name, asked in DIFFUSION.items()}
    collect(diffusion, tracks)
    counted.clear()
    costly = collect(diffusion, tracks, DIFFUSION["costly"])
    added = set(costly.store.identity["further"]["passes"]) - set(passes_asked("all", diffusion.info))
    assert added == {"secmi/conditional", "grid/half"}
    assert sum(counted) == rows_of(added, costly)
    same(content(costly), expected["costly"])
    monkeypatch.setattr(extraction, "load_model", lambda *_, **__: pytest.fail("a model was loaded"))
    for name, asked in DIFFUSION.items():
        same(content(collect(str(corpus / "diffusion"), tracks, asked)), expected[name])
        assert describe_stored(str(corpus / "diffusion"), tracks, asked)["missing"] == 0
        forecast = cost.forecast(str(corpus / "diffusion"), tracks, asked, probe=False)
        assert (forecast.tracks_stored, forecast.tracks_missing) == (len(tracks), 0)


@pytest.mark.slow
def test_scores_are_those_of_a_fresh_run_and_of_no_pass_that_was_not_asked_for(
    diffusion: Any, tracks: list[Track], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect(diffusion, tracks, DIFFUSION["costly"])
    served = ew.score(collect(diffusion, tracks, "audit"))
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / "again"))
    alone = ew.score(collect(diffusion, tracks, "audit"))
    columns = ["track_id", "segment_id", "attack"]
    a, b = (table.sort_values(columns, ignore_index=True) for table in (served, alone))
    assert a.equals(b[a.columns])
    assert not a["attack"].str.startswith("secmi").any()


def test_without_a_caption_passes_that_were_run_apart_show_no_contrast(
    diffusion: Any, tracks: list[Track], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the network rounds: here it adds a little more with every call."""
    calls: list[int] = []
    real = diffusion.predict_noise

    def drifting(*given: Any) -> Any:
        calls.append(1)
        return real(*given) * (1 + 1e-4 * len(calls))

    monkeypatch.setattr(diffusion, "predict_noise", drifting)
    for asked in (["multiple_loss-300/conditional"], ["multiple_loss-300/null"]):
        collect(diffusion, tracks, asked)
    for row, signal in collect(diffusion, tracks, ["clid/null"]).items("diffusion"):
        apart = signal.values["grid/conditional"] - signal.values["grid/null"]
        assert (apart == 0).all() == (row["caption"] == "")


@given(st.sets(st.sampled_from(sorted(PASSES))))
def test_what_goes_into_one_call_does_not_depend_on_what_else_is_run(passes: set[str]) -> None:
    everything = {frozenset(group) for group in grouped(plan_evaluations(PASSES).evaluations)}
    wanted = plan_evaluations(passes).evaluations
    groups = grouped(wanted)
    assert {frozenset(group) for group in groups} <= everything
    assert sorted(e for group in groups for e in group) == list(wanted)
    assert all(len({e.condition for e in group}) == 1 for group in groups)


# --- some of the tracks, some of the passes ---


@pytest.mark.slow
def test_tracks_lack_different_passes(diffusion: Any, tracks: list[Track], counted: list[int], tmp_path: Path) -> None:
    expected = fresh(diffusion, tracks, "all", tmp_path)
    sizes = {track_id: sum(key[0] == track_id for key in expected) for track_id, _ in expected}
    collect(diffusion, tracks[:2], DIFFUSION["one"])
    collect(diffusion, tracks[1:3], "audit")
    collect(diffusion, tracks[4:], DIFFUSION["costly"])
    counted.clear()
    signals = collect(diffusion, tracks)
    every, one, audit = (set(passes_asked(DIFFUSION[name], diffusion.info)) for name in ("all", "one", "audit"))
    lacking = [every - one, every - one - audit, every - audit, every, set()]
    due = sum(plan_evaluations(left).nfe * sizes[f"t{i}"] for i, left in enumerate(lacking))
    assert sum(counted) == due
    assert signals.provenance["tracks_scored_now"] == 4
    served = content(signals)
    assert served.keys() == expected.keys()
    for key, arrays in expected.items():  # other batches: the last digits may differ
        assert arrays.keys() == served[key].keys()
        for name, values in arrays.items():
            np.testing.assert_allclose(served[key][name], values, rtol=1e-3)
    counted.clear()
    same(content(collect(diffusion, tracks)), served)
    assert counted == []


def test_tracks_of_which_nothing_is_stored_keep_full_parts(diffusion: Any, tracks: list[Track], results: Path) -> None:
    """A part of three tracks stays one of three, whatever lies elsewhere of others."""
    collect(diffusion, [tracks[0], tracks[3]])
    signals = collect(diffusion, tracks, "audit")
    own = list(signals.store.folder.glob("part-*.parquet"))
    assert len(own) == 1
    assert signals.index["part"].nunique() == 2
    assert signals.index.groupby("track_id")["part"].nunique().max() == 1


@pytest.mark.slow
def test_passes_that_are_added_go_on_after_an_interruption(
    diffusion: Any, tracks: list[Track], counted: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = fresh(diffusion, tracks, DIFFUSION["costly"], tmp_path)
    collect(diffusion, tracks)
    real, calls = extraction.score_part, []

    def dies(*given: Any) -> list[dict[str, Any]]:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(extraction, "score_part", dies)
    with pytest.raises(KeyboardInterrupt):
        collect(diffusion, tracks, DIFFUSION["costly"])
    signals = collect(diffusion, tracks, DIFFUSION["costly"])
    assert signals.provenance["tracks_scored_now"] == 2
    same(content(signals), expected)


def test_a_damaged_part_elsewhere_is_set_aside_and_what_it_held_is_run(
    diffusion: Any, tracks: list[Track], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = fresh(diffusion, tracks, "audit", tmp_path)
    stored = collect(diffusion, tracks).store
    part = sorted(stored.folder.glob("part-*.parquet"))[0]
    part.write_bytes(part.read_bytes()[:-100])
    with caplog.at_level(logging.WARNING):
        signals = collect(diffusion, tracks, "audit")
    assert "set aside" in caplog.text
    assert 0 < signals.provenance["tracks_scored_now"] < len(tracks)
    assert content(signals).keys() == expected.keys()


@pytest.mark.parametrize("change", ["seed", "max_segments"])
def test_another_seed_or_cut_is_served_nothing(change: str, diffusion: Any, tracks: list[Track]) -> None:
    collect(diffusion, tracks[3:])
    assert collect(diffusion, tracks[3:], "audit", **{change: 1}).provenance["tracks_scored_now"] == 2  # type: ignore[arg-type]


# --- token models: the costly passes beside the streams ---


@pytest.mark.parametrize("order", orders([*TOKEN]))
def test_costly_token_passes_run_once_and_the_streams_with_them(
    order: tuple[str, ...], token: Any, heard: list[Track], prefixes: dict[str, Any], counted: list[int],
    tmp_path: Path,
) -> None:  # fmt: skip
    needs = {"one": 2, "near": 2 + 4, "more": 2 + 4 + 5 + 1}
    needs = {"one": {"streams"}, "near": {"streams", "neighbours"}}
    needs["more"] = needs["near"] | {"token_neighbours", "prefix_nonmember"}
    extra = extraction.token_costly.EXTRA_PASSES | {"streams": 2}
    stored: set[str] = set()
    for name in order:
        options = prefixes if name == "more" else {}
        expected = fresh(token, heard, TOKEN[name], tmp_path, **options)
        counted.clear()
        signals = collect(token, heard, TOKEN[name], **options)
        assert sum(counted) == sum(extra[p] for p in needs[name] - stored) * len(signals.index)
        same(content(signals), expected)
        stored |= needs[name]


@pytest.mark.slow
def test_only_what_depends_on_the_second_model_or_the_prefix_is_run_for_another(
    corpus: Path, token: Any, heard: list[Track], counted: list[int], tmp_path: Path
) -> None:
    asked = ["neighbourhood", "reference", "recall"]
    others = [ew.load_model(str(musicgen(tmp_path / f"other-{i}", seed=7 + i))) for i in range(2)]
    first, second = {"nonmember": corpus / "long-5.wav"}, {"nonmember": corpus / "long-3.wav"}
    segments = len(collect(token, heard, asked, reference=others[0], prefixes=first).index)
    for number, (reference, prefix) in enumerate([(others[1], first), (others[0], second), (others[1], second)]):
        expected = fresh(token, heard, asked, tmp_path, reference=reference, prefixes=prefix)
        counted.clear()
        signals = collect(token, heard, asked, reference=reference, prefixes=prefix)
        assert sum(counted) == (number == 1) * segments, "calls of the second model are not counted"
        assert signals.provenance["tracks_scored_now"] == (number < 2) * len(heard)
        same(content(signals), expected)
    counted.clear()
    near = collect(token, heard, "neighbourhood")
    assert counted == [], "neighbours depend on neither"
    assert {name.partition("/")[0] for name in next(near.items("token"))[1].extras} == {"sdm", "neighbours"}


def test_what_is_added_to_stored_streams_names_them_not_again(token: Any, heard: list[Track], results: Path) -> None:
    import pyarrow.parquet as pq

    collect(token, heard)
    added = collect(token, heard, ["loss", "neighbourhood"])
    folders = {folder.name: folder for folder in (results / "signals").iterdir()}
    del folders[collect(token, heard).store.folder.name]
    ((name, folder),) = folders.items()
    assert name != added.store.folder.name, "these parts are not whole"
    for part in folder.glob("part-*.parquet"):
        names = [n for n in pq.read_schema(part).names if n.startswith("token:")]
        assert names == ["token:neighbours/means"]
