"""ACE-Step 1.5 in diffusers' format: a flow over the latents of a 48 kHz stereo autoencoder, told text of three kinds.

A caption is set into the pipeline's own template, whose other fields are empty: no lyrics, no tempo, key or metre, and
no reference for the timbre, in whose place stands the learned latent of silence. The length told is the window's. The
null condition is the learned one. Nothing is kept from a source: the context is silence, to be filled throughout.
Turbo checkpoints were distilled, which moved their objective: score the base ones.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earwitness.models import loading
from earwitness.models.files import read_json
from earwitness.models.latent_diffusion import WaveLatentModel, flow, wave
from earwitness.types import MOVED

if TYPE_CHECKING:
    from torch import Tensor

    from earwitness.models.base import Condition
    from earwitness.types import ModelInfo

LIBRARIES = ("diffusers",)
NEEDED = ("transformer", "vae", "text_encoder", "tokenizer", "condition_encoder", "scheduler")
SECONDS = 47.0  # of a window; the model takes up to ten minutes
TIMBRE_SECONDS = 30  # of silence, in place of a reference
MOST_TEXT, MOST_LYRICS = 256, 2048  # tokens


def describe(folder: Path, config: dict[str, Any], *, pocket: bool) -> dict[str, Any]:
    """Return the fields of ``ModelInfo`` that the folder determines; windows are whole latent frames."""
    loading.require(folder, NEEDED)
    network, vae = (read_json(folder / name / "config.json") for name in ("transformer", "vae"))
    found = wave(folder, lambda: _window(vae), fills=False)
    moved = network.get("is_turbo") or network.get("model_version") == "turbo"
    return found | {"badge": loading.label(folder, "transformer", pocket=pocket), "remark": MOVED if moved else ""}


def _window(vae: dict[str, Any]) -> tuple[int, int, int, int]:
    rate, hop = int(vae["sampling_rate"]), math.prod(vae["downsampling_ratios"])
    return rate, vae["audio_channels"], hop, math.floor(SECONDS * rate / hop)


def load(folder: Path, info: ModelInfo) -> AceStep:
    """Load an ACE-Step folder (see ``earwitness.models.load_model``)."""
    from diffusers import AceStepTransformer1DModel, AutoencoderOobleck
    from diffusers.pipelines.ace_step import AceStepConditionEncoder
    from transformers import Qwen3Model

    loaded = loading.load_parts(
        folder, info.dtype, transformer=AceStepTransformer1DModel, vae=AutoencoderOobleck, text_encoder=Qwen3Model,
        condition_encoder=AceStepConditionEncoder,
    )  # fmt: skip
    loaded["tokenizer"] = loading.load_tokenizer(folder / "tokenizer")
    return AceStep(loaded, info)


class AceStep(WaveLatentModel):
    """A loaded ACE-Step 1.5."""

    def __init__(self, loaded: dict[str, Any], info: ModelInfo) -> None:
        super().__init__(loaded, "transformer", loaded["vae"].config.decoder_input_channels, flow(), info)

    @property
    def takes(self) -> int:
        """Channels that the network takes of a latent, beside its context."""
        return int(self.network.config.audio_acoustic_hidden_dim)

    def _silence(self, frames: int) -> Tensor:
        """Return the learned latent of silence, ``[1, frames, channels]``, again and again if need be."""
        silence: Tensor = self.parts["condition_encoder"].silence_latent
        return silence.repeat(1, -(-frames // silence.shape[1]), 1)[:, :frames]

    def read(self, caption: str | None) -> Condition:
        """Return what one caption tells the network, ``[L, D]``; the null condition is one learned state.

        The pipeline repeats that state as often as a caption has some, which tells the network the same.
        """
        import torch
        from diffusers.pipelines.ace_step import AceStepPipeline as Pipeline

        tokenizer, encoder, conditions = (self.parts[n] for n in ("tokenizer", "text_encoder", "condition_encoder"))
        if caption is None:
            return {"states": conditions.null_condition_emb[0], "length": torch.tensor([1], device=encoder.device)}
        said = Pipeline._format_prompt(Pipeline, caption, "", audio_duration=self.info.segment_seconds)
        text, lyrics = (
            tokenizer([words], truncation=True, max_length=most, return_tensors="pt").to(encoder.device)
            for words, most in zip(said, (MOST_TEXT, MOST_LYRICS), strict=True)
        )
        frames = self.spread()[0] / self.info.segment_seconds
        states, _ = conditions(
            text_hidden_states=encoder(input_ids=text["input_ids"]).last_hidden_state,
            text_attention_mask=text["attention_mask"].bool(),
            lyric_hidden_states=encoder.get_input_embeddings()(lyrics["input_ids"]),
            lyric_attention_mask=lyrics["attention_mask"].bool(),
            refer_audio_acoustic_hidden_states_packed=self._silence(math.ceil(TIMBRE_SECONDS * frames)),
            refer_audio_order_mask=torch.zeros(1, dtype=torch.long, device=encoder.device),
        )
        return {"states": states[0], "length": torch.tensor([states.shape[1]], device=states.device)}

    def ask(self, z_t: Tensor, time: Tensor, condition: Condition) -> Tensor:
        """Return the transformer's output, ``[B, channels, frames]``.

        The network attends to every state, padding included: items are asked in groups of one length.
        """
        import torch

        silence = self._silence(z_t.shape[2]).to(z_t.dtype)
        context = torch.cat([silence, torch.ones_like(silence)], dim=-1)
        output, told = torch.empty_like(z_t), time.to(z_t.device, z_t.dtype)
        for length in sorted(set(condition["length"].flatten().tolist())):
            rows = (condition["length"].flatten() == length).nonzero().flatten().to(z_t.device)
            found = self.network(
                z_t[rows].transpose(1, 2),
                told[rows],
                told[rows],
                condition["states"][rows, :length].to(z_t.dtype),
                context.expand(len(rows), -1, -1),
                return_dict=False,
            )[0]
            output = output.index_copy(0, rows, found.transpose(1, 2))
        return output
