"""Score tables on disk: Parquet with one row per segment and one column per attack, read by the columns that are asked.

A tidy table repeats who a segment is for every attack. In the file it stands once, attacks are columns of their own,
and an audit of a hundred thousand works reads the few that it tests. Several files of one folder are one table: a
large catalogue is scored, and written, in parts. NaN means that an attack cannot say, null that it has no score at all.

Book page: *What an audit costs*.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from earwitness.errors import InputError
from earwitness.stats.units import COLUMNS, ScoreColumns, check_columns, spread
from earwitness.types import WINDOW
from earwitness.util import reason_of, write_whole

Scores = pd.DataFrame | ScoreColumns | str | Path
KEYS = COLUMNS[:-2]
MARK = b"earwitness.attacks"  # the file's own list of attacks


def write_scores(scores: pd.DataFrame | ScoreColumns, path: str | Path) -> None:
    """Write a tidy score table as Parquet, whole or not at all; its folder must exist.

    Parameters
    ----------
    scores : pandas.DataFrame or ScoreColumns
        As :func:`earwitness.score` returns it; further columns, which say something of a segment, are kept.
    path : str or Path
        File to write. ``infer`` and ``compare`` read it, or a folder of such files.

    Raises
    ------
    InputError
        As :func:`earwitness.stats.units.unit_table`; a segment of which two rows say different things.

    Examples
    --------
    >>> write_scores(ew.score(signals, "audit"), "scores/part-1.parquet")  # doctest: +SKIP
    >>> ew.infer("scores")  # doctest: +SKIP
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    held = spread(scores) if isinstance(scores, pd.DataFrame) else scores
    columns = {}
    for name in held.keys:
        try:
            column = pa.array(held.keys[name], from_pandas=True)
        except pa.ArrowException:
            raise InputError(f"column {name!r} of the score table mixes kinds of values; make them all text") from None
        column = column.cast(pa.large_string()) if pa.types.is_null(column.type) else column  # none is named
        text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        columns[name] = column.dictionary_encode() if text else column
    columns |= {name: pa.array(held.scores[:, j], mask=held.absent[:, j]) for j, name in enumerate(held.attacks)}
    table = pa.table(columns).replace_schema_metadata({MARK: json.dumps(held.attacks)})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    write_whole(Path(path), sink.getvalue().to_pybytes())


def opened(
    scores: Scores, further: Sequence[str], asked: Callable[[list[str]], Sequence[str]] = lambda held: held
) -> pd.DataFrame | ScoreColumns:
    """Return a table that is held as it is, and of a file, or a folder of files, what is needed.

    Parameters
    ----------
    scores : pandas.DataFrame, ScoreColumns, str or Path
    further : sequence of str
        Columns needed beside the standard ones.
    asked : callable
        Which of the attacks that the file holds are wanted; default all.

    Raises
    ------
    InputError
        No such file, one that is damaged or no score table, files of one folder with different attacks.
    """
    if not isinstance(scores, str | Path):
        return scores
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(scores)
    parts = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not parts or not path.exists():
        raise InputError(f"{path.name}: expected score tables (*.parquet), found none there; check the path")
    tables, attacks = [], None
    for part in parts:
        try:
            with pq.ParquetFile(part, page_checksum_verification=True) as file:
                names, held = file.schema_arrow.names, json.loads((file.schema_arrow.metadata or {})[MARK])
                if sorted(attacks or held) != sorted(held):
                    other = sorted(set(held) ^ set(attacks or held))[0]
                    why = f"scores other attacks than {parts[0].name} (first: {other!r})"
                    raise InputError(f"{part.name}: {why}; score the same attacks in every part")
                attacks = attacks or held
                keys = [name for name in dict.fromkeys((*KEYS, WINDOW, *further)) if name in names]
                chosen = list(asked(attacks))
                tables.append(file.read(columns=[*keys, *chosen], use_threads=False).select([*keys, *chosen]))
        except KeyError:
            raise InputError(f"{part.name}: is no score table; write it with earwitness.stats.write_scores") from None
        except (pa.ArrowException, OSError, ValueError) as error:
            reason = reason_of(error).partition("\n")[0]
            raise InputError(f"{part.name}: expected a score table (Parquet): {reason}; write it again") from None
    table = pa.concat_tables(tables, promote_options="permissive").unify_dictionaries()
    keyed = table.drop_columns(chosen).to_pandas()
    check_columns(keyed, KEYS)
    values = np.empty((len(keyed), len(chosen)))
    absent = np.zeros(values.shape, dtype=bool)
    for j, name in enumerate(chosen):
        values[:, j], absent[:, j] = table[name].to_numpy(), table[name].is_null().to_numpy()
    return ScoreColumns(keyed, tuple(chosen), values, absent)
