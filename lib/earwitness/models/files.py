"""Where a model's files are and what identifies them. Nothing here needs torch or builds a network.

The book page *Methods: models* says how to obtain each published model.
"""

from __future__ import annotations

import json
import os
import re
import stat
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from earwitness.errors import ModelError, nearest
from earwitness.util import file_hash, reason_of, sha256

CHECKPOINT, CODEC = "state_dict.bin", "compression_state_dict.bin"  # audiocraft's own format
TANGO_CONFIG = "main_config.json"  # the layout of Tango's authors, and the pickled tensors that go with it
TANGO_WEIGHTS = ("pytorch_model_main.bin", "pytorch_model_vae.bin", "pytorch_model_stft.bin")
PIPELINE = "model_index.json"  # diffusers' layout
TENSORS = {".safetensors", ".bin", ".th", ".ckpt"}
TEXTS = {".json", ".model", ".txt"}  # configurations and tokenizers
CLOSED_SERVICES = {"suno", "udio", "elevenlabs", "lyria", "mureka", "aiva", "boomy", "soundraw"}
OPEN_DESPITE_THEIR_OWNER = {"suno/bark", "suno/bark-small"}
INSTEAD = (
    "What can be done instead: look for verbatim copies in what it produces, ask in law for its training data, keep "
    "unreleased takes for the day its weights can be read; see the page Limits"
)
MOST_FILES, MOST_CONFIG, MOST_TEXT = 10_000, 10_000_000, 100_000_000  # of a folder; bytes of its texts
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w-][\w.-]*")
COMMIT = re.compile("[0-9a-f]{40}")  # of the hub: the name of a snapshot's folder


def pocket_names() -> list[str]:
    """Return the names of the models shipped with the package, for example ``pocket/musicgen-a``."""
    root = Path(str(files("earwitness"))) / "pocket" / "weights"
    return sorted(f"pocket/{p.parent.name}" for kind in ("config", "model_index") for p in root.glob(f"*/{kind}.json"))


def locate(name: str, *, allow_download: bool = False) -> Path:
    """Return the folder that holds a model's files.

    Parameters
    ----------
    name : str
        ``pocket/<name>``, a local folder, or a hub name ``<owner>/<model>``. A hub name that somebody typed is the only
        thing that may cause a download, and only of configuration, tokenizer and weight files.
    allow_download : bool
        Whether what the local cache lacks may be fetched. A revision that is in the cache is completed, never replaced.

    Raises
    ------
    ModelError
        Unknown name (with the nearest known one), a closed service, or a hub model that cannot be had.
    """
    if name.startswith("pocket/"):
        if name not in pocket_names():
            raise ModelError(f"no pocket model {name!r}; there are {', '.join(pocket_names())}{_hint(name)}")
        return Path(str(files("earwitness"))) / "pocket" / "weights" / name.removeprefix("pocket/")
    try:
        folder = Path(name).expanduser()
        if name and folder.is_dir():
            return folder
        if name and folder.exists():
            raise ModelError(f"{name!r} is a file; a model is the folder that holds its weights and configuration")
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(f"{name[:80]!r}: cannot be read ({reason_of(error)}); check the name of the model") from None
    if _closed(name):
        raise ModelError(
            f"{name!r} is a closed service that gives out no weights, and without them nothing can be tested. {INSTEAD}"
        )
    if not HUB_NAME.fullmatch(name) or nearest(name.partition("/")[0], ["pocket"], cutoff=0.85):
        raise ModelError(
            f"{name!r} is neither a pocket model, a folder nor a hub name (owner/model){_hint(name)}; check the path"
        )
    return _from_hub(name, allow_download=allow_download)


def _closed(name: str) -> bool:
    """Say whether a name is that of a service without published weights: ``Suno v5``, ``udio.com``."""
    words = set(re.split(r"[^a-z0-9]+", name.lower().partition("/")[0])) | {re.sub(r"[^a-z]", "", name.lower())}
    return bool(words & CLOSED_SERVICES) and name.lower() not in OPEN_DESPITE_THEIR_OWNER


def locate_part(folder: Path, name: str) -> Path:
    """Return the folder of a part that a checkpoint only names, such as its text encoder ``t5-base``.

    It is looked for in a subfolder called like the last part of its name, then in the local cache. Nobody typed its
    name, so it is never fetched.
    """
    inside = folder / name.rpartition("/")[2]
    if inside.is_dir():
        return inside
    try:
        return _from_hub(name, allow_download=False)
    except ModelError:
        raise ModelError(
            f"{name!r}: not in the local cache and not downloaded, for it is {folder.name} that names it; fetch it by "
            f"`hf download {name}`, or put its files into {folder.name}/{inside.name}"
        ) from None


def _hint(name: str) -> str:
    return nearest(name, pocket_names())


def _from_hub(name: str, *, allow_download: bool) -> Path:
    """Return the snapshot folder of a hub model, from the cache or by download."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.file_download import repo_folder_name

    def fetch(patterns: list[str], commit: str) -> Path:
        which = {"revision": commit} if COMMIT.fullmatch(commit) else {}
        return Path(snapshot_download(name, allow_patterns=patterns, local_files_only=not allow_download, **which))

    try:
        known = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=name, repo_type="model"), "refs", "main")
        commit = known.read_text().strip() if known.is_file() else ""
        folder = fetch(["*.safetensors", *(f"*{suffix}" for suffix in sorted(TEXTS))], commit)
        if (folder / TANGO_CONFIG).is_file() and not (folder / PIPELINE).is_file():
            return fetch([*TANGO_WEIGHTS], folder.name)
        return folder if any(folder.rglob("*.safetensors")) else fetch([CHECKPOINT, CODEC], folder.name)
    except (OSError, ValueError) as error:  # of the library's own, all are kinds of these
        raise ModelError(
            f"{name!r}: not in the local cache and not downloaded ({type(error).__name__}){_hint(name)}; "
            "put its files in a folder and name the folder, or check the name and the connection"
        ) from None


def read_json(path: Path) -> dict[str, Any]:
    """Read a configuration; a ``ModelError`` names the file that is missing or not an object."""
    try:
        if path.stat().st_size > MOST_CONFIG:
            raise ModelError(f"{path.parent.name}/{path.name}: longer than {MOST_CONFIG} bytes; fetch the file again")
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path.parent.name}: expected {path.name}, found none; is the folder complete?") from None
    except (OSError, ValueError, RecursionError) as error:  # numbers of thousands of digits are ValueErrors
        raise ModelError(f"{path.parent.name}/{path.name}: not JSON ({error}); fetch the file again") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path.parent.name}/{path.name}: expected an object, found {type(content).__name__}")
    return content


@lru_cache(maxsize=32)
def _hash_files(folder: Path, state: tuple[tuple[str, int, int, int, int], ...]) -> str:
    """Hash names and contents of the identity files; ``state`` (sizes, times, inodes) is the cache's key."""
    return sha256("".join(f"{name}:{file_hash(folder / name)}\n" for name, *_ in state))


def contents(folder: Path) -> list[Path]:
    """Return every file in a model's folder, in folders that are links too: libraries would read those as well.

    Raises
    ------
    ModelError
        Pipes, devices and sockets, which a reader would wait for; text beyond belief; folders without end.
    """
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        here = Path(place).stat()
        if (here.st_dev, here.st_ino) in seen or len(found) > MOST_FILES:
            raise ModelError(f"{folder.name}: its folders go round in a circle or hold more than {MOST_FILES} files")
        seen.add((here.st_dev, here.st_ino))
        for name in names:
            path = Path(place, name)
            try:
                held = path.stat()
            except OSError:  # a link to nothing: as good as missing
                continue
            where = f"{folder.name}/{path.relative_to(folder).as_posix()}"
            if not stat.S_ISREG(held.st_mode):
                raise ModelError(f"{where}: a pipe, a device or a socket where a file is expected; nothing was read")
            if path.suffix in TEXTS and held.st_size > MOST_TEXT:
                raise ModelError(f"{where}: {held.st_size} bytes of text, at most {MOST_TEXT}; fetch the file again")
            found.append(path)
        folders.sort()
    return found


def revision(folder: Path, *parts: Path) -> str:
    """Return the SHA-256 that identifies a model: weights, configuration, tokenizer, and parts kept elsewhere.

    Where a folder holds a model twice, in transformers' and in audiocraft's format, what is loaded counts: safetensors.
    """
    found = {p for p in contents(folder) if p.suffix in TENSORS | TEXTS and p.name != "training.json"}
    if any(p.suffix == ".safetensors" and p.parent == folder for p in found):
        found = {p for p in found if p.suffix in {".safetensors", *TEXTS}}
    try:
        stats = sorted((p.relative_to(folder).as_posix(), p.stat()) for p in found)
        state = tuple((name, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for name, s in stats)
        own = _hash_files(folder, state)
    except OSError as error:
        raise ModelError(f"{folder.name}: cannot be read ({reason_of(error)}); is the folder complete?") from None
    outside = [revision(part) for part in parts if not part.is_relative_to(folder)]
    return sha256("".join([own, *outside])) if outside else own
