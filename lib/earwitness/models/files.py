"""Where a model's files are and what identifies them. Nothing here needs torch or builds a network.

The book page *Methods: models* says how to obtain each published model.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
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
NATIVE, WHOLE = "model_config.json", "model.ckpt"  # stable-audio-tools' layout
VQ_VAE = "vq-vae.safetensors"  # beside FIGARO's network, in our own stored form
STEMS = ("model", "diffusion_pytorch_model", "pytorch_model")  # what the libraries call a network's weights
KINDS, VARIANTS = (".safetensors", ".bin"), ("", ".fp32", ".fp16", ".bf16")  # the first that is whole is taken
TENSORS = {".safetensors", ".bin", ".th", ".ckpt"}
UNREAD = {".msgpack", ".h5", ".onnx", ".gguf", ".pt", ".pth"}  # weights that no loader here reads
TEXTS = {".json", ".model", ".txt"}  # configurations and tokenizers
CLOSED_SERVICES = {"suno", "udio", "elevenlabs", "lyria", "mureka", "aiva", "boomy", "soundraw"}
OPEN_DESPITE_THEIR_OWNER = {"suno/bark", "suno/bark-small"}
INSTEAD = (
    "What can be done instead: look for verbatim copies in what it produces, ask in law for its training data, keep "
    "unreleased takes for the day its weights can be read; see the page Limits"
)
FETCH = "hf download OWNER/NAME --local-dir FOLDER"
STRANGE = {  # what no layout here describes, by the ending of a file's name
    ".incomplete": "a download that was broken off; the same command goes on with it",
    ".gguf": "weights rounded for llama.cpp and its kin (GGUF), which give other scores",
    ".onnx": "a graph for inference alone (ONNX)", ".tflite": "a graph for inference alone (TensorFlow Lite)",
    ".mlmodel": "a graph for inference alone (Core ML)", ".mil": "a graph for inference alone (Core ML)",
    ".nemo": "an archive of NeMo's, whose families are not read", ".h5": "weights of TensorFlow's",
    ".msgpack": "weights of Flax's",
}  # fmt: skip
MOST_FILES, MOST_CONFIG, MOST_TEXT = 10_000, 10_000_000, 100_000_000  # of a folder; bytes of its texts
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w-][\w.-]*")
HELD = re.compile(r"[\w][\w.-]*")  # a file of the same folder
MOST_NAMED = 5
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

    It is looked for in a folder called like the last part of its name, in the model's own or beside it, then in the
    local cache. Nobody typed its name, so it is never fetched.
    """
    inside = folder / name.rpartition("/")[2]
    for place in (inside, folder.resolve().with_name(inside.name)):
        if place.is_dir():
            return place
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
    """Return the snapshot folder of a hub model, from the cache or by download.

    Texts first: they say which layout it is. Then the weights of that layout, the first kind that is there, and no
    other: not half precision beside the whole, not the file of another program beside a pipeline.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.file_download import repo_folder_name

    def fetch(patterns: list[str], commit: str) -> Path:
        which = {"revision": commit} if COMMIT.fullmatch(commit) else {}
        return Path(snapshot_download(name, allow_patterns=patterns, local_files_only=not allow_download, **which))

    try:
        known = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=name, repo_type="model"), "refs", "main")
        commit = known.read_text().strip() if known.is_file() else ""
        folder = fetch([f"*{suffix}" for suffix in sorted(TEXTS)], commit)
        for patterns in _wanted(folder):
            fetch(patterns, folder.name)
    except (OSError, ValueError) as error:  # of the library's own, all are kinds of these
        raise ModelError(
            f"{name!r}: not in the local cache and not downloaded ({type(error).__name__}){_hint(name)}; "
            "put its files in a folder and name the folder, or check the name and the connection"
        ) from None
    return folder


def _wanted(folder: Path) -> Iterator[list[str]]:
    """Yield what to fetch next, by the texts and the weights that are there by then."""
    if (folder / PIPELINE).is_file():
        for part in sorted(read_json(folder / PIPELINE)):
            if (folder / part / "config.json").is_file():
                yield from _of_one(folder / part, f"{part}/")
    elif (folder / TANGO_CONFIG).is_file():
        yield [*TANGO_WEIGHTS]
    elif (folder / "config.json").is_file() or (folder / NATIVE).is_file():
        yield from _of_one(folder, "")
    if not any(path.suffix in TENSORS for path in folder.rglob("*")):
        yield [CHECKPOINT, CODEC, WHOLE]


def _of_one(folder: Path, prefix: str) -> Iterator[list[str]]:
    """Yield the names of one network's weights, kind after kind, until one is there."""
    for kind in KINDS:
        for variant in VARIANTS:
            if weights(folder, required=False):
                return
            indexed = [name for stem in STEMS for name in _shards(folder / f"{stem}{kind}.index{variant}.json")]
            own = [VQ_VAE] if kind != ".bin" and not prefix else []
            yield [f"{prefix}{name}" for name in (*(f"{stem}{variant}{kind}" for stem in STEMS), *indexed, *own)]


def _shards(index: Path) -> list[str]:
    """Return the files that an index names; none where there is no index.

    Raises
    ------
    ModelError
        An index that leads out of its folder.
    """
    named = read_json(index).get("weight_map") if index.is_file() else None
    names = sorted({str(value) for value in named.values()}) if isinstance(named, dict) else []
    for name in names:
        if not HELD.fullmatch(name):
            raise ModelError(
                f"{index.parent.name}/{index.name}: names {name[:99]!r}, which the folder does not hold; fetch it again"
            )
    return names


def weights(folder: Path, *, required: bool = True) -> tuple[Path, ...]:
    """Return the files that hold one network's weights.

    Safetensors before torch's own format, full precision before half, a whole file before shards; an index whose shards
    are not there is left over, where other weights are.

    Raises
    ------
    ModelError
        None that is whole, if one is ``required``, or an index that leads out of the folder.
    """
    lost = ""
    for index in sorted(folder.glob("*.index*.json")):
        _shards(index)
    for kind in KINDS:
        for variant in VARIANTS:
            for stem in STEMS:
                if (whole := folder / f"{stem}{variant}{kind}").is_file():
                    return (whole,)
            for stem in STEMS:
                index = folder / f"{stem}{kind}.index{variant}.json"
                names = _shards(index)
                missing = [name for name in names if not (folder / name).is_file()]
                if names and not missing:
                    return tuple(folder / name for name in names)
                lost = lost or (
                    f"{index.name}: names {missing[0]!r}, which the folder does not hold" if missing else ""
                )
    if (folder / NATIVE).is_file() and (folder / WHOLE).is_file():
        return (folder / WHOLE,)
    if not required:
        return ()
    if lost:
        raise ModelError(f"{folder.name}/{lost}; fetch it again")
    others = sorted(path.name for path in folder.iterdir() if path.suffix in TENSORS | UNREAD)
    found = ", ".join(others[:MOST_NAMED]) or "no weights at all"
    raise ModelError(
        f"{folder.name}: expected weights as {' or '.join(f'*{kind}' for kind in KINDS)} by the names that "
        f"transformers and diffusers give them ({', '.join(STEMS)}), found {found}; fetch it again: "
        'hf download OWNER/NAME --include "*.safetensors" "*.json" "*.txt" "*.model" --local-dir FOLDER'
    )


def unknown(folder: Path) -> ModelError:
    """Return what a folder is in which no layout is known, and the one command that mends it."""
    held = contents(folder)
    for suffix, what in STRANGE.items():
        if found := next((path for path in held if path.suffix == suffix), None):
            return ModelError(f"{folder.name}: {found.name} is {what}; fetch the weights as published: {FETCH}")
    inside = [path.parent for path in held if path.name in {"config.json", PIPELINE, NATIVE, TANGO_CONFIG, CHECKPOINT}]
    if inside:
        part = min(inside).relative_to(folder).as_posix()
        return ModelError(f"{folder.name}: a folder of models or parts; name one: earwitness models FOLDER/{part}")
    alone = [f"weights ({p.name}) without their configuration" for p in held if p.suffix in TENSORS | UNREAD]
    what = next(iter(alone), "no model's files")
    return ModelError(f"{folder.name}: expected config.json, {PIPELINE} or another layout of `earwitness models`, "
                      f"found {what}; fetch it whole: {FETCH}")  # fmt: skip


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


def loaded(folder: Path) -> set[Path]:
    """Return the files of weights that are read, of all that a model's folder holds."""
    held = [path for path in contents(folder) if path.suffix in TENSORS]
    places = {path.parent for path in held}
    if (folder / PIPELINE).is_file() and len(places) > 1:  # a file of another program may lie beside the parts
        places -= {folder}
    found: set[Path] = set()
    for place in places:
        here, chosen = {path for path in held if path.parent == place}, weights(place, required=False)
        twice = {path for path in here if path.suffix != ".safetensors" or path.name.startswith(STEMS)}
        # Files whose names are not the libraries' are a format of its own: what is no second copy counts.
        found |= {*chosen, *(here - twice)} if chosen else here
    return found


def revision(folder: Path, *parts: Path) -> str:
    """Return the SHA-256 that identifies a model: weights, configuration, tokenizer, and parts kept elsewhere.

    Of weights that are there twice, in two formats or two precisions, those count that are loaded.
    """
    texts = {path for path in contents(folder) if path.suffix in TEXTS and path.name != "training.json"}
    found = texts | loaded(folder)
    try:
        stats = sorted((p.relative_to(folder).as_posix(), p.stat()) for p in found)
        state = tuple((name, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for name, s in stats)
        own = _hash_files(folder, state)
    except OSError as error:
        raise ModelError(f"{folder.name}: cannot be read ({reason_of(error)}); is the folder complete?") from None
    outside = [revision(part) for part in parts if not part.is_relative_to(folder)]
    return sha256("".join([own, *outside])) if outside else own
