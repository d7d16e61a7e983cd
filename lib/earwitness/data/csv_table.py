"""Tables that people hand in: CSV with commas, semicolons or tabs, in UTF-8 or UTF-16, read strictly and fast.

Every cell is text. A million rows take seconds; where something is wrong the file is read again, row by row, to name
the line. The book page *Methods: manifests* says what is accepted.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
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
LINE_END = re.compile(r"\r\n|\r|\n")
FILE_NAME = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,4}$")  # ends a path, and seldom a sentence


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
        before = error.object[: error.start].decode("utf-16" if marked else "latin-1", "ignore")
        line = len(LINE_END.findall(before)) + 1
        found = error.object[error.start : error.start + 1].hex()
        raise ManifestError(
            f"{path.name}, line {line}: not a UTF-8 CSV table (byte 0x{found}: {error.reason}); export it again as "
            "CSV in UTF-8"
        ) from None


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
    found = _first_fault(path, separator, width)
    return found or ManifestError(f"{path.name}: not a UTF-8 CSV table ({reason}); export it again as CSV")


def _first_fault(path: Path, separator: str, width: int) -> ManifestError | None:
    """Read a table row by row and strictly; return the first thing that is wrong, or None.

    A quote that is never closed swallows what follows: a row that spans lines, of which one is a row by itself.
    """
    with io.StringIO(_text(path), newline="") as text:
        rows = csv.reader(text, delimiter=separator, strict=True)
        while True:
            start = rows.line_num + 1
            try:
                row = next(rows, None)
            except csv.Error as error:
                if rows.line_num > start or "end of data" in str(error):
                    return _open_quote(path, start, rows.line_num)
                return ManifestError(
                    f"{path.name}, line {start}: not a UTF-8 CSV table ({error}); export it again as CSV"
                )
            if row is None:
                return None
            if rows.line_num > start and any(
                _is_row(line, separator, width) for c in row for line in c.split("\n")[1:]
            ):
                return _open_quote(path, start, rows.line_num)
            if row and len(row) != width:
                return ManifestError(
                    f"{path.name}, line {rows.line_num}: expected {width} cells, found {len(row)}; quote cells "
                    "that hold the separator"
                )


def _open_quote(path: Path, start: int, end: int) -> ManifestError:
    """Return the error that names the line on which a quote opens that swallows rows."""
    return ManifestError(
        f"{path.name}, line {start}: a quote that opens here runs on to line {end}; close it, or take it out"
    )


def _is_row(line: str, separator: str, width: int) -> bool:
    """Say whether a line within a cell looks like a row: as many separators, and a file's name among its cells."""
    cells = line.split(separator)
    return width > 1 and len(cells) >= width and any(FILE_NAME.search(cell.strip(' "\r')) for cell in cells)


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
    multiline = any(pc.any(pc.match_substring(columns[name], "\n")).as_py() for name in names)
    if multiline and (fault := _first_fault(path, separator, len(names))):
        raise fault
    if not columns.num_rows:
        raise ManifestError(f"{path.name}: expected at least one row, found none; add one row per recording")
    for place, name in enumerate(names):
        if pc.max(pc.binary_length(columns[name])).as_py() > csv.field_size_limit():
            raise _fault(path, separator, len(names), "an endless cell")
        if pc.any(pc.starts_with(columns[name], "'")).as_py():
            bare = pa.array([unguard(cell) for cell in columns[name].to_pylist()], pa.string())
            columns = columns.set_column(place, name, bare)
    return columns, Lines(path, separator)
