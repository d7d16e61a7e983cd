"""What every room needs: text from outside made safe to show, where things are kept, hashes, spans of time, what runs.

File names, captions and tags are whatever somebody typed, or crafted: line breaks that forge a line of output, escape
sequences, marks that turn the reading direction, cells that a spreadsheet runs as a formula. HTML and notebooks have
their own escaping. The book page *Threat model* says what is defended here.

What a room offers is imported when it is asked for (``lazily``).
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from pkgutil import iter_modules
from secrets import token_hex
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

VERSION = "0.1.0"
Record = TypeVar("Record")
MOST_KEYS = 10_000  # of a JSON object from outside
# --- text from outside ------------------------------------------------------------------------------------------------

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")


def plain(text: str) -> str:
    r"""Return ``text`` with everything that is not printable written as an escape: a line break becomes ``\n``.

    Control characters, direction marks and bytes that were no UTF-8 lose their effect and stay visible.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def counted(n: int, noun: str) -> str:
    """Return a number with its noun: "1 artist", "12 artists"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def guard(cell: object) -> object:
    """Return a table's cell so that no spreadsheet takes it for a formula: an apostrophe before ``=``, ``+``, ``@``…"""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA_STARTS) else cell


def unguard(cell: str) -> str:
    """Undo ``guard``."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(FORMULA_STARTS) else cell


def guarded(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose text cells and headings no spreadsheet takes for formulas."""
    text = frame.select_dtypes(exclude="number").columns
    return frame.assign(**{name: frame[name].map(guard) for name in text}).rename(columns=guard)


def unguarded(frame: pd.DataFrame) -> pd.DataFrame:
    """Undo ``guarded`` on a table that was read back."""
    text = frame.select_dtypes(include=["object", "string"]).columns
    cells = {name: frame[name].map(unguard, na_action="ignore") for name in text}
    return frame.assign(**cells).rename(columns=unguard)


def write_csv(frame: pd.DataFrame, path: Path, bare: Collection[str] = (), **options: object) -> None:
    """Write a table for people, whole or not at all; text cells are guarded against formulas.

    Parameters
    ----------
    frame : pandas.DataFrame
        Written without its index.
    path : Path
        Its folder must exist.
    bare : collection of str
        Columns that are written as they are, because other programs look their cells up: ids and paths.
    **options
        Passed to ``DataFrame.to_csv``.
    """
    table = guarded(frame).assign(**{name: frame[name] for name in bare})
    write_whole(path, table.to_csv(index=False, **options))  # type: ignore[call-overload]


def write_whole(path: Path, content: bytes | str, mode: int = 0o666) -> None:
    """Write a file whole or not at all, under a temporary name that is then renamed; its folder must exist.

    Nothing is written through a link. ``mode`` is what the system's mask leaves of it: 0o600 keeps others out.

    Raises
    ------
    OSError
        With the name of ``path``, also where the system names none, as on a full disk.
    """
    data = content.encode() if isinstance(content, str) else content
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with placed(path):
        try:
            part.unlink(missing_ok=True)
            with open(part, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def write_new(path: Path, content: str) -> None:
    """Write a file whole or not at all, and never over another one.

    Raises
    ------
    FileExistsError
        Something of this name is there, a link too.
    OSError
        As ``write_whole``.
    """
    fresh = path.with_name(f".{path.name[:40]}.{token_hex(4)}.new")
    try:
        write_whole(fresh, content)
        try:
            os.link(fresh, path)
        except OSError:  # a file system without links, or something is there
            if os.path.lexists(path):
                raise FileExistsError(str(path)) from None
            fresh.rename(path)
    finally:
        fresh.unlink(missing_ok=True)


@contextmanager
def placed(path: Path) -> Iterator[None]:
    """Give an error of the file system the name of ``path`` where it has none: writing to a full disk names no file."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def exchange(fresh: Path, place: Path) -> Path | None:
    """Put the folder ``fresh`` where ``place`` is, and return where the folder that was there now lies, if one was.

    One step where the system can exchange two names (Linux), else two; a crash leaves both folders whole.
    """
    if not place.exists():
        fresh.rename(place)
        return None
    system, names = ctypes.CDLL(None), [os.fsencode(path) for path in (fresh, place)]
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if hasattr(system, "renameat2") and system.renameat2(here, names[0], here, names[1], swap) == 0:
        return fresh
    aside = fresh.with_name(f"{fresh.name}.old")
    try:
        place.rename(aside)
        fresh.rename(place)
    except BaseException:
        if not place.exists():
            aside.rename(place)
        raise
    return aside


def write_folder(out: Path, wanted: Mapping[str, bytes], ours: Set[str]) -> Path | None:
    """Write files into a fresh folder beside ``out``, and put that in its place in one step.

    Whatever happens, ``out`` is as it was before, or new and whole. Nothing is written or removed through a link.

    Parameters
    ----------
    out : Path
        A folder, or nothing yet.
    wanted : mapping
        Name (with ``/``) -> content.
    ours : set of str
        Names of the earlier files in ``out`` that are removed. What else lies there moves into the new folder.

    Returns
    -------
    Path or None
        Where lies what could not be moved, because new files have these names.
    """
    out = Path(os.path.realpath(out))
    fresh = out.with_name(f".{out.name[:40]}.{token_hex(4)}.part")
    with placed(out):
        fresh.mkdir(parents=True)
        own = fresh.stat().st_ino
        try:
            for name, content in wanted.items():
                (fresh / name).parent.mkdir(exist_ok=True)
                write_whole(fresh / name, content)
            before = exchange(fresh, out)
        finally:
            if fresh.exists() and fresh.stat().st_ino == own:
                shutil.rmtree(fresh)
        return before and _clear(before, out, ours)


def _clear(before: Path, out: Path, ours: Set[str]) -> Path | None:
    """Remove earlier files and move what else their folder holds to ``out``; links are never followed."""
    for here, folders, names in os.walk(before, topdown=False):
        for path in (Path(here, name) for name in (*names, *folders)):
            own = path.relative_to(before)
            target = out / own
            if path.is_dir() and not path.is_symlink():
                with suppress(OSError):  # something is left in it
                    path.rmdir()
            elif own.as_posix() in ours or (path.is_symlink() and os.path.lexists(target)):
                path.unlink()
            elif not os.path.lexists(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                path.rename(target)
    with suppress(OSError):
        before.rmdir()
        return None
    return before.rename(next(path for i in count(1) if not (path := out.with_name(f"{out.name}.kept-{i}")).exists()))


def refuse_ambiguous(text: bytes) -> None:
    """Refuse JSON that says a thing twice, of which programs read one or the other, or holds what is no JSON.

    Raises
    ------
    ValueError, RecursionError
        Also an object of more than ``MOST_KEYS`` keys, NaN and infinities, a number of thousands of digits, or depth.
    """

    def once(pairs: list[tuple[str, Any]]) -> None:
        if len(dict(pairs)) < len(pairs) or len(pairs) > MOST_KEYS:
            raise ValueError(f"an object with a key twice, or with more than {MOST_KEYS:,} keys")

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no number")

    json.loads(text, object_pairs_hook=once, parse_constant=refuse)


def unreadable(path: Path, root: Path, most: int) -> str:
    """Return why a stranger's file is not opened; empty if it may be, or is not there.

    Parameters
    ----------
    path, root : Path
        The file, and the folder that it must not leave.
    most : int
        Bytes that it may hold.
    """
    if not path.exists():
        return ""
    if reason := inside(path, root.resolve()):
        return reason
    if not path.is_file():
        return "no regular file"
    size = path.stat().st_size
    return f"{size:,} bytes, more than the {most:,} that are read" if size > most else ""


def kept(path: Path, kind: Any, make: Callable[[], Record]) -> Record:
    """Return the record (a pydantic model of some kind) in a file; without a whole one, make it and try to keep it."""
    with suppress(OSError, ValueError):
        found: Record = kind.model_validate_json(path.read_bytes())
        return found
    found = make()
    with suppress(OSError):  # a folder that may only be read
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, f"{found.model_dump_json()}\n")  # type: ignore[attr-defined]
    return found


# --- where things are kept --------------------------------------------------------------------------------------------

STAMP = "EARWITNESS_STAMP"  # the variable that tells a page where its runner wants its stamp
PAGE = "EARWITNESS_PAGE"  # the variable that tells a notebook which page of the registry its runner makes of it


def project_root() -> Path:
    """Return the nearest folder at or above the working directory that holds ``notebooks/experiments.yml``.

    Outside a checkout (the library installed on its own) this is the working directory itself.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "notebooks" / "experiments.yml").is_file():
            return folder
    return here


def results_dir() -> Path:
    """Return the results folder: ``$EARWITNESS_RESULTS`` if set, else ``results`` under the project root."""
    configured = os.environ.get("EARWITNESS_RESULTS")
    return Path(configured).expanduser().resolve() if configured else project_root() / "results"


@contextmanager
def results_in(folder: str) -> Iterator[None]:
    """Keep results in another folder for a while: what is computed then comes from no store."""
    before = os.environ.get("EARWITNESS_RESULTS")
    os.environ["EARWITNESS_RESULTS"] = folder
    try:
        yield
    finally:
        del os.environ["EARWITNESS_RESULTS"]
        os.environ.update({} if before is None else {"EARWITNESS_RESULTS": before})


def inside(path: Path, root: Path) -> str:
    """Return why a path does not stay inside ``root`` (a resolved folder) or cannot be followed; empty if it does."""
    try:
        target = path.resolve(strict=True)
    except FileNotFoundError:
        return "a broken link; restore the file it leads to" if path.is_symlink() else "no such file"
    except (OSError, RuntimeError, ValueError) as error:
        return f"cannot be followed ({reason_of(error)})"
    return "" if target.is_relative_to(root) else "a link that leaves the folder; copy the file into it"


def reason_of(error: Exception) -> str:
    """Return an operating system's reason in lower case, without the path."""
    return str(getattr(error, "strerror", None) or error).lower()


def sha256(content: bytes | str) -> str:
    """Return the SHA-256 of some bytes, or of a text as UTF-8, in hexadecimal."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def digest(content: Any) -> str:
    """Return the SHA-256 of something JSON can hold."""
    return sha256(json.dumps(content, sort_keys=True))


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hann(size: int) -> NDArray[np.float64]:
    """Return the periodic Hann window, as ``scipy.signal`` has it, whose import takes a second."""
    import numpy as np

    return np.asarray((0.5 + 0.5 * np.cos(np.linspace(-np.pi, np.pi, size + 1)))[:-1])


def span(seconds: float) -> str:
    """Write a time span for people: ``45 s``, ``12 min``, ``3 h 20 min``, ``2 d 4 h``."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 90:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def lazily(room: str, names: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return a room's ``__getattr__`` and ``__dir__``: a module or a name of it is imported when it is first asked for.

    Parameters
    ----------
    room : str
        The package, ``__name__`` in its ``__init__.py``.
    names : mapping
        Name -> module of the room that defines it. Every module of the room can be asked for by its own name besides.

    Examples
    --------
    >>> from earwitness import stats
    >>> stats.strata_of.__module__
    'earwitness.stats.permutation_test'
    """

    def get(name: str) -> Any:
        if name in names:
            return getattr(import_module(f"{room}.{names[name]}"), name)
        if not name.startswith("_") and find_spec(f"{room}.{name}") is not None:
            return import_module(f"{room}.{name}")
        raise AttributeError(f"module {room!r} has no attribute {name!r}")

    def listed() -> list[str]:
        own = vars(sys.modules[room])
        return sorted({*names, *own.get("__all__", ()), *(module.name for module in iter_modules(own["__path__"]))})

    return get, listed


# --- what runs here: reports and the book's pages name it -------------------------------------------------------------

LIBRARIES = ("earwitness", "torch", "transformers", "numpy", "scipy", "pandas", "scikit-learn")
UNKNOWN = "unknown"


def _checkout() -> Path:
    """Return the folder of the code: the project's, or where this library lies when it is used from elsewhere."""
    root = project_root()
    return root if (root / "lib" / "earwitness").is_dir() else Path(__file__).resolve().parents[2]


def _git(*arguments: str) -> str | None:
    """Return the output of a git command in the project, or None without git or outside a checkout."""
    try:
        done = subprocess.run(["git", *arguments], cwd=_checkout(), capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def code_state() -> str:
    """Return the commit of the code, marked where the working tree differs from it; ``"unknown"`` without git."""
    commit = _git("rev-parse", "--short=12", "HEAD")
    if not commit or not _git("ls-files", "lib/earwitness"):  # a repository that only happens to hold the environment
        return UNKNOWN
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return f"{commit}, with uncommitted changes" if changed else commit


def hash_of(path: str | Path) -> str:
    """Return the first 16 hexadecimal digits of a file's SHA-256, or ``"unknown"`` where there is no such file."""
    path = next((place for root in (project_root(), _checkout()) if (place := root / path).is_file()), Path(path))
    return file_hash(path)[:16] if path.is_file() else UNKNOWN


def _version(library: str) -> str:
    """Return the installed version of a library, or ``"not installed"``."""
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"


def versions() -> dict[str, str]:
    """Return the installed versions of the libraries that can change a result."""
    return {library: _version(library) for library in LIBRARIES}


def machine() -> str:
    """Return the kind of machine: system, processor, Python."""
    return f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
