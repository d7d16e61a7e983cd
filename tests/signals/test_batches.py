"""Batches: as large as memory allows, smaller when it does not, the same bits where nothing changed."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

import earwitness as ew
from earwitness.errors import ModelError
from earwitness.signals import extraction
from earwitness.types import Track
from tests.tiny import musicgen, recording

ERRORS = {
    "cuda": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "cpu": lambda: RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
    "cpu, newer words": lambda: RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried"),
    "cublas": lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "python": lambda: MemoryError(),
    "without a word": lambda: torch.OutOfMemoryError(),
}


class Model:
    """Something with an identity; what it computes is the test's own business."""

    info = SimpleNamespace(name="toy", device="cpu", segment_seconds=1.0)


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(extraction, "_sizes", extraction.Sizes())


def limited(most, error, seen):
    """Return a scorer that runs out of memory beyond ``most`` items."""

    def score(items):
        seen.append(list(items))
        if len(items) > most:
            raise error()
        return [10 * item for item in items]

    return score


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
@pytest.mark.parametrize(("most", "reached"), [(16, 16), (15, 8), (5, 4), (3, 2), (1, 1)])
def test_every_item_is_scored_once_and_in_order_however_little_fits(most, reached, error, caplog):
    seen = []
    items = list(range(1, 38))
    with caplog.at_level(logging.WARNING):
        found = extraction.in_batches(Model(), (), items, limited(most, error, seen))
    assert [(item, result) for item, result, _ in found] == [(item, 10 * item) for item in items]
    assert {size for *_, size in found} == {reached}
    assert [batch for batch in seen if len(batch) <= most] == [items[i : i + reached] for i in range(0, 37, reached)]
    assert len([r for r in caplog.records if "out of memory" in r.message]) == int(np.log2(16 / reached))


def test_a_halving_lasts_and_the_items_before_it_are_not_scored_again():
    model, seen, fails = Model(), [], [False]

    def score(items):
        seen.append(list(items))
        if fails[0] and len(items) > 4:
            raise MemoryError
        fails[0] = True  # the first batch passes
        return items

    first = extraction.in_batches(model, (), list(range(40)), score)
    assert [size for *_, size in first] == [16] * 16 + [4] * 24
    assert [s[0] for s in seen if len(s) == 4] == [16, 20, 24, 28, 32, 36]
    again = extraction.in_batches(model, (), list(range(8)), score)
    assert {size for *_, size in again} == {4}, "a model that ran out once starts where it ended"
    other = extraction.in_batches(model, ("gradient",), list(range(4)), lambda items: items)
    assert {size for *_, size in other} == {16}, "other passes have a size of their own"


def test_one_item_that_does_not_fit_is_a_clear_error():
    with pytest.raises(ModelError, match=r"toy: one segment of 1 s does not fit .*bfloat16"):
        extraction.in_batches(Model(), (), [1, 2, 3], limited(0, MemoryError, []))


@pytest.mark.parametrize("error", [RuntimeError("shapes do not fit"), ValueError("out of memory"), KeyboardInterrupt()])
def test_other_errors_pass(error):
    def score(items):
        raise error

    with pytest.raises(type(error)):
        extraction.in_batches(Model(), (), [1, 2], score)


def test_other_errors_pass_after_memory_ran_out_too():
    def score(items):
        if len(items) > 4:
            raise MemoryError
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        extraction.in_batches(Model(), (), list(range(40)), score)


@pytest.mark.parametrize(
    ("weights", "device", "size"),
    [(0, "cpu", 16), (50 * 10**6, "cpu", 16), (51 * 10**6, "cpu", 4), (25 * 10**7, "cpu", 4), (10**9, "cpu", 1),
     (10**9, "cuda", 64), (10**9, "cuda:1", 64)],
)  # fmt: skip
@pytest.mark.parametrize("held", ["itself", "its network"])
def test_a_processor_takes_fewer_segments_of_a_larger_network(weights, device, size, held):
    network = SimpleNamespace(parameters=lambda: iter([torch.empty(weights, device="meta")]))
    model = SimpleNamespace(info=SimpleNamespace(device=device), network=network)
    if held == "itself":
        model = SimpleNamespace(info=model.info, parameters=network.parameters)
    assert extraction.most_segments(model) == size


def test_every_segment_is_scored_once_and_none_before_the_first_batch():
    """Nothing is tried out: what a process scores first counts."""
    seen = []
    extraction.in_batches(Model(), (), list(range(20)), limited(16, MemoryError, seen))
    assert seen == [list(range(16)), list(range(16, 20))]


def test_nothing_to_score_runs_nothing():
    assert extraction.in_batches(Model(), (), [], lambda items: pytest.fail("nothing was to be scored")) == []


# --- through the engine ---


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(musicgen(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(scope="module")
def tracks(tmp_path_factory):
    root = tmp_path_factory.mktemp("audio")
    paths = [recording(root / f"{i}.wav", 1.5, seed=i) for i in range(6)]
    return [Track(p.stem, p, "member", "A", p.stem, caption="sad rock") for p in paths]


def scored(folder, tracks, results, monkeypatch):
    """Return the scores, and the sizes that the parts record."""
    monkeypatch.setenv("EARWITNESS_RESULTS", str(results))
    table = ew.score(ew.collect(folder, tracks), ["loss", "min_k++-0.2", "sdm"])
    parts = [pq.read_table(p, columns=["batch_segments"]) for p in Path(results).rglob("part-*.parquet")]
    sizes = [n for part in parts for n in part["batch_segments"].to_pylist()]
    return table.sort_values(["segment_id", "attack"], ignore_index=True), sizes


def test_parts_record_their_batches_and_equal_sizes_give_equal_bits(folder, tracks, tmp_path, monkeypatch):
    first, sizes = scored(folder, tracks, tmp_path / "1", monkeypatch)
    assert sizes == [16] * len(first["segment_id"].unique())
    second, _ = scored(folder, tracks, tmp_path / "2", monkeypatch)
    pd.testing.assert_frame_equal(first, second, check_exact=True)


def test_memory_that_runs_out_in_the_middle_costs_nothing_but_time(folder, tracks, tmp_path, monkeypatch):
    whole, _ = scored(folder, tracks, tmp_path / "whole", monkeypatch)
    real = extraction.token.extract

    def extract(model, audio, captions):
        if len(audio) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(model, audio, captions)

    monkeypatch.setattr(extraction.token, "extract", extract)
    halved, sizes = scored(folder, tracks, tmp_path / "halved", monkeypatch)
    assert set(sizes) == {2}
    pd.testing.assert_frame_equal(whole, halved, atol=1e-4, rtol=0)
