"""Tango and Tango 2: AudioLDM's latents, a UNet that attends to FLAN-T5.

Two layouts are read: parts in diffusers' layout (``model_index.json`` names a ``TangoPipeline``), and the authors' own,
where one ``pytorch_model_main.bin`` holds UNet and text encoder. The latter is pickled and loaded with
``weights_only`` alone. What Tango's code fetches from elsewhere must lie in the same folder: ``scheduler/``
(of Stable Diffusion 2.1), ``text_encoder/config.json`` and ``tokenizer/`` (of FLAN-T5), ``unet/config.json``
(``configs/diffusion_model_config.json`` of Tango's repository). Read the prediction type: it is v in the releases.
The null condition is the empty prompt, which the default training never nulled: a contrast against it measures how well
the caption fits, not a guidance gap.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earwitness.errors import ModelError
from earwitness.models import latent_diffusion, loading
from earwitness.models.files import PIPELINE, TANGO_WEIGHTS, read_json
from earwitness.models.latent_diffusion import MelSpec, mel_matrix
from earwitness.models.loading import badge

if TYPE_CHECKING:
    from torch import Tensor

    from earwitness.models.base import Condition
    from earwitness.types import ModelInfo

LIBRARIES = ("diffusers",)
NEEDED = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
NATIVE = ("unet", "text_encoder", "tokenizer", "scheduler")  # folders beside the single files
ELSEWHERE = (
    ", which Tango's code fetches from elsewhere: put them into the folder as the book page Methods: models says"
)
MAIN, VAE, STFT = TANGO_WEIGHTS
SPEC = MelSpec.of(16_000, 64, 160)
SECONDS = 10.24  # fixed in Tango's code, whatever the configuration says


def describe(folder: Path, config: dict[str, Any], *, pocket: bool) -> dict[str, Any]:
    """Return the fields of ``ModelInfo`` that the folder determines."""
    native = _is_native(folder)
    if native:
        loading.require(folder, NATIVE, ELSEWHERE)
    else:
        loading.require(folder, NEEDED)
    return {
        "family": "diffusion",
        "sample_rate": SPEC.sample_rate,
        "channels": 1,
        "mixdown": "first",
        "segment_seconds": SECONDS,
        "badge": badge(_size(folder), pocket=pocket) if native else loading.label(folder, "unet", pocket=pocket),
        "conditions": ("text", "null"),
    }


def _is_native(folder: Path) -> bool:
    """Say whether a folder has the layout of Tango's authors, whole or not."""
    return (folder / MAIN).is_file() or not (folder / PIPELINE).is_file()


def _size(folder: Path) -> int:
    """Return the number of values in the native layout's UNet."""
    return sum(tensor.numel() for tensor in _under(_unpickled(folder, MAIN), "unet.").values())


def _unpickled(folder: Path, name: str) -> dict[str, Tensor]:
    """Read tensors from a ``.bin`` file, and nothing but tensors; they stay on disk until used."""
    import pickle

    import torch

    try:
        found = torch.load(folder / name, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError:
        raise ModelError(f"{folder.name}/{name}: expected this file, found none; is the download complete?") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).strip().splitlines()[0][:120]
        raise ModelError(
            f"{folder.name}/{name}: not plain tensors ({reason}); nothing else is ever unpickled"
        ) from None
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise ModelError(f"{folder.name}/{name}: expected named tensors only")
    return found


def load(folder: Path, info: ModelInfo) -> Tango:
    """Load a Tango folder of either layout (see ``earwitness.models.load_model``)."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import SpeechT5HifiGan, T5EncoderModel

    schedule = latent_diffusion.schedule(folder)
    if _is_native(folder):
        loaded = _native(folder, info.dtype)
    else:
        kinds = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": T5EncoderModel}
        kinds |= {"vocoder": SpeechT5HifiGan} if (folder / "vocoder").is_dir() else {}
        loaded = {name: loading.load_part(folder, name, kind, info.dtype) for name, kind in kinds.items()}
    loaded["tokenizer"] = loading.load_part_tokenizer(folder, "tokenizer")
    return Tango(loaded, schedule, SPEC, info)


def _native(folder: Path, dtype: str) -> dict[str, Any]:
    """Build the parts of the authors' own layout."""
    import torch
    from diffusers import UNet2DConditionModel
    from transformers import T5Config, T5EncoderModel

    loading.quiet_diffusers()
    main = read_json(folder / "main_config.json")
    if main.get("unet_model_name"):
        raise ModelError(f"{folder.name}: built on {main['unet_model_name']!r}; only Tango's own UNet is read")
    _check_front_end(folder)
    unet = loading.skeleton(UNet2DConditionModel, read_json(folder / "unet" / "config.json"), folder / "unet")
    with torch.device("meta"):
        text = T5EncoderModel(T5Config.from_dict(read_json(folder / "text_encoder" / "config.json")))
    weights = _unpickled(folder, MAIN)
    _fill(unet, _under(weights, "unet."), f"{folder.name}/{MAIN}: unet")
    states = _under(weights, "text_encoder.")
    states.setdefault("encoder.embed_tokens.weight", states.get("shared.weight", torch.empty(0)))
    _fill(text, states, f"{folder.name}/{MAIN}: text_encoder")
    found = {"unet": unet, "text_encoder": text, "vae": _autoencoder(folder)}
    return {k: v.to(getattr(torch, dtype)).eval().requires_grad_(requires_grad=False) for k, v in found.items()}


def _under(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors under a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def _fill(network: Any, weights: dict[str, Tensor], where: str) -> None:
    """Give a network on the meta device its weights; every one must be there and fit."""
    loading.check_fit(network, {name: tuple(value.shape) for name, value in weights.items()}, where)
    network.load_state_dict({name: weights[name] for name in network.state_dict()}, assign=True)


def _autoencoder(folder: Path) -> Any:
    """Turn AudioLDM's native autoencoder into diffusers'; its vocoder is left behind, so nothing can be decoded."""
    from diffusers import AutoencoderKL
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    config = read_json(folder / "vae_config.json")
    try:
        shape = config["ddconfig"]
        widths = [shape["ch"] * m for m in shape["ch_mult"]]
        arguments = {
            "in_channels": shape["in_channels"],
            "out_channels": shape["out_ch"],
            "block_out_channels": widths,
            "down_block_types": ["DownEncoderBlock2D"] * len(widths),
            "up_block_types": ["UpDecoderBlock2D"] * len(widths),
            "latent_channels": config["embed_dim"],
            "layers_per_block": shape["num_res_blocks"],
            "scaling_factor": float(config["scale_factor"]),
        }
    except (KeyError, TypeError) as error:
        raise ModelError(f"{folder.name}/vae_config.json: lacks {error}; fetch the file again") from None
    vae = loading.skeleton(AutoencoderKL, arguments, folder / "vae_config.json")
    weights = {name: value for name, value in _unpickled(folder, VAE).items() if not name.startswith("vocoder.")}
    _fill(vae, convert_ldm_vae_checkpoint(weights, arguments), f"{folder.name}/{VAE}")
    return vae


def _check_front_end(folder: Path) -> None:
    """Refuse a front end other than Tango's; where its weights are there, their mel matrix must be ours."""
    config = read_json(folder / "stft_config.json")
    wanted = {
        "filter_length": SPEC.window, "hop_length": SPEC.hop, "win_length": SPEC.window, "n_mel_channels": SPEC.bands,
        "sampling_rate": SPEC.sample_rate, "mel_fmin": SPEC.lowest, "mel_fmax": SPEC.highest,
    }  # fmt: skip
    for name, value in wanted.items():
        if not math.isclose(config.get(name, math.nan), value):
            raise ModelError(f"{folder.name}/stft_config.json: {name} is {config.get(name)}, Tango's is {value:g}")
    basis = _unpickled(folder, STFT).get("mel_basis") if (folder / STFT).is_file() else None
    if basis is not None and not (
        basis.shape == mel_matrix(SPEC).T.shape and bool((basis - mel_matrix(SPEC).T).abs().max() < 1e-6)
    ):
        raise ModelError(f"{folder.name}/{STFT}: its mel matrix differs from the published front end's")


class Tango(latent_diffusion.MelLatentModel):
    """A loaded Tango or Tango 2."""

    def read(self, caption: str | None) -> Condition:
        """Return FLAN-T5's states of one caption and their mask; the null condition is the empty caption."""
        tokenizer, encoder = self.parts["tokenizer"], self.parts["text_encoder"]
        text = tokenizer([caption or ""], max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt")
        ids = text["input_ids"].to(encoder.device)
        return {"states": encoder(ids).last_hidden_state[0], "mask": ids[0] == ids[0]}

    def ask(self, z_t: Tensor, time: Tensor, condition: Condition) -> Tensor:
        """Return the UNet's output."""
        output: Tensor = self.network(
            z_t,
            time,
            encoder_hidden_states=condition["states"].to(z_t.dtype),
            encoder_attention_mask=condition["mask"],
            return_dict=False,
        )[0]
        return output
