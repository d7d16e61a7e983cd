"""Denoising signals: golden values, the planner's economy, common noise, independence of batch mates, the engine."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import earwitness as ew
from earwitness.attacks.diffusion import clid
from earwitness.errors import InputError, ModelError
from earwitness.signals.diffusion import OTHER_CAPTIONS, DenoisingSignals, common_noise, extract, reduced
from earwitness.signals.evaluations import (
    PASSES,
    PROBES,
    Evaluation,
    nfe,
    passes_asked,
    plan_evaluations,
    possible,
    standard,
    without_caption,
)
from earwitness.signals.perturbations import NAMES, SLOWER, perturb, slower, tilted
from earwitness.types import Track
from tests.tiny import RATE, recording, tune
from tests.tiny_diffusion import PUBLISHED_LEVELS, audioldm

torch = pytest.importorskip("torch")

# methods: 6.2 -------------------------------------------------------------------------------------------------------
BETAS = torch.linspace(math.sqrt(0.0015), math.sqrt(0.0195), 1000, dtype=torch.float64) ** 2
LEVELS = torch.cumprod(1 - BETAS, 0)
Z = torch.tensor([[0.8, -1.2, 0.5, 2.0]], dtype=torch.float64)
N = torch.tensor([[0.1, -0.4, 1.3, -0.7]], dtype=torch.float64)


def toy(z_t: Any, t: int) -> Any:
    return 0.3 * z_t + 0.001 * t * torch.sin(z_t)


def run(*passes: str, latents: Any = Z, network: Any = toy, noise: Any = lambda t, r: N) -> list[DenoisingSignals]:
    return DenoisingSignals.from_network(network, LEVELS, latents, passes, noise=noise)


def one(name: str, **options: Any) -> np.ndarray:
    return run(name, **options)[0].values[name]


GOLDEN: dict[str, list[float] | list[list[float]]] = {
    "grid": [1.72544, 1.568752, 1.461056, 1.315421, 1.10885, 0.857262, 0.601008, 0.376006, 0.203885, 0.128717],
    "repeats": [1.568752] * 5,
    "secmi": [0.00040807],
    "pia": [[0.202223, 0.002078], [0.557036, 0.097791], [1.311056, 3.054634]],
}


@pytest.mark.parametrize("probe", GOLDEN)
def test_golden_values(probe: str) -> None:
    np.testing.assert_allclose(one(f"{probe}/conditional"), GOLDEN[probe], atol=1e-5)


def test_golden_alphas() -> None:
    for t, value in PUBLISHED_LEVELS.items():
        assert float(LEVELS[t]) == pytest.approx(value, abs=1e-7)


def test_golden_sima_and_gradient_mask() -> None:
    norm, fourth = one("origin/conditional")[1]
    assert (norm, fourth) == (pytest.approx(0.905062, abs=1e-5), pytest.approx(0.281061, abs=1e-5))
    masked = one("gradient_mask/conditional")  # a fifth of four entries is one, as a quarter is
    np.testing.assert_allclose(masked[[0, 5, 9]], [2.49, 2.167891, 1.270477], atol=1e-5)
    from earwitness.signals.chains import gradient_mask

    half = [float(gradient_mask(toy, LEVELS, Z, N, t, 0.5)) for t in (0, 500, 900)]
    np.testing.assert_allclose(half, [2.523529, 2.169079, 1.512040], atol=1e-5)


def test_golden_secmi_latent_and_clid() -> None:
    from earwitness.signals.chains import secmi

    there, _ = secmi(toy, LEVELS, Z)
    np.testing.assert_allclose(there[0], [0.831533, -1.245025, 0.520203, 2.065078], atol=1e-6)
    networks = {"conditional": lambda z, t: 0.9 * toy(z, t), "null": toy}
    signals = run("grid/conditional", "grid/null", network=networks)[0]
    squares = np.square(signals.values["grid/null"]) - np.square(signals.values["grid/conditional"])
    assert squares[2] == pytest.approx(0.066258, abs=1e-5)


def test_optimisation_lowers_the_loss_and_looks_at_one_item() -> None:
    alone = run("noise_optimisation/conditional", "repeats/conditional")[0].values
    assert alone["noise_optimisation/conditional"][0] < 0.1 * alone["repeats/conditional"][0]
    together = run("noise_optimisation/conditional", latents=torch.cat([0.3 * Z, Z]))[1].values
    np.testing.assert_allclose(
        together["noise_optimisation/conditional"], alone["noise_optimisation/conditional"], rtol=1e-9
    )


def test_a_schedule_of_another_length_is_addressed_in_thousandths() -> None:
    seen: list[int] = []

    def spy(z_t: Any, t: int) -> Any:
        seen.append(t)
        return toy(z_t, t)

    coarse = LEVELS[::5]
    DenoisingSignals.from_network(spy, coarse, Z, ["grid/conditional", "secmi/conditional"], noise=lambda t, r: N)
    assert {0, 20, 40, 180} <= set(seen)
    assert max(seen) == 180
    with pytest.raises(ModelError, match="a schedule of 50 timesteps is too coarse"):
        DenoisingSignals.from_network(spy, LEVELS[::20], Z, ["grid/conditional"])


def test_a_network_must_be_given_for_every_condition() -> None:
    with pytest.raises(InputError, match="no network for the condition 'null'"):
        run("grid/null")
    for name in ("rediffuse/conditional", "adversarial/conditional", "gradient_norms/conditional"):
        with pytest.raises(InputError, match="needs a loaded model"):
            run(name)
    with pytest.raises(ModelError, match="not finite"):
        run("grid/conditional", network=lambda z, t: z / 0)


# The planner --------------------------------------------------------------------------------------------------------


def test_distinct_evaluations_are_shared_and_counted() -> None:
    cheap = plan_evaluations(
        ["grid/conditional", "repeats/conditional", "origin/conditional", "pia/conditional", "grid/null"]
    )
    assert (cheap.nfe, sum(map(nfe, cheap.passes))) == (29, 31)  # t = 100 and the un-noised start are shared
    assert plan_evaluations([*cheap.passes, "secmi/conditional"]).nfe == 29 + 11
    pfami = plan_evaluations(["grid/conditional", "pfami/conditional"])
    assert pfami.nfe == 10 + 70 - 5
    assert plan_evaluations(reversed(cheap.passes)) == cheap
    assert cheap.evaluations == tuple(sorted(set(cheap.evaluations)))


def test_the_network_is_called_as_often_as_planned() -> None:
    rows = 0

    def counting(z_t: Any, t: int) -> Any:
        nonlocal rows
        rows += len(z_t)
        return toy(z_t, t)

    names = [f"{p}/conditional" for p in ("grid", "repeats", "origin", "pia", "secmi", "gradient_mask")]
    run(*names, latents=Z.repeat(3, 1), network=counting)
    assert rows == 3 * plan_evaluations(names).nfe


def test_names_of_passes_are_checked() -> None:
    with pytest.raises(InputError, match=r"no pass 'grid/conditonal'; did you mean 'grid/conditional'\?"):
        plan_evaluations(["grid/conditonal"])


def test_standard_runs_follow_what_the_model_offers() -> None:
    text, heard = standard(("text", "null")), standard(("text", "null", "audio"))
    assert plan_evaluations(text).nfe == 29
    assert {f"grid/{c}" for c in ("conditional", "null")} <= text
    assert not any(name.endswith("/audio") for name in text)
    assert heard - text == {f"{p}/audio" for p in ("grid", "repeats", "origin", "pia")}
    assert not any(PROBES[name.partition("/")[0]].backward for name in heard)


def test_what_is_possible_follows_what_the_model_offers() -> None:
    text, heard = possible(("text", "null")), possible(("text", "null", "audio"))
    assert standard(("text", "null")) < text
    assert {"grid/half", "secmi/null", "pfami/conditional", "rediffuse/conditional"} <= text
    assert {"gradient_mask/audio", "pia/audio"} <= heard - text
    assert not {"pfami/null", "gradient_mask/null", "noise_optimisation/null"} & heard
    lean = possible(("text", "null"), tail=False)
    assert text - lean == {n for n in text if PROBES[n.partition("/")[0]].tail}


@pytest.mark.parametrize(
    ("attacks", "wanted"),
    [
        ("all", standard(("text", "null"))),
        ("multiple_loss-*/conditional", {"grid/conditional"}),
        ("secmi", {"secmi/conditional", "secmi/null"}),
        (["all", "clid/half"], {*standard(("text", "null")), "grid/half"}),
        ("rediffuse", {"rediffuse/conditional"}),
        ("*/conditional", {n for n in possible(("text", "null"), tail=False) if n.endswith("/conditional")}),
    ],
)
def test_asking_for_attacks_runs_their_passes_alone(attacks: Any, wanted: set[str], tmp_path: Path) -> None:
    info = ew.load_model(str(audioldm(tmp_path / "tiny"))).info
    asked = set(passes_asked(attacks, info))
    assert wanted <= asked
    assert {n for n in asked if n.endswith("/conditional")} == {n for n in wanted if n.endswith("/conditional")}


# Noise and neighbours ---------------------------------------------------------------------------------------------


def test_noise_depends_on_seed_timestep_and_repeat_alone() -> None:
    shape = (4, 16, 8)
    base = common_noise(0, 100, 0, shape)
    assert torch.equal(base, common_noise(0, 100, 0, shape))
    for other in (common_noise(1, 100, 0, shape), common_noise(0, 200, 0, shape), common_noise(0, 100, 1, shape)):
        assert abs(float((base * other).mean())) < 0.2
        assert not torch.equal(base, other)
    big = common_noise(3, 5, 0, (4, 100, 100))
    assert float(big.mean()) == pytest.approx(0, abs=0.02)
    assert float(big.std()) == pytest.approx(1, abs=0.02)
    assert (one("repeats/conditional", noise=None)[0] != one("repeats/conditional", noise=None)[1:]).all()


def test_neighbours_keep_their_length_and_do_what_they_say() -> None:
    audio = torch.from_numpy(tune(1.0))[None, None]
    for name in NAMES:
        changed = perturb(audio, name, RATE)
        assert changed.shape == audio.shape
        assert changed.dtype == torch.float32
        assert 0.01 < float((changed - audio).norm() / audio.norm()) < 2
    time = np.arange(RATE) / RATE
    low = slower(np.sin(2 * np.pi * 1000 * time), *SLOWER[1])
    assert np.abs(np.fft.rfft(low)).argmax() == pytest.approx(900, abs=2)
    for frequency, expected in ((500, 3.0), (4000, -6.0)):
        tone = np.sin(2 * np.pi * frequency * time)
        assert 20 * np.log10(tilted(tone, 3.0, RATE).std() / tone.std()) == pytest.approx(expected, abs=0.01)


def test_reduced_captions_are_the_captions_own_affair() -> None:
    assert reduced("slow jazz with piano and rain", "half") == "slow jazz with"
    assert reduced("jazz", "half") == "jazz"
    assert reduced("", "half") == reduced(" ", "other") == ""
    assert reduced("slow jazz", "other") in OTHER_CAPTIONS
    assert reduced("slow jazz", "other") == reduced("slow jazz", "other")
    assert len({reduced(f"caption {n}", "other") for n in range(60)}) == len(OTHER_CAPTIONS)


# On a model ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return audioldm(tmp_path_factory.mktemp("models") / "tiny", ears=True, sample_size=8)


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return ew.load_model(str(folder))


@pytest.fixture(scope="module")
def batch(model: Any) -> tuple[Any, list[str]]:
    audio = np.stack([tune(model.info.segment_seconds, seed=n)[None] for n in range(3)])
    return torch.from_numpy(audio), ["sad rock with drums", "happy jazz", "slow jazz with piano"]


@pytest.fixture(scope="module")
def held(model: Any, batch: tuple[Any, list[str]]) -> list[DenoisingSignals]:
    return extract(model, *batch, possible(model.info.conditions, tail=False))


def _close(ours: DenoisingSignals, theirs: DenoisingSignals) -> None:
    assert ours.passes == theirs.passes
    for name, value in ours.values.items():
        loose = name.startswith("noise_optimisation")  # a line search: rounding may tip a branch
        np.testing.assert_allclose(theirs.values[name], value, rtol=3e-2 if loose else 2e-4, atol=1e-4, err_msg=name)


def test_everything_possible_is_there_and_finite(model: Any, held: list[DenoisingSignals]) -> None:
    assert held[0].passes == possible(model.info.conditions, tail=False)
    shapes = {name.partition("/")[0]: value.shape for name, value in held[0].values.items()}
    assert shapes == {
        "grid": (10,), "repeats": (5,), "origin": (2, 2), "pia": (3, 2), "secmi": (1,), "gradient_mask": (10,),
        "noise_optimisation": (2,), "pfami": (7, 10),
    }  # fmt: skip
    for signal in held:
        assert all(np.isfinite(value).all() and value.dtype == np.float64 for value in signal.values.values())
    grid = held[0].values["grid/conditional"]
    np.testing.assert_allclose(held[0].values["repeats/conditional"][0], grid[1], rtol=1e-5)
    np.testing.assert_allclose(held[0].values["pfami/conditional"][0, ::2], grid[:5], rtol=1e-5)


def test_batch_mates_and_order_change_nothing(
    model: Any, batch: tuple[Any, list[str]], held: list[DenoisingSignals]
) -> None:
    audio, captions = batch
    (alone,) = extract(model, audio[2:], captions[2:], held[0].passes)
    _close(held[2], alone)
    backwards = extract(model, audio.flip(0), captions[::-1], [n for n in held[0].passes if "optim" not in n])
    for ours, theirs in zip(held, backwards[::-1], strict=True):
        _close(DenoisingSignals({n: v for n, v in ours.values.items() if "optim" not in n}), theirs)


def test_clid_is_silent_where_there_is_no_contrast(model: Any, batch: tuple[Any, list[str]]) -> None:
    """Other passes of the same conditions share their calls of the network, so that rounding differs between them."""
    passes = ["grid/conditional", "repeats/conditional", "grid/null", "grid/half", "grid/other"]
    found = extract(model, batch[0], ["", "jazz", "slow jazz with piano"], passes)
    said = [[f"clid/{c}" for c in ("null", "half", "other") if np.isfinite(clid(s, stream=c))] for s in found]
    assert said == [[], ["clid/null", "clid/other"], ["clid/null", "clid/half", "clid/other"]]
    alone = extract(model, batch[0], ["  ", "jazz", "happy"], ["grid/conditional", "grid/half"])
    assert [clid(s, stream="half") for s in alone] == pytest.approx([np.nan] * 3, nan_ok=True)
    assert all(np.isfinite(value).all() for s in found + alone for value in s.values.values())


def test_seed_changes_noise_and_nothing_else(model: Any, batch: tuple[Any, list[str]], held: Any) -> None:
    other = extract(model, *batch, ["grid/conditional", "origin/conditional", "secmi/conditional"], seed=1)[0]
    assert not np.allclose(other.values["grid/conditional"], held[0].values["grid/conditional"])
    for name in ("origin/conditional", "secmi/conditional"):
        np.testing.assert_allclose(other.values[name], held[0].values[name], rtol=2e-4, atol=1e-4)


def test_without_captions_the_other_conditions_remain(model: Any, batch: tuple[Any, list[str]]) -> None:
    (signal,) = extract(model, batch[0][:1], None, ["grid/null", "grid/audio"])
    assert signal.passes == {"grid/null", "grid/audio"}
    with pytest.raises(ModelError, match="nothing to make the 'text' condition from"):
        extract(model, batch[0][:1], None, ["grid/half"])


def test_the_tail_runs_and_leaves_the_network_as_it_was(model: Any, batch: tuple[Any, list[str]]) -> None:
    names = [f"{p}/conditional" for p in ("rediffuse", "adversarial", "gradient_norms")]
    signals = extract(model, batch[0][:2], batch[1][:2], names)
    for signal in signals:
        assert signal.values["rediffuse/conditional"][0] > 0
        assert 0 < signal.values["adversarial/conditional"][0] <= 1
        assert len(signal.values["gradient_norms/conditional"]) == len(list(model.network.parameters()))
        assert signal.values["gradient_norms/conditional"].sum() > 0
    assert not any(p.requires_grad for p in model.network.parameters())
    (alone,) = extract(model, batch[0][1:2], batch[1][1:2], names)
    for name in names:
        np.testing.assert_allclose(alone.values[name], signals[1].values[name], rtol=2e-2, atol=1e-5)


def test_gradients_that_do_not_fit_are_checkpointed(
    model: Any, batch: tuple[Any, list[str]], held: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from earwitness.signals import denoising

    real, calls = denoising.FINISH["gradient_mask"], []

    def hungry(run: Any, condition: str) -> Any:
        calls.append(run.model.network.is_gradient_checkpointing)
        if len(calls) == 1:
            raise torch.OutOfMemoryError
        return real(run, condition)

    monkeypatch.setitem(denoising.FINISH, "gradient_mask", hungry)
    try:
        (signal, *_) = extract(model, *batch, ["gradient_mask/conditional"])
    finally:
        model.network.disable_gradient_checkpointing()
    assert calls == [False, True]
    np.testing.assert_allclose(
        signal.values["gradient_mask/conditional"], held[0].values["gradient_mask/conditional"], rtol=1e-3
    )


# Through the engine -----------------------------------------------------------------------------------------------

CHEAP = [
    "denoising_loss/conditional",
    "multiple_loss*/conditional",
    "pia*/conditional",
    "sima*/conditional",
    "clid/null",
]


@pytest.fixture
def tracks(tmp_path: Path) -> list[Track]:
    return [
        Track(f"t{i}", recording(tmp_path / f"t{i}.{kind}", 0.4 + 0.2 * (i % 2), seed=i),
              "member" if i % 2 else "nonmember", "A", f"w{i}", caption="sad rock" if i else "")
        for i, kind in enumerate(["wav", "flac", "ogg"])
    ]  # fmt: skip


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / "results"))
    monkeypatch.setattr("earwitness.signals.store.PART_TRACKS", 2)
    return tmp_path / "results"


def test_collect_and_score_take_diffusion_models(folder: Path, tracks: list[Track]) -> None:
    signals = ew.collect(str(folder), tracks, CHEAP)
    assert len(signals.index) == 2 + 3 + 2
    scores = ew.score(signals)
    assert {"denoising_loss/conditional", "multiple_loss-900/conditional", "clid/null", "blind/level"} <= set(
        scores.attack
    )
    assert "secmi/conditional" not in set(scores.attack), "never run"
    silent = scores[~scores.attack.str.startswith("blind") & ~np.isfinite(scores.score)]
    assert set(zip(silent.track_id, silent.attack, strict=True)) == {("t0", "clid/null")}, "it has no caption"
    again = ew.collect(str(folder), tracks, CHEAP)
    assert again.provenance["tracks_scored_now"] == 0
    assert not list(signals.items("token"))
    with pytest.raises(InputError, match=r"secmi/conditional needs the pass 'secmi/conditional', which is not stored"):
        ew.score(signals, "secmi/conditional")


def test_stored_signals_are_those_of_the_extractor_whatever_the_shard(
    folder: Path, model: Any, tracks: list[Track], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from earwitness.data.audio import AudioSpec, prepare

    names = ["multiple_loss-100/conditional", "secmi/null"]
    whole = {row["segment_id"]: signal for row, signal in ew.collect(str(folder), tracks, names).items("diffusion")}
    spec = AudioSpec(model.info.sample_rate, 1, model.info.segment_seconds)
    for segment in prepare(tracks[1].path, spec):
        audio = torch.from_numpy(segment.audio)[None]
        (fresh,) = extract(model, audio, [tracks[1].caption], ["grid/conditional", "secmi/null"])
        _close(fresh, whole[segment.segment_id])
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / "sharded"))
    for i in (1, 2):
        ew.collect(str(folder), tracks, names, shard=(i, 2))
    merged = ew.collect(str(folder), tracks, names)
    assert merged.provenance["tracks_scored_now"] == 0
    for row, signal in merged.items("diffusion"):
        _close(whole[row["segment_id"]], signal)


CHANGES: dict[str, Callable[[list[Track]], dict[str, Any]]] = {
    "seed": lambda tracks: {"seed": 1},
    "attacks": lambda tracks: {"attacks": ["secmi/conditional"]},
    "caption": lambda tracks: {"tracks": [replace(tracks[0], caption="happy jazz")]},
}


@pytest.mark.parametrize("name", CHANGES)
def test_whatever_changes_a_signal_is_scored_again(name: str, folder: Path, tracks: list[Track]) -> None:
    given: dict[str, Any] = {"tracks": tracks[:1], "attacks": ["clid/half"]}
    assert ew.collect(str(folder), **given).provenance["tracks_scored_now"] == 1
    assert ew.collect(str(folder), **{**given, **CHANGES[name](tracks)}).provenance["tracks_scored_now"] == 1


def test_attacks_that_do_not_fit_the_model_are_refused(tmp_path: Path, tracks: list[Track]) -> None:
    deaf = audioldm(tmp_path / "deaf", sample_size=8)
    with pytest.raises(InputError, match="cannot run 'secmi/audio': it can be conditioned on text, null"):
        ew.collect(str(deaf), tracks[:1], ["secmi/audio"])
    with pytest.raises(InputError, match="is a diffusion model and none of the attacks"):
        ew.collect(str(deaf), tracks[:1], ["min_k"])
    signals = ew.collect(str(deaf), tracks[:1], ["secmi"])
    assert {s for s in ew.score(signals).attack if s.startswith("secmi")} == {"secmi/conditional", "secmi/null"}


def test_recordings_shorter_than_a_window_are_excluded_with_their_reason(
    folder: Path, tmp_path: Path, tracks: list[Track]
) -> None:
    short = replace(tracks[0], track_id="short", path=recording(tmp_path / "short.wav", 0.1, seed=9))
    signals = ew.collect(str(folder), [short, tracks[0]], ["sima-100-2/null"])
    assert signals.exclusions.track_id.tolist() == ["short"]
    assert "shorter than the model's segment of 0.16 s" in signals.exclusions.reason[0]


def test_evaluations_sort_and_hash() -> None:
    assert (
        sorted({Evaluation("null", "clean", 0, 0), Evaluation("conditional", "clean", 0, 0)})[0].condition
        == "conditional"
    )
    assert PASSES["secmi/null"] == 12


# Conditions that say the same.


class Counting:
    """A model as it is, whose network counts the rows that it is given."""

    def __init__(self, model: Any) -> None:
        self._model, self.rows = model, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def predict_noise(self, z_t: Any, t: Any, condition: Any) -> Any:
        self.rows += len(z_t)
        return self._model.predict_noise(z_t, t, condition)


@pytest.mark.parametrize("captions", [["", ""], ["", "sad rock"], ["slow", "happy jazz band"], [" ", "a  b"]])
def test_conditions_that_say_the_same_are_run_once(model: Any, captions: list[str]) -> None:
    names = [f"{p}/{c}" for p in ("grid", "pia", "origin") for c in ("conditional", "null", "half")]
    sound = torch.from_numpy(0.1 * np.random.default_rng(0).standard_normal((2, 1, model.samples)).astype(np.float32))
    counting = Counting(model)
    found = extract(counting, sound, captions, names)
    each = plan_evaluations(["grid/null", "pia/null", "origin/null"]).nfe
    texts = [(caption.split(), [], reduced(caption, "half").split()) for caption in captions]
    assert counting.rows == each * sum(len({tuple(words) for words in said}) for said in texts)
    for b, caption in enumerate(captions):
        for name in names:  # its own pass, alone in a batch and in a plan
            (alone,) = extract(model, sound[b : b + 1], [caption], [name])
            np.testing.assert_allclose(found[b].values[name], alone.values[name], rtol=2e-4)
    if not captions[0].strip():
        assert all(np.array_equal(found[0].values[n], found[0].values[n.split("/")[0] + "/null"]) for n in names)


def test_a_plan_without_captions_counts_equal_conditions_once() -> None:
    conditions = ("text", "null", "audio")
    passes = standard(conditions)
    assert plan_evaluations(passes).nfe - plan_evaluations(without_caption(passes)).nfe == nfe("grid/null")
    assert without_caption(["grid/audio", "conditional", "secmi/half"]) == {"grid/audio", "conditional", "secmi/null"}
