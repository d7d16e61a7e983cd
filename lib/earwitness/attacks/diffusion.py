"""Attacks on one diffusion model's stored prediction errors.

Notation: clean latent z, noise eps, z_t = sqrt(abar_t) z + sqrt(1 - abar_t) eps, the network's prediction eps(z_t, t)
under the stream's condition. Timesteps are thousandths of the schedule. A member's noise is predicted better, so most
parents score members lower; here every sign is turned so that higher is more member-like.

The costly tail at the end (variations, adversarial budgets, gradients of the parameters) takes tens to hundreds of
evaluations a segment and runs only when named. See the book page *Methods: diffusion attacks*.
"""

from __future__ import annotations

from math import log, nan
from typing import TYPE_CHECKING

import numpy as np

from earwitness.attacks.registry import attack
from earwitness.attacks.token import mean
from earwitness.signals.evaluations import GRID, ORIGIN
from earwitness.signals.perturbations import SLOWER

if TYPE_CHECKING:
    from earwitness.signals.diffusion import DenoisingSignals

CDI = "Dubiński et al., arXiv 2411.12858 (CDI)"


@attack(
    "denoising_loss",
    formula=r"-\frac15\sum_{r=1}^5\|\epsilon_\theta(z_{100},100)-\epsilon_r\|_2",
    source="Carlini et al., arXiv 2301.13188, as in CDI",
)
def denoising_loss(signals: DenoisingSignals, *, stream: str) -> float:
    """Minus the mean norm of the prediction error at t = 100 over five noises (parent: members lower)."""
    return -mean(signals.get("repeats", stream))


@attack(
    "multiple_loss",
    formula=r"-\|\epsilon_\theta(z_t,t)-\epsilon\|_2",
    source=CDI,
)
def multiple_loss(signals: DenoisingSignals, *, stream: str, t: int) -> float:
    """Minus the norm of the prediction error at one of ten timesteps (parent: members lower)."""
    return -signals.value("grid", stream, GRID.index(t))


@attack(
    "secmi",
    formula=r"-\|z^{det}_{100}-z^{step}_{100}\|_2",
    source="Duan et al., arXiv 2302.01316 (SecMI-stat; the official code squares the norm)",
)
def secmi(signals: DenoisingSignals, *, stream: str) -> float:
    """Minus the gap that one deterministic step further and back leaves at t = 100 (parent: members lower)."""
    return -signals.value("secmi", stream, 0)


@attack(
    "pia",
    formula=r"-\|\epsilon_0-\epsilon_\theta(\sqrt{\bar\alpha_t}z+\sqrt{1-\bar\alpha_t}\epsilon_0,t)\|_p,"
    r"\ \epsilon_0=\epsilon_\theta(z,0),\ t=200",
    source="Kong et al., arXiv 2305.18355; p = 5 as in CDI, p = 4 without root as in the official code",
)
def pia(signals: DenoisingSignals, *, stream: str, p: int) -> float:
    """Minus how far the network moves from its own prediction on the clean latent (parent: members lower)."""
    return -signals.value("pia", stream, 0, (5, 4).index(p))


@attack(
    "pian",
    formula=r"\text{PIA with }\epsilon_0\sqrt{2/\pi}\,/\,\overline{|\epsilon_0|}",
    source="Kong et al., arXiv 2305.18355 (the constant of the official code: the mean of |N(0, 1)|)",
)
def pian(signals: DenoisingSignals, *, stream: str, p: int) -> float:
    """PIA with the clean latent's prediction rescaled to the mean size of noise (parent: members lower)."""
    return -signals.value("pia", stream, 1, (5, 4).index(p))


@attack(
    "pian_cdi",
    formula=r"\text{PIA with }\epsilon_0\sqrt{\pi/2}\,/\,\overline{|\epsilon_0|}",
    source=f"code of {CDI}: its constant is too large by a factor of pi / 2; for comparison",
)
def pian_cdi(signals: DenoisingSignals, *, stream: str, p: int) -> float:
    """PIAN with the constant that CDI's code uses, for comparison with its numbers (parent: members lower)."""
    return -signals.value("pia", stream, 2, (5, 4).index(p))


@attack(
    "sima",
    formula=r"-\|\epsilon_\theta(z,t)\|_p",
    source="arXiv 2509.25003 (SimA); p = 4 without root as in its code",
)
def sima(signals: DenoisingSignals, *, stream: str, t: int, p: int) -> float:
    """Minus how much noise the network sees in the clean latent (parent: members lower)."""
    return -signals.value("origin", stream, ORIGIN.index(t), (2, 4).index(p))


@attack(
    "gradient_mask",
    formula=r"-\|((\epsilon-z)-\epsilon_\theta(\hat z,t))\odot M\|_2,\ M:\ \text{largest 20\,\% of }"
    r"|\partial\|\epsilon_\theta(z_t,t)-\epsilon\|_2/\partial z_t|",
    source=f"{CDI}, gradient masking",
    access="white",
    sign="ours",
)
def gradient_mask(signals: DenoisingSignals, *, stream: str, t: int) -> float:
    """Minus the error in restoring the entries that matter most, replaced by noise (CDI leaves the sign open)."""
    return -signals.value("gradient_mask", stream, GRID.index(t))


@attack(
    "noise_optimisation",
    formula=r"-\min_\delta\|\epsilon_\theta(z_{100}+\delta,100)-\epsilon\|_2",
    source=f"{CDI}, noise optimisation; each item on its own, without noising again",
    access="white",
    sign="ours",
)
def noise_optimisation(signals: DenoisingSignals, *, stream: str) -> float:
    """Minus the error left after five steps of optimising the noisy latent (CDI leaves the sign open)."""
    return -signals.value("noise_optimisation", stream, 0)


@attack(
    "noise_move",
    formula=r"-\|\delta^*\|_2",
    source=f"{CDI}, noise optimisation; each item on its own, without noising again",
    access="white",
    sign="ours",
)
def noise_move(signals: DenoisingSignals, *, stream: str) -> float:
    """Minus how far the optimisation moved the noisy latent (CDI leaves the sign open)."""
    return -signals.value("noise_optimisation", stream, 1)


def fluctuation(signals: DenoisingSignals, stream: str, neighbours: slice) -> float:
    """Mean relative rise of the squared error from the clean latent to its neighbours, over timesteps."""
    squared = np.square(signals.get("pfami", stream))
    return mean(squared[1:][neighbours] / squared[0] - 1) if squared.size else nan


@attack(
    "pfami",
    formula=r"\operatorname{mean}_{t,s}\frac{L_t(x'_s)-L_t(x)}{L_t(x)},\ L_t=\|\epsilon_\theta(z_t,t)-\epsilon\|_2^2",
    source="Fu et al., arXiv 2308.12143 (PFAMI); perturbations of sound by us",
)
def pfami(signals: DenoisingSignals, *, stream: str) -> float:
    """Rise of the loss on slower and differently equalised neighbours: members sit at a local optimum."""
    return fluctuation(signals, stream, slice(None))


@attack(
    "pfami_slower",
    formula=r"\text{PFAMI over the middle 95, 90 and 85\,\% stretched to full length}",
    source="Fu et al., arXiv 2308.12143 (PFAMI); the centre crop as sound",
)
def pfami_slower(signals: DenoisingSignals, *, stream: str) -> float:
    """PFAMI over neighbours that play the middle of the recording slower and lower."""
    return fluctuation(signals, stream, slice(0, len(SLOWER)))


@attack(
    "pfami_tilt",
    formula=r"\text{PFAMI over spectra tilted by 1, 2 and 3 dB per octave}",
    source="Fu et al., arXiv 2308.12143 (PFAMI); the equaliser by us",
)
def pfami_tilt(signals: DenoisingSignals, *, stream: str) -> float:
    """PFAMI over neighbours with another equaliser setting."""
    return fluctuation(signals, stream, slice(len(SLOWER), None))


def gain(signals: DenoisingSignals, better: str, worse: str) -> float:
    """Mean over timesteps of the squared error under one condition minus that under another, same noise in both.

    NaN where the two say the same: there is no contrast, and an exact 0 would pass for a measured one.
    """
    ours, theirs = signals.get("grid", better), signals.get("grid", worse)
    if not ours.size or not theirs.size or np.array_equal(ours, theirs):
        return nan
    return mean(np.square(theirs) - np.square(ours))


@attack(
    "clid",
    formula=r"\operatorname{mean}_t\big(\|\epsilon_\theta(z_t,t,c^*)-\epsilon\|_2^2-\|\epsilon_\theta(z_t,t,c)-\epsilon\|_2^2\big)",
    source="Zhai et al., arXiv 2405.14800 (CLiD); c* is no caption, its first half, or another recording's",
)
def clid(signals: DenoisingSignals, *, stream: str) -> float:
    """How much the caption helps over a reduced one: it helps most on captions seen in training."""
    return gain(signals, "conditional", stream)


@attack(
    "clid_audio",
    formula=r"\operatorname{mean}_t\big(\|\epsilon_\theta(z_t,t,c^*)-\epsilon\|_2^2-\|\epsilon_\theta(z_t,t,a)-\epsilon\|_2^2\big)",
    source="after Zhai et al., arXiv 2405.14800; a is the recording's own embedding, c* none or the caption",
)
def clid_audio(signals: DenoisingSignals, *, stream: str) -> float:
    """How much the recording's own embedding helps over nothing, or over its caption."""
    return gain(signals, "audio", stream)


# --- the costly tail --------------------------------------------------------------------------------------------------


@attack(
    "rediffuse",
    formula=r"-\frac13\sum_{w}\operatorname{mean}\big|\log|S_w(\bar x)|-\log|S_w(x)|\big|",
    source="Li et al., arXiv 2405.20771 (ReDiffuse), with a multi-resolution spectral distance",
)
def rediffuse(signals: DenoisingSignals, *, stream: str) -> float:
    """Minus the distance of the recording to the mean of four variations noised to t = 150 and denoised."""
    return -signals.value("rediffuse", stream, 0)


@attack(
    "adversarial_budget",
    formula=r"\min\{r:\ \max_{\|\delta\|\le r\|z_{600}\|} d(x(z_{600}+\delta),x(z_{600}))\ge\tau\}",
    source="LSA-Probe, ICASSP 2026 (no code published: distance, threshold and search are ours)",
    access="white",
)
def adversarial_budget(signals: DenoisingSignals, *, stream: str) -> float:
    """Smallest relative change of the noisy latent that moves the decoded sound audibly: members hold out longer."""
    return signals.value("adversarial", stream, 0)


@attack(
    "gradient_norm_gsa",
    formula=r"-\log\|\nabla_\theta \tfrac1{10}\textstyle\sum_t L_t\|_2",
    source="Pang et al., arXiv 2308.06405 (GSA1's features, summed; without shadow models)",
    access="white",
    sign="ours",
)
def gradient_norm_gsa(signals: DenoisingSignals, *, stream: str) -> float:
    """Minus the log norm of the loss gradient with respect to the parameters: members pull them less."""
    total = float(np.square(signals.get("gradient_norms", stream)).sum())
    return -0.5 * log(total) if total > 0 else nan
