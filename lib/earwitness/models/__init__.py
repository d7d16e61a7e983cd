"""``load_model(name)``: a pocket name, a hub name or a local folder, whatever the family.

``describe`` reads a model's identity from its files without loading a network; ``load_model`` loads it.
One file per family; ``FAMILIES`` maps the ``model_type`` of a ``config.json`` to it.
"""

from __future__ import annotations

import hashlib
import json
import re
from functools import lru_cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earwitness.errors import ModelError, nearest
from earwitness.models.base import ModelInfo

if TYPE_CHECKING:
    from earwitness.models.base import TokenModel

FAMILIES = {"musicgen": "earwitness.models.musicgen"}
IDENTITY_SUFFIXES = {".safetensors", ".json", ".model", ".txt"}  # weights, configurations, tokenizers
LIBRARIES = ("torch", "transformers", "numpy")
CLOSED_SERVICES = {"suno", "udio", "elevenlabs", "lyria", "mureka", "riffusion"}
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def pocket_names() -> list[str]:
    """Return the names of the models shipped with the package, for example ``pocket/musicgen-a``."""
    root = Path(str(files("earwitness"))) / "pocket" / "weights"
    return sorted(f"pocket/{p.parent.name}" for p in root.glob("*/config.json"))


def locate(name: str, *, allow_download: bool = True) -> Path:
    """Return the folder that holds a model's files.

    Parameters
    ----------
    name : str
        ``pocket/<name>``, a local folder, or a hub name ``<owner>/<model>``. A hub name is the only thing that may
        cause a download, and only of configuration, tokenizer and safetensors files.
    allow_download : bool
        False looks in the local cache only.

    Raises
    ------
    ModelError
        Unknown name (with the nearest known one), a closed service, or a hub model that cannot be had.
    """
    if name.startswith("pocket/"):
        if name not in pocket_names():
            raise ModelError(f"no pocket model {name!r}; there are {', '.join(pocket_names())}{_hint(name)}")
        return Path(str(files("earwitness"))) / "pocket" / "weights" / name.removeprefix("pocket/")
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if name.lower().split("/")[0].split("-")[0] in CLOSED_SERVICES:
        raise ModelError(f"{name!r} is a closed service that gives out no weights, so it cannot be tested; see Limits")
    if not _HUB_NAME.fullmatch(name):
        raise ModelError(f"{name!r} is neither a pocket model, a folder nor a hub name (owner/model){_hint(name)}")
    return _from_hub(name, allow_download=allow_download)


def _hint(name: str) -> str:
    return nearest(name, pocket_names())


def _from_hub(name: str, *, allow_download: bool) -> Path:
    """Return the snapshot folder of a hub model, from the cache or by download."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted = [f"*{suffix}" for suffix in sorted(IDENTITY_SUFFIXES)]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted, local_files_only=not allow_download))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ModelError(
            f"{name!r}: not in the local cache and not downloaded ({type(error).__name__}){_hint(name)}; "
            "put its files in a folder and name the folder, or check the name and the connection"
        ) from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise ModelError(f"{path.parent.name}: expected {path.name}, found none; is the folder complete?") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path.parent.name}/{path.name}: not JSON ({error}); fetch the file again") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path.parent.name}/{path.name}: expected an object, found {type(content).__name__}")
    return content


@lru_cache(maxsize=32)
def _hash_files(folder: Path, state: tuple[tuple[str, int, int], ...]) -> str:
    """Hash names and contents of the identity files; ``state`` (sizes and times) is the cache's key."""
    digest = hashlib.sha256()
    for name, _, _ in state:
        with (folder / name).open("rb") as file:
            digest.update(f"{name}:{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def revision(folder: Path) -> str:
    """Return the SHA-256 that identifies a model's weights, configuration and tokenizer."""
    found = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix in IDENTITY_SUFFIXES)
    stats = [(p.relative_to(folder).as_posix(), p.stat()) for p in found if p.name != "training.json"]
    return _hash_files(folder, tuple((name, s.st_size, s.st_mtime_ns) for name, s in stats))


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that can change a score."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "absent"
    return versions


def _family(name: str, folder: Path) -> tuple[Any, dict[str, Any]]:
    """Return the family's module and the folder's configuration."""
    config = _read_json(folder / "config.json")
    kind = str(config.get("model_type"))
    if kind not in FAMILIES:
        raise ModelError(f"{name}: model_type {kind!r} is no family we load; known: {', '.join(FAMILIES)}")
    return import_module(FAMILIES[kind]), config


def describe(name: str, *, dtype: str = "float32", device: str = "cpu", allow_download: bool = True) -> ModelInfo:
    """Return a model's identity from its files alone (no network is built, torch is not imported).

    Raises
    ------
    ModelError
        As ``locate``; also a configuration of an unknown family.
    """
    folder = locate(name, allow_download=allow_download)
    module, config = _family(name, folder)
    return ModelInfo(
        name=folder.name if Path(name).expanduser().is_dir() else name,
        revision=revision(folder),
        dtype=dtype,
        device=device,
        versions=library_versions(),
        **module.describe(folder, config, pocket=name.startswith("pocket/")),
    )


def load_model(
    name: str, *, dtype: str = "float32", device: str | None = None, allow_download: bool = True
) -> TokenModel:
    """Load a model for scoring: evaluation mode, no gradients, safetensors only.

    Parameters
    ----------
    name : str
        ``pocket/musicgen-a``, a local folder in the family's format, or a hub name.
    dtype : str
        ``"float32"`` (default), ``"bfloat16"`` or ``"float16"``; log-probabilities are float32 whatever it is.
    device : str, optional
        Default: a CUDA card if there is one, else the CPU.
    allow_download : bool
        Whether naming a hub model may fetch it.

    Returns
    -------
    TokenModel
        See ``earwitness.models.base``.

    Raises
    ------
    ModelError
        Unknown name, another family, missing or mismatched tensors, weights that are not safetensors.
    """
    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    info = describe(name, dtype=dtype, device=device, allow_download=allow_download)
    folder = locate(name, allow_download=False)
    module, _ = _family(name, folder)
    model: TokenModel = module.load(folder, info)
    return model
