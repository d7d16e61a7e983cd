"""Denoising signals: what every diffusion attack needs to know of one segment, and the code that runs the network.

Conventions: z is the clean latent ``[B, C, ...]``, z_t = sqrt(abar_t) z + sqrt(1 - abar_t) eps, and the network's
prediction is always of eps. Timesteps are thousandths of the schedule. Noise depends on (seed, timestep, repeat) alone:
every item of every role meets the same, whatever its place in a batch. Norms are over all entries of the latent;
segments are padded only as in training, alike for every role. Where a model says how many latent frames hold sound,
norms are over those, on the scale of a whole window (``chains.scaled``), so that a clip's length does not count.

``denoising.Run`` runs the network. The book page *Methods: diffusion attacks* explains the passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations
from math import nan
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from earwitness.errors import InputError
from earwitness.signals.evaluations import (
    CLEAN,
    REDUCED,
    plan_evaluations,
    split,
    standard,
)
from earwitness.signals.perturbations import perturb
from earwitness.util import sha256

if TYPE_CHECKING:
    from torch import Tensor

    from earwitness.models.base import Condition, DenoisingModel
    from earwitness.signals.denoising import Predictor
    from earwitness.types import ModelInfo

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
        from earwitness.signals.denoising import Run

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
    """Return what a model's stored signals are keyed by.

    They changed where CLAP hears the recording at its level, and where the network is told the recording's own length.
    """
    return VERSION + ("audio" in info.conditions) + 2 * bool(info.shortest_seconds)


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
    places: Sequence[tuple[float, float]] | None = None,
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
    places : sequence of (float, float), optional
        Where in its recording each segment starts and how long the recording is, in seconds, for models that are told
        (they offer ``placed``) or that say which frames hold sound (``frames_heard``).

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

    from earwitness.signals.denoising import Run

    told = {c: _condition(model, c, captions, audio) for c in wanted.conditions}
    heard = None
    if places is not None and hasattr(model, "placed"):
        told = {c: model.placed(condition, places) for c, condition in told.items()}
    if places is not None and hasattr(model, "frames_heard"):
        heard = within(model.frames_heard(places), latents[CLEAN])
    found: list[dict[str, NDArray[np.float64]]] = [{} for _ in latents[CLEAN]]
    for stands, rows in _alike(list(told), captions, len(found)):
        passes = {name: f"{probe}/{stands[c]}" for name in wanted.passes for probe, c in [split(name)]}
        here = plan_evaluations(passes.values())
        predictors = {c: _predictor(model, {n: value[rows] for n, value in told[c].items()}) for c in here.conditions}
        run = Run(predictors, model.alphas_cumprod, {n: z[rows] for n, z in latents.items()}, noise, model)
        run.heard = None if heard is None else heard[rows]
        for b, values in zip(rows, run.extract(here), strict=True):
            found[b] = {name: values[ran] for name, ran in passes.items()}
    return [DenoisingSignals(values) for values in found]


def within(frames: Sequence[int], latents: Tensor) -> Tensor | None:
    """Return a mask ``[B, 1, T]`` of the latent frames that hold sound; None where all do."""
    import torch

    last = torch.tensor(frames, device=latents.device)[:, None, None]
    mask = torch.arange(latents.shape[-1], device=latents.device) < last
    return None if bool(mask.all()) else mask.to(latents.dtype)


def _alike(asked: Sequence[str], captions: list[str] | None, count: int) -> list[tuple[dict[str, str], list[int]]]:
    """Group a batch's items by which of their texts say the same; the first condition of those stands for the others.

    Their passes are then one pass, run once: CLiD must see that there is no contrast. Which items share a call follows
    from the captions alone: a network's last digits depend on the rows of a call, and must not on what else is asked.
    """
    texts: dict[str, list[str]] = {"null": [""] * count}
    if captions is not None:
        texts |= {"conditional": captions} | {how: [reduced(caption, how) for caption in captions] for how in REDUCED}
    words = [{c: text[b].split() for c, text in texts.items()} for b in range(count)]
    groups: dict[tuple[bool, ...], list[int]] = {}
    for b, said in enumerate(words):
        groups.setdefault(tuple(one == other for one, other in combinations(said.values(), 2)), []).append(b)
    return [
        ({c: next((o for o in asked if said.get(o, o) == said.get(c, c)), c) for c in asked}, rows)
        for rows in groups.values()
        for said in [words[rows[0]]]
    ]


def level(values: dict[str, NDArray[np.float64]], caption: str) -> None:
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
