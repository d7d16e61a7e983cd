"""The pocket diffusion twins: a micro training run in the real format, and the weights that are shipped."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import earwitness as ew  # noqa: E402
from earwitness.data.audio import prepare  # noqa: E402
from earwitness.errors import ModelError  # noqa: E402
from earwitness.models import pocket_names  # noqa: E402
from earwitness.models.latent_diffusion import log_mel, normalise  # noqa: E402
from earwitness.pocket import corpus  # noqa: E402
from earwitness.signals.diffusion import extract  # noqa: E402
from earwitness.stats.features import DEFAULT_FEATURES  # noqa: E402
from earwitness.util import project_root  # noqa: E402
from earwitness_build.training import latent_diffusion, train  # noqa: E402
from tests.tiny import tune  # noqa: E402

FRONT = latent_diffusion.FrontRecipe(steps=2, vocoder_steps=2, batch=2)
TWIN = latent_diffusion.LdmRecipe(seed=3, epochs=2, batch=2)
SHIPPED = ("pocket/audioldm-a", "pocket/audioldm-b")
FEATURES = [*DEFAULT_FEATURES["diffusion"]]


@pytest.fixture(scope="module")
def audio() -> np.ndarray:
    return np.array([tune(6.0, seed=n) for n in range(3)])


@pytest.fixture(scope="module")
def front(audio: np.ndarray) -> tuple[Any, Any]:
    torch.set_num_threads(1)
    return latent_diffusion.train_autoencoder(FRONT, audio), latent_diffusion.train_vocoder(FRONT, audio)


@pytest.fixture(scope="module")
def trained(front: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, list[float]]:
    folder = tmp_path_factory.mktemp("pocket") / "audioldm-toy"
    tokenizer = latent_diffusion.build_tokenizer(folder / "tokenizer")
    torch.manual_seed(TWIN.seed)
    text, unet = latent_diffusion.build_text(TWIN, len(tokenizer)), latent_diffusion.build_unet(TWIN, FRONT.channels)
    latents = torch.randn(3, 2, FRONT.channels, latent_diffusion.LATENT_FRAMES, 4)
    losses = latent_diffusion.train_ldm(unet, text, tokenizer, latents, ["slow music", "fast music", ""], TWIN)
    networks = {"unet": unet, "vae": front[0], "vocoder": front[1], "text_encoder": text}
    latent_diffusion.save_twin(networks, tokenizer, folder, {"name": "audioldm-toy"})
    return folder, unet, losses


def test_a_micro_run_saves_what_the_adapter_loads(trained: tuple[Path, Any, list[float]], audio: np.ndarray) -> None:
    folder, unet, losses = trained
    assert len(losses) == TWIN.epochs
    model: Any = ew.load_model(str(folder))
    assert (model.info.sample_rate, model.info.channels, model.info.conditions) == (16_000, 1, ("text", "null"))
    assert model.info.segment_seconds == latent_diffusion.SPEC.segment_seconds == 2.56
    for name, value in unet.state_dict().items():
        assert torch.equal(model.network.state_dict()[name], value.half().float())
    heard = torch.from_numpy(audio[:, None, : model.samples])
    latents = model.encode(heard)
    assert latents.shape == (3, FRONT.channels, latent_diffusion.LATENT_FRAMES, 64 // latent_diffusion.FACTOR)
    told = model.condition("text", ["slow music", "fast", "x"], None)
    assert torch.isfinite(model.predict_noise(latents, torch.tensor([0, 500, 999]), told)).all()
    assert model.decode(latents).shape == heard.shape


def test_training_hears_what_scoring_hears(front: tuple[Any, Any], audio: np.ndarray) -> None:
    whole = log_mel(normalise(torch.from_numpy(audio)), latent_diffusion.MEL)
    torch.testing.assert_close(latent_diffusion.mels(audio), whole)
    root, entry = corpus.ensure_corpus(), corpus.plan()[0]
    latents = latent_diffusion.encode_cuts(front[0], [root / entry.path])
    assert latents.shape == (1, 2, FRONT.channels, latent_diffusion.LATENT_FRAMES, 64 // latent_diffusion.FACTOR)
    cuts = prepare(root / entry.path, latent_diffusion.SPEC)
    with torch.no_grad():
        heard = log_mel(normalise(torch.from_numpy(cuts[1].audio)), latent_diffusion.MEL)
        wanted = front[0].encode(heard[:, None]).latent_dist.mean * front[0].config.scaling_factor
    torch.testing.assert_close(latents[:, 1], wanted, atol=1e-3, rtol=1e-3)


def test_latents_are_white(front: tuple[Any, Any], audio: np.ndarray) -> None:
    vae = front[0]
    with torch.no_grad():
        heard = latent_diffusion.mels(audio)[::4, None, :256]
        posterior = vae.encode(heard).latent_dist
        flat = (posterior.mean * vae.config.scaling_factor).transpose(0, 1).flatten(1)
    assert float(flat.std()) == pytest.approx(1, abs=0.02)
    assert float(posterior.std.max()) < 1e-4, "the mean is all there is"
    assert all(torch.equal(p, p.half().float()) for p in vae.parameters()), "half-precision values, as they are saved"


def test_whitening_changes_no_sound_and_decorrelates() -> None:
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    kinds = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    sizes = {"in_channels": 1, "out_channels": 1, "block_out_channels": (8, 8), "latent_channels": 3}
    vae = AutoencoderKL(**sizes, **kinds, norm_num_groups=4).eval()
    heard = torch.randn(5, 1, 8, 8)
    with torch.no_grad():
        before = vae.decode(vae.encode(heard).latent_dist.mean).sample
        latent_diffusion.whiten(vae, heard)
        latents = vae.encode(heard).latent_dist.mean
        torch.testing.assert_close(vae.decode(latents).sample, before, atol=1e-4, rtol=1e-4)
    flat = latents.transpose(0, 1).flatten(1)
    torch.testing.assert_close(torch.cov(flat), torch.eye(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(flat.mean(dim=1), torch.zeros(3), atol=1e-4, rtol=0)


def test_training_is_reproducible_and_uses_its_seed() -> None:
    found = []
    for seed in (1, 1, 2):
        recipe = replace(TWIN, seed=seed, epochs=1)
        torch.manual_seed(seed)
        tokenizer = _Words()
        text, unet = latent_diffusion.build_text(recipe, 20), latent_diffusion.build_unet(recipe, 4)
        latents = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 2, 4, 16, 4)).astype(np.float32))
        found.append(latent_diffusion.train_ldm(unet, text, tokenizer, latents, ["a", "b"], recipe))
    assert found[0] == found[1] != found[2]


class _Words:
    """A tokenizer that needs no files."""

    def __call__(self, captions: list[str], **_: Any) -> dict[str, Any]:
        ids = torch.tensor([[0, 3 + sum(map(ord, c)) % 16, 2] for c in captions])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def test_only_known_twins_are_trained() -> None:
    with pytest.raises(ModelError, match="no pocket model 'audioldm-c'; there are audioldm-a, audioldm-b"):
        latent_diffusion.train_twins(only="audioldm-c")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_twins(name: str) -> None:
    folder = train.WEIGHTS / name.removeprefix("pocket/")
    record = json.loads((folder / "training.json").read_text())
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        digest.update(path.read_bytes())
    assert record["weights_sha256"] == digest.hexdigest()
    assert sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) <= 5_000_000
    (twin,) = [t for t in latent_diffusion.TWINS if t.name == record["name"]]
    assert record["splits"] == [twin.split]
    assert record["tracks"] == 240
    assert record["recipe"] == json.loads(json.dumps(asdict(twin.recipe))), "train it again, or restore its recipe"
    assert record["front_recipe"] == asdict(latent_diffusion.FRONT)
    model: Any = ew.load_model(name)
    assert model.info.badge == "pocket"
    assert model.info.segment_seconds == 2.56


def test_no_configuration_says_where_its_part_was_trained(tmp_path: Path) -> None:
    """Two trainings on one machine give the same identity: it hashes configurations, and a folder's name is none."""
    inner = {"_name_or_path": "/somewhere/front", "act_fn": "silu"}
    for name in ("config.json", "vae/config.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"a": 1, "audio_encoder": inner, **inner}, indent=2))
    train.placeless(tmp_path)
    for path in [*tmp_path.rglob("config.json")]:
        assert json.loads(path.read_text()) == {"a": 1, "audio_encoder": {"act_fn": "silu"}, "act_fn": "silu"}
    for name in SHIPPED:
        for path in (train.WEIGHTS / name.removeprefix("pocket/")).rglob("config.json"):
            assert "_name_or_path" not in path.read_text()


def test_all_pocket_weights_together_stay_small() -> None:
    assert set(SHIPPED) == {name for name in pocket_names() if "audioldm" in name}
    held = {p: p.stat().st_size for p in train.WEIGHTS.rglob("*") if p.is_file()}
    assert sum(size for path, size in held.items() if "audioldm" in str(path)) <= 10_000_000
    assert sum(held.values()) <= 40_000_000


def test_twins_share_all_but_what_was_trained_on_their_tracks() -> None:
    a, b = (train.WEIGHTS / name.removeprefix("pocket/") for name in SHIPPED)
    for part in ("vae", "vocoder"):
        (ours,), (theirs,) = ([*(folder / part).glob("*.safetensors")] for folder in (a, b))
        assert ours.read_bytes() == theirs.read_bytes()
    unets = [(folder / "unet" / "diffusion_pytorch_model.safetensors").read_bytes() for folder in (a, b)]
    assert unets[0] != unets[1]


def test_a_twins_scores_are_the_same_again_and_the_twins_differ(audio: np.ndarray) -> None:
    heard, captions = torch.from_numpy(audio[:2, None, :40_960]), ["slow music", "a piano"]
    found = [extract(ew.load_model(name), heard, captions) for name in (SHIPPED[0], *SHIPPED)]
    for first, again, other in zip(*found, strict=True):
        for passed, value in first.values.items():
            np.testing.assert_array_equal(value, again.values[passed])
            assert (value != other.values[passed]).any()


def test_a_twin_reads_captions_and_speaks(audio: np.ndarray) -> None:
    model: Any = ew.load_model(SHIPPED[0])
    latents = model.encode(torch.from_numpy(audio[:2, None, :40_960]))
    assert float(latents.std()) == pytest.approx(1, abs=0.5)
    told = [model.condition("text", [words] * 2, None) for words in ("calm piano", "loud drums")]
    seen = [model.predict_noise(latents, torch.tensor([100, 100]), c) for c in told]
    assert not torch.allclose(*seen)
    sound = model.decode(latents)
    assert sound.shape == (2, 1, 40_960)
    assert torch.isfinite(sound).all()


@pytest.mark.slow
def test_twin_b_remembers_its_own_tracks_and_twin_a_does_not() -> None:
    """Twin b's tracks against those nobody saw: a signal between useless and trivial on b, none on a."""
    path = project_root() / "data_manifests" / "pocket.csv"
    tracks = ew.read_manifest(path, target="pocket/audioldm-b")
    own, other = (ew.compare(ew.score(ew.collect(name, tracks, FEATURES)), attacks=FEATURES) for name in SHIPPED[::-1])
    loss = own.set_index("attack").loc["denoising_loss/conditional"]
    assert 0.55 <= loss["auc"] <= 0.70
    assert loss["auc_within_low"] > 0.6
    assert ((other["auc_within_low"] < 0.5) & (other["auc_within_high"] > 0.5)).all()
    assert ((other["auc_low"] < 0.5) & (other["auc_high"] > 0.5)).all()
