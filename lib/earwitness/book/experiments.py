"""The registry of experiments: ``notebooks/experiments.yml``, *template + parameters -> page*.

One YAML list says which pages exist, what they are made from and what they need. Unknown keys, unknown templates and
unknown parameters are errors that name the nearest known one. The book page *Audit your own* shows how to add an entry.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from earwitness.errors import InputError, nearest
from earwitness.util import project_root, sha256

Tier = Literal["book", "full", "real"]
Badge = Literal["pocket", "tiny", "real", "none"]
Parameter = bool | int | float | str | list[Any] | None
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ScoreRun(_Entry):
    """One scoring run that a page needs: a model over a manifest, cut into ``shards`` jobs."""

    model: str
    manifest: str
    splits: tuple[str, ...] = ()
    attacks: str = "all"
    shards: Annotated[int, Field(ge=1, le=10_000)] = 1

    @property
    def name(self) -> str:
        """A file name for the run: readable, and different for different runs."""
        words = "-".join([self.model, Path(self.manifest).stem, *self.splits])
        digest = sha256(self.model_dump_json(exclude={"shards"}))[:8]
        return f"{re.sub(r'[^A-Za-z0-9]+', '-', words).strip('-')[:100]}-{digest}"

    @property
    def done_files(self) -> list[str]:
        """What each shard writes when it is finished, relative to the results folder."""
        return [f"scored/{self.name}/{i}-of-{self.shards}.json" for i in range(1, self.shards + 1)]


class Page(_Entry):
    """One experiment: a template with its parameters, and what must exist before it runs."""

    id: Name
    template: Name
    title: str
    part: str
    badge: Badge
    tier: Tier = "book"
    parameters: dict[str, Parameter] = {}
    scores: tuple[ScoreRun, ...] = ()
    needs: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    time_limit_s: Annotated[float, Field(gt=0)] = 600.0

    @property
    def template_path(self) -> Path:
        """The notebook that this page is made from."""
        return project_root() / "notebooks" / f"{self.template}.ipynb"

    @property
    def all_parameters(self) -> dict[str, Parameter]:
        """The page's parameters; its id is always one of them, as ``experiment``."""
        return {"experiment": self.id, **self.parameters}

    @property
    def names(self) -> list[str]:
        """Every text among the values that the page runs with, the template's defaults included; each once."""
        values = {**template_parameters(self.template_path), **self.all_parameters}.values()
        lists = [value if isinstance(value, list) else [value] for value in values]
        return list(dict.fromkeys(text for texts in lists for text in texts if isinstance(text, str) and text))

    @property
    def files(self) -> list[str]:
        """Files of the project, relative to it, that the page reads because ``reads`` or a value names them."""
        root = project_root()
        read = sorted(path for pattern in self.reads for path in root.glob(pattern) if path.is_file())
        short = [name for name in self.names if len(name) < 256]  # longer is no path, and cannot be asked for
        named = [name for name in short if not Path(name).is_absolute() and (root / name).is_file()]
        return list(dict.fromkeys([*(str(path.relative_to(root)) for path in read), *named]))


class Registry(_Entry):
    """All experiments, in the order of the table of contents."""

    pages: tuple[Page, ...]

    @model_validator(mode="before")
    @classmethod
    def _all_others(cls, raw: Any) -> Any:
        """Spell out ``needs: all``: every other page that is built along with this one."""
        pages = raw.get("pages") if isinstance(raw, dict) else None
        if not isinstance(pages, list) or not all(isinstance(page, dict) for page in pages):
            return raw

        def others(page: dict[str, Any]) -> list[Any]:
            tier = page.get("tier", "book")
            along = [o for o in pages if o.get("tier", "book") in {"book", tier}]
            return [o.get("id") for o in along if o.get("needs") != "all"]

        spelled = [page | {"needs": others(page)} if page.get("needs") == "all" else page for page in pages]
        return raw | {"pages": spelled}

    @model_validator(mode="after")
    def _consistent(self) -> Registry:
        repeated = [name for name, times in Counter(page.id for page in self.pages).items() if times > 1]
        if repeated:
            raise ValueError(f"page id {repeated[0]!r} is used twice; page ids name files, so give each its own")
        known = {page.id for page in self.pages}
        for page in self.pages:
            for other in set(page.needs) - known:
                raise ValueError(f"page {page.id!r} needs an unknown page {other!r}{nearest(other, known)}")
        self.in_order()
        return self

    def page(self, page_id: str) -> Page:
        """Return one page, or raise InputError naming the nearest id."""
        for page in self.pages:
            if page.id == page_id:
                return page
        ids = [page.id for page in self.pages]
        raise InputError(f"no page {page_id!r} in experiments.yml; it has {', '.join(ids)}{nearest(page_id, ids)}")

    def in_order(self) -> list[Page]:
        """Return the pages so that each follows those it needs; a circle is refused."""
        done: dict[str, Page] = {}
        waiting = list(self.pages)
        while waiting:
            ready = [page for page in waiting if set(page.needs) <= set(done)]
            if not ready:
                raise ValueError(f"pages need each other in a circle: {', '.join(p.id for p in waiting)}")
            done.update({page.id: page for page in ready})
            waiting = [page for page in waiting if page.id not in done]
        return list(done.values())

    def tier(self, tier: Tier) -> list[Page]:
        """Return the pages of a tier; ``full`` holds those of ``book`` too, ``real`` only its own."""
        return [page for page in self.pages if page.tier == tier or (tier, page.tier) == ("full", "book")]


def load_registry(path: Path | None = None) -> Registry:
    """Read and validate ``notebooks/experiments.yml``; raise InputError naming the page and key that is wrong."""
    path = path or project_root() / "notebooks" / "experiments.yml"
    if not path.is_file():
        raise InputError(f"{path.name}: expected the registry of experiments, found no such file; run from the project")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Registry.model_validate(raw)
    except yaml.YAMLError as error:
        raise InputError(f"{path.name}: not YAML ({' '.join(str(error).split())})") from None
    except ValidationError as error:
        first = error.errors()[0]
        where, key = list(first["loc"]), str(first["loc"][-1]) if first["loc"] else ""
        if len(where) > 1 and where[0] == "pages" and isinstance(raw["pages"][where[1]], dict):
            where[1] = raw["pages"][where[1]].get("id", where[1])
        fields = [*Page.model_fields, *ScoreRun.model_fields, *Registry.model_fields]
        hint = nearest(key, fields) if first["type"] == "extra_forbidden" else ""
        message = "unknown key" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
        raise InputError(f"{path.name}: {'.'.join(map(str, where)) or 'registry'}: {message}{hint}") from None


def template_parameters(template: Path) -> dict[str, Any]:
    """Return what a template's one ``parameters`` cell assigns: names, and values where they are literals, else None.

    Raises
    ------
    InputError
        If the template is missing, or has no or more than one cell tagged ``parameters``.
    """
    import nbformat

    if not template.is_file():
        known = [path.stem for path in template.parent.glob("*.ipynb")]
        raise InputError(
            f"no template {template.name}{nearest(template.stem, known)}; found {', '.join(sorted(known))}"
        )
    cells = [c for c in nbformat.read(template, as_version=4).cells if "parameters" in c.metadata.get("tags", [])]
    if len(cells) != 1:
        raise InputError(
            f"{template.name}: expected exactly one cell tagged 'parameters', found {len(cells) or 'none'}; "
            "tag the cell that assigns the defaults"
        )
    values: dict[str, Any] = {}
    for node in ast.parse(cells[0].source).body:
        if not isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            continue
        try:
            value = ast.literal_eval(node.value) if node.value else None
        except ValueError:
            value = None
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            if isinstance(target, ast.Name):
                more = isinstance(node, ast.AugAssign) and isinstance(value, list)
                values[target.id] = values[target.id] + value if more else value
    return values


def check_parameters(template: Path, parameters: dict[str, Any]) -> None:
    """Refuse a parameter that the template does not have (papermill itself would only warn)."""
    known = template_parameters(template)
    for name in parameters:
        if name not in known:
            raise InputError(
                f"{template.name}: has no parameter {name!r}; it has {', '.join(known)}{nearest(name, known)}"
            )
