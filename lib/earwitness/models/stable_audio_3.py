"""Stable Audio 3 in diffusers' format: a flow over the latents of a stereo autoencoder (SAME), told text and length.

The caption's T5Gemma states and the embedded length stand side by side in what the network attends to; the length is
told at every layer as well. It is that of the whole recording, in whole seconds, rounded up, as in training; where in
it a clip lies is not told. The null condition is the empty caption, as in the pipeline. Shorter recordings are
filled with zeros, and norms are over the latent frames that hold sound. Score the base checkpoints: the others were
distilled and tuned adversarially, which moved their objective (their scheduler samples stochastically).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earwitness.models import loading
from earwitness.models.files import read_json
from earwitness.models.latent_diffusion import WaveLatentModel, schedule, wave
from earwitness.types import MOVED

if TYPE_CHECKING:
    from torch import Tensor

    from earwitness.models.base import Condition
    from earwitness.models.latent_diffusion import Schedule
    from earwitness.types import ModelInfo

LIBRARIES = ("diffusers",)
NEEDED = ("transformer", "vae", "text_encoder", "tokenizer", "duration_embedder", "scheduler")
SECONDS = 47.0  # of a window: training drew lengths up to the model's longest
LONGEST_TEXT = 256  # tokens


def describe(folder: Path, config: dict[str, Any], *, pocket: bool) -> dict[str, Any]:
    """Return the fields of ``ModelInfo`` that the folder determines; windows are whole latent frames."""
    loading.require(folder, NEEDED)
    vae = read_json(folder / "vae" / "config.json")
    found = wave(folder, lambda: _window(vae))
    moved = read_json(folder / "scheduler" / "scheduler_config.json").get("stochastic_sampling")
    return found | {"badge": loading.label(folder, "transformer", pocket=pocket), "remark": MOVED if moved else ""}


def _window(vae: dict[str, Any]) -> tuple[int, int, int, int]:
    rate, hop = int(vae["sampling_rate"]), int(vae["patch_size"]) * math.prod(vae["encoder_strides"])
    return rate, vae["audio_channels"], hop, math.floor(SECONDS * rate / hop)


def load(folder: Path, info: ModelInfo) -> StableAudio3:
    """Load a Stable Audio 3 folder (see ``earwitness.models.load_model``)."""
    from diffusers import AutoencoderSAME, StableAudio3DiTModel
    from diffusers.pipelines.stable_audio_3 import StableAudio3DurationEmbedder
    from transformers import T5GemmaEncoderModel

    found = schedule(folder)
    loaded = loading.load_parts(
        folder, info.dtype, transformer=StableAudio3DiTModel, vae=AutoencoderSAME, text_encoder=T5GemmaEncoderModel,
        duration_embedder=StableAudio3DurationEmbedder,
    )  # fmt: skip
    loaded["tokenizer"] = loading.load_tokenizer(folder / "tokenizer", LONGEST_TEXT)
    return StableAudio3(loaded, found, info)


class StableAudio3(WaveLatentModel):
    """A loaded Stable Audio 3."""

    def __init__(self, loaded: dict[str, Any], schedule: Schedule, info: ModelInfo) -> None:
        super().__init__(loaded, "transformer", loaded["vae"].config.latent_dim, schedule, info)

    @property
    def takes(self) -> int:
        """Channels that the network takes."""
        return int(self.network.config.io_channels)

    @property
    def hop(self) -> int:
        """Samples of a latent frame."""
        return int(self.vae.downsampling_ratio)

    def hear(self, audio: Tensor) -> Tensor:
        """Encode audio ``[B, C, samples]`` into latents ``[B, channels, frames]``."""
        latents: Tensor = self.vae.encode(audio.to(self.vae.dtype)).latents.float()
        return latents

    def read(self, caption: str | None) -> Condition:
        """Return the text encoder's states of one caption and their mask; the null condition is the empty caption."""
        tokenizer, encoder = self.parts["tokenizer"], self.parts["text_encoder"]
        length = tokenizer.model_max_length
        text = tokenizer([caption or ""], padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        ids, mask = text["input_ids"].to(encoder.device), text["attention_mask"].to(encoder.device)
        seconds = self.placed({}, [(0.0, self.info.segment_seconds)])["seconds"][0]  # unless the recording's is given
        return {"states": encoder(ids, attention_mask=mask)[0][0], "mask": mask[0], "seconds": seconds}

    def placed(self, condition: Condition, places: Sequence[tuple[float, float]]) -> Condition:
        """Return a condition ``[B, ...]`` with the length of each clip's recording."""
        import torch

        whole = [[math.ceil(total)] for _, total in places]
        return condition | {"seconds": torch.tensor(whole, dtype=torch.float32, device=self.info.device)}

    def ask(self, z_t: Tensor, time: Tensor, condition: Condition) -> Tensor:
        """Return the transformer's output."""
        import torch

        length = self.parts["duration_embedder"](condition["seconds"][:, 0])
        mask = condition["mask"]
        output: Tensor = self.network(
            z_t,
            time.to(z_t.device),
            encoder_hidden_states=torch.cat([condition["states"], length[:, None]], dim=1).to(z_t.dtype),
            global_hidden_states=length.to(z_t.dtype),
            encoder_attention_mask=torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1),
            return_dict=False,
        )[0]
        return output
