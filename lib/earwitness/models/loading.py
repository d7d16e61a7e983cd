"""Loading weights, whatever the family: one reader of tensors, one check of names and sizes, one tokenizer.

A folder's weights are safetensors or files of torch's own, of which only tensors are taken; ``files.weights`` says
which of several. Names and sizes are compared before anything is allocated, on the meta device, so that a configuration
that does not belong cannot make us allocate what it claims. Old and new names of tensors and any number of shards are
read. Of a pipeline each part is loaded from its own sub-folder; diffusers' pipelines themselves are never used: some
are deprecated, none can score. The book page *Methods: models* lists what is refused.
"""

from __future__ import annotations

import math
import pickle
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earwitness.errors import EarwitnessError, ModelError
from earwitness.models.files import PIPELINE, TANGO_CONFIG, read_json, weights

if TYPE_CHECKING:
    import torch
    from torch import Tensor

POINTER = b"version https://git-lfs"
TINY_PARAMETERS = 20_000_000  # below this a checkpoint is a toy, and pages say so
VOCABULARIES = ("tokenizer.json", "spiece.model", "vocab.json", "tokenizer.model")
SPARE_ELEMENTS = 50_000_000  # tables that are computed and never stored, such as positions


# --- tensors ----------------------------------------------------------------------------------------------------------


def unpickled(path: Path, mend: str = "fetch safetensors instead, or save it again from its tensors alone") -> Any:
    """Map what torch saved: tensors and plain values, nothing else.

    Raises
    ------
    ModelError
        Damaged files, and pickles that ask for more; nothing in them is executed. ``mend`` says what helps.
    """
    import torch

    where = f"{path.parent.name}/{path.name}"
    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap can only be used" not in str(error):  # files of before 2020 have no archive to map
                raise
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelError(f"{where}: expected this file, found none; is the download complete?") from None
    except pickle.UnpicklingError as error:
        if is_pointer(path):
            raise damaged(path, error) from None
        asked = re.search(r"GLOBAL (\S+)", str(error))
        what = asked[1] if asked else "something else"
        raise ModelError(
            f"{where}: a pickle that asks for {what}; only tensors and plain values are read, so nothing was executed: "
            f"{mend}"
        ) from None
    except (RuntimeError, ValueError, EOFError, OSError) as error:
        raise damaged(path, error) from None


def is_pointer(path: Path) -> bool:
    """Say whether git-lfs left its note in a file's place."""
    return path.is_file() and path.open("rb").read(len(POINTER)) == POINTER


def damaged(path: Path, error: BaseException) -> ModelError:
    """Return why a file of weights cannot be opened, and what mends it."""
    where = f"{path.parent.name}/{path.name}"
    if is_pointer(path):
        return ModelError(f"{where}: what git-lfs keeps in the file's place, not the file; fetch it: git lfs pull")
    return ModelError(f"{where}: damaged ({first_line(error)}); fetch it again")


def dense(state: Any, path: Path, what: str = "named tensors only") -> dict[str, Tensor]:
    """Return a file's tensors by name, each backed by data that it really holds; ``what`` names what was expected.

    Raises
    ------
    ModelError
        Entries that are no dense tensors, or that claim more data than there is.
    """
    import torch

    where = f"{path.parent.name}/{path.name}"
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(t, torch.Tensor) and t.layout is torch.strided for name, t in state.items()
    ):
        raise ModelError(f"{where}: expected {what}, found something else; fetch it again")
    each = {t.data_ptr(): t.numel() * t.element_size() for t in state.values()}  # one tensor may have two names
    claimed, there = sum(each.values()), path.stat().st_size
    if claimed > there:
        raise ModelError(f"{where}: its tensors claim {claimed} bytes, the file holds {there}; fetch it again")
    return state


def tensors(path: Path) -> dict[str, Tensor]:
    """Map the tensors of one file, of either kind.

    Raises
    ------
    ModelError
        As ``unpickled`` and ``dense``.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if path.suffix != ".safetensors":
        held = unpickled(path)
        return dense(held.get("state_dict", held) if isinstance(held, dict) else held, path)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise damaged(path, error) from None


def below(held: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return what is held by names under a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in held.items() if name.startswith(prefix)}


def state(folder: Path) -> dict[str, Tensor]:
    """Map one network's tensors, whatever the number and the kind of its files."""
    return {name: tensor for path in weights(folder) for name, tensor in tensors(path).items()}


def headers(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return tensor name -> shape of one network's weights; of safetensors nothing but headers is read.

    Raises
    ------
    ModelError
        No weights, or damaged ones.
    """
    from safetensors import SafetensorError, safe_open

    found: dict[str, tuple[int, ...]] = {}
    for part in weights(folder):
        if part.suffix != ".safetensors":
            found |= {name: tuple(tensor.shape) for name, tensor in tensors(part).items()}
            continue
        try:
            with safe_open(part, framework="numpy") as held:
                found |= {name: tuple(held.get_slice(name).get_shape()) for name in held.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise damaged(part, error) from None
    return found


def compare(network: Any, held: Mapping[str, Any], where: str, *, lacking: bool = True, unknown: bool = False) -> None:
    """Compare a network on the meta device with the shapes (or the tensors) of its weights, by name.

    Raises
    ------
    ModelError
        A tensor of another shape; one that is missing, if ``lacking`` ones matter, or that has no place in the network,
        if ``unknown`` ones do.
    """
    wanted = network if isinstance(network, dict) else network.state_dict()
    for name, value in wanted.items():
        found = tuple(getattr(held[name], "shape", held[name])) if name in held else None
        if found is not None and found != tuple(value.shape):
            raise ModelError(
                f"{where}: tensor {name} has shape {found}, the configuration expects {tuple(value.shape)}; "
                "weights and configuration do not belong together"
            )
    for what, names in (
        ("lack", sorted(wanted.keys() - held.keys()) if lacking else []),
        ("hold unknown", sorted(held.keys() - wanted.keys()) if unknown else []),
    ):
        if names:
            raise ModelError(f"{where}: the weights {what} {len(names)} tensors, first {names[0]}; fetch them again")


def fill(network: Any, held: Mapping[str, Tensor], where: str, dtype: str) -> Any:
    """Give a network, whose parameters are on the meta device, its weights, for scoring: no gradients.

    Raises
    ------
    ModelError
        As ``compare``: every tensor must be there and fit.
    """
    import torch

    compare(network, held, where)
    number = getattr(torch, dtype)
    taken = {name: held[name] for name in network.state_dict()}
    taken = {name: t.to(number) if t.is_floating_point() else t for name, t in taken.items()}
    network.load_state_dict(taken, assign=True)
    return network.eval().requires_grad_(requires_grad=False)


# --- folders in transformers' format ----------------------------------------------------------------------------------


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
    compare(skeleton, held, folder.name, lacking=False)  # the library knows older names, too
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
    """Keep the libraries from reporting on stderr; what matters to the user is an error of ours."""
    import transformers

    for library in filter(None, (transformers, sys.modules.get("diffusers"))):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()


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
        config = network_class.config_class.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        network, report = network_class.from_pretrained(
            None, config=config, state_dict=state(folder), dtype=dtype, output_loading_info=True
        )
    except EarwitnessError:
        raise
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


def load_tokenizer(folder: Path, longest: float = math.inf) -> Any:
    """Load a folder's text tokenizer; code that it might bring is never run. It takes ``longest`` tokens at most."""
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
    tokenizer.model_max_length = min(tokenizer.model_max_length, longest)
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
    "StableAudio3Pipeline": "stable_audio_3",
    "AceStepPipeline": "ace_step",
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


def require(folder: Path, names: tuple[str, ...]) -> None:
    """Refuse a pipeline folder that lacks a part, naming every missing one, or whose parts lack their files."""
    missing = [name for name in names if not (folder / name).is_dir()]
    if missing:
        raise ModelError(
            f"{folder.name}: the pipeline folder lacks {', '.join(missing)}; it needs the parts {', '.join(names)}"
        )
    for name in names:
        if name.startswith("tokenizer"):
            require_tokenizer(folder / name)
        elif name not in {"scheduler", "feature_extractor", "clap"}:
            weights(folder / name)


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

    path = folder / name
    if hasattr(kind, "config_class"):
        return load_pretrained(path, kind, getattr(torch, dtype))
    quiet()
    return filled(kind, read_json(path / "config.json"), state(path), path, dtype)


def load_parts(folder: Path, dtype: str, **kinds: Any) -> dict[str, Any]:
    """Load the parts of a pipeline folder, each by its name and class (see ``load_part``)."""
    return {name: load_part(folder, name, kind, dtype) for name, kind in kinds.items()}


def filled(
    kind: Any, config: dict[str, Any], held: dict[str, Tensor], path: Path, dtype: str, *, unknown: bool = False
) -> Any:
    """Build one of diffusers' networks from its configuration and its tensors, by their older names too.

    Tensors without a place are refused if ``unknown`` ones matter.

    Raises
    ------
    ModelError
        As ``skeleton`` and ``fill``.
    """
    from accelerate import init_empty_weights

    where, bare = f"{path.parent.name}/{path.name}", skeleton(kind, config, path)
    bare._fix_state_dict_keys_on_load(held)
    compare(bare, held, where, unknown=unknown)
    with init_empty_weights():  # what is computed and never stored is computed now
        network = kind.from_config(config)
    return fill(network, held, where, dtype)


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
