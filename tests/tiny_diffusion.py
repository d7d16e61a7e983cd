"""Builders of toy diffusion checkpoints in the real on-disk formats."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.tiny import CAPTIONS, t5_tokenizer

TEXT = {
    "bos_token_id": 0, "eos_token_id": 2, "hidden_size": 16, "intermediate_size": 37, "num_attention_heads": 2,
    "num_hidden_layers": 1, "pad_token_id": 1, "vocab_size": 320, "projection_dim": 16, "max_position_embeddings": 80,
}  # fmt: skip
AUDIO = {
    "spec_size": 32, "window_size": 4, "num_mel_bins": 8, "intermediate_size": 37, "depths": [1, 1],
    "num_attention_heads": [1, 1], "num_hidden_layers": 2, "patch_embeds_hidden_size": 16, "hidden_size": 32,
    "projection_dim": 16, "patch_size": 4, "patch_stride": [4, 4],
}  # fmt: skip
BETAS = {"beta_start": 0.0015, "beta_end": 0.0195, "beta_schedule": "scaled_linear", "clip_sample": False}
# AudioLDM's schedule as published: timestep -> alphas_cumprod.
PUBLISHED_LEVELS = {
    0: 0.9985, 10: 0.98319547, 100: 0.82311704, 110: 0.80325902, 200: 0.61458468, 500: 0.114922, 999: 0.0001423,
}  # fmt: skip
BLOCKS = {
    "block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 8, "in_channels": 4, "out_channels": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}  # fmt: skip


def quiet() -> None:
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()


def save(folder: Path, pipeline: str, **parts: Any) -> Path:
    """Save parts in diffusers' layout, with the index that the library writes."""
    quiet()
    index: dict[str, Any] = {"_class_name": pipeline, "_diffusers_version": "0.42.1"}
    for name, part in parts.items():
        part.save_pretrained(folder / name)
        index[name] = [type(part).__module__.split(".")[0], type(part).__name__]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def roberta(folder: Path) -> Any:
    """Train a byte-level tokenizer on a few captions."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    trained = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator(CAPTIONS, vocab_size=300, min_frequency=1, special_tokens=special)
    trained.save_model(str(folder))
    return RobertaTokenizer.from_pretrained(str(folder), model_max_length=24)


def t5(folder: Path, length: int = 24) -> Any:
    """Train a sentencepiece tokenizer on a few captions."""
    from transformers import T5Tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    t5_tokenizer(folder)
    return T5Tokenizer.from_pretrained(str(folder), model_max_length=length)


def t5_encoder() -> Any:
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(T5Config(vocab_size=200, d_model=32, d_ff=37, d_kv=8, num_heads=4, num_layers=1))


def vae(channels: int = 4, widths: tuple[int, ...] = (8, 16)) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=widths, in_channels=1, out_channels=1, norm_num_groups=8, latent_channels=channels,
        down_block_types=["DownEncoderBlock2D"] * len(widths), up_block_types=["UpDecoderBlock2D"] * len(widths),
        scaling_factor=0.9,
    )  # fmt: skip


def vocoder() -> Any:
    """A vocoder of the published front end (16 kHz, hop 160, 64 bands), with few channels."""
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    return SpeechT5HifiGan(SpeechT5HifiGanConfig(
        model_in_dim=64, sampling_rate=16000, upsample_initial_channel=16, upsample_rates=[10, 4, 4],
        upsample_kernel_sizes=[16, 8, 8], resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1, 3]],
        normalize_before=False,
    ))  # fmt: skip


def clap() -> Any:
    from transformers import ClapConfig, ClapModel

    return ClapModel(ClapConfig(text_config=dict(TEXT), audio_config=dict(AUDIO), projection_dim=16))


def clap_ears() -> Any:
    from transformers import ClapFeatureExtractor

    return ClapFeatureExtractor(
        feature_size=8, sampling_rate=48000, hop_length=480, max_length_s=1, fft_window_size=1024
    )


def scheduler(prediction: str = "epsilon") -> Any:
    from diffusers import DDIMScheduler

    return DDIMScheduler(**BETAS, prediction_type=prediction, set_alpha_to_one=False, steps_offset=1)


def film_unet(sample_size: int = 16) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        **BLOCKS, sample_size=sample_size, cross_attention_dim=(8, 16), class_embed_type="simple_projection",
        projection_class_embeddings_input_dim=16, class_embeddings_concat=True, attention_head_dim=2,
    )  # fmt: skip


def audioldm(
    folder: Path, *, seed: int = 0, sample_size: int = 16, prediction: str = "epsilon", ears: bool = False
) -> Path:
    """AudioLDM with a window of ``2 * sample_size`` mel frames (10 ms each)."""
    import torch
    from transformers import ClapTextModelWithProjection

    quiet()
    torch.manual_seed(seed)
    whole = clap()
    half = ClapTextModelWithProjection(whole.config.text_config)
    half.text_model.load_state_dict(whole.text_model.state_dict())
    half.text_projection.load_state_dict(whole.text_projection.state_dict())
    save(
        folder, "AudioLDMPipeline", unet=film_unet(sample_size), vae=vae(), vocoder=vocoder(), text_encoder=half,
        tokenizer=roberta(folder / "tokenizer"), scheduler=scheduler(prediction),
    )  # fmt: skip
    if ears:
        whole.save_pretrained(folder / "clap")
        clap_ears().save_pretrained(folder / "clap")
    return folder


def musicldm(folder: Path) -> Path:
    """MusicLDM: the same with the whole of CLAP."""
    import torch

    quiet()
    torch.manual_seed(0)
    return save(
        folder, "MusicLDMPipeline", unet=film_unet(), vae=vae(), vocoder=vocoder(), text_encoder=clap(),
        tokenizer=roberta(folder / "tokenizer"), feature_extractor=clap_ears(), scheduler=scheduler(),
    )  # fmt: skip


def audioldm2(folder: Path, *, large: bool = False) -> Path:
    """AudioLDM 2; the large variants have deeper transformers and a third attention slot."""
    import torch
    from diffusers import AudioLDM2ProjectionModel, AudioLDM2UNet2DConditionModel
    from transformers import GPT2Config, GPT2LMHeadModel

    quiet()
    torch.manual_seed(0)
    language = GPT2LMHeadModel(GPT2Config(n_embd=16, n_head=2, n_layer=1, vocab_size=100, n_positions=99))
    language.config.max_new_tokens = 8
    unet = AudioLDM2UNet2DConditionModel(
        **BLOCKS, sample_size=16, attention_head_dim=2,
        cross_attention_dim=((None, 16, 32, None),) * 2 if large else ((None, 16, 32),) * 2,
        transformer_layers_per_block=2 if large else 1,
    )  # fmt: skip
    return save(
        folder, "AudioLDM2Pipeline", unet=unet, vae=vae(), vocoder=vocoder(), text_encoder=clap(),
        tokenizer=roberta(folder / "tokenizer"), text_encoder_2=t5_encoder(), tokenizer_2=t5(folder / "tokenizer_2"),
        language_model=language, feature_extractor=clap_ears(), scheduler=scheduler(),
        projection_model=AudioLDM2ProjectionModel(text_encoder_dim=16, text_encoder_1_dim=32, langauge_model_dim=16),
    )  # fmt: skip


def tango_scheduler() -> Any:
    from diffusers import DDPMScheduler

    return DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction"
    )


def tango_unet(channels: int = 4) -> Any:
    from diffusers import UNet2DConditionModel

    shape = {
        **BLOCKS, "in_channels": channels, "out_channels": channels, "block_out_channels": (8, 8, 16),
        "down_block_types": ("DownBlock2D", *BLOCKS["down_block_types"]),
        "up_block_types": (*BLOCKS["up_block_types"], "UpBlock2D"),
    }  # fmt: skip
    return UNet2DConditionModel(**shape, sample_size=(32, 2), cross_attention_dim=32, attention_head_dim=2)


def tango(folder: Path) -> Path:
    """Tango's parts in diffusers' layout; as its window is fixed, so are the latents: 256 frames of 16 bands."""
    import torch

    quiet()
    torch.manual_seed(0)
    return save(
        folder, "TangoPipeline", unet=tango_unet(), vae=vae(widths=(8, 16, 16)), vocoder=vocoder(),
        text_encoder=t5_encoder(), tokenizer=t5(folder / "tokenizer"), scheduler=tango_scheduler(),
    )  # fmt: skip


LDM_SHAPE = {
    "double_z": True, "z_channels": 4, "resolution": 256, "downsample_time": False, "in_channels": 1, "out_ch": 1,
    "ch": 32, "ch_mult": [1, 1, 2], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0,
}  # fmt: skip


def native_autoencoder(model: Any) -> dict[str, Any]:
    """Rename a diffusers autoencoder's tensors as the authors' own code does (one residual block per level)."""
    renamed = {}
    for name, value in model.state_dict().items():
        for ours, theirs in (
            ("mid_block.resnets.0", "mid.block_1"), ("mid_block.resnets.1", "mid.block_2"),
            ("mid_block.attentions.0.group_norm", "mid.attn_1.norm"), ("mid_block.attentions.0.to_q", "mid.attn_1.q"),
            ("mid_block.attentions.0.to_k", "mid.attn_1.k"), ("mid_block.attentions.0.to_v", "mid.attn_1.v"),
            ("mid_block.attentions.0.to_out.0", "mid.attn_1.proj_out"), ("conv_norm_out", "norm_out"),
            ("downsamplers.0.conv", "downsample.conv"), ("upsamplers.0.conv", "upsample.conv"),
            ("conv_shortcut", "nin_shortcut"), ("resnets", "block"), ("down_blocks", "down"),
            ("up_blocks.0", "up.2"), ("up_blocks.1", "up.1"), ("up_blocks.2", "up.0"),
        ):  # fmt: skip
            name = name.replace(ours, theirs) if "quant_conv" not in name else name
        linear = ".attn_1." in name and name.endswith("weight") and "norm" not in name
        renamed[name] = value[..., None, None] if linear else value
    return renamed


def tango_native(folder: Path) -> Path:
    """Tango as its authors publish it: single files, and beside them what their code fetches from elsewhere."""
    import torch
    from diffusers import AutoencoderKL

    from earwitness.models.latent_diffusion import MelSpec, mel_matrix

    quiet()
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    unet, text = tango_unet(), t5_encoder()
    model = AutoencoderKL(
        in_channels=1, out_channels=1, block_out_channels=[32, 32, 64], latent_channels=4, layers_per_block=1,
        down_block_types=["DownEncoderBlock2D"] * 3, up_block_types=["UpDecoderBlock2D"] * 3, scaling_factor=0.92,
    )  # fmt: skip
    weights = {f"unet.{k}": v for k, v in unet.state_dict().items()}
    weights |= {f"text_encoder.{k}": v.clone() for k, v in text.state_dict().items()}
    torch.save(weights, folder / "pytorch_model_main.bin")
    torch.save({**native_autoencoder(model), "vocoder.conv_pre.bias": torch.zeros(3)}, folder / "pytorch_model_vae.bin")
    basis = mel_matrix(MelSpec.of(16_000, 64, 160)).T.contiguous()
    torch.save({"mel_basis": basis, "stft_fn.forward_basis": torch.zeros(2)}, folder / "pytorch_model_stft.bin")
    configs = {
        "main_config.json": {
            "text_encoder_name": "google/flan-t5-large", "scheduler_name": "stabilityai/stable-diffusion-2-1",
            "unet_model_config_path": "configs/diffusion_model_config.json", "snr_gamma": 5,
        },
        "vae_config.json": {"ddconfig": LDM_SHAPE, "embed_dim": 4, "subband": 1, "scale_factor": 0.92},
        "stft_config.json": {
            "filter_length": 1024, "hop_length": 160, "win_length": 1024, "n_mel_channels": 64,
            "sampling_rate": 16000, "mel_fmin": 0, "mel_fmax": 8000,
        },
    }  # fmt: skip
    for name, content in configs.items():
        (folder / name).write_text(json.dumps(content))
    unet.save_config(folder / "unet")
    text.config.save_pretrained(folder / "text_encoder")
    t5(folder / "tokenizer")
    tango_scheduler().save_pretrained(folder / "scheduler")
    model.save_pretrained(folder.with_name(folder.name + "-reference"))
    return folder


def stable_audio(folder: Path) -> Path:
    """Stable Audio: stereo at 8 kHz, a window of 64 latent frames of 32 samples."""
    import torch
    from diffusers import CosineDPMSolverMultistepScheduler, StableAudioDiTModel
    from diffusers.pipelines.stable_audio import StableAudioProjectionModel

    quiet()
    torch.manual_seed(0)
    network = StableAudioDiTModel(
        sample_size=64, in_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=4,
        num_key_value_attention_heads=2, out_channels=4, cross_attention_dim=16, time_proj_dim=8,
        global_states_input_dim=32, cross_attention_input_dim=16,
    )  # fmt: skip
    autoencoder = oobleck()
    return save(
        folder, "StableAudioPipeline", transformer=network, vae=autoencoder, text_encoder=t5_encoder(),
        tokenizer=t5(folder / "tokenizer"),
        scheduler=CosineDPMSolverMultistepScheduler(prediction_type="v_prediction", sigma_data=1.0),
        projection_model=StableAudioProjectionModel(32, 16, 0, 512),
    )  # fmt: skip


def stable_audio_tools(
    folder: Path, objective: str = "rf_denoiser", *, start: bool = False, ckpt: bool = False, **real: Any
) -> Path:
    """Stable Audio Open Small as it is published: stereo at 8 kHz, 64 latent frames of 32 samples, T5 beside it.

    With ``start`` it is told where a clip starts, too, as Stable Audio Open 1.0 is. ``real`` holds other sizes.
    """
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    folder.mkdir(parents=True)
    size: dict[str, Any] = {"wide": 128, "told": 64 if start else 16, "head": 64, "depth": 2, "samples": 2048} | real
    autoencoder, text = real.get("autoencoder") or oobleck(), real.get("text") or t5_encoder()
    wide, told, head, numbers = (
        size["wide"],
        size["told"],
        size["head"],
        ["seconds_start", "seconds_total"][not start :],
    )
    vae, latent = autoencoder.config, autoencoder.config.decoder_input_channels
    norms = {} if start else {"attn_kwargs": {"qk_norm": "ln"}}
    project = {"project_cond_tokens": False} if start else {}
    attended = told if start else wide
    shapes: dict[str, tuple[int, ...]] = {
        "preprocess_conv.weight": (latent, latent, 1), "postprocess_conv.weight": (latent, latent, 1),
        "timestep_features.weight": (128, 1),
        "to_timestep_embed.0.weight": (wide, 256), "to_timestep_embed.0.bias": (wide,),
        "to_timestep_embed.2.weight": (wide, wide), "to_timestep_embed.2.bias": (wide,),
        "to_cond_embed.0.weight": (attended, told), "to_cond_embed.2.weight": (attended, attended),
        "to_global_embed.0.weight": (wide, told * len(numbers)),
        "to_global_embed.2.weight": (wide, wide),
        "transformer.project_in.weight": (wide, latent), "transformer.project_out.weight": (latent, wide),
        "transformer.rotary_pos_emb.inv_freq": (16,),
    }  # fmt: skip
    for layer in (f"transformer.layers.{i}." for i in range(size["depth"])):
        for norm in ("pre_norm", "cross_attend_norm", "ff_norm"):
            shapes |= {f"{layer}{norm}.gamma": (wide,), f"{layer}{norm}.beta": (wide,)}
        shapes |= {
            f"{layer}self_attn.to_qkv.weight": (3 * wide, wide), f"{layer}cross_attn.to_q.weight": (wide, wide),
            f"{layer}cross_attn.to_kv.weight": (2 * attended, attended), f"{layer}ff.ff.0.proj.bias": (8 * wide,),
            f"{layer}ff.ff.0.proj.weight": (8 * wide, wide), f"{layer}ff.ff.2.weight": (wide, 4 * wide),
            f"{layer}ff.ff.2.bias": (wide,),
        }  # fmt: skip
        for attention in ("self_attn", "cross_attn"):
            shapes[f"{layer}{attention}.to_out.weight"] = (wide, wide)
            for letter in "qk" if norms else "":
                shapes |= {f"{layer}{attention}.{letter}_norm.{w}": (head,) for w in ("weight", "bias")}
    held = {f"model.model.{name}": torch.randn(shape) / shape[-1] ** 0.5 for name, shape in shapes.items()}
    for name in numbers:
        where = f"conditioner.conditioners.{name}.embedder.embedding"
        held |= {f"{where}.0.weights": torch.randn(128), f"{where}.1.weight": torch.randn(told, 257) / 16,
                 f"{where}.1.bias": torch.randn(told)}  # fmt: skip
    if told != text.config.d_model:
        held |= {"conditioner.conditioners.prompt.proj_out.weight": torch.randn(told, text.config.d_model),
                 "conditioner.conditioners.prompt.proj_out.bias": torch.randn(told)}  # fmt: skip
    for name, value in autoencoder.state_dict().items():
        numbered = _numbered(name, len(vae.downsampling_ratios))
        held[f"pretransform.model.{numbered}"] = value.flatten() if "snake" in name else value
    half = {"channels": vae.encoder_hidden_size, "c_mults": list(vae.channel_multiples), "use_snake": True,
            "strides": list(vae.downsampling_ratios)}  # fmt: skip
    config = {
        "model_type": "diffusion_cond", "sample_size": size["samples"], "sample_rate": vae.sampling_rate,
        "audio_channels": 2,
        "model": {
            "pretransform": {"type": "autoencoder", "iterate_batch": True, "config": {
                "encoder": {"type": "oobleck", "config": {**half, "in_channels": 2, "latent_dim": 2 * latent}},
                "decoder": {"type": "oobleck", "config": {
                    **half, "channels": vae.decoder_channels, "out_channels": 2, "latent_dim": latent,
                    "final_tanh": False,
                }},
                "bottleneck": {"type": "vae"}, "latent_dim": latent, "io_channels": 2,
            }},
            "conditioning": {"cond_dim": told, "configs": [
                {"id": "prompt", "type": "t5", "config": {"t5_model_name": "t5-base", "max_length": 24}},
                *({"id": name, "type": "number", "config": {"min_val": 0, "max_val": 256}} for name in numbers),
            ]},
            "diffusion": {
                "cross_attention_cond_ids": ["prompt", *numbers], "global_cond_ids": numbers,
                "diffusion_objective": objective, "type": "dit", "config": {
                    "io_channels": latent, "embed_dim": wide, "depth": size["depth"], "num_heads": wide // head,
                    "cond_token_dim": told, "global_cond_dim": told * len(numbers),
                    "transformer_type": "continuous_transformer", **norms, **project,
                },
            },
            "io_channels": latent,
        },
        "training": {"use_ema": True},
    }  # fmt: skip
    (folder / "model_config.json").write_text(json.dumps(config))
    if ckpt:
        torch.save({"state_dict": held}, folder / "model.ckpt")
    else:
        save_file({name: value.contiguous() for name, value in held.items()}, folder / "model.safetensors")
    text.save_pretrained(folder / "t5-base")
    t5(folder / "t5-base").save_pretrained(folder / "t5-base")
    autoencoder.save_pretrained(folder.with_name(folder.name + "-reference"))
    return folder


def _numbered(name: str, depth: int) -> str:
    """Name a tensor of the autoencoder as its authors' program does, where every layer is a number."""
    half, *words = name.split(".")
    unit, down = ["snake1", "conv1", "snake2", "conv2"], ["res_unit1", "res_unit2", "res_unit3", "snake1", "conv1"]
    up = ["snake1", "conv_t1", "res_unit1", "res_unit2", "res_unit3"]
    if words[0] == "block":
        found = [1 + int(words[1]), (down if half == "encoder" else up).index(words[2])]
        found += [unit.index(words[3])] if len(words) > 4 else []
    else:
        found = [{"conv1": 0, "snake1": depth + 1, "conv2": depth + 2}[words[0]]]
    return ".".join([half, *(f"layers.{i}" for i in found), words[-1]])


def fast_tokenizer(length: int = 24) -> Any:
    """Train a byte-level tokenizer on a few captions, as Gemma's and Qwen's are stored: one ``tokenizer.json``."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(CAPTIONS, vocab_size=300, min_frequency=1, special_tokens=["<pad>", "<|endoftext|>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=trained._tokenizer, pad_token="<pad>", eos_token="<|endoftext|>", model_max_length=length
    )


def oobleck(rate: int = 8000, strides: Sequence[int] = (2, 4, 4)) -> Any:
    from diffusers import AutoencoderOobleck

    return AutoencoderOobleck(
        encoder_hidden_size=8, downsampling_ratios=list(strides), decoder_channels=4, decoder_input_channels=4,
        audio_channels=2, channel_multiples=[1, 2, 2], sampling_rate=rate,
    )  # fmt: skip


def flow_scheduler(**options: Any) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, **options)


def stable_audio_3(folder: Path, *, distilled: bool = False, patch: int = 8) -> Path:
    """Stable Audio 3: stereo at 8 kHz; a latent frame is 4 patches of ``patch`` samples long."""
    import torch
    from diffusers import AutoencoderSAME, StableAudio3DiTModel
    from diffusers.pipelines.stable_audio_3 import StableAudio3DurationEmbedder
    from transformers import T5GemmaConfig, T5GemmaEncoderModel

    quiet()
    torch.manual_seed(0)
    part = {
        "vocab_size": 320, "hidden_size": 16, "intermediate_size": 37, "num_hidden_layers": 1, "head_dim": 8,
        "num_attention_heads": 2, "num_key_value_heads": 1, "pad_token_id": 0, "layer_types": ["full_attention"],
    }  # fmt: skip
    network = StableAudio3DiTModel(
        io_channels=4, embed_dim=32, depth=2, num_heads=2, cond_token_dim=16, global_cond_dim=16, local_add_cond_dim=5,
        timestep_features_dim=16, num_memory_tokens=3,
    )  # fmt: skip
    autoencoder = AutoencoderSAME(
        audio_channels=2, patch_size=patch, encoder_channels=8, encoder_c_mults=[2], encoder_strides=[4], latent_dim=4,
        encoder_transformer_depths=[1], dim_heads=8, sampling_rate=8000,
    )  # fmt: skip
    with torch.no_grad():  # what starts at 0 would say nothing
        for tensor in (*network.parameters(), *autoencoder.parameters()):
            if not tensor.any():
                tensor.normal_(std=0.1)
    return save(
        folder, "StableAudio3Pipeline", transformer=network, vae=autoencoder,
        text_encoder=T5GemmaEncoderModel(T5GemmaConfig(encoder=part, decoder=part, is_encoder_decoder=False)),
        tokenizer=fast_tokenizer(), duration_embedder=StableAudio3DurationEmbedder(16, 8, 0.0, 384.0),
        scheduler=flow_scheduler(stochastic_sampling=distilled),
    )  # fmt: skip


def ace_step(folder: Path, *, turbo: bool = False, strides: Sequence[int] = (2, 4, 4)) -> Path:
    """ACE-Step 1.5: stereo at 8 kHz; a latent frame is as many samples long as the product of ``strides``."""
    import torch
    from diffusers import AceStepTransformer1DModel
    from diffusers.pipelines.ace_step import AceStepConditionEncoder
    from transformers import Qwen3Config, Qwen3Model

    quiet()
    torch.manual_seed(0)
    shape = {
        "hidden_size": 32, "intermediate_size": 37, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
        "sliding_window": 16,
    }  # fmt: skip
    network = AceStepTransformer1DModel(
        **shape, num_hidden_layers=2, in_channels=12, audio_acoustic_hidden_dim=4, is_turbo=turbo,
        model_version="turbo" if turbo else "base",
    )  # fmt: skip
    conditions = AceStepConditionEncoder(
        **shape, text_hidden_dim=16, timbre_hidden_dim=4, num_lyric_encoder_hidden_layers=2,
        num_timbre_encoder_hidden_layers=2,
    )  # fmt: skip
    with torch.no_grad():
        conditions.silence_latent.normal_()
    text = Qwen3Model(Qwen3Config(
        vocab_size=320, hidden_size=16, intermediate_size=37, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8,
    ))  # fmt: skip
    return save(
        folder, "AceStepPipeline", transformer=network, vae=oobleck(strides=strides), text_encoder=text,
        condition_encoder=conditions, tokenizer=fast_tokenizer(512), scheduler=flow_scheduler(),
    )  # fmt: skip


BUILDERS = {
    "audioldm": audioldm,
    "musicldm": musicldm,
    "audioldm2": audioldm2,
    "tango": tango,
    "tango_native": tango_native,
    "stable_audio": stable_audio,
    "stable_audio_3": stable_audio_3,
    "ace_step": ace_step,
    "stable_audio_tools": stable_audio_tools,
}


def copy(folder: Path, target: Path) -> Path:
    """Copy a checkpoint, so that a test may damage it."""
    return Path(shutil.copytree(folder, target))
