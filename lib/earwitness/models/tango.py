"""Tango and Tango 2: AudioLDM's latents, a UNet that attends to FLAN-T5.

Two layouts are read: parts in diffusers' layout (``model_index.json`` names a ``TangoPipeline``), and the authors' own,
where one ``pytorch_model_main.bin`` holds UNet and text encoder. What Tango's code fetches from elsewhere is here: the
numbers of the scheduler, whose repository (Stable Diffusion 2.1) is gone from the hub, and the UNet's configuration.
Only the text encoder's configuration and tokenizer come from the folder or the hub's cache, by the name that
``main_config.json`` gives. A part's own folder (``scheduler/``, ``unet/``, ``text_encoder/`` and ``tokenizer/``) rules,
where there is one. Read the prediction type: it is v in the releases.
The null condition is the empty prompt, which the default training never nulled: a contrast against it measures how well
the caption fits, not a guidance gap.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earwitness.errors import ModelError
from earwitness.models import latent_diffusion, loading
from earwitness.models.audiocraft_files import TEXT_ENCODER
from earwitness.models.files import PIPELINE, TANGO_CONFIG, TANGO_WEIGHTS, locate_part, read_json
from earwitness.models.latent_diffusion import MelSpec, mel_matrix
from earwitness.models.loading import badge

if TYPE_CHECKING:
    from torch import Tensor

    from earwitness.models.base import Condition
    from earwitness.types import ModelInfo

LIBRARIES = ("diffusers",)
NEEDED = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
STABLE_DIFFUSION = "stabilityai/stable-diffusion-2-1"
SCHEDULERS = {  # as that repository published them, and its mirrors do
    STABLE_DIFFUSION: {
        "_class_name": "DDIMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000, "prediction_type": "v_prediction",
    },
}  # fmt: skip
UNET = {  # configs/diffusion_model_config.json of Tango's repository, tango2's too
    "block_out_channels": [320, 640, 1280, 1280], "attention_head_dim": [5, 10, 20, 20], "in_channels": 8,
    "out_channels": 8, "cross_attention_dim": 1024, "sample_size": [32, 2], "layers_per_block": 2,
    "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3], "norm_num_groups": 32, "norm_eps": 1e-5,
    "act_fn": "silu", "flip_sin_to_cos": True, "freq_shift": 0, "downsample_padding": 1, "mid_block_scale_factor": 1,
    "use_linear_projection": True, "upcast_attention": True,
}  # fmt: skip
WIDTHS = {"configs/diffusion_model_config.json": 1024, "configs/diffusion_model_xl_config.json": 2048}
MAIN, VAE, STFT = TANGO_WEIGHTS
SPEC = MelSpec.of(16_000, 64, 160)
SECONDS = 10.24  # fixed in Tango's code, whatever the configuration says


def describe(folder: Path, config: dict[str, Any], *, pocket: bool) -> dict[str, Any]:
    """Return the fields of ``ModelInfo`` that the folder determines."""
    native = _is_native(folder)
    if native:
        _scheduler(folder, config)
        _unet(folder, config)
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


def parts(folder: Path, config: dict[str, Any]) -> list[str]:
    """Return the name of the text encoder, where its configuration or its tokenizer is not in the folder."""
    if not _is_native(folder) or all((folder / name).is_dir() for name in ("text_encoder", "tokenizer")):
        return []
    name = str(config.get("text_encoder_name"))
    if not TEXT_ENCODER.fullmatch(name):
        raise ModelError(f"{folder.name}/{TANGO_CONFIG}: the text encoder {name[:80]!r} is no T5 of the hub")
    return [name]


def _scheduler(folder: Path, config: dict[str, Any]) -> latent_diffusion.Schedule:
    """Return the training schedule that the folder holds or names."""
    if (folder / "scheduler").is_dir():
        return latent_diffusion.schedule(folder)
    name = str(config.get("scheduler_name"))
    if name not in SCHEDULERS:
        raise ModelError(
            f"{folder.name}/{TANGO_CONFIG}: names the scheduler of {name[:80]!r}, which is not known here; put its "
            f"scheduler_config.json into {folder.name}/scheduler/"
        )
    return latent_diffusion.read_schedule(SCHEDULERS[name], name)


def _unet(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of the UNet that the folder holds or names."""
    if (folder / "unet").is_dir():
        return read_json(folder / "unet" / "config.json")
    if config.get("unet_model_name"):
        raise ModelError(f"{folder.name}: built on {config['unet_model_name']!r}; only Tango's own UNet is read")
    name = str(config.get("unet_model_config_path"))
    if name not in WIDTHS:
        raise ModelError(
            f"{folder.name}/{TANGO_CONFIG}: names the configuration {name[:80]!r} for its UNet, which is not known "
            f"here; put that file there as {folder.name}/unet/config.json"
        )
    return UNET | {"cross_attention_dim": WIDTHS[name]}


def _size(folder: Path) -> int:
    """Return the number of values in the native layout's UNet."""
    return sum(tensor.numel() for tensor in loading.below(loading.tensors(folder / MAIN), "unet.").values())


def load(folder: Path, info: ModelInfo) -> Tango:
    """Load a Tango folder of either layout (see ``earwitness.models.load_model``)."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import SpeechT5HifiGan, T5EncoderModel

    if _is_native(folder):
        config = read_json(folder / TANGO_CONFIG)
        outside = [locate_part(folder, name) for name in parts(folder, config)]
        beside = outside[0] if outside else None
        schedule, loaded = _scheduler(folder, config), _native(folder, config, beside, info.dtype)
        tokenizer = beside or folder / "tokenizer"
    else:
        schedule, tokenizer = latent_diffusion.schedule(folder), folder / "tokenizer"
        kinds = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": T5EncoderModel}
        kinds |= {"vocoder": SpeechT5HifiGan} if (folder / "vocoder").is_dir() else {}
        loaded = loading.load_parts(folder, info.dtype, **kinds)
    loaded["tokenizer"] = loading.load_tokenizer(tokenizer, loading.LONGEST_TEXT)
    return Tango(loaded, schedule, SPEC, info)


def _native(folder: Path, config: dict[str, Any], beside: Path | None, dtype: str) -> dict[str, Any]:
    """Build the parts of the authors' own layout; ``beside`` holds the text encoder's configuration."""
    import torch
    from diffusers import UNet2DConditionModel
    from transformers import T5Config, T5EncoderModel

    loading.quiet()
    _check_front_end(folder)
    weights = loading.tensors(folder / MAIN)
    with torch.device("meta"):
        encoder = read_json((beside or folder / "text_encoder") / "config.json")
        text = T5EncoderModel(T5Config.from_dict(encoder))
    states = loading.below(weights, "text_encoder.")
    states.setdefault("encoder.embed_tokens.weight", states.get("shared.weight", torch.empty(0)))
    return {
        "unet": loading.filled(
            UNet2DConditionModel, _unet(folder, config), loading.below(weights, "unet."), folder / MAIN, dtype
        ),
        "text_encoder": loading.fill(text, states, f"{folder.name}/{MAIN}: text_encoder", dtype),
        "vae": _autoencoder(folder, dtype),
    }


def _autoencoder(folder: Path, dtype: str) -> Any:
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
    weights = {name: t for name, t in loading.tensors(folder / VAE).items() if not name.startswith("vocoder.")}
    return loading.filled(AutoencoderKL, arguments, convert_ldm_vae_checkpoint(weights, arguments), folder / VAE, dtype)


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
    basis = loading.tensors(folder / STFT).get("mel_basis") if (folder / STFT).is_file() else None
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
