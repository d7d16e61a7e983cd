"""Denoising signals: what every diffusion attack needs to know of one segment, and the code that runs the network.

Conventions: z is the clean latent ``[B, C, ...]``, z_t = sqrt(abar_t) z + sqrt(1 - abar_t) eps, and the network's
prediction is always of eps. Timesteps are thousandths of the schedule. Noise depends on (seed, timestep, repeat) alone:
every item of every role meets the same, whatever its place in a batch. Norms are over all entries of the latent;
segments are padded only as in training, alike for every role, so nothing is masked.

One ``Run`` takes one batch of items through a plan: distinct evaluations in large calls, then the adaptive chains.
Every evaluation is reduced to a norm as soon as it is there; only the predictions on un-noised latents are kept,
because chains start from them. The book page *Methods: diffusion attacks* explains the passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import nan
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from earwitness.errors import InputError, ModelError
from earwitness.signals import chains, diffusion_costly
from earwitness.signals.evaluations import (
    CLEAN,
    GRID,
    LOSS_TIME,
    ORIGIN,
    PFAMI_TIMES,
    PROBES,
    REDUCED,
    UNNOISED,
    Evaluation,
    EvaluationPlan,
    plan_evaluations,
    split,
    standard,
)
from earwitness.signals.perturbations import NAMES, perturb
from earwitness.util import sha256

if TYPE_CHECKING:
    from torch import Tensor

    from earwitness.models.base import Condition, DenoisingModel
    from earwitness.types import ModelInfo

Predictor = Callable[[Tensor, Tensor, Tensor], Tensor]  # latents [n, ...], timesteps [n], items [n] -> noise

# --- running the network ----------------------------------------------------------------------------------------------

BATCH_ROWS = {"cpu": 32}  # rows in one call of the network ...
BATCH_ROWS_ACCELERATOR = 64  # ... or on an accelerator
LEAST_TIMESTEPS = 100
PIA_TIME, MASK_SHARE = 200, 0.2


class Run:
    """One batch of items on its way through a plan.

    Parameters
    ----------
    predictors : mapping
        Condition -> network; its rows belong to the items whose numbers it is given.
    levels : Tensor
        ``alphas_cumprod`` ``[T]``.
    latents : mapping
        Name -> ``[B, ...]``, ``"clean"`` and perhaps PFAMI's neighbours.
    noise : callable
        ``noise(t, repeat) -> [1, ...]``.
    model : DenoisingModel, optional
        What the latents came from; the tail's passes need its decoder or its parameters.

    Raises
    ------
    ModelError
        A schedule too coarse for the attacks' timesteps.
    """

    def __init__(
        self,
        predictors: Mapping[str, Predictor],
        levels: Tensor,
        latents: Mapping[str, Tensor],
        noise: Callable[[int, int], Tensor],
        model: DenoisingModel | None = None,
    ) -> None:
        if len(levels) < LEAST_TIMESTEPS:
            raise ModelError(f"a schedule of {len(levels)} timesteps is too coarse; the attacks need {LEAST_TIMESTEPS}")
        self.predictors, self.levels, self.latents, self.noise, self.model = predictors, levels, latents, noise, model
        self.z = latents[CLEAN]
        self.rows = BATCH_ROWS.get(self.z.device.type, BATCH_ROWS_ACCELERATOR)
        self.norms: dict[Evaluation, Tensor] = {}
        self.unnoised: dict[Evaluation, Tensor] = {}

    def at(self, t: int) -> int:
        """Turn thousandths of the schedule into one of its timesteps."""
        return t * len(self.levels) // 1000

    def predict(self, condition: str, item: int | None = None) -> chains.Predict:
        """Return the network under one condition at one timestep: for all items, or for one alone."""
        network, device = self.predictors[condition], self.z.device
        items = torch.arange(len(self.z), device=device) if item is None else torch.tensor([item], device=device)
        return lambda z_t, t: network(z_t, torch.full((len(z_t),), t, device=device), items)

    def extract(self, wanted: EvaluationPlan) -> list[dict[str, np.ndarray]]:
        """Run everything and return each item's values by pass.

        Raises
        ------
        ModelError
            Predictions that are not finite.
        """
        found = {}
        with torch.no_grad():
            for condition in wanted.conditions:
                self.evaluate([e for e in wanted.evaluations if e.condition == condition])
            for name in wanted.passes:
                found[name] = self.finish(*split(name)).double().cpu().numpy()
        for name, value in found.items():
            if not np.isfinite(value).all():
                raise ModelError(f"{name}: predictions are not finite; load the model with dtype float32")
        return [{name: value[b] for name, value in found.items()} for b in range(len(self.z))]

    def evaluate(self, evaluations: Sequence[Evaluation]) -> None:
        """Run evaluations of one condition, several of them on all items in one call."""
        count = len(self.z)
        together = max(1, self.rows // count)
        for first in range(0, len(evaluations), together):
            batch = evaluations[first : first + together]
            t = torch.tensor([self.at(e.t) for e in batch], device=self.z.device).repeat_interleave(count)
            items = torch.arange(count, device=self.z.device).repeat(len(batch))
            seen = self.predictors[batch[0].condition](torch.cat([self.latent(e) for e in batch]), t, items)
            for e, eps in zip(batch, seen.split(count), strict=True):
                if e.repeat == UNNOISED:
                    self.unnoised[e] = eps
                else:
                    self.norms[e] = chains.norm(eps - self.noise(e.t, e.repeat))

    def latent(self, e: Evaluation) -> Tensor:
        """Return what an evaluation shows the network, ``[B, ...]``."""
        z = self.latents[e.latent]
        return z if e.repeat == UNNOISED else chains.noised(z, self.noise(e.t, e.repeat), self.at(e.t), self.levels)

    def finish(self, probe: str, condition: str) -> Tensor:
        """Return a probe's values ``[B, ...]``; if its gradients do not fit into memory, recompute activations."""
        try:
            return FINISH[probe](self, condition)
        except torch.OutOfMemoryError:
            network = getattr(self.model, "network", None)
            if not PROBES[probe].backward or network is None or network.is_gradient_checkpointing:
                raise
            torch.cuda.empty_cache()
            network.enable_gradient_checkpointing()
        return self.finish(probe, condition)

    def read(self, condition: str, calls: Iterable[tuple[str, int, int]]) -> Tensor:
        """Return the error norms of some evaluations, ``[B, n]``."""
        return torch.stack([self.norms[Evaluation(condition, *call)] for call in calls], dim=1)

    def start(self, condition: str, t: int = 0) -> Tensor:
        """Return the prediction on the un-noised latent."""
        return self.unnoised[Evaluation(condition, CLEAN, t, UNNOISED)]


def _read(probe: str) -> Callable[[Run, str], Tensor]:
    """Return a probe that only reads its evaluations."""
    return lambda run, condition: run.read(condition, PROBES[probe].calls)


def _moments(values: Tensor, p: float) -> Tensor:
    """Return p-norm and sum of fourth powers of each item, ``[B, 2]``."""
    return torch.stack([chains.norm(values, p), chains.flat(values).pow(4).sum(1)], dim=1)


def _origin(run: Run, condition: str) -> Tensor:
    return torch.stack([_moments(run.start(condition, t), 2) for t in ORIGIN], dim=1)


def _pia(run: Run, condition: str) -> Tensor:
    start = run.start(condition)
    variants = [start, *(chains.normalised(start, c) for c in (chains.HALF_NORMAL, chains.CDI_CONSTANT))]
    predict, t = run.predict(condition), run.at(PIA_TIME)
    return torch.stack([_moments(chains.pia(predict, run.levels, run.z, eps, t), 5) for eps in variants], dim=1)


def _secmi(run: Run, condition: str) -> Tensor:
    predict, start = run.predict(condition), run.start(condition)
    there, back = chains.secmi(predict, run.levels, run.z, start, run.at(100), run.at(10))
    return chains.norm(there - back)[:, None]


def _gradient_mask(run: Run, condition: str) -> Tensor:
    def one(t: int) -> Tensor:
        predict = run.predict(condition)
        return chains.gradient_mask(predict, run.levels, run.z, run.noise(t, 0), run.at(t), MASK_SHARE)

    return torch.stack([one(t) for t in GRID], dim=1)


def _noise_optimisation(run: Run, condition: str) -> Tensor:
    eps, t = run.noise(LOSS_TIME, 0), run.at(LOSS_TIME)
    items = [
        chains.optimise_noise(run.predict(condition, b), run.levels, run.z[b : b + 1], eps, t)
        for b in range(len(run.z))
    ]
    return torch.cat(items)


def _pfami(run: Run, condition: str) -> Tensor:
    return torch.stack([run.read(condition, [(name, t, 0) for t in PFAMI_TIMES]) for name in (CLEAN, *NAMES)], dim=1)


FINISH: dict[str, Callable[[Any, str], Tensor]] = {
    "grid": _read("grid"),
    "repeats": _read("repeats"),
    "origin": _origin,
    "pia": _pia,
    "secmi": _secmi,
    "gradient_mask": _gradient_mask,
    "noise_optimisation": _noise_optimisation,
    "pfami": _pfami,
    "rediffuse": diffusion_costly.rediffuse,
    "adversarial": diffusion_costly.adversarial,
    "gradient_norms": diffusion_costly.gradient_norms,
}


# --- the signals ------------------------------------------------------------------------------------------------------

VERSION = 1  # raise it when a stored value changes: stored signals are keyed by it
OTHER_CAPTIONS = (  # CLiD's caption of another recording: fixed, so that no item depends on its batch mates
    "a calm solo piano piece", "fast electronic dance music with a heavy beat", "an acoustic guitar and a soft voice",
    "a symphony orchestra playing a slow movement", "rain falling on a tin roof", "a rock band with distorted guitars",
    "people talking in a busy street", "a jazz trio with double bass and brushes",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class DenoisingSignals:
    """Everything stored about one segment under one diffusion model.

    Attributes
    ----------
    values : mapping
        Pass (``"grid/conditional"``) -> array. ``grid``: ``[10]`` norms of the prediction error at t = 0 ... 900.
        ``repeats``: ``[5]``, the same at t = 100 for five noises. ``origin``: ``[2, 2]``, norm and sum of fourth powers
        of the prediction on the un-noised latent at t = 0 and 100. ``pia``: ``[3, 2]``, 5-norm and sum of fourth
        powers for PIA, PIAN and PIAN with CDI's constant. ``secmi``: ``[1]`` norm. ``gradient_mask``: ``[10]``.
        ``noise_optimisation``: ``[2]``, final norm and size of the move. ``pfami``: ``[7, 10]`` norms for the clean
        latent and its neighbours at t = 0 ... 450. ``rediffuse``, ``adversarial``: ``[1]``. ``gradient_norms``:
        ``[P]``, one per parameter tensor.
    """

    values: Mapping[str, NDArray[np.float64]]
    cache: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    @property
    def passes(self) -> frozenset[str]:
        """Names of the passes whose results are held."""
        return frozenset(self.values)

    def get(self, probe: str, condition: str) -> NDArray[np.float64]:
        """Return a pass's values; empty if it was not run."""
        return self.values.get(f"{probe}/{condition}", np.empty(0))

    def value(self, probe: str, condition: str, *at: int) -> float:
        """Return one number of a pass; NaN if it was not run."""
        found = self.get(probe, condition)
        return float(found[at]) if found.size else nan

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything as named arrays, ready to be stored."""
        return dict(self.values)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> DenoisingSignals:
        """Undo ``to_arrays``."""
        return cls(dict(arrays))

    @classmethod
    def from_network(
        cls,
        predict_noise: Callable[[Tensor, int], Tensor] | Mapping[str, Callable[[Tensor, int], Tensor]],
        alphas_cumprod: Tensor,
        latents: Tensor,
        passes: Iterable[str] = ("grid/conditional", "repeats/conditional", "origin/conditional", "pia/conditional"),
        *,
        noise: Callable[[int, int], Tensor] | None = None,
        seed: int = 0,
    ) -> list[DenoisingSignals]:
        """Extract passes from any network, without a model or a file.

        Parameters
        ----------
        predict_noise : callable or mapping
            ``predict_noise(z_t, t) -> eps`` for ``z_t`` ``[B, ...]`` and one integer t; or one such per condition.
        alphas_cumprod : Tensor
            ``[T]``, at least 100 timesteps.
        latents : Tensor
            ``[B, ...]``, clean and scaled.
        passes : iterable of str
            Which to run; PFAMI needs audio and ReDiffuse a decoder, so both need a model.
        noise : callable, optional
            ``noise(t, repeat) -> eps``, broadcast over items; by default the common noise of ``seed``.

        Returns
        -------
        list of DenoisingSignals
            One per item.
        """
        networks = predict_noise if isinstance(predict_noise, Mapping) else {"conditional": predict_noise}
        drawn = noise or (lambda t, repeat: common_noise(seed, t, repeat, tuple(latents.shape[1:])).to(latents))
        wanted = plan_evaluations(passes)
        predictors = {}
        for name in wanted.conditions:
            if name not in networks:
                raise InputError(f"no network for the condition {name!r}; give predict_noise one per condition")
            predictors[name] = _one_timestep_at_a_time(networks[name])
        run = Run(predictors, alphas_cumprod.to(latents.device), {CLEAN: latents}, drawn)
        return [cls(values) for values in run.extract(wanted)]


def _one_timestep_at_a_time(predict: Callable[[Tensor, int], Tensor]) -> Predictor:
    """Turn a network of one integer timestep into one of a timestep per row."""
    import torch

    def batched(z_t: Tensor, t: Tensor, items: Tensor) -> Tensor:
        values, counts = torch.unique_consecutive(t, return_counts=True)
        parts = zip(z_t.split(counts.tolist()), values.tolist(), strict=True)
        return torch.cat([predict(part, int(value)) for part, value in parts])

    return batched


@lru_cache(maxsize=64)
def common_noise(seed: int, t: int, repeat: int, shape: tuple[int, ...]) -> Tensor:
    """Return standard normal noise ``[1, *shape]`` (float32, CPU) that depends on nothing else than its arguments."""
    import torch

    drawn = np.random.default_rng([seed, t, repeat]).standard_normal((1, *shape), dtype=np.float32)
    return torch.from_numpy(drawn)


def version(info: ModelInfo) -> int:
    """Return what a model's stored signals are keyed by: they changed where CLAP hears the recording at its level."""
    return VERSION + ("audio" in info.conditions)


def reduced(caption: str, how: str) -> str:
    """Return CLiD's reduced caption: its first ``"half"``, or an ``"other"`` one, chosen by the caption itself.

    An empty caption is no text, and nothing stands in its place.
    """
    words = caption.split()
    if not words:
        return ""
    if how == "half":
        return " ".join(words[: max(1, len(words) // 2)])
    choice = int(sha256(caption)[:8], 16)
    return OTHER_CAPTIONS[choice % len(OTHER_CAPTIONS)]


def extract(
    model: DenoisingModel,
    audio: Tensor,
    captions: list[str] | None,
    passes: Iterable[str] | None = None,
    *,
    seed: int = 0,
) -> list[DenoisingSignals]:
    """Run the passes that some attacks need over a batch of segments.

    Parameters
    ----------
    model : DenoisingModel
        A loaded model.
    audio : Tensor
        ``[B, C, samples]`` float32 in [-1, 1] at the model's sample rate, one window each.
    captions : list of str or None
        One per segment; ``None`` leaves the null and audio conditions.
    passes : iterable of str, optional
        See ``earwitness.signals.evaluations``; by default those of a standard run.
    seed : int
        Draws the common noise.

    Returns
    -------
    list of DenoisingSignals
        One per segment, on the CPU.

    Raises
    ------
    InputError
        An unknown pass.
    ModelError
        A condition that the model does not offer, audio that is no window of it, or predictions that are not finite.
    """
    offered = [c for c in model.info.conditions if c != "text" or captions is not None]
    wanted = plan_evaluations(standard(offered) if passes is None else passes)
    latents = {CLEAN: model.encode(audio)}
    for name in wanted.latents[1:]:
        latents[name] = model.encode(perturb(audio, name, model.info.sample_rate))
    shape = tuple(latents[CLEAN].shape[1:])

    def noise(t: int, repeat: int) -> Tensor:
        return common_noise(seed, t, repeat, shape).to(latents[CLEAN])

    predictors = {c: _predictor(model, _condition(model, c, captions, audio)) for c in wanted.conditions}
    run = Run(predictors, model.alphas_cumprod, latents, noise, model)
    found = run.extract(wanted)
    for values, caption in zip(found, captions or (), strict=captions is not None):
        _level(values, caption)
    return [DenoisingSignals(values) for values in found]


def _level(values: dict[str, NDArray[np.float64]], caption: str) -> None:
    """Give conditions that say the same the same errors, to the last bit: CLiD must see that there is no contrast."""
    told = {"conditional": caption, "null": "", **{how: reduced(caption, how) for how in REDUCED}}
    same = [f"grid/{c}" for c, text in told.items() if text.split() == caption.split()]
    held = [name for name in same if name in values]
    for name in held[1:]:
        values[name] = values[held[0]]


def _condition(model: DenoisingModel, name: str, captions: list[str] | None, audio: Tensor) -> Condition:
    """Return what the network is told under one of the plan's conditions."""
    if name in REDUCED and captions is not None:
        captions = [reduced(caption, name) for caption in captions]
    return model.condition(name if name in ("null", "audio") else "text", captions, audio)


def _predictor(model: DenoisingModel, condition: Condition) -> Predictor:
    """Bind a condition ``[B, ...]``; rows say by ``items`` whose condition they need."""

    def predict(z_t: Tensor, t: Tensor, items: Tensor) -> Tensor:
        return model.predict_noise(z_t, t, {name: value[items] for name, value in condition.items()})

    return predict
