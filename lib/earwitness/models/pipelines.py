"""Pipeline folders in diffusers' layout: which family they are, their parts, loading one part.

The pipelines themselves are never used: some are deprecated, none can score. A part is loaded from its own sub-folder,
from safetensors only, after its configuration has been compared with the weights' headers on the meta device, so that
a configuration that does not belong cannot make us allocate what it claims.
"""

from __future__ import annotations

import math
from importlib import import_module
from pathlib import Path
from typing import Any

from earwitness.errors import ModelError
from earwitness.models.files import PIPELINE, TANGO_CONFIG, read_json
from earwitness.models.pretrained import badge, first_line, headers, load_pretrained

PIPELINES = {  # the class that model_index.json names
    "AudioLDMPipeline": "audioldm",
    "MusicLDMPipeline": "audioldm",
    "AudioLDM2Pipeline": "audioldm2",
    "TangoPipeline": "tango",
    "StableAudioPipeline": "stable_audio",
}
EARS = "preprocessor_config.json"
LONGEST_TEXT = 512  # tokens, where a tokenizer states no limit
MOST_LAYERS = 1000  # per block; beyond it a configuration is damaged


def family(name: str, folder: Path) -> tuple[Any, dict[str, Any]] | None:
    """Return a pipeline folder's family module and configuration; None if it is no pipeline folder.

    Raises
    ------
    ModelError
        A pipeline of a family that is not read.
    """
    if (folder / PIPELINE).is_file():
        config = read_json(folder / PIPELINE)
    elif (folder / TANGO_CONFIG).is_file():
        config = {**read_json(folder / TANGO_CONFIG), "_class_name": "TangoPipeline"}
    else:
        return None
    pipeline = str(config.get("_class_name"))
    if pipeline not in PIPELINES:
        raise ModelError(f"{name}: pipeline {pipeline!r} is no family we load; known: {', '.join(PIPELINES)}")
    return import_module(f"earwitness.models.{PIPELINES[pipeline]}"), config


def require(folder: Path, names: tuple[str, ...], mend: str = "") -> None:
    """Refuse a pipeline folder that lacks a part, naming every missing one and, if there is one, the ``mend``."""
    missing = [name for name in names if not (folder / name).is_dir()]
    if missing:
        raise ModelError(
            f"{folder.name}: the pipeline folder lacks {', '.join(missing)}; "
            f"it needs the parts {', '.join(names)}{mend}"
        )


def label(folder: Path, network: str, *, pocket: bool) -> str:
    """Return ``"pocket"``, ``"tiny"`` or ``"real"`` by the size of the denoising network."""
    return badge(sum(map(math.prod, headers(folder / network).values())), pocket=pocket)


def load_part(folder: Path, name: str, kind: Any, dtype: str) -> Any:
    """Load one part of a pipeline folder in evaluation mode, without gradients for its weights.

    Parameters
    ----------
    folder : Path
        The pipeline folder.
    name : str
        The part's sub-folder.
    kind : type
        Its class, of diffusers or transformers.
    dtype : str
        Type of the weights, for example ``"float32"``.

    Raises
    ------
    ModelError
        A configuration that does not fit the weights, missing or damaged files.
    """
    import torch

    quiet()
    path, number = folder / name, getattr(torch, dtype)
    if hasattr(kind, "config_class"):
        return load_pretrained(path, kind, number)
    check_fit(skeleton(kind, read_json(path / "config.json"), path), headers(path), f"{folder.name}/{name}")
    loaded, report = kind.from_pretrained(
        path, torch_dtype=number, use_safetensors=True, local_files_only=True, output_loading_info=True
    )
    if report["missing_keys"]:
        names = sorted(report["missing_keys"])
        raise ModelError(
            f"{folder.name}/{name}: the weights lack {len(names)} tensors, first {names[0]}; fetch them again"
        )
    return loaded.eval().requires_grad_(requires_grad=False)


def skeleton(kind: Any, config: dict[str, Any], path: Path) -> Any:
    """Build a diffusers network without memory behind it."""
    import torch

    for key, value in config.items():
        counts = value if isinstance(value, list) else [value]
        if "layers" in key and any(isinstance(n, int) and n > MOST_LAYERS for n in counts):
            raise ModelError(f"{path.parent.name}/{path.name}: {key} is {value}, beyond belief; fetch the folder again")
    try:
        with torch.device("meta"):
            return kind.from_config(config)
    except Exception as error:
        # Whatever a library makes of a configuration that makes no sense: a type, a value, a missing key.
        raise ModelError(
            f"{path.parent.name}/{path.name}: configuration describes no {kind.__name__} ({first_line(error)})"
        ) from None


def check_fit(network: Any, held: dict[str, tuple[int, ...]], where: str) -> None:
    """Compare a network on the meta device with tensor name -> shape of its weights; every tensor must be there."""
    for name, value in network.state_dict().items():
        if name in held and held[name] != tuple(value.shape):
            raise ModelError(
                f"{where}: tensor {name} has shape {held[name]}, the configuration expects {tuple(value.shape)}; "
                "weights and configuration do not belong together"
            )
        if name not in held:
            raise ModelError(f"{where}: the weights lack {name}; fetch them again")


def load_tokenizer(folder: Path, name: str) -> Any:
    """Load a pipeline folder's tokenizer; one that states no longest text gets T5's, 512."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder / name, local_files_only=True)
    except Exception as error:
        # A missing or damaged file surfaces as almost any exception.
        raise ModelError(f"{folder.name}/{name}: no tokenizer ({first_line(error)}); fetch the folder again") from None
    tokenizer.model_max_length = min(tokenizer.model_max_length, LONGEST_TEXT)
    return tokenizer


def load_extractor(folder: Path, name: str) -> Any:
    """Load what turns audio into the input of a pipeline folder's CLAP."""
    from transformers import ClapFeatureExtractor

    read_json(folder / name / EARS)
    try:
        return ClapFeatureExtractor.from_pretrained(folder / name, local_files_only=True)
    except Exception as error:
        # Whatever a library makes of a configuration that makes no sense.
        raise ModelError(
            f"{folder.name}/{name}: no feature extractor of CLAP ({first_line(error)}); fetch the folder again"
        ) from None


def quiet() -> None:
    """Keep the libraries from reporting on the loading of parts."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
