"""Models: ``load_model(name)`` takes a pocket name, a hub name or a local folder, whatever the family.

May import ``symbolic`` (how a model of notes reads a MIDI file), and ``errors``, ``util`` and ``types``.

Names that matter: ``load_model`` (on the public face), ``describe``, ``locate``; ``base.TokenModel`` and
``base.DenoisingModel`` say what a family must offer.

``describe`` reads a model's identity from its files without building a network; ``load_model`` loads it. One file per
family; ``FAMILIES`` maps the ``model_type`` of a ``config.json``, or the ``lm_model`` of an audiocraft checkpoint, to
it. A family offers ``describe(folder, config, pocket=)`` and ``load(folder, info)``; if its folders only name some of
their parts also ``parts(folder, config)``, and ``LIBRARIES`` if more than torch and transformers can change its scores.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earwitness.errors import ModelError
from earwitness.models import loading
from earwitness.models.files import (
    CHECKPOINT,
    NATIVE,
    locate,
    locate_part,
    pocket_names,
    read_json,
    revision,
    unknown,
    weights,
)
from earwitness.models.schema import check_folder, refuse_adapters
from earwitness.types import ModelInfo

if TYPE_CHECKING:
    from earwitness.models.base import TokenModel

__all__ = [
    "FAMILIES",
    "check_unchanged",
    "describe",
    "library_versions",
    "load_model",
    "locate",
    "pocket_names",
    "revision",
]

FAMILIES = {
    "musicgen": "earwitness.models.musicgen",
    "musicgen_melody": "earwitness.models.musicgen",
    "transformer_lm": "earwitness.models.audiocraft",
    "transformer_lm_magnet": "earwitness.models.magnet",
    "figaro": "earwitness.models.figaro",
    **dict.fromkeys(("gpt2", "gpt_neox", "llama", "mistral"), "earwitness.models.midi_lm"),
}
LIBRARIES = ("torch", "transformers", "numpy")
# audiocraft and diffusers import it where it is installed; it warns that it has no compiled part, and none is used.
logging.getLogger("xformers").setLevel(logging.ERROR)
SAMPLE_RATES, SHORTEST, LONGEST = range(1_000, 400_001), 0.02, 3600  # Hz; seconds of a window
DTYPES = ("float32", "bfloat16", "float16", "auto")


def library_versions(*more: str) -> dict[str, str]:
    """Return the versions of the libraries that can change a score."""
    versions = {}
    for name in (*LIBRARIES, *more):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "absent"
    return versions


def _family(name: str, folder: Path) -> tuple[Any, dict[str, Any]]:
    """Return the family's module and the folder's configuration."""
    pipeline = loading.family(name, folder)
    if pipeline:
        return pipeline
    if (folder / NATIVE).is_file() and not (folder / "config.json").is_file():
        return import_module("earwitness.models.stable_audio_tools"), read_json(folder / NATIVE)
    if (folder / CHECKPOINT).is_file() and not weights(folder, required=False):
        from earwitness.models.audiocraft_files import read_config

        config = read_config(folder)
        kind = str(config.get("lm_model"))
    else:
        own = any(folder.glob("*.ckpt"))  # Lightning's checkpoints hold their own configuration: the file adds options
        if not own and not (folder / "config.json").is_file():
            raise unknown(folder)
        config = {} if own and not (folder / "config.json").exists() else read_json(folder / "config.json")
        kind = str(config.get("model_type", "figaro" if own else None))
    if kind not in FAMILIES:
        raise ModelError(f"{name}: {kind!r} is no family we load; known: {', '.join(FAMILIES)}")
    return import_module(FAMILIES[kind]), config


def number_type(dtype: str, device: str | None = None) -> str:
    """Return the type of number that a name means on a device (default: the one that ``load_model`` takes).

    ``"auto"`` is bfloat16 on a CUDA card that computes with it, else float32.

    Raises
    ------
    ModelError
        A type that is not offered.
    """
    if dtype not in DTYPES:
        raise ModelError(f"expected dtype {', '.join(DTYPES)}, got {dtype!r}")
    if dtype != "auto":
        return dtype
    import torch

    card = torch.cuda.is_available() and (device is None or torch.device(device).type == "cuda")
    return "bfloat16" if card and torch.cuda.is_bf16_supported(including_emulation=False) else "float32"


def describe(name: str, *, dtype: str = "float32", device: str = "cpu", allow_download: bool = False) -> ModelInfo:
    """Return a model's identity from its files alone; no network is built.

    torch is imported only for ``dtype="auto"``, which asks for a card, and to open audiocraft's checkpoints, whose
    configuration lies inside the weights' file.

    Raises
    ------
    ModelError
        As ``locate``; also a configuration of an unknown family, or a type of number that is not offered.
    """
    dtype = number_type(dtype)
    folder = locate(name, allow_download=allow_download)
    refuse_adapters(folder)
    with loading.explained(folder.name):
        module, config = _family(name, folder)
        check_folder(folder, module.__name__.rpartition(".")[2])
        source = _source(folder, module, config)
        for part in source[1:]:
            check_folder(part, "part")
        found = module.describe(folder, config, pocket=name.startswith("pocket/"))
    rate, channels, seconds = found["sample_rate"], found["channels"], found["segment_seconds"]
    if not found.get("scheme") and not (rate in SAMPLE_RATES and channels in {1, 2} and SHORTEST <= seconds <= LONGEST):
        raise ModelError(
            f"{folder.name}: configuration asks for windows of {seconds} s with {channels} channels at {rate} Hz; "
            f"expected {SHORTEST} to {LONGEST} s, mono or stereo; fetch its configurations again"
        )
    return ModelInfo(
        name=folder.name if Path(name).expanduser().is_dir() else name,
        revision=revision(*source),
        dtype=dtype,
        device=device,
        versions=library_versions(*getattr(module, "LIBRARIES", ())),
        source=source,
        **found,
    )


def _source(folder: Path, module: Any, config: dict[str, Any]) -> tuple[Path, ...]:
    """Return the folder of a model, and those of the parts that it only names."""
    return folder, *(
        locate_part(folder, part) for part in (module.parts(folder, config) if hasattr(module, "parts") else ())
    )


def load_model(
    name: str | ModelInfo, *, dtype: str = "float32", device: str | None = None, allow_download: bool = False
) -> TokenModel:
    """Load a model for scoring: evaluation mode, no gradients, nothing unpickled but tensors.

    Parameters
    ----------
    name : str or ModelInfo
        ``pocket/musicgen-a``, a local folder in the family's format, or a hub name. What ``describe`` returned is
        loaded from the very files that it read: no name is looked up again, and its own ``dtype`` holds.
    dtype : str
        ``"float32"`` (default), ``"bfloat16"``, ``"float16"``, or ``"auto"``: bfloat16 on a card that computes with it,
        else float32. The codec of a token model is float32 whatever it is, and so are log-probabilities.
    device : str, optional
        Default: a CUDA card if there is one, else the CPU.
    allow_download : bool
        Whether naming a hub model may fetch it. Parts that it only names are never fetched.

    Returns
    -------
    TokenModel
        See ``earwitness.models.base``.

    Raises
    ------
    ModelError
        Unknown name, another family, missing or mismatched tensors, files that hold more than tensors and text, or
        that changed since they were described.
    """
    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if isinstance(name, ModelInfo):
        info = replace(name, device=device)
    else:
        info = describe(name, dtype=number_type(dtype, device), device=device, allow_download=allow_download)
    folder = locate(str(info.source[0]))
    with loading.sealed(), loading.explained(folder.name):
        model: TokenModel = _family(info.name, folder)[0].load(folder, info)
    check_unchanged(info)
    if info.remark:
        logging.getLogger(__name__).warning("%s", info.remark)
    return model


def check_unchanged(info: ModelInfo) -> None:
    """Refuse a model whose files are no longer those that were described: its weights may be mapped, not read.

    Raises
    ------
    ModelError
        Other contents than ``info.revision`` says, or none.
    """
    if not (info.source and info.source[0].is_dir()):  # a model of the user's own; files that are gone are held still
        return
    module, config = _family(info.name, info.source[0])
    if revision(*_source(info.source[0], module, config)) != info.revision:
        raise ModelError(f"{info.name}: its files changed while scoring; run the same command again")
