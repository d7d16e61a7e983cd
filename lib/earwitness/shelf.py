"""What can be loaded, and what a folder is: family, layout, what it lacks, its licence. No network is built.

``earwitness models`` prints it; the page *Methods: models* says more of each layout.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from earwitness.audit.cost import CPU_GFLOPS, GPU_GFLOPS, evaluations, hours
from earwitness.errors import ModelError
from earwitness.models import FAMILIES, describe, files
from earwitness.models.cards import ModelCard, read_cards
from earwitness.models.loading import PIPELINES
from earwitness.models.schema import ADAPTERS
from earwitness.types import ModelInfo
from earwitness.util import span

LAYOUTS = (  # family, what its folders hold
    ("MusicGen, MusicGen Melody", "config.json, weights and tokenizer as transformers saves them"),
    ("MusicGen, AudioGen, MAGNeT", "state_dict.bin and compression_state_dict.bin as audiocraft exports them"),
    ("AudioLDM, AudioLDM 2, MusicLDM", "model_index.json and a folder a part as diffusers saves them"),
    ("Stable Audio Open, Stable Audio 3, ACE-Step 1.5", "model_index.json and a folder a part as diffusers saves them"),
    (
        "Stable Audio Open Small",
        "model_config.json and model.safetensors, or model.ckpt, as stable-audio-tools saves them",
    ),
    ("Tango, Tango 2", "main_config.json and pytorch_model_*.bin as their authors publish them"),
    ("FIGARO", "one *.ckpt as Lightning saves it, its VQ-VAE's beside it"),
    ("causal models over MIDI tokens", "config.json, weights as transformers saves them, miditok's tokenizer.json"),
)
LICENCE = re.compile(r"^licen[cs]e(?:_name)?: *['\"]?([\w .-]{2,60}?)['\"]? *$", re.MULTILINE)
README, MOST_README = "README.md", 20_000  # characters that are looked at


@dataclass(frozen=True)
class Standing:
    """What a folder is.

    Attributes
    ----------
    name, layout : str
        The model's name, and the layout of its folder in words.
    lacks : str
        Why it cannot be loaded and what mends it; empty if nothing is known to be missing.
    gigabytes : float
        Size of the weights that would be read.
    licence : str
        As the folder's own page says, else as the card does.
    info : ModelInfo or None
        Its description, if it has one.
    card : ModelCard or None
        Its card, found by its name.
    """

    name: str
    layout: str
    lacks: str
    gigabytes: float
    licence: str
    info: ModelInfo | None
    card: ModelCard | None


def survey(name: str) -> Standing:
    """Say what a pocket name, a folder or a hub name in the local cache is; nothing is loaded or fetched.

    Raises
    ------
    ModelError
        As ``locate``: there is no such model here.
    """
    folder = files.locate(name)
    info, lacks, size = None, "", 0.0
    try:
        info = describe(name)
    except ModelError as error:
        lacks = str(error)
    try:
        size = sum(path.stat().st_size for path in files.loaded(folder)) / 1e9
    except ModelError as error:  # an index that leads out, folders that go round
        lacks = lacks or str(error)
    last = (name if not Path(name).expanduser().is_dir() else folder.resolve().name).rpartition("/")[2]
    card = next((c for c in read_cards().models if name == c.name or c.name.rpartition("/")[2] == last), None)
    return Standing(name, layout_of(folder), lacks, size, licence_of(folder, card), info, card)


def lines(found: Standing) -> dict[str, str]:
    """Return what is known of a folder in words; the cost is that of an audit, from the model's card."""
    said = {"model": found.name, "layout": found.layout, "weights": f"{found.gigabytes:.2f} GB"}
    said |= {"loads": f"no: {found.lacks}" if found.lacks else "yes, as far as names and sizes tell"}
    said |= {"licence": found.licence}
    if (info := found.info) is None:
        return said
    window = f"{info.segment_seconds:g} s, {info.channels} channel(s) at {info.sample_rate} Hz"
    calls = evaluations("audit", info)[1]
    said |= {"window": window if info.scheme is None else "of notes", "network calls a window": str(calls)}
    speeds = {"two cores": CPU_GFLOPS, "a GPU": GPU_GFLOPS} if found.card and info.scheme is None else {}
    each = {on: hours(found.card.name, calls, 240.0 * 40, speed) for on, speed in speeds.items() if found.card}
    told = [f"about {span(time * 3600)} on {on}" for on, time in each.items() if time is not None]
    said |= {"40 recordings of four minutes": ", ".join(told) or "unknown: no card tells the model's size; see plan"}
    return said | ({"note": info.remark} if info.remark else {})


def layout_of(folder: Path) -> str:
    """Return a folder's layout in words, by the files that tell layouts apart."""
    names = {path.name for path in files.contents(folder)}
    if names & ADAPTERS.keys():
        return "an adapter (LoRA), which is no model"
    if (folder / files.PIPELINE).is_file():
        kind = str(files.read_json(folder / files.PIPELINE).get("_class_name"))
        return f"a pipeline of diffusers ({kind[:60]}{'' if kind in PIPELINES else ', of no family that is read'})"
    if (folder / files.TANGO_CONFIG).is_file():
        return "Tango's own"
    if (folder / files.CHECKPOINT).is_file() and not files.weights(folder, required=False):
        return "audiocraft's export"
    if any(folder.glob("*.ckpt")) and files.NATIVE not in names:
        return "a checkpoint of Lightning's"
    if (folder / "config.json").is_file():
        kind = str(files.read_json(folder / "config.json").get("model_type"))
        return f"transformers ({kind[:60]}{'' if kind in FAMILIES else ', of no family that is read'})"
    return "stable-audio-tools' own" if files.NATIVE in names else "none that is known"


def licence_of(folder: Path, card: ModelCard | None) -> str:
    """Return the licence that a folder's own page states, else its card's."""
    try:
        page = (folder / README).read_text(encoding="utf-8", errors="replace")[:MOST_README]
    except OSError:
        page = ""
    stated = dict.fromkeys(LICENCE.findall(page.partition("---")[2].partition("\n---")[0]))
    if stated:
        return f"{' / '.join(stated)}, by its {README}"
    return f"{card.licence}, by its card" if card else "not stated here; read it where the files are from"
