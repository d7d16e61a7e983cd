"""Where signals are kept: append-only Parquet parts under ``results/signals/<model>-<key>/``.

The key hashes everything that must be equal for two signals to be comparable (weights, dtype, library versions, audio
chain, extractors, seed), so another model, version or seed is another folder and is never served by luck. One row is
one segment; array columns are fixed-size lists whose shapes stand in the file's ``earwitness`` metadata. Parts are
written whole and renamed. The book page *Methods: from audio to verdict* documents the columns.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from earwitness.audio import AudioSpec
from earwitness.extractors import blind, diffusion, token
from earwitness.models.base import ModelInfo
from earwitness.paths import results_dir

SCHEMA_VERSION = 1

log = logging.getLogger(__name__)


def digest(content: Any) -> str:
    """Return the SHA-256 of something JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class Store:
    """The parts of one model under one audio chain; ``further`` describes passes beyond the standard ones."""

    def __init__(self, info: ModelInfo, spec: AudioSpec, further: Mapping[str, Any] | None = None) -> None:
        self.identity: dict[str, Any] = {
            "schema": SCHEMA_VERSION,
            "model": info.key(),
            "audio": spec.key(),
            "extractors": {
                info.family: {"token": token.VERSION, "diffusion": diffusion.VERSION}[info.family],
                "blind": blind.VERSION,
            },
        } | ({"further": dict(further)} if further else {})
        slug = "".join(c if c.isalnum() or c in "-." else "-" for c in info.name)
        self.folder = results_dir() / "signals" / f"{slug}-{digest(self.identity)[:16]}"

    def index(self) -> pd.DataFrame:
        """List what is stored: track_key, segment_id, start_s, part (file name), row; one row per segment.

        A part that cannot be read is set aside under ``*.damaged`` with a warning, so that it is computed again.
        """
        frames = []
        for path in sorted(self.folder.glob("part-*.parquet")):
            try:
                frame = pq.read_table(path, columns=["track_key", "segment_id", "start_s"]).to_pandas()
            except (pa.ArrowInvalid, OSError) as error:
                path.rename(path.with_suffix(".damaged"))
                log.warning("%s is damaged (%s): set aside, its tracks will be scored again", path.name, error)
                continue
            frames.append(frame.assign(part=path.name, row=np.arange(len(frame))))
        empty = pd.DataFrame(columns=["track_key", "segment_id", "start_s", "part", "row"])
        table = pd.concat(frames, ignore_index=True) if frames else empty
        return table.drop_duplicates(["track_key", "segment_id"])

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write one part, whole or not at all; its name is the hash of the tracks in it."""
        columns: dict[str, Any] = {}
        shapes: dict[str, list[int]] = {}
        for name in rows[0]:
            values = [row[name] for row in rows]
            if isinstance(values[0], np.ndarray):
                stacked = np.stack(values)
                shapes[name] = list(stacked.shape[1:])
                values = pa.FixedSizeListArray.from_arrays(stacked.ravel(), int(np.prod(shapes[name])))
            columns[name] = values
        table = pa.table(columns).replace_schema_metadata(
            {"earwitness": json.dumps({"shapes": shapes, "identity": self.identity})}
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        name = digest(sorted({row["track_key"] for row in rows}))[:16]
        unfinished = self.folder / f".part-{name}.{os.getpid()}.tmp"
        pq.write_table(table, unfinished, compression="zstd")
        unfinished.replace(self.folder / f"part-{name}.parquet")

    def read(self, part: str, family: str) -> list[dict[str, np.ndarray]]:
        """Return what one extractor stored (columns ``<family>:<name>``), one dictionary per row of the part."""
        file = pq.ParquetFile(self.folder / part)
        shapes = json.loads(file.schema_arrow.metadata[b"earwitness"])["shapes"]
        table = file.read(columns=[name for name in file.schema_arrow.names if name.startswith(f"{family}:")])
        full = {}
        for name in table.column_names:
            column = table[name].combine_chunks()
            values = (column.flatten() if name in shapes else column).to_numpy(zero_copy_only=False)
            full[name.partition(":")[2]] = values.reshape(table.num_rows, *shapes.get(name, []))
        return [{name: values[row] for name, values in full.items()} for row in range(table.num_rows)]
