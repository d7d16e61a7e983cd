"""Attacks that compare the segment with something else: a second model, its neighbours, a prefix, the gradient.

They need passes beyond the two that everything else shares (see ``earwitness.signals.token_costly``) and are therefore
never part of ``"all"`` unless those were run. All are conditional on the caption. See the book page *Methods: token
attacks*.
"""

from __future__ import annotations

from math import inf, nan

import numpy as np
from numpy.typing import NDArray

from earwitness.attacks.registry import attack
from earwitness.attacks.token import likelihood, mean
from earwitness.signals.token import TokenSignals, over_rows


def of_codebook(signals: TokenSignals, name: str, codebook: int | None) -> NDArray[np.float64]:
    """Return an extra ``[..., K]`` of one codebook or averaged over them, as training weights them; else empty."""
    values = signals.extras.get(name)
    if values is None or (codebook is not None and codebook >= values.shape[-1]):
        return np.empty(0)
    return np.atleast_1d(over_rows(values) if codebook is None else values[..., codebook]).astype(np.float64)


def per_frame(signals: TokenSignals) -> float:
    """Log-likelihood in nats per frame: the sum over codebooks of their means."""
    return likelihood(signals, "conditional") * len(signals.codes)


@attack(
    "reference",
    formula=r"\sum_q \bar l_q-\tfrac{T'}{T}\sum_{q'} \bar l'_{q'}\ \text{(reference model: primed)}",
    source="Carlini et al., arXiv 2112.03570 (likelihood ratio with one reference)",
)
def reference(signals: TokenSignals, *, stream: str) -> float:
    """Log-likelihood gained over a reference model that saw none of the recordings, in nats per frame.

    Compared per second of audio, so the reference may have another tokenizer; with the same one this is K times the
    difference of the mean log-likelihoods. A reference that saw the suspects cancels the signal.
    """
    return per_frame(signals) - mean(signals.extras.get("reference/nats_per_frame", np.empty(0)))


@attack(
    "reference_ratio",
    formula=r"-\frac{\sum_q \bar l_q}{\frac{T'}{T}\sum_{q'} \bar l'_{q'}}",
    source="Carlini et al., arXiv 2112.03570; ratio form",
)
def reference_ratio(signals: TokenSignals, *, stream: str) -> float:
    """Minus the ratio of the target's to the reference model's code length of the same audio."""
    other = mean(signals.extras.get("reference/nats_per_frame", np.empty(0)))
    return -per_frame(signals) / other if other else nan


@attack(
    "neighbourhood",
    formula=r"\bar l(x)-\tfrac1J\sum_j \bar l(\tilde x_j)",
    source="Mattern et al., arXiv 2305.18462; neighbours in the audio by us",
)
def neighbourhood(signals: TokenSignals, *, stream: str, codebook: int | None = None) -> float:
    """Log-likelihood lost by changes one hardly hears: gain, one frame's shift, ten cents, a tilt, Ogg Vorbis.

    A member sits on a peak. A change that leaves what the codec encodes well costs everyone alike and says nothing.
    """
    return likelihood(signals, stream, codebook) - mean(of_codebook(signals, "neighbours/means", codebook))


def beside(signals: TokenSignals, kind: str, stream: str, codebook: int | None) -> float:
    """Mean log-likelihood minus that of a piece's neighbours of one kind."""
    return likelihood(signals, stream, codebook) - mean(of_codebook(signals, f"{kind}/means", codebook))


@attack(
    "transposition",
    formula=r"\bar l(x)-\tfrac12\sum_{\pm} \bar l(x_{\pm\text{a semitone}})",
    source="Mattern et al., arXiv 2305.18462; neighbours of a score by us",
)
def transposition(signals: TokenSignals, *, stream: str, codebook: int | None = None) -> float:
    """Log-likelihood lost when a score is moved a semitone up or down: keys differ in how common they are, too."""
    return beside(signals, "transposition", stream, codebook)


@attack(
    "dynamics",
    formula=r"\bar l(x)-\tfrac12\sum_{\pm} \bar l(x_{\text{velocity}\pm 8})",
    source="Mattern et al., arXiv 2305.18462; neighbours of a score by us",
)
def dynamics(signals: TokenSignals, *, stream: str, codebook: int | None = None) -> float:
    """Log-likelihood lost when every note of a score is played louder or softer."""
    return beside(signals, "dynamics", stream, codebook)


@attack(
    "tempo",
    formula=r"\bar l(x)-\tfrac12\sum_{\pm} \bar l(x_{\text{tempo}\times 1.1^{\pm1}})",
    source="Mattern et al., arXiv 2305.18462; neighbours of a score by us",
)
def tempo(signals: TokenSignals, *, stream: str, codebook: int | None = None) -> float:
    """Log-likelihood lost when a score is played faster or slower: only what is said of its tempo changes."""
    return beside(signals, "tempo", stream, codebook)


@attack(
    "token_neighbourhood",
    formula=r"\bar l(x)-\tfrac1J\sum_j \bar l(\tilde x_j)",
    source="Mattern et al., arXiv 2305.18462; late tokens drawn anew from the model's null condition",
)
def token_neighbourhood(signals: TokenSignals, *, stream: str, codebook: int | None = None) -> float:
    """Log-likelihood lost when a tenth of the late codebooks' tokens is replaced by others the model finds likely."""
    return likelihood(signals, stream, codebook) - mean(of_codebook(signals, "token_neighbours/means", codebook))


@attack(
    "recall",
    formula=r"\frac{\bar l(x_{1/2}\mid P_{\text{non}})}{\bar l(x_{1/2})}",
    source="Xie et al., arXiv 2406.15968 (ReCaLL)",
)
def recall(signals: TokenSignals, *, stream: str, codebook: int | None = None) -> float:
    """Relative log-likelihood of the first half after a known non-member: a member's drops more, so the ratio rises."""
    after, alone = (mean(of_codebook(signals, f"prefix_nonmember/{k}", codebook)) for k in ("after", "alone"))
    return after / alone if alone else nan


@attack(
    "con_recall",
    formula=r"\frac{\bar l(x_{1/2}\mid P_{\text{non}})-\gamma\,\bar l(x_{1/2}\mid P_{\text{mem}})}{\bar l(x_{1/2})}",
    source="Wang et al., arXiv 2409.03363 (Con-ReCaLL)",
)
def con_recall(signals: TokenSignals, *, stream: str, codebook: int | None = None, gamma: float) -> float:
    """Relative log-likelihood after a known non-member minus that after a known member.

    Both prefixes and gamma are tuning parameters: fix them before looking.
    """
    non, mem = (mean(of_codebook(signals, f"prefix_{k}/after", codebook)) for k in ("nonmember", "member"))
    alone = mean(of_codebook(signals, "prefix_nonmember/alone", codebook))
    return (non - gamma * mem) / alone if alone else nan


@attack(
    "gradient_norm",
    formula=r"-\frac1P\sum_{\theta_i}\lVert\nabla_{\theta_i}\mathcal L\rVert_p\ \text{over parameter tensors}",
    source="mimir, arXiv 2402.07841 (gradient norm)",
    access="white",
)
def gradient_norm(signals: TokenSignals, *, stream: str, p: float) -> float:
    """Minus the mean norm of the training loss' gradient: a member has little left to teach."""
    norms = signals.extras.get("gradient/norms", np.full(2, nan))
    return -float(norms[0 if p == inf else 1])
