"""AudioLDM and MusicLDM in diffusers' format: a UNet told one CLAP embedding.

AudioLDM's published folders hold CLAP's text half only. Put the full ClapModel (with its feature extractor) into the
folder's ``clap/`` to condition on the audio's own embedding as well. MusicLDM's folders hold all of it. The published
cards say which AudioLDM was trained on audio conditions: m-full alone; s, s-v2 and l are never given one.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from earwitness.models import latent_diffusion, loading
from earwitness.models.clap import audio_embedding, check_same_text_half, text_embedding
from earwitness.models.files import read_json

if TYPE_CHECKING:
    from torch import Tensor

    from earwitness.models.base import Condition
    from earwitness.types import ModelInfo

LIBRARIES = ("diffusers",)
WITHOUT_AUDIO = ([128, 256, 384, 640], [256, 512, 768, 1280])  # widths of the UNets of s and l, by their cards
NEEDED = ("unet", "vae", "vocoder", "text_encoder", "tokenizer", "scheduler")


def _frames(config: dict[str, Any], unet: dict[str, Any]) -> Any:
    """Return the latent frames of the training window.

    AudioLDM's published folders state 128 (5.12 s), the length that its pipeline generates by default; it was trained
    on 256 (10.24 s), as MusicLDM was and says.
    """
    frames = unet.get("sample_size")
    return 256 if config["_class_name"] == "AudioLDMPipeline" and frames == 128 else frames


def _listens(folder: Path, config: dict[str, Any]) -> bool:
    """Say whether the folder holds an audio half: MusicLDM's must, in AudioLDM's it is an addition."""
    part = "feature_extractor" if config["_class_name"] == "MusicLDMPipeline" else "clap"
    widths = read_json(folder / "unet" / "config.json").get("block_out_channels")
    if part == "clap" and (widths in WITHOUT_AUDIO or not (folder / part).is_dir()):
        return False
    loading.require(folder, (part,))
    read_json(folder / part / loading.EARS)
    return True


def describe(folder: Path, config: dict[str, Any], *, pocket: bool) -> dict[str, Any]:
    """Return the fields of ``ModelInfo`` that the folder determines."""
    loading.require(folder, NEEDED)
    unet, vae, vocoder = (read_json(folder / name / "config.json") for name in ("unet", "vae", "vocoder"))
    return {
        **latent_diffusion.window(folder, _frames(config, unet), vae, vocoder),
        "badge": loading.label(folder, "unet", pocket=pocket),
        "conditions": ("text", "null", *(["audio"] if _listens(folder, config) else [])),
    }


def load(folder: Path, info: ModelInfo) -> AudioLDM:
    """Load an AudioLDM or MusicLDM folder (see ``earwitness.models.load_model``)."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import ClapModel, ClapTextModelWithProjection, SpeechT5HifiGan

    config = read_json(folder / "model_index.json")
    schedule = latent_diffusion.schedule(folder)
    whole = config["_class_name"] == "MusicLDMPipeline"
    loaded = loading.load_parts(
        folder, info.dtype, unet=UNet2DConditionModel, vae=AutoencoderKL, vocoder=SpeechT5HifiGan,
        text_encoder=ClapModel if whole else ClapTextModelWithProjection,
    )  # fmt: skip
    loaded["tokenizer"] = loading.load_tokenizer(folder / "tokenizer", loading.LONGEST_TEXT)
    if "audio" in info.conditions:
        loaded["extractor"] = loading.load_extractor(folder, "feature_extractor" if whole else "clap")
        loaded["clap"] = loaded["text_encoder"] if whole else loading.load_part(folder, "clap", ClapModel, info.dtype)
        if not whole:
            check_same_text_half(loaded["clap"], loaded["text_encoder"], f"{folder.name}/clap")
    spec = latent_diffusion.front_end(read_json(folder / "vocoder" / "config.json"))
    return AudioLDM(loaded, schedule, spec, info)


class AudioLDM(latent_diffusion.MelLatentModel):
    """A loaded AudioLDM or MusicLDM."""

    def read(self, caption: str | None) -> Condition:
        """Return the caption's CLAP embedding; the null condition is that of the empty caption."""
        return {"class_labels": text_embedding(self.parts["text_encoder"], self.parts["tokenizer"], caption or "")}

    def listen(self, audio: Tensor, captions: list[str] | None) -> Condition:
        """Return the CLAP embedding of audio ``[B, 1, samples]``."""
        heard = audio_embedding(self.parts["clap"], self.parts["extractor"], audio[:, 0], self.info.sample_rate)
        return {"class_labels": heard}

    def ask(self, z_t: Tensor, time: Tensor, condition: Condition) -> Tensor:
        """Return the UNet's output."""
        labels = condition["class_labels"].to(z_t.dtype)
        output: Tensor = self.network(z_t, time, encoder_hidden_states=None, class_labels=labels, return_dict=False)[0]
        return output
