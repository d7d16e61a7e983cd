"""MusicGen in transformers' format: small, medium, large, stereo, and the pocket twins.

Codes are predicted in a delay pattern: codebook k of frame t is written k steps late, so that it sees the codebooks
below it. With S = T + K steps the last k frames of codebook k fall outside the window the model was trained on; they
are masked, as audiocraft does (methods: 2.0.6), although transformers could score them.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earwitness.errors import ModelError
from earwitness.models.base import ModelInfo

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TINY_PARAMETERS = 20_000_000  # below this a checkpoint is a toy, and pages say so


def describe(folder: Path, config: dict[str, Any], *, pocket: bool) -> dict[str, Any]:
    """Return the fields of ``ModelInfo`` that a MusicGen folder determines.

    The training window is the generation configuration's ``max_length`` in frames (1,500 for the published models).
    """
    codec, decoder = config.get("audio_encoder", {}), config.get("decoder", {})
    try:
        frame_rate = codec["sampling_rate"] / math.prod(codec["upsampling_ratios"])
        generation = json.loads((folder / "generation_config.json").read_text())
        seconds = generation["max_length"] / frame_rate
    except (KeyError, TypeError, FileNotFoundError, json.JSONDecodeError) as error:
        raise ModelError(f"{folder.name}: configuration lacks {error}; is the folder a complete MusicGen?") from None
    size = sum(count for _, count in _headers(folder).values())
    return {
        "family": "token",
        "sample_rate": int(codec["sampling_rate"]),
        "channels": int(decoder.get("audio_channels", 1)),
        "segment_seconds": float(seconds),
        "badge": "pocket" if pocket else "tiny" if size < TINY_PARAMETERS else "real",
    }


def _headers(folder: Path) -> dict[str, tuple[tuple[int, ...], int]]:
    """Return tensor name -> (shape, number of elements) from the weights' headers; nothing is loaded."""
    from safetensors import SafetensorError, safe_open

    parts = sorted(folder.glob("*.safetensors"))
    if not parts:
        other = ", ".join(p.name for p in sorted(folder.glob("*.bin"))) or "no weights at all"
        raise ModelError(f"{folder.name}: expected *.safetensors, found {other}; pickled weights are never loaded")
    found: dict[str, tuple[tuple[int, ...], int]] = {}
    for part in parts:
        try:
            with safe_open(part, framework="numpy") as tensors:
                for name in tensors.keys():  # noqa: SIM118 (not a dict)
                    shape = tuple(tensors.get_slice(name).get_shape())
                    found[name] = (shape, math.prod(shape))
        except SafetensorError as error:
            raise ModelError(f"{folder.name}/{part.name}: damaged ({error}); fetch the file again") from None
    return found


def _check_sizes(folder: Path) -> None:
    """Compare the configured network with the weights' headers before anything is allocated."""
    import torch
    from transformers import AutoConfig, MusicgenForConditionalGeneration

    headers = _headers(folder)
    layers = json.loads((folder / "config.json").read_text())["decoder"].get("num_hidden_layers", 0)
    if not 0 < layers <= len(headers):
        raise ModelError(
            f"{folder.name}: configuration asks for {layers} layers, the weights hold {len(headers)} tensors"
        )
    with torch.device("meta"):
        skeleton = MusicgenForConditionalGeneration(AutoConfig.from_pretrained(folder, local_files_only=True))
    for name, tensor in skeleton.state_dict().items():
        if name in headers and headers[name][0] != tuple(tensor.shape):
            raise ModelError(
                f"{folder.name}: tensor {name} has shape {headers[name][0]}, the configuration expects "
                f"{tuple(tensor.shape)}; weights and configuration do not belong together"
            )


def load(folder: Path, info: ModelInfo) -> MusicgenModel:
    """Load a MusicGen folder (see ``earwitness.models.load_model``)."""
    import torch
    from transformers import AutoTokenizer, MusicgenForConditionalGeneration
    from transformers.utils import logging

    _check_sizes(folder)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    loaded: Any = MusicgenForConditionalGeneration.from_pretrained(
        folder, dtype=getattr(torch, info.dtype), use_safetensors=True, local_files_only=True, output_loading_info=True
    )
    network, report = loaded
    if report["missing_keys"]:
        names = sorted(report["missing_keys"])
        raise ModelError(f"{folder.name}: the weights lack {len(names)} tensors, first {names[0]}; fetch them again")
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return MusicgenModel(network.to(info.device).eval().requires_grad_(requires_grad=False), tokenizer, info)


class MusicgenModel:
    """A loaded MusicGen behind the ``TokenModel`` protocol."""

    def __init__(self, network: Any, tokenizer: Any, info: ModelInfo) -> None:
        self.network, self.tokenizer, self.info = network, tokenizer, info
        decoder = network.config.decoder
        self.codebooks, self.entries, self.pad = decoder.num_codebooks, decoder.vocab_size, decoder.pad_token_id
        # A stereo model interleaves left and right: both channels of one codebook share a delay.
        self.delays = [k // info.channels for k in range(self.codebooks)]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.network.device
        return device

    def encode(self, audio: Tensor) -> Tensor:
        """Turn audio ``[B, C, samples]`` in [-1, 1] at ``info.sample_rate`` into codes ``[B, K, T]`` (int64)."""
        import torch

        batch, channels, samples = audio.shape
        if channels != self.info.channels:
            raise ModelError(f"{self.info.name}: expected {self.info.channels} channel(s), got {channels}")
        mono = audio.reshape(batch * channels, 1, samples).to(self.device, self.network.dtype)
        with torch.inference_mode():
            codes = self.network.audio_encoder.encode(mono).audio_codes[0]
        per_channel = codes.reshape(batch, channels, -1, codes.shape[-1])
        return per_channel.transpose(1, 2).reshape(batch, self.codebooks, codes.shape[-1]).long()

    def logits(self, codes: Tensor, captions: list[str] | None) -> tuple[Tensor, Tensor]:
        """Return logits ``[B, K, T, V]`` aligned with ``codes`` ``[B, K, T]``, and the validity mask ``[B, K, T]``.

        ``captions=None`` is the null condition: zero text states under a zero mask, as in classifier-free guidance.
        """
        import torch

        batch, books, frames = codes.shape
        steps = frames + max(self.delays)
        sequence = codes.new_full((batch, books, steps + 1), self.pad)
        for k, delay in enumerate(self.delays):
            sequence[:, k, 1 + delay : 1 + delay + frames] = codes[:, k]
        with torch.inference_mode():
            output = self.network(
                decoder_input_ids=sequence[..., :-1].reshape(batch * books, steps),
                use_cache=False,
                **self._condition(captions, batch),
            ).logits.view(batch, books, steps, -1)
        aligned = torch.stack([output[:, k, d : d + frames] for k, d in enumerate(self.delays)], dim=1)
        last = torch.tensor([frames - d for d in self.delays], device=codes.device)
        mask = torch.arange(frames, device=codes.device) < last[:, None]
        return aligned, mask.expand(batch, books, frames)

    def _condition(self, captions: list[str] | None, batch: int) -> dict[str, Any]:
        """Return the text condition's keyword arguments for the network; an empty caption is the null condition."""
        import torch
        from transformers.modeling_outputs import BaseModelOutput

        if captions is None:
            width = self.network.text_encoder.config.hidden_size
            zeros = torch.zeros(batch, 1, width, device=self.device, dtype=self.network.dtype)
            mask = torch.zeros(batch, 1, dtype=torch.long, device=self.device)
            return {"encoder_outputs": BaseModelOutput(last_hidden_state=zeros), "attention_mask": mask}
        text = self.tokenizer(captions, padding=True, truncation=True, return_tensors="pt").to(self.device)
        said = torch.tensor([bool(c) for c in captions], device=self.device)
        return {"input_ids": text["input_ids"], "attention_mask": text["attention_mask"] * said[:, None]}
