"""Further passes and the attacks on them: neighbours, reference, prefixes, gradients."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from earwitness import attacks
from earwitness.errors import InputError, ModelError
from earwitness.signals import symbolic, token
from earwitness.signals.evaluations import STANDARD_PASSES
from earwitness.signals.perturbations import NEIGHBOURS
from earwitness.signals.token import TokenSignals
from earwitness.signals.token_costly import EXTRA_PASSES, RESAMPLED, TOKEN_NEIGHBOURS, calls, extend

RATE, FRAME, BOOKS, FRAMES, ENTRIES = 8000, 100, 2, 40, 6
CAPTIONS = ["sad", "happy tune", ""]


@dataclass
class Info:
    name: str = "toy"
    sample_rate: int = RATE
    channels: int = 1
    device: str = "cpu"
    scheme: None = None
    family: str = "token"
    segment_seconds: float = FRAMES * FRAME / RATE
    calls: int = 1


class Toy:
    """A causal token model: a table of logits by codebook and previous code, plus a nudge by caption length."""

    def __init__(self, seed=0, rate=RATE, frame=FRAME, channels=1):
        self.info = Info(sample_rate=rate, channels=channels)
        self.frame = frame
        self.table = torch.randn(BOOKS, ENTRIES, ENTRIES, generator=torch.Generator().manual_seed(seed))
        self.heard, self.scored = [], []

    def encode(self, audio):
        assert audio.shape[1] == self.info.channels
        self.heard.append(audio)
        level = audio.mean(1).unfold(-1, self.frame, self.frame).square().mean(-1).sqrt()
        return torch.stack([(level * scale).long() % ENTRIES for scale in (20, 700)], 1)

    def parameters(self):
        return [self.table]

    def logits(self, codes, captions):
        self.scored.append(codes)
        past = torch.cat([torch.zeros_like(codes[..., :1]), codes[..., :-1]], -1)
        x = torch.stack([self.table[k][past[:, k]] for k in range(BOOKS)], 1)
        nudge = torch.tensor([0.0 if captions is None else float(len(c)) for c in captions or codes])
        mask = torch.ones_like(codes, dtype=torch.bool)
        mask[:, 1, -1:] = False
        return x + nudge[:, None, None, None] * torch.arange(float(ENTRIES)) / 50, mask


@pytest.fixture(scope="module")
def audio():
    rng = np.random.default_rng(0)
    envelope = np.repeat(rng.uniform(0.05, 0.8, (3, 1, FRAMES)), FRAME, axis=-1)
    return torch.from_numpy((envelope * np.sin(0.3 * np.arange(FRAMES * FRAME))).astype(np.float32))


def run(audio, *passes, model=None, **options):
    model = model or Toy()
    return extend(model, audio, CAPTIONS, token.extract(model, audio, CAPTIONS), passes, **options)


def mean_logp(model, codes, captions, frames=slice(None)):
    logits, mask = model.logits(codes, captions)
    logp = torch.log_softmax(logits.double(), -1).gather(-1, codes[..., None])[..., 0]
    logp[~mask] = torch.nan
    return logp[..., frames].nanmean(-1).numpy()


def score(signals, name):
    (spec,) = attacks.resolve(name, codebooks=BOOKS)
    return attacks.bind(spec, {})(signals)


# Audio neighbours.


def sine(frequency):
    return (0.3 * np.sin(2 * np.pi * frequency * np.arange(16_000) / 16_000)).astype(np.float32)[None, None]


def level_db(audio):
    return 10 * math.log10(float(np.mean(np.square(audio[..., 2000:-2000], dtype=np.float64))))


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_neighbours_keep_shape_and_are_near_and_repeatable(name):
    audio = np.concatenate([sine(440), sine(660)])
    moved = NEIGHBOURS[name](audio, 16_000, 320)
    assert moved.shape == audio.shape
    assert moved.dtype == np.float32
    assert abs(level_db(moved) - level_db(audio)) < 1
    assert not np.array_equal(moved, audio)
    np.testing.assert_array_equal(moved, NEIGHBOURS[name](audio, 16_000, 320))
    np.testing.assert_allclose(NEIGHBOURS[name](audio[1:], 16_000, 320), moved[1:], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "frequency", "gain"),
    [("gain_up", 440, 0.5), ("gain_down", 440, -0.5), ("tilt_up", 4000, 1), ("tilt_up", 250, -1), ("tilt_up", 1000, 0),
     ("tilt_down", 4000, -1), ("tilt_down", 100, 1)],
)  # fmt: skip
def test_neighbours_change_levels_as_stated(name, frequency, gain):
    moved = NEIGHBOURS[name](sine(frequency), 16_000, 320)
    assert level_db(moved) - level_db(sine(frequency)) == pytest.approx(gain, abs=0.01)


@pytest.mark.parametrize(("name", "cents"), [("pitch_up", 10.04), ("pitch_down", -10.04)])
def test_neighbours_change_pitch_as_stated(name, cents):
    moved = NEIGHBOURS[name](sine(1000), 16_000, 320)[0, 0, :15_000]
    phase = np.unwrap(np.angle(np.fft.ifft(np.fft.fft(moved) * (np.fft.fftfreq(15_000) > 0))))
    slope = np.polyfit(np.arange(1000, 14_000), phase[1000:14_000], 1)[0]
    assert 1200 * math.log2(slope / (2 * np.pi * 1000 / 16_000)) == pytest.approx(cents, abs=0.1)


def test_neighbours_shift_by_one_frame():
    audio = sine(440)
    np.testing.assert_array_equal(NEIGHBOURS["shift_up"](audio, 16_000, 320)[..., 320:], audio[..., :-320])
    np.testing.assert_array_equal(NEIGHBOURS["shift_down"](audio, 16_000, 320)[..., :-320], audio[..., 320:])


def test_neighbourhood_compares_with_the_mean_of_all_neighbours(audio):
    model, found = Toy(), run(audio, "neighbours")
    moved = [
        mean_logp(model, model.encode(torch.from_numpy(change(audio.numpy(), RATE, FRAME))), CAPTIONS)
        for change in NEIGHBOURS.values()
    ]
    own = mean_logp(model, model.encode(audio), CAPTIONS)
    for b, signals in enumerate(found):
        assert signals.extras["neighbours/means"].shape == (len(NEIGHBOURS), BOOKS)
        expected = own[b] - np.mean([m[b] for m in moved], axis=0)
        assert score(signals, "neighbourhood") == pytest.approx(expected.mean(), abs=1e-5)
        assert score(signals, "neighbourhood/conditional/q1") == pytest.approx(expected[1], abs=1e-5)


# Token neighbours.


def test_token_neighbours_change_the_same_few_late_tokens_of_every_item(audio):
    model = Toy()
    (first, *_) = run(audio, "token_neighbours", model=model)
    codes = model.encode(audio)
    copies = model.scored[-TOKEN_NEIGHBOURS:]
    assert first.extras["token_neighbours/means"].shape == (TOKEN_NEIGHBOURS, BOOKS)
    for copy in copies:
        assert (copy[:, 0] == codes[:, 0]).all()
        changed = (copy[:, 1] != codes[:, 1]).any(0)
        assert 0 < changed.float().mean() < 3 * RESAMPLED
    again = Toy()
    run(audio[[2, 0, 1]], "token_neighbours", model=again)
    for copy, other in zip(copies, again.scored[-TOKEN_NEIGHBOURS:], strict=True):
        assert (copy[[2, 0, 1]] == other).all(), "an item's neighbours depend on nothing but the item"
    expected = mean_logp(model, codes, CAPTIONS) - np.mean([mean_logp(model, c, CAPTIONS) for c in copies], axis=0)
    assert score(first, "token_neighbourhood") == pytest.approx(expected[0].mean(), abs=1e-5)


# Reference model.


def test_reference_with_the_same_tokenizer_is_the_difference_of_likelihoods(audio):
    other = Toy(seed=1)
    for b, signals in enumerate(run(audio, "reference", reference=other)):
        codes = other.encode(audio)
        mine, theirs = (mean_logp(m, codes, CAPTIONS)[b] for m in (Toy(), other))
        assert score(signals, "reference") == pytest.approx((mine - theirs).sum(), abs=1e-5)
        assert score(signals, "reference_ratio") == pytest.approx(-mine.sum() / theirs.sum(), abs=1e-5)
    (same, *_) = run(audio, "reference", reference=Toy())
    assert same.extras["reference/same_tokens"] == 1
    assert score(same, "reference") == pytest.approx(0, abs=1e-6)
    assert score(same, "reference_ratio") == pytest.approx(-1, abs=1e-6)


def test_reference_with_another_tokenizer_is_compared_per_second(audio):
    other = Toy(seed=1, rate=2 * RATE, frame=50, channels=2)
    (first, *_) = run(audio, "reference", reference=other)
    assert other.heard[-1].shape == (3, 2, 2 * FRAMES * FRAME)
    codes = other.encode(other.heard[-1])
    assert codes.shape[-1] == 4 * FRAMES
    theirs = mean_logp(other, codes, CAPTIONS)[0].sum() * 4
    mine = mean_logp(Toy(), Toy().encode(audio), CAPTIONS)[0].sum()
    assert score(first, "reference") == pytest.approx(mine - theirs, abs=1e-4)
    assert first.extras["reference/same_tokens"] == 0, "the fallback is on record"


def test_a_reference_of_another_tokenizer_at_the_same_frame_rate_is_on_record_too(audio):
    other = Toy(seed=1)
    other.encode = lambda heard: (Toy.encode(other, heard) + 1) % ENTRIES
    assert [s.extras["reference/same_tokens"] for s in run(audio, "reference", reference=other)] == [0, 0, 0]


# Prefixes.


def test_recall_compares_the_first_half_after_a_prefix_with_itself_alone(audio):
    model = Toy()
    codes = model.encode(audio)
    prefixes = {kind: (codes[0] + shift) % ENTRIES for kind, shift in (("nonmember", 1), ("member", 2))}
    found = run(audio, "prefix_nonmember", "prefix_member", prefixes=prefixes)
    half = codes[..., : FRAMES // 2]
    alone = mean_logp(model, half, CAPTIONS)
    after = {
        kind: mean_logp(
            model, torch.cat([p[:, -(FRAMES // 2) :].expand(3, -1, -1), half], -1), CAPTIONS, slice(FRAMES // 2, None)
        )
        for kind, p in prefixes.items()
    }
    for b, signals in enumerate(found):
        for name, pick in (("", np.mean), ("/conditional/q1", lambda x: x[1])):
            non, mem, own = (pick(x[b]) for x in (after["nonmember"], after["member"], alone))
            assert score(signals, f"recall{name}") == pytest.approx(non / own, abs=1e-5)
            assert score(signals, f"con_recall-1{name}") == pytest.approx((non - mem) / own, abs=1e-5)


def test_a_masked_model_is_asked_for_the_half_alone_in_a_pass_of_its_own(audio):
    """It reads both sides: what its conditional stream says of the first half has seen the second."""
    causal, masked = Toy(), Toy()
    masked.info.calls = 8
    prefixes = {"nonmember": causal.encode(audio)[0]}
    kept = token.extract(causal, audio, CAPTIONS)
    blurred = [replace(s, streams={**s.streams, "conditional": s.streams["null"]}) for s in kept]
    options = {"passes": ("prefix_nonmember",), "prefixes": prefixes}
    for b, (own, asked) in enumerate(
        zip(
            extend(causal, audio, CAPTIONS, kept, **options), extend(masked, audio, CAPTIONS, blurred, **options),
            strict=True,
        )
    ):  # fmt: skip
        alone = asked.extras["prefix_nonmember/alone"]
        assert alone == pytest.approx(
            mean_logp(masked, masked.encode(audio)[..., : FRAMES // 2], CAPTIONS)[b], abs=1e-6
        )
        assert alone[0] == pytest.approx(own.extras["prefix_nonmember/alone"][0], abs=1e-6)
    assert calls({"prefix_nonmember": 1, "conditional": 1}, masked.info) == 3 * 8
    assert calls({"prefix_nonmember": 1, "conditional": 1}, causal.info) == 2


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"family": "diffusion"}, "second is a diffusion model; a reference for toy must be a token model"),
        ({"segment_seconds": 0.25}, r"second was trained on 0.25 s and would be given 0.5 s of toy; name a reference"),
        ({"scheme": "notes"}, "second does not read what toy reads"),
    ],
)
def test_a_reference_that_cannot_judge_the_segment_is_refused(audio, changed, reason):
    other = Toy(1)
    other.info = replace(other.info, name="second", **changed)
    with pytest.raises(InputError, match=reason):
        run(audio, "reference", reference=other)
    other.info = replace(Toy().info, segment_seconds=30.0)
    assert np.isfinite(run(audio, "reference", reference=other)[0].extras["reference/nats_per_frame"])


def test_rows_without_tokens_are_left_out_of_a_pooled_mean():
    values = np.array([[1.0, np.nan, 3.0], [np.nan, np.nan, np.nan]])
    assert token.over_rows(values) == pytest.approx([2.0, np.nan], nan_ok=True)
    assert token.over_rows(np.ones((2, 3, 4))).shape == (2, 3)


# Gradients.


def test_gradient_norm_equals_finite_differences_and_leaves_the_model_frozen(audio):
    model = Toy()
    found = run(audio, "gradient", model=model)
    assert not model.table.requires_grad
    codes, step = model.encode(audio), 1e-2
    slopes = np.empty((3, *model.table.shape))
    for index in np.ndindex(*model.table.shape):
        values = []
        for sign in (1, -1):
            moved = Toy()
            moved.table[index] += sign * step
            values.append(mean_logp(moved, codes, CAPTIONS).mean(1))
        slopes[(slice(None), *index)] = (values[0] - values[1]) / (2 * step)
    for b, signals in enumerate(found):
        assert score(signals, "gradient_norm-inf") == pytest.approx(-np.abs(slopes[b]).max(), rel=1e-2)
        assert score(signals, "gradient_norm-2") == pytest.approx(-np.linalg.norm(slopes[b]), rel=1e-2)


def test_models_without_gradients_say_so(audio):
    class Sealed(Toy):
        def logits(self, codes, captions):
            with torch.inference_mode():
                return super().logits(codes, captions)

    class Closed(Toy):
        parameters = None

        def __getattribute__(self, name):
            if name == "parameters":
                raise AttributeError(name)
            return super().__getattribute__(name)

    for model in (Sealed(), Closed()):
        with pytest.raises(ModelError, match="toy: gives no gradients; leave gradient_norm out"):
            run(audio, "gradient", model=model)
        assert not model.table.requires_grad


# What holds for all of them.

SOUND = [
    name for name in EXTRA_PASSES if name not in symbolic.PASSES
]  # those of scores: tests/signals/test_symbolic.py
COSTLY = [s for s in attacks.resolve("all", passes={*STANDARD_PASSES, *SOUND}) if s.attack.passes]


@pytest.fixture(scope="module")
def extended(audio):
    prefixes = dict.fromkeys(("nonmember", "member"), Toy().encode(audio)[0])
    return run(audio, *SOUND, reference=Toy(seed=1), prefixes=prefixes)


@pytest.mark.parametrize("spec", COSTLY, ids=lambda s: s.id)
def test_contract(spec, extended, audio):
    assert all(math.isfinite(attacks.bind(spec, {})(signals)) for signals in extended)
    (plain, *_) = token.extract(Toy(), audio, CAPTIONS)
    assert math.isnan(attacks.bind(spec, {})(plain)), "a pass that was not run"
    assert math.isnan(attacks.bind(spec, {})(TokenSignals(plain.codes, plain.mask, {}, {})))
    if spec.attack.per_codebook:
        beyond = attacks.resolve(f"{spec.id}/q7", codebooks=8)[0]
        assert math.isnan(attacks.bind(beyond, {})(extended[0]))
    assert spec.passes == {"conditional", *spec.attack.passes}


def test_costly_attacks_are_scored_only_where_their_passes_were_run(extended, audio):
    class Held:
        def __init__(self, token):
            self.token = token

        def items(self, family):
            row = {"track_id": "t", "segment_id": "s", "artist": "a", "work": "w", "role": "member"}
            return ((row, s) for s in (self.token if family == "token" else ()))

    ids = {s.id for s in COSTLY}
    assert ids <= set(attacks.score(Held(extended))["attack"])
    assert not ids & set(attacks.score(Held(token.extract(Toy(), audio, CAPTIONS)))["attack"])
    assert not ids & {s.id for s in attacks.resolve("all")}
    assert attacks.cost(attacks.resolve(["neighbourhood", "loss"]))["neighbours"] == len(NEIGHBOURS)


def test_arrays_round_trip(extended):
    again = TokenSignals.from_arrays(extended[0].to_arrays())
    assert {*SOUND} <= again.passes
    for spec in COSTLY:
        assert attacks.bind(spec, {})(again) == attacks.bind(spec, {})(extended[0])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("neighbors", {}, "no pass 'neighbors'; did you mean 'neighbours'"),
        ("reference", {}, "needs reference="),
        ("prefix_member", {"prefixes": {"nonmember": torch.zeros(2, 40)}}, "needs prefixes={'member': codes}"),
        ("prefix_member", {"prefixes": {"member": torch.zeros(2, 19)}}, r"is \(2, 19\); expected \[2, at least 20\]"),
    ],
)
def test_what_is_missing_is_named(audio, name, options, message):
    with pytest.raises(InputError, match=message.replace("{", r"\{").replace("}", r"\}")):
        run(audio, name, **options)
