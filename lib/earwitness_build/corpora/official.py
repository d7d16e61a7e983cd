"""Official files of a corpus, read strictly: the right file, the right columns, the right version, each id once.

Everything that is wrong is refused in one line that names the file, the line and the mend. The book page *Methods:
manifests* lists what a builder refuses.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from earwitness.errors import ManifestError, nearest
from earwitness.util import file_hash, reason_of


class Official:
    """The folder with a corpus's official files.

    Parameters
    ----------
    folder : Path
        Where they lie, at any depth.
    expected : dict
        File -> number of records as published.
    card : str
        What says where the files come from.
    any_version : bool
        Take a file with another number of records, and say so in ``notes``.

    Attributes
    ----------
    files : dict
        Each file that was read -> SHA-256 of its bytes.
    paths : set of Path
        Where they are.
    notes : list of str
        What was unusual and accepted.
    captions : str
        ``"exact"`` or ``"approximate"``, where captions are processed as a paper's.
    """

    def __init__(
        self, folder: Path, expected: dict[str, int] | None = None, *, any_version: bool = False, card: str = "the card"
    ) -> None:
        if not folder.is_dir():
            raise ManifestError(f"{folder}: expected the folder of the corpus's official files, found none")
        self.folder, self.card = folder, card
        self.expected = expected or {}
        self.any_version = any_version
        self.files: dict[str, str] = {}
        self.paths: set[Path] = set()
        self.notes: list[str] = []
        self.captions = ""

    def find(self, name: str) -> Path:
        """Return the one official file called ``name``, which may lie at any depth."""
        if (self.folder / name).is_file():
            return self.folder / name
        found = self._under(name)
        if len(found) == 1:
            return found[0]
        if found:
            where = " and ".join(path.relative_to(self.folder).as_posix() for path in found[:2])
            raise ManifestError(f"{name}: expected one such file under {self.folder}, found {where}; keep one")
        near = [path.name for path in self.folder.rglob("*") if path.suffix == PurePosixPath(name).suffix]
        raise ManifestError(
            f"{name}: expected this official file under {self.folder}, found none{nearest(name, near)}; "
            f"{self.card} says where it comes from"
        )

    def holds(self, name: str) -> bool:
        """Say whether an optional official file is there."""
        return bool(self._under(name))

    def _under(self, name: str) -> list[Path]:
        files = sorted(path for path in self.folder.rglob(PurePosixPath(name).name) if path.is_file())
        return [path for path in files if path.as_posix().endswith(f"/{name}")]

    def text(self, name: str, encoding: str = "utf-8-sig") -> str:
        """Return an official file's text; it must be UTF-8, unless it is published in another encoding."""
        path = self.find(name)
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise ManifestError(f"{name}: cannot be read ({reason_of(error)})") from None
        self.files[name] = file_hash(path)
        self.paths.add(path.resolve())
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError as error:
            line = raw[: error.start].count(b"\n") + 1
            raise ManifestError(
                f"{name}, line {line}: expected UTF-8, found other bytes; take the official file as it was published, "
                "or convert it"
            ) from None

    def json(self, name: str) -> Any:
        """Return an official JSON file's content."""
        try:
            return json.loads(self.text(name))
        except json.JSONDecodeError as error:
            raise ManifestError(f"{name}, line {error.lineno}: not JSON ({error.msg}); fetch it again") from None

    def rows(
        self, name: str, separator: str = ",", *, encoding: str = "utf-8-sig", **options: Any
    ) -> Iterator[tuple[int, list[str]]]:
        """Yield (line, cells) of each row of an official table that is not empty; ``options`` go to ``csv.reader``."""
        reader = csv.reader(io.StringIO(self.text(name, encoding), newline=""), delimiter=separator, **options)
        try:
            for row in reader:
                if row:
                    yield reader.line_num, row
        except csv.Error as error:
            raise ManifestError(f"{name}, line {reader.line_num}: not a table ({error}); fetch it again") from None

    def table(
        self, name: str, columns: Sequence[str], *, key: str = "", separator: str = ",", last_takes_rest: bool = False,
        **options: Any,
    ) -> pd.DataFrame:  # fmt: skip
        """Return the named columns of an official table as text; the index is the line in the file.

        Parameters
        ----------
        name : str
            File.
        columns : sequence of str
            Columns that it must have, named as published; further ones are ignored.
        key : str
            A column whose values must be given and differ.
        separator : str
            Between cells.
        last_takes_rest : bool
            The last column may run over several cells (lists of tags); they are joined by spaces.
        **options
            ``encoding``, where it is not UTF-8, and those of ``csv.reader``.

        Raises
        ------
        ManifestError
            A column is missing, a row has another number of cells, a key is missing or repeated, or the number of rows
            is not the published one.
        """
        rows = self.rows(name, separator, **options)
        _, heading = next(rows, (0, []))
        heading = [cell.strip() for cell in heading]
        for column in columns:
            if column not in heading:
                raise ManifestError(
                    f"{name}: expected a column {column!r}, found {', '.join(heading) or 'nothing'}"
                    f"{nearest(column, heading)}; is this the official file, in the version that the card names?"
                )
        held = {}
        for line, cells in rows:
            if last_takes_rest and len(cells) > len(heading):
                cells = [*cells[: len(heading) - 1], " ".join(cells[len(heading) - 1 :])]
            if len(cells) != len(heading):
                raise ManifestError(
                    f"{name}, line {line}: expected {len(heading)} cells, found {len(cells)}; fetch the file again"
                )
            held[line] = cells
        frame = pd.DataFrame.from_dict(held, orient="index", columns=heading, dtype=str)[list(columns)]
        self.count(name, len(frame))
        if key:
            self.unique(name, frame[key], key)
        return frame

    def unique(self, name: str, column: pd.Series, what: str) -> None:
        """Refuse an empty or repeated id, naming its line (the index of ``column``)."""
        for problem, bad in (("is empty", column.str.strip() == ""), ("was used before", column.duplicated())):
            if bad.any():
                line = column.index[bad][0]
                raise ManifestError(
                    f"{name}, line {line}: {what} {column[line]!r} {problem}; fetch the official file again"
                )

    def numbers(self, name: str, column: pd.Series, what: str) -> pd.Series:
        """Return a column as numbers, empty cells as NaN; refuse anything else, naming its line (the index)."""
        values = pd.to_numeric(column.replace("", None), errors="coerce")
        bad = (values.isna() & (column != "")) | (values < 0)
        if bad.any():
            line = column.index[bad][0]
            raise ManifestError(
                f"{name}, line {line}: {what} is {column[line]!r}, expected seconds; fetch the file again"
            )
        return values.astype(float)

    def count(self, name: str, found: int) -> None:
        """Refuse another number of records than published, or note it where any version is taken."""
        published = self.expected.get(name, found)
        if found == published:
            return
        text = f"{name}: expected {published} records as published, found {found}"
        if not self.any_version:
            raise ManifestError(f"{text}: another version or a part? --any-version takes it, and the card says so")
        self.notes.append(text)


def clip_names(video: str, start: float, end: float) -> tuple[str, ...]:
    """Return how common downloaders name a clip of a video: ``ID_30_40``, ``ID_30.000_40.000``, ``ID_30000_40000``.

    ``start`` and ``end`` in seconds; each name also with a Y in front.
    """
    edges = (start, end)
    spans = ["_".join(form(edge) for edge in edges) for form in (_whole, "{:.3f}".format, _milliseconds)]
    return tuple(f"{letter}{video}_{span}" for span in spans for letter in ("", "Y"))


def _whole(seconds: float) -> str:
    return f"{seconds:g}"


def _milliseconds(seconds: float) -> str:
    return str(round(1000 * seconds))


def relative(name: str, paths: pd.Series) -> None:
    """Refuse a path of an official file that is absolute or climbs out of its folder; the index is the line."""
    for line, path in paths.items():
        if path.startswith("/") or ":" in path[:2] or "\\" in path or ".." in path.split("/"):
            raise ManifestError(f"{name}, line {line}: a path that leaves the audio folder ({path!r}); mend this row")
