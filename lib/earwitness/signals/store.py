"""Where signals are kept: append-only Parquet parts under ``results/signals/<model>-<key>/``.

The key hashes everything that must be equal for two signals to be comparable (weights, dtype, library versions, audio
chain, extractors, seed, passes), so another model, version or seed is another folder and is never served by luck;
stores that differ in their passes alone serve each other (``Store.alike``). One row is one segment; array columns are
fixed-size lists whose shapes stand in the file's ``earwitness`` metadata, beside names and types of all columns. Pages
have Parquet's checksums, the metadata has a digest. Parts are written whole and renamed.

Which tracks a job scores, and in which parts, is decided by the manifest and the recordings, never by a clock. Shards
are balanced by seconds of audio and follow from the manifest alone, so every job of a cluster comes to the same
division without asking. Within a shard tracks are keyed by their bytes and caption and put in the order of their keys,
which is blind to roles and artists, and cut into parts: the unit that is scored, stored and lost as a whole. The book
page *The signal store* documents the columns.
"""

from __future__ import annotations

import errno
import glob
import heapq
import json
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from earwitness.data import containers
from earwitness.data.audio import Spec
from earwitness.data.containers import content_hash
from earwitness.data.decode_pool import probe
from earwitness.errors import AudioError, InputError, StoreError
from earwitness.signals import blind, diffusion, token
from earwitness.types import ModelInfo, Track
from earwitness.util import digest, reason_of, results_dir, write_whole

# --- the store --------------------------------------------------------------------------------------------------------

SCHEMA_VERSION = 3
INDEX = ["track_key", "segment_id", "start_s"]
RESUME = "finished parts are stored, so the same command goes on from here"

log = logging.getLogger(__name__)
_sound: dict[Path, tuple[int, int, int]] = {}  # parts whose checksum held, with size, time and inode at that moment


def part_name(keys: Sequence[str]) -> str:
    """Return the file name of the part that holds these track keys."""
    return f"part-{digest(sorted(keys))[:16]}.parquet"


def encode(rows: Sequence[Mapping[str, Any]], identity: Mapping[str, Any], **about: Any) -> bytes:
    """Return a part as the bytes of a Parquet file; ``about`` is kept in its metadata beside shapes and checksum."""
    columns: dict[str, Any] = {}
    shapes: dict[str, list[int]] = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        if isinstance(values[0], np.ndarray):
            stacked = np.stack(values)
            shapes[name] = list(stacked.shape[1:])
            values = pa.FixedSizeListArray.from_arrays(stacked.ravel(), int(np.prod(shapes[name])))
        columns[name] = values
    table = pa.table(columns)
    facts = {**about, "schema": SCHEMA_VERSION, "identity": identity, "shapes": shapes, "columns": columns_of(table)}
    sink = pa.BufferOutputStream()
    described = table.replace_schema_metadata({"earwitness": json.dumps(facts), "earwitness.digest": digest(facts)})
    pq.write_table(described, sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue().to_pybytes()


def columns_of(table: pa.Table) -> list[str]:
    """Return a part's rows, column names and types: what no page holds, so that no CRC covers it."""
    kinds = (f"{field.name} {field.type}".replace("element: ", "item: ") for field in table.schema)  # Parquet's word
    return [f"{table.num_rows} rows", *kinds]


def facts_of(schema: pa.Schema) -> dict[str, Any]:
    """Return what a part says about itself: schema, identity, shapes, checksum, how it was scored.

    Raises ValueError where that is damaged. The checksum covers the columns, Parquet's own CRC the pages; neither
    covers these facts, so a digest does.
    """
    facts: dict[str, Any] = json.loads(schema.metadata[b"earwitness"])
    if digest(facts) != schema.metadata[b"earwitness.digest"].decode():
        raise ValueError("its description does not match its digest")
    return facts


class Store:
    """The parts of one model under one audio chain; ``further`` describes passes beyond the standard ones."""

    def __init__(self, info: ModelInfo, spec: Spec, further: Mapping[str, Any] | None = None) -> None:
        version = diffusion.version(info) if info.family == "diffusion" else token.VERSION
        identity = {
            "schema": SCHEMA_VERSION,
            "model": info.key(),
            "audio": spec.key(),
            "extractors": {info.family: version, "blind": blind.VERSION},
        } | ({"further": dict(further)} if further else {})
        self.identity: dict[str, Any] = json.loads(json.dumps(identity))  # as a file holds it
        slug = "".join(c if c.isalnum() or c in "-." else "-" for c in info.name)
        self.folder = results_dir() / "signals" / f"{slug}-{digest(self.identity)[:16]}"

    def alike(self) -> Iterator[Store]:
        """Yield the stores of the same model, chain, extractors and seed for other passes, whatever wrote them."""
        stem, mine = self.folder.name[:-16], {**self.identity, "further": None}
        for folder in sorted(self.folder.parent.glob(f"{glob.escape(stem)}*")):
            if folder != self.folder and (identity := _identity_in(folder)) and {**identity, "further": None} == mine:
                other = copy(self)
                other.folder, other.identity = folder, identity
                yield other

    def index(self, keys: Set[str] | None = None, likely: Iterable[str] = ()) -> pd.DataFrame:
        """List what is stored of some tracks: track_key, segment_id, start_s, part (file name), row; a row per segment.

        ``likely`` names parts that may hold them. Those are looked at first, the rest, in the order of their names,
        only while a key is left that none before holds; so a track stored twice is served from the likely part. Parts
        of one of ``keys`` (default: every part) are read whole and compared with their checksum. One that cannot be
        read or differs is set aside under ``*.damaged`` with a warning, so that it is computed again.

        Raises
        ------
        StoreError
            A part written by a newer version, or a damaged one that cannot be set aside.
        """
        missing, frames = None if keys is None else set(keys), [pd.DataFrame(columns=[*INDEX, "part", "row"])]
        for path in self._paths(likely):
            if missing is not None and not missing:
                break
            if (frame := self._checked(path, missing)) is None:
                continue
            frame = frame.assign(part=path.name, row=np.arange(len(frame)))
            if missing is not None:
                frame = frame[frame["track_key"].isin(missing)]
                missing.difference_update(frame["track_key"])
            frames.append(frame)
        return pd.concat(frames[1:] or frames, ignore_index=True).drop_duplicates(["track_key", "segment_id"])

    def _paths(self, likely: Iterable[str]) -> Iterator[Path]:
        """Yield the parts: the likely ones, then, if asked on, all others by name."""
        first = {name: self.folder / name for name in likely}
        yield from (path for path in first.values() if path.exists())
        yield from (path for path in sorted(self.folder.glob("part-*.parquet")) if path.name not in first)

    def _checked(self, path: Path, keys: Set[str] | None) -> pd.DataFrame | None:
        """Return the index columns of a part; None where it holds no such key, or is damaged (it is set aside)."""
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                facts = facts_of(file.schema_arrow)
                if (schema := int(facts["schema"])) > SCHEMA_VERSION:
                    raise StoreError(
                        f"{path.name}: written by a newer Earwitness (schema {schema}, this one reads "
                        f"{SCHEMA_VERSION}); update Earwitness or move the file away"
                    )
                held = file.read(["track_key"], use_threads=False)["track_key"].to_pylist()
                if keys is not None and keys.isdisjoint(held):
                    return None
                frame = file.read(columns=INDEX, use_threads=False).to_pandas()
            self._verify(path, facts)
        except FileNotFoundError:  # another process cleaned it away or set it aside
            return None
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            if getattr(error, "errno", None) not in {None, errno.EISDIR}:  # sound or not: that cannot be seen now
                raise StoreError(f"{path.name}: cannot be read now ({reason_of(error)}); mend that; {RESUME}") from None
            _set_aside(path, f"{error}".partition("\n")[0])
            return None
        return frame

    def _verify(self, path: Path, facts: Mapping[str, Any]) -> None:
        """Compare a part with its CRCs, columns and store, once per state of the file; ValueError if they differ."""
        stat = path.stat()
        state = stat.st_size, stat.st_mtime_ns, stat.st_ino
        if _sound.get(path) == state:
            return
        if facts["identity"] != self.identity:
            raise ValueError("it belongs to another store")
        columns = columns_of(pq.read_table(path, page_checksum_verification=True))
        if columns != facts.get("columns", columns):  # older parts do not tell
            raise ValueError("its columns are not those that were written")
        _sound[path] = state

    def prepare(self) -> None:
        """Make sure that parts can be written here, before a model is loaded; raise StoreError if not."""
        probe = self.folder / f".writable.{os.getpid()}.tmp"
        with explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"1")
            probe.unlink()

    def write(self, rows: Sequence[Mapping[str, Any]], name: str = "", **about: Any) -> Path:
        """Write one part, whole or not at all; by default its name is the hash of the tracks in it.

        Raises
        ------
        StoreError
            A full disk, a folder that cannot be written.
        """
        path = self.folder / (name or part_name(list({row["track_key"] for row in rows})))
        with explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(path, encode(rows, self.identity, **about))
        return path

    def keys_in(self, name: str) -> set[str]:
        """Return the track keys of one part; none where there is no such part."""
        frame = self._checked(self.folder / name, None)
        return set() if frame is None else set(frame["track_key"])

    def path_of(self, part: str) -> Path:
        """Return where a part lies: here, or in a store that is alike, even where this one has no folder yet."""
        return Path(os.path.normpath(self.folder / part))

    def read(
        self, part: str, family: str, keep: Callable[[str], bool] = bool
    ) -> Iterator[tuple[tuple[str, str], dict[str, np.ndarray]]]:
        """Yield ((track_key, segment_id), arrays) per row of a part: what one extractor stored (``<family>:<name>``).

        ``keep`` says which names are wanted; ``part`` is a part's name, or ``../<another store>/<name>``.
        """
        path = self.path_of(part)
        try:
            file = pq.ParquetFile(path, page_checksum_verification=True)
            shapes = facts_of(file.schema_arrow)["shapes"]
            names = [n for n in file.schema_arrow.names if n.startswith(f"{family}:") and keep(n.partition(":")[2])]
            table = file.read(columns=[*INDEX, *names])
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{part}: was sound and is not any more ({error}); run the same command again") from None
        full = {}
        for name in names:
            column = table[name].combine_chunks()
            values = (column.flatten() if name in shapes else column).to_numpy(zero_copy_only=False)
            full[name.partition(":")[2]] = values.reshape(table.num_rows, *shapes.get(name, []))
        keys = zip(*(table[name].to_pylist() for name in INDEX[:2]), strict=True)
        yield from ((key, {name: values[row] for name, values in full.items()}) for row, key in enumerate(keys))

    def claim(self, name: str) -> FileLock | None:
        """Claim a part for this process until ``give_up``; None where another one holds it.

        A claim is a lock that the operating system keeps: it needs no clock and ends with the process that holds it,
        however that ends. Where the file system has no locks every claim is granted: two processes then do the same
        work twice, and store it once.
        """
        lock = FileLock(self.folder / f".{name}.lock", blocking=False, fallback_to_soft=False)
        try:
            lock.acquire()
        except Timeout:
            return None
        except OSError as error:
            log.info("%s: no locks here (%s)", self.folder, error)
        return lock

    def is_claimed(self, name: str) -> bool:
        """Say whether another process is at work on a part."""
        if not (self.folder / f".{name}.lock").exists():
            return False
        if (lock := self.claim(name)) is not None:
            give_up(lock)
        return lock is None


def give_up(claim: FileLock) -> None:
    """Let others have a part; its lock goes while it is held, so that nobody waits for a file that is gone."""
    if claim.is_locked:
        with suppress(OSError):
            Path(claim.lock_file).unlink(missing_ok=True)
        claim.release()


def _identity_in(folder: Path) -> dict[str, Any] | None:
    """Return the identity of the store in a folder, from the first part that tells one; None where none does."""
    for path in sorted(folder.glob("part-*.parquet")):
        with suppress(pa.ArrowException, OSError, ValueError, KeyError, TypeError):
            identity: dict[str, Any] = facts_of(pq.read_schema(path))["identity"]
            if folder.name.endswith(digest(identity)[:16]):
                return identity
    return None


def _set_aside(path: Path, reason: str) -> None:
    """Rename a damaged part so that it is neither served nor lost."""
    try:
        path.rename(path.with_suffix(".damaged"))
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(
            f"{path.name} is damaged ({reason}) and cannot be set aside ({error.strerror}); remove it"
        ) from None
    log.warning("%s is damaged (%s): set aside, its tracks will be scored again", path.name, reason)


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Turn an error of the file system into one line that says how to go on."""
    try:
        yield
    except OSError as error:
        mends = dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space")
        mends[errno.EFBIG] = "raise the limit on file sizes"
        mend = mends.get(error.errno or 0, "make it writable, or set EARWITNESS_RESULTS to a folder that is")
        raise StoreError(f"cannot write to {folder} ({error.strerror}): {mend}; {RESUME}") from None


# --- shards and parts -------------------------------------------------------------------------------------------------

PART_TRACKS = 32  # tracks in one part: what an interruption can cost
PART_SECONDS = 3600.0  # and seconds of audio: a part of hour-long recordings holds one
UNKNOWN_SECONDS = 240.0  # what a recording counts whose length neither the manifest nor its header tells


def parse_shard(text: str) -> tuple[int, int]:
    """Turn ``"2/8"`` into (2, 8): shards are numbered from 1."""
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and 1 <= int(index) <= int(count)):
        raise InputError(f"expected a shard as i/n with 1 <= i <= n, got {text!r}")
    return int(index), int(count)


def seconds_of(track: Track) -> float:
    """Return a track's length in seconds: the manifest's, else its header's; NaN where neither tells."""
    if math.isfinite(track.duration_s):
        return track.duration_s
    try:
        return probe(track.path).duration_s
    except AudioError:
        return math.nan


def _weight(track: Track) -> float:
    """Return the seconds that a track counts when work is divided."""
    seconds = seconds_of(track)
    return UNKNOWN_SECONDS if math.isnan(seconds) else max(seconds, 0.0)


def deal(tracks: Sequence[Track], shard: tuple[int, int]) -> list[Track]:
    """Return the tracks of the i-th of n shards, in the order given; shards are balanced by seconds of audio.

    The longest track goes first, each to the shard with the least so far: none exceeds another by more than one track.
    """
    index, count = shard
    if count == 1:
        return list(tracks)
    weights = [_weight(track) for track in tracks]
    order = sorted(range(len(tracks)), key=lambda i: (-weights[i], tracks[i].track_id))
    loads = [(0.0, number) for number in range(count)]
    mine = set()
    for i in order:
        load, number = loads[0]
        heapq.heapreplace(loads, (load + weights[i], number))
        if number == index - 1:
            mine.add(i)
    return [tracks[i] for i in sorted(mine)]


def exclusion(track: Track, reason: str) -> dict[str, str]:
    """Return the row that says why a track is left out."""
    return {"track_id": track.track_id, "role": track.role, "reason": reason}


def track_key(path: Path, content: str, caption: str) -> str:
    """Return the key of a recording under a caption: its bytes, the caption, and PyAV's versions where that decodes it.

    The versions of soundfile's decoders, which read all other formats, are in the key of the store. No caption is no
    text: models are told nothing.
    """
    return digest([content, caption or None, *([containers.version()] if containers.handles(path) else [])])


def key_tracks(tracks: Sequence[Track]) -> tuple[list[tuple[str, Track]], list[dict[str, str]]]:
    """Return (key of content and condition, track) for every readable file, and the exclusions."""
    keyed, excluded = [], []
    for track in tracks:
        name = track.path.name
        try:
            content = content_hash(track.path)
        except AudioError as error:
            excluded.append(exclusion(track, str(error)))
            continue
        if track.sha256 and track.sha256 != content:
            reason = f"{name}: its bytes differ from the manifest's sha256; restore the file or its hash"
            excluded.append(exclusion(track, reason))
        else:
            keyed.append((track_key(track.path, content, track.caption), track))
    return keyed, excluded


def parts_of(keyed: Sequence[tuple[str, Track]]) -> list[list[tuple[str, Track]]]:
    """Cut keyed tracks, each key once, into parts of at most ``PART_TRACKS`` tracks and ``PART_SECONDS`` seconds."""
    parts: list[list[tuple[str, Track]]] = []
    seconds = math.inf
    for key, track in sorted(dict(keyed).items(), key=lambda item: item[0]):
        weight = _weight(track)
        if not parts or len(parts[-1]) >= PART_TRACKS or seconds + weight > PART_SECONDS:
            parts.append([])
            seconds = 0.0
        parts[-1].append((key, track))
        seconds += weight
    return parts


def names_of(parts: Sequence[Sequence[tuple[str, Track]]]) -> list[str]:
    """Return the file names under which a run stores these parts."""
    return [part_name([key for key, _ in part]) for part in parts]
