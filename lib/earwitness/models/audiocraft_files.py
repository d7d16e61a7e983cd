"""Audiocraft's exported checkpoints, read without trusting them.

``state_dict.bin`` (the language model) and ``compression_state_dict.bin`` (the codec) are pickles of tensors and text.
They are opened with ``weights_only`` and mapped, not read, so that nothing in them is executed and nothing large is
allocated. Their configuration ``xp.cfg`` is plain YAML to us: of its many sections only those that shape the network
are taken, a reference to another value of the same file (``${sample_rate}``) is replaced by that value, and one that
would ask anything else (``${oc.env:HOME}``) is refused, as is whatever else looks for something outside the file.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from earwitness.errors import ModelError
from earwitness.models import schema
from earwitness.models.files import CHECKPOINT, CODEC, HUB_NAME
from earwitness.models.loading import dense, first_line, unpickled

if TYPE_CHECKING:
    from torch import Tensor

SECTIONS = {  # dotted names: only that value of the section
    CHECKPOINT: [
        *("lm_model", "transformer_lm", "codebooks_pattern", "fuser", "conditioners", "interleave_stereo_codebooks"),
        *("compression_model_n_q", "dataset.segment_duration", "masking.span_len"),
    ],
    CODEC: ["compression_model", "encodec", "seanet", "rvq"],
}
MAX_CONFIG = 1_000_000  # characters
MAX_DELAY = 64  # steps
TEXT_ENCODER = re.compile(r"(google/flan-)?t5-(small|base|large|3b|11b|xl|xxl)")
SPACY = "en_core_web_sm"
_REFERENCE = re.compile(r"\$\{([\w.]+)\}")


class _NoAliases(yaml.SafeLoader):
    """Plain YAML without anchors, with which a few lines can describe more than a machine holds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("aliases are not read")
        return super().compose_node(parent, index)


def read(folder: Path, file: str) -> dict[str, Any]:
    """Map a checkpoint's content: tensors and text, nothing else.

    Raises
    ------
    ModelError
        Missing or damaged files, and pickles that hold more than tensors and text.
    """
    if not (folder / file).is_file():
        raise ModelError(
            f"{folder.name}: expected {file}, found none; audiocraft's format needs {CHECKPOINT} and {CODEC}"
        )
    content = unpickled(folder / file, "export the checkpoint again with audiocraft.utils.export")
    if not isinstance(content, dict) or not content.keys() & {"best_state", "pretrained"}:
        raise ModelError(
            f"{folder.name}/{file}: expected audiocraft's export (best_state, xp.cfg), found something else"
        )
    found: dict[str, Any] = content
    return found


def tensors(folder: Path, file: str, content: dict[str, Any]) -> dict[str, Tensor]:
    """Return the mapped tensors of a checkpoint, each backed by data that the file really holds.

    Raises
    ------
    ModelError
        Entries that are no dense tensors, or that claim more data than there is.
    """
    state = dense(content.get("best_state"), folder / file, "best_state to hold dense tensors alone")
    # Attention saved by torch's own module; audiocraft's own holds the same tensors.
    return {str(name).replace(".mha.", "."): tensor for name, tensor in state.items()}


def config_of(folder: Path, file: str, content: dict[str, Any]) -> dict[str, Any]:
    """Return the sections of a checkpoint's configuration that shape its network, as plain values.

    Raises
    ------
    ModelError
        No configuration, one that is not YAML, or references that are not plain values of the same file.
    """
    where, text = f"{folder.name}/{file}", content.get("xp.cfg")
    if not isinstance(text, str) or len(text) > MAX_CONFIG:
        raise ModelError(
            f"{where}: expected its configuration xp.cfg as text, found {type(text).__name__}; export it again"
        )
    try:
        whole = yaml.load(text, _NoAliases)  # noqa: S506 (a SafeLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ModelError(f"{where}: xp.cfg is not plain YAML ({str(error).splitlines()[0][:120]})") from None
    taken: dict[str, Any] = {}
    for name in SECTIONS[file]:
        section, _, key = name.partition(".")
        if not isinstance(whole, dict) or not isinstance(whole.get(section), dict if key else object):
            continue
        value = _plain(whole[section].get(key) if key else whole.get(section), whole, where)
        taken[section] = {key: value} if key else value
    return taken


def _plain(value: Any, whole: dict[str, Any], where: str) -> Any:
    """Replace references by the values they name; refuse every other kind."""
    if isinstance(value, dict):
        return {str(k): _plain(v, whole, where) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v, whole, where) for v in value]
    for _ in range(8):  # a reference to a reference, but not round in circles
        if not (isinstance(value, str) and "${" in value):
            return value
        match, target = _REFERENCE.fullmatch(value), whole
        for part in match[1].split(".") if match else []:
            target = target.get(part) if isinstance(target, dict) else None  # type: ignore[assignment]
        if match is None or target is None or isinstance(target, dict | list):
            raise ModelError(
                f"{where}: the configuration holds {value!r}; only references to plain values of the same file are "
                "followed, nothing is looked up elsewhere: write the value itself"
            )
        value = target
    raise ModelError(f"{where}: the configuration refers to itself in {value!r}; write the value itself")


def read_config(folder: Path) -> dict[str, Any]:
    """Return the checked configuration of both files; ``codec`` is a configuration or a hub name.

    Raises
    ------
    ModelError
        As ``read``; also values and conditions that cannot be scored.
    """
    config = config_of(folder, CHECKPOINT, read(folder, CHECKPOINT))
    codec = read(folder, CODEC)
    config["codec"] = codec["pretrained"] if "pretrained" in codec else config_of(folder, CODEC, codec)
    config["conditioners"] = {k: v for k, v in (config.get("conditioners") or {}).items() if k != "args"}
    schema.check(config, schema.FAMILIES["audiocraft"][schema.OWN], f"{folder.name}/{schema.OWN}")
    try:
        refused = _refused(config)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise ModelError(
            f"{folder.name}: xp.cfg is not a MusicGen's, AudioGen's or MAGNeT's ({first_line(error)})"
        ) from None
    if refused:
        raise ModelError(f"{folder.name}: xp.cfg asks for {refused}; this cannot be scored here")
    return config


def _refused(config: dict[str, Any]) -> str:
    """Name the first thing that this version cannot score, or that would look for something outside the folder."""
    network, pattern, codec = config["transformer_lm"], config["codebooks_pattern"], config["codec"]
    if not 0 < float(config["dataset"]["segment_duration"]) < 3600:
        return f"a window of {config['dataset']['segment_duration']} s"
    if network["num_heads"] < 1 or network["dim"] % network["num_heads"]:
        return f"{network['num_heads']} heads over {network['dim']} values"
    modeling = pattern["modeling"] or network["q_modeling"]
    if modeling not in {"delay", "parallel"}:
        return f"the codebook pattern {modeling!r} (known: delay, parallel)"
    given = pattern.get(modeling) or {}
    if max([given.get("empty_initial") or 0, *(given.get("delays") or [])]) > MAX_DELAY:
        return f"delays beyond {MAX_DELAY} steps"
    if isinstance(codec, str) and not HUB_NAME.fullmatch(codec):
        return f"the codec {codec!r}, which is no hub name of an EnCodec"
    if isinstance(codec, dict) and (codec["compression_model"], codec["encodec"]["quantizer"]) != ("encodec", "rvq"):
        return "a codec other than EnCodec"
    for name, condition in config["conditioners"].items():
        kind = condition["model"]
        if kind not in {"t5", "lut"}:
            return f"the condition {name!r} ({kind}); MusicGen Melody is read in transformers' format"
        if kind == "t5" and not TEXT_ENCODER.fullmatch(condition[kind]["name"]):
            return f"the text encoder {condition[kind]['name']!r}, which is no T5 of the hub"
        words = condition[kind].get("normalize_text") or condition[kind].get("tokenizer", "noop") != "noop"
        if words and find_spec(SPACY) is None:  # audiocraft would download it
            return f"captions cut into words by spaCy's {SPACY}, which is not installed"
    return ""
