"""Draws by lot that anybody can repeat: one caption per track, and members and non-members that are alike.

A lot is a hash of seed and track id, so that a recording that has gone changes no other draw. Matching is coarsened
exact matching (Iacus, King and Porro, *Political Analysis* 20, 2012): both sides are cut into cells of equal artist and
similar length and caption, and as many are drawn from each side of a cell as the smaller holds. The book page *Methods:
manifests* says what this does and does not remove.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import pandas as pd

LENGTH_STEP = 1.1  # recordings of one cell differ by less than a tenth in length
ALIKE = ("artist", "length", "words")
WORDS_STEP = 3  # captions of one cell differ by less than so many words


def lot(seed: int, name: str) -> int:
    """Return a number that seed and name decide alone: lower is drawn first."""
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=8).digest(), "big")


def one_caption(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return one row per track, its caption drawn by lot; the order of tracks stays."""
    lots = pd.Series(
        [lot(seed, f"{name}\0{text}") for name, text in zip(rows["track_id"], rows["caption"], strict=True)],
        index=rows.index,
        dtype="uint64",
    )
    first = lots.sort_values(kind="stable").index
    drawn = rows.loc[first].drop_duplicates("track_id").index
    return rows.loc[rows.index.isin(drawn)]


def cells(rows: pd.DataFrame) -> pd.DataFrame:
    """Return what must agree within a matched cell: artist, band of length, band of caption length, where known."""
    step = math.log(LENGTH_STEP)
    length = rows["duration_s"].map(lambda s: math.floor(math.log(s) / step) if s > 0 else -1_000_000)
    words = rows["caption"].map(lambda text: len(text.split()) // WORDS_STEP)
    return pd.DataFrame({"artist": rows["artist"], "length": length, "words": words}, index=rows.index)


def matched(
    rows: pd.DataFrame, member: pd.Series, nonmember: pd.Series, seed: int, alike: Sequence[str] = ALIKE
) -> pd.Series:
    """Say which tracks are drawn into the matched comparison.

    Parameters
    ----------
    rows : pandas.DataFrame
        One row per track: ``track_id, artist, caption, duration_s``.
    member, nonmember : pandas.Series of bool
        The two sides.
    seed : int
        Of the lots.
    alike : sequence of str
        What must agree: columns of ``cells``.

    Returns
    -------
    pandas.Series of bool
        In every cell as many members as non-members.
    """
    sides = rows[member | nonmember]
    lots = pd.Series([lot(seed, name) for name in sides["track_id"]], index=sides.index, dtype="uint64")
    order = lots.sort_values(kind="stable").index
    by = [column for _, column in cells(sides).loc[order, list(alike)].items()]
    side = member[order].rename("member")
    rank = side.groupby([*by, side], sort=False).cumcount()
    most = pd.concat([side, ~side], axis=1).groupby(by, sort=False).transform("sum").min(axis=1)
    drawn = rank < most
    return pd.Series(drawn, index=order).reindex(rows.index, fill_value=False)
