"""CAMIA: how the log-probability moves *within* a segment (Chang et al., arXiv 2409.13745).

A model that has seen a recording needs less of it to know what follows. Five scalars are those of the
image-autoregressive code (arXiv 2502.02514); the others are CAMIA's signals, or follow its idea, as far as they need
neither labels nor the recording repeated (audio models have no context to spare). The authors choose each signal's
sign with the labels of all items; here every sign is fixed beforehand, so some may turn out wrong. Position must not
differ between the sides: segments are cut by the same rule. Sequences of several codebooks are frame-major,
codebook-minor. See the book page *Methods: token attacks*.
"""

from __future__ import annotations

from math import nan

import numpy as np
from numpy.typing import NDArray

from earwitness.attacks.registry import attack
from earwitness.attacks.token import mean
from earwitness.signals.token import TokenSignals

IAR = "Chang et al., arXiv 2409.13745; scalar as in the code of arXiv 2502.02514"
CAMIA = "Chang et al., arXiv 2409.13745"


def below_mean(values: NDArray[np.float64]) -> float:
    """Share of values below their mean."""
    return mean(values < values.mean()) if values.size else nan


def below_running_mean(values: NDArray[np.float64]) -> float:
    """Share of values below the mean of all values up to and including them."""
    return mean(values < np.cumsum(values) / np.arange(1, values.size + 1))


@attack("camia_below", formula=r"-\frac1N|\{n: l_n<\bar l\}|", source=IAR)
def camia_below(signals: TokenSignals, *, stream: str, codebook: int | None = None) -> float:
    """Minus the share of tokens less likely than the segment's mean."""
    return -below_mean(signals.series("logp", stream, codebook))


@attack("camia_below_z", formula=r"-\frac1N|\{n: z_n<\bar z\}|,\ z=(l-\mu)/(s^2+10^{-6})", source=IAR)
def camia_below_z(signals: TokenSignals, *, stream: str, codebook: int | None = None) -> float:
    """Minus the share of tokens whose standardised log-probability (variance form) is below its mean."""
    return -below_mean(signals.series("z_var", stream, codebook))


@attack("camia_running", formula=r"\frac1N|\{n: l_n<\tfrac1n\sum_{m\le n}l_m\}|", source=IAR)
def camia_running(signals: TokenSignals, *, stream: str, codebook: int | None = None) -> float:
    """Share of tokens below the running mean so far: high when likelihood does not rise with context."""
    return below_running_mean(signals.series("logp", stream, codebook))


@attack("camia_running_z", formula=r"\frac1N|\{n: z_n<\tfrac1n\sum_{m\le n}z_m\}|", source=IAR)
def camia_running_z(signals: TokenSignals, *, stream: str, codebook: int | None = None) -> float:
    """Share of tokens whose standardised log-probability (variance form) is below its running mean."""
    return below_running_mean(signals.series("z_var", stream, codebook))


@attack("camia_slope", formula=r"-\operatorname{slope}(l_n \sim n)", source=IAR)
def camia_slope(signals: TokenSignals, *, stream: str, codebook: int | None = None) -> float:
    """Minus the least-squares slope of the log-probability over the position (nats per token)."""
    values = signals.series("logp", stream, codebook)
    if values.size < 2:
        return nan
    position = np.arange(values.size) - (values.size - 1) / 2
    return float(-(position @ values) / (position @ position))


@attack(
    "camia_previous",
    formula=r"-\frac1{N-1}|\{n>1: l_n>\tfrac1{n-1}\sum_{m<n}l_m\}|",
    source=CAMIA,
    sign="ours",
)
def camia_previous(signals: TokenSignals, *, stream: str, codebook: int | None = None) -> float:
    """Minus the share of tokens more likely than the mean of all before them."""
    values = signals.series("logp", stream, codebook)
    return -mean(values[1:] > np.cumsum(values)[:-1] / np.arange(1, max(1, values.size)))


@attack(
    "camia_halves",
    formula=r"\bar l_{\text{first half}}-\bar l_{\text{second half}}",
    source=CAMIA,
    sign="ours",
)
def camia_halves(signals: TokenSignals, *, stream: str, codebook: int | None = None) -> float:
    """Mean log-probability of the first half minus that of the second: what more context does not add."""
    values = signals.series("logp", stream, codebook)
    half = values.size // 2
    return mean(values[:half]) - mean(values[values.size - half :])


@attack(
    "camia_novelty",
    formula=r"\bar l_{\text{first occurrences}}-\bar l_{\text{repeats}}\ \text{of a code in its codebook}",
    source="ours, after the repetition signals of arXiv 2409.13745",
    sign="ours",
)
def camia_novelty(signals: TokenSignals, *, stream: str, codebook: int | None = None) -> float:
    """Mean log-probability of codes heard for the first time minus that of repeated ones.

    The published signal repeats the whole recording in the context; here the recording's own repetitions serve.
    """
    total = count = new = novel = 0.0
    for q in range(len(signals.codes)) if codebook is None else [codebook]:
        values = signals.series("logp", stream, q)
        if values.size:
            first = signals.first_occurrences(q)
            total, count = total + values.sum(), count + values.size
            new, novel = new + values[first].sum(), novel + first.size
    return float(new / novel - (total - new) / (count - novel)) if count > novel > 0 else nan


@attack(
    "camia_confident",
    formula=r"\frac1N|\{n: l_n\ge -c\}|",
    source=CAMIA,
    sign="ours",
)
def camia_confident(signals: TokenSignals, *, stream: str, codebook: int | None = None, nats: float) -> float:
    """Share of tokens that cost at most c nats."""
    return mean(signals.series("logp", stream, codebook) >= -nats)


@attack(
    "camia_diversity",
    formula=r"\bar l\,/\,\frac{|\{y_n\}|}{N}",
    source=CAMIA,
    sign="ours",
)
def camia_diversity(signals: TokenSignals, *, stream: str, codebook: int | None = None) -> float:
    """Mean log-probability over the share of distinct tokens, codes of different codebooks counting as distinct."""
    books = range(len(signals.codes)) if codebook is None else [codebook]
    values = signals.series("logp", stream, codebook)
    distinct = sum(signals.first_occurrences(q).size for q in books)
    return mean(values) * values.size / distinct if distinct else nan


@attack(
    "camia_lz",
    formula=r"-\frac1N|\{\text{Lempel-Ziv words of } l \text{ in } b \text{ levels}\}|",
    source=CAMIA,
    sign="ours",
)
def camia_lz(signals: TokenSignals, *, stream: str, codebook: int | None = None, levels: int) -> float:
    """Minus the Lempel-Ziv complexity of the log-probabilities in b equal steps from the lowest to the highest."""
    values = signals.series("logp", stream, codebook)
    if not values.size:
        return nan
    low, high = values.min(), values.max()
    symbols = np.minimum((values - low) / ((high - low) or 1) * levels, levels - 1).astype(int).tolist()
    words: dict[int, int] = {}  # a word is known by its prefix's number and its last symbol
    prefix = 0
    for symbol in symbols:
        key = prefix * levels + symbol
        prefix = words.get(key, 0)
        if not prefix:
            words[key] = len(words) + 1
    return -len(words) / len(symbols)
