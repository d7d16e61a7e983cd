"""Flow matching and what a network is told of a clip's place: closed forms, three ways to write one network."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import earwitness as ew
from earwitness.data.audio import cut, spec_of
from earwitness.errors import AudioError
from earwitness.models import audioldm
from earwitness.signals.diffusion import common_noise, extract, within
from earwitness.types import ModelInfo, Track
from tests import tiny_diffusion as tiny
from tests.tiny import recording

torch = pytest.importorskip("torch")

PASSES = ("grid", "repeats", "origin", "pia", "secmi", "gradient_mask", "noise_optimisation")


def gaussian(z_t: Any, alpha: Any, sigma: Any) -> Any:
    """The best prediction of the noise where latents are standard normal, off by a smooth term that has a gradient."""
    return sigma * z_t + 0.1 * torch.tanh(z_t) * alpha


class Written:
    """One function of (z_t, t), written as a network that predicts eps, v or a flow."""

    def __init__(self, kind: str) -> None:
        from earwitness.models.latent_diffusion import Schedule, flow

        self.kind, self.schedule = kind, Schedule(flow().alphas_cumprod, kind)

    def network(self, shown: Any, time: Any) -> Any:
        if self.kind == "flow":  # told its own time s, shown (1 - s) z + s eps
            s = time.view(-1, *[1] * (shown.ndim - 1))
            size = ((1 - s).square() + s.square()).sqrt()
            eps = gaussian(shown / size, (1 - s) / size, s / size)
            return (eps - shown) / (1 - s)
        alpha, sigma = self.schedule.levels(time, shown)
        eps = gaussian(shown, alpha, sigma)
        return eps if self.kind == "epsilon" else (eps - sigma * shown) / alpha

    def predict(self, z_t: Any, t: int) -> Any:
        at = torch.full((len(z_t),), t)
        output = self.network(self.schedule.shown(z_t, at), self.schedule.time(at))
        return self.schedule.noise(output, z_t, at)


def test_one_network_written_three_ways_gives_the_same_values() -> None:
    from earwitness.signals.diffusion import DenoisingSignals

    latents = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, 8))).double()
    found = {}
    for kind in ("epsilon", "v_prediction", "flow"):
        written = Written(kind)
        noise = lambda t, repeat: common_noise(0, t, repeat, (3, 8)).double()  # noqa: E731
        with torch.no_grad():
            signals = DenoisingSignals.from_network(
                _double(written), written.schedule.alphas_cumprod.double(), latents,
                [f"{p}/conditional" for p in PASSES], noise=noise,
            )  # fmt: skip
        found[kind] = signals
    for kind in ("v_prediction", "flow"):
        for ours, theirs in zip(found["epsilon"], found[kind], strict=True):
            assert set(ours.values) == {f"{p}/conditional" for p in PASSES}
            for name, value in ours.values.items():
                np.testing.assert_allclose(theirs.values[name], value, rtol=1e-5, atol=1e-5, err_msg=f"{kind} {name}")


def _double(written: Written) -> Any:
    return lambda z_t, t: written.predict(z_t.float(), t).double()


def test_a_flows_point_is_the_same_point() -> None:
    """z_t / (alpha + sigma) is (1 - s) z + s eps, at what the network is told; the noise comes back exactly."""
    from earwitness.models.latent_diffusion import Schedule, read_schedule

    schedule = read_schedule({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}, "")
    assert schedule.prediction == "flow"
    assert len(schedule.alphas_cumprod) == 1000
    z, eps = torch.randn(3, 2, 4), torch.randn(3, 2, 4)
    t = torch.tensor([0, 250, 999])
    torch.testing.assert_close(schedule.time(t), t / 1000)
    s = schedule.time(t)[:, None, None]
    alpha, sigma = schedule.levels(t, z)
    z_t = alpha * z + sigma * eps
    torch.testing.assert_close(schedule.shown(z_t, t), (1 - s) * z + s * eps)
    torch.testing.assert_close(schedule.noise(eps - z, z_t, t), eps, atol=1e-5, rtol=1e-5)
    plain = Schedule(schedule.alphas_cumprod, "epsilon")
    assert torch.equal(plain.shown(z_t, t), z_t)


# --- a clip's place ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stable(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return ew.load_model(str(tiny.stable_audio(tmp_path_factory.mktemp("place") / "stable")))


def test_seconds_are_those_of_training(stable: Any) -> None:
    """The start rounded down, the whole recording's length up; both as the library's own conditioner reads them."""
    told = stable.condition("text", ["sad rock", "happy"], None)
    assert told["seconds"].tolist() == [[0, 1]] * 2, "unless it is said: from the start of one window"
    placed = stable.placed(told, [(0.0, 0.2), (59.99, 180.01)])
    assert placed["seconds"].tolist() == [[0, 1], [59, 181]]
    _, everywhere = stable.told_apart(placed)
    span = stable.parts["projection_model"](start_seconds=torch.tensor([59.0]), end_seconds=torch.tensor([181.0]))
    expected = torch.cat([span.seconds_start_hidden_states, span.seconds_end_hidden_states], dim=2)[0]
    torch.testing.assert_close(everywhere[1], expected)
    null = stable.placed(stable.condition("null", ["sad rock"], None), [(59.99, 180.01)])
    nothing, still = stable.told_apart(null)
    assert not nothing.any()
    torch.testing.assert_close(still[0], expected)


def test_latent_frames_that_hold_sound(stable: Any) -> None:
    """64 frames of 32 samples at 8 kHz: 4 ms each, rounded up."""
    places = [(0.0, 0.256), (0.0, 0.1), (0.0, 0.1001), (0.0, 0.004), (10.0, 12.0)]
    assert stable.frames_heard(places) == [64, 25, 26, 1, 64]
    mask = within([64, 25], torch.zeros(2, 4, 64))
    assert mask is not None
    assert mask.sum(-1).flatten().tolist() == [64, 25]
    assert within([64, 64], torch.zeros(2, 4, 64)) is None


@pytest.mark.parametrize("p", [2.0, 4.0, 5.0])
def test_norms_over_what_is_heard_are_on_the_scale_of_a_window(p: float) -> None:
    from earwitness.signals import chains

    values = torch.randn(2, 3, 8)
    heard = torch.tensor([[1.0] * 8, [1.0] * 2 + [0.0] * 6])[:, None]
    norms = chains.norm(chains.scaled(values, heard, p), p)
    expected = (values[1, :, :2].abs().pow(p).sum() * 8 / 2) ** (1 / p)
    torch.testing.assert_close(norms, torch.stack([values[0].abs().pow(p).sum() ** (1 / p), expected]))
    tiled = torch.cat([values[1:, :, :2]] * 4, dim=2)  # the same sound, as long as the window
    torch.testing.assert_close(chains.norm(tiled, p)[0], norms[1])
    assert chains.scaled(values, None, p) is values


def test_what_fills_a_window_does_not_count(stable: Any) -> None:
    """Norms of a filled clip follow from the frames that hold sound; each item's are its own, whatever its mates."""
    audio = torch.zeros(2, 2, stable.samples)
    audio[:, :, :1024] = 0.1 * torch.randn(1, 2, 1024, generator=torch.Generator().manual_seed(0))
    passes = [f"{probe}/conditional" for probe in PASSES]
    places = [(0.0, 1024 / 8000), (0.0, 0.256)]
    short, full = extract(stable, audio, ["sad rock"] * 2, passes, places=places)
    (alone,) = extract(stable, audio[:1], ["sad rock"], passes, places=places[:1])
    for name, value in short.values.items():
        np.testing.assert_allclose(alone.values[name], value, rtol=2e-3, atol=2e-3, err_msg=name)
    z = stable.encode(audio[:1])
    told = stable.placed(stable.condition("text", ["sad rock"], None), places[:1])
    noise = common_noise(0, 100, 0, tuple(z.shape[1:]))
    alpha, sigma = stable.schedule.levels(torch.tensor([100]), z)
    with torch.no_grad():
        error = stable.predict_noise(alpha * z + sigma * noise, torch.tensor([100]), told) - noise
    expected = error[..., :32].norm() * math.sqrt(2)
    assert short.values["grid/conditional"][1] == pytest.approx(float(expected), rel=1e-4)
    assert full.values["grid/conditional"][1] != pytest.approx(float(expected), rel=1e-4)


def test_short_recordings_are_filled_and_scored(stable: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / "results"))
    assert stable.info.shortest_seconds == pytest.approx(0.064)
    spec = spec_of(stable.info)
    (segment,) = cut(np.random.default_rng(0).standard_normal((2, 800)).astype(np.float32) * 0.1, spec)
    assert segment.audio.shape == (2, 2048)
    assert segment.total_s == pytest.approx(0.1)
    assert not segment.audio[:, 800:].any()
    with pytest.raises(AudioError, match="shorter than the model's segment of 0.26 s; nothing under 0.06 s is padded"):
        cut(np.ones((2, 500), np.float32), spec)
    long = cut(np.random.default_rng(0).standard_normal((2, 5000)).astype(np.float32), spec)
    assert {part.total_s for part in long} == {5000 / 8000}
    tracks = [Track(f"t{s}", recording(tmp_path / f"{s}.wav", s, seed=i), "member", caption="sad")
              for i, s in enumerate((0.1, 0.7))]  # fmt: skip
    signals = ew.collect(str(stable.info.source[0]), tracks, ["denoising_loss"], workers=0)
    assert signals.index["track_id"].nunique() == 2
    assert not len(signals.exclusions)
    assert np.isfinite(ew.score(signals, ["denoising_loss"])["score"].dropna()).all()


def test_other_models_pad_as_before() -> None:
    how: Any = {"dtype": "float32", "device": "cpu", "badge": "tiny"}
    short = ModelInfo("m", "diffusion", "r", 16_000, 1, 10.24, **how)
    assert short.pad_seconds == 0.24
    assert ModelInfo("m", "token", "r", 16_000, 1, 10.24, **how).pad_seconds == 0
    filled = ModelInfo("m", "diffusion", "r", 44_100, 2, 47.55, **how, shortest_seconds=1.0)
    assert filled.pad_seconds == pytest.approx(46.55)
    assert filled.key() == ModelInfo("m", "diffusion", "r", 44_100, 2, 47.55, **how).key()


def test_an_audioldm_is_told_the_audio_only_where_its_card_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny.audioldm(tmp_path / "ears", ears=True)
    assert ew.models.describe(str(folder)).conditions == ("text", "null", "audio")
    monkeypatch.setattr(audioldm, "WITHOUT_AUDIO", ([8, 16],))
    assert ew.models.describe(str(folder)).conditions == ("text", "null")
    assert [192, 384, 576, 960] not in audioldm.WITHOUT_AUDIO, "m-full was trained on it"


# --- flows in the formats that they are published in ------------------------------------------------------------------


@pytest.fixture(scope="module")
def short() -> Any:
    from earwitness.models import ace_step, stable_audio_3

    with pytest.MonkeyPatch.context() as patch:
        for module in (ace_step, stable_audio_3):
            patch.setattr(module, "SECONDS", 0.32)
        yield


def test_stable_audio_3_is_asked_as_its_pipeline_asks(short: Any, tmp_path: Path) -> None:
    from diffusers import StableAudio3Pipeline

    folder = tiny.stable_audio_3(tmp_path / "sa3")
    model: Any = ew.load_model(str(folder))
    pipe = StableAudio3Pipeline.from_pretrained(folder)
    z = torch.randn(1, 4, 80)
    t = torch.tensor([300])
    told = model.placed(model.condition("text", ["sad rock"], None), [(12.3, 99.5)])
    with torch.no_grad():
        states, mask = pipe.encode_prompt("sad rock", "cpu", 1)
        length = pipe.encode_duration(100, "cpu", 1, 1)
        attended, seen = pipe.prepare_cross_attention(states, mask, length)
        theirs = pipe.transformer(z, torch.tensor([0.3]), attended, length, seen, return_dict=False)[0]
        torch.testing.assert_close(model.ask(z, model.schedule.time(t), told), theirs, atol=1e-5, rtol=1e-4)
        null = model.read(None)
        torch.testing.assert_close(null["states"], pipe.encode_prompt([""], "cpu", 1)[0][0])
        audio = 0.1 * torch.randn(1, 2, model.samples)
        torch.testing.assert_close(model.encode(audio), pipe.vae.encode(audio).latents)
        assert model.decode(z).shape == (1, 2, model.samples)


def test_ace_step_is_asked_as_its_pipeline_asks(short: Any, tmp_path: Path) -> None:
    """What the pipeline's transformer is given for a caption, no lyrics and no reference, at its first step."""
    from diffusers import AceStepPipeline

    folder = tiny.ace_step(tmp_path / "ace")
    model: Any = ew.load_model(str(folder))
    pipe = AceStepPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    asked: list[dict[str, Any]] = []
    real = pipe.transformer.forward

    def spy(**given: Any) -> Any:
        asked.append(given)
        return real(**given)

    pipe.transformer.forward = spy
    z = torch.randn(1, 80, 4)
    pipe(
        "sad rock", "", audio_duration=0.32, num_inference_steps=1, guidance_scale=7.0, latents=z, output_type="latent"
    )
    given = asked[0]
    told = model.read("sad rock")
    torch.testing.assert_close(told["states"], given["encoder_hidden_states"][0], atol=1e-5, rtol=1e-4)
    from earwitness.models.base import stack

    with torch.no_grad():  # a caption and none in one batch, in either order
        theirs = real(**given)[0].transpose(1, 2)
        for said in (["sad rock", None], [None, "sad rock"]):
            condition = stack([model.read(caption) for caption in said])
            ours = model.ask(z.transpose(1, 2).repeat(2, 1, 1), given["timestep"], condition)
            expected = theirs if said[0] else theirs.flip(0)
            torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(theirs[0], theirs[1], atol=1e-4)


@pytest.mark.parametrize(("build", "option"), [(tiny.stable_audio_3, "distilled"), (tiny.ace_step, "turbo")])
def test_a_moved_objective_is_said(
    build: Any, option: str, short: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from earwitness.models.cards import identity

    base = str(build(tmp_path / "base"))
    assert not ew.load_model(base).info.remark
    assert identity(base, allow_download=False)[1] == []
    assert not caplog.records
    tuned = str(build(tmp_path / "tuned", **{option: True}))
    assert "objective" in ew.load_model(tuned).info.remark
    assert "objective" in caplog.text
    assert "objective" in identity(tuned, allow_download=False)[1][0]
    assert "remark" not in ew.load_model(base).info.key()


@pytest.mark.parametrize("build", [tiny.stable_audio_3, tiny.ace_step])
def test_flows_are_collected_and_scored(
    build: Any, short: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / "results"))
    folder = build(tmp_path / "model")
    tracks = [Track(f"t{i}", recording(tmp_path / f"{i}.wav", 0.7, seed=i), "member", caption=said)
              for i, said in enumerate(("sad rock", "happy jazz with piano", ""))]  # fmt: skip
    signals = ew.collect(str(folder), tracks, ["denoising_loss", "pia", "secmi"], workers=0)
    scores = ew.score(signals, ["denoising_loss", "pia", "secmi"])
    assert scores["track_id"].nunique() == 3
    assert np.isfinite(scores["score"]).all()
