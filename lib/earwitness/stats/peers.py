"""Published recipes, as published, for comparison only: CDI, IAR, LLM-DI, and the two procedures of arXiv 2512.09654.

Each takes two samples of unit scores and returns its own p-value. They differ from the primary test on purpose: their
level is measured (:mod:`earwitness.stats.null_audits`) and shown beside them, never assumed. Defects are kept
where the published code has them, and named in :data:`CAVEATS`. All are batched over leading dimensions (independent
audits or draws), so that thousands of audits cost seconds.

Sources: CDI, arXiv 2411.12858 and its code; IAR, arXiv 2502.02514 and its code; LLM-DI, arXiv 2406.06443 and its code;
the paper's, the code of its first two authors for autoregressive models.
Book pages: *False accusations* and *The paper's membership table*.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy.special import expit

from earwitness.errors import InputError
from earwitness.types import FloatArray

CAVEATS = {
    "CDI": "out-of-fold scores share training data, so their pooled Welch test rejects true nulls too often; two-sided",
    "IAR": "valid scaling (no labels), but two-sided, missing scores count as 0, and features enter unweighted",
    "LLM-DI": "outliers are clipped within each group, which is not label-blind; half of the units only train",
}

_CDI_FOLDS = 5
_ADAM = {"rate": 0.01, "epochs": 1000, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}


def cdi(suspect: FloatArray, held_out: FloatArray, *, seed: int = 0) -> FloatArray:
    """CDI: 5-fold logistic regression, out-of-fold probabilities pooled, Welch's t-test, two-sided.

    Parameters
    ----------
    suspect, held_out : numpy.ndarray, shape [..., n, p]
        Equally many on both sides, as the recipe demands; the same fold indices are used on both.

    Returns
    -------
    numpy.ndarray, shape [...]
        p-value of one draw. The recipe's headline is the *mean* over draws, :func:`mean_p`.
    """
    s, h = _two_samples(suspect, held_out)
    n = s.shape[-2]
    if h.shape[-2] != n:
        raise InputError(f"CDI draws equally many units on both sides, got {n} and {h.shape[-2]}")
    fold = np.random.default_rng(seed).permutation(n) % _CDI_FOLDS
    scores_s, scores_h = np.empty(s.shape[:-1]), np.empty(s.shape[:-1])
    for k in range(_CDI_FOLDS):
        test = fold == k
        train = np.concatenate((s[..., ~test, :], h[..., ~test, :]), axis=-2)
        middle, spread = train.mean(axis=-2, keepdims=True), train.std(axis=-2, keepdims=True)
        spread = np.where(spread > 0, spread, 1.0)
        label = np.repeat((1.0, 0.0), train.shape[-2] // 2)
        weight = _logistic((train - middle) / spread, label)
        for source, target in ((s, scores_s), (h, scores_h)):
            target[..., test] = expit(_affine((source[..., test, :] - middle) / spread, weight))
    return _t_test(scores_s, scores_h)


def iar(suspect: FloatArray, held_out: FloatArray, *, seed: int = 0) -> FloatArray:
    """IAR: features min-max scaled over both sides, summed, Welch's t-test, two-sided; no classifier, ``seed`` unused.

    ``suspect`` [..., n, p] and ``held_out`` [..., k, p]; returns p-values [...].
    """
    both = np.nan_to_num(np.concatenate((suspect, held_out), axis=-2))
    low, high = both.min(axis=-2, keepdims=True), both.max(axis=-2, keepdims=True)
    total = ((both - low) / np.where(high > low, high - low, 1.0)).sum(axis=-1)
    n = suspect.shape[-2]
    return _t_test(total[..., :n], total[..., n:])


def llm_di(
    suspect: FloatArray,
    held_out: FloatArray,
    *,
    seed: int = 0,
    outliers: Literal["clip", "mean", "keep"] = "clip",
) -> FloatArray:
    """LLM dataset inference: outliers treated per group, a linear layer fitted on one half, Student's t on the other.

    Parameters
    ----------
    suspect, held_out : numpy.ndarray, shapes [..., n, p], [..., k, p]
    outliers : str
        What happens to the outer 2.5 % on each side of a feature, *within each group* (the defect): clipped, replaced
        by the group's mean, or kept.

    Returns
    -------
    numpy.ndarray, shape [...]
        One-sided p-values (suspects more member-like).
    """
    rng = np.random.default_rng(seed)
    s, h = _two_samples(_treat(suspect, outliers), _treat(held_out, outliers))
    middle, spread = s.mean(axis=-2, keepdims=True), s.std(axis=-2, keepdims=True)
    spread = np.where(spread > 0, spread, 1.0)
    s, h = ((sample - middle) / spread for sample in (s, h))
    s, h = (sample[..., rng.permutation(sample.shape[-2]), :] for sample in (s, h))
    half_s, half_h = s.shape[-2] // 2, h.shape[-2] // 2
    train = np.concatenate((s[..., :half_s, :], h[..., :half_h, :]), axis=-2)
    label = np.repeat((0.0, 1.0), (half_s, half_h))  # members are 0 in the published code
    weight = _adam(train, label, rng)
    fresh = (_affine(s[..., half_s:, :], weight), _affine(h[..., half_h:, :], weight))
    return _t_test(*fresh, equal_var=True, alternative="less")


def _t_test(suspect: FloatArray, held_out: FloatArray, *, equal_var: bool = False, **how: Any) -> FloatArray:
    """Return the p-values of t-tests over the last axis, Welch's unless told otherwise."""
    from scipy.stats import ttest_ind  # a second to import, and no audit needs it

    return np.asarray(ttest_ind(suspect, held_out, axis=-1, equal_var=equal_var, **how).pvalue)


def inference_as_coded(suspect: FloatArray, held_out: FloatArray, *, seed: int = 0) -> FloatArray:
    """One draw of the paper's dataset inference: :func:`iar` on the features that are finite or missing everywhere.

    ``suspect`` [..., n, p] and ``held_out`` [..., k, p]; a feature is dropped from an audit where any of its values is
    infinite, a missing value counts as 0. Returns two-sided p-values [...]; 1 where no feature is left, or where all
    sums are equal.
    """
    infinite = np.isinf(suspect).any(axis=-2, keepdims=True) | np.isinf(held_out).any(axis=-2, keepdims=True)
    kept = [np.where(infinite, 0.0, np.asarray(side, dtype=np.float64)) for side in (suspect, held_out)]
    return np.nan_to_num(iar(*kept), nan=1.0)  # a feature of zeros adds nothing to the sum


PEERS: dict[str, Callable[..., FloatArray]] = {"CDI": cdi, "IAR": iar, "LLM-DI": llm_di}
PAPER_SIZES = (*range(2, 11), *range(20, 101, 10), *range(200, 1001, 100), 2000, 3000)  # units a side
PAPER_LEVEL, PAPER_FIRST = 0.01, 3000  # the mean p that counts, and of how many units a side draws are made
PAPER_DRAWS, PAPER_MOST, PAPER_FPR = 250, 5000, 0.01  # of the membership table


def mean_p(
    recipe: Callable[..., FloatArray],
    suspect: FloatArray,
    held_out: FloatArray,
    *,
    size: int,
    n_draws: int = 1000,
    seed: int = 0,
    batch: int = 100,
) -> float:
    """Mean p-value over random subsets of ``size`` units a side: the published headline. It is not a p-value.

    ``suspect`` [n, p] and ``held_out`` [k, p]; memory grows with ``batch``.
    """
    smaller = min(len(suspect), len(held_out))
    if not 2 <= size <= smaller:
        raise InputError(f"draws of {size} units need between 2 and {smaller} units a side")
    rng = np.random.default_rng(seed)
    draws = rng.permuted(np.tile(np.arange(smaller), (n_draws, 1)), axis=1)[:, :size]
    parts = [draws[i : i + batch] for i in range(0, n_draws, batch)]
    return float(np.concatenate([recipe(suspect[part], held_out[part], seed=seed) for part in parts]).mean())


def smallest_size(
    recipe: Callable[..., FloatArray],
    suspect: FloatArray,
    held_out: FloatArray,
    *,
    sizes: Iterable[int] = PAPER_SIZES,
    n_draws: int = 1000,
    seed: int = 0,
) -> tuple[pd.DataFrame, int | None]:
    """Dataset inference as the paper reports it: the fewest units a side whose p, averaged over draws, is at most .01.

    Parameters
    ----------
    suspect, held_out : numpy.ndarray, shapes [n, p], [k, p]
        The first 3,000 units a side are used, in the order given; draws take the *same* places on both sides.
    sizes : iterable of int
        Units a side; those beyond the data are left out.

    Returns
    -------
    pandas.DataFrame and int or None
        ``size, mean_p`` for every size that the data allow, and the smallest size with ``mean_p`` <= .01. A larger
        size may lie above .01 again: the paper's headline does not look.
    """
    s, h = suspect[:PAPER_FIRST], held_out[:PAPER_FIRST]
    rows = [
        {"size": size, "mean_p": mean_p(recipe, s, h, size=size, n_draws=n_draws, seed=seed)}
        for size in sizes
        if size <= min(len(s), len(h))
    ]
    table = pd.DataFrame(rows, columns=["size", "mean_p"])
    found = table.loc[table["mean_p"] <= PAPER_LEVEL, "size"]
    return table, None if found.empty else int(found.iloc[0])


def membership_as_coded(
    member: FloatArray,
    nonmember: FloatArray,
    names: Sequence[str],
    rows: Mapping[str, Sequence[str]],
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """The paper's membership table as its code makes it: 250 draws, one threshold for all, the best variant kept.

    Parameters
    ----------
    member, nonmember : numpy.ndarray, shapes [n, p], [k, p]
        One column per feature of ``names``; higher = more member-like.
    rows : mapping of str to sequence of str
        Row of the table -> its variants, for example :data:`earwitness.types.PAPER_FEATURES`.
    seed : int
        Fixes the draws.

    Returns
    -------
    pandas.DataFrame
        ``row, variant, n, tpr, tpr_sd, auc, auc_sd, accuracy, accuracy_sd``. Each draw takes ``n`` = min(members,
        non-members, 5,000) places, the same on both sides, so that smaller sets make all draws alike: the standard
        deviations are then 0, and never a standard error. Missing and infinite scores count as 0. In the code lower
        means member, and scores are divided by their maximum over both sides, which turns their order round where all
        are negative: where all of ours are positive. The true-positive rate is read at the last step with at most 1 %
        false positives, accuracy is the best balanced one, and of each row's variants the one with the best mean rate
        *on these same data* is shown.
    """
    rng = np.random.default_rng(seed)
    fewest = min(len(member), len(nonmember))
    n = min(fewest, PAPER_MOST)
    draws = [rng.permutation(fewest)[:n] for _ in range(PAPER_DRAWS if n < fewest else 1)]
    column = {name: i for i, name in enumerate(names)}
    found: list[dict[str, Any]] = []
    for row, variants in rows.items():
        measured = []
        for name in variants:
            sides = [np.nan_to_num(x[:, column[name]], nan=0.0, posinf=0.0, neginf=0.0) for x in (member, nonmember)]
            measured.append([_roc_as_coded(sides[0][draw], sides[1][draw]) for draw in draws])
        rates = np.array(measured)  # [variants, draws, 3]
        best = int(rates[..., 0].mean(axis=1).argmax())
        mean, spread = rates[best].mean(axis=0), rates[best].std(axis=0)
        values = {k: v for i, q in enumerate(_RATES) for k, v in ((q, float(mean[i])), (f"{q}_sd", float(spread[i])))}
        found.append({"row": row, "variant": variants[best], "n": n, **values})
    return pd.DataFrame(found)


_RATES = ("tpr", "auc", "accuracy")


def _roc_as_coded(member: FloatArray, nonmember: FloatArray) -> tuple[float, float, float]:
    """True-positive rate at 1 % false positives, AUC and best balanced accuracy of scores divided by their maximum.

    The maximum is that of the code's scores, minus ours.
    """
    both = np.concatenate((member, nonmember))
    top = -both.min()
    label = np.repeat((1, 0), (len(member), len(nonmember)))
    from sklearn.metrics import auc, roc_curve  # only this needs them, and they take a second to import

    fpr, tpr, _ = roc_curve(label, both / top if top else both)
    return float(tpr[np.flatnonzero(fpr <= PAPER_FPR)[-1]]), float(auc(fpr, tpr)), float((1 - fpr + tpr).max() / 2)


def _two_samples(suspect: FloatArray, held_out: FloatArray) -> tuple[FloatArray, FloatArray]:
    if not (np.isfinite(suspect).all() and np.isfinite(held_out).all()):
        raise InputError("the recipe needs finite scores; leave out the features or units that have none")
    return np.asarray(suspect, dtype=np.float64), np.asarray(held_out, dtype=np.float64)


def _affine(features: FloatArray, weight: FloatArray) -> FloatArray:
    """Linear scores with the intercept in the last weight: [..., n, p], [..., p + 1] -> [..., n]."""
    return np.asarray((features @ weight[..., :-1, None])[..., 0] + weight[..., -1:])


def _logistic(features: FloatArray, label: FloatArray) -> FloatArray:
    """L2-regularised logistic regression (C = 1, intercept penalised, as in liblinear) by Newton's method, batched."""
    x = np.concatenate((features, np.ones((*features.shape[:-1], 1))), axis=-1)
    transposed = np.swapaxes(x, -1, -2)
    eye = np.eye(x.shape[-1])
    weight = np.zeros((*x.shape[:-2], x.shape[-1]))
    for _ in range(30):
        probability = expit((x @ weight[..., None])[..., 0])
        gradient = weight + (transposed @ (probability - label)[..., None])[..., 0]
        curvature = (transposed * (probability * (1 - probability))[..., None, :]) @ x + eye
        step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        weight = weight - step
        if np.abs(step).max() < 1e-8:
            break
    return weight


def _adam(features: FloatArray, label: FloatArray, rng: np.random.Generator) -> FloatArray:
    """A linear layer as published: cross-entropy, Adam at .01, 1,000 full-batch epochs, PyTorch's first weights."""
    p = features.shape[-1]
    weight = rng.uniform(-1, 1, size=(*features.shape[:-2], p + 1)) / np.sqrt(p)
    first, second = np.zeros_like(weight), np.zeros_like(weight)
    transposed = np.ascontiguousarray(np.swapaxes(features, -1, -2))
    for epoch in range(1, int(_ADAM["epochs"]) + 1):
        error = (expit(_affine(features, weight)) - label) / features.shape[-2]
        gradient = np.concatenate(((transposed @ error[..., None])[..., 0], error.sum(axis=-1, keepdims=True)), axis=-1)
        first = _ADAM["beta1"] * first + (1 - _ADAM["beta1"]) * gradient
        second = _ADAM["beta2"] * second + (1 - _ADAM["beta2"]) * gradient**2
        scale = np.sqrt(second / (1 - _ADAM["beta2"] ** epoch)) + _ADAM["epsilon"]
        weight = weight - _ADAM["rate"] * first / (1 - _ADAM["beta1"] ** epoch) / scale
    return weight


def _treat(sample: FloatArray, outliers: str) -> FloatArray:
    if outliers == "keep":
        return sample
    if outliers not in ("clip", "mean"):
        raise InputError(f"unknown treatment of outliers {outliers!r}; expected clip, mean or keep")
    low, high = np.quantile(sample, (0.025, 0.975), axis=-2, keepdims=True)
    if outliers == "clip":
        return np.clip(sample, low, high)
    return np.where((sample < low) | (sample > high), sample.mean(axis=-2, keepdims=True), sample)
