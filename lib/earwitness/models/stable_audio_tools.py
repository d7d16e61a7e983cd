"""Stable Audio in its authors' layout (stable-audio-tools): ``model_config.json`` and one file of tensors.

So Stable Audio Open Small is published, and so people publish what they tuned from either. The networks are those of
``stable_audio``: sizes and names are turned into diffusers'. This layout has besides: layer norms of queries and keys,
flows, and networks that are told the recording's length but not where the clip starts. The text encoder is only named.
An ``rf_denoiser`` was tuned adversarially, which moved its objective; ``rectified_flow`` and ``v`` were not.
"""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from earwitness.errors import ModelError
from earwitness.models import loading
from earwitness.models.audiocraft_files import TEXT_ENCODER
from earwitness.models.files import NATIVE, read_json
from earwitness.models.latent_diffusion import CONTINUOUS, flow, read_schedule, wave
from earwitness.models.stable_audio import StableAudio
from earwitness.types import MOVED

if TYPE_CHECKING:
    from torch import Tensor

    from earwitness.types import ModelInfo

LIBRARIES = ("diffusers",)
NUMBERS = {"seconds_start": "start_number_conditioner", "seconds_total": "end_number_conditioner"}
OBJECTIVES = {"v": "", "rectified_flow": "", "rf_denoiser": MOVED}
SIZES = {"io_channels", "embed_dim", "depth", "num_heads", "cond_token_dim", "global_cond_dim", "project_cond_tokens"}
ONLY: dict[str, tuple[Any, ...]] = {  # of the network's other options, the values that are read
    "transformer_type": ("continuous_transformer",), "global_cond_type": ("prepend",), "patch_size": (1,),
    "timestep_cond_type": ("global",), "project_global_cond": (True,),
    "attn_kwargs": ({}, {"qk_norm": "none"}, {"qk_norm": "ln"}),
}  # fmt: skip
KINDS = ["diffusion_cond", "dit", "autoencoder", "oobleck", "oobleck", "vae"]
NARROWEST = 64  # values of a head: below it, positions turn another share of them
QUERY_NORM = 1e-6
RENAMED = (
    ("to_timestep_embed", "timestep_proj"), ("timestep_features", "time_proj"), ("to_global_embed", "global_proj"),
    ("to_cond_embed", "cross_attention_proj"), ("transformer.layers", "transformer_blocks"), ("transformer.", ""),
    ("project_", "proj_"), ("self_attn", "attn1"), ("cross_attn", "attn2"), ("q_norm", "norm_q"), ("k_norm", "norm_k"),
    ("cross_attend_norm", "norm2"), ("pre_norm", "norm1"), ("ff_norm", "norm3"), ("ff.ff", "ff.net"),
    ("to_out", "to_out.0"), ("gamma", "weight"), ("beta", "bias"),
)  # fmt: skip
UNITS = {"encoder": ["res_unit1", "res_unit2", "res_unit3", "snake1", "conv1"],
         "decoder": ["snake1", "conv_t1", "res_unit1", "res_unit2", "res_unit3"]}  # fmt: skip
INSIDE = ["snake1", "conv1", "snake2", "conv2"]


def _read(folder: Path, config: dict[str, Any]) -> SimpleNamespace:
    """Return the parts of a configuration that are read: what the networks are, in diffusers' words.

    Raises
    ------
    ModelError
        A configuration that lacks one of them, or asks for what is not read.
    """
    where = f"{folder.name}/{NATIVE}"
    try:
        model = config["model"]
        diffusion, outer, conditioning = model["diffusion"], model["pretransform"], model["conditioning"]
        network, vae = diffusion["config"], outer["config"]
        encoder = vae["encoder"]["config"]
        given = {each["id"]: each["config"] for each in conditioning["configs"]}
        numbers = [name for name in NUMBERS if name in given]
        ranges = {(given[name]["min_val"], given[name]["max_val"]) for name in numbers}
        head = network["embed_dim"] // network["num_heads"]
        told = network["embed_dim"] if network.get("project_cond_tokens", True) else network["cond_token_dim"]
        found = SimpleNamespace(
            objective=diffusion["diffusion_objective"], width=conditioning["cond_dim"], numbers=numbers, head=head,
            text=given["prompt"]["t5_model_name"], longest=given["prompt"].get("max_length", 128), range=max(ranges),
            normed=(network.get("attn_kwargs") or {}).get("qk_norm") == "ln",
            network={
                "in_channels": network["io_channels"], "out_channels": network["io_channels"],
                "num_layers": network["depth"], "attention_head_dim": head,
                "num_attention_heads": network["num_heads"], "num_key_value_attention_heads": told // head,
                "cross_attention_dim": told, "cross_attention_input_dim": network["cond_token_dim"],
                "global_states_input_dim": network["global_cond_dim"],
            },
            vae={
                "encoder_hidden_size": encoder["channels"], "downsampling_ratios": encoder["strides"],
                "channel_multiples": encoder["c_mults"], "decoder_channels": vae["decoder"]["config"]["channels"],
                "decoder_input_channels": vae["latent_dim"], "audio_channels": config["audio_channels"],
                "sampling_rate": config["sample_rate"],
            },
        )  # fmt: skip
        other = {k: v for k, v in network.items() if k not in SIZES and v not in ONLY.get(k, ())}
        same = diffusion["cross_attention_cond_ids"] == ["prompt", *numbers] and diffusion["global_cond_ids"] == numbers
        inner = [vae[name]["type"] for name in ("encoder", "decoder", "bottleneck")]
        kinds = [config["model_type"], diffusion["type"], outer["type"], *inner]
        what = {
            f"the objective {found.objective!r}": found.objective not in OBJECTIVES,
            f"networks of the kinds {kinds}": kinds != KINDS,
            f"its network's options {other}": other,
            f"heads of {head} values": head < NARROWEST,
            "latents on another scale": outer.get("scale", 1.0) != 1.0,
            f"conditions other than prompt, {', '.join(NUMBERS)} in one range": not same or len(ranges) > 1,
            f"the text encoder {found.text!r}, which is no T5 of the hub": not TEXT_ENCODER.fullmatch(found.text),
        }
    except (KeyError, TypeError, AttributeError, ValueError, ZeroDivisionError) as error:
        raise ModelError(f"{where}: not a Stable Audio's ({loading.first_line(error)}); fetch it again") from None
    if refused := next((name for name, there in what.items() if there), ""):
        raise ModelError(f"{where}: asks for {refused:.200}; this cannot be scored here, so name another checkpoint")
    return found


def parts(folder: Path, config: dict[str, Any]) -> list[str]:
    """Return the name of the text encoder, which the layout does not hold."""
    return [_read(folder, config).text]


def describe(folder: Path, config: dict[str, Any], *, pocket: bool) -> dict[str, Any]:
    """Return the fields of ``ModelInfo`` that the folder determines."""
    found = _read(folder, config)
    hop = math.prod(found.vae["downsampling_ratios"])
    rate, channels, samples = config["sample_rate"], config["audio_channels"], config["sample_size"]
    size = sum(math.prod(shape) for shape in loading.below(loading.headers(folder), "model.model.").values())
    window = wave(folder, lambda: (rate, channels, hop, samples // hop))
    return window | {"badge": loading.badge(size, pocket=pocket), "remark": OBJECTIVES[found.objective]}


def load(folder: Path, info: ModelInfo) -> StableAudio:
    """Load such a folder (see ``earwitness.models.load_model``)."""
    import torch
    from diffusers import AutoencoderOobleck, StableAudioDiTModel
    from diffusers.pipelines.stable_audio import StableAudioProjectionModel
    from transformers import T5EncoderModel

    def transformer(config: dict[str, Any]) -> Any:
        network = StableAudioDiTModel.from_config(config)
        for block in network.transformer_blocks if found.normed else ():
            for attention in (block.attn1, block.attn2):
                attention.norm_q, attention.norm_k = (torch.nn.LayerNorm(found.head, eps=QUERY_NORM) for _ in "qk")
        return network

    def projection(config: dict[str, Any]) -> Any:
        network = StableAudioProjectionModel.from_config(config)
        for name in NUMBERS.keys() - set(found.numbers):
            setattr(network, NUMBERS[name], None)
        return network

    found = _read(folder, read_json(folder / NATIVE))
    text = loading.load_pretrained(info.source[1], T5EncoderModel, getattr(torch, info.dtype))
    held = loading.state(folder)
    said = {"text_encoder_dim": text.config.d_model, "conditioning_dim": found.width, "min_value": found.range[0]}
    kinds: dict[str, tuple[Any, dict[str, Any], dict[str, Tensor]]] = {
        "transformer": (transformer, found.network, _transformer(held)),
        "vae": (AutoencoderOobleck.from_config, found.vae, _autoencoder(held, len(found.vae["downsampling_ratios"]))),
        "projection_model": (projection, {**said, "max_value": found.range[1]}, _projection(held)),
    }
    loaded = {"text_encoder": text, "tokenizer": loading.load_tokenizer(info.source[1], found.longest)}
    for name, (build, config, tensors) in kinds.items():
        kind = SimpleNamespace(from_config=build, __name__=name)
        loaded[name] = loading.filled(kind, config, tensors, folder / name, info.dtype, unknown=True)
    how = {"_class_name": CONTINUOUS[0], "prediction_type": "v_prediction"}
    schedule = read_schedule(how, folder.name) if found.objective == "v" else flow()
    return StableAudio(loaded, schedule, info, told=[list(NUMBERS).index(name) for name in found.numbers])


def _transformer(held: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the network's tensors by diffusers' names; queries, keys and values are stored in one."""
    found = {}
    for name, tensor in loading.below(held, "model.model.").items():
        for theirs, ours in RENAMED:
            name = name.replace(theirs, ours)
        if "rotary_pos_emb" in name:  # computed, not learned
            continue
        kept = "qkv" if "to_qkv" in name else "kv" if "to_kv" in name else ""
        for letter, piece in zip(kept or [""], tensor.chunk(len(kept) or 1), strict=True):
            found[name.replace(f"to_{kept}.", f"to_{letter}.")] = piece
    return {name: t[:, 0] if name == "time_proj.weight" else t for name, t in found.items()}


def _autoencoder(held: dict[str, Tensor], depth: int) -> dict[str, Tensor]:
    """Return the autoencoder's tensors by diffusers' names: layers are numbered, level within level."""
    found = {}
    outer = ["conv1", *(f"block.{i}" for i in range(depth)), "snake1", "conv2"]
    for name, tensor in loading.below(held, "pretransform.model.").items():
        half, *words = name.split(".")
        levels = [int(word) for word in words if word.isdigit()]
        try:
            places = [names[i] for names, i in zip((outer, UNITS[half], INSIDE), levels, strict=False)]
        except (IndexError, KeyError):
            places = words[:-1]  # no place: named as it is, and refused
        found[".".join([half, *places, words[-1]])] = (
            tensor[None, :, None] if words[-1] in {"alpha", "beta"} else tensor
        )
    return found


def _projection(held: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of what tells numbers and text, by diffusers' names."""
    found = {}
    for name, tensor in loading.below(held, "conditioner.conditioners.").items():
        who, _, rest = name.partition(".")
        rest = rest.replace("embedder.embedding", "time_positional_embedding").replace("proj_out", "text_projection")
        found[f"{NUMBERS[who]}.{rest}" if who in NUMBERS else rest] = tensor
    return found
