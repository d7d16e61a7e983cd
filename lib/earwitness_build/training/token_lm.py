"""Train a pocket token model: codes of a corpus split, a tiny T5 for the captions, a MusicGen decoder over both.

Saved as an ordinary MusicGen folder, so that the adapter cannot tell it from a published one.
Explained on the book page *The pocket world*.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from earwitness.data.audio import AudioSpec, load
from earwitness.pocket import style
from earwitness.pocket.render import SAMPLE_RATE
from earwitness.util import file_hash
from earwitness_build.training.codec import FRAME_RATE, OUTSIDE_SEED

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import EncodecModel, MusicgenForConditionalGeneration

FRAMES = 128  # the window: 2.56 s at 50 frames a second
SPEC = AudioSpec(sample_rate=SAMPLE_RATE, channels=1, segment_seconds=FRAMES / FRAME_RATE)


@dataclass(frozen=True)
class LmRecipe:
    """Everything that fixes a token model, given codec and tracks.

    ``epochs`` passes over the tracks (the last may be cut short), each with one random window per track (``shifts``:
    see `encode_tracks`); ``null`` is the probability with which a caption is dropped; the learning rate falls as a half
    cosine.
    """

    seed: int = 0
    width: int = 128
    layers: int = 4
    heads: int = 4
    text_width: int = 32
    shifts: int = 2
    epochs: float = 36
    batch: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    dropout: float = 0.1
    null: float = 0.2


def build_tokenizer(folder: Path) -> Any:
    """Train a sentencepiece tokenizer on captions of artists outside the corpus and return it as T5's."""
    import sentencepiece
    from transformers import T5Tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    world = style.draw_world(OUTSIDE_SEED, tuple(f"Outsider {i}" for i in range(100)))
    captions = [style.caption(a, np.random.default_rng([OUTSIDE_SEED, a.index, n])) for a in world for n in range(6)]
    with tempfile.TemporaryDirectory() as scratch:
        text = Path(scratch) / "captions.txt"
        text.write_text("\n".join(captions))
        sentencepiece.SentencePieceTrainer.train(
            input=str(text),
            model_prefix=str(folder / "spiece"),
            vocab_size=160,
            model_type="unigram",
            hard_vocab_limit=False,
            num_threads=1,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            normalization_rule_name="identity",  # the default carries a quarter of a megabyte of Unicode tables
            minloglevel=2,
        )
    (folder / "spiece.vocab").unlink()
    return T5Tokenizer.from_pretrained(str(folder), model_max_length=64, extra_ids=0)


def build_model(recipe: LmRecipe, codec: EncodecModel, vocabulary: int) -> MusicgenForConditionalGeneration:
    """Return an untrained MusicGen around a trained codec, with a tiny T5 encoder of ``vocabulary`` pieces."""
    import torch
    from transformers import MusicgenConfig, MusicgenDecoderConfig, MusicgenForConditionalGeneration, T5Config

    torch.manual_seed(recipe.seed)
    entries, books = codec.config.codebook_size, codec.config.num_quantizers
    text = T5Config(
        vocab_size=vocabulary,
        d_model=recipe.text_width,
        d_kv=recipe.text_width // 4,
        d_ff=2 * recipe.text_width,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
    )
    decoder = MusicgenDecoderConfig(
        vocab_size=entries,
        hidden_size=recipe.width,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        ffn_dim=4 * recipe.width,
        num_codebooks=books,
        max_position_embeddings=2 * FRAMES,
        dropout=recipe.dropout,
        audio_channels=1,
        pad_token_id=entries,
        bos_token_id=entries,
    )
    config = MusicgenConfig(
        text_encoder=text.to_dict(), audio_encoder=codec.config.to_dict(), decoder=decoder.to_dict()
    )
    model = MusicgenForConditionalGeneration(config)
    model.audio_encoder.load_state_dict(codec.state_dict())
    model.audio_encoder.requires_grad_(requires_grad=False)
    model.config.decoder_start_token_id = model.config.pad_token_id = entries
    generation = {"decoder_start_token_id": entries, "pad_token_id": entries, "bos_token_id": entries}
    generation |= {"max_length": FRAMES, "do_sample": True, "guidance_scale": 3.0}
    model.generation_config.update(**generation)
    return model


def encode_tracks(codec: EncodecModel, paths: Sequence[Path], shifts: int) -> Tensor:
    """Encode whole recordings, brought to level exactly as in scoring, several times a fraction of a frame apart.

    Returns
    -------
    Tensor
        Codes, int64, ``[tracks, shifts, K, frames]``: any `FRAMES` neighbouring frames are a window.
    """
    import torch

    hop = SAMPLE_RATE // FRAME_RATE
    codes = []
    for path in paths:
        audio = load(path, SPEC)
        length = (audio.shape[1] // hop - 1) * hop
        batch = np.stack([audio[:, s * hop // shifts :][:, :length] for s in range(shifts)])
        with torch.inference_mode():
            codes.append(codec.encode(torch.from_numpy(batch)).audio_codes[0])
    return torch.stack(codes).clone()


def delayed(codes: Tensor, pad: int) -> tuple[Tensor, Tensor]:
    """Delay pattern: codes ``[B, K, T]`` to inputs and targets ``[B, K, T + K - 1]``; ``pad`` where there is no code.

    As in audiocraft, the last k frames of codebook k are neither fed nor asked for.
    """
    batch, books, frames = codes.shape
    sequence = codes.new_full((batch, books, frames + books), pad)
    for k in range(books):
        sequence[:, k, 1 + k : 1 + k + frames] = codes[:, k]
    return sequence[..., :-1], sequence[..., 1:]


def token_loss(model: Any, codes: Tensor, text: dict[str, Tensor], null: Tensor) -> Tensor:
    """Cross-entropy of codes ``[B, K, T]``: mean per codebook over frames, then over codebooks.

    Where ``null`` ``[B]`` is True the condition is zero states under a zero mask, as in classifier-free guidance.
    """
    import torch
    from transformers.modeling_outputs import BaseModelOutput

    pad = model.config.decoder.vocab_size
    inputs, targets = delayed(codes, pad)
    mask = text["attention_mask"] * (~null)[:, None]
    states = model.text_encoder(**text).last_hidden_state * mask[..., None]
    logits = model(
        encoder_outputs=BaseModelOutput(last_hidden_state=states),
        attention_mask=mask,
        decoder_input_ids=inputs.reshape(-1, inputs.shape[-1]),
        use_cache=False,
    ).logits.view(*targets.shape, -1)
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 2), targets.flatten(), reduction="none", ignore_index=pad
    )
    counts = (targets != pad).sum(dim=(0, 2))
    return (losses.view(targets.shape).sum(dim=(0, 2)) / counts).mean()


def train_lm(model: Any, tokenizer: Any, codes: Tensor, captions: Sequence[str], recipe: LmRecipe) -> int:
    """Train decoder and text encoder on codes ``[tracks, shifts, K, frames]``; deterministic on one machine and thread.

    Returns
    -------
    int
        The number of optimiser steps. ``model`` is trained in place and left in evaluation mode.
    """
    import torch

    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng([recipe.seed, 31])
    text = tokenizer(list(captions), padding=True, return_tensors="pt")
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, recipe.learning_rate, betas=(0.9, 0.95), weight_decay=recipe.weight_decay)
    steps = round(recipe.epochs * -(-len(codes) // recipe.batch))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.learning_rate, steps, pct_start=0.1)
    model.train()
    for batch in islice(batches(len(codes), recipe.batch, rng), steps):
        shifts = rng.integers(codes.shape[1], size=len(batch))
        starts = rng.integers(codes.shape[3] - FRAMES + 1, size=len(batch))
        cuts = [codes[t, s, :, f : f + FRAMES] for t, s, f in zip(batch, shifts, starts, strict=True)]
        null = torch.from_numpy(rng.random(len(batch)) < recipe.null)
        words = {key: text[key][torch.from_numpy(batch)] for key in ("input_ids", "attention_mask")}
        optimiser.zero_grad()
        token_loss(model, torch.stack(cuts), words, null).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
    model.eval()
    return steps


def batches(n: int, size: int, rng: np.random.Generator) -> Iterator[npt.NDArray[np.int64]]:
    """Pass over n tracks again and again, each time in a new order."""
    while True:
        order = rng.permutation(n)
        yield from (order[i : i + size] for i in range(0, n, size))


def save_model(model: Any, tokenizer: Any, folder: Path, record: dict[str, Any]) -> None:
    """Write a MusicGen folder in half precision; ``training.json`` holds ``record`` and the weights' hash."""
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "training.json").write_text(
        json.dumps(record | {"weights_sha256": file_hash(folder / "model.safetensors")}, indent=2) + "\n"
    )
