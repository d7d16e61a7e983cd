"""Model cards: what each model was trained on, what "member" can mean for it, and what it needs to run.

The facts are in ``cards.yml``, each with its source; the book page *Methods: models* shows them.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from earwitness.errors import ModelError
from earwitness.models import describe, number_type
from earwitness.types import ModelInfo

ENCODER_GB = 1.0  # text encoder and codec, in round numbers
UNKNOWN = "not downloaded"  # in place of a revision: counted from the model's card


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
    format: Literal[
        "transformers", "audiocraft", "both", "diffusers", "stable-audio-tools", "tango", "figaro", "miditok"
    ]
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
        return "diffusion" if self.format in {"diffusers", "stable-audio-tools", "tango"} else "token"

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


def told_by(card: ModelCard, dtype: str = "float32") -> ModelInfo:
    """Return what a card alone tells of a model that hears audio."""
    return ModelInfo(
        card.name, card.family, UNKNOWN, card.sample_rate, card.channels, card.segment_seconds, dtype, "cpu", "real",
        conditions=("text", "null") if card.family == "diffusion" else (), calls=card.calls,
    )  # fmt: skip


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
    return told_by(card, number_type(dtype)), [
        f"{model} is not on this machine: counted from its card, nothing measured; --allow-download fetches"
    ]
