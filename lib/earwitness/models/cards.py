"""Model cards: what each model was trained on, what "member" can mean for it, and what it needs to run.

The facts are in ``cards.yml``, each with its source. ``python -m earwitness.models.cards PAGE`` writes them into the
book page *Methods: models*, between the two marks that the page holds.
"""

from __future__ import annotations

import re
import sys
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from earwitness.errors import ModelError
from earwitness.models import describe, number_type
from earwitness.types import ModelInfo

COMMITS = (
    "*Commit* is the hub's commit that holds the weights, as far as its history could be read (`hf download NAME "
    "--revision COMMIT`); *unknown* means that nobody here has seen it. Whatever was fetched, scores and reports are "
    "keyed by the hash of the files: keep it, and the commit with it."
)
ENCODER_GB = 1.0  # text encoder and codec, in round numbers
UNKNOWN = "not downloaded"  # in place of a revision: counted from the model's card
BEGIN, END = "% The cards below are written by python -m earwitness.models.cards", "% End of the cards"


class _StrictCard(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Corpus(_StrictCard):
    """What some models were trained on, and what follows for members and non-members."""

    title: str
    training: str
    member: str
    nonmember: str
    traps: str
    sources: tuple[str, ...]


class ModelCard(_StrictCard):
    """One model.

    ``format`` is the on-disk format that is read, ``encoder`` the text encoder that goes with it, ``revision`` the
    hub's commit that holds the weights, as far as it could be read, or ``unknown``.
    A symbolic model has neither sample rate, channels nor seconds: they are 0. ``calls`` is as in ``ModelInfo``.
    """

    name: str
    format: Literal["transformers", "audiocraft", "both", "diffusers", "tango", "figaro", "miditok"]
    size: str
    sample_rate: NonNegativeInt
    channels: Literal[0, 1, 2]
    segment_seconds: NonNegativeFloat
    calls: PositiveInt = 1
    corpus: str
    null_condition: str
    licence: str
    encoder: str
    revision: str = "unknown"
    sources: tuple[str, ...]

    @property
    def family(self) -> Literal["token", "diffusion"]:
        """What kind of signals the model gives."""
        return "diffusion" if self.format in {"diffusers", "tango"} else "token"

    @property
    def parameters(self) -> float:
        """The number in ``size``: 1.5e9 for "1.5 B"; 0 where it names none."""
        found = re.search(r"([\d.]+) ?([MB])", self.size)
        return float(found[1]) * {"M": 1e6, "B": 1e9}[found[2]] if found else 0.0

    @property
    def download_gb(self) -> float:
        """What fetching the model would take, in GB: float32 weights, text encoder and codec."""
        return self.parameters * 4 / 1e9 + ENCODER_GB


class ModelCards(_StrictCard):
    """All of ``cards.yml``; every name that is used must be defined, and every one that is defined must be used."""

    sources: dict[str, str]
    corpora: dict[str, Corpus]
    nulls: dict[str, str]
    licences: dict[str, str]
    models: tuple[ModelCard, ...]

    @model_validator(mode="after")
    def _names(self) -> ModelCards:
        names = [card.name for card in self.models]
        if len(set(names)) < len(names):
            raise ValueError("a model has two cards")
        held: list[ModelCard | Corpus] = [*self.models, *self.corpora.values()]
        used = {
            "corpora": {card.corpus for card in self.models},
            "nulls": {card.null_condition for card in self.models},
            "licences": {card.licence for card in self.models},
            "sources": {name for entry in held for name in entry.sources},
        }
        for section, wanted in used.items():
            if wanted != (defined := set(getattr(self, section))):
                raise ValueError(f"{section}: used and defined names differ in {sorted(wanted ^ defined)}")
        return self


@cache
def read_cards() -> ModelCards:
    """Return the validated cards."""
    text = (files("earwitness") / "models" / "cards.yml").read_text()
    fastest = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return ModelCards.model_validate(yaml.load(text, fastest))  # noqa: S506 (both are safe)


def card_of(model: str) -> ModelCard | None:
    """Return a model's card, or None where it has none."""
    return next((card for card in read_cards().models if card.name == model), None)


def identity(model: str, *, allow_download: bool, dtype: str = "float32") -> tuple[ModelInfo, list[str]]:
    """Return a model's description, from its card alone where its files are not here and may not be fetched."""
    try:
        here = describe(model, dtype=dtype, allow_download=allow_download)
    except ModelError:
        card = card_of(model)
        if card is None or not card.channels:  # how a symbolic model reads is known from its files alone
            raise
    else:
        return here, [here.remark] if here.remark else []
    info = ModelInfo(
        model, card.family, UNKNOWN, card.sample_rate, card.channels, card.segment_seconds, number_type(dtype), "cpu",
        "real", conditions=("text", "null") if card.family == "diffusion" else (), calls=card.calls,
    )  # fmt: skip
    return info, [f"{model} is not on this machine: counted from its card, nothing measured; --allow-download fetches"]


def markdown() -> str:
    """Return the cards as a table of models and a list of corpora."""
    cards = read_cards()
    columns = ["model", "format", "size", "audio", "segment", "null condition", "text encoder", "weights' licence"]
    columns += ["commit", "trained on", "sources"]
    lines = [f"| {' | '.join(columns)} |", "|" + " --- |" * len(columns)]
    for card in cards.models:
        channels = ("", "mono", "stereo")[card.channels]
        audio = f"{card.sample_rate / 1000:g} kHz {channels}" if channels else "notes"
        cells = [
            f"`{card.name}`",
            card.format,
            card.size,
            audio,
            f"{card.segment_seconds:g} s" if card.channels else "a window",
            cards.nulls[card.null_condition],
        ]
        cells += [card.encoder, card.licence, card.revision, cards.corpora[card.corpus].title, ", ".join(card.sources)]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", COMMITS]
    lines += ["", "### What the licences say about an audit", ""]
    lines += [f"- *{name}*: {what}" for name, what in cards.licences.items()]
    for corpus in cards.corpora.values():
        lines += ["", f"### {corpus.title}", "", f"**Training data.** {corpus.training}", ""]
        lines += [f"**Member.** {corpus.member}", "", f"**Non-member.** {corpus.nonmember}", ""]
        lines += [f"**Traps.** {corpus.traps} *Sources: {', '.join(corpus.sources)}.*"]
    lines += ["", "Sources: " + "; ".join(f"*{name}*, {what}" for name, what in cards.sources.items()) + "."]
    return "\n".join(lines)


def written(page: str) -> str:
    """Return a page's text with the cards between its marks brought up to date."""
    head, _, rest = page.partition(f"{BEGIN}\n")
    _, mark, tail = rest.partition(END)
    if not mark:
        raise ValueError(f"expected the lines {BEGIN!r} and {END!r} in the page")
    return f"{head}{BEGIN}\n\n{markdown()}\n\n{END}{tail}"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        Path(name).write_text(written(Path(name).read_text(encoding="utf-8")), encoding="utf-8")
