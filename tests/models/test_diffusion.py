"""Diffusion models: every on-disk format loads and scores, the front end is the published one, bad input is named."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import earwitness as ew
from earwitness.errors import ModelError
from earwitness.models import ace_step, describe, stable_audio_3, tango
from earwitness.models.base import DenoisingModel
from tests import tiny_diffusion as tiny

torch = pytest.importorskip("torch")


@pytest.fixture(scope="session", autouse=True)
def _short_windows() -> Iterator[None]:
    """Tango's window is fixed at 10.24 s; a test needs no more than a third of a second."""
    assert tango.SECONDS == 10.24
    with pytest.MonkeyPatch.context() as patch:
        for module in (tango, stable_audio_3, ace_step):
            patch.setattr(module, "SECONDS", 0.32)
        yield


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("diffusion")
    return {name: build(root / name) for name, build in tiny.BUILDERS.items()}


@pytest.fixture(scope="session")
def models(folders: dict[str, Path]) -> dict[str, Any]:
    return {name: ew.load_model(str(folder)) for name, folder in folders.items()}


def sound(model: Any, count: int = 2, seed: int = 0) -> Any:
    noise = np.random.default_rng(seed).standard_normal((count, model.info.channels, model.samples))
    return torch.from_numpy(0.1 * noise.astype(np.float32))


WINDOWS = {  # seconds, channels, shape of one latent, conditions
    "audioldm": (0.32, 1, (4, 16, 32), ("text", "null")),
    "musicldm": (0.32, 1, (4, 16, 32), ("text", "null", "audio")),
    "audioldm2": (0.32, 1, (4, 16, 32), ("text", "null", "audio")),
    "tango": (0.32, 1, (4, 8, 16), ("text", "null")),
    "tango_native": (0.32, 1, (4, 8, 16), ("text", "null")),
    "stable_audio": (0.256, 2, (4, 64), ("text", "null")),
    "stable_audio_3": (0.32, 2, (4, 80), ("text", "null")),
    "ace_step": (0.32, 2, (4, 80), ("text", "null")),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_every_format_loads_encodes_and_predicts(name: str, models: dict[str, Any]) -> None:
    model = models[name]
    seconds, channels, shape, conditions = WINDOWS[name]
    assert isinstance(model, DenoisingModel)
    info = (model.info.family, model.info.segment_seconds, model.info.channels, model.info.badge, model.info.conditions)
    assert info == ("diffusion", seconds, channels, "tiny", conditions)
    assert model.info.mixdown == ("average" if channels == 2 else "first")
    assert "diffusers" in model.info.versions
    audio = sound(model)
    latents = model.encode(audio)
    assert latents.shape == (2, *shape)
    assert torch.equal(latents, model.encode(audio)), "the posterior's mean is not random"
    t = torch.tensor([10, 900])
    found = {}
    for condition in conditions:
        told = model.condition(condition, ["sad rock with drums", "happy"], audio)
        with torch.no_grad():
            found[condition] = model.predict_noise(latents, t, told)
        assert found[condition].shape == latents.shape
        assert found[condition].dtype == torch.float32
        assert torch.isfinite(found[condition]).all()
    assert not torch.allclose(found["text"], found["null"], atol=1e-5)


@pytest.mark.parametrize("name", WINDOWS)
def test_every_format_is_scored_by_every_cheap_attack(name: str, models: dict[str, Any]) -> None:
    from earwitness import attacks
    from earwitness.signals.diffusion import extract
    from earwitness.signals.evaluations import standard

    model, passes = models[name], standard(WINDOWS[name][3])
    signals = extract(model, sound(model), ["sad rock with drums", "happy"], passes)
    specs = [s for s in attacks.resolve("all", passes=passes) if s.attack.family == "diffusion"]
    assert {s.stream for s in specs} == {{"text": "conditional"}.get(c, c) for c in WINDOWS[name][3]}
    for spec in specs:
        first, second = (attacks.bind(spec, {})(signal) for signal in signals)
        assert math.isfinite(first), spec.id
        assert first != second, spec.id


@pytest.mark.parametrize("name", WINDOWS)
def test_an_empty_caption_is_the_null_condition(name: str, models: dict[str, Any]) -> None:
    for said in ("", "  "):
        null, empty = (models[name].condition(c, [w], None) for c, w in (("null", "sad rock"), ("text", said)))
        assert null.keys() == empty.keys()
        for key, value in null.items():
            assert torch.equal(value, empty[key]), key


@pytest.mark.parametrize("name", [name for name in WINDOWS if name not in {"stable_audio", "ace_step"}])
def test_the_null_condition_is_that_of_the_empty_caption(name: str, models: dict[str, Any]) -> None:
    """For Stable Audio it is zeros, for ACE-Step it is learned, as tested below against the libraries' own."""
    null, empty = models[name].read(None), models[name].read("")
    assert null.keys() == empty.keys()
    for key, value in null.items():
        assert torch.equal(value, empty[key]), key


def test_the_large_audioldm2_loads(tmp_path: Path) -> None:
    model: Any = ew.load_model(str(tiny.audioldm2(tmp_path / "large", large=True)))
    told = model.condition("text", ["sad rock"], None)
    assert torch.isfinite(model.predict_noise(torch.zeros(1, 4, 16, 32), torch.tensor([5]), told)).all()


def test_describe_builds_no_network(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.Module, "__init__", lambda *a, **k: pytest.fail("a network was built"))
    for folder in folders.values():
        assert describe(str(folder)).family == "diffusion"


@pytest.mark.parametrize("name", [name for name in WINDOWS if name != "tango_native"])
def test_conditions_do_not_depend_on_batch_mates(name: str, models: dict[str, Any]) -> None:
    model = models[name]
    latents, t = model.encode(sound(model, 1)), torch.tensor([300])
    long = "sad rock with drums and piano, happy jazz with drums, slow jazz with piano and more drums"
    with torch.no_grad():
        alone = model.predict_noise(latents, t, model.condition("text", ["happy"], None))
        told = model.condition("text", [long, "happy"], None)
        together = model.predict_noise(latents.repeat(2, 1, *[1] * (latents.ndim - 2)), t.repeat(2), told)
    torch.testing.assert_close(alone[0], together[1], atol=1e-5, rtol=1e-4)


CAPTION = "happy jazz with piano"


def test_text_conditions_are_those_of_the_library(folders: dict[str, Path], models: dict[str, Any]) -> None:
    from diffusers import AudioLDM2Pipeline, AudioLDMPipeline, StableAudioPipeline

    ours = {name: models[name].condition("text", [CAPTION], None) for name in ("audioldm", "audioldm2", "stable_audio")}
    null = models["stable_audio"].condition("null", [CAPTION], None)
    with torch.no_grad():
        pipe = AudioLDMPipeline.from_pretrained(folders["audioldm"])
        theirs = pipe._encode_prompt([CAPTION], "cpu", 1, True)
        torch.testing.assert_close(ours["audioldm"]["class_labels"][0], theirs[1])
        torch.testing.assert_close(models["audioldm"].condition("null", ["x"], None)["class_labels"][0], theirs[0])
        pipe = AudioLDM2Pipeline.from_pretrained(folders["audioldm2"])
        states, mask, generated = pipe.encode_prompt([CAPTION], "cpu", 1, False)
        torch.testing.assert_close(ours["audioldm2"]["states"], states)
        torch.testing.assert_close(ours["audioldm2"]["generated"], generated)
        assert torch.equal(ours["audioldm2"]["mask"], mask)
        pipe = StableAudioPipeline.from_pretrained(folders["stable_audio"])
        words = pipe.encode_prompt([CAPTION], "cpu", False)
        start, end = pipe.encode_duration(0.0, 1.0, "cpu", False, 1)  # whole seconds
        attended, everywhere = models["stable_audio"].told_apart(ours["stable_audio"])
        torch.testing.assert_close(attended, torch.cat([words, start, end], 1))
        torch.testing.assert_close(everywhere, torch.cat([start, end], 2))
        nothing, still = models["stable_audio"].told_apart(null)
        assert not nothing.any(), "the null condition attends to zeros"
        torch.testing.assert_close(still, everywhere)


def test_the_audio_condition_is_claps_own_embedding(folders: dict[str, Path], models: dict[str, Any]) -> None:
    from transformers import ClapFeatureExtractor, ClapModel

    model = models["musicldm"]
    clap = ClapModel.from_pretrained(folders["musicldm"] / "text_encoder").eval()
    ears = ClapFeatureExtractor.from_pretrained(folders["musicldm"] / "feature_extractor")
    audio = sound(model)
    from torchaudio.functional import resample

    heard = audio[1, 0] - audio[1, 0].mean()
    heard = resample(0.5 * heard / heard.abs().max(), 16_000, 48_000)
    with torch.no_grad():
        features = clap.get_audio_features(
            **ears(heard.numpy(), sampling_rate=48_000, truncation="rand_trunc", return_tensors="pt")
        )
    ours = model.condition("audio", None, audio)["class_labels"]
    torch.testing.assert_close(ours[1], features.pooler_output[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours.norm(dim=1), torch.ones(2))
    assert not torch.allclose(ours[0], ours[1], atol=1e-4)
    assert torch.equal(ours, model.condition("audio", None, audio)["class_labels"]), "no random crop"


@pytest.mark.parametrize("name", ["musicldm", "audioldm2"])
def test_clap_hears_the_audio_at_the_level_of_its_training(name: str, models: dict[str, Any]) -> None:
    model = models[name]
    audio = sound(model)
    ours, other = (model.condition("audio", None, heard) for heard in (audio, 0.01 * audio + 0.2))
    for key, value in ours.items():
        torch.testing.assert_close(value, other[key], atol=1e-3, rtol=0)
    assert any(not torch.allclose(value[0], value[1], atol=1e-2) for value in ours.values())


def test_audioldm_listens_through_a_clap_whose_text_half_is_its_own(tmp_path: Path) -> None:
    folder = tiny.audioldm(tmp_path / "ears", ears=True)
    model: Any = ew.load_model(str(folder))
    assert model.info.conditions == ("text", "null", "audio")
    assert model.condition("audio", None, sound(model))["class_labels"].shape == (2, 16)
    torch.manual_seed(5)
    tiny.clap().save_pretrained(folder / "clap")
    with pytest.raises(ModelError, match="text projection differs from the pipeline's"):
        ew.load_model(str(folder))


def test_tangos_own_layout_holds_the_same_autoencoder(folders: dict[str, Path], models: dict[str, Any]) -> None:
    from diffusers import AutoencoderKL

    reference = AutoencoderKL.from_pretrained(folders["tango_native"].with_name("tango_native-reference"))
    weights = models["tango_native"].vae.state_dict()
    for name, value in reference.state_dict().items():
        torch.testing.assert_close(weights[name], value)
    with pytest.raises(ModelError, match="no vocoder"):
        models["tango_native"].decode(torch.zeros(1, 4, 8, 16))


def test_decoding_returns_one_window(models: dict[str, Any]) -> None:
    for name in ("audioldm", "stable_audio"):
        model = models[name]
        assert model.decode(model.encode(sound(model))).shape == (2, model.info.channels, model.samples)


# The front end -------------------------------------------------------------------------------------------------------


def test_mel_matrix_is_librosas() -> None:
    import librosa

    from earwitness.models.latent_diffusion import MelSpec, mel_matrix

    for rate, bands, hop in ((16_000, 64, 160), (48_000, 256, 480)):
        spec = MelSpec.of(rate, bands, hop)
        theirs = librosa.filters.mel(sr=rate, n_fft=spec.window, n_mels=bands, fmin=spec.lowest, fmax=spec.highest)
        np.testing.assert_allclose(mel_matrix(spec).numpy().T, theirs, atol=1e-7)


@pytest.mark.parametrize("frequency", [250.0, 1000.0, 4000.0])
def test_a_pure_tone_lands_in_its_band_at_its_level(frequency: float) -> None:
    """A tone of amplitude a in the middle of a Hann window of N samples has magnitude a N / 4 at its bin."""
    from earwitness.models.latent_diffusion import MelSpec, log_mel, mel_matrix

    spec = MelSpec.of(16_000, 64, 160)
    tone = 0.5 * torch.sin(2 * math.pi * frequency * torch.arange(16_000) / 16_000)
    mel = log_mel(tone[None], spec)[0, 50]
    k = round(frequency * spec.window / 16_000)  # 250, 1000 and 4000 Hz lie exactly on a bin
    level = 0.5 * spec.window / 4  # and half of it on either side: the transform of a Hann window
    expected = level * (0.5 * mel_matrix(spec)[k - 1] + mel_matrix(spec)[k] + 0.5 * mel_matrix(spec)[k + 1])
    band = int(mel.argmax())
    assert band == int(expected.argmax())
    assert mel[band] == pytest.approx(math.log(float(expected[band])), abs=2e-3)
    centres = 2595 * np.log10(1 + np.array([frequency / 700]))  # sanity: bands rise with frequency
    assert centres > 0


def test_front_end_against_a_slow_twin() -> None:
    """Frame by frame in numpy: reflect, window, transform, magnitude, bands, natural log."""
    import librosa

    from earwitness.models.latent_diffusion import MelSpec, log_mel, normalise

    audio = np.random.default_rng(0).standard_normal(4800) + 0.3
    ours = log_mel(normalise(torch.from_numpy(audio.astype(np.float32))[None]), MelSpec.of(16_000, 64, 160))[0].numpy()
    wave = audio - audio.mean()
    wave = 0.5 * wave / np.abs(wave).max()
    padded = np.pad(wave, 512, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
    bank = librosa.filters.mel(sr=16_000, n_fft=1024, n_mels=64, fmin=0, fmax=8000)
    frames = [np.abs(np.fft.rfft(window * padded[i * 160 : i * 160 + 1024])) for i in range(30)]
    theirs = np.log(np.maximum(np.array(frames) @ bank.T, 1e-5))
    assert ours.shape == (30, 64)
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_level_and_offset_do_not_matter_and_silence_stays_finite() -> None:
    from earwitness.models.latent_diffusion import MelSpec, log_mel, normalise

    spec = MelSpec.of(16_000, 64, 160)
    audio = torch.from_numpy(np.random.default_rng(1).standard_normal((1, 3200)).astype(np.float32))
    torch.testing.assert_close(
        log_mel(normalise(audio), spec), log_mel(normalise(0.01 * audio + 0.2), spec), atol=1e-2, rtol=0
    )
    assert normalise(audio).abs().max() == pytest.approx(0.5)
    assert log_mel(normalise(torch.zeros(1, 3200)), spec).max() == pytest.approx(math.log(1e-5))


# Objectives ----------------------------------------------------------------------------------------------------------


def test_schedule_matches_the_published_numbers(models: dict[str, Any]) -> None:
    levels = models["audioldm"].alphas_cumprod
    for t, value in tiny.PUBLISHED_LEVELS.items():
        assert float(levels[t]) == pytest.approx(value, abs=2e-6)
    continuous = models["stable_audio"].alphas_cumprod
    assert float(continuous[100]) == pytest.approx(math.cos(0.05 * math.pi) ** 2)
    assert models["stable_audio"].schedule.time(torch.tensor([100])) == pytest.approx(0.1)


@pytest.mark.parametrize("kind", ["v_prediction", "sample"])
def test_equal_functions_give_equal_scores_whatever_they_predict(
    kind: str, models: dict[str, Any], tmp_path: Path
) -> None:
    """A network that predicts v (or the latent) of the same function as one that predicts eps scores the same."""
    from earwitness.models.latent_diffusion import Schedule
    from earwitness.signals.diffusion import extract

    plain: Any = ew.load_model(str(tiny.audioldm(tmp_path / "eps")))
    other: Any = ew.load_model(str(tiny.audioldm(tmp_path / kind, prediction=kind)))
    assert other.schedule.prediction == kind
    asked, schedule = other.ask, Schedule(other.alphas_cumprod, "epsilon")

    def turned(z_t: Any, t: Any, condition: Any) -> Any:
        eps = asked(z_t, t, condition)
        alpha, sigma = schedule.levels(t, z_t)
        return (eps - sigma * z_t) / alpha if kind == "v_prediction" else (z_t - sigma * eps) / alpha

    other.ask = turned
    audio, captions = sound(plain), ["sad rock", "happy jazz"]
    passes = [f"{p}/conditional" for p in ("grid", "repeats", "origin", "pia", "secmi", "gradient_mask")]
    for ours, theirs in zip(*(extract(m, audio, captions, passes) for m in (plain, other)), strict=True):
        for name, value in ours.values.items():
            np.testing.assert_allclose(theirs.values[name], value, rtol=2e-3, atol=2e-3, err_msg=name)


def test_continuous_time_agrees_with_the_librarys_own_preconditioning(models: dict[str, Any]) -> None:
    """The sampler's estimate of the clean latent is the one that our noise implies."""
    from diffusers import CosineDPMSolverMultistepScheduler

    model = models["stable_audio"]
    z, told = model.encode(sound(model)), model.condition("text", ["sad", "happy"], None)
    t = torch.tensor([400, 400])
    alpha, sigma = model.schedule.levels(t, z)
    z_t = alpha * z + sigma * torch.ones_like(z)
    with torch.no_grad():
        eps = model.predict_noise(z_t, t, told)
        raw = model.ask(z_t, t / 1000, told)
    library = CosineDPMSolverMultistepScheduler()
    ratio = sigma / alpha  # the library's own sigma, of latents that are not scaled down
    assert float(library.precondition_noise(ratio.flatten()[0])) == pytest.approx(0.4, abs=1e-6)
    theirs = library.precondition_outputs(z_t / alpha, raw, ratio)
    torch.testing.assert_close((z_t - sigma * eps) / alpha, theirs, atol=1e-5, rtol=1e-4)


# Bad input -----------------------------------------------------------------------------------------------------------


def _edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _remove(path: Path) -> None:
    import shutil

    shutil.rmtree(path) if path.is_dir() else path.unlink()


DAMAGE: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "part": ("audioldm", lambda f: _remove(f / "vae"), "lacks vae; it needs the parts unet, vae"),
    "weights": ("audioldm", lambda f: _remove(f / "unet" / "diffusion_pytorch_model.safetensors"), "no weights at all"),
    "pickled": (
        "audioldm",
        lambda f: (f / "unet" / "diffusion_pytorch_model.safetensors").rename(
            f / "unet" / "diffusion_pytorch_model.bin"
        ),
        "unet/diffusion_pytorch_model.bin: a pickle that asks for something else",
    ),
    "truncated": (
        "audioldm",
        lambda f: (f / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(
            b"\x10\x00\x00\x00\x00\x00\x00\x00{}"
        ),
        "damaged",
    ),
    "pipeline": (
        "audioldm",
        lambda f: _edit(f / "model_index.json", _class_name="DiTPipeline"),
        "'DiTPipeline' is no family",
    ),
    "scheduler": (
        "audioldm",
        lambda f: _edit(f / "scheduler" / "scheduler_config.json", _class_name="DDIMScheduller"),
        "unknown scheduler 'DDIMScheduller'; did you mean 'DDIMScheduler'",
    ),
    "prediction": (
        "audioldm",
        lambda f: _edit(f / "scheduler" / "scheduler_config.json", prediction_type="flow"),
        "unknown prediction type 'flow'",
    ),
    "betas": (
        "audioldm",
        lambda f: _edit(f / "scheduler" / "scheduler_config.json", beta_schedule="cubic"),
        "not a schedule we know",
    ),
    **{
        f"timesteps {value!r}": (
            "audioldm",
            lambda f, value=value: _edit(f / "scheduler" / "scheduler_config.json", num_train_timesteps=value),
            f"scheduler: {value!r} timesteps is beyond belief",
        )
        for value in (None, "many", -5, 0, 10**9)
    },
    "betas above 1": (
        "audioldm",
        lambda f: _edit(f / "scheduler" / "scheduler_config.json", beta_start=0.5, beta_end=2),
        "betas leave the range 0 to 1",
    ),
    "trained betas": (
        "audioldm",
        lambda f: _edit(f / "scheduler" / "scheduler_config.json", trained_betas=[0.1, "a"]),
        "not a schedule we know",
    ),
    "no betas": (
        "audioldm",
        lambda f: _edit(f / "scheduler" / "scheduler_config.json", trained_betas=[]),
        "betas leave the range 0 to 1",
    ),
    "shape": (
        "audioldm",
        lambda f: _edit(f / "unet" / "config.json", block_out_channels=[8, 32]),
        "do not belong together",
    ),
    "layers": ("audioldm", lambda f: _edit(f / "unet" / "config.json", layers_per_block=10**9), "beyond belief"),
    "nonsense": (
        "audioldm",
        lambda f: _edit(f / "unet" / "config.json", down_block_types=["Spiral"]),
        "describes no UNet",
    ),
    "latents": (
        "audioldm",
        lambda f: tiny.vae(8).save_pretrained(f / "vae"),
        "latents have 8 channels, the network takes 4",
    ),
    "no scale": (
        "audioldm",
        lambda f: _edit(f / "vae" / "config.json", scaling_factor=None),
        "expected a scaling_factor above 0, got None",
    ),
    "rate": (
        "audioldm",
        lambda f: _edit(f / "vocoder" / "config.json", sampling_rate=22_050),
        "only known for 16000 or 48000",
    ),
    "json": ("audioldm", lambda f: (f / "unet" / "config.json").write_text("{"), "not JSON"),
    "tokenizer": ("audioldm", lambda f: [p.unlink() for p in (f / "tokenizer").iterdir()], "tokenizer"),
    "no extractor": (
        "audioldm2",
        lambda f: _remove(f / "feature_extractor" / "preprocessor_config.json"),
        "feature_extractor: expected preprocessor_config.json, found none",
    ),
    "extractor": (
        "audioldm2",
        lambda f: (f / "feature_extractor" / "preprocessor_config.json").write_text("{"),
        "preprocessor_config.json: not JSON",
    ),
    "extractor of nothing": (
        "audioldm2",
        lambda f: _edit(f / "feature_extractor" / "preprocessor_config.json", feature_size="wide"),
        "no feature extractor of CLAP",
    ),
    "musicldm's ears": (
        "musicldm",
        lambda f: _remove(f / "feature_extractor" / "preprocessor_config.json"),
        "feature_extractor: expected preprocessor_config.json, found none",
    ),
    "no ears": ("musicldm", lambda f: _remove(f / "feature_extractor"), "lacks feature_extractor"),
    "clap without ears": (
        "audioldm",
        lambda f: (f / "clap").mkdir(),
        "clap: expected preprocessor_config.json, found none",
    ),
    "no window": ("audioldm", lambda f: _edit(f / "unet" / "config.json", sample_size=0), "windows of 0 frames"),
    "stereo rate": ("stable_audio", lambda f: _edit(f / "vae" / "config.json", sampling_rate=0), "channels at 0 Hz"),
    "speech": (
        "audioldm2",
        lambda f: _edit(f / "text_encoder_2" / "config.json", model_type="vits"),
        "speech variants",
    ),
    "sigma": (
        "stable_audio",
        lambda f: _edit(f / "scheduler" / "scheduler_config.json", sigma_data=0.5),
        "sigma_data is 0.5",
    ),
    "continuous eps": (
        "stable_audio",
        lambda f: _edit(f / "scheduler" / "scheduler_config.json", prediction_type="epsilon"),
        "unknown prediction type 'epsilon'",
    ),
    "native part": ("tango_native", lambda f: _remove(f / "tokenizer"), "hf download google/flan-t5-large"),
    "native file": (
        "tango_native",
        lambda f: _remove(f / "pytorch_model_vae.bin"),
        "pytorch_model_vae.bin: expected this",
    ),
    "native code": (
        "tango_native",
        lambda f: torch.save({"unet.x": Path("/")}, f / "pytorch_model_main.bin"),
        "a pickle that asks for pathlib",
    ),
    "native shape": (
        "tango_native",
        lambda f: _edit(f / "unet" / "config.json", cross_attention_dim=48),
        "do not belong",
    ),
    "native weights": (
        "tango_native",
        lambda f: torch.save({"unet.x": torch.zeros(1)}, f / "pytorch_model_main.bin"),
        "the weights lack",
    ),
    "native front end": ("tango_native", lambda f: _edit(f / "stft_config.json", hop_length=256), "hop_length is 256"),
    "native mel": (
        "tango_native",
        lambda f: torch.save({"mel_basis": torch.zeros(64, 513)}, f / "pytorch_model_stft.bin"),
        "mel matrix differs",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_folders_are_refused_in_one_line(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    kind, damage, message = DAMAGE[name]
    folder = tiny.copy(folders[kind], tmp_path / "damaged")
    damage(folder)
    with pytest.raises(ModelError, match=message) as caught:
        ew.load_model(str(folder))
    assert "\n" not in str(caught.value)


def test_audio_that_is_no_window_is_refused(models: dict[str, Any]) -> None:
    mono, stereo = models["audioldm"], models["stable_audio"]
    with pytest.raises(ModelError, match=r"expected audio \[B, 1, 5120\] .* got \[1, 2, 5120\]"):
        mono.encode(torch.zeros(1, 2, 5120))
    for length in (5119, 10_240):
        with pytest.raises(ModelError, match="cut recordings to the model's window, never pad them"):
            mono.encode(torch.zeros(1, 1, length))
    with pytest.raises(ModelError, match="2 channel"):
        stereo.encode(torch.zeros(1, 1, stereo.samples))


def test_latents_and_conditions_that_do_not_fit_are_refused(models: dict[str, Any]) -> None:
    model = models["audioldm"]
    told = model.condition("null", ["x"], None)
    for shape in ([1, 8, 16, 32], [1, 4, 8, 32], [1, 4, 16, 16]):
        with pytest.raises(ModelError, match=r"expected latents \[B, 4, 16, 32\] for a window of 0.32 s") as caught:
            model.predict_noise(torch.zeros(shape), torch.tensor([1]), told)
        assert f"got {shape}" in str(caught.value)
    with pytest.raises(ModelError, match=r"expected latents \[B, 4, 64\] for a window of 0.256 s, got \[1, 4, 63\]"):
        models["stable_audio"].predict_noise(torch.zeros(1, 4, 63), torch.tensor([1]), {})
    with pytest.raises(ModelError, match="no 'audio' condition; it offers text, null"):
        model.condition("audio", ["x"], sound(model))
    with pytest.raises(ModelError, match="nothing to make the 'text' condition from"):
        model.condition("text", None, sound(model))


def test_the_published_audioldm_window_is_ten_seconds(tmp_path: Path) -> None:
    folder = tiny.audioldm(tmp_path / "published", sample_size=128)
    config = json.loads((folder / "vae" / "config.json").read_text())
    _edit(folder / "vae" / "config.json", block_out_channels=[*config["block_out_channels"], 16])
    assert describe(str(folder)).segment_seconds == pytest.approx(10.24)


@pytest.mark.parametrize("name", WINDOWS)
def test_text_encoders_read_a_caption_once(name: str, models: dict[str, Any]) -> None:
    model, heard = models[name], []
    texts = [model.parts[part] for part in ("text_encoder", "text_encoder_2") if part in model.parts]
    parts = [getattr(part, "text_model", part) for part in texts]
    hooks = [part.register_forward_hook(lambda *_: heard.append(1)) for part in parts]
    for captions in (["quick fox", "quick fox"], ["lazy dog", "quick fox"]):
        for condition in model.info.conditions:
            model.condition(condition, captions, sound(model))
    for hook in hooks:
        hook.remove()
    assert len(heard) <= 3 * len(parts)  # two captions and, unless it was read before, the null condition
    assert len(heard) >= 2 * len(parts)
