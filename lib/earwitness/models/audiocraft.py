"""MusicGen and AudioGen in audiocraft's own format, by the optional package audiocraft.

A folder holds ``state_dict.bin`` (the language model) and ``compression_state_dict.bin`` (the codec, or the hub name
of one). The text encoder, and a codec that is only named, are looked for in a subfolder called like the last part of
their name (``t5-base``, ``encodec_32khz``), then in the hub's cache. ``audiocraft_files`` reads them; audiocraft gets
plain values and folders, never a file of its own or a name that it would download.

Its cross-attention has no text mask, so captions are scored in groups of one length. The null condition is the text
attribute *none*. Types other than float32 run under autocast, as in training; the codec stays in float32.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earwitness.errors import ModelError
from earwitness.models import audiocraft_files, loading
from earwitness.models.base import CaptionReader, stack
from earwitness.models.delay_pattern import check_channels, score_by_length
from earwitness.models.files import CHECKPOINT, CODEC, locate_part, read_json
from earwitness.models.loading import first_line, load_pretrained

if TYPE_CHECKING:
    from torch import Tensor, nn

    from earwitness.models.base import Condition
    from earwitness.types import ModelInfo

LIBRARIES = ("audiocraft",)
TEXT = "description"  # audiocraft's name for the caption
MASK = " mask"  # ends the name of a condition's mask


def parts(folder: Path, config: dict[str, Any]) -> list[str]:
    """Return the names of the parts that a checkpoint only names: its text encoder, and perhaps its codec."""
    encoders = [c["t5"]["name"] for c in config["conditioners"].values() if c["model"] == "t5"]
    return [*encoders, *([config["codec"]] if isinstance(config["codec"], str) else [])]


def describe(folder: Path, config: dict[str, Any], *, pocket: bool) -> dict[str, Any]:
    """Return the fields of ``ModelInfo``; the window is the configuration's ``dataset.segment_duration``."""
    codec = config["codec"]
    if isinstance(codec, str):
        named = read_json(locate_part(folder, codec) / "config.json")
        codec = {"encodec": {"sample_rate": named["sampling_rate"], "channels": named.get("audio_channels", 1)}}
    state = audiocraft_files.tensors(folder, CHECKPOINT, audiocraft_files.read(folder, CHECKPOINT))
    stereo = (config.get("interleave_stereo_codebooks") or {}).get("use", False)
    return {
        "family": "token",
        "sample_rate": int(codec["encodec"]["sample_rate"]),
        "channels": 2 if stereo else int(codec["encodec"]["channels"]),
        "segment_seconds": float(config["dataset"]["segment_duration"]),
        "badge": loading.badge(sum(t.numel() for t in state.values()), pocket=pocket),
    }


def load(folder: Path, info: ModelInfo) -> AudiocraftModel:
    """Load an audiocraft folder (see ``earwitness.models.load_model``)."""
    # Flash attention knows no limit to the past, so a model with one takes the explicit path.
    past = audiocraft_files.read_config(folder)["transformer_lm"].get("past_context")
    return AudiocraftModel(*build(folder, info, memory_efficient=past is None), info)


def build(folder: Path, info: ModelInfo, **overrides: Any) -> tuple[Any, Any]:
    """Build language model and codec from checked values and fill them; ``overrides`` are the network's arguments.

    Raises
    ------
    ModelError
        audiocraft is missing; files, sizes or names that do not fit together.
    """
    loading.quiet()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library's own, about older torch functions that it uses
        return _build(folder, info, overrides)


def _build(folder: Path, info: ModelInfo, overrides: dict[str, Any]) -> tuple[Any, Any]:
    builders = import_builders()
    from omegaconf import OmegaConf

    config = audiocraft_files.read_config(folder)
    network = config["transformer_lm"] | {"custom": True, "checkpointing": "none"} | overrides
    plain = config | {"transformer_lm": network, "device": "cpu", "dtype": "float32", "attribute_dropout": {}}
    plain["classifier_free_guidance"] = {"training_dropout": 0.0, "inference_coef": 1.0}
    plain["codec"] = None
    state = audiocraft_files.tensors(folder, CHECKPOINT, audiocraft_files.read(folder, CHECKPOINT))
    text = {name: t for name, t in state.items() if name.startswith("condition_provider.")}
    bare = {name: t for name, t in state.items() if name not in text}
    _check_sizes(folder, CHECKPOINT, builders.get_lm_model, plain | {"conditioners": None}, bare)
    for name, condition in config["conditioners"].items():
        _check_condition(folder, name, condition, text)
    with loading.undrawn():
        lm = builders.get_lm_model(OmegaConf.create(plain | {"device": info.device}))
    _fill(folder, CHECKPOINT, lm, state)
    try:
        codec = builders.get_wrapped_compression_model(_codec(folder, config["codec"]), OmegaConf.create(plain))
    except (AssertionError, TypeError, ValueError) as error:
        raise ModelError(f"{folder.name}: the codec cannot be used as xp.cfg asks ({first_line(error)})") from None
    if (codec.num_codebooks, codec.cardinality) != (lm.n_q, lm.card):
        raise ModelError(
            f"{folder.name}: the language model predicts {lm.n_q} codebooks of {lm.card}, the codec writes "
            f"{codec.num_codebooks} of {codec.cardinality}; the two files do not belong together"
        )
    return lm, codec.to(info.device).eval().requires_grad_(requires_grad=False)


def import_builders() -> Any:
    """Import audiocraft's builders, or say how to install it."""
    try:
        from audiocraft.models import builders
        from audiocraft.modules.transformer import set_efficient_attention_backend
    except ImportError as error:
        raise ModelError(
            f"this checkpoint needs the package audiocraft ({error}); `make setup` installs it, or: "
            "pip install --no-deps audiocraft==1.3.0"
        ) from None
    set_efficient_attention_backend("torch")
    return builders


def _depths(config: Any) -> Iterator[tuple[str, int]]:
    """Yield every number of layers or codebooks in a configuration, however deep."""
    for key, value in config.items() if isinstance(config, dict) else ():
        if key in {"num_layers", "n_q", "n_residual_layers", "lstm"} and isinstance(value, int):
            yield key, value
        yield from _depths(value)


def _check_sizes(folder: Path, file: str, build: Any, config: dict[str, Any], state: dict[str, Tensor]) -> None:
    """Compare the configured network with the tensors before anything is allocated."""
    import torch
    from omegaconf import OmegaConf

    for key, count in _depths(config):
        if count > len(state):
            raise ModelError(
                f"{folder.name}/{file}: xp.cfg asks for {key} {count}, the weights hold {len(state)} tensors"
            )
    try:
        with torch.device("meta"):
            skeleton = build(OmegaConf.create(config | {"device": "meta"})).state_dict()
    except Exception as error:
        # Whatever the library makes of values that make no sense: a type, an assertion, an overflow.
        raise ModelError(f"{folder.name}/{file}: xp.cfg describes no network ({first_line(error)})") from None
    loading.compare(skeleton, state, f"{folder.name}/{file}", unknown=True)


def _check_condition(folder: Path, name: str, condition: dict[str, Any], text: dict[str, Tensor]) -> None:
    """Check a text condition's sizes, and give audiocraft the folder of its encoder instead of a name."""
    kind, prefix = condition["model"], f"condition_provider.conditioners.{name}"
    if kind == "lut":
        table = text.get(f"{prefix}.embed.weight")
        width, fits = condition["lut"]["dim"], table is not None and table.shape[0] == condition["lut"]["n_bins"]
    else:
        from audiocraft.modules.conditioners import T5Conditioner
        from transformers import T5EncoderModel

        encoder = locate_part(folder, condition["t5"]["name"])
        loading.check_sizes(encoder, T5EncoderModel)
        loading.require_tokenizer(encoder)
        width, fits = read_json(encoder / "config.json")["d_model"], True
        condition["t5"]["name"] = str(encoder)
        T5Conditioner.MODELS_DIMS[str(encoder)] = width
        T5Conditioner.MODELS[:] = [*T5Conditioner.MODELS_DIMS]
    projection = text.get(f"{prefix}.output_proj.weight")
    if not fits or projection is None or projection.shape[1] != width:
        raise ModelError(f"{folder.name}: the condition {name!r} does not fit its weights; is its encoder another?")


def _codec(folder: Path, config: dict[str, Any] | str) -> Any:
    """Build the codec: an EnCodec of the checkpoint's own, or the one it names, in transformers' format."""
    import torch
    from audiocraft.models import builders
    from audiocraft.models.encodec import HFEncodecCompressionModel
    from omegaconf import OmegaConf

    if isinstance(config, str):
        from transformers import EncodecModel

        return HFEncodecCompressionModel(load_pretrained(locate_part(folder, config), EncodecModel, torch.float32))
    state = audiocraft_files.tensors(folder, CODEC, audiocraft_files.read(folder, CODEC))
    _check_sizes(folder, CODEC, builders.get_compression_model, config, state)
    with loading.undrawn():
        codec = builders.get_compression_model(OmegaConf.create(config | {"device": "cpu"}))
    _fill(folder, CODEC, codec, state)
    return codec


def _fill(folder: Path, file: str, network: nn.Module, state: dict[str, Tensor]) -> None:
    """Copy the tensors into a network for scoring: evaluation mode, no gradients."""
    loading.compare(network, state, f"{folder.name}/{file}", unknown=True)
    network.load_state_dict(state)
    network.eval().requires_grad_(requires_grad=False)


class AudiocraftModel(CaptionReader):
    """A loaded audiocraft model behind the ``TokenModel`` protocol."""

    def __init__(self, lm: Any, codec: Any, info: ModelInfo) -> None:
        self.lm, self.codec, self.info = lm, codec, info

    def parameters(self) -> Iterator[Tensor]:
        """Yield what was trained: the language model and its projection of the text, not the codec."""
        yield from self.lm.parameters()

    def encode(self, audio: Tensor) -> Tensor:
        """Turn audio ``[B, C, samples]`` in [-1, 1] at ``info.sample_rate`` into codes ``[B, K, T]`` (int64)."""
        import torch

        check_channels(audio, self.info)
        with torch.inference_mode():
            codes: Tensor = self.codec.encode(audio.to(self.info.device))[0]
        return codes.long()

    def decode(self, codes: Tensor) -> Tensor:
        """Turn codes ``[B, K, T]`` into audio ``[B, C, samples]``."""
        import torch

        with torch.inference_mode():
            audio: Tensor = self.codec.decode(codes.to(self.info.device), None)
        return audio.float().cpu()

    @property
    def delays(self) -> list[int]:
        """How many steps late each codebook is written."""
        return list(getattr(self.lm.pattern_provider, "delays", [0] * self.lm.num_codebooks))

    def logits(self, codes: Tensor, captions: list[str] | None) -> tuple[Tensor, Tensor]:
        """Return logits ``[B, K, T, V]`` aligned with ``codes`` ``[B, K, T]``, and the validity mask ``[B, K, T]``.

        ``captions=None`` is the null condition, and so is an empty caption. Logits outside the mask are 0.

        Raises
        ------
        ModelError
            Captions for a model that takes none.
        """
        import torch

        said = [caption or None for caption in captions or [""] * len(codes)]
        # The library keeps index tensors from call to call: made in inference mode they would bar gradients for good.
        with torch.inference_mode(mode=False), self._autocast():
            # What a gradient is asked of passes through the projection of the text: then nothing may be kept.
            trained = any(parameter.requires_grad for parameter in self.lm.condition_provider.parameters())
            known = {caption: (self.read if trained else self.told)(caption) for caption in dict.fromkeys(said)}
            lengths = [sum(len(known[caption][name]) for name in known[caption]) for caption in said]

            def score(rows: list[int]) -> tuple[Tensor, Tensor]:
                joined = stack([known[said[row]] for row in rows])
                pairs = {n: (joined[n], joined[f"{n}{MASK}"]) for n in joined if not n.endswith(MASK)}
                return self.predict(codes[rows], pairs)

            return score_by_length(lengths, score)

    def read(self, caption: str | None) -> Condition:
        """Return the states ``[L, D]`` of one caption and their mask, for each of the network's conditions."""
        with self._autocast():
            found = self._condition(caption)
        states = {name: held[0][0] for name, held in found.items()}
        return states | {f"{name}{MASK}": held[1][0] for name, held in found.items()}

    def _autocast(self) -> Any:
        """Return the context in which a model of another type than float32 runs, as in training."""
        import torch

        kind, dtype = torch.device(self.info.device).type, getattr(torch, self.info.dtype)
        return torch.autocast(kind, dtype, enabled=dtype is not torch.float32)

    def _condition(self, caption: str | None) -> dict[str, tuple[Tensor, Tensor]]:
        """Return the conditions of one caption: name -> (states ``[1, L, D]``, mask ``[1, L]``)."""
        from audiocraft.modules.conditioners import ConditioningAttributes

        provider = self.lm.condition_provider
        if caption is not None and TEXT not in provider.text_conditions:
            raise ModelError(f"{self.info.name}: takes no captions, got {caption[:40]!r}; leave the captions empty")
        texts: dict[str, str | None] = dict.fromkeys(provider.text_conditions)
        if TEXT in texts:
            texts[TEXT] = caption
        found: dict[str, tuple[Tensor, Tensor]] = provider(provider.tokenize([ConditioningAttributes(text=texts)]))
        return found

    def predict(self, codes: Tensor, condition: dict[str, tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Return logits and mask of codes whose conditions have one length."""
        output = self.lm.compute_predictions(codes, [], condition)
        # audiocraft leaves NaN where the model was not trained to predict.
        return output.logits.masked_fill_(~output.mask[..., None], 0.0), output.mask
