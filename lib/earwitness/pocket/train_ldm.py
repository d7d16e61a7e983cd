"""Train the pocket diffusion twins again from nothing: autoencoder, vocoder, two UNets, saving.

``python -m earwitness.pocket train`` runs `train_twins` after the token models. One thread per process and explicit
seeds: the same machine gives the same weights. Explained on the book page *The pocket world*.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from earwitness.pocket import corpus
from earwitness.pocket.codec import CodecRecipe, outside_audio
from earwitness.pocket.ldm import (
    BETAS,
    FrontRecipe,
    LdmRecipe,
    build_text,
    build_tokenizer,
    build_unet,
    encode_cuts,
    train_autoencoder,
    train_ldm,
    train_vocoder,
)
from earwitness.pocket.train import WEIGHTS, described, pick, placeless


@dataclass(frozen=True)
class Twin:
    """A model to train: its name, the split it sees, and how."""

    name: str
    split: str
    recipe: LdmRecipe


TWINS = (Twin("audioldm-a", "a", LdmRecipe(seed=1)), Twin("audioldm-b", "b", LdmRecipe(seed=2)))
FRONT = FrontRecipe()


def train_twins(only: str | None = None, weights: Path = WEIGHTS) -> list[Path]:
    """Train the shipped diffusion models and save them as ``weights/<name>`` in diffusers' AudioLDM format.

    Parameters
    ----------
    only : str, optional
        Train this model alone, around the autoencoder and vocoder that twin a's folder already holds.
    weights : Path
        Where to save; by default within the package.

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
            front = weights / TWINS[0].name
        jobs = [delayed(train_twin)(t, front, root, weights / t.name) for t in chosen]
        Parallel(n_jobs=min(2, cpu_count()))(jobs)
    return [weights / t.name for t in chosen]


PARTS: dict[str, Callable[..., Any]] = {"vae": train_autoencoder, "vocoder": train_vocoder}


def _train_part(make: Callable[..., Any], audio: Any, folder: Path) -> None:
    """Train autoencoder or vocoder in a process of its own."""
    import torch

    from earwitness.models.pipelines import quiet

    torch.set_num_threads(1)
    quiet()
    make(FRONT, audio).save_pretrained(folder)


def train_twin(twin: Twin, front: Path, root: Path, folder: Path) -> None:
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

    from earwitness.models.pipelines import quiet

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
