"""What a row of a manifest and a corpus's card hold: version 1, as data.

Both are published as JSON Schema (``book/_static/manifest.schema.json`` and ``card.schema.json``; a test compares):
``python -m earwitness.schema FOLDER`` writes them. ``Row`` is one line of the CSV; columns that it does not name are
allowed and not read. The book page *Methods: manifests* documents every column.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

SCHEMA_VERSION: Literal[1] = 1
Role = Literal["member", "nonmember", "suspect", "held_out"]
ROLES: tuple[str, ...] = get_args(Role)
DATE = "[0-9]{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12][0-9]|3[01]))?)?"  # a year, month or day as ISO 8601 writes it


class Row(BaseModel):
    """One recording. In the CSV every cell is text; an empty cell means that nothing is known."""

    model_config = ConfigDict(extra="allow", title="Earwitness manifest row, version 1")

    path: str = Field(
        min_length=1, description="file, relative to the audio folder; may not leave it, not by a link either"
    )
    track_id: str = Field("", description="unique name; the path, if there is no such column")
    artist: str = Field("", description="groups tracks for audits per artist and for comparisons within artist")
    work: str = Field("", description="groups takes of one work, and copies of one recording")
    split: str = Field("", description="part of a corpus; its card says what that means for a model")
    role: Role | None = Field(
        None, description="member, nonmember (known truth, for research), suspect, held_out (an audit)"
    )
    caption: str = Field("", description="the text the model is conditioned on")
    duration_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        None, description="length of the file in seconds"
    )
    sha256: str = Field("", pattern="^([0-9A-Fa-f]{64})?$", description="SHA-256 of the file's bytes, in hexadecimal")
    licence: str = Field("", description="licence of the recording, as its source states it")
    source: str = Field("", description="where the recording comes from: an address or a name")
    released: str = Field(
        "", pattern=f"^({DATE})?$", description="date of release or upload: 2019, 2019-05 or 2019-05-01"
    )


TEXT_COLUMNS = tuple(name for name in Row.model_fields if name not in {"role", "duration_s"})


class Card(BaseModel):
    """The card beside a manifest (``<name>.card.yml``): a corpus's origin, and whose members its splits are."""

    model_config = ConfigDict(extra="forbid", title="Earwitness corpus card, version 1")

    schema_version: Literal[1] = Field(SCHEMA_VERSION, description="version of this schema")
    title: str
    version: int | str = Field(description="version of the corpus")
    source: str = Field("", description="where the official files come from")
    licence: str
    citation: str
    membership: str = Field(description="how it is known which tracks a model was trained on")
    control: str = Field("", description="which models saw neither side, and for which comparison")
    audio: str = Field("", description="formats, sample rates and lengths of the recordings")
    known_biases: list[str] = []
    counts: dict[str, int] = {}
    splits: dict[str, str] = Field({}, description="split -> what it holds")
    generated_by: str = ""
    files: dict[str, str] = Field({}, description="official file that was read -> SHA-256 of its bytes")
    targets: dict[str, dict[Role, list[str]]] = Field({}, description="model -> role -> splits")
    sources: dict[str, str] = Field({}, description="model -> where it is said whose members these are")

    @model_validator(mode="after")
    def _names(self) -> Self:
        for model in self.sources:
            if model not in self.targets:
                raise ValueError(f"sources: {model!r} is no target; name it under targets too")
        for model, roles in self.targets.items():
            for split in (split for splits in roles.values() for split in splits if self.splits):
                if split not in self.splits:
                    raise ValueError(f"targets: {model!r} names a split {split!r} that splits does not describe")
        return self


@cache
def _column(name: str) -> TypeAdapter[list[Any]]:
    field = Row.model_fields[name]
    return TypeAdapter(list[Annotated[field.annotation, field]])  # type: ignore[name-defined]


def checked(name: str, cells: list[Any]) -> tuple[list[Any], int, str]:
    """Validate a whole column of a manifest against ``Row`` in one call.

    Returns
    -------
    list, int, str
        The values, and -1 and an empty string if all are good; otherwise the index of the first bad cell and why.
    """
    try:
        return _column(name).validate_python(cells), -1, ""
    except ValidationError as error:
        first = error.errors()[0]
        return cells, int(first["loc"][0]), str(first["msg"]).lower()


def schema_texts() -> dict[str, str]:
    """Return the published JSON Schemas: file name -> text."""
    models: dict[str, type[BaseModel]] = {"manifest.schema.json": Row, "card.schema.json": Card}
    return {
        name: json.dumps(model.model_json_schema(), indent=2, sort_keys=True) + "\n" for name, model in models.items()
    }


if __name__ == "__main__":
    for file_name, text in schema_texts().items():
        (Path(sys.argv[1]) / file_name).write_text(text, encoding="utf-8")
