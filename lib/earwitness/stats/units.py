"""From a tidy score table to one row per statistical unit.

The unit is the track (or the work, or the artist), never the segment: segments of one track are correlated, and tests
that count them as independent reject a true null far too often. Every unit contributes the same number of segments,
because unequal numbers make unit means unequally variable and push a nominal 5 % upwards. Both steps are blind to the
roles.

Book page: *Dataset inference*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import numpy.typing as npt
import pandas as pd

from earwitness.errors import InputError, nearest
from earwitness.types import (
    BLIND_PREFIX,
    PAPER_FEATURES,
    POSITIVE_ROLES,
    REFERENCE_ROLES,
    WINDOW,
    BoolArray,
    FloatArray,
    IntArray,
)

SIDE_LABELS = ((True, "suspect"), (False, "held-out"))  # is it the positive side, and what messages call it
COLUMNS = ("track_id", "segment_id", "artist", "work", "role", "attack", "score")

# The default number of segments per unit is the largest that this share of the units can deliver (both roles pooled).
_KEEP_SHARE = 0.9


@dataclass(frozen=True)
class ScoreColumns:
    """A score table with one row per segment and one column per attack, as :mod:`earwitness.stats.score_file` reads it.

    Attributes
    ----------
    keys : pandas.DataFrame, m rows
        Everything but attack and score.
    attacks : tuple of str, length a
    scores : numpy.ndarray, shape [m, a]
    absent : numpy.ndarray of bool, shape [m, a]
        True where the tidy table has no row.
    """

    keys: pd.DataFrame
    attacks: tuple[str, ...]
    scores: FloatArray
    absent: BoolArray


@dataclass(frozen=True)
class UnitTable:
    """One row per unit, one column per attack, sorted by unit name.

    Attributes
    ----------
    units, artists, works : numpy.ndarray of str, shape [n]
        Names; ``artists`` and ``works`` are "" where nothing is named. A unit has one artist; its work is that of its
        first row, of several if the unit is coarser than a work.
    positive : numpy.ndarray of bool, shape [n]
        True for members and suspects, False for non-members and held-out.
    attacks : tuple of str, length a
        Attack ids in order of first appearance.
    means : numpy.ndarray, shape [n, a]
        Mean of exactly ``segments_per_unit`` scores; NaN where one of them is NaN or absent.
    absent : numpy.ndarray of bool, shape [n, a]
        True where a drawn segment has no row at all for the attack (as opposed to a row that says NaN).
    segments_per_unit : int
    excluded : dict of str to int
        Reason -> number of units left out.
    """

    units: npt.NDArray[np.object_]
    artists: npt.NDArray[np.object_]
    works: npt.NDArray[np.object_]
    positive: BoolArray
    attacks: tuple[str, ...]
    means: FloatArray
    absent: BoolArray
    segments_per_unit: int
    excluded: dict[str, int]

    def columns(self, attacks: Sequence[str]) -> FloatArray:
        """Return the columns of ``attacks`` as an array [n, len(attacks)], in that order."""
        return self.means[:, [self.attacks.index(name) for name in attacks]]


def unit_table(
    scores: pd.DataFrame | ScoreColumns, unit: str = "track_id", *, segments_per_unit: int | None = None, seed: int = 0
) -> UnitTable:
    """Aggregate segment scores to units, with equal numbers of segments chosen without looking at roles.

    Segments of a recording are drawn by lot. Those of a score are its first windows, since a window's place in the
    piece moves what a symbolic model makes of it: a lot would put a longer piece further back than a shorter one.

    Parameters
    ----------
    scores : pandas.DataFrame or ScoreColumns
        Columns ``track_id, segment_id, artist, work, role, attack, score`` (and ``unit``, if it is none of these). With
        a column ``window`` (that of a symbolic model) segments of lowest number are taken, by lot among equals.
        Scores are oriented higher = more member-like; NaN means that the attack cannot say.
    unit : str
        Column that names the statistical unit.
    segments_per_unit : int, optional
        Number m of segments per unit. Default: the largest m that nine units in ten can deliver.
    seed : int
        Fixes the lot, which hashes track and segment ids, never the role.

    Raises
    ------
    InputError
        Missing columns or names, unknown roles, a unit in both roles, a unit of two artists, a track of two works,
        duplicate rows, infinite scores.
    """
    table = scores if isinstance(scores, pd.DataFrame) else scores.keys
    check_columns(table, (*COLUMNS[: None if table is scores else -2], unit))
    attacks = _codes(scores, "attack") if isinstance(scores, pd.DataFrame) else scores
    track_code, track_names = _codes(table, "track_id")
    name_code, name_names = _codes(table, "segment_id")
    segment_code, segment_keys = pd.factorize(track_code * np.int64(len(name_names)) + name_code)
    first = _first_row(segment_code, len(segment_keys))
    unit_code, unit_names = _codes(table, unit)
    _check_constant(unit_code, segment_code, first, table, f"segment belongs to more than one {unit}", "segment_id")

    track_first, unit_first = _first_row(track_code, len(track_names)), _first_row(unit_code, len(unit_names))
    artist_code, artist_names = _labels(table, "artist")
    work_code, work_names = _labels(table, "work")
    _check_constant(artist_code, track_code, track_first, table, "track of more than one artist", "track_id")
    _check_constant(work_code, track_code, track_first, table, "track of more than one work", "track_id")
    why = f"{unit} of more than one artist; choose a finer unit"
    _check_constant(artist_code, unit_code, unit_first, table, why, unit)

    side = _sides(table["role"])
    both = np.flatnonzero(side != side[unit_first][unit_code])
    if len(both):
        raise InputError(
            f"{unit} {table[unit].iloc[both[0]]!r} is in both roles; a unit is either suspect (member) or held-out "
            "(non-member): separate them in the manifest, or choose a finer unit"
        )

    attack_names, grid, absent = _grid(table, segment_code, first, attacks)
    n_segments, n_attacks = grid.shape
    segment_unit = unit_code[first]
    per_unit = np.bincount(segment_unit, minlength=len(unit_names))
    m = _segments_per_unit(segments_per_unit, per_unit)
    lot = _lots(track_names[track_code[first]], name_names[name_code[first]], seed)
    place = _places(table)[first]
    order = np.lexsort((lot, place, segment_unit))
    start = np.concatenate(([0], np.cumsum(per_unit)[:-1]))
    position = np.arange(n_segments) - np.repeat(start, per_unit)
    enough = per_unit >= m
    drawn = order[(position < m) & enough[segment_unit[order]]]

    kept = np.flatnonzero(enough)
    means = grid[drawn].reshape(len(kept), m, n_attacks).mean(axis=1)
    lacks = absent[drawn].reshape(len(kept), m, n_attacks).any(axis=1)
    excluded: dict[str, int] = {}
    for positive, label in SIDE_LABELS:
        short = int(np.sum(~enough & (side[unit_first] == positive)))
        if short:
            excluded[f"{label} units with fewer than {m} segments"] = short
    rows = unit_first[kept]
    names = np.asarray(unit_names, dtype=object)[kept]
    sort = np.argsort(names.astype(str), kind="stable")
    return UnitTable(
        units=names[sort],
        artists=artist_names[artist_code[rows]][sort],
        works=work_names[work_code[rows]][sort],
        positive=side[rows][sort],
        attacks=tuple(str(name) for name in attack_names),
        means=means[sort],
        absent=lacks[sort],
        segments_per_unit=m,
        excluded=excluded,
    )


def check_columns(scores: pd.DataFrame, needed: Sequence[str]) -> None:
    """Refuse a score table without rows, or without a column that is needed."""
    missing = [column for column in needed if column not in scores.columns]
    if missing:
        raise InputError(f"the score table needs the columns {', '.join(COLUMNS)}; missing: {', '.join(missing)}")
    if scores.empty:
        raise InputError("the score table has no rows")


def spread(scores: pd.DataFrame) -> ScoreColumns:
    """Turn a tidy score table into one row per segment, in the order of their first rows; whatever else it says stays.

    Raises
    ------
    InputError
        As ``unit_table`` for columns, ids and scores; a segment of which two rows say different things.
    """
    check_columns(scores, COLUMNS)
    attacks, (track_code, _), (name_code, names) = (_codes(scores, name) for name in ("attack", *COLUMNS[:2]))
    segment_code, segment_keys = pd.factorize(track_code * np.int64(len(names)) + name_code)
    first = _first_row(segment_code, len(segment_keys))
    said = [name for name in scores.columns if name not in ("attack", "score")]
    for name in said:
        codes = pd.factorize(scores[name])[0]
        _check_constant(codes, segment_code, first, scores, f"segment with more than one {name}", "segment_id")
    attack_names, grid, absent = _grid(scores, segment_code, first, attacks)
    keys = scores[said].iloc[first].reset_index(drop=True)
    return ScoreColumns(keys, tuple(str(name) for name in attack_names), grid, absent)


def _grid(
    scores: pd.DataFrame,
    segment_code: IntArray,
    first: IntArray,
    attacks: tuple[IntArray, npt.NDArray[np.object_]] | ScoreColumns,
) -> tuple[Sequence[str] | npt.NDArray[np.object_], FloatArray, BoolArray]:
    """Names of attacks, scores [segments, attacks], and where there is none; segments in order of their first rows."""
    if isinstance(attacks, ScoreColumns):
        if len(first) < len(segment_code):
            row = scores.iloc[int(np.flatnonzero(first[segment_code] != np.arange(len(segment_code)))[0])]
            raise InputError(
                f"duplicate rows: segment {row['segment_id']!r} of track {row['track_id']!r} stands more than once; "
                "keep one row per segment"
            )
        score, grid, absent = attacks.scores, attacks.scores, attacks.absent
        names: Sequence[str] | npt.NDArray[np.object_] = attacks.attacks
    else:
        code, names = attacks
        cell = segment_code * np.int64(len(names)) + code
        count = np.bincount(cell, minlength=len(first) * len(names))
        if count.max() > 1:
            row = scores.iloc[int(np.flatnonzero(cell == count.argmax())[1])]
            raise InputError(
                f"duplicate rows: attack {row['attack']!r} scores segment {row['segment_id']!r} of track "
                f"{row['track_id']!r} more than once; keep one row per segment and attack"
            )
        if not pd.api.types.is_numeric_dtype(scores["score"]):
            raise InputError(f"column 'score' of the score table must hold numbers, got {scores['score'].dtype}")
        score = scores["score"].to_numpy(dtype=np.float64)
        grid = np.full((len(first), len(names)), np.nan)
        grid[segment_code, code] = score
        absent = (count == 0).reshape(grid.shape)
    if (endless := np.isinf(score)).any():
        at = np.argwhere(endless)[0]
        row = scores.iloc[int(at[0])]
        attack, value = (names[at[1]], score[tuple(at)]) if len(at) > 1 else (row["attack"], row["score"])
        raise InputError(
            f"non-finite score: attack {attack!r}, segment {row['segment_id']!r}, track {row['track_id']!r} is "
            f"{value}; scores must be finite, or NaN where the attack cannot say"
        )
    return names, grid, absent


def add_units(scores: pd.DataFrame) -> pd.DataFrame:
    """Return a score table with a column ``unit``: the first track of a work, or the track where no work is named.

    Takes of one work by several artists, or in several roles, are several units.
    """
    named = is_named(scores["work"])
    first = scores[named].groupby(["work", "artist", "role"], dropna=False, sort=False)["track_id"].transform("first")
    return scores.assign(unit=first.reindex(scores.index).where(named, scores["track_id"]))


def without_origin(scores: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return scores that say no more than they must about the recordings, and give every statistic the same value.

    Segments are called by their place in the lot that ``unit_table`` draws with this seed, which stands in ``window``
    too, instead of by a hash of their sound. Blind features that are one for a whole recording, such as its length to
    the sample, become their ranks.

    Parameters and errors as for :func:`unit_table`.
    """
    cuts = scores[["track_id", "segment_id"]].assign(place=_places(scores)).drop_duplicates()
    cuts["lot"] = _lots(cuts["track_id"].to_numpy(), cuts["segment_id"].to_numpy(), seed)
    cuts = cuts.sort_values(["track_id", "place", "lot"])
    cuts[WINDOW] = cuts.groupby("track_id").cumcount()
    found = scores.drop(columns=WINDOW, errors="ignore").merge(cuts.drop(columns=["place", "lot"]))
    found["segment_id"] = found[WINDOW].map("{:03d}".format)
    for name in found["attack"].unique():
        rows = found["attack"] == name
        values = found.loc[rows, "score"]
        one = values.groupby(found.loc[rows, "track_id"]).nunique(dropna=False).max() == 1
        if name.startswith(BLIND_PREFIX) and one:
            found.loc[rows, "score"] = values.rank(method="dense")
    return found


def largest_difference(stored: pd.DataFrame, again: pd.DataFrame) -> tuple[float, str, str]:
    """Return by how many standard deviations scores differ at most from those stored, of which attack and which track.

    Parameters
    ----------
    stored, again : pandas.DataFrame
        Tidy scores; ``again`` of some tracks only. Standard deviations are those of all stored segments. A segment that
        only one of them has, or has a score for, differs infinitely.
    """
    ids = ["track_id", "segment_id", "attack"]
    mine = stored[stored["track_id"].isin(set(again["track_id"]))]
    both = mine.merge(again, "outer", ids, suffixes=("", "_again"), indicator="side").reset_index(drop=True)
    spread = stored.groupby("attack")["score"].std().replace(0.0, 1.0).fillna(1.0)
    apart = (both["score"] - both["score_again"]).abs() / both["attack"].map(spread)
    apart[both["score"].isna() & both["score_again"].isna() & (both["side"] == "both")] = 0.0
    worst = int(np.argmax(apart.fillna(np.inf)))
    return float(apart.fillna(np.inf)[worst]), both["attack"][worst], both["track_id"][worst]


def _lots(tracks: npt.NDArray[np.object_], segments: npt.NDArray[np.object_], seed: int) -> npt.NDArray[np.uint64]:
    """Return the lot of each segment."""
    ids = pd.DataFrame({"track": tracks.astype(object), "segment": segments.astype(object)})
    lots = pd.util.hash_pandas_object(ids, index=False, hash_key=f"{seed % 10**16:016d}")
    return np.asarray(lots, dtype=np.uint64)


def matching(attacks: Sequence[str], spec: str | Sequence[str]) -> list[str]:
    """Resolve names, globs or ``"paper"`` against the attack ids of a table, keeping the table's order.

    Raises
    ------
    InputError
        A name that matches nothing; the message suggests the nearest id.
    """
    wanted = [spec] if isinstance(spec, str) else list(spec)
    found: set[str] = set()
    if "paper" in wanted:
        wanted = [name for name in wanted if name != "paper"] + paper_features(attacks)
    for pattern in wanted:
        hits = [name for name in attacks if name == pattern] or [name for name in attacks if fnmatchcase(name, pattern)]
        if not hits:
            raise InputError(f"no attack {pattern!r} in the score table{nearest(pattern, attacks)}")
        found.update(hits)
    return [name for name in attacks if name in found]


def paper_features(attacks: Sequence[str]) -> list[str]:
    """Return the paper's features (``types.PAPER_FEATURES``) of the kind of model that a table holds them for.

    Raises
    ------
    InputError
        The table lacks some, for every kind; the nearest kind is named.
    """
    lists = {kind: [name for names in rows.values() for name in names] for kind, rows in PAPER_FEATURES.items()}
    lacking = {kind: [name for name in names if name not in attacks] for kind, names in lists.items()}
    kind = min(lacking, key=lambda kind: len(lacking[kind]) / len(lists[kind]))
    if lacking[kind]:
        raise InputError(
            f"the score table lacks {len(lacking[kind])} of the paper's {len(lists[kind])} features for {kind} models, "
            f"{lacking[kind][0]} first; collect and score with attacks='paper'"
        )
    return lists[kind]


def _codes(scores: pd.DataFrame, column: str) -> tuple[IntArray, npt.NDArray[np.object_]]:
    """Integer codes and names of a column, refusing empty names."""
    codes, names = pd.factorize(scores[column])
    if (codes < 0).any():
        raise InputError(f"column {column!r} of the score table has an empty value in row {int((codes < 0).argmax())}")
    return codes.astype(np.int64), np.asarray(names, dtype=object)


def _places(scores: pd.DataFrame) -> FloatArray:
    """Place of each row's segment in its piece; nowhere in particular without a column that tells it."""
    if WINDOW not in scores:
        return np.zeros(len(scores))
    place: FloatArray = pd.to_numeric(scores[WINDOW], errors="coerce").to_numpy(dtype=np.float64)
    if np.isnan(place).any():
        row = int(np.isnan(place).argmax())
        raise InputError(f"column {WINDOW!r} of the score table needs a number in every row; row {row} has none")
    return place


def _labels(scores: pd.DataFrame, column: str) -> tuple[IntArray, npt.NDArray[np.object_]]:
    """Integer codes and names of a column that may be empty; None, NaN and blanks are all the name ""."""
    codes, names = pd.factorize(scores[column])
    named = ["" if str(name).strip() == "" else name for name in np.asarray(names, dtype=object)]
    merged, labels = pd.factorize(np.array([*named, ""], dtype=object))  # a missing value has code -1: the last one
    return merged[codes].astype(np.int64), np.asarray(labels, dtype=object)


def is_named(column: pd.Series) -> pd.Series:
    """Say of each entry whether it names something: None, NaN and blanks do not."""
    return column.notna() & (column.astype(str).str.strip() != "")


def _first_row(codes: IntArray, n: int) -> IntArray:
    """Row of the first appearance of each code."""
    first = np.empty(n, dtype=np.int64)
    first[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)
    return first


def _check_constant(
    value: IntArray,
    group: IntArray,
    first: IntArray,
    scores: pd.DataFrame,
    what: str,
    column: str,
) -> None:
    bad = np.flatnonzero(value != value[first][group])
    if len(bad):
        raise InputError(f"{what}: {column} {scores[column].iloc[bad[0]]!r} (row {bad[0]} of the score table)")


def _sides(role: pd.Series) -> BoolArray:
    codes, names = pd.factorize(role)
    known = (*POSITIVE_ROLES, *REFERENCE_ROLES)
    for name in names:
        if name not in known:
            raise InputError(f"unknown role {name!r} in the score table; expected one of {', '.join(known)}")
    if (codes < 0).any():
        raise InputError(f"column 'role' of the score table has an empty value in row {int((codes < 0).argmax())}")
    side: BoolArray = np.isin(np.asarray(names, dtype=object), POSITIVE_ROLES)[codes]
    if side.all() or not side.any():
        lacking = "held_out or nonmember" if side.all() else "suspect or member"
        raise InputError(f"the score table has no {lacking} rows; both roles are needed")
    return side


def _segments_per_unit(wanted: int | None, per_unit: IntArray) -> int:
    if wanted is None:
        return int(np.quantile(per_unit, 1 - _KEEP_SHARE, method="lower"))
    if wanted < 1:
        raise InputError(f"segments_per_unit must be at least 1, got {wanted}")
    if not (per_unit >= wanted).any():
        raise InputError(f"no unit has {wanted} segments; the longest has {int(per_unit.max())}")
    return int(wanted)
