"""Tables that people hand in: CSV with commas, semicolons or tabs, in UTF-8 or UTF-16, read strictly and fast.

Every cell is text. A million rows take seconds; where something is wrong the file is read again, row by row, to name
the line. The book page *Methods: manifests* says what is accepted.
"""

from __future__ import annotations

import codecs
import csv
import io
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as fast

from earwitness.errors import ManifestError
from earwitness.util import reason_of, unguard

PEEK = 1 << 16  # bytes in which the header must end
BLOCK = 1 << 24


@dataclass(frozen=True)
class Lines:
    """Where the rows of a CSV file stand."""

    path: Path
    separator: str

    def of(self, row: int) -> int:
        """Return the line of the file on which a row (counted from 0) ends."""
        with io.StringIO(_text(self.path), newline="") as text:
            rows = csv.reader(text, delimiter=self.separator)
            next(islice((cells for cells in rows if cells), row + 1, row + 2))
            return rows.line_num

    def fault(self, row: int, problem: str) -> ManifestError:
        """Return the error that refuses a row, naming its line."""
        return ManifestError(f"{self.path.name}, line {self.of(row)}: {problem}; mend this row")


def _pool() -> pa.MemoryPool:
    """Return the allocator that gives back most of a large table while it becomes tracks."""
    return pa.jemalloc_memory_pool() if "jemalloc" in pa.supported_memory_backends() else pa.default_memory_pool()


def _text(path: Path) -> str:
    """Return a table's text: UTF-8, with or without a mark, or UTF-16 with one, as spreadsheets write them."""
    raw = path.read_bytes()
    marked = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return raw.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path.name}: not a UTF-8 CSV table ({error.reason}); export it again as CSV") from None


def _head(path: Path, what: str) -> tuple[str, bool]:
    """Return the beginning of the text, and whether it must be decoded before it can be read fast."""
    try:
        with path.open("rb") as file:
            raw = file.read(PEEK)
    except FileNotFoundError:
        raise ManifestError(f"{path.name}: expected {what} (CSV), found no such file; check the path") from None
    except (OSError, ValueError) as error:
        raise ManifestError(f"{path.name}: expected {what} (CSV): {reason_of(error)}; check the path") from None
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return _text(path)[:PEEK], True
    try:
        return codecs.getincrementaldecoder("utf-8-sig")().decode(raw), False
    except UnicodeDecodeError:
        return _text(path), False  # which says what is wrong


def _fault(path: Path, separator: str, width: int, reason: str) -> ManifestError:
    """Return the error that names the first line that is wrong, read row by row."""
    with io.StringIO(_text(path), newline="") as text:
        rows = csv.reader(text, delimiter=separator, strict=True)
        try:
            for row in rows:
                if row and len(row) != width:
                    return ManifestError(
                        f"{path.name}, line {rows.line_num}: expected {width} cells, found {len(row)}; quote cells "
                        "that hold the separator"
                    )
        except csv.Error as error:
            reason = f"{path.name}, line {rows.line_num}: not a UTF-8 CSV table ({error}); export it again as CSV"
            return ManifestError(reason)
    return ManifestError(f"{path.name}: not a UTF-8 CSV table ({reason}); export it again as CSV")


def read_table(path: Path, what: str = "a manifest") -> tuple[pa.Table, Lines]:
    """Read a CSV file; cells that ``util.guard`` protected from spreadsheets are given back as they were.

    Parameters
    ----------
    path : Path
        The file.
    what : str
        What it should hold, for messages.

    Returns
    -------
    pyarrow.Table, Lines
        The columns, all of them text, and where the rows stand.

    Raises
    ------
    ManifestError
        No such file, not UTF-8 or UTF-16, a row with more or fewer cells than the header, a column named twice, no row.
    """
    text, decode = _head(path, what)
    separator = max(",;\t", key=text.partition("\n")[0].count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        names = [name.strip() for name in next(rows, [])]
    except csv.Error as error:
        raise ManifestError(f"{path.name}, line 1: not a UTF-8 CSV table ({error}); export it again as CSV") from None
    if not names:
        raise ManifestError(f"{path.name}: not a UTF-8 CSV table (it is empty); export it again as CSV")
    if len(set(names)) < len(names):
        raise ManifestError(f"{path.name}: expected each column once, found {', '.join(names)}; rename one")
    source = pa.BufferReader(_text(path).encode()) if decode else pa.OSFile(str(path))
    try:
        with fast.open_csv(
            source,
            fast.ReadOptions(column_names=names, skip_rows=rows.line_num, use_threads=False, block_size=BLOCK),
            fast.ParseOptions(delimiter=separator, newlines_in_values=True),
            fast.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False),
            memory_pool=_pool(),
        ) as reader:
            columns = reader.read_all()
    except pa.ArrowInvalid as error:
        if "Empty CSV" in str(error):
            columns = pa.table({name: pa.array([], pa.string()) for name in names})
        else:
            raise _fault(path, separator, len(names), " ".join(str(error).split())[:120]) from None
    if not columns.num_rows:
        raise ManifestError(f"{path.name}: expected at least one row, found none; add one row per recording")
    for place, name in enumerate(names):
        if pc.max(pc.binary_length(columns[name])).as_py() > csv.field_size_limit():
            raise _fault(path, separator, len(names), "an endless cell")
        if pc.any(pc.starts_with(columns[name], "'")).as_py():
            bare = pa.array([unguard(cell) for cell in columns[name].to_pylist()], pa.string())
            columns = columns.set_column(place, name, bare)
    return columns, Lines(path, separator)
