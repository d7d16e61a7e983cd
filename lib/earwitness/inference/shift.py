"""What the rule says when the two sets differ for another reason than training.

Random splits cannot show this. Here audits without any membership are drawn so that the sides differ in a chosen cause.

Book page: *Blind baselines*.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from earwitness.errors import InputError
from earwitness.inference.calibration import Pool, Scenario, audit_clauses, draw_audits
from earwitness.inference.comparison import Recipe
from earwitness.inference.gate import gate_test
from earwitness.inference.primary import features_of, rank_standardise
from earwitness.inference.relabel import relabel
from earwitness.inference.verdict import ALPHA, DIRECTION_P, GATE_P, POWER, Word

FloatArray = npt.NDArray[np.float64]

_LARGEST = 4.0  # standard deviations
_PRECISION = 0.05


def shift_curve(
    pool: Pool,
    cause: npt.ArrayLike,
    doses: Sequence[float],
    *,
    n_suspect: int,
    n_held_out: int,
    n_audits: int = 500,
    n_permutations: int = 199,
    alpha: float = ALPHA,
    seed: int = 0,
    batch: int = 25,
    recipes: Mapping[str, Recipe] | None = None,
) -> pd.DataFrame:
    """Shares of verdicts against the size of a difference in kind, with nothing trained on.

    Both sides are drawn from one pool, suspects in favour of units with a high ``cause`` and held-out units in favour
    of a low one (weights exp(+-dose z / 2), z the standardised cause), so that attack scores and blind features keep
    whatever dependence on the cause they really have.

    Parameters
    ----------
    pool : Pool
        Units of one kind, for example non-members; several times as many as an audit takes. If it holds scores on a
        control model, the difference to them is tested.
    cause : array-like, shape [n]
        The property in which the two sides are made to differ: loudness, codec, artist, or a latent.
    doses : sequence of float
        0 is a fair split; for a normal cause and a large pool the sides differ by ``dose`` standard deviations.
    recipes : mapping, optional
        Name -> published recipe (:data:`earwitness.inference.peers.PEERS`) to run on the same audits; each gives a
        column of that name with its share of rejections.

    Returns
    -------
    pandas.DataFrame
        One row per dose: ``dose, shift`` (realised difference of means, in standard deviations), ``evidence,
        not_testable, no_evidence, primary_rejects, gate_rejects, first_clause_only`` (shares of audits; the last is
        what would pass as evidence without the residual clause).
    """
    z = np.asarray(cause, dtype=np.float64)
    z = (z - z.mean()) / z.std()
    positive = np.arange(n_suspect + n_held_out) < n_suspect
    rows: list[dict[str, float]] = []
    for dose in doses:
        rng = np.random.default_rng((seed, 5))
        frames = []
        for start in range(0, n_audits, batch):
            drawn = _tilted(z, dose, n_suspect, n_held_out, min(batch, n_audits - start), rng)
            strata, child = pool.strata(drawn), int(rng.integers(2**31))
            features = _attacks(pool, drawn, strata)
            blind = rank_standardise(pool.blind[drawn], strata)
            frame = pd.DataFrame(audit_clauses(features, blind, positive, n_permutations, alpha, child, strata))
            for name, recipe in (recipes or {}).items():
                raw = pool.attacks[drawn]
                frame[name] = recipe(raw[:, positive], raw[:, ~positive], seed=child) <= alpha
            frames.append(frame.assign(shift=z[drawn][:, positive].mean(axis=1) - z[drawn][:, ~positive].mean(axis=1)))
        said = pd.concat(frames)
        passes = (said["primary"] <= alpha) & (said["direction"] <= DIRECTION_P) & (said["gate"] > GATE_P)
        shares = {word.replace(" ", "_"): (said["verdict"] == word).mean() for word in get_args(Word)}
        rows.append(
            {"dose": dose, "shift": said["shift"].mean()}
            | shares
            | {
                "primary_rejects": (said["primary"] <= alpha).mean(),
                "gate_rejects": (said["gate"] <= GATE_P).mean(),
                "first_clause_only": passes.mean(),
            }
            | {name: said[name].mean() for name in recipes or {}}
        )
    return pd.DataFrame(rows)


def _tilted(
    z: FloatArray, dose: float, n_suspect: int, n_held_out: int, size: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Draw audits [size, n] without replacement, suspects first, by Gumbel keys."""
    if n_suspect + n_held_out > len(z):
        raise InputError(f"audits of {n_suspect} v {n_held_out} units need as many in the pool, got {len(z)}")
    high = dose * z / 2 + rng.gumbel(size=(size, len(z)))
    suspects = np.argsort(-high, axis=1)[:, :n_suspect]
    low = -dose * z / 2 + rng.gumbel(size=(size, len(z)))
    np.put_along_axis(low, suspects, -np.inf, axis=1)
    return np.hstack((suspects, np.argsort(-low, axis=1)[:, :n_held_out]))


def smallest_gate_shift(
    pool: Pool,
    n_suspect: int,
    n_held_out: int,
    *,
    n_audits: int = 400,
    n_permutations: int = 199,
    target: float = POWER,
    seed: int = 0,
    batch: int = 20,
) -> float:
    """Smallest shift of one blind feature, in standard deviations, that closes the gate with probability ``target``.

    The test is the first clause of the rule as it stands: the learned direction and the one foreseen from the attack
    scores, within artists where the pool has several.

    Parameters
    ----------
    pool : Pool
        At least ``n_suspect + n_held_out`` units of one kind; if it holds scores on a control model, the difference to
        them is what blind features foresee.

    Notes
    -----
    By bisection over the same audits, to within 0.05; infinite when 4 standard deviations are not seen. Each audit's
    feature is drawn by lot, and each batch's folds and relabellings; attack scores stay as they are.
    """
    positive = np.arange(n_suspect + n_held_out) < n_suspect
    rng = np.random.default_rng((seed, 6))
    audits = []
    for drawn in draw_audits(pool, Scenario("gate", n_suspect, n_held_out), n_audits, rng, batch):
        strata = pool.strata(drawn)
        which = rng.integers(pool.blind.shape[-1], size=(len(drawn), 1, 1))
        child = int(rng.integers(2**31))
        labels = relabel(positive, None, strata, n_permutations, child)
        fixed: dict[str, Any] = {"strata": strata, "seed": child, "drawn": labels}
        raw = pool.blind[drawn]
        chosen = rank_standardise(np.take_along_axis(raw, which, axis=-1))
        audits.append((_attacks(pool, drawn, strata), rank_standardise(raw, strata), which, chosen, fixed))

    def seen(size: float) -> float:
        p_values = []
        for features, blind, which, chosen, fixed in audits:
            moved = rank_standardise(chosen + size * positive[:, None], fixed["strata"])
            np.put_along_axis(blind, which, moved, axis=-1)
            p_values.append(gate_test(features, blind, positive, **fixed).p_value)
        return float((np.concatenate(p_values) <= GATE_P).mean())

    low, high = 0.0, _LARGEST
    if seen(high) < target:
        return float("inf")
    while high - low > _PRECISION:
        middle = (low + high) / 2
        low, high = (low, middle) if seen(middle) >= target else (middle, high)
    return high


def _attacks(pool: Pool, drawn: npt.NDArray[np.int64], strata: npt.NDArray[np.int64] | None) -> FloatArray:
    return features_of([layer[drawn] for layer in (pool.attacks, pool.control) if layer is not None], strata)
