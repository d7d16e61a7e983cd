"""Loading weights from safetensors: folders in transformers' format, and pipeline folders in diffusers' layout.

Names and sizes are compared before anything is allocated, on the meta device, so that a configuration that does not
belong cannot make us allocate what it claims. Old and new names of weight-normalised tensors and any number of shards
are all read. Of a pipeline each part is loaded from its own sub-folder; diffusers' pipelines themselves are never used:
some are deprecated, none can score. The book page *Methods: models* lists what is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earwitness.errors import EarwitnessError, ModelError
from earwitness.models.files import PIPELINE, TANGO_CONFIG, read_json

if TYPE_CHECKING:
    import torch

TINY_PARAMETERS = 20_000_000  # below this a checkpoint is a toy, and pages say so
VOCABULARIES = ("tokenizer.json", "spiece.model")
SPARE_ELEMENTS = 50_000_000  # tables that are computed and never stored, such as positions


# --- folders in transformers' format ----------------------------------------------------------------------------------


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
    for index in sorted(folder.glob("*.safetensors.index.json")):
        named = read_json(index).get("weight_map")
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
        elif name.startswith(("num_", "n_", "depths")) and name.endswith(("layer", "layers", "codebooks", "depths")):
            words = name.removeprefix("num_").replace("hidden_", "").replace("_", " ")
            yield from ((words, n) for n in (value if isinstance(value, list) else [value]) if isinstance(n, int))


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
        config = network_class.config_class.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
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


@contextmanager
def undrawn() -> Iterator[None]:
    """Build networks without drawing random values for weights: whoever builds one fills all of it, as is checked.

    Buffers are computed as ever. What transformers and diffusers load is built on the meta device by the libraries.
    """
    from transformers.initialization import no_init_weights

    with no_init_weights():
        yield


@contextmanager
def sealed() -> Iterator[None]:
    """While a folder is loaded, keep libraries from asking a hub or standard input, whatever its files name."""
    from huggingface_hub import constants
    from transformers import dynamic_module_utils as code

    kept = constants.HF_HUB_OFFLINE, code.TIME_OUT_REMOTE_CODE
    constants.HF_HUB_OFFLINE, code.TIME_OUT_REMOTE_CODE = True, 0  # 0 seconds for an answer: it is refused unasked
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, code.TIME_OUT_REMOTE_CODE = kept


@contextmanager
def explained(where: str) -> Iterator[None]:
    """Turn whatever a library makes of files that make no sense into one line; a panic of Rust's is no Exception."""
    try:
        yield
    except EarwitnessError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ModelError(
            f"{where}: its files make no model that can be read ({first_line(error)}); fetch it again"
        ) from error


def first_line(error: BaseException) -> str:
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
            folder, dtype=dtype, use_safetensors=True, local_files_only=True, trust_remote_code=False,
            output_loading_info=True,
        )  # fmt: skip
    except Exception as error:  # whatever a library makes of a configuration that makes no sense
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
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        # Tokenizers raise whatever their file formats make them.
        raise ModelError(
            f"{folder.name}: its tokenizer cannot be loaded ({first_line(error)}); fetch it again"
        ) from None
    check_limit(tokenizer, folder.name)
    return tokenizer


def check_limit(tokenizer: Any, where: str) -> None:
    """Refuse a tokenizer whose longest text is no number of tokens: captions would be cut to nothing."""
    limit = tokenizer.model_max_length
    if not isinstance(limit, int | float) or not limit >= 1:
        raise ModelError(f"{where}: its tokenizer takes {limit!r:.40} tokens at most; fetch it again")


# --- pipeline folders in diffusers' layout ----------------------------------------------------------------------------

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

    quiet_diffusers()
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


def load_part_tokenizer(folder: Path, name: str) -> Any:
    """Load a pipeline folder's tokenizer; one that states no longest text gets T5's, 512."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder / name, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        # A missing or damaged file surfaces as almost any exception.
        raise ModelError(f"{folder.name}/{name}: no tokenizer ({first_line(error)}); fetch the folder again") from None
    check_limit(tokenizer, f"{folder.name}/{name}")
    tokenizer.model_max_length = min(tokenizer.model_max_length, LONGEST_TEXT)
    return tokenizer


def load_extractor(folder: Path, name: str) -> Any:
    """Load what turns audio into the input of a pipeline folder's CLAP."""
    from transformers import ClapFeatureExtractor

    read_json(folder / name / EARS)
    try:
        return ClapFeatureExtractor.from_pretrained(folder / name, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        # Whatever a library makes of a configuration that makes no sense.
        raise ModelError(
            f"{folder.name}/{name}: no feature extractor of CLAP ({first_line(error)}); fetch the folder again"
        ) from None


def quiet_diffusers() -> None:
    """Keep the libraries from reporting on the loading of parts."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
