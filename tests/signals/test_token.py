"""From logits to token signals: against plain Python, and what may not change them."""

import math
import random
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from earwitness import attacks
from earwitness.errors import InputError, ModelError
from earwitness.signals import token
from earwitness.signals.token import FIELDS, STREAMS, TokenSignals, reduce_batch

CONTEXT = {"frequencies": np.full((3, 7), 1 / 7)}
SPECS = attacks.resolve(["all", "*/q*"], codebooks=3, passes=("conditional", "null"), context=CONTEXT)


def arrays(seed=0, batch=4, books=3, frames=30, entries=7):
    rng = np.random.default_rng(seed)
    logits, null = torch.from_numpy(rng.normal(0, 2, (2, batch, books, frames, entries)).astype(np.float32))
    codes = torch.from_numpy(rng.integers(0, entries, (batch, books, frames)))
    mask = torch.ones(batch, books, frames, dtype=torch.bool)
    for k in range(books):
        mask[:, k, frames - k :] = False
    return logits, null, codes, mask


def everything(signals):
    return {f"{s}.{f}": getattr(signals.streams[s], f) for s in signals.streams for f in FIELDS} | dict(signals.extras)


def equal(one, other, tolerance=0.0):
    one, other = everything(one), everything(other)
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_allclose(value, other[name], atol=tolerance, rtol=tolerance, err_msg=name)


def slow(logits, target):
    """The statistics of one position in plain Python."""
    top = max(logits)
    total = top + math.log(math.fsum(math.exp(x - top) for x in logits))
    logs = [x - total for x in logits]
    mean = math.fsum(math.exp(x) * x for x in logs)
    var = math.fsum(math.exp(x) * (x - mean) ** 2 for x in logs)
    rank = sum(x > logits[target] for x in logits)
    rival = max(x for v, x in enumerate(logs) if v != target)
    return {"logp": logs[target], "mean": mean, "var": var, "rank": rank, "rival": rival}


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    books=st.integers(1, 3),
    frames=st.integers(1, 8),
    entries=st.integers(2, 9),
    scale=st.sampled_from([0.0, 1e-3, 1.0, 30.0]),
)
def test_reduction_equals_its_slow_twin(seed, books, frames, entries, scale):
    rng = np.random.default_rng(seed)
    logits, null = rng.normal(0, scale, (2, books, frames, entries)).astype(np.float32)
    codes, mask = rng.integers(0, entries, (books, frames)), rng.random((books, frames)) < 0.7
    found = TokenSignals.from_logits(logits, codes, mask, null)
    for stream, raw in zip(STREAMS, (logits, null, logits - null), strict=True):
        for k, t in np.ndindex(books, frames):
            expected = slow(raw[k, t].tolist(), int(codes[k, t]))
            for name in FIELDS:
                value = float(getattr(found.streams[stream], name)[k, t])
                if not mask[k, t]:
                    assert math.isnan(value)
                else:
                    assert value == pytest.approx(expected[name], rel=2e-5, abs=2e-5), (stream, name)


def slow_sdm(logits, size, count):
    """Mean pairwise cosine distance of chunk means of one codebook's ``[T][V]`` logits, averaged over the shuffles."""
    found = []
    for shuffle in range(token.SDM_SHUFFLES):
        order = np.random.default_rng(shuffle).permutation(len(logits)).tolist()
        chunks = [order[c * size : (c + 1) * size] for c in range(count)]
        means = [[math.fsum(logits[t][v] for t in c) / size for v in range(len(logits[0]))] for c in chunks]
        for i in range(count):
            for j in range(i):
                dot = math.fsum(a * b for a, b in zip(means[i], means[j], strict=True))
                found.append(1 - dot / math.hypot(*means[i]) / math.hypot(*means[j]))
    return math.fsum(found) / len(found)


@pytest.mark.parametrize("frames", [11, 30, 520])
def test_sdm_equals_its_slow_twin(frames):
    logits = np.random.default_rng(frames).normal(1, 1, (2, frames, 6)).astype(np.float32)
    ones = np.ones((2, frames), bool)
    found = TokenSignals.from_logits(logits, np.zeros((2, frames), int), ones).extras["sdm/conditional"]
    size = min(100, frames // 5)
    for k in range(2):
        assert found[k] == pytest.approx(slow_sdm(logits[k].tolist(), size, frames // size), rel=1e-4)


def test_sdm_cannot_say_without_five_frames_or_a_direction():
    few = TokenSignals.from_logits(np.ones((1, 4, 3)), np.zeros((1, 4), int), np.ones((1, 4), bool))
    assert np.isnan(few.extras["sdm/conditional"]).all()
    logits = np.ones((1, 20, 3))
    same = TokenSignals.from_logits(logits, np.zeros((1, 20), int), np.ones((1, 20), bool), logits)
    assert np.isnan(same.extras["sdm/contrast"]).all()
    assert same.extras["sdm/null"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("noise", [np.nan, np.inf, -1e30, 5.0])
def test_what_masked_positions_hold_changes_no_score(noise):
    logits, null, codes, mask = arrays()
    clean = reduce_batch(logits.clone(), null.clone(), codes, mask)
    logits[~mask], null[~mask], codes[~mask] = noise, -noise, 10**6
    for one, other in zip(clean, reduce_batch(logits, null, codes, mask), strict=True):
        equal(one, other)
        for spec in SPECS:
            np.testing.assert_equal(attacks.bind(spec, CONTEXT)(one), attacks.bind(spec, CONTEXT)(other))


def test_batch_size_and_order_change_nothing(monkeypatch):
    logits, null, codes, mask = arrays()
    whole = reduce_batch(logits.clone(), null.clone(), codes, mask)
    order = random.Random(0).sample(range(4), 4)
    shuffled = reduce_batch(logits[order], null[order], codes[order], mask[order])
    for place, b in enumerate(order):
        equal(whole[b], shuffled[place], 1e-6)
    for size in (1, 7, 50, 700, 2000):  # from one frame at a time to several items at once
        monkeypatch.setattr(token, "BLOCK_ELEMENTS", {"cpu": size})
        for one, other in zip(whole, reduce_batch(logits.clone(), null.clone(), codes, mask), strict=True):
            equal(one, other, 1e-5)


def test_items_of_one_batch_may_differ_in_their_masks():
    logits, null, codes, mask = arrays()
    mask[1, :, 20:] = False
    together = reduce_batch(logits.clone(), null.clone(), codes, mask)
    for b in range(4):
        alone = TokenSignals.from_logits(logits[b], codes[b], mask[b], null[b])
        equal(together[b], alone, 1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_log_softmax_is_float32_whatever_the_model_computes_in(dtype):
    logits, null, codes, mask = arrays(entries=2048, frames=6, batch=1)
    rounded, null_rounded = logits.to(dtype), null.to(dtype)
    found = reduce_batch(rounded.clone(), null_rounded.clone(), codes, mask)[0]
    expected = reduce_batch(rounded.float(), null_rounded.float(), codes, mask)[0]
    equal(found, expected, 1e-6)
    assert all(v.dtype == np.float32 for s in found.streams.values() for v in vars(s).values())


def test_equal_passes_give_a_uniform_contrast_exactly():
    logits, _, codes, mask = arrays(entries=2048, frames=6)
    for signals in reduce_batch(logits.clone(), logits.clone(), codes, mask):
        held = signals.streams["contrast"]
        assert (held.logp[signals.mask] == np.float32(-math.log(2048))).all()
        assert (held.rank[signals.mask] == 0).all()
        assert held.var[signals.mask].max() < 1e-9


def test_from_logits_leaves_its_arguments_alone():
    logits, null, codes, mask = (x[0].numpy() for x in arrays())
    before = logits.copy(), null.copy()
    TokenSignals.from_logits(logits, codes, mask, null)
    assert (logits == before[0]).all()
    assert (null == before[1]).all()


def test_arrays_round_trip():
    signals = reduce_batch(*arrays())[0]
    again = TokenSignals.from_arrays(signals.to_arrays())
    equal(signals, again)
    assert (again.codes == signals.codes).all()
    assert (again.mask == signals.mask).all()
    assert again.passes == {"conditional", "null", "contrast", "sdm"}


def test_shapes_that_do_not_fit_are_named():
    logits, null, codes, mask = arrays()
    with pytest.raises(InputError, match=r"conditional logits .* do not fit"):
        reduce_batch(logits[..., :-1, :], null, codes, mask)
    with pytest.raises(InputError, match="V >= 2"):
        reduce_batch(logits[..., :1], None, codes, mask)
    with pytest.raises(InputError, match="outside the vocabulary of 5 entries"):
        reduce_batch(logits[..., :5], None, codes, mask)
    with pytest.raises(InputError, match="at least one pass"):
        reduce_batch(None, None, codes, mask)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_overflowed_are_refused(value):
    logits, null, codes, mask = arrays()
    null[2, 1, 3, 4] = value
    with pytest.raises(ModelError, match=r"null logits are not finite .* float32"):
        reduce_batch(logits, null, codes, mask)


@dataclass
class Info:
    name: str = "toy"
    scheme: None = None


class Toy:
    """A token model whose logits depend on codes and caption alone, item by item."""

    info = Info()

    def __init__(self):
        self.calls, self.rows, self.mask_differs = [], [], False

    def encode(self, audio):
        return (audio[:, :1, :60].reshape(len(audio), 3, 20).abs() * 100).long() % 7

    def logits(self, codes, captions):
        self.calls.append(captions)
        self.rows.append(len(codes))
        weight = torch.tensor([0.0] * len(codes) if captions is None else [float(len(c)) for c in captions])
        past = torch.cat([torch.zeros_like(codes[..., :1]), codes[..., :-1]], -1)
        x = torch.nn.functional.one_hot(past, 7).float() + weight[:, None, None, None] * torch.arange(7.0) / 7
        mask = torch.ones_like(codes, dtype=torch.bool)
        mask[:, 2, -2 - (captions is None and self.mask_differs) :] = False
        return x, mask


@pytest.fixture
def audio():
    return torch.from_numpy(np.random.default_rng(0).normal(size=(3, 1, 100)).astype(np.float32))


def test_extract_runs_two_passes_and_returns_one_signal_per_item(audio):
    model = Toy()
    found = token.extract(model, audio, ["a", "bb", ""])
    assert model.calls == [["a", "bb", ""], None]
    assert [set(s.streams) for s in found] == [set(STREAMS)] * 3
    assert (found[0].codes == model.encode(audio)[0].numpy()).all()
    assert attacks.bind(attacks.resolve("loss/contrast")[0], {})(found[2]) == pytest.approx(-math.log(7))
    for b in range(3):
        equal(found[b], token.extract(model, audio[b : b + 1], [["a", "bb", ""][b]])[0], 1e-6)


def test_extract_without_captions_knows_the_null_stream_only(audio):
    model = Toy()
    (found, *_) = token.extract(model, audio, None)
    assert model.calls == [None]
    assert set(found.streams) == {"null"}
    equal(
        TokenSignals(found.codes, found.mask, {"null": token.extract(model, audio, ["x"] * 3)[0].streams["null"]}),
        TokenSignals(found.codes, found.mask, found.streams),
    )


def test_extract_refuses_passes_with_different_masks(audio):
    model = Toy()
    model.mask_differs = True
    with pytest.raises(ModelError, match="toy: conditional and null passes disagree"):
        token.extract(model, audio, ["a", "b", "c"])


# Passes that are equal.


class Telling(Toy):
    """The same model, which also says what a caption tells it; spaces tell it nothing."""

    def told(self, caption):
        return {"length": torch.tensor([len((caption or "").strip())])}

    def logits(self, codes, captions):
        return super().logits(codes, captions and [caption.strip() for caption in captions])


def twin(audio, captions):
    """Run both passes for every item, whatever the captions, and reduce all of both."""
    model = Telling()
    codes = model.encode(audio)
    logits, mask = model.logits(codes, captions)
    return reduce_batch(logits, model.logits(codes, None)[0], codes, mask)


def test_a_batch_without_captions_takes_one_pass(audio):
    model = Telling()
    found = token.extract(model, audio, ["", "  ", ""])
    assert (model.calls, model.rows) == ([None], [3])
    for one, other in zip(found, twin(audio, [""] * 3), strict=True):
        assert [*one.to_arrays()] == [*other.to_arrays()]
        equal(one, other)


@settings(max_examples=15, deadline=None)
@given(captions=st.lists(st.sampled_from(["", " ", "a", "bb"]), min_size=3, max_size=3))
def test_the_null_pass_runs_for_those_who_need_it(captions):
    audio = torch.from_numpy(np.random.default_rng(1).normal(size=(3, 1, 100)).astype(np.float32))
    model = Telling()
    found = token.extract(model, audio, captions)
    need = sum(bool(caption.strip()) for caption in captions)
    assert model.rows == ([3, need] if need else [3])
    for one, other in zip(found, twin(audio, captions), strict=True):
        equal(one, other)


def test_a_model_that_does_not_say_what_it_is_told_runs_both_passes(audio):
    model = Toy()
    model.logits = lambda codes, captions: Toy.logits(model, codes, captions and [c or "unlike null" for c in captions])
    found = token.extract(model, audio, [""] * 3)
    assert model.rows == [3, 3]
    assert not np.array_equal(found[0].streams["conditional"].logp, found[0].streams["null"].logp, equal_nan=True)


@pytest.mark.parametrize("entries", [2, 7, 64, 1357, 2048])
@pytest.mark.parametrize("block", [2**18, 500])
def test_equal_passes_reduced_once_are_those_reduced_twice(monkeypatch, entries, block):
    monkeypatch.setattr(token, "BLOCK_ELEMENTS", {"cpu": block})
    logits, _, codes, mask = arrays(entries=entries, frames=12)
    mask[1, 0, 5] = False  # items of unequal masks
    twice = reduce_batch(logits.clone(), logits.clone(), codes, mask)
    for one, other in zip(reduce_batch(logits, logits, codes, mask), twice, strict=True):
        assert [*one.to_arrays()] == [*other.to_arrays()]
        equal(one, other)
