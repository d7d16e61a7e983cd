"""MusicGen and MusicGen Melody in transformers' format: every published size, mono and stereo, and the pocket twins.

MusicGen reads the caption through cross-attention under a mask. Melody puts a prefix before the codes (a chromagram,
then the caption) and attends to all of it, padding included: its captions are scored in groups of one length, and the
logits of the prefix are cut off. No melody is given: the chromagram is the constant one that transformers uses for
text alone, in the conditional and in the null pass, so the two differ in the caption only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earwitness.errors import ModelError
from earwitness.models.base import CaptionReader, Condition, stack
from earwitness.models.delay_pattern import aligned, check_channels, delayed, score_by_length
from earwitness.models.files import read_json
from earwitness.models.loading import badge, headers, load_pretrained, load_tokenizer, quiet, require_tokenizer
from earwitness.types import ModelInfo

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MAX_CHROMA = 10_000  # frames of the melody prefix; the published models have 235
CACHED_SAMPLES = 2**17  # on a processor the codec takes so many samples at once: with more, its caches overflow
CLASSES = {
    "musicgen": "MusicgenForConditionalGeneration",
    "musicgen_melody": "MusicgenMelodyForConditionalGeneration",
}


def describe(folder: Path, config: dict[str, Any], *, pocket: bool) -> dict[str, Any]:
    """Return the fields of ``ModelInfo`` that a MusicGen folder determines.

    The training window is the generation configuration's ``max_length`` in frames (1,500 for the published models).
    """
    require_tokenizer(folder)
    codec, decoder = config.get("audio_encoder", {}), config.get("decoder", {})
    generation = folder / "generation_config.json"
    try:
        frame_rate = codec["sampling_rate"] / math.prod(codec["upsampling_ratios"])
        seconds = read_json(generation)["max_length"] / frame_rate
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise ModelError(f"{folder.name}: configuration lacks {error}; is the folder a complete MusicGen?") from None
    if not 0 <= (pad := decoder.get("pad_token_id") or 0) <= (entries := decoder.get("vocab_size", pad)):
        raise ModelError(f"{folder.name}: pads with token {pad} beyond a vocabulary of {entries}; fetch it again")
    return {
        "family": "token",
        "sample_rate": int(codec["sampling_rate"]),
        "channels": int(decoder.get("audio_channels", 1)),
        "segment_seconds": float(seconds),
        "badge": badge(sum(map(math.prod, headers(folder).values())), pocket=pocket),
    }


def load(folder: Path, info: ModelInfo) -> MusicgenModel:
    """Load a MusicGen folder (see ``earwitness.models.load_model``)."""
    import torch
    import transformers

    quiet()  # before the configuration is read: pad and start tokens lie beyond the vocabulary on purpose
    config = read_json(folder / "config.json")
    if config.get("chroma_length", 0) > MAX_CHROMA:
        raise ModelError(f"{folder.name}: configuration asks for {config['chroma_length']} frames of melody")
    kind = CLASSES[config["model_type"]]
    # The codec stays in float32: a rounded codec writes other codes, and scores would not compare across types.
    exact = {"_keep_in_fp32_modules_strict": {"audio_encoder"}}
    network = load_pretrained(folder, type(kind, (getattr(transformers, kind),), exact), getattr(torch, info.dtype))
    return MusicgenModel(network.to(info.device), load_tokenizer(folder), info)


class MusicgenModel(CaptionReader):
    """A loaded MusicGen or MusicGen Melody behind the ``TokenModel`` protocol."""

    def __init__(self, network: Any, tokenizer: Any, info: ModelInfo) -> None:
        self.network, self.tokenizer, self.info = network, tokenizer, info
        self.attends_padding = network.config.model_type == "musicgen_melody"
        decoder = network.config.decoder
        self.codebooks, self.entries, self.pad = decoder.num_codebooks, decoder.vocab_size, decoder.pad_token_id
        # A stereo model interleaves left and right: both channels of one codebook share a delay.
        self.delays = [k // info.channels for k in range(self.codebooks)]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.network.device
        return device

    def parameters(self) -> Iterator[Tensor]:
        """Yield what was trained: the decoder and the projections into it, neither codec nor text encoder."""
        for name, part in self.network.named_children():
            if name not in {"text_encoder", "audio_encoder"}:
                yield from part.parameters()

    def encode(self, audio: Tensor) -> Tensor:
        """Turn audio ``[B, C, samples]`` in [-1, 1] at ``info.sample_rate`` into codes ``[B, K, T]`` (int64)."""
        import torch

        check_channels(audio, self.info)
        batch, channels, samples = audio.shape
        codec = self.network.audio_encoder
        mono = audio.reshape(batch * channels, 1, samples).to(self.device, codec.dtype)
        at_once = max(1, CACHED_SAMPLES // samples) if self.device.type == "cpu" else len(mono)
        with torch.inference_mode():
            codes = torch.cat([codec.encode(part).audio_codes[0] for part in mono.split(at_once)])
        per_channel = codes.reshape(batch, channels, -1, codes.shape[-1])
        return per_channel.transpose(1, 2).reshape(batch, self.codebooks, codes.shape[-1]).long()

    def logits(self, codes: Tensor, captions: list[str] | None) -> tuple[Tensor, Tensor]:
        """Return logits ``[B, K, T, V]`` aligned with ``codes`` ``[B, K, T]``, and the validity mask ``[B, K, T]``.

        ``captions=None`` is the null condition, and so is an empty caption: text states of zero under a zero mask, as
        in classifier-free guidance.
        """
        said = [self.told(caption or None) for caption in captions or [""] * len(codes)]
        inputs = delayed(codes, self.delays, self.pad)

        def score(rows: list[int]) -> tuple[Tensor, Tensor]:
            text = stack([said[row] for row in rows])
            given: dict[str, Any]
            if self.attends_padding:
                given = {"encoder_hidden_states": self._after_melody(**text)}
            else:
                given = {"encoder_outputs": (text["states"],), "attention_mask": text["mask"]}
            steps = self.network(**given, decoder_input_ids=inputs[rows].flatten(0, 1), use_cache=False).logits
            # Melody's output begins with its prefix.
            steps = steps.unflatten(0, (len(rows), self.codebooks))[:, :, -inputs.shape[-1] :]
            return aligned(steps, self.delays, codes.shape[-1])

        lengths = [len(text["mask"]) for text in said]
        return score_by_length(lengths if self.attends_padding else [0] * len(codes), score)

    def decode(self, codes: Tensor) -> Tensor:
        """Turn codes ``[B, K, T]`` of a mono model into audio ``[B, 1, samples]``.

        Raises
        ------
        ModelError
            A stereo model: its codes interleave two channels.
        """
        import torch

        if self.info.channels != 1:
            raise ModelError(f"{self.info.name}: only codes of a mono model are turned into sound")
        with torch.inference_mode():
            audio: Tensor = self.network.audio_encoder.decode(codes[None].to(self.device), [None]).audio_values
        return audio.float().cpu()

    def read(self, caption: str | None) -> Condition:
        """Return the text encoder's states ``[L, D]`` of one caption and their mask; None: of no text, all of it 0."""
        ids = self.tokenizer([caption or ""], truncation=True, return_tensors="pt").to(self.device)
        states = self.network.text_encoder(**{name: ids[name] for name in ("input_ids", "attention_mask")})[0][0]
        mask = ids["attention_mask"][0] * bool(caption)
        return {"states": states * mask[:, None], "mask": mask}

    def _after_melody(self, states: Tensor, mask: Tensor) -> Tensor:
        """Return Melody's prefix ``[b, L', D]``: the constant chromagram, then the text, as its network puts them."""
        import torch

        network, config = self.network, self.network.config
        chroma = states.new_zeros(len(states), 1, config.num_chroma)
        chroma[..., 0] = 1
        if hasattr(network, "enc_to_dec_proj"):
            states = network.enc_to_dec_proj(states)
        if hasattr(network, "audio_enc_to_dec_proj"):
            chroma = network.audio_enc_to_dec_proj(chroma)
        words = states * mask[..., None]
        return torch.cat([chroma.expand(-1, config.chroma_length, -1), words], dim=1)
