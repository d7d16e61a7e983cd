"""Attacks on one token model's stored log-probabilities: the likelihood family.

Notation, per valid position n: target log-probability l_n, mean mu_n = sum p log p and standard deviation s_n of the
log-probability under the model, N positions. Each attack runs per codebook or pooled, on the conditional, the null
and the contrast stream. Pooled sequences are frame-major, codebook-minor. See the book page *Methods: token attacks*.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from math import ceil, floor, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earwitness.attacks.registry import attack
from earwitness.errors import InputError
from earwitness.signals.token import TokenSignals


def mean(values: NDArray[Any]) -> float:
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
        signals.cache[key] = np.cumsum(signals.ordered(name, stream, codebook))
    sums = signals.cache[key]
    count = max(1, floor(k * len(sums) + 1e-9))  # 0.29 * 100 is 28.999... in floating point
    return float(sums[count - 1] / count) if len(sums) else nan


@attack(
    "loss",
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
    formula=r"\frac1{|M_k|}\sum_{n\in M_k} l_n,\ M_k:\ \text{the } \max(1,\lfloor kN\rfloor) \text{ smallest } l_n",
    source="Shi et al., arXiv 2310.16789",
)
def min_k(signals: TokenSignals, *, stream: str, codebook: int | None = None, k: float) -> float:
    """Mean of the lowest share k of the log-probabilities: a member has fewer very unlikely tokens.

    Pooled, the tail is dominated by the late codebooks, which carry texture and codec noise: read it per codebook too.
    """
    return lowest(signals, "logp", stream, codebook, k)


@attack(
    "min_k++",
    formula=r"\frac1{|M_k|}\sum_{n\in M_k} \frac{l_n-\mu_n}{\max(s_n, 10^{-3})}",
    source="Zhang et al., arXiv 2404.02936 (the authors' form: standard deviation)",
)
def min_k_plus_plus(signals: TokenSignals, *, stream: str, codebook: int | None = None, k: float) -> float:
    """Mean of the lowest share k of log-probabilities standardised under the model's own distribution."""
    return lowest(signals, "z", stream, codebook, k)


@attack(
    "min_k++_var",
    formula=r"\frac1{|M_k|}\sum_{n\in M_k} \frac{l_n-\mu_n}{s_n^2+10^{-6}}",
    source="code of Kowalczuk et al., arXiv 2502.02514 (IAR: divides by the variance)",
)
def min_k_plus_plus_var(signals: TokenSignals, *, stream: str, codebook: int | None = None, k: float) -> float:
    """Min-K %++ divided by the variance, as it circulates in the image-autoregressive literature."""
    return lowest(signals, "z_var", stream, codebook, k)


@attack(
    "zlib",
    formula=r"\frac{\frac1N\sum_n l_n}{b},\ b:\ \text{bytes of the zlib-compressed decimal token list}",
    source="Carlini et al., arXiv 2012.07805; text form as in the code of arXiv 2502.02514",
)
def zlib_ratio(signals: TokenSignals, *, stream: str, codebook: int | None = None) -> float:
    """Mean log-probability over the compressed size of the tokens: discounts what any compressor finds easy.

    b comes from Python's own zlib at its default level on ``"[0, 1, 0]"``; zlib builds may differ in a byte, so the
    environment is pinned.
    """
    key = ("zlib", codebook)
    if key not in signals.cache:
        signals.cache[key] = len(zlib.compress(str(signals.tokens(codebook).tolist()).encode()))
    return mean(signals.series("logp", stream, codebook)) / signals.cache[key]


@attack(
    "hinge",
    formula=r"\frac1N\sum_n \Big(\ell_n[y_n]-\max_{v\ne y_n}\ell_n[v]\Big)",
    source="Bertran et al., arXiv 2307.03694",
)
def hinge(signals: TokenSignals, *, stream: str, codebook: int | None = None) -> float:
    """Mean margin of the true token's logit over its best rival."""
    return mean(signals.series("margin", stream, codebook))


@attack(
    "log_rank",
    formula=r"-\frac1N\sum_n \log(1+\mathrm{rank}_n)",
    source="Mitchell et al., arXiv 2301.11305 (log rank)",
)
def log_rank(signals: TokenSignals, *, stream: str, codebook: int | None = None) -> float:
    """Minus the mean log rank of the true token: blind to how sure the model is, only to what it prefers."""
    return -mean(np.log1p(signals.series("rank", stream, codebook)))


def quantile(ordered: NDArray[np.float64], share: float) -> float:
    """Quantile of sorted values, linear between neighbours (numpy's default, which is a hundred times slower)."""
    place = share * (len(ordered) - 1)
    low, high = ordered[floor(place)], ordered[ceil(place)]
    return float(low + (high - low) * (place - floor(place)))


@attack(
    "surp",
    formula=r"\frac1{|S|}\sum_{n\in S} l_n,\ S=\{n: H_n<Q_e(H^{(q)}),\ l_n<Q_{0.4}(l^{(q)})\}",
    source="Zhang & Wu, arXiv 2407.21248; thresholds per codebook by us",
)
def surp(
    signals: TokenSignals,
    *,
    stream: str,
    codebook: int | None = None,
    entropy: float = 0.5,
    k: float = 0.4,
    nats: float | None = None,
) -> float:
    """Mean log-probability of surprising tokens: the model was sure (low entropy), and wrong.

    The published entropy ceiling is absolute (2 nats); with V entries and K codebooks of very different entropy no one
    number serves. The ceiling is therefore the e-quantile of the segment's *own* entropies in that codebook: it needs
    no labels and no other recording, cannot leak between roles, follows vocabulary and codebook, and looks at equally
    many positions in every segment. The price: it no longer sees how sure the model is of the segment as a whole,
    which ``loss`` and ``hinge`` do see; ``nats`` brings the absolute ceiling back. NaN where no token qualifies (the
    published code returns -100).
    """
    chosen = []
    for q in range(len(signals.codes)) if codebook is None else [codebook]:
        logp, mu = signals.series("logp", stream, q), signals.series("mean", stream, q)
        if logp.size:
            least = quantile(signals.ordered("mean", stream, q), 1 - entropy) if nats is None else -nats
            chosen.append(logp[(mu > least) & (logp < quantile(signals.ordered("logp", stream, q), k))])
    return mean(np.concatenate(chosen)) if chosen else nan


@attack(
    "dc_pdd",
    formula=r"\frac1{|F|}\sum_{n\in F}\min\big(-p_n\log f(y_n),a\big),\ F:\ \text{first occurrences per codebook}",
    source="Zhang et al., arXiv 2409.14781",
)
def dc_pdd(
    signals: TokenSignals,
    *,
    stream: str,
    codebook: int | None = None,
    clip: float,
    frequencies: NDArray[np.floating[Any]],
) -> float:
    """Cross-entropy of the model's probability and a reference corpus' token frequency, on first occurrences.

    ``frequencies`` is ``[K, V]`` as ``token_frequencies`` counts it on recordings outside the comparison. The published
    clip of 0.01 binds on most audio tokens; 1.0 hardly ever does.
    """
    held, found = signals.streams.get(stream), []
    for q in range(len(signals.codes)) if codebook is None else [codebook]:
        if held is not None and q < len(signals.codes):
            first = signals.first_occurrences(q)
            p = np.exp(signals.series("logp", stream, q)[first])
            found.append(np.minimum(-p * np.log(frequencies[q, signals.tokens(q)[first]]), clip))
    return mean(np.concatenate(found)) if found else nan


def token_frequencies(signals: Iterable[TokenSignals], entries: int) -> NDArray[np.float64]:
    """Count how often each of ``entries`` codes occurs per codebook, plus one, as shares ``[K, V]``.

    Raises
    ------
    InputError
        No segments, or codes beyond ``entries``.
    """
    counts: NDArray[Any] = np.ones(1)
    for signal in signals:
        if int(signal.codes[signal.mask].max(initial=0)) >= entries:
            raise InputError(f"a token lies beyond the {entries} entries; pass the model's own vocabulary size")
        counts = counts + [np.bincount(signal.tokens(q), minlength=entries) for q in range(len(signal.codes))]
    if counts.ndim < 2:
        raise InputError("token frequencies need a reference corpus of at least one segment")
    shares: NDArray[np.float64] = counts / counts.sum(axis=1, keepdims=True)
    return shares


@attack(
    "cfg_loglik",
    formula=r"\bar l(x\mid c)-\bar l(x\mid\varnothing)",
    source="second reading of the guidance contrast, arXiv 2512.09654",
)
def cfg_loglik(signals: TokenSignals, *, stream: str, codebook: int | None = None) -> float:
    """Mean log-likelihood gained by the caption: conditional minus null, each weighted as in training."""
    if not signals.series("logp", stream, codebook).size:
        return nan
    return likelihood(signals, "conditional", codebook) - likelihood(signals, "null", codebook)


@attack(
    "cfg_probability",
    formula=r"\frac1N\sum_n \big(p(y_n\mid c)-p(y_n\mid\varnothing)\big)",
    source="third, literal reading of the guidance contrast, arXiv 2512.09654",
)
def cfg_probability(signals: TokenSignals, *, stream: str, codebook: int | None = None) -> float:
    """Mean difference of the true tokens' probabilities with and without the caption."""
    if not signals.series("logp", stream, codebook).size:
        return nan
    passes = [np.exp(signals.series("logp", s, codebook)) for s in ("conditional", "null")]
    return mean(passes[0]) - mean(passes[1])


@attack(
    "sdm",
    formula=r"\operatorname{mean}_{i<j}(1-\cos(\bar\ell_{C_i},\bar\ell_{C_j})),\ C_i:\ \text{100 random frames}",
    source="Wei, Witbrock & Morreale, Sample Distance Matrix; the matrix's diagonal, per codebook",
    sign="ours",
)
def sdm(signals: TokenSignals, *, stream: str, codebook: int | None = None) -> float:
    """Mean cosine distance between the mean logits of time-shuffled chunks of the segment.

    The published matrix compares recordings with each other and its scoring step is not public; an attack may not look
    at other recordings, so this is its diagonal. The sign is our convention: a confident model varies its predictions.
    Chunks hold 100 frames, or a fifth of the segment if that is shorter; two fixed shuffles are averaged.
    """
    spread = signals.extras.get(f"sdm/{stream}", np.empty(0))
    if codebook is None:
        return mean(spread[np.isfinite(spread)].astype(np.float64))
    return float(spread[codebook]) if codebook < len(spread) else nan
