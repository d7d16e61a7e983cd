"""The scoring engine: nothing is scored twice, nothing stale is served, nothing bad stops the rest."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import earwitness as ew
from earwitness.audit import cost
from earwitness.errors import InputError, ModelError, StoppedError
from earwitness.signals import extraction, stream, token
from earwitness.signals.extraction import Signals, collect, describe_stored, summary
from earwitness.signals.store import Store, parse_shard
from earwitness.types import Track
from earwitness.util import file_hash
from tests.tiny import musicgen, recording


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(musicgen(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(scope="session")
def audio(tmp_path_factory: pytest.TempPathFactory) -> list[Track]:
    root = tmp_path_factory.mktemp("audio")
    kinds = ["wav", "flac", "ogg", "mp3"]
    return [
        Track(f"t{i}", recording(root / f"t{i}.{kinds[i % 4]}", 1.5 + i % 2, seed=i),
              "member" if i % 2 else "nonmember", "A", f"w{i}", caption="sad rock")
        for i in range(6)
    ]  # fmt: skip


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / "results"))
    monkeypatch.setattr("earwitness.signals.store.PART_TRACKS", 2)
    return tmp_path / "results"


def _table(signals: Signals) -> pd.DataFrame:
    table = ew.score(signals, ["loss", "min_k++-0.2", "blind"])
    return table.sort_values(["segment_id", "attack"], ignore_index=True)


def test_signals_survive_storage_to_the_bit(folder: str, audio: list[Track]) -> None:
    signals = collect(folder, audio)
    assert len(signals.index) == sum(2 if i % 2 == 0 else 3 for i in range(6))
    model = ew.load_model(folder)
    import torch

    from earwitness.data.audio import AudioSpec, prepare
    from earwitness.signals.token import extract

    spec = AudioSpec(model.info.sample_rate, 1, model.info.segment_seconds)
    rows = {(row["track_id"], row["segment_id"]): s for row, s in signals.items("token")}
    for track in audio[:2]:
        for segment in prepare(track.path, spec):
            stored = rows[track.track_id, segment.segment_id]
            (fresh,) = extract(model, torch.from_numpy(segment.audio)[None], [track.caption])
            np.testing.assert_array_equal(stored.codes, fresh.codes)
            np.testing.assert_array_equal(stored.mask, fresh.mask)
            for name, scored in fresh.streams.items():
                assert stored.streams[name].logp.dtype == np.float32
                np.testing.assert_allclose(stored.streams[name].logp, scored.logp, atol=2e-5)


def test_a_second_call_runs_nothing(folder: str, audio: list[Track], monkeypatch: pytest.MonkeyPatch) -> None:
    first = collect(folder, audio)
    monkeypatch.setattr(extraction, "load_model", lambda *_, **__: pytest.fail("the model was loaded again"))
    second = collect(folder, audio)
    assert second.provenance["tracks_scored_now"] == 0
    pd.testing.assert_frame_equal(_table(first), _table(second))
    assert summary(first) == summary(second)


def test_a_run_opens_its_own_parts_and_other_parts_only_for_what_those_lack(
    folder: str, audio: list[Track], results: Path, tmp_path: Path
) -> None:
    whole = _table(collect(folder, audio[:4]))
    (store,) = (results / "signals").iterdir()
    others = [store / f"part-{number}.parquet" for number in range(9)]
    for path in others:
        path.write_bytes(b"of other tracks; damaged, so that opening it shows")
    pd.testing.assert_frame_equal(_table(collect(folder, audio[:4])), whole)
    assert describe_stored(folder, audio[:4])["stored"] == 4
    assert cost.forecast(folder, audio[:4], probe=False).tracks_stored == 4
    assert all(path.exists() for path in others)
    more = collect(folder, audio)  # cut into other parts
    assert more.provenance["tracks_scored_now"] == 2
    assert not any(path.exists() for path in others)
    for path in others:
        path.write_bytes(b"again")
    short = Track("short", recording(tmp_path / "short.wav", 0.2), "member")
    again = collect(folder, [*audio[:4], short])
    assert len(again.exclusions) == 1
    assert not any(path.exists() for path in others)


def test_an_interrupted_run_resumes_and_ends_bit_identical(
    folder: str, audio: list[Track], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = _table(collect(folder, audio))
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / "again"))
    real, calls = extraction.score_part, []

    def dies(*args):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(extraction, "score_part", dies)
    with pytest.raises(KeyboardInterrupt):
        collect(folder, audio)
    assert not list((tmp_path / "again").rglob("*.part"))
    resumed = collect(folder, audio)
    assert resumed.provenance["tracks_scored_now"] == 4
    pd.testing.assert_frame_equal(_table(resumed), whole)


def test_shards_partition_the_tracks_and_agree_with_one_run(
    folder: str, audio: list[Track], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = _table(collect(folder, audio))
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / "sharded"))
    parts = [collect(folder, audio, shard=(i, 3)) for i in (1, 2, 3)]
    assert sorted(pd.concat([p.index["track_id"] for p in parts]).unique()) == [t.track_id for t in audio]
    assert sum(p.index["track_id"].nunique() for p in parts) == len(audio)
    merged = collect(folder, audio)
    assert merged.provenance["tracks_scored_now"] == 0
    pd.testing.assert_frame_equal(_table(merged), whole, atol=1e-4)


CHANGES: dict[str, Callable[[Track, str, pytest.MonkeyPatch], tuple[Track, dict]]] = {
    "caption": lambda t, f, m: (replace(t, caption="happy jazz"), {}),
    "content": lambda t, f, m: (replace(t, path=recording(t.path.with_name("changed.wav"), 2, seed=99)), {}),
    "seed": lambda t, f, m: (t, {"seed": 1}),
    "segments": lambda t, f, m: (t, {"max_segments": 1}),
    "extractor": lambda t, f, m: (m.setattr(token, "VERSION", 999), (t, {}))[1],
    "weights": lambda t, f, m: ((Path(f) / "added.json").write_text("{}"), (t, {}))[1],
}


@pytest.mark.parametrize("name", CHANGES)
def test_whatever_changes_a_score_is_another_key(
    name: str, folder: str, audio: list[Track], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    copy = str(shutil.copytree(folder, tmp_path / "tiny"))
    assert collect(copy, audio[:1]).provenance["tracks_scored_now"] == 1
    track, arguments = CHANGES[name](audio[0], copy, monkeypatch)
    assert collect(copy, [track], **arguments).provenance["tracks_scored_now"] == 1


def test_a_model_whose_files_change_in_mid_run_is_refused(
    folder: str, audio: list[Track], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = str(shutil.copytree(folder, tmp_path / "tiny"))
    real = extraction.load_model

    def late(name: str, **options):
        (Path(copy) / "added.json").write_text("{}")
        return real(name, **options)

    monkeypatch.setattr(extraction, "load_model", late)
    with pytest.raises(ModelError, match="changed while scoring; run the same command again"):
        collect(copy, audio[:1])


def test_a_reference_whose_files_change_in_mid_run_is_refused(
    folder: str, audio: list[Track], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = musicgen(tmp_path / "reference", seed=7)
    real = extraction.load_model

    def late(name: str, **options):
        (reference / "added.json").write_text("{}")
        return real(name, **options)

    monkeypatch.setattr(extraction, "load_model", late)
    with pytest.raises(ModelError, match="reference: its files changed while scoring; run the same command again"):
        collect(folder, audio[:1], "reference", reference=str(reference))


def test_what_another_process_could_not_score_gets_a_part_of_its_own(
    folder: str, audio: list[Track], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both saw an empty store; the first could not decode one recording, the second, who waited for it, can."""
    info = ew.load_model(folder).info
    spec, further = extraction.spec_of(info), extraction.Further((), None, {})
    store = Store(info, spec)
    keyed, _ = extraction.key_tracks(audio)
    real, late = stream.decode_pool.request_for, keyed[0][1].path

    def flaky(job: str, path: Path, *rest: object, **more: object) -> bytes:
        return real("tests.tiny:die" if path == late else job, path, *rest, **more)

    with extraction._progress("test", len(audio), show=False) as bar:
        first, second = (extraction._Work(folder, info, spec, lambda keys: {}) for _ in range(2))
        monkeypatch.setattr(stream.decode_pool, "request_for", flaky)
        first.run(further, store, extraction.parts_of(keyed), 0, bar)
        monkeypatch.setattr(stream.decode_pool, "request_for", real)
        second.run(further, store, extraction.parts_of(keyed), 0, bar)
    assert (len(first.scored), second.scored) == (len(audio) - 1, {keyed[0][0]})
    assert set(store.index()["track_key"]) == {key for key, _ in keyed}


def test_what_cannot_change_a_score_is_the_same_key(folder: str, audio: list[Track], tmp_path: Path) -> None:
    collect(folder, audio[:1])
    moved = replace(audio[0], path=Path(shutil.copy(audio[0].path, tmp_path / "moved.wav")), role="suspect", artist="B")
    again = collect(folder, [replace(moved, track_id="new name")])
    assert again.provenance["tracks_scored_now"] == 0
    assert again.index[["track_id", "role", "artist"]].iloc[0].tolist() == ["new name", "suspect", "B"]


def test_bad_recordings_are_counted_and_the_rest_goes_on(folder: str, audio: list[Track], tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no audio")
    bad = [
        replace(audio[0], track_id="gone", path=tmp_path / "gone.wav"),
        replace(audio[0], track_id="text", path=tmp_path / "text.wav"),
        replace(audio[1], track_id="changed", sha256="0" * 64),
    ]
    good = replace(audio[2], sha256=file_hash(audio[2].path))
    signals = collect(folder, [*bad, good])
    reasons = signals.exclusions.set_index("track_id")["reason"]
    assert set(signals.index["track_id"]) == {good.track_id}
    assert "no such file" in reasons["gone"]
    assert "not readable" in reasons["text"]
    assert "differ from the manifest's sha256" in reasons["changed"]
    assert signals.provenance["tracks_scored_now"] == 1
    with pytest.raises(InputError, match="none of 3 tracks can be scored; first reason: gone.wav"):
        collect(folder, bad)


def test_a_damaged_part_is_set_aside_and_scored_again(
    folder: str, audio: list[Track], results: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = _table(collect(folder, audio))
    part = sorted(results.rglob("part-*.parquet"))[0]
    part.write_bytes(part.read_bytes()[:-100])
    with caplog.at_level(logging.WARNING):
        again = collect(folder, audio)
    assert "set aside" in caplog.text
    assert again.provenance["tracks_scored_now"] == 2
    pd.testing.assert_frame_equal(_table(again), whole)


@pytest.mark.parametrize("gone", [1, 3])
def test_signals_that_vanish_meanwhile_stop_the_run(
    gone: int, folder: str, audio: list[Track], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = summary(collect(folder, audio))
    real, calls = Store.index, []

    def index(self: Store, *keys: object) -> pd.DataFrame:
        calls.append(1)
        if len(calls) == 2:  # after scoring: as somebody who deletes it in another terminal
            for path in sorted(self.folder.glob("part-*.parquet"))[:gone]:
                path.unlink()
        return real(self, *keys)

    monkeypatch.setattr(Store, "index", index)
    with pytest.raises(StoppedError, match=rf"signals of {2 * gone} of 6 tracks .* the same command goes on from here"):
        collect(folder, audio)
    assert summary(collect(folder, audio)) == whole


def test_parts_are_plain_parquet_with_their_identity(folder: str, audio: list[Track], results: Path) -> None:
    signals = collect(folder, audio[:2])
    (part,) = results.rglob("part-*.parquet")
    frame = pq.read_table(part).to_pandas()
    assert {"track_key", "segment_id", "start_s", "token:codes", "token:contrast.logp"} <= set(frame)
    assert len(frame["token:codes"].iloc[0]) == 4 * 32
    assert signals.info.revision.encode() in pq.read_schema(part).metadata[b"earwitness"]


def test_inputs_are_checked(audio: list[Track]) -> None:
    with pytest.raises(InputError, match="at least one track, got none"):
        collect("pocket/musicgen-a", [])
    with pytest.raises(InputError, match="no attack is called 'min_kk'.*did you mean 'min_k'"):
        collect("pocket/musicgen-a", audio[:1], "min_kk")
    assert parse_shard("2/8") == (2, 8)
    for text in ("0/2", "3/2", "1", "a/b", "1/0", "-1/2"):
        with pytest.raises(InputError, match="expected a shard as i/n"):
            parse_shard(text)


def test_a_model_of_another_family_is_no_reference(audio: list[Track]) -> None:
    with pytest.raises(InputError, match="pocket/audioldm-a is a diffusion model; a reference for pocket/musicgen-a"):
        collect("pocket/musicgen-a", audio[:1], ["reference"], reference="pocket/audioldm-a")


def test_without_a_caption_there_is_no_contrast(folder: str, audio: list[Track]) -> None:
    tracks = [replace(audio[0], caption=""), *audio[1:3]]
    scores = ew.score(collect(folder, tracks)).pivot_table(
        index="track_id", columns="attack", values="score", dropna=False
    )
    contrast = [name for name in scores if "/contrast" in name]
    assert len(contrast) > 20
    assert scores.loc[tracks[0].track_id, contrast].isna().all()
    assert scores.loc[tracks[0].track_id].drop(contrast).notna().all()
    assert scores.drop(index=tracks[0].track_id).notna().all(axis=None)


def test_costly_attacks_run_their_passes_beside_what_is_stored(
    folder: str, audio: list[Track], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefixes = {"nonmember": recording(tmp_path / "other.wav", 2, seed=50)}
    wanted = ["loss", "neighbourhood", "reference", "recall"]
    reference = str(musicgen(tmp_path / "reference", seed=7))
    plain = collect(folder, audio[:2])
    costly = collect(folder, audio[:2], wanted, reference=reference, prefixes=prefixes)
    assert costly.provenance["tracks_scored_now"] == 2
    assert costly.store.folder != plain.store.folder
    scores = ew.score(costly, wanted).pivot_table(index="segment_id", columns="attack", values="score")
    assert np.isfinite(scores).all(axis=None)
    same = ew.score(plain, "loss").pivot_table(index="segment_id", columns="attack", values="score")
    pd.testing.assert_frame_equal(scores[same.columns], same)
    with monkeypatch.context() as patched:
        patched.setattr(extraction, "load_model", lambda *_, **__: pytest.fail("a model was loaded for what is stored"))
        again = collect(folder, audio[:2], wanted, reference=reference, prefixes=prefixes)
    assert again.provenance["tracks_scored_now"] == 0
    with pytest.raises(InputError, match="'reference' needs reference="):
        collect(folder, audio[:2], "reference")
    with pytest.raises(InputError, match="has the weights of .*; name another"):
        collect(folder, audio[:2], "reference", reference=folder)
    with pytest.raises(InputError, match="no attack that was asked for compares"):
        collect(folder, audio[:2], "loss", reference=reference)
    with pytest.raises(InputError, match="no attack that was asked for compares pocket/audioldm-a"):
        collect("pocket/audioldm-a", audio[:2], reference=reference)
    with pytest.raises(InputError, match="neighbourhood/conditional needs the pass 'neighbours'"):
        ew.score(plain, "neighbourhood")
