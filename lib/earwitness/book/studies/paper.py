"""The tables of arXiv 2512.09654 by its authors' own procedures, the level of each under true nulls, and its defects.

Nothing here is a test of this project: ``stats.peers`` holds the procedures as coded. What stands beside them is
counted, on units that no model was trained on, dealt to two sides by lot.

Book pages: *The paper's membership table* and *The paper's dataset inference*. Book page: *As coded, as meant*.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from earwitness.errors import InputError
from earwitness.signals import symbolic
from earwitness.stats.metrics import auc, rate
from earwitness.stats.null_audits import Recipe
from earwitness.stats.peers import (
    PAPER_FIRST,
    PAPER_LEVEL,
    PAPER_SIZES,
    inference_as_coded,
    mean_p,
    membership_as_coded,
    smallest_size,
)
from earwitness.stats.prepare import Names
from earwitness.stats.units import matching, paper_features, unit_table
from earwitness.types import PAPER_FEATURES, FloatArray

BATCH = 100  # audits or draws at once
SIMULATED = "simulated"


@dataclass(frozen=True)
class Sides:
    """The paper's features of members and non-members, each side in an order dealt by lot.

    Attributes
    ----------
    member, nonmember : numpy.ndarray, shapes [n, p], [k, p]
        Units; higher = more member-like.
    names : tuple of str
        The features, as ``types.PAPER_FEATURES`` of the model's kind has them.
    rows : mapping
        Row of the paper's table -> its features.
    """

    member: FloatArray
    nonmember: FloatArray
    names: tuple[str, ...]
    rows: Mapping[str, Sequence[str]]

    @property
    def fixed(self) -> dict[str, str]:
        """The variant of each row that is named before anything is looked at: the one in the middle of its list."""
        return {row: variants[len(variants) // 2] for row, variants in self.rows.items()}


def sides(scores: pd.DataFrame, features: Names = "paper", *, seed: int = 0) -> Sides:
    """Return features of a score table, the paper's by default: clips or pieces as units.

    The code takes units in the order of its files, the same places on both sides. Files of one artist follow each
    other, so that order is dealt anew here.
    """
    table = unit_table(scores, seed=seed)
    names = paper_features(table.attacks) if features == "paper" else matching(table.attacks, features)
    values = table.columns(names)
    papers = [rows for rows in PAPER_FEATURES.values() if names[0] in next(iter(rows.values()))]
    rows = papers[0] if features == "paper" else {name: (name,) for name in names}
    order = np.random.default_rng((seed, 11)).permutation(len(values))
    member, nonmember = (values[order[table.positive[order] == side]] for side in (True, False))
    return Sides(member, nonmember, tuple(names), rows)


# --- membership -------------------------------------------------------------------------------------------------------


def membership(found: Sides, *, n_nulls: int = 100, seed: int = 0) -> pd.DataFrame:
    """Return the paper's membership table of one model, and what it shows where nothing is to be found.

    Parameters
    ----------
    found : Sides
        From :func:`sides`.
    n_nulls : int
        How often the non-members are dealt to two sides.
    seed : int
        Fixes draws and deals.

    Returns
    -------
    pandas.DataFrame
        ``row, variant, n``; ``tpr`` with the 95 % interval of so many members, ``auc``, ``accuracy``; under true
        nulls, of half as many units a side as there are non-members, ``null_n``, the mean ``null_tpr``, ``null_auc``,
        ``null_accuracy``, and the rate that one null in twenty exceeds, ``null_tpr_high``.
    """
    table = membership_as_coded(found.member, found.nonmember, found.names, found.rows, seed=seed)
    limits = [rate(round(t * n), n) for t, n in zip(table["tpr"], table["n"], strict=True)]
    table["tpr_low"], table["tpr_high"] = ([getattr(i, edge) for i in limits] for edge in ("low", "high"))
    rng = np.random.default_rng((seed, 12))
    half = len(found.nonmember) // 2
    if half < 2:
        raise InputError(f"nulls are dealt from non-members, at least 4 of them, got {len(found.nonmember)}")
    nulls = pd.concat(
        membership_as_coded(found.nonmember[a], found.nonmember[b], found.names, found.rows, seed=seed)
        for a, b in (np.split(rng.permutation(len(found.nonmember))[: 2 * half], 2) for _ in range(n_nulls))
    )
    by_row = nulls.groupby("row", sort=False)
    for quantity in ("tpr", "auc", "accuracy"):
        table[f"null_{quantity}"] = table["row"].map(by_row[quantity].mean())
    table["null_tpr_high"] = table["row"].map(by_row["tpr"].quantile(0.95))
    return table.assign(null_n=half)


# --- dataset inference ------------------------------------------------------------------------------------------------


def null_rate(
    nonmember: FloatArray,
    size: int,
    recipe: Recipe,
    *,
    n_audits: int = 1000,
    alpha: float = PAPER_LEVEL,
    seed: int = 0,
) -> float:
    """Return the share of audits without members, ``size`` units a side, in which one draw's p-value is <= alpha."""
    found = [recipe(a, b, seed=seed) for a, b in deals(nonmember, size, n_audits, seed)]
    return float(np.mean(np.concatenate([np.atleast_1d(p) for p in found]) <= alpha))


def deals(units: FloatArray, size: int, n_audits: int, seed: int) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Yield batches of two sides [<= BATCH, size, ...] dealt by lot from the same units."""
    if 2 * size > len(units):
        raise InputError(f"two sides of {size} units need {2 * size} non-members, got {len(units)}")
    rng = np.random.default_rng((seed, 13, size))
    for start in range(0, n_audits, BATCH):
        drawn = np.stack([rng.permutation(len(units))[: 2 * size] for _ in range(min(BATCH, n_audits - start))])
        yield units[drawn[:, :size]], units[drawn[:, size:]]


def normal_units(like: FloatArray, n: int, rng: np.random.Generator) -> FloatArray:
    """Return ``n`` units [n, p] of a normal distribution with the mean and covariance of some: for sizes beyond them.

    Tails heavier than normal, and units that resemble each other, are not in it.
    """
    return rng.multivariate_normal(like.mean(axis=0), np.cov(like, rowvar=False), size=n, method="svd")


def needed(
    found: Sides,
    recipes: Mapping[str, Recipe],
    *,
    sizes: Sequence[int] = PAPER_SIZES,
    n_draws: int = 1000,
    n_audits: int = 1000,
    most: int = 0,
    seed: int = 0,
) -> pd.DataFrame:
    """Run recipes at every size of the paper's list, with their rate of rejection where nothing is to be found.

    Parameters
    ----------
    recipes : mapping
        Name -> recipe of ``stats.peers``' signature.
    sizes : sequence of int
        Units a side. Those beyond the data, and nulls beyond half of the non-members, are simulated.
    n_draws, n_audits : int
        Draws of the data, and null audits, per size.
    most : int
        Largest size; 0: no limit.

    Returns
    -------
    pandas.DataFrame
        ``recipe, size, mean_p`` (over draws: the paper's headline), ``rejected`` (share of draws with p <= .01),
        ``null_rejected`` (the same of null audits), ``source`` and ``null_source`` (``"units"`` or ``"simulated"``).
    """
    lots = [x[:PAPER_FIRST] for x in (found.member, found.nonmember)]
    rows: list[dict[str, Any]] = []
    for size in (size for size in sizes if not most or size <= most):
        rng = np.random.default_rng((seed, 14, size))
        held = size <= min(map(len, lots))
        nulls_held = 2 * size <= len(found.nonmember)
        draws = [*_draws(lots, size, n_draws, rng)] if held else [*_simulated(lots, size, n_draws, rng)]
        like = [found.nonmember, found.nonmember]
        nulls = [*deals(found.nonmember, size, n_audits, seed)] if nulls_held else [
            *_simulated(like, size, n_audits, rng)
        ]  # fmt: skip
        for name, recipe in recipes.items():
            p, null = (np.concatenate([recipe(a, b, seed=seed) for a, b in part]) for part in (draws, nulls))
            rows.append(
                {
                    **{"recipe": name, "size": size, "mean_p": p.mean(), "rejected": np.mean(p <= PAPER_LEVEL)},
                    **{"null_rejected": np.mean(null <= PAPER_LEVEL), "source": "units" if held else SIMULATED},
                    "null_source": "units" if nulls_held else SIMULATED,
                }
            )
    return pd.DataFrame(rows)


def _draws(
    lots: Sequence[FloatArray], size: int, n: int, rng: np.random.Generator
) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Yield batches of draws as the paper makes them: the same places on both sides."""
    smaller = min(map(len, lots))
    for start in range(0, n, BATCH):
        place = np.stack([rng.permutation(smaller)[:size] for _ in range(min(BATCH, n - start))])
        yield lots[0][place], lots[1][place]


def _simulated(
    lots: Sequence[FloatArray], size: int, n: int, rng: np.random.Generator
) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Yield batches of draws from normal distributions fitted to each side."""
    batch = max(1, BATCH * 100 // size)
    for start in range(0, n, batch):
        count = min(batch, n - start)
        one, other = (normal_units(x, count * size, rng).reshape(count, size, -1) for x in lots)
        yield one, other


def smallest(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per recipe of :func:`needed`: the paper's headline, and what a test of a stated level needs.

    ``as_coded``: smallest size with a mean p <= .01; ``as_meant``: smallest size at which 80 % of draws reject at .01;
    each with where it comes from (units or simulated), NaN where no size is enough; ``null_rejected``: the rate of
    rejected nulls over all sizes together.
    """
    rows = []
    for name, part in table.groupby("recipe", sort=False):
        row: dict[str, Any] = {"recipe": name, "null_rejected": part["null_rejected"].mean()}
        for headline, enough in (("as_coded", part["mean_p"] <= PAPER_LEVEL), ("as_meant", part["rejected"] >= 0.8)):
            first = part[enough].head(1)
            row[headline] = float(first["size"].iloc[0]) if len(first) else np.nan
            row[f"{headline}_source"] = first["source"].iloc[0] if len(first) else ""
        rows.append(row)
    return pd.DataFrame(rows)


# --- as coded, as meant -----------------------------------------------------------------------------------------------


def compared(where: str, measure: str, as_coded: float, as_meant: float, **more: Any) -> dict[str, Any]:
    """Return one row of the table of defects: ``where, measure, as_coded, as_meant, source`` and what is given."""
    return {"where": where, "measure": measure, "as_coded": as_coded, "as_meant": as_meant, "source": "units"} | more


def defects(
    found: Sides,
    *,
    repeats: int = 5,
    missing: float = 0.1,
    n_audits: int = 1000,
    n_sets: int = 100,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Measure the defects of the paper's code that any model shows, on non-members dealt to two sides by lot.

    Every rate is that of the paper's own test, one draw, p <= .01, on ``size`` = a quarter of the non-members a side;
    only the defect differs.

    Parameters
    ----------
    repeats : int
        How often each held-out clip counts, as AudioCaps' test clips do with one row per caption.
    missing : float
        Share of the suspects whose features are missing.
    n_audits, n_sets : int
        How many null audits are dealt for a rate, and how many null data sets for a headline or a membership table.
    """
    units, size = found.nonmember, len(found.nonmember) // 4
    rng = np.random.default_rng((seed, 15))
    options = {"n_audits": n_audits, "seed": seed}
    right = null_rate(units, size, inference_as_coded, **options)

    def repeated(suspect: FloatArray, held_out: FloatArray, **_: Any) -> FloatArray:
        few = -(-held_out.shape[-2] // repeats)
        return inference_as_coded(suspect, np.repeat(held_out[..., :few, :], repeats, axis=-2))

    def with_gaps(suspect: FloatArray, held_out: FloatArray, **_: Any) -> FloatArray:
        gone = rng.random(suspect.shape[:-1]) < missing
        return inference_as_coded(np.where(gone[..., None], np.nan, suspect), held_out)

    lacking = [name for name in found.names if not name.startswith("min_k++_var")]
    kept = [found.names.index(name) for name in lacking]

    def better_of_two(suspect: FloatArray, held_out: FloatArray, **_: Any) -> FloatArray:
        part = inference_as_coded(suspect[..., kept], held_out[..., kept])
        return np.minimum(inference_as_coded(suspect, held_out), part)

    told = "true nulls rejected at .01"
    rows = [
        compared("test clips: one row per caption", told, null_rate(units, size, repeated, **options), right),
        compared("missing scores: 0", told, null_rate(units, size, with_gaps, **options), right, source="planted"),
    ]
    if len(kept) < len(found.names):
        chosen = null_rate(units, size, better_of_two, **options)
        rows.append(compared("Min-K %++: kept or dropped after the result", told, chosen, right))
    turned = mean_p(inference_as_coded, found.nonmember, found.member, size=size, n_draws=100, seed=seed)
    one_sided = mean_p(_one_sided, found.nonmember, found.member, size=size, n_draws=100, seed=seed)
    rows.append(compared("direction: not used", "mean p, sides exchanged", turned, one_sided))
    rows += [_headline(units, n_sets, seed=seed), *_variants(found, n_sets, seed=seed)]
    return rows


def _headline(units: FloatArray, n_sets: int, n_draws: int = 30, seed: int = 0) -> dict[str, Any]:
    """Measure the paper's headline on data sets without members: is any n found, against one test of all units."""
    rng, half, found = np.random.default_rng((seed, 18)), len(units) // 2, np.zeros((n_sets, 2))
    for i in range(n_sets):
        one, other = np.split(units[rng.permutation(len(units))[: 2 * half]], 2)
        found[i, 0] = smallest_size(inference_as_coded, one, other, n_draws=n_draws, seed=i)[1] is not None
        found[i, 1] = inference_as_coded(one, other) <= PAPER_LEVEL
    return compared("headline: smallest n whose mean p is at most .01", "nulls with such an n", *found.mean(axis=0))


def _one_sided(suspect: FloatArray, held_out: FloatArray, **_: Any) -> FloatArray:
    """Return p-values of the same test against suspects that are *more* member-like."""
    both = inference_as_coded(suspect, held_out)
    scaled = np.concatenate((suspect, held_out), axis=-2)
    low, high = scaled.min(axis=-2, keepdims=True), scaled.max(axis=-2, keepdims=True)
    total = ((scaled - low) / np.where(high > low, high - low, 1.0)).sum(axis=-1)
    n = suspect.shape[-2]
    more = total[..., :n].mean(axis=-1) > total[..., n:].mean(axis=-1)
    return np.where(more, both / 2, 1 - both / 2)


def _variants(found: Sides, n_nulls: int, seed: int = 0) -> list[dict[str, Any]]:
    """Measure what choosing the best variant, and dividing by the maximum, do to a membership table."""
    rng = np.random.default_rng((seed, 16))
    half = len(found.nonmember) // 2
    rows, fixed = [], {row: [name] for row, name in found.fixed.items()}
    rates = np.zeros((n_nulls, 2))
    for i in range(n_nulls):
        one, other = np.split(found.nonmember[rng.permutation(len(found.nonmember))[: 2 * half]], 2)
        for j, chosen in enumerate((found.rows, fixed)):
            table = membership_as_coded(one, other, found.names, chosen)
            rates[i, j] = table.loc[table["row"].isin([r for r, v in found.rows.items() if len(v) > 1]), "tpr"].mean()
    rows.append(compared("best variant: chosen on these data", "TPR at 1 % FPR of nulls, mean", *rates.mean(axis=0)))
    for name in found.names:
        column = found.names.index(name)
        member, nonmember = (np.nan_to_num(side[:, column]) for side in (found.member, found.nonmember))
        coded = membership_as_coded(member[:, None], nonmember[:, None], [name], {name: [name]})["auc"].item()
        meant = auc(member, nonmember).value
        if np.isfinite(meant) and abs(coded - meant) > 0.02:
            rows.append(compared("scores: divided by their maximum", f"AUC of {name}", coded, meant))
    return rows


def windows_as_items(scores: pd.DataFrame, *, n_audits: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Measure what counting windows of a piece as items does: true nulls that the paper's test rejects at .01."""
    table = unit_table(scores, seed=seed)
    names, m = paper_features(table.attacks), table.segments_per_unit
    if m < 2:
        raise InputError("windows as items need pieces of two windows or more")
    own = scores[scores["attack"].isin(names) & scores["track_id"].isin(table.units[~table.positive])]
    wide = own.pivot_table(index=["track_id", "segment_id"], columns="attack", values="score")[names]
    windows = wide.groupby(level=0, sort=False).head(m).to_numpy().reshape(-1, m, len(names))
    size = len(windows) // 4

    def items(suspect: FloatArray, held_out: FloatArray, **_: Any) -> FloatArray:
        flat = (side.reshape(len(side), -1, len(names)) for side in (suspect, held_out))
        return inference_as_coded(*flat)

    def pieces(suspect: FloatArray, held_out: FloatArray, **_: Any) -> FloatArray:
        return inference_as_coded(suspect.mean(axis=2), held_out.mean(axis=2))

    rates = [null_rate(windows, size, recipe, n_audits=n_audits, seed=seed) for recipe in (items, pieces)]
    return compared("windows of one piece: items", "true nulls rejected at .01", *rates)


def against_inputs(scores: pd.DataFrame, *, seed: int = 0) -> list[dict[str, Any]]:
    """Compare each feature of a score against the tokens it was just given (as coded) and against the next ones."""
    table = unit_table(scores, seed=seed)
    rows = []
    for names in PAPER_FEATURES["symbolic"].values():
        for name in names:
            coded, meant = (
                auc(
                    *(values[np.isfinite(values)] for values in (column[table.positive], column[~table.positive]))
                ).value
                for column in table.columns([name.replace("contrast_whole", "contrast_inputs"), name]).T
            )
            rows.append(compared("targets: the network's own inputs", f"AUC of {name.partition('/')[0]}", coded, meant))
    return rows


def padded_loss(
    signals: Any, *, padding: float = 0.0, shortest: int = 64, seed: int = 0, name: str = "contrast_whole"
) -> dict[str, Any]:
    """Say what padding that counts does where two sides of non-members differ in nothing but length.

    Every first window of a non-member is cut to a length by lot, the suspects' in the lower half of what is possible,
    the rest would be ``<pad>``. As coded the mean runs over all positions, a padded one at ``padding`` nats.
    """
    rng = np.random.default_rng((seed, 17))
    first: dict[str, FloatArray] = {}
    for row, signal in signals.items("token"):
        if row["role"] in ("nonmember", "held_out") and row["window"] == 0:
            first[row["track_id"]] = symbolic.whole(signal, name).series("logp", "contrast", 0)
    series = np.stack(list(first.values()))
    series = series[rng.permutation(len(series))]
    full, n = series.shape[1], len(series) // 2
    middle = (shortest + full) // 2
    length = np.concatenate([rng.integers(shortest, middle, n), rng.integers(middle, full + 1, len(series) - n)])
    seen = np.arange(full) < length[:, None]
    meant = np.where(seen, series, 0).sum(axis=1) / length
    coded = np.where(seen, series, padding).mean(axis=1)
    values = (auc(x[:n], x[n:]).value for x in (coded, meant))
    return compared("padding: counts", "AUC of loss, shorter nulls against longer", *values, source="planted")
