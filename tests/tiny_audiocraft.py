"""Builders of toy checkpoints in audiocraft's own format, and of their twins in transformers'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.tiny import musicgen, t5_tokenizer

# As audiocraft exports it: YAML text, with references, and with sections that no network is built from.
CODEC = """
dora: {dir: "${oc.env:EARWITNESS_SECRET}"}
compression_model: encodec
sample_rate: 16000
channels: 1
encodec: {autoencoder: seanet, quantizer: rvq, sample_rate: "${sample_rate}", channels: "${channels}", causal: false,
  renormalize: false}
seanet: {dimension: 16, channels: "${channels}", causal: "${encodec.causal}", n_filters: 4, n_residual_layers: 1,
  ratios: [8, 5, 4, 2], activation: ELU, activation_params: {alpha: 1.0}, norm: weight_norm, norm_params: {},
  kernel_size: 7, residual_kernel_size: 3, last_kernel_size: 7, dilation_base: 2, pad_mode: constant, true_skip: true,
  compress: 2, lstm: 1, disable_norm_outer_blocks: 0,
  decoder: {trim_right_ratio: 1.0, final_activation: null, final_activation_params: null}, encoder: {}}
rvq: {n_q: 4, q_dropout: false, bins: 64, decay: 0.99, kmeans_init: false, kmeans_iters: 5,
  threshold_ema_dead_code: 2, orthogonal_reg_weight: 0.0, orthogonal_reg_active_codes_only: false}
"""
LANGUAGE_MODEL = """
dora: {dir: "${oc.env:EARWITNESS_SECRET}"}
optim: {updates_per_epoch: 2000, ema: {updates: "${optim.updates_per_epoch}"}}
lm_model: transformer_lm
compression_model_n_q: null
interleave_stereo_codebooks: {use: false, per_timestep: false}
dataset: {segment_duration: 0.64}
codebooks_pattern: {modeling: delay, delay: {delays: [0, 1, 2, 3], flatten_first: 0, empty_initial: 0}}
transformer_lm: {dim: 48, num_heads: 4, num_layers: 2, hidden_scale: 2, n_q: 4, card: 64, dropout: 0.0, emb_lr: null,
  activation: gelu, norm_first: true, bias_ff: false, bias_attn: false, bias_proj: false, past_context: null,
  causal: true, custom: false, memory_efficient: true, attention_as_float32: false, layer_scale: null,
  positional_embedding: sin, xpos: false, checkpointing: none, weight_init: gaussian, depthwise_init: current,
  zero_bias_init: true, norm: layer_norm, cross_attention: false, qk_layer_norm: false, qk_layer_norm_cross: false,
  attention_dropout: null, kv_repeat: 1, two_step_cfg: false}
classifier_free_guidance: {training_dropout: 0.3, inference_coef: 3.0}
attribute_dropout: {}
fuser: {cross_attention_pos_emb: false, cross_attention_pos_emb_scale: 1, sum: [], prepend: [], cross: [description],
  input_interpolate: []}
conditioners:
  args: {merge_text_conditions_p: 0.25, drop_desc_p: 0.5}
  description: {model: t5, t5: {name: t5-base, finetune: false, word_dropout: 0.3, normalize_text: false}}
"""


def audiocraft(folder: Path, kind: str = "musicgen", *, channels: int = 1) -> Path:
    """Save a random model in audiocraft's own format, its parts in subfolders.

    ``"musicgen"`` only names its codec, as the published ones do; ``"audiogen"`` and ``"magnet"`` bring their own;
    ``"unconditional"`` is a MusicGen without captions.
    """
    import torch
    import yaml
    from transformers import MusicgenForConditionalGeneration

    parts = MusicgenForConditionalGeneration.from_pretrained(musicgen(folder.parent / f"{folder.name}-parts"))
    folder.mkdir()
    config = yaml.safe_load(LANGUAGE_MODEL)
    network = config["transformer_lm"]
    if kind == "unconditional":
        config |= {"conditioners": None, "fuser": config["fuser"] | {"cross": []}}
    else:
        parts.text_encoder.save_pretrained(folder / "t5-base")
        t5_tokenizer(folder / "t5-base")
    if kind == "magnet":
        config |= {"lm_model": "transformer_lm_magnet", "masking": {"span_len": 3}}
        config["codebooks_pattern"] = {"modeling": "parallel", "parallel": {"empty_initial": -1}}
        network |= {"causal": False, "subcodes_context": 5, "compression_model_framerate": 50}
        network |= {"segment_duration": 0, "span_len": -1}
    if channels == 2:
        network["n_q"], config["interleave_stereo_codebooks"]["use"] = 8, True
        config["codebooks_pattern"]["delay"]["delays"] = [0, 0, 1, 1, 2, 2, 3, 3]
    torch.manual_seed(1)
    if kind == "musicgen":
        parts.audio_encoder.save_pretrained(folder / "encodec_32khz")
        named = {"pretrained": "facebook/encodec_32khz", "exported": True, "version": "1.3.0"}
        torch.save(named, folder / "compression_state_dict.bin")
    else:
        export(folder / "compression_state_dict.bin", random_codec().state_dict(), CODEC)
    export(folder / "state_dict.bin", random_lm(config).state_dict(), yaml.safe_dump(config))
    return folder


def export(path: Path, state: dict[str, Any], config: str) -> None:
    """Save what ``audiocraft.utils.export`` saves."""
    import torch

    torch.save({"best_state": state, "xp.cfg": config, "version": "1.3.0", "exported": True}, path)


def random_codec() -> Any:
    """Build an EnCodec, with its references followed by hand."""
    import yaml
    from omegaconf import OmegaConf

    from earwitness.models.audiocraft import import_builders

    config = yaml.safe_load(CODEC)
    config["encodec"] |= {"sample_rate": 16_000, "channels": 1}
    config["seanet"] |= {"channels": 1, "causal": False}
    return import_builders().get_compression_model(OmegaConf.create(config | {"dora": None, "device": "cpu"}))


def random_lm(config: dict[str, Any]) -> Any:
    """Build a language model with the projection of its text encoder, but without the encoder: as it is exported."""
    import torch
    from omegaconf import OmegaConf

    from earwitness.models.audiocraft import import_builders

    plain = config | {"dora": None, "optim": None, "conditioners": None, "device": "cpu", "dtype": "float32"}
    lm = import_builders().get_lm_model(OmegaConf.create(plain))
    if config["conditioners"]:
        lm.condition_provider.conditioners["description"] = torch.nn.Module()
        lm.condition_provider.conditioners["description"].output_proj = torch.nn.Linear(32, 48)
    with torch.no_grad():
        for parameter in lm.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return lm


RENAMED = {  # in this order
    "emb.": "decoder.model.decoder.embed_tokens.",
    "transformer.layers": "decoder.model.decoder.layers",
    "norm_cross": "encoder_attn_layer_norm",
    "cross_attention": "encoder_attn",
    "linear1": "fc1",
    "linear2": "fc2",
    "norm1": "self_attn_layer_norm",
    "norm2": "final_layer_norm",
    "out_norm": "decoder.model.decoder.layer_norm",
    "linears": "decoder.lm_heads",
    "condition_provider.conditioners.description.output_proj": "enc_to_dec_proj",
}


def twin(folder: Path, source: Path, *, channels: int = 1) -> Path:
    """Save the MusicGen that ``audiocraft`` saved in ``source`` in transformers' format: same weights, other names."""
    import torch
    from safetensors.torch import load_file, save_file

    musicgen(folder, channels=channels, ffn=96)
    weights = load_file(folder / "model.safetensors")
    for name, tensor in torch.load(source / "state_dict.bin", weights_only=True)["best_state"].items():
        for old, new in RENAMED.items():
            name = name.replace(old, new, 1)
        if name.endswith("in_proj_weight"):
            split = zip("qkv", tensor.chunk(3), strict=True)
            found = {name.replace("in_proj_weight", f"{part}_proj.weight"): piece for part, piece in split}
        else:
            found = {name: tensor}
        assert found.keys() <= weights.keys(), found.keys() - weights.keys()
        weights |= {key: piece.contiguous() for key, piece in found.items()}
    for part, place in (("text_encoder", "t5-base"), ("audio_encoder", "encodec_32khz")):
        found = {f"{part}.{key}": tensor for key, tensor in load_file(source / place / "model.safetensors").items()}
        assert found.keys() <= weights.keys()
        weights |= found
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
