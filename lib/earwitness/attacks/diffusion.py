"""Attacks on one diffusion model's stored prediction errors: loss, deterministic walks, guidance contrasts.

Notation: clean latent z, noise eps, z_t = sqrt(abar_t) z + sqrt(1 - abar_t) eps, the network's prediction eps(z_t, t)
under the stream's condition. Timesteps are thousandths of the schedule. A member's noise is predicted better, so most
parents score members lower; here every sign is turned so that higher is more member-like. See the book page
*Methods: diffusion attacks*.
"""

from __future__ import annotations

from math import nan

import numpy as np

from earwitness.attacks.registry import attack
from earwitness.attacks.token import mean
from earwitness.extractors.diffusion import DenoisingSignals
from earwitness.extractors.perturb import SLOWER
from earwitness.extractors.plan import GRID, ORIGIN, REDUCED, SOUND, STREAMS

CDI = "Dubiński et al., arXiv 2411.12858 (CDI)"
TIMES = tuple({"t": t} for t in GRID)
POWERS = ({"p": 5}, {"p": 4})  # CDI's 5-norm; the official code's sum of fourth powers


@attack(
    "denoising_loss",
    family="diffusion",
    formula=r"-\frac15\sum_{r=1}^5\|\epsilon_\theta(z_{100},100)-\epsilon_r\|_2",
    source="Carlini et al., arXiv 2301.13188, as in CDI",
    streams=STREAMS,
    passes=("repeats",),
    per_codebook=False,
)
def denoising_loss(signals: DenoisingSignals, *, stream: str) -> float:
    """Minus the mean norm of the prediction error at t = 100 over five noises (parent: members lower)."""
    return -mean(signals.get("repeats", stream))


@attack(
    "multiple_loss",
    family="diffusion",
    formula=r"-\|\epsilon_\theta(z_t,t)-\epsilon\|_2",
    source=CDI,
    streams=STREAMS,
    variants=TIMES,
    passes=("grid",),
    per_codebook=False,
)
def multiple_loss(signals: DenoisingSignals, *, stream: str, t: int) -> float:
    """Minus the norm of the prediction error at one of ten timesteps (parent: members lower)."""
    return -signals.value("grid", stream, GRID.index(t))


@attack(
    "secmi",
    family="diffusion",
    formula=r"-\|z^{det}_{100}-z^{step}_{100}\|_2",
    source="Duan et al., arXiv 2302.01316 (SecMI-stat; the official code squares the norm)",
    streams=STREAMS,
    passes=("secmi",),
    per_codebook=False,
)
def secmi(signals: DenoisingSignals, *, stream: str) -> float:
    """Minus the gap that one deterministic step further and back leaves at t = 100 (parent: members lower)."""
    return -signals.value("secmi", stream, 0)


@attack(
    "pia",
    family="diffusion",
    formula=r"-\|\epsilon_0-\epsilon_\theta(\sqrt{\bar\alpha_t}z+\sqrt{1-\bar\alpha_t}\epsilon_0,t)\|_p,"
    r"\ \epsilon_0=\epsilon_\theta(z,0),\ t=200",
    source="Kong et al., arXiv 2305.18355; p = 5 as in CDI, p = 4 without root as in the official code",
    streams=STREAMS,
    variants=POWERS,
    passes=("pia",),
    per_codebook=False,
)
def pia(signals: DenoisingSignals, *, stream: str, p: int) -> float:
    """Minus how far the network moves from its own prediction on the clean latent (parent: members lower)."""
    return -signals.value("pia", stream, 0, (5, 4).index(p))


@attack(
    "pian",
    family="diffusion",
    formula=r"\text{PIA with }\epsilon_0\sqrt{2/\pi}\,/\,\overline{|\epsilon_0|}",
    source="Kong et al., arXiv 2305.18355 (the constant of the official code: the mean of |N(0, 1)|)",
    streams=STREAMS,
    variants=POWERS,
    passes=("pia",),
    per_codebook=False,
)
def pian(signals: DenoisingSignals, *, stream: str, p: int) -> float:
    """PIA with the clean latent's prediction rescaled to the mean size of noise (parent: members lower)."""
    return -signals.value("pia", stream, 1, (5, 4).index(p))


@attack(
    "pian_cdi",
    family="diffusion",
    formula=r"\text{PIA with }\epsilon_0\sqrt{\pi/2}\,/\,\overline{|\epsilon_0|}",
    source=f"code of {CDI}: its constant is too large by a factor of pi / 2; for comparison",
    streams=STREAMS,
    variants=POWERS,
    passes=("pia",),
    per_codebook=False,
)
def pian_cdi(signals: DenoisingSignals, *, stream: str, p: int) -> float:
    """PIAN with the constant that CDI's code uses, for comparison with its numbers (parent: members lower)."""
    return -signals.value("pia", stream, 2, (5, 4).index(p))


@attack(
    "sima",
    family="diffusion",
    formula=r"-\|\epsilon_\theta(z,t)\|_p",
    source="arXiv 2509.25003 (SimA); p = 4 without root as in its code",
    streams=STREAMS,
    variants=tuple({"t": t, "p": p} for t in ORIGIN for p in (2, 4)),
    passes=("origin",),
    per_codebook=False,
)
def sima(signals: DenoisingSignals, *, stream: str, t: int, p: int) -> float:
    """Minus how much noise the network sees in the clean latent (parent: members lower)."""
    return -signals.value("origin", stream, ORIGIN.index(t), (2, 4).index(p))


@attack(
    "gradient_mask",
    family="diffusion",
    formula=r"-\|((\epsilon-z)-\epsilon_\theta(\hat z,t))\odot M\|_2,\ M:\ \text{largest 20\,\% of }"
    r"|\partial\|\epsilon_\theta(z_t,t)-\epsilon\|_2/\partial z_t|",
    source=f"{CDI}, gradient masking",
    access="white",
    streams=SOUND,
    variants=TIMES,
    passes=("gradient_mask",),
    per_codebook=False,
    sign="ours",
)
def gradient_mask(signals: DenoisingSignals, *, stream: str, t: int) -> float:
    """Minus the error in restoring the entries that matter most, replaced by noise (CDI leaves the sign open)."""
    return -signals.value("gradient_mask", stream, GRID.index(t))


@attack(
    "noise_optimisation",
    family="diffusion",
    formula=r"-\min_\delta\|\epsilon_\theta(z_{100}+\delta,100)-\epsilon\|_2",
    source=f"{CDI}, noise optimisation; each item on its own, without noising again",
    access="white",
    streams=SOUND,
    passes=("noise_optimisation",),
    per_codebook=False,
    sign="ours",
)
def noise_optimisation(signals: DenoisingSignals, *, stream: str) -> float:
    """Minus the error left after five steps of optimising the noisy latent (CDI leaves the sign open)."""
    return -signals.value("noise_optimisation", stream, 0)


@attack(
    "noise_move",
    family="diffusion",
    formula=r"-\|\delta^*\|_2",
    source=f"{CDI}, noise optimisation; each item on its own, without noising again",
    access="white",
    streams=SOUND,
    passes=("noise_optimisation",),
    per_codebook=False,
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
    family="diffusion",
    formula=r"\operatorname{mean}_{t,s}\frac{L_t(x'_s)-L_t(x)}{L_t(x)},\ L_t=\|\epsilon_\theta(z_t,t)-\epsilon\|_2^2",
    source="Fu et al., arXiv 2308.12143 (PFAMI); perturbations of sound by us",
    streams=SOUND,
    passes=("pfami",),
    per_codebook=False,
)
def pfami(signals: DenoisingSignals, *, stream: str) -> float:
    """Rise of the loss on slower and differently equalised neighbours: members sit at a local optimum."""
    return fluctuation(signals, stream, slice(None))


@attack(
    "pfami_slower",
    family="diffusion",
    formula=r"\text{PFAMI over the middle 95, 90 and 85\,\% stretched to full length}",
    source="Fu et al., arXiv 2308.12143 (PFAMI); the centre crop as sound",
    streams=SOUND,
    passes=("pfami",),
    per_codebook=False,
)
def pfami_slower(signals: DenoisingSignals, *, stream: str) -> float:
    """PFAMI over neighbours that play the middle of the recording slower and lower."""
    return fluctuation(signals, stream, slice(0, len(SLOWER)))


@attack(
    "pfami_tilt",
    family="diffusion",
    formula=r"\text{PFAMI over spectra tilted by 1, 2 and 3 dB per octave}",
    source="Fu et al., arXiv 2308.12143 (PFAMI); the equaliser by us",
    streams=SOUND,
    passes=("pfami",),
    per_codebook=False,
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
    family="diffusion",
    formula=r"\operatorname{mean}_t\big(\|\epsilon_\theta(z_t,t,c^*)-\epsilon\|_2^2-\|\epsilon_\theta(z_t,t,c)-\epsilon\|_2^2\big)",
    source="Zhai et al., arXiv 2405.14800 (CLiD); c* is no caption, its first half, or another recording's",
    streams=("null", *REDUCED),
    passes=("grid", "grid/conditional"),
    per_codebook=False,
)
def clid(signals: DenoisingSignals, *, stream: str) -> float:
    """How much the caption helps over a reduced one: it helps most on captions seen in training."""
    return gain(signals, "conditional", stream)


@attack(
    "clid_audio",
    family="diffusion",
    formula=r"\operatorname{mean}_t\big(\|\epsilon_\theta(z_t,t,c^*)-\epsilon\|_2^2-\|\epsilon_\theta(z_t,t,a)-\epsilon\|_2^2\big)",
    source="after Zhai et al., arXiv 2405.14800; a is the recording's own embedding, c* none or the caption",
    streams=("null", "conditional"),
    passes=("grid", "grid/audio"),
    per_codebook=False,
)
def clid_audio(signals: DenoisingSignals, *, stream: str) -> float:
    """How much the recording's own embedding helps over nothing, or over its caption."""
    return gain(signals, "audio", stream)
