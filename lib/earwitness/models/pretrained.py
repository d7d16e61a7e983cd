"""Folders in transformers' format: sizes are compared before anything is allocated, then safetensors are loaded.

Old and new names of weight-normalised tensors and any number of shards are all read. The book page *Methods: models*
lists what is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earwitness.errors import ModelError
from earwitness.models.files import read_json

if TYPE_CHECKING:
    import torch

TINY_PARAMETERS = 20_000_000  # below this a checkpoint is a toy, and pages say so
VOCABULARIES = ("tokenizer.json", "spiece.model")
SPARE_ELEMENTS = 50_000_000  # tables that are computed and never stored, such as positions


def headers(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return tensor name -> shape from the weights' headers; nothing is loaded.

    Raises
    ------
    ModelError
        No safetensors, or damaged ones.
    """
    from safetensors import SafetensorError, safe_open

    parts = sorted(folder.glob("*.safetensors"))
    if not parts:
        other = ", ".join(p.name for p in sorted(folder.glob("*.bin"))) or "no weights at all"
        raise ModelError(f"{folder.name}: expected *.safetensors, found {other}; pickled weights are never loaded")
    index = folder / "model.safetensors.index.json"
    named = read_json(index).get("weight_map") if index.is_file() else None
    for name in sorted({str(value) for value in named.values()}) if isinstance(named, dict) else []:
        if name not in {part.name for part in parts}:
            raise ModelError(
                f"{folder.name}/{index.name}: names {name!r}, which the folder does not hold; fetch it again"
            )
    found: dict[str, tuple[int, ...]] = {}
    for part in parts:
        try:
            with safe_open(part, framework="numpy") as tensors:
                found |= {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ModelError(f"{folder.name}/{part.name}: damaged ({error}); fetch the file again") from None
    return found


def badge(values: int, *, pocket: bool) -> str:
    """Return how a checkpoint of so many values is labelled: ``"pocket"``, ``"tiny"`` or ``"real"``."""
    return "pocket" if pocket else "tiny" if values < TINY_PARAMETERS else "real"


def _counts(config: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Yield every number of layers or codebooks in a configuration, however deep."""
    for name, value in config.items():
        if isinstance(value, dict):
            yield from _counts(value)
        elif isinstance(value, int) and name.startswith("num_") and name.endswith(("layers", "codebooks")):
            yield name.removeprefix("num_").replace("hidden_", "").replace("_", " "), value


def check_sizes(folder: Path, network_class: Any) -> None:
    """Compare the configured network with the weights' headers before anything is allocated.

    Raises
    ------
    ModelError
        More layers than tensors, a tensor of another shape, or far more values than the weights hold.
    """
    import torch

    held = headers(folder)
    for what, count in _counts(read_json(folder / "config.json")):
        if count > len(held):
            raise ModelError(
                f"{folder.name}: configuration asks for {count} {what}, the weights hold {len(held)} tensors"
            )
    try:
        config = network_class.config_class.from_pretrained(folder, local_files_only=True)
        quantizers = getattr(getattr(config, "audio_encoder", config), "num_quantizers", 0)
        if quantizers > len(held):
            raise ValueError(f"{quantizers} quantizers, the weights hold {len(held)} tensors")  # noqa: TRY301
        with torch.device("meta"):
            skeleton = network_class(config)
    except Exception as error:
        # Whatever a library makes of a configuration that makes no sense: a type, a value, an overflow.
        raise ModelError(f"{folder.name}: configuration describes no network ({first_line(error)})") from None
    for name, tensor in skeleton.state_dict().items():
        if name in held and held[name] != tuple(tensor.shape):
            raise ModelError(
                f"{folder.name}: tensor {name} has shape {held[name]}, the configuration expects "
                f"{tuple(tensor.shape)}; weights and configuration do not belong together"
            )
    asked = sum(t.numel() for t in (*skeleton.parameters(), *skeleton.buffers()))
    stored = sum(map(math.prod, held.values()))
    if asked > 2 * stored + SPARE_ELEMENTS:
        raise ModelError(f"{folder.name}: configuration asks for {asked} values, the weights hold {stored}")


def first_line(error: Exception) -> str:
    """Return what went wrong inside a library, short enough for one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def quiet() -> None:
    """Keep transformers from reporting on stderr; what matters to the user is an error of ours."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def load_pretrained(folder: Path, network_class: Any, dtype: torch.dtype) -> Any:
    """Load a folder for scoring: evaluation mode, no gradients.

    Raises
    ------
    ModelError
        As ``check_sizes``; also weights that lack a tensor.
    """
    check_sizes(folder, network_class)
    quiet()
    try:
        network, report = network_class.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"{folder.name}: the weights cannot be loaded ({first_line(error)})") from None
    if report["missing_keys"]:
        names = sorted(report["missing_keys"])
        raise ModelError(f"{folder.name}: the weights lack {len(names)} tensors, first {names[0]}; fetch them again")
    return network.eval().requires_grad_(requires_grad=False)


def require_tokenizer(folder: Path) -> None:
    """Refuse a folder without a vocabulary; the library would make up an empty one and read every caption alike."""
    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise ModelError(
            f"{folder.name}: expected a tokenizer ({' or '.join(VOCABULARIES)}), found none; fetch it again"
        )


def load_tokenizer(folder: Path) -> Any:
    """Load a folder's text tokenizer; code that the folder might bring is never run."""
    from transformers import AutoTokenizer

    require_tokenizer(folder)
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        # Tokenizers raise whatever their file formats make them.
        raise ModelError(
            f"{folder.name}: its tokenizer cannot be loaded ({first_line(error)}); fetch it again"
        ) from None
