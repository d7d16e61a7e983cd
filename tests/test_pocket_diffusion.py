"""The pocket diffusion twins: a micro training run in the real format, and the weights that are shipped."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import earwitness as ew  # noqa: E402
from earwitness.errors import ModelError  # noqa: E402
from earwitness.models import pocket_names  # noqa: E402
from earwitness.models.mel import log_mel, normalise  # noqa: E402
from earwitness.pocket import corpus, ldm, train, train_ldm  # noqa: E402
from tests.tiny import tune  # noqa: E402

FRONT = ldm.FrontRecipe(steps=2, vocoder_steps=2, batch=2)
TWIN = ldm.LdmRecipe(seed=3, windows=2, epochs=2, batch=2)
SHIPPED = [name for name in pocket_names() if name.startswith("pocket/audioldm")]


@pytest.fixture(scope="module")
def audio() -> np.ndarray:
    return np.array([tune(6.0, seed=n) for n in range(3)])


@pytest.fixture(scope="module")
def front(audio: np.ndarray) -> tuple[Any, Any]:
    torch.set_num_threads(1)
    return ldm.train_autoencoder(FRONT, audio), ldm.train_vocoder(FRONT, audio)


@pytest.fixture(scope="module")
def trained(front: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, list[float]]:
    folder = tmp_path_factory.mktemp("pocket") / "audioldm-toy"
    tokenizer = ldm.build_tokenizer(folder / "tokenizer")
    torch.manual_seed(TWIN.seed)
    text, unet = ldm.build_text(TWIN, len(tokenizer)), ldm.build_unet(TWIN, FRONT.channels)
    latents = torch.randn(3, 2, FRONT.channels, ldm.LATENT_FRAMES, 4)
    losses = ldm.train_ldm(unet, text, tokenizer, latents, ["slow music", "fast music", ""], TWIN)
    networks = {"unet": unet, "vae": front[0], "vocoder": front[1], "text_encoder": text}
    train_ldm.save_twin(networks, tokenizer, folder, {"name": "audioldm-toy"})
    return folder, unet, losses


def test_a_micro_run_saves_what_the_adapter_loads(trained: tuple[Path, Any, list[float]], audio: np.ndarray) -> None:
    folder, unet, losses = trained
    assert len(losses) == TWIN.epochs
    model: Any = ew.load_model(str(folder))
    assert (model.info.sample_rate, model.info.channels, model.info.conditions) == (16_000, 1, ("text", "null"))
    assert model.info.segment_seconds == ldm.SPEC.segment_seconds == 2.56
    for name, value in unet.state_dict().items():
        assert torch.equal(model.network.state_dict()[name], value.half().float())
    heard = torch.from_numpy(audio[:, None, : model.samples])
    latents = model.encode(heard)
    assert latents.shape == (3, FRONT.channels, ldm.LATENT_FRAMES, 64 // ldm.FACTOR)
    told = model.condition("text", ["slow music", "fast", "x"], None)
    assert torch.isfinite(model.predict_noise(latents, torch.tensor([0, 500, 999]), told)).all()
    assert model.decode(latents).shape == heard.shape


def test_training_hears_what_scoring_hears(front: tuple[Any, Any], audio: np.ndarray) -> None:
    whole = log_mel(normalise(torch.from_numpy(audio)), ldm.MEL)
    torch.testing.assert_close(ldm.mels(audio), whole)
    entries = corpus.plan()[:2]
    root = corpus.ensure_corpus()
    latents = ldm.encode_windows(front[0], [root / e.path for e in entries], 3, seed=1)
    assert latents.shape == (2, 3, FRONT.channels, ldm.LATENT_FRAMES, 64 // ldm.FACTOR)
    again = ldm.encode_windows(front[0], [root / e.path for e in entries], 3, seed=1)
    assert torch.equal(latents, again)
    assert not torch.equal(latents, ldm.encode_windows(front[0], [root / e.path for e in entries], 3, seed=2))


def test_the_vae_scales_its_latents_to_variance_one(front: tuple[Any, Any], audio: np.ndarray) -> None:
    vae = front[0]
    with torch.no_grad():
        sample = vae.encode(ldm.mels(audio)[::4, None, :256]).latent_dist.mean * vae.config.scaling_factor
    assert float(sample.std()) == pytest.approx(1, abs=1e-2)
    assert all(torch.equal(p, p.half().float()) for p in vae.parameters()), "half-precision values, as they are saved"


def test_training_is_reproducible_and_uses_its_seed() -> None:
    found = []
    for seed in (1, 1, 2):
        recipe = replace(TWIN, seed=seed, epochs=1)
        torch.manual_seed(seed)
        tokenizer = _Words()
        text, unet = ldm.build_text(recipe, 20), ldm.build_unet(recipe, 4)
        latents = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 2, 4, 16, 4)).astype(np.float32))
        found.append(ldm.train_ldm(unet, text, tokenizer, latents, ["a", "b"], recipe))
    assert found[0] == found[1] != found[2]


class _Words:
    """A tokenizer that needs no files."""

    def __call__(self, captions: list[str], **_: Any) -> dict[str, Any]:
        ids = torch.tensor([[0, 3 + sum(map(ord, c)) % 16, 2] for c in captions])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def test_only_known_twins_are_trained() -> None:
    with pytest.raises(ModelError, match="no pocket model 'audioldm-c'; there are audioldm-a, audioldm-b"):
        train_ldm.train_twins(only="audioldm-c")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_twins(name: str) -> None:
    folder = train.WEIGHTS / name.removeprefix("pocket/")
    record = json.loads((folder / "training.json").read_text())
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        digest.update(path.read_bytes())
    assert record["weights_sha256"] == digest.hexdigest()
    assert sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) <= 5_000_000
    (twin,) = [t for t in train_ldm.TWINS if t.name == record["name"]]
    assert record["splits"] == [twin.split]
    assert record["tracks"] == 240
    model: Any = ew.load_model(name)
    assert model.info.badge == "pocket"
    assert model.info.segment_seconds == 2.56
