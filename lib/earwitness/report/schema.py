"""What an audit report holds: ``report.json``, version 1.

The JSON Schema is published as ``book/_static/report.schema.json`` (``python -m earwitness.report.schema FILE`` writes
it; a test compares the two). Everything in a report follows from the recordings, the weights and the settings, but for
the one line ``made``. Recordings are named by number; ``name`` is empty in a redacted report.

Book page: *Audit your own*.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION: Literal[1] = 1
Word = Literal["evidence", "no evidence", "not testable"]
Number = float | None


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Estimate(_Strict):
    """A number with its 95 % limits; null where it cannot be said."""

    value: Number
    low: Number
    high: Number


class Side(_Strict):
    """One side of the comparison, after exclusions."""

    tracks: int
    minutes: Number
    artists: int
    formats: dict[str, int] = Field(description="file format -> recordings")


class Testable(_Strict):
    """What could be said before any model was run."""

    answer: bool
    smallest_detectable_auc: Number
    units_needed: int = Field(description="recordings on each side that the rule asks for at least")
    blind_p: Number = Field(description="p-value of the blind features alone, before any model was run")
    cost: str
    reasons: list[str]
    mends: list[str] = Field(description="what would make it testable")


class Level(_Strict):
    """How often the whole rule says evidence when the same recordings are dealt to the two sides by lot."""

    deals: int
    evidence: int
    rejected: int = Field(description="deals in which the primary test alone rejects")
    rate: Estimate
    alpha: float


class Shift(_Strict):
    """How often the rule says evidence when nothing was trained on and the two sides differ in one cause."""

    cause: str
    hidden: bool = Field(description="built so that the blind features cannot show it")
    sd: float = Field(
        description="difference of the sides in standard deviations of the cause, at the worst dose tried"
    )
    evidence: Estimate
    noticed: float = Field(description="share of these audits that came out as not testable")


class Shifts(_Strict):
    """The curve of shifts, and where its material comes from."""

    material: Literal["own", "pocket"]
    n_suspect: int
    n_held_out: int
    audits: int
    gate_sd: Number = Field(description="smallest shift of one blind feature that the gate sees four times in five")
    rows: list[Shift]


class Control(_Strict):
    """The control model: the difference to it is what was tested."""

    name: str
    revision: str
    known_from: str


class Rank(_Strict):
    """The suspects' artist among reference artists."""

    p_value: float
    floor: float
    references: int
    tracks_each: int


class Result(_Strict):
    """One model."""

    model: str
    badge: str = Field(pattern="^(pocket|tiny|real)$")
    family: str
    revision: str = Field(description="SHA-256 over weights, configuration and tokenizer")
    verdict: Word
    reasons: list[str]
    notes: list[str]
    p_value: Number
    p_holm: Number
    p_direction: Number
    p_opposite: Number
    blind_p: Number
    blind_auc: Number
    blind_explained: Number = Field(description="share of the score's variance that blind features foresee")
    residual_p: Number
    unseen_sd: Number = Field(description="standard deviations of a hidden difference that would explain it")
    auc: Estimate
    auc_within: Estimate
    hedges_g: Estimate
    e_value: Number
    n_suspect: int
    n_held_out: int
    n_segments: int
    segments_per_unit: int
    smallest_detectable_auc: Number
    excluded: dict[str, int]
    labellings: int | None
    exact: bool | None
    design: str
    features: list[str]
    features_hash: str
    scores: str = Field(description="file of the report folder that holds the scores")
    control: Control | None = None
    control_scores: str = ""
    rank: Rank | None = None
    rank_scores: str = Field(default="", description="file of the report folder with the scores behind the rank")
    level: Level | None = None
    shifts: Shifts | None = None


class Recording(_Strict):
    """One recording that was compared."""

    number: str
    role: Literal["suspect", "held_out"]
    name: str
    sha256: str
    artist: str
    pair: str
    scores: list[Number] = Field(description="pre-oriented sum per model that was run, in the order of ``results``")


class Reference(_Strict):
    """One recording of a reference artist."""

    number: str
    artist: str
    name: str
    sha256: str


class Exclusion(_Strict):
    """One recording that was left out."""

    name: str
    role: str
    reason: str


class Picture(_Strict):
    """A recording shown: files of the report folder."""

    number: str
    label: Literal["strongest", "weakest"]
    picture: str
    audio: str = ""


class Frozen(_Strict):
    """Whether the plan was fixed before scoring."""

    checked: bool
    frozen_at: str = ""
    file_sha256: str = ""


class Repeat(_Strict):
    """What it takes to do it again."""

    command: str
    manifest_hash: str
    texts_hash: str
    seed: int
    seed_from: Literal["manifest", "given"]
    alpha: float
    permutations: int
    deals: int
    pairs: str
    code: str
    lock: str
    machine: str
    versions: dict[str, str]
    files: dict[str, str] = Field(description="file of the report folder -> SHA-256")


class Report(_Strict):
    """An audit, whole."""

    schema_version: Literal[1] = SCHEMA_VERSION
    made: str = Field(description="the one line that differs between two runs: date, run, time taken")
    redacted: bool
    verdict: Word
    answer: str
    suspects: Side
    held_out: Side
    testable: Testable
    results: list[Result] = Field(min_length=1)
    recordings: list[Recording]
    references: list[Reference]
    pictures: list[Picture]
    exclusions: list[Exclusion]
    duplicates: list[str]
    imbalances: list[str]
    frozen: Frozen
    repeat: Repeat


def schema_text() -> str:
    """Return the JSON Schema as it is published."""
    return json.dumps(Report.model_json_schema(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(schema_text(), encoding="utf-8")
