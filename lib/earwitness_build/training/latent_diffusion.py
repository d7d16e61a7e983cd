"""Train the pocket diffusion twins from nothing: autoencoder, vocoder, text half and UNet.

Autoencoder and vocoder are trained on artists who are not in the corpus and shared by both twins, so that they can know
nothing of either's tracks; text half and UNet are trained together on a split. Everything is of the classes that
AudioLDM's folders hold. ``python -m earwitness_build train`` runs `train_twins` after the token models. One thread per
process and explicit seeds: the same machine gives the same weights. Explained on the book page *The pocket world*.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from earwitness.data.audio import AudioSpec, prepare
from earwitness.models.latent_diffusion import MelSpec, log_mel, normalise
from earwitness.pocket import corpus, style
from earwitness.pocket.render import SAMPLE_RATE
from earwitness_build.training.codec import OUTSIDE_SEED, CodecRecipe, outside_audio, spectral_distance
from earwitness_build.training.train import WEIGHTS, described, pick, placeless

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from torch import Tensor
    from transformers import ClapTextModelWithProjection, SpeechT5HifiGan

MEL = MelSpec.of(SAMPLE_RATE, 64, 160)
LATENT_FRAMES, FACTOR = 16, 16  # a window is 16 latent frames of 16 mel frames of 10 ms: 2.56 s
SPEC = AudioSpec(SAMPLE_RATE, 1, LATENT_FRAMES * FACTOR * MEL.hop / SAMPLE_RATE, first_channel=True)
BETAS = {"num_train_timesteps": 1000, "beta_start": 0.0015, "beta_end": 0.0195, "beta_schedule": "scaled_linear"}


# --- recipes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FrontRecipe:
    """How autoencoder and vocoder are trained; ``crop`` counts mel frames, learning rates fall in one cycle."""

    seed: int = 0
    channels: int = 16
    steps: int = 700
    batch: int = 8
    crop: int = 64
    learning_rate: float = 2e-3
    vocoder_steps: int = 500
    vocoder_crop: int = 40
    vocoder_learning_rate: float = 2e-3


@dataclass(frozen=True)
class LdmRecipe:
    """Everything that fixes a twin, given autoencoder and tracks.

    ``epochs`` passes over the tracks, each with one of a track's cuts at random; ``null`` is the probability with which
    a caption is replaced by the empty one.
    """

    seed: int = 0
    widths: tuple[int, ...] = (48, 72)
    text_width: int = 32
    epochs: int = 165
    batch: int = 16
    learning_rate: float = 2e-3
    null: float = 0.1


def one_cycle(parameters: list[Any], rate: float, steps: int) -> Iterator[Any]:
    """Yield a step function ``steps`` times: call it with the loss. AdamW, one cycle, clipped gradients."""
    import torch

    optimiser = torch.optim.AdamW(parameters, rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, steps, pct_start=0.1)

    def step(loss: Tensor) -> None:
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()

    for _ in range(steps):
        yield step


def halve(network: Any) -> Any:
    """Round weights to half precision, as they will be saved, and freeze them."""
    return network.half().float().eval().requires_grad_(requires_grad=False)


def mels(audio: np.ndarray) -> Tensor:
    """Return the log-mel spectrograms ``[B, frames, 64]`` of ``[B, samples]``, as the adapter makes them."""
    import torch

    return log_mel(normalise(torch.from_numpy(audio)), MEL)


# --- the shared parts -------------------------------------------------------------------------------------------------


def train_autoencoder(recipe: FrontRecipe, audio: np.ndarray) -> AutoencoderKL:
    """Train the autoencoder on random crops of ``audio`` ``[tracks, samples]``, then make its channels white.

    Residual branches start at zero: begun at random, an encoder this deep lets two numbers a patch through. The mean of
    the posterior is all that is ever used, so its spread is not trained.
    """
    import torch
    from diffusers import AutoencoderKL

    torch.manual_seed(recipe.seed)
    vae = AutoencoderKL(
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 16, 24, 32, 48),
        down_block_types=("DownEncoderBlock2D",) * 5,
        up_block_types=("UpDecoderBlock2D",) * 5,
        layers_per_block=1,
        latent_channels=recipe.channels,
        norm_num_groups=8,
        mid_block_add_attention=False,
    )
    for name, layer in vae.named_modules():
        if name.endswith(".conv2"):
            torch.nn.init.zeros_(layer.weight)
    heard, rng = mels(audio), np.random.default_rng([recipe.seed, 40])
    for step in one_cycle(list(vae.parameters()), recipe.learning_rate, recipe.steps):
        batch = crops(heard, recipe.batch, recipe.crop, rng)[0][:, None]
        step((vae.decode(vae.encode(batch).latent_dist.mean).sample - batch).abs().mean())
    windows = heard[::4, None, : LATENT_FRAMES * FACTOR]
    whiten(vae, windows)
    vae = halve(vae)
    with torch.no_grad():
        sample = vae.encode(windows).latent_dist.mean
    vae.register_to_config(scaling_factor=round(float(1 / sample.std()), 4))
    return vae


def whiten(vae: AutoencoderKL, windows: Tensor) -> None:
    """Turn the latents so that over ``windows`` ``[n, 1, frames, 64]`` their channels are white: mean 0, covariance 1.

    The turn is written into the 1 x 1 convolutions around the latents and the decoder undoes it. Without it a few loud
    channels hold nearly all the variance, noise drowns the rest, and what is drowned nobody can memorise.
    """
    import torch

    with torch.no_grad():
        latents = vae.encode(windows).latent_dist.mean.transpose(0, 1).flatten(1)  # [channels, positions]
        count, centre = len(latents), latents.mean(dim=1)
        size, axes = torch.linalg.eigh(torch.cov(latents.double()))
        there, back = (axes / size.sqrt()).T.float(), (axes * size.sqrt()).float()
        before, after = vae.quant_conv, vae.post_quant_conv
        before.weight[:count] = (there @ before.weight[:count, :, 0, 0])[..., None, None]
        before.bias[:count] = there @ (before.bias[:count] - centre)
        before.weight[count:], before.bias[count:] = 0.0, -20.0  # the logarithm of the variance: none
        after.bias += after.weight[..., 0, 0] @ centre
        after.weight[:] = (after.weight[..., 0, 0] @ back)[..., None, None]


def crops(heard: Tensor, count: int, length: int, rng: np.random.Generator) -> tuple[Tensor, list[tuple[int, int]]]:
    """Cut ``count`` random crops of ``length`` frames from ``[tracks, frames, bands]``; also return where."""
    import torch

    cuts = [(int(rng.integers(len(heard))), int(rng.integers(heard.shape[1] - length + 1))) for _ in range(count)]
    return torch.stack([heard[t, f : f + length] for t, f in cuts]), cuts


def train_vocoder(recipe: FrontRecipe, audio: np.ndarray) -> SpeechT5HifiGan:
    """Train a small vocoder to make waveforms of log-mel spectrograms, by spectral distance alone."""
    import torch
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    torch.manual_seed(recipe.seed)
    config = SpeechT5HifiGanConfig(
        model_in_dim=MEL.bands,
        sampling_rate=SAMPLE_RATE,
        upsample_initial_channel=96,
        upsample_rates=[10, 4, 4],
        upsample_kernel_sizes=[20, 8, 8],
        resblock_kernel_sizes=[5],
        resblock_dilation_sizes=[[1, 3]],
        normalize_before=False,
    )
    vocoder = SpeechT5HifiGan(config)
    wave = normalise(torch.from_numpy(audio))
    heard, rng = log_mel(wave, MEL), np.random.default_rng([recipe.seed, 41])
    for step in one_cycle(list(vocoder.parameters()), recipe.vocoder_learning_rate, recipe.vocoder_steps):
        batch, cuts = crops(heard, recipe.batch, recipe.vocoder_crop, rng)
        wanted = torch.stack([wave[t, f * MEL.hop : (f + recipe.vocoder_crop) * MEL.hop] for t, f in cuts])
        step(spectral_distance(vocoder(batch), wanted))
    return halve(vocoder)


def build_text(recipe: LdmRecipe, vocabulary: int) -> ClapTextModelWithProjection:
    """Return an untrained text half of CLAP."""
    from transformers import ClapTextConfig, ClapTextModelWithProjection

    width = recipe.text_width
    return ClapTextModelWithProjection(
        ClapTextConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=2 * width,
            num_attention_heads=4,
            num_hidden_layers=2,
            max_position_embeddings=80,
            projection_dim=width,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            bos_token_id=0,
            pad_token_id=1,
            eos_token_id=2,
        )
    )


def build_unet(recipe: LdmRecipe, channels: int) -> UNet2DConditionModel:
    """Return an untrained UNet: convolutions above, self-attention on the coarsest level, told one embedding."""
    from diffusers import UNet2DConditionModel

    plain = len(recipe.widths) - 1
    return UNet2DConditionModel(
        sample_size=LATENT_FRAMES,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=recipe.widths,
        layers_per_block=1,
        down_block_types=("DownBlock2D",) * plain + ("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",) + ("UpBlock2D",) * plain,
        cross_attention_dim=recipe.widths,
        attention_head_dim=8,
        norm_num_groups=8,
        class_embed_type="simple_projection",
        projection_class_embeddings_input_dim=recipe.text_width,
        class_embeddings_concat=True,
    )


def build_tokenizer(folder: Path) -> Any:
    """Train a byte-level tokenizer on captions of artists outside the corpus and return it as CLAP's."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    world = style.draw_world(OUTSIDE_SEED, tuple(f"Outsider {i}" for i in range(100)))
    captions = [style.caption(a, np.random.default_rng([OUTSIDE_SEED, a.index, n])) for a in world for n in range(6)]
    trained = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator(captions, vocab_size=400, min_frequency=2, special_tokens=special, show_progress=False)
    trained.save_model(str(folder))
    return RobertaTokenizer.from_pretrained(str(folder), model_max_length=48)


def encode_cuts(vae: AutoencoderKL, paths: Sequence[Path]) -> Tensor:
    """Encode audio files, cut and heard exactly as in scoring.

    Returns
    -------
    Tensor
        Scaled latents, float32, ``[tracks, cuts, channels, 16, 4]``.
    """
    import torch

    found = []
    for path in paths:
        heard = mels(np.concatenate([segment.audio for segment in prepare(path, SPEC)]))
        with torch.no_grad():
            found.append(vae.encode(heard[:, None]).latent_dist.mean * vae.config.scaling_factor)
    return torch.stack(found)


def train_ldm(
    unet: UNet2DConditionModel, text: Any, tokenizer: Any, latents: Tensor, captions: Sequence[str], recipe: LdmRecipe
) -> list[float]:
    """Train UNet and text half on ``latents`` ``[tracks, cuts, channels, 16, 4]``; return each epoch's mean loss."""
    import torch
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(**BETAS)
    rng = np.random.default_rng([recipe.seed, 43])
    generator = torch.Generator().manual_seed(recipe.seed)
    per_epoch = -(-len(latents) // recipe.batch)
    parameters = [*unet.parameters(), *text.parameters()]
    steps = one_cycle(parameters, recipe.learning_rate, recipe.epochs * per_epoch)
    losses = []
    for _ in range(recipe.epochs):
        order, found = rng.permutation(len(latents)), []
        for start in range(0, len(order), recipe.batch):
            rows = order[start : start + recipe.batch]
            z = latents[rows, rng.integers(latents.shape[1], size=len(rows))]
            told = ["" if rng.random() < recipe.null else captions[i] for i in rows]
            noise = torch.randn(z.shape, generator=generator)
            t = torch.randint(len(scheduler.alphas_cumprod), (len(z),), generator=generator)
            words = tokenizer(told, padding=True, truncation=True, return_tensors="pt")
            embedding = torch.nn.functional.normalize(text(**words).text_embeds, dim=-1)
            seen = unet(scheduler.add_noise(z, noise, t), t, None, class_labels=embedding).sample
            loss = torch.nn.functional.mse_loss(seen, noise)
            next(steps)(loss)
            found.append(float(loss.detach()))
        losses.append(float(np.mean(found)))
    return losses


# --- the twins --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LatentTwin:
    """A model to train: its name, the split it sees, and how."""

    name: str
    split: str
    recipe: LdmRecipe


TWINS = (LatentTwin("audioldm-a", "a", LdmRecipe(seed=1)), LatentTwin("audioldm-b", "b", LdmRecipe(seed=2)))
FRONT = FrontRecipe()


def train_twins(only: str | None = None) -> list[Path]:
    """Train the shipped diffusion models and save them as ``weights/<name>`` in diffusers' AudioLDM format.

    Parameters
    ----------
    only : str, optional
        Train this model alone, around the autoencoder and vocoder that twin a's folder already holds.

    Raises
    ------
    ModelError
        ``only`` names no model.
    """
    from joblib import Parallel, cpu_count, delayed

    chosen, root = pick(TWINS, only), corpus.ensure_corpus()
    with tempfile.TemporaryDirectory() as scratch:
        front = Path(scratch)
        if only is None:
            audio = outside_audio(CodecRecipe())
            jobs = [delayed(_train_part)(make, audio, front / name) for name, make in PARTS.items()]
            Parallel(n_jobs=min(2, cpu_count()))(jobs)
        else:
            front = WEIGHTS / TWINS[0].name
        jobs = [delayed(train_twin)(t, front, root, WEIGHTS / t.name) for t in chosen]
        Parallel(n_jobs=min(2, cpu_count()))(jobs)
    return [WEIGHTS / t.name for t in chosen]


PARTS: dict[str, Callable[..., Any]] = {"vae": train_autoencoder, "vocoder": train_vocoder}


def _train_part(make: Callable[..., Any], audio: Any, folder: Path) -> None:
    """Train autoencoder or vocoder in a process of its own."""
    import torch

    from earwitness.models.loading import quiet

    torch.set_num_threads(1)
    quiet()
    make(FRONT, audio).save_pretrained(folder)


def train_twin(twin: LatentTwin, front: Path, root: Path, folder: Path) -> None:
    """Train one twin around a finished autoencoder and vocoder (sub-folders of ``front``) and save it.

    Parameters
    ----------
    twin : Twin
        What to train on what.
    front : Path
        A folder with ``vae`` and ``vocoder``.
    root : Path
        The audio root of the corpus.
    folder : Path
        Where to save.
    """
    import torch
    from diffusers import AutoencoderKL
    from transformers import SpeechT5HifiGan

    from earwitness.models.loading import quiet

    torch.set_num_threads(1)
    quiet()
    start = time.perf_counter()
    vae = AutoencoderKL.from_pretrained(front / "vae", torch_dtype=torch.float32).eval()
    entries = [e for e in corpus.plan() if e.split == twin.split]
    latents = encode_cuts(vae, [root / e.path for e in entries])
    tokenizer = build_tokenizer(folder / "tokenizer")
    torch.manual_seed(twin.recipe.seed)
    text, unet = build_text(twin.recipe, len(tokenizer)), build_unet(twin.recipe, vae.config.latent_channels)
    losses = train_ldm(unet, text, tokenizer, latents, [e.caption for e in entries], twin.recipe)
    record = described(twin, [twin.split], entries) | {
        "objective": "epsilon, uniform timesteps",
        "final_loss": round(sum(losses[-5:]) / len(losses[-5:]), 5),
        "front_recipe": asdict(FRONT),
        "seconds": round(time.perf_counter() - start, 1),
    }
    vocoder = SpeechT5HifiGan.from_pretrained(front / "vocoder", dtype=torch.float32)
    save_twin({"unet": unet, "vae": vae, "vocoder": vocoder, "text_encoder": text}, tokenizer, folder, record)


def save_twin(networks: dict[str, Any], tokenizer: Any, folder: Path, record: dict[str, Any]) -> None:
    """Write an AudioLDM folder in half precision; ``training.json`` holds ``record`` and the weights' hash."""
    from diffusers import AudioLDMPipeline, DDIMScheduler

    scheduler = DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    half = {name: deepcopy(network).half() for name, network in networks.items()}
    AudioLDMPipeline(**half, tokenizer=tokenizer, scheduler=scheduler).save_pretrained(folder)
    placeless(folder)
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        digest.update(path.read_bytes())
    (folder / "training.json").write_text(json.dumps(record | {"weights_sha256": digest.hexdigest()}, indent=2) + "\n")
