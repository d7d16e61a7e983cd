"""AudioLDM 2 in diffusers' format (the large variants too): a UNet told two token sequences.

A caption goes through CLAP and FLAN-T5; a GPT-2 continues both, projected, with eight hidden states that stand for
audio features. The UNet attends to these eight and to the T5 states.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from earwitness.errors import ModelError
from earwitness.models import latent_diffusion, loading
from earwitness.models.base import stack
from earwitness.models.clap import audio_embedding, text_embedding
from earwitness.models.files import read_json

if TYPE_CHECKING:
    from torch import Tensor

    from earwitness.models.base import Condition
    from earwitness.types import ModelInfo

LIBRARIES = ("diffusers",)
NEEDED = (
    "unet", "vae", "vocoder", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "language_model",
    "projection_model", "feature_extractor", "scheduler",
)  # fmt: skip
GENERATED = 8  # hidden states that the language model adds, where its configuration does not say


def describe(folder: Path, config: dict[str, Any], *, pocket: bool) -> dict[str, Any]:
    """Return the fields of ``ModelInfo`` that the folder determines."""
    loading.require(folder, NEEDED)
    unet, vae, vocoder = (read_json(folder / name / "config.json") for name in ("unet", "vae", "vocoder"))
    return {
        **latent_diffusion.window(folder, unet.get("sample_size"), vae, vocoder),
        "badge": loading.label(folder, "unet", pocket=pocket),
        "conditions": ("text", "null", "audio"),
    }


def load(folder: Path, info: ModelInfo) -> AudioLDM2:
    """Load an AudioLDM 2 folder (see ``earwitness.models.load_model``)."""
    from diffusers import AudioLDM2ProjectionModel, AudioLDM2UNet2DConditionModel, AutoencoderKL
    from transformers import ClapModel, GPT2Model, SpeechT5HifiGan, T5EncoderModel

    second = read_json(folder / "text_encoder_2" / "config.json").get("model_type")
    if second != "t5":
        raise ModelError(
            f"{folder.name}/text_encoder_2: expected FLAN-T5, found {second!r}; speech variants are not read"
        )
    schedule = latent_diffusion.schedule(folder)
    loaded = loading.load_parts(
        folder, info.dtype, unet=AudioLDM2UNet2DConditionModel, vae=AutoencoderKL, vocoder=SpeechT5HifiGan,
        text_encoder=ClapModel, text_encoder_2=T5EncoderModel, language_model=GPT2Model,
        projection_model=AudioLDM2ProjectionModel,
    )  # fmt: skip
    for name in ("tokenizer", "tokenizer_2"):
        loaded[name] = loading.load_tokenizer(folder / name, loading.LONGEST_TEXT)
    loaded["extractor"] = loading.load_extractor(folder, "feature_extractor")
    spec = latent_diffusion.front_end(read_json(folder / "vocoder" / "config.json"))
    return AudioLDM2(loaded, schedule, spec, info)


class AudioLDM2(latent_diffusion.MelLatentModel):
    """A loaded AudioLDM 2."""

    def _t5(self, caption: str) -> Tensor:
        """Return FLAN-T5's states of one caption, ``[1, L, D]``."""
        tokenizer, encoder = self.parts["tokenizer_2"], self.parts["text_encoder_2"]
        text = tokenizer([caption], max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt")
        states: Tensor = encoder(text["input_ids"].to(encoder.device)).last_hidden_state
        return states

    def _continue(self, clap: Tensor, states: Tensor) -> Condition:
        """Let the language model continue a CLAP embedding ``[D]`` and T5 states ``[1, L, D']``; no batch axis."""
        import torch

        projection, language = self.parts["projection_model"], self.parts["language_model"]
        clap = clap[None, None].to(projection.dtype)
        ones = [torch.ones(x.shape[:2], dtype=torch.long, device=x.device) for x in (clap, states)]
        projected = projection(
            hidden_states=clap, hidden_states_1=states, attention_mask=ones[0], attention_mask_1=ones[1]
        )
        sequence = projected.hidden_states
        count = getattr(language.config, "max_new_tokens", None) or GENERATED
        for _ in range(count):
            latest = language(inputs_embeds=sequence, use_cache=False).last_hidden_state[:, -1:]
            sequence = torch.cat([sequence, latest], dim=1)
        return {"generated": sequence[0, -count:], "states": states[0], "mask": ones[1][0]}

    def read(self, caption: str | None) -> Condition:
        """Return generated states, T5 states and their mask for one caption; the null condition is the empty one."""
        clap = text_embedding(self.parts["text_encoder"], self.parts["tokenizer"], caption or "")
        return self._continue(clap, self.once(self._t5, caption or ""))

    def listen(self, audio: Tensor, captions: list[str] | None) -> Condition:
        """Return the same with the audio's own CLAP embedding in the caption's place; T5 still reads the captions."""
        heard = audio_embedding(self.parts["text_encoder"], self.parts["extractor"], audio[:, 0], self.info.sample_rate)
        spoken = [""] * len(heard) if captions is None else captions
        return stack([self._continue(h, self.once(self._t5, c)) for h, c in zip(heard, spoken, strict=True)])

    def ask(self, z_t: Tensor, time: Tensor, condition: Condition) -> Tensor:
        """Return the UNet's output."""
        output: Tensor = self.network(
            z_t,
            time,
            encoder_hidden_states=condition["generated"].to(z_t.dtype),
            encoder_hidden_states_1=condition["states"].to(z_t.dtype),
            encoder_attention_mask_1=condition["mask"],
            return_dict=False,
        )[0]
        return output
