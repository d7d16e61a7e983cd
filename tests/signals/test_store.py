"""Parts on disk: what a reader of any Parquet library finds, and what happens to parts that are not what they were."""

from __future__ import annotations

import errno
import json
import logging
import os
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from earwitness.data.audio import AudioSpec
from earwitness.errors import StoreError
from earwitness.signals import store as storage
from earwitness.signals.store import Store, encode, give_up, part_name
from earwitness.types import ModelInfo

INFO = ModelInfo("toy/model", "token", "0" * 64, 16_000, 1, 1.0, "float32", "cpu", "tiny")
SPEC = AudioSpec(16_000, 1, 1.0)


def rows(count: int = 6, seed: int = 0) -> list[dict[str, object]]:
    rng = np.random.default_rng(seed)
    return [
        {
            "track_key": f"key-{i // 2}",
            "segment_id": f"segment-{i}",
            "start_s": 0.5 * i,
            "token:codes": rng.integers(0, 64, (4, 8), np.int32),
            "token:mask": rng.random((4, 8)) < 0.9,
            "token:conditional.logp": np.where(rng.random((4, 8)) < 0.1, np.nan, rng.normal(size=(4, 8))).astype("f4"),
            "blind:features": rng.normal(size=5),
        }
        for i in range(count)
    ]


def test_only_models_that_hear_the_recording_itself_are_scored_anew() -> None:
    """The level that CLAP hears changed: a diffusion model without the audio condition keeps its stored signals."""
    plain = replace(INFO, family="diffusion", conditions=("text", "null"))
    listening = replace(plain, conditions=("text", "null", "audio"))
    versions = [Store(info, SPEC).identity["extractors"]["diffusion"] for info in (plain, listening)]
    assert versions == [1, 2]
    assert Store(plain, SPEC).folder != Store(listening, SPEC).folder


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / "results"))
    return Store(INFO, SPEC)


def _same(store: Store, part: str, written: list[dict]) -> None:
    for family in ("token", "blind"):
        names = [name for name in written[0] if name.startswith(f"{family}:")]
        for row, (key, stored) in zip(written, store.read(part, family), strict=True):
            assert key == (row["track_key"], row["segment_id"])
            for name in names:
                np.testing.assert_array_equal(stored[name.partition(":")[2]], row[name])
                assert stored[name.partition(":")[2]].dtype == row[name].dtype


def test_a_part_comes_back_to_the_bit_and_says_how_it_was_made(store: Store) -> None:
    path = store.write(rows(), batch=16)
    assert path.name == part_name(["key-2", "key-0", "key-1"])
    _same(store, path.name, rows())
    facts = storage.facts_of(pq.read_schema(path))
    assert (facts["schema"], facts["batch"]) == (storage.SCHEMA_VERSION, 16)
    assert facts["identity"] == json.loads(json.dumps(store.identity))
    index = store.index()
    assert index[["track_key", "row"]].to_numpy().tolist() == [[f"key-{i // 2}", i] for i in range(6)]


def test_any_parquet_reader_sees_plain_columns(store: Store) -> None:
    """The documented schema, with pyarrow and pandas."""
    path = store.write(rows())
    table = pq.read_table(path)
    assert [str(table.schema.field(name).type) for name in storage.INDEX] == ["string", "string", "double"]
    listed = table.schema.field("token:conditional.logp").type
    assert pa.types.is_fixed_size_list(listed)
    assert (listed.list_size, str(listed.value_type)) == (32, "float")
    frame = pd.read_parquet(path)
    np.testing.assert_array_equal(np.stack(frame["token:codes"])[3].reshape(4, 8), rows()[3]["token:codes"])


def test_polars_and_duckdb_read_a_whole_store(store: Store) -> None:
    """Several parts at once, arrays in their documented shape, as the page *The signal store* shows."""
    polars, duckdb = pytest.importorskip("polars"), pytest.importorskip("duckdb")
    for seed in (0, 1):
        store.write(rows(seed=seed), f"part-{seed}.parquet")
    parts = f"{store.folder}/part-*.parquet"
    frame = polars.read_parquet(parts)
    assert frame.schema["token:conditional.logp"] == polars.Array(polars.Float32, 32)
    assert frame["start_s"].to_list() == [row["start_s"] for seed in (0, 1) for row in rows(seed=seed)]
    np.testing.assert_array_equal(frame["token:codes"][7].to_numpy().reshape(4, 8), rows(seed=1)[1]["token:codes"])
    counted = duckdb.sql(f"select track_key, count(*) from '{parts}' group by 1 order by 1").fetchall()
    assert counted == [(f"key-{i}", 4) for i in range(3)]
    ((logp,),) = duckdb.sql(
        f"select \"token:conditional.logp\" from '{store.folder}/part-1.parquet' limit 1"
    ).fetchall()
    np.testing.assert_array_equal(np.float32(logp), rows(seed=1)[0]["token:conditional.logp"].ravel())


@pytest.mark.parametrize("seed", range(4))
def test_equal_rows_give_equal_files(seed: int) -> None:
    assert encode(rows(seed=seed), {"a": 1}) == encode(rows(seed=seed), {"a": 1})
    assert encode(rows(seed=seed), {"a": 1}) != encode(rows(seed=seed + 1), {"a": 1})


@pytest.mark.parametrize("change", ["rename", "type", "cut", "drop"])
def test_columns_and_rows_that_no_page_vouches_for_are_compared(store: Store, change: str) -> None:
    """A footer that names another column, type or number of rows, with sound pages behind it."""
    path = store.write(rows())
    table = pq.read_table(path)
    changed = {
        "rename": lambda: table.rename_columns([name.replace("codes", "kodes") for name in table.column_names]),
        "type": lambda: table.set_column(2, "start_s", table["start_s"].cast("float32")),
        "cut": lambda: table.slice(0, 5),
        "drop": lambda: table.drop_columns(["token:mask"]),
    }
    pq.write_table(changed[change](), path, write_page_checksum=True)  # the description goes with the table
    storage._sound.clear()
    assert store.index().empty
    assert path.with_suffix(".damaged").exists()


def test_a_part_whose_columns_nobody_noted_is_served(store: Store) -> None:
    """Earlier versions noted a checksum of their own instead."""
    path = store.write(rows())
    table = pq.read_table(path)
    facts = storage.facts_of(table.schema) | {"checksum": "0" * 32}
    del facts["columns"]
    described = {"earwitness": json.dumps(facts), "earwitness.digest": storage.digest(facts)}
    pq.write_table(table.replace_schema_metadata(described), path, write_page_checksum=True)
    storage._sound.clear()
    assert len(store.index()) == 6
    _same(store, path.name, rows())


@settings(max_examples=60, deadline=None)
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@example(where=0.8089252509721879, bit=0)  # a digit of a shape
def test_a_flipped_bit_is_noticed_or_changes_nothing(
    where: float, bit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("flip")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EARWITNESS_RESULTS", str(folder))
        store = Store(INFO, SPEC)
    path = store.write(rows())
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 1 << bit
    path.write_bytes(content)
    storage._sound.clear()
    if len(store.index()):
        _same(store, path.name, rows())
    else:
        assert path.with_suffix(".damaged").exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.999])
def test_a_truncated_part_is_set_aside(store: Store, share: float, caplog: pytest.LogCaptureFixture) -> None:
    path = store.write(rows())
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with caplog.at_level(logging.WARNING):
        assert store.index().empty
    assert "set aside, its tracks will be scored again" in caplog.text
    assert path.with_suffix(".damaged").exists()
    store.write(rows())
    assert len(store.index()) == 6


def test_only_parts_that_are_asked_for_are_read_whole(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write(rows())
    monkeypatch.setattr(storage, "columns_of", lambda table: pytest.fail("read whole"))
    assert store.index({"another key"}).empty


def test_no_part_is_opened_while_likely_ones_hold_every_key(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repeated or resumed run knows its own parts; a store of ten million tracks has many that are not."""
    own = store.write(rows())
    for number in range(50):
        (store.folder / f"part-{number}.parquet").write_bytes(b"unrelated")
    opened, ParquetFile = [], pq.ParquetFile
    monkeypatch.setattr(pq, "ParquetFile", lambda path, **how: opened.append(path) or ParquetFile(path, **how))
    keys = {"key-0", "key-2"}
    found = store.index(keys, ["part-that-is-not-there.parquet", own.name])
    assert found[["track_key", "part", "row"]].to_numpy().tolist() == [
        [key, own.name, row] for key, row in (("key-0", 0), ("key-0", 1), ("key-2", 4), ("key-2", 5))
    ]
    assert opened == [own]
    assert len(list(store.folder.glob("*.damaged"))) == 0
    store.index(keys | {"key-9"}, [own.name])
    assert len(opened) == 52
    assert len(list(store.folder.glob("*.damaged"))) == 50


KEYS = st.integers(0, 7)


@settings(max_examples=60, deadline=None)
@given(
    parts=st.lists(st.sets(KEYS, min_size=1), max_size=5),
    damaged=st.integers(0, 9),
    asked=st.sets(KEYS),
    likely=st.lists(st.integers(0, 7), max_size=6),
)
def test_looking_at_likely_parts_first_finds_what_a_scan_of_all_does(
    parts: list[set[int]], damaged: int, asked: set[int], likely: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EARWITNESS_RESULTS", str(tmp_path_factory.mktemp("likely")))
        store = Store(INFO, SPEC)
    for number, held in enumerate(parts):
        mine = [row for row in rows(16, seed=number) if int(row["track_key"][4:]) in held]
        path = store.write(mine, f"part-{number}.parquet")
        if number == damaged:
            path.write_bytes(path.read_bytes()[:-9])
    sound = [pd.read_parquet(store.folder / f"part-{n}.parquet") for n in range(len(parts)) if n != damaged]
    everything = pd.concat([pd.DataFrame(columns=storage.INDEX), *sound])
    wanted = {f"key-{key}" for key in asked}
    plain = everything[everything["track_key"].isin(wanted)].drop_duplicates(["track_key", "segment_id"])
    found = store.index(wanted, [f"part-{number}.parquet" for number in likely])
    columns = storage.INDEX
    assert sorted(found[columns].to_numpy().tolist()) == sorted(plain[columns].to_numpy().tolist())
    for _, row in found.iterrows():  # wherever a track is served from, it lies there
        there = pq.read_table(store.folder / row["part"], columns=columns).to_pylist()[row["row"]]
        assert there == row[columns].to_dict()
    assert found.groupby("track_key")["part"].nunique().le(1).all()
    everywhere = store.index()
    assert set(map(tuple, everywhere[columns].to_numpy())) == set(map(tuple, everything[columns].to_numpy()))


def test_a_part_of_another_store_is_not_served(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    other = Store(ModelInfo(**{**INFO.__dict__, "revision": "1" * 64}), SPEC)
    assert other.folder != store.folder
    path = other.write(rows())
    store.folder.mkdir(parents=True)
    shutil.copy(path, store.folder)
    assert store.index().empty
    assert "belongs to another store" in caplog.text


def test_a_part_of_a_newer_schema_is_kept_and_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "SCHEMA_VERSION", 99)
    path = store.write(rows())
    monkeypatch.undo()
    monkeypatch.setattr(storage, "results_dir", lambda: store.folder.parents[1])
    said = rf"written by a newer Earwitness \(schema 99, this one reads {storage.SCHEMA_VERSION}\); update"
    with pytest.raises(StoreError, match=said):
        store.index()
    assert path.exists()


@pytest.mark.parametrize("number", [errno.EACCES, errno.ESTALE, errno.EMFILE, errno.EIO])
def test_a_part_that_cannot_be_opened_now_is_not_called_damaged(
    store: Store, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = store.write(rows())

    def fails(*_, **__):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(storage.pq, "ParquetFile", fails)
        with pytest.raises(StoreError, match=rf"{path.name}: cannot be read now \({os.strerror(number).lower()}\)"):
            store.index()
    assert len(store.index()) == len(rows())


def test_a_damaged_part_that_cannot_be_set_aside_is_an_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write(rows()).write_bytes(b"")
    monkeypatch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(PermissionError(errno.EROFS, "Read-only")))
    with pytest.raises(StoreError, match=r"is damaged .* cannot be set aside \(Read-only\); remove it"):
        store.index()


@pytest.mark.parametrize(
    ("number", "message"),
    [(errno.ENOSPC, "free some space"), (errno.EROFS, "make it writable, or set EARWITNESS_RESULTS")],
)
def test_a_write_that_fails_leaves_nothing_behind(
    store: Store, number: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.prepare()

    def fails(file: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(StoreError, match=f"{message}.*the same command goes on from here"):
        store.write(rows())
    assert not list(store.folder.iterdir())
    monkeypatch.undo()


def test_an_interrupted_rename_leaves_the_store_as_it_was(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(StoreError, match="Input/output error"):
        store.write(rows())
    assert store.index().empty
    assert not list(store.folder.iterdir())


def test_results_that_are_no_folder_are_named_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / "file"))
    with pytest.raises(StoreError, match="cannot write to .*set EARWITNESS_RESULTS to a folder that is"):
        Store(INFO, SPEC).prepare()


def test_a_full_disk_in_a_real_process(tmp_path: Path) -> None:
    """A limit on file sizes is the full disk that a test can have: writing fails in the middle of a part."""
    code = (
        "import resource, signal\nfrom tests.signals.test_store import *\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "store = Store(INFO, SPEC)\nstore.write(rows(2, seed=1), 'part-first.parquet')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\nstore.write(rows())"
    )
    environment = os.environ | {"EARWITNESS_RESULTS": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
    assert "StoreError: cannot write to" in run.stderr
    assert "File too large" in run.stderr
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["part-first.parquet"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 3000


def test_a_claim_excludes_other_processes_and_ends_with_its_holder(store: Store) -> None:
    store.prepare()
    code = (
        "import sys\nfrom tests.signals.test_store import *\nstore = Store(INFO, SPEC)\n"
        "held = store.claim('part-a.parquet')\nprint(held is not None, flush=True)\nsys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ.copy()
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        assert store.claim("part-a.parquet") is None
        assert store.is_claimed("part-a.parquet")
        assert not store.is_claimed("part-b.parquet")
        other = store.claim("part-b.parquet")
        assert other is not None
        give_up(other)
    finally:
        holder.kill()
        holder.wait()
    assert not store.is_claimed("part-a.parquet")
    claim = store.claim("part-a.parquet")
    assert claim is not None
    assert store.claim("part-a.parquet") is None, "nor does a second call in one process get it"
    give_up(claim)
    give_up(claim)
    assert not list(store.folder.iterdir()), "no lock stays behind"


def test_without_locks_every_claim_is_granted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.prepare()

    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", unsupported)
    first, second = store.claim("part-a.parquet"), store.claim("part-a.parquet")
    assert first is not None
    assert second is not None
    give_up(first)
    give_up(second)


# --- stores of the same model for other passes ---


def test_stores_that_differ_in_passes_alone_are_alike(store: Store) -> None:
    """Whatever wrote them, and whatever lies beside: damaged parts, parts of strangers, folders without any."""
    others = {name: Store(INFO, SPEC, {"passes": [name]}) for name in ("a", "b", "empty")}
    for name in ("a", "b"):
        others[name].write(rows(seed=1))
    (others["b"].folder / "part-0.parquet").write_bytes(b"damaged")
    others["empty"].prepare()
    seed = Store(INFO, replace(SPEC, seed=1), {"passes": ["a"]})
    seed.write(rows(seed=2))
    stranger = store.folder.with_name(store.folder.name[:-16] + "0" * 16)
    stranger.mkdir()
    shutil.copy(seed.write(rows()), stranger)
    assert {other.folder for other in store.alike()} == {others["a"].folder, others["b"].folder}
    assert {other.folder for other in others["a"].alike()} == {others["b"].folder}
    for other in store.alike():
        assert Store(INFO, SPEC, other.identity["further"]).folder == other.folder
        assert set(other.index()["track_key"]) == {"key-0", "key-1", "key-2"}
    assert not list(Store(replace(INFO, revision="1" * 64), SPEC).alike())
