"""Train the pocket models again from nothing: corpus, codec, twins, saving.

``python -m earwitness_build train`` runs `train_all`. One thread per process and explicit seeds: the same machine
gives the same weights. Explained on the book page *The pocket world*.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version as library_version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from earwitness.errors import ModelError, nearest
from earwitness.pocket import corpus
from earwitness_build.training.codec import CodecRecipe, fit_codes, outside_audio, train_decoder
from earwitness_build.training.token_lm import (
    LmRecipe,
    build_model,
    build_tokenizer,
    encode_tracks,
    save_model,
    train_lm,
)

if TYPE_CHECKING:
    from transformers import EncodecModel

WEIGHTS = Path(str(files("earwitness"))) / "pocket" / "weights"
LIBRARIES = ("torch", "transformers", "diffusers", "numpy", "scipy", "scikit-learn", "soundfile", "sentencepiece")


class _Named(Protocol):
    @property
    def name(self) -> str: ...


Named = TypeVar("Named", bound=_Named)


@dataclass(frozen=True)
class Target:
    """A model to train: its name, the splits it sees, and how.

    ``tracks_per_artist`` caps their tracks (0: all). ``repeats``: how many times the first, second, ... of these tracks
    stand in the training set, of every second artist; all others once.
    """

    name: str
    splits: tuple[str, ...]
    recipe: LmRecipe
    tracks_per_artist: int = 0
    repeats: tuple[int, ...] = ()

    def entries(self) -> list[corpus.PlannedTrack]:
        """The tracks it is trained on, in corpus order."""
        chosen: list[corpus.PlannedTrack] = []
        taken: dict[str, int] = {}
        for e in corpus.plan():
            count = taken.get(e.artist.name, 0)
            if e.split in self.splits and (not self.tracks_per_artist or count < self.tracks_per_artist):
                taken[e.artist.name] = count + 1
                chosen.append(e)
        return chosen

    def copies(self) -> list[int]:
        """How many times each of these tracks stands in the training set."""
        names, counts = [e.artist.name for e in self.entries()], []
        for i, name in enumerate(names):
            often = self.repeats if [*dict.fromkeys(names)].index(name) % 2 == 0 else ()
            counts.append(dict(enumerate(often)).get(names[:i].count(name), 1))
        return counts


TARGETS = (
    Target("musicgen-a", ("a",), LmRecipe(seed=1)),
    Target("musicgen-b", ("b",), LmRecipe(seed=2)),
    # The ladder around twin a: fewer or more tracks per artist, as many optimiser steps. The sets are nested.
    Target("musicgen-5", ("a",), LmRecipe(seed=1, epochs=135), tracks_per_artist=5),
    Target("musicgen-10", ("a",), LmRecipe(seed=1, epochs=67.5), tracks_per_artist=10),
    Target("musicgen-40", ("a", "b"), LmRecipe(seed=1, epochs=18)),
    # What memory looks like: of half of a's artists one track stands there 64 times, one 16, one 4; as many steps.
    Target("musicgen-repeats", ("a",), LmRecipe(seed=1, epochs=540 / 46), repeats=(64, 16, 4)),
)
CODEC = CodecRecipe()


def pick(models: Sequence[Named], only: str | None) -> list[Named]:
    """Return the models to train: all, or the one called ``only``; raise ModelError where none is."""
    names = [m.name for m in models]
    if only is not None and only not in names:
        raise ModelError(f"no pocket model {only!r}; there are {', '.join(names)}{nearest(only, names)}")
    return [m for m in models if only in (None, m.name)]


def described(model: Any, splits: Sequence[str], entries: Sequence[corpus.PlannedTrack]) -> dict[str, Any]:
    """Return what every ``training.json`` says: the model's name and recipe, its tracks, the libraries."""
    return {
        "name": model.name,
        "splits": list(splits),
        "tracks": len(entries),
        "artists": len({e.artist.name for e in entries}),
        "corpus_version": corpus.VERSION,
        "optimiser": "AdamW, one cycle",
        "recipe": asdict(model.recipe),
        "libraries": {name: library_version(name) for name in LIBRARIES},
    }


def placeless(folder: Path) -> None:
    """Take out of configurations the folder that a part was loaded from: it differs from one training to the next."""
    for path in folder.rglob("config.json"):
        path.write_text(re.sub(r' *"_name_or_path": "[^"]*",\n', "", path.read_text()))


def train_all(only: str | None = None) -> list[Path]:
    """Train the shipped models and save them as ``weights/<name>``.

    Parameters
    ----------
    only : str, optional
        Train this model alone, around the codec that twin a's folder already holds.

    Raises
    ------
    ModelError
        ``only`` names no model.
    """
    from joblib import Parallel, cpu_count, delayed

    chosen = pick(TARGETS, only)
    root = corpus.ensure_corpus()
    with tempfile.TemporaryDirectory() as scratch:
        front, whole = Path(scratch) / "front", Path(scratch) / "codec"
        jobs = []
        if only is None:
            heard = _fit_front(front)
            jobs.append(delayed(_finish_codec)(front, whole, *heard))
        else:
            _shipped_codec(WEIGHTS / TARGETS[0].name).save_pretrained(front)
        jobs += [delayed(train_target)(t, front, root, Path(scratch) / t.name) for t in chosen]
        Parallel(n_jobs=min(len(jobs), cpu_count()))(jobs)  # one thread each
        return [_assemble(Path(scratch) / t.name, whole if only is None else front, WEIGHTS / t.name) for t in chosen]


def _load_codec(folder: Path) -> EncodecModel:
    import torch
    from transformers import EncodecModel
    from transformers.utils import logging

    torch.set_num_threads(1)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    return EncodecModel.from_pretrained(folder, local_files_only=True).eval()


def _load_musicgen(folder: Path) -> Any:
    import torch
    from transformers import MusicgenForConditionalGeneration

    return MusicgenForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, local_files_only=True)


def _shipped_codec(folder: Path) -> EncodecModel:
    codec: EncodecModel = _load_musicgen(folder).audio_encoder
    return codec


def _fit_front(folder: Path) -> tuple[Any, Any]:
    """Encoder and codebooks: all that the token models need. Returns what the decoder is trained on."""
    import torch

    torch.set_num_threads(1)
    audio = outside_audio(CODEC)
    codec, heard = fit_codes(CODEC, audio)
    codec.save_pretrained(folder)
    return heard, audio


def _finish_codec(front: Path, folder: Path, heard: Any, audio: Any) -> None:
    codec = _load_codec(front)
    train_decoder(CODEC, codec, heard, audio)
    codec.save_pretrained(folder)


def train_target(target: Target, codec_folder: Path, root: Path, folder: Path) -> None:
    """Train one token model around a codec and save it as a MusicGen folder.

    Parameters
    ----------
    target : Target
        What to train on what.
    codec_folder : Path
        A saved EnCodec whose encoder and codebooks are final.
    root : Path
        The audio root of the corpus.
    folder : Path
        Where to save.
    """
    start = time.perf_counter()
    codec = _load_codec(codec_folder)
    entries, copies = target.entries(), target.copies()
    codes = encode_tracks(codec, [root / e.path for e in entries], target.recipe.shifts)
    tokenizer = build_tokenizer(folder)
    model = build_model(target.recipe, codec, len(tokenizer))
    every = np.repeat(np.arange(len(entries)), copies)
    steps = train_lm(model, tokenizer, codes[every], [entries[i].caption for i in every], target.recipe)
    record = described(target, target.splits, entries) | {"steps": steps, "codec_recipe": asdict(CODEC)}
    if target.repeats:
        record["repeats"] = {e.track_id: n for e, n in zip(entries, copies, strict=True) if n > 1}
    save_model(model, tokenizer, folder, record | {"seconds": round(time.perf_counter() - start, 1)})


def _assemble(trained: Path, codec_folder: Path, folder: Path) -> Path:
    """Put the finished codec into a trained model and move it to its place."""
    import json

    from transformers import AutoTokenizer

    model = _load_musicgen(trained)
    model.audio_encoder.load_state_dict(_load_codec(codec_folder).state_dict())
    record = json.loads((trained / "training.json").read_text())
    save_model(model, AutoTokenizer.from_pretrained(trained), folder, record)
    placeless(folder)
    return folder
