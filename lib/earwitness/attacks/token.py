"""Attacks on one token model's stored log-probabilities: the likelihood family.

Notation, per valid position n: target log-probability l_n, mean mu_n = sum p log p and standard deviation s_n of the
log-probability under the model, N positions. Each attack runs per codebook or pooled, on the conditional, the null
and the contrast stream. Pooled sequences are frame-major, codebook-minor. See the book page *Methods: token attacks*.
"""

from __future__ import annotations

from math import floor, nan

import numpy as np
from numpy.typing import NDArray

from earwitness.attacks.registry import attack
from earwitness.extractors.token import TokenSignals

TAILS = tuple({"k": k} for k in (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6))


def mean(values: NDArray[np.float64]) -> float:
    """Return the mean, or NaN of nothing."""
    return float(values.mean()) if values.size else nan


def likelihood(signals: TokenSignals, stream: str, codebook: int | None = None) -> float:
    """Mean log-probability in the weighting of training: over positions per codebook, then over codebooks."""
    if codebook is not None:
        return mean(signals.series("logp", stream, codebook))
    books = [signals.series("logp", stream, q) for q in range(len(signals.codes))]
    return mean(np.array([b.mean() for b in books if b.size]))


def lowest(signals: TokenSignals, name: str, stream: str, codebook: int | None, k: float) -> float:
    """Mean of the max(1, floor(k N)) smallest entries of a series; the sorted sums are shared by all k."""
    key = ("lowest", name, stream, codebook)
    if key not in signals.cache:
        signals.cache[key] = np.cumsum(np.sort(signals.series(name, stream, codebook)))
    sums = signals.cache[key]
    count = max(1, floor(k * len(sums) + 1e-9))  # 0.29 * 100 is 28.999... in floating point
    return float(sums[count - 1] / count) if len(sums) else nan


@attack(
    "loss",
    family="token",
    formula=r"\frac1K\sum_q \frac1{N_q}\sum_{n\in q} l_n",
    source="Yeom et al., arXiv 1709.01604",
)
def loss(signals: TokenSignals, *, stream: str, codebook: int | None = None) -> float:
    """Mean log-probability of the true tokens, weighted as in training (minus the model's loss).

    On the contrast stream this is the first reading of the guidance contrast: the renormalised logit difference.
    """
    return likelihood(signals, stream, codebook)


@attack(
    "min_k",
    family="token",
    formula=r"\frac1{|M_k|}\sum_{n\in M_k} l_n,\ M_k:\ \text{the } \max(1,\lfloor kN\rfloor) \text{ smallest } l_n",
    source="Shi et al., arXiv 2310.16789",
    variants=TAILS,
)
def min_k(signals: TokenSignals, *, stream: str, codebook: int | None = None, k: float) -> float:
    """Mean of the lowest share k of the log-probabilities: a member has fewer very unlikely tokens.

    Pooled, the tail is dominated by the late codebooks, which carry texture and codec noise: read it per codebook too.
    """
    return lowest(signals, "logp", stream, codebook, k)


@attack(
    "min_k++",
    family="token",
    formula=r"\frac1{|M_k|}\sum_{n\in M_k} \frac{l_n-\mu_n}{\max(s_n, 10^{-3})}",
    source="Zhang et al., arXiv 2404.02936 (the authors' form: standard deviation)",
    variants=TAILS,
)
def min_k_plus_plus(signals: TokenSignals, *, stream: str, codebook: int | None = None, k: float) -> float:
    """Mean of the lowest share k of log-probabilities standardised under the model's own distribution."""
    return lowest(signals, "z", stream, codebook, k)


@attack(
    "min_k++_var",
    family="token",
    formula=r"\frac1{|M_k|}\sum_{n\in M_k} \frac{l_n-\mu_n}{s_n^2+10^{-6}}",
    source="code of Kowalczuk et al., arXiv 2502.02514 (IAR: divides by the variance)",
    variants=TAILS,
)
def min_k_plus_plus_var(signals: TokenSignals, *, stream: str, codebook: int | None = None, k: float) -> float:
    """Min-K %++ divided by the variance, as it circulates in the image-autoregressive literature."""
    return lowest(signals, "z_var", stream, codebook, k)
