"""What scoring takes on published layouts at their real size: random weights, one model at a time, deleted after.

Writes the file behind the page *Methods: models*. Each model is built in the configuration and the layout that its
repository publishes, then, per type of number in a process of its own, loaded by ``load_model`` like any folder and
asked for what an audit asks, with captions. A clip's cost is compared with encoding and the bare distinct passes of the
same clips (goal 1.05), in processor seconds of one core; memory is the most that the process held, mapped weights
included. A row of the same model and type is replaced, all others stay.

Run: OMP_NUM_THREADS=1 PYTHONPATH=lib:. python benchmarks/bench_real_size.py [--only REPOSITORY] [--clips 2]
     [--repeats 1] [--dtypes float32 bfloat16] [--scratch FOLDER] [--write benchmarks/real_size.csv]
"""

import argparse
import datetime
import json
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import pandas as pd

COLUMNS = [
    "model", "dtype", "weights_gb", "load_s", "clips", "needed_s", "extraction_s", "clip_s", "ratio", "peak_gb",
    "date", "commit", "machine",
]  # fmt: skip
T5_BASE = {"d_model": 768, "d_ff": 3072, "d_kv": 64, "num_heads": 12, "num_layers": 12, "vocab_size": 32128}
FLAN_LARGE = {
    "d_model": 1024, "d_ff": 2816, "d_kv": 64, "num_heads": 16, "num_layers": 24, "vocab_size": 32128,
    "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
}  # fmt: skip
LATENTS = {
    "in_channels": 1, "out_channels": 1, "block_out_channels": [128, 256, 512], "latent_channels": 8,
    "layers_per_block": 2, "down_block_types": ["DownEncoderBlock2D"] * 3, "up_block_types": ["UpDecoderBlock2D"] * 3,
    "scaling_factor": 0.92,
}  # fmt: skip
DOWN = ["DownBlock2D", *["CrossAttnDownBlock2D"] * 3]
UP = ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"]
SMALL_UNET = {
    "in_channels": 8, "out_channels": 8, "block_out_channels": [128, 256, 384, 640], "layers_per_block": 2,
    "norm_num_groups": 32, "sample_size": 128, "down_block_types": DOWN, "up_block_types": UP,
}  # fmt: skip
ROBERTA = {
    "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
    "vocab_size": 50265, "max_position_embeddings": 514, "projection_dim": 512,
}  # fmt: skip


# --- building ---------------------------------------------------------------------------------------------------------


def filled(kind, *arguments, **options):
    """Build a network on the meta device and fill it with one short stretch of noise, again and again: nearly free."""
    import torch

    with torch.device("meta"):
        network = kind(*arguments, **options)
    noise = 0.02 * torch.randn(1_000_003, generator=torch.Generator().manual_seed(0))
    state = {}
    for name, tensor in network.state_dict().items():
        count = max(1, tensor.numel())
        drawn = noise.repeat(-(-count // len(noise)))[: tensor.numel()].reshape(tensor.shape)
        drawn = drawn + 1 if "norm" in name.lower() and name.endswith("weight") else drawn
        whole = torch.arange(count) if "position" in name else torch.zeros(count, dtype=torch.int64)
        state[name] = drawn if tensor.is_floating_point() else whole.reshape(tensor.shape)
    network.load_state_dict(state, assign=True)
    return network.eval()


def t5(folder):
    from tests.tiny_diffusion import t5 as trained

    return trained(folder, 512)


def text(sizes):
    from transformers import T5Config, T5EncoderModel

    return filled(T5EncoderModel, T5Config(**sizes))


def musicgen(folder):
    """As transformers saves it: one file, T5 base, EnCodec at 32 kHz, 24 layers of 1,024."""
    from transformers import MusicgenConfig, MusicgenForConditionalGeneration

    codec = {
        "model_type": "encodec", "target_bandwidths": [2.2], "sampling_rate": 32000, "audio_channels": 1,
        "normalize": False, "num_filters": 64, "hidden_size": 128, "codebook_size": 2048, "codebook_dim": 128,
        "upsampling_ratios": [8, 5, 4, 4], "norm_type": "weight_norm", "use_causal_conv": False, "num_lstm_layers": 2,
    }  # fmt: skip
    decoder = {
        "model_type": "musicgen_decoder", "vocab_size": 2048, "hidden_size": 1024, "num_hidden_layers": 24,
        "num_attention_heads": 16, "ffn_dim": 4096, "num_codebooks": 4, "pad_token_id": 2048, "bos_token_id": 2048,
        "max_position_embeddings": 2048, "audio_channels": 1,
    }  # fmt: skip
    config = MusicgenConfig(text_encoder={"model_type": "t5", **T5_BASE}, audio_encoder=codec, decoder=decoder)
    network = filled(MusicgenForConditionalGeneration, config)
    network.generation_config.max_length = 1500
    network.save_pretrained(folder)
    t5(folder).save_pretrained(folder)


def audioldm(folder):
    """As diffusers saves it: a UNet under one embedding, CLAP's text half, a vocoder."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from tests import tiny_diffusion as tiny
    from transformers import ClapTextConfig, ClapTextModelWithProjection

    unet = filled(
        UNet2DConditionModel, **SMALL_UNET, attention_head_dim=8, class_embed_type="simple_projection",
        projection_class_embeddings_input_dim=512, class_embeddings_concat=True,
        cross_attention_dim=[128, 256, 384, 640],
    )  # fmt: skip
    tiny.save(
        folder, "AudioLDMPipeline", unet=unet, vae=filled(AutoencoderKL, **LATENTS), vocoder=vocoder(),
        text_encoder=filled(ClapTextModelWithProjection, ClapTextConfig(**ROBERTA)),
        tokenizer=tiny.roberta(folder / "tokenizer"), scheduler=tiny.scheduler(),
    )  # fmt: skip


def vocoder():
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    return filled(SpeechT5HifiGan, SpeechT5HifiGanConfig(
        model_in_dim=64, sampling_rate=16000, upsample_initial_channel=1024, upsample_rates=[5, 4, 2, 2, 2],
        upsample_kernel_sizes=[16, 16, 8, 4, 4], resblock_kernel_sizes=[3, 7, 11], normalize_before=False,
        resblock_dilation_sizes=[[1, 3, 5]] * 3,
    ))  # fmt: skip


def audioldm2(folder):
    """As diffusers saves it: two text encoders (CLAP in float64), GPT-2 between them and the UNet."""
    from diffusers import AudioLDM2ProjectionModel, AudioLDM2UNet2DConditionModel, AutoencoderKL
    from tests import tiny_diffusion as tiny
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, GPT2Config, GPT2LMHeadModel

    unet = filled(
        AudioLDM2UNet2DConditionModel, **SMALL_UNET, attention_head_dim=8, transformer_layers_per_block=1,
        cross_attention_dim=[[None, 768, 1024]] * 4,
    )  # fmt: skip
    language = filled(GPT2LMHeadModel, GPT2Config())
    language.config.max_new_tokens = 8
    tiny.save(
        folder, "AudioLDM2Pipeline", unet=unet, vae=filled(AutoencoderKL, **LATENTS), vocoder=vocoder(),
        text_encoder=filled(ClapModel, ClapConfig(text_config=ROBERTA)).double(), text_encoder_2=text(FLAN_LARGE),
        tokenizer=tiny.roberta(folder / "tokenizer"), tokenizer_2=t5(folder / "tokenizer_2"), language_model=language,
        projection_model=filled(AudioLDM2ProjectionModel, 512, 1024, 768), scheduler=tiny.scheduler(),
        feature_extractor=ClapFeatureExtractor(),
    )  # fmt: skip


def tango(folder):
    """As its authors publish it: three pickles, the text encoder's configuration and tokenizer beside."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from tests.tiny_diffusion import LDM_SHAPE, native_autoencoder

    from earwitness.models.tango import SPEC, UNET, mel_matrix

    folder.mkdir()
    words = text(FLAN_LARGE)
    unet = filled(UNet2DConditionModel, **UNET)
    weights = {f"unet.{name}": t for name, t in unet.state_dict().items()}
    weights |= {f"text_encoder.{name}": t.clone() for name, t in words.state_dict().items()}
    torch.save(weights, folder / "pytorch_model_main.bin")
    torch.save(native_autoencoder(filled(AutoencoderKL, **LATENTS)), folder / "pytorch_model_vae.bin")
    torch.save({"mel_basis": mel_matrix(SPEC).T.contiguous()}, folder / "pytorch_model_stft.bin")
    named = {"text_encoder_name": "google/flan-t5-large", "scheduler_name": "stabilityai/stable-diffusion-2-1"}
    shape = LDM_SHAPE | {"ch": 128, "ch_mult": [1, 2, 4], "num_res_blocks": 2, "z_channels": 8}
    stft = {
        "filter_length": 1024, "hop_length": 160, "win_length": 1024, "n_mel_channels": 64, "sampling_rate": 16000,
        "mel_fmin": 0, "mel_fmax": 8000,
    }  # fmt: skip
    for name, content in {
        "main_config": named | {"unet_model_config_path": "configs/diffusion_model_config.json"},
        "vae_config": {"ddconfig": shape, "embed_dim": 8, "scale_factor": 0.92},
        "stft_config": stft,
    }.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    words.config.save_pretrained(folder / "flan-t5-large")
    t5(folder / "flan-t5-large").save_pretrained(folder / "flan-t5-large")


def stable_audio_small(folder):
    """As stable-audio-tools saves it: one file, 16 layers of 1,024, T5 base beside it."""
    from diffusers import AutoencoderOobleck
    from tests.tiny_diffusion import stable_audio_tools

    autoencoder = filled(
        AutoencoderOobleck, encoder_hidden_size=128, downsampling_ratios=[2, 4, 4, 8, 8], decoder_channels=128,
        channel_multiples=[1, 2, 4, 8, 16], decoder_input_channels=64, audio_channels=2, sampling_rate=44100,
    )  # fmt: skip
    stable_audio_tools(
        folder, autoencoder=autoencoder, text=text(T5_BASE), wide=1024, told=768, head=128, depth=16, samples=524288
    )
    shutil.rmtree(folder.with_name(folder.name + "-reference"))


def figaro(folder):
    """As Lightning saves it, optimiser state and all."""
    from tests import tiny_figaro as tiny

    tiny.D, tiny.HEADS, tiny.F, tiny.POSITIONS, tiny.LAYERS = 512, 8, 2048, 1024, (4, 6)
    tiny.write(folder, encoder_layers=4, decoder_layers=6)


MODELS = {
    "figaro-expert": figaro,
    "cvssp/audioldm-s-full-v2": audioldm,
    "stabilityai/stable-audio-open-small": stable_audio_small,
    "facebook/musicgen-small": musicgen,
    "cvssp/audioldm2": audioldm2,
    "declare-lab/tango": tango,
}


# --- measuring --------------------------------------------------------------------------------------------------------


def measured(folder, dtype, clips, repeats):
    """Load a folder and score clips both ways; return what it took: of several repeats the least."""
    import bench_extraction as way
    import torch

    from earwitness.models import load_model

    torch.set_num_threads(1)
    start = time.process_time()
    model = load_model(str(folder), dtype=dtype, device="cpu")
    loaded = time.process_time() - start
    words = [f"slow music number {n}" for n in range(clips)]
    if model.info.scheme:
        found = way.notes(model, clips, 5)  # one takes less than a second
    else:
        audio = way.sound(model, clips, model.info.segment_seconds)
        found = (way.noise if model.info.family == "diffusion" else way.tokens)(model, audio, words, repeats)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    weights = sum(path.stat().st_size for path in folder.rglob("*") if path.suffix not in {".json", ".txt"}) / 1e9
    taken = {"weights_gb": weights, "load_s": loaded, "clips": clips, **found, "clip_s": found["extraction_s"] / clips}
    return {**taken, "peak_gb": peak}


def separate(*arguments):
    """Run one step in a process of its own; return what it printed last, if it ended well."""
    done = subprocess.run(
        [sys.executable, __file__, *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=False
    )
    return done.stdout.strip().splitlines()[-1] if done.returncode == 0 else ""


def main():
    """Build, measure and delete one model after the other; write after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=MODELS, action="append")
    parser.add_argument("--clips", type=int, default=2)
    parser.add_argument(
        "--repeats", type=int, default=1, help="how often each way is timed; from two on, both run once before"
    )
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--build", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.build:
        MODELS[given.build[0]](Path(given.build[1]))
        print("built")
        return
    if given.measure:
        print(json.dumps(measured(Path(given.measure[0]), given.measure[1], given.clips, given.repeats)))
        return
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    made = {
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(), "commit": commit.strip(),
        "machine": f"one core ({platform.machine()})",
    }  # fmt: skip
    for name in given.only or MODELS:
        with tempfile.TemporaryDirectory(dir=given.scratch) as place:
            folder = Path(place) / name.rpartition("/")[2]
            if not separate("--build", name, folder):
                print(f"{name}: not built", file=sys.stderr)
                continue
            for dtype in given.dtypes:
                said = separate("--measure", folder, dtype, "--clips", given.clips, "--repeats", given.repeats)
                if not said:
                    print(f"{name}, {dtype}: not measured", file=sys.stderr)
                    continue
                row = {"model": name, "dtype": dtype, **json.loads(said), **made}
                print(row, file=sys.stderr)
                if given.write:
                    keep(given.write, row)


def keep(path, row):
    """Write a row in the place of an earlier one of the same model and type."""
    held = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=COLUMNS)
    held = held[(held["model"] != row["model"]) | (held["dtype"] != row["dtype"])]
    rounded = {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in row.items()}
    table = pd.DataFrame([*held.to_dict("records"), rounded], columns=COLUMNS)
    table.to_csv(path, index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
