"""The costly tail of the diffusion attacks: variations, adversarial budgets, gradients of the parameters.

They decode to sound or reach into the network, take tens to hundreds of evaluations a segment, and run only when named.
See the book page *Methods: diffusion attacks*.
"""

from __future__ import annotations

from math import log, nan

import numpy as np

from earwitness.attacks.registry import attack
from earwitness.extractors.diffusion import DenoisingSignals

STREAM = ("conditional",)


@attack(
    "rediffuse",
    family="diffusion",
    formula=r"-\frac13\sum_{w}\operatorname{mean}\big|\log|S_w(\bar x)|-\log|S_w(x)|\big|",
    source="Li et al., arXiv 2405.20771 (ReDiffuse), with a multi-resolution spectral distance",
    streams=STREAM,
    passes=("rediffuse",),
    per_codebook=False,
)
def rediffuse(signals: DenoisingSignals, *, stream: str) -> float:
    """Minus the distance of the recording to the mean of four variations noised to t = 150 and denoised."""
    return -signals.value("rediffuse", stream, 0)


@attack(
    "adversarial_budget",
    family="diffusion",
    formula=r"\min\{r:\ \max_{\|\delta\|\le r\|z_{600}\|} d(x(z_{600}+\delta),x(z_{600}))\ge\tau\}",
    source="LSA-Probe, ICASSP 2026 (no code published: distance, threshold and search are ours)",
    access="white",
    streams=STREAM,
    passes=("adversarial",),
    per_codebook=False,
)
def adversarial_budget(signals: DenoisingSignals, *, stream: str) -> float:
    """Smallest relative change of the noisy latent that moves the decoded sound audibly: members hold out longer."""
    return signals.value("adversarial", stream, 0)


@attack(
    "gradient_norm_gsa",
    family="diffusion",
    formula=r"-\log\|\nabla_\theta \tfrac1{10}\textstyle\sum_t L_t\|_2",
    source="Pang et al., arXiv 2308.06405 (GSA1's features, summed; without shadow models)",
    access="white",
    streams=STREAM,
    passes=("gradient_norms",),
    per_codebook=False,
    sign="ours",
)
def gradient_norm_gsa(signals: DenoisingSignals, *, stream: str) -> float:
    """Minus the log norm of the loss gradient with respect to the parameters: members pull them less."""
    total = float(np.square(signals.get("gradient_norms", stream)).sum())
    return -0.5 * log(total) if total > 0 else nan
