"""Stable Audio in its authors' layout: loaded, asked as their program asks, collected, refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import earwitness as ew
from earwitness.errors import ModelError
from earwitness.models.cards import identity
from earwitness.types import Track
from tests import tiny_diffusion as tiny
from tests.tiny import recording

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.stable_audio_tools(tmp_path_factory.mktemp("native") / "small")


def twin(folder: Path, z: Any, t: float, words: Any, seconds: list[float]) -> Any:
    """Compute the network's output from the tensors by their own names, one formula after the other."""
    from safetensors.torch import load_file

    config = json.loads((folder / "model_config.json").read_text())["model"]["diffusion"]
    held, names = load_file(folder / "model.safetensors"), config["global_cond_ids"]
    w = {k.removeprefix("model.model."): v for k, v in held.items()}
    silu, heads = torch.nn.functional.silu, lambda x: x.reshape(x.shape[0], -1, 64).transpose(0, 1)

    def two(x: Any, name: str) -> Any:
        hidden = x @ w[f"{name}.0.weight"].T + w.get(f"{name}.0.bias", 0)
        return silu(hidden) @ w[f"{name}.2.weight"].T + w.get(f"{name}.2.bias", 0)

    def number(name: str, value: float) -> Any:
        where, x = f"conditioner.conditioners.{name}.embedder.embedding", torch.tensor([value / 256])
        waves = x * held[f"{where}.0.weights"] * 2 * math.pi
        return torch.cat([x, waves.sin(), waves.cos()]) @ held[f"{where}.1.weight"].T + held[f"{where}.1.bias"]

    def norm(x: Any, name: str) -> Any:
        return torch.nn.functional.layer_norm(x, x.shape[-1:], w[f"{name}.gamma"], w[f"{name}.beta"])

    def turn(x: Any) -> Any:
        freqs = torch.outer(torch.arange(x.shape[1]), 1 / 10000 ** (torch.arange(0, 32, 2) / 32)).repeat(1, 2)
        a, b = x[..., :16], x[..., 16:32]
        return torch.cat([x[..., :32] * freqs.cos() + torch.cat([-b, a], -1) * freqs.sin(), x[..., 32:]], -1)

    def attend(q: Any, k: Any, v: Any, name: str, *, turned: bool) -> Any:
        for letter in "qk" if f"{name}.q_norm.weight" in w else "":
            x, how = (q if letter == "q" else k), f"{name}.{letter}_norm"
            x = torch.nn.functional.layer_norm(x, (64,), w[f"{how}.weight"], w[f"{how}.bias"], eps=1e-6)
            q, k = (x, k) if letter == "q" else (q, x)
        q, k = (turn(q), turn(k)) if turned else (q, k)
        k, v = (x.repeat_interleave(len(q) // len(x), dim=0) for x in (k, v))
        mixed = torch.softmax(q @ k.transpose(1, 2) / 8, dim=-1) @ v
        return mixed.transpose(0, 1).flatten(1) @ w[f"{name}.to_out.weight"].T

    span = [number(name, value) for name, value in zip(names, seconds, strict=True)]
    context = two(torch.cat([words, torch.stack(span)]), "to_cond_embed")
    waves = 2 * math.pi * t * w["timestep_features.weight"][:, 0]
    first = two(torch.cat(span), "to_global_embed") + two(torch.cat([waves.cos(), waves.sin()]), "to_timestep_embed")
    x = (w["preprocess_conv.weight"][..., 0] @ z + z).T @ w["transformer.project_in.weight"].T
    x = torch.cat([first[None], x])
    for layer in ("transformer.layers.0", "transformer.layers.1"):
        q, k, v = (norm(x, f"{layer}.pre_norm") @ w[f"{layer}.self_attn.to_qkv.weight"].T).chunk(3, -1)
        x = x + attend(heads(q), heads(k), heads(v), f"{layer}.self_attn", turned=True)
        q = norm(x, f"{layer}.cross_attend_norm") @ w[f"{layer}.cross_attn.to_q.weight"].T
        k, v = (context @ w[f"{layer}.cross_attn.to_kv.weight"].T).chunk(2, -1)
        x = x + attend(heads(q), heads(k), heads(v), f"{layer}.cross_attn", turned=False)
        value, gate = (
            norm(x, f"{layer}.ff_norm") @ w[f"{layer}.ff.ff.0.proj.weight"].T + w[f"{layer}.ff.ff.0.proj.bias"]
        ).chunk(2, -1)
        x = x + (value * silu(gate)) @ w[f"{layer}.ff.ff.2.weight"].T + w[f"{layer}.ff.ff.2.bias"]
    out = (x @ w["transformer.project_out.weight"].T)[1:].T
    return w["postprocess_conv.weight"][..., 0] @ out + out


@pytest.mark.parametrize(
    ("objective", "start"), [("rf_denoiser", False), ("rectified_flow", False), ("v", True)], ids=str
)
def test_the_network_is_the_authors(objective: str, start: bool, tmp_path: Path) -> None:
    """Against a slow twin: norms of queries and keys, positions, what it is told; the objective as it is named."""
    from diffusers import AutoencoderOobleck

    folder = tiny.stable_audio_tools(tmp_path / "m", objective, start=start)
    model: Any = ew.load_model(str(folder))
    assert bool(model.info.remark) == (objective == "rf_denoiser")
    assert model.schedule.prediction == ("v_prediction" if objective == "v" else "flow")
    z, t = torch.randn(1, 4, 64), torch.tensor([300])
    told = model.placed(model.condition("text", ["sad rock"], None), [(12.3, 99.5)])
    with torch.no_grad():
        ours = model.ask(z, model.schedule.time(t), told)[0]
        theirs = twin(folder, z[0], 0.3, told["words"][0], [12.0, 100.0][not start :])
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)
        reference = AutoencoderOobleck.from_pretrained(tmp_path / "m-reference")
        audio = 0.1 * torch.randn(1, 2, 2048)
        torch.testing.assert_close(model.encode(audio), reference.encode(audio).latent_dist.mean)
        torch.testing.assert_close(model.decode(z), reference.decode(z).sample)
        null = model.placed(model.condition("null", ["sad rock"], None), [(12.3, 99.5)])
        attended, everywhere = model.told_apart(null)
        assert not attended.any()
        assert torch.equal(everywhere, model.told_apart(told)[1])


def test_a_small_is_collected_and_scored(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / "results"))
    info = ew.models.describe(str(small))
    assert (info.sample_rate, info.channels, info.segment_seconds) == (8000, 2, 0.256)
    assert "objective" in identity(str(small), allow_download=False)[1][0]
    tracks = [Track(f"t{s}", recording(tmp_path / f"{s}.wav", s, seed=i), "member", caption="sad rock")
              for i, s in enumerate((0.1, 0.7))]  # fmt: skip
    signals = ew.collect(str(small), tracks, ["denoising_loss", "pia", "secmi"], workers=0)
    scores = ew.score(signals, ["denoising_loss", "pia", "secmi"])
    assert scores["track_id"].nunique() == 2
    assert np.isfinite(scores["score"]).all()


def test_a_ckpt_is_read_as_safetensors_are(small: Path, tmp_path: Path) -> None:
    other: Any = ew.load_model(str(tiny.stable_audio_tools(tmp_path / "ckpt", ckpt=True)))
    model: Any = ew.load_model(str(small))
    z, told = torch.randn(1, 4, 64), model.condition("text", ["sad rock"], None)
    with torch.no_grad():
        assert torch.equal(
            model.predict_noise(z, torch.tensor([9]), told), other.predict_noise(z, torch.tensor([9]), told)
        )


def _config(*path: str, value: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "model_config.json"
        config = json.loads(file.read_text())
        place = config
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        file.write_text(json.dumps(config))

    return change


def _tensors(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        held = load_file(folder / "model.safetensors")
        change(held)
        save_file(held, folder / "model.safetensors")

    return rewrite


NETWORK = ("model", "diffusion", "config")
LAYER = "model.model.transformer.layers"
REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "objective": (_config("model", "diffusion", "diffusion_objective", value="x0"), "asks for the objective 'x0'"),
    "another program": (_config("model_type", value="autoencoder"), "asks for networks of the kinds"),
    "adaptive norms": (_config(*NETWORK, "global_cond_type", value="adaLN"), "options {'global_cond_type': 'adaLN'}"),
    "cosine": (_config(*NETWORK, "attn_kwargs", value={"qk_norm": "l2"}), "its network's options .*'l2'"),
    "narrow heads": (_config(*NETWORK, "num_heads", value=4), "heads of 32 values"),
    "no heads": (_config(*NETWORK, "num_heads", value=0), "num_heads: .*greater than or equal to 1"),
    "absurd depth": (_config(*NETWORK, "depth", value=10**9), "depth: .*less than or equal to 1000"),
    "absurd width": (_config(*NETWORK, "embed_dim", value=2**39), "has shape|describes no"),
    "deeper": (_config(*NETWORK, "depth", value=3), "the weights lack .* tensors, first transformer_blocks.2"),
    "shallower": (_config(*NETWORK, "depth", value=1), "the weights hold unknown .*transformer_blocks.1"),
    "scale": (_config("model", "pretransform", "scale", value=2.0), "latents on another scale"),
    "conditions": (_config("model", "diffusion", "global_cond_ids", value=[]), "conditions other than"),
    "text encoder": (
        _config("model", "conditioning", "configs", 0, "config", "t5_model_name", value=".."), "the text encoder '..'"),
    "no text encoder": (lambda f: (f / "t5-base").rename(f / "t5"), "'t5-base': not in the local cache"),
    "no network": (_config("model", "diffusion", value={}), "not a Stable Audio's .*KeyError"),
    "no window": (_config("sample_size", value=31), "windows of 0 frames"),
    "a missing tensor": (
        _tensors(lambda w: w.pop(f"{LAYER}.0.self_attn.q_norm.bias")), "lack 1 tensors, first .*norm_q"),
    "an unknown tensor": (
        _tensors(lambda w: w.update({f"{LAYER}.0.extra.weight": torch.zeros(1)})),
        "hold unknown 1 tensors, first .*extra"),
    "another autoencoder": (
        _tensors(lambda w: w.pop("pretransform.model.encoder.layers.2.layers.3.alpha")),
        "first encoder.block.1.snake1"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "expected weights as .*hf download"),
    "half": (lambda f: (f / "model.safetensors").write_bytes(b"x" * 99), "model.safetensors: damaged"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_read_is_refused(case: str, small: Path, tmp_path: Path) -> None:
    change, reason = REFUSED[case]
    folder = tiny.copy(small, tmp_path / "copy")
    change(folder)
    with pytest.raises(ModelError, match=reason) as caught:
        ew.load_model(str(folder))
    assert "\n" not in str(caught.value)
