"""Stable Audio Open in diffusers' format: a diffusion transformer over the latents of a stereo autoencoder.

Its objective is v in continuous time, alpha = cos(pi t / 2), sigma = sin(pi t / 2). It is told the caption's T5 states,
where in its recording the clip starts and how long the whole recording is, in whole seconds: as in training, the start
is rounded down and the length up. Shorter recordings are filled with zeros, as in training too: the network attends to
the whole window, and norms are over the latent frames that hold sound. The null condition is zeros in place of the
attended states, as in its own guidance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earwitness.models import loading
from earwitness.models.files import read_json
from earwitness.models.latent_diffusion import WaveLatentModel, schedule, wave

if TYPE_CHECKING:
    from torch import Tensor

    from earwitness.models.base import Condition
    from earwitness.models.latent_diffusion import Schedule
    from earwitness.types import ModelInfo

LIBRARIES = ("diffusers",)
NEEDED = ("transformer", "vae", "text_encoder", "tokenizer", "projection_model", "scheduler")


def describe(folder: Path, config: dict[str, Any], *, pocket: bool) -> dict[str, Any]:
    """Return the fields of ``ModelInfo`` that the folder determines."""
    loading.require(folder, NEEDED)
    network, vae = (read_json(folder / name / "config.json") for name in ("transformer", "vae"))
    found = wave(folder, lambda: _window(vae, network))
    return found | {"badge": loading.label(folder, "transformer", pocket=pocket)}


def _window(vae: dict[str, Any], network: dict[str, Any]) -> tuple[Any, ...]:
    return vae["sampling_rate"], vae["audio_channels"], math.prod(vae["downsampling_ratios"]), network["sample_size"]


def load(folder: Path, info: ModelInfo) -> StableAudio:
    """Load a Stable Audio folder (see ``earwitness.models.load_model``)."""
    from diffusers import AutoencoderOobleck, StableAudioDiTModel
    from diffusers.pipelines.stable_audio import StableAudioProjectionModel
    from transformers import T5EncoderModel

    found = schedule(folder)
    loaded = loading.load_parts(
        folder, info.dtype, transformer=StableAudioDiTModel, vae=AutoencoderOobleck, text_encoder=T5EncoderModel,
        projection_model=StableAudioProjectionModel,
    )  # fmt: skip
    loaded["tokenizer"] = loading.load_tokenizer(folder / "tokenizer", loading.LONGEST_TEXT)
    return StableAudio(loaded, found, info)


class StableAudio(WaveLatentModel):
    """A loaded Stable Audio Open."""

    def __init__(
        self, loaded: dict[str, Any], schedule: Schedule, info: ModelInfo, told: Sequence[int] = (0, 1)
    ) -> None:
        self.told_of = told  # which of start and length the network is told
        super().__init__(loaded, "transformer", loaded["vae"].config.decoder_input_channels, schedule, info)

    def read(self, caption: str | None) -> Condition:
        """Return attended and global states of one caption; the null condition attends to zeros."""
        import torch

        tokenizer, encoder, projection = (self.parts[n] for n in ("tokenizer", "text_encoder", "projection_model"))
        length = tokenizer.model_max_length
        text = tokenizer([caption or ""], padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        ids, mask = text["input_ids"].to(encoder.device), text["attention_mask"].to(encoder.device)
        states = encoder(ids, attention_mask=mask)[0]
        words = projection(text_hidden_states=states).text_hidden_states * mask[..., None]
        said = torch.tensor([float(caption is not None)], device=encoder.device)
        seconds = self.placed({}, [(0.0, self.info.segment_seconds)])["seconds"][0]  # unless the clip's own are given
        return {"words": words[0], "said": said, "seconds": seconds}

    def placed(self, condition: Condition, places: Sequence[tuple[float, float]]) -> Condition:
        """Return a condition ``[B, ...]`` with each clip's start in its recording and that one's length, in seconds."""
        import torch

        whole = [[math.floor(start), math.ceil(total)] for start, total in places]
        return condition | {"seconds": torch.tensor(whole, dtype=torch.float32, device=self.info.device)}

    def told_apart(self, condition: Condition) -> tuple[Tensor, Tensor]:
        """Return what the transformer attends to and what it is told at every layer, from a condition ``[B, ...]``."""
        import torch

        projection = self.parts["projection_model"]
        readers = projection.start_number_conditioner, projection.end_number_conditioner
        span = [readers[i](condition["seconds"][:, i]) for i in self.told_of]
        attended = torch.cat([condition["words"], *span], dim=1) * condition["said"][:, None]
        return attended, torch.cat(span, dim=2)

    def ask(self, z_t: Tensor, time: Tensor, condition: Condition) -> Tensor:
        """Return the transformer's output."""
        from diffusers.models.embeddings import get_1d_rotary_pos_embed

        attended, everywhere = self.told_apart(condition)
        width, length = self.network.config.attention_head_dim // 2, z_t.shape[2] + everywhere.shape[1]
        rotary = get_1d_rotary_pos_embed(width, length, use_real=True, repeat_interleave_real=False)
        output: Tensor = self.network(
            z_t,
            time.to(z_t.device),
            encoder_hidden_states=attended.to(z_t.dtype),
            global_hidden_states=everywhere.to(z_t.dtype),
            rotary_embedding=tuple(x.to(z_t.device) for x in rotary),
            return_dict=False,
        )[0]
        return output
