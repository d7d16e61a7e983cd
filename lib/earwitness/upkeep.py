"""What the signal store holds for a manifest, and what it holds that no manifest uses.

``status`` answers from the files alone: no model is loaded. ``leftovers`` lists what could go, each with its reason;
``remove`` takes it away. The book page *The signal store* shows both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from earwitness.errors import InputError
from earwitness.extractors.run import Further, passes_asked
from earwitness.manifest import Track, read_splits
from earwitness.models import describe
from earwitness.paths import project_root, results_dir
from earwitness.shards import deal, key_tracks, names_of, parts_of, track_key
from earwitness.store import CLAIMS, Claims, Store, part_name
from earwitness.windows import spec_of

MISSING = "expected an audio file"  # how an exclusion of a recording that is not there begins


def status(
    model: str,
    tracks: Sequence[Track],
    attacks: str | Sequence[str] = "all",
    *,
    seed: int = 0,
    shard: tuple[int, int] = (1, 1),
    dtype: str = "float32",
) -> dict[str, Any]:
    """Say what is stored of what ``collect`` with the same arguments would return.

    Returns
    -------
    dict
        ``folder``; ``tracks`` (readable), ``stored``, ``missing``, ``unreadable``; ``segments`` stored; ``parts`` and
        ``bytes`` of the whole store; ``damaged`` parts set aside; ``claimed``: parts another process is at work on.
    """
    info = describe(model, dtype=dtype, allow_download=False)
    spec = spec_of(info, seed)
    store = Store(info, spec, Further(passes_asked(attacks, info), None, {}).key())
    keyed, excluded = key_tracks(deal(tracks, shard))
    keys = {key for key, _ in keyed}
    planned = parts_of(keyed)
    index = store.index(keys, names_of(planned))
    stored = set(index["track_key"])
    parts = list(store.folder.glob("part-*.parquet"))
    return {
        "folder": store.folder.name,
        "tracks": len(keyed),
        "stored": sum(key in stored for key, _ in keyed),
        "missing": sum(key not in stored for key, _ in keyed),
        "unreadable": len(excluded),
        "segments": len(index),
        "parts": len(parts),
        "bytes": sum(path.stat().st_size for path in parts),
        "damaged": len(list(store.folder.glob("part-*.damaged"))),
        "claimed": _claimed(store, planned, stored),
    }


def _claimed(store: Store, planned: Sequence[Sequence[tuple[str, Track]]], stored: set[str]) -> int:
    """Count the missing parts that another process holds."""
    if not (store.folder / CLAIMS).exists():
        return 0
    missing = [[key for key, _ in part if key not in stored] for part in planned]
    with _claims(store.folder) as claims:
        return 0 if claims is None else sum(not claims.take(part_name(keys)) for keys in missing if keys)


@contextmanager
def _claims(folder: Path) -> Iterator[Claims | None]:
    """Open the claims of a store; None where they cannot be opened, as in a folder that may only be read."""
    with ExitStack() as stack:
        claims = None
        with suppress(OSError):
            claims = stack.enter_context(Claims(folder))
        yield claims


@dataclass(frozen=True)
class Leftover:
    """A file that could go: where it lies, its size in bytes, and why it is not needed."""

    path: Path
    size: int
    reason: str


def manifests() -> list[Path]:
    """Return the manifests of the project: every CSV under ``data_manifests/``."""
    return sorted((project_root() / "data_manifests").rglob("*.csv"))


def leftovers(paths: Sequence[Path], *, missing_audio: bool = False) -> list[Leftover]:
    """List the files of the signal store that no manifest uses, and what interrupted runs left.

    Parameters
    ----------
    paths : sequence of Path
        The manifests; a part is used if it holds a track of one of them.
    missing_audio : bool
        Go on though recordings without a ``sha256`` are not there: what was scored of them then counts as unused.

    Raises
    ------
    InputError
        A manifest whose recordings are not there, without a ``sha256`` that tells what was scored of them.
    """
    used: set[str] = set()
    for path in paths:
        tracks = read_splits(path)
        keyed, excluded = key_tracks(tracks)
        used.update(key for key, _ in keyed)
        left = {row["track_id"]: row["reason"] for row in excluded}
        gone = [track for track in tracks if track.track_id in left]
        used.update(track_key(track.path, track.sha256, track.caption) for track in gone if track.sha256)
        lost = [track for track in gone if not track.sha256 and MISSING in left[track.track_id]]
        if lost and not missing_audio:
            raise InputError(
                f"{path.name}: {len(lost)} of its recordings are not here and have no sha256, so it is not known what "
                "they use; bring them back, or say --missing-audio to count their signals as unused"
            )
    return [found for folder in sorted((results_dir() / "signals").glob("*/")) for found in _unused(folder, used)]


def _unused(folder: Path, used: set[str]) -> Iterator[Leftover]:
    """Yield what could go from one store; files of a part that a process is at work on are left alone.

    Where nobody's claims can be seen, nothing can be removed either, and unfinished parts are not listed.
    """
    with _claims(folder) as claims:
        for path in sorted(folder.iterdir()):
            reason, part = "", path.name
            if path.suffix == ".tmp":
                reason, part = "left by an interrupted run", path.name[1:].rpartition(".parquet")[0] + ".parquet"
            elif path.suffix == ".damaged":
                reason = "damaged, and scored again since"
            elif path.suffix == ".parquet" and used.isdisjoint(_keys(path)):
                reason = "holds no track of a manifest"
            if reason and (path.suffix != ".tmp" if claims is None else claims.take(part)):
                yield Leftover(path, path.stat().st_size, reason)


def _keys(path: Path) -> set[str]:
    """Return the track keys of a part; none if it cannot be read."""
    try:
        return set(pq.read_table(path, columns=["track_key"])["track_key"].to_pylist())
    except (pa.ArrowException, OSError):
        return set()


def remove(found: Sequence[Leftover]) -> int:
    """Remove what ``leftovers`` listed, and stores that are empty then; return the bytes set free."""
    for leftover in found:
        leftover.path.unlink(missing_ok=True)
    for folder in {leftover.path.parent for leftover in found}:
        if all(path.name == CLAIMS for path in folder.iterdir()):
            (folder / CLAIMS).unlink(missing_ok=True)
            folder.rmdir()
    return sum(leftover.size for leftover in found)
