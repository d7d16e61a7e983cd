"""Further passes that costly attacks ask for: a second model, neighbours, prefixes, gradients.

They add small arrays to ``TokenSignals.extras``, one entry per pass named ``"<pass>/..."``; everything is conditional
on the caption. ``EXTRA_PASSES`` tells their cost before a run. Nothing here is random: resampled tokens use one fixed
noise for every segment, so no draw can favour a role. The book page *Methods: token attacks* explains each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy
from numpy.typing import NDArray

from earwitness.errors import InputError, ModelError, nearest
from earwitness.signals import symbolic
from earwitness.signals.perturbations import NEIGHBOURS
from earwitness.signals.token import TokenSignals, over_rows

if TYPE_CHECKING:
    from torch import Tensor

    from earwitness.models.base import TokenModel
    from earwitness.types import ModelInfo

VERSION = 3  # raise it when what a pass stores changes: stored signals are keyed by it
TOKEN_NEIGHBOURS = 4
RESAMPLED = 0.1  # share of the late codebooks' tokens that a token neighbour draws anew
EXTRA_PASSES = {  # forward passes (NFE) per segment, ``calls`` has the further ones; a backward pass counts two
    "reference": 1,
    "neighbours": len(NEIGHBOURS),
    "token_neighbours": 1 + TOKEN_NEIGHBOURS,
    "prefix_nonmember": 1,
    "prefix_member": 1,
    "gradient": 3,
    **symbolic.PASSES,
}


def calls(passes: Mapping[str, int], info: ModelInfo) -> int:
    """Return the network calls of passes, given with their numbers of forward passes: masked models need several."""
    halves = sum(name.startswith("prefix_") for name in passes) if info.calls > 1 else 0
    return (sum(passes.values()) + halves) * info.calls


@dataclass(frozen=True)
class Batch:
    """What every pass works on: ``audio`` ``[B, C, samples]``, captions, ``codes`` ``[B, K, T]`` and other models."""

    model: TokenModel
    audio: Tensor
    captions: list[Any]
    codes: Tensor
    reference: TokenModel | None
    prefixes: Mapping[str, Tensor]


def extend(
    model: TokenModel,
    audio: Tensor,
    captions: list[Any],
    signals: Sequence[TokenSignals],
    passes: Sequence[str],
    *,
    reference: TokenModel | None = None,
    prefixes: Mapping[str, Tensor] | None = None,
) -> list[TokenSignals]:
    """Return the signals of a batch with the results of further passes added.

    Parameters
    ----------
    model, audio, captions
        As ``earwitness.signals.token.extract`` got them.
    signals : sequence of TokenSignals
        What it returned.
    passes : sequence of str
        Keys of ``EXTRA_PASSES``.
    reference : TokenModel, optional
        For ``"reference"``: a model that saw none of the recordings. It hears them at its own sample rate and through
        its own tokenizer.
    prefixes : mapping, optional
        For ``"prefix_nonmember"`` and ``"prefix_member"``: codes ``[K, frames]`` of a recording known not to be (or
        known to be) a member, outside the comparison.

    Raises
    ------
    InputError
        An unknown pass, or one whose reference or prefix is missing or does not fit.
    ModelError
        A model that gives no gradients.
    """
    import torch

    check(passes, model.info, reference.info if reference else None)
    scheme = model.info.scheme  # of whose signals every row repeats the codes
    codes = torch.from_numpy(np.stack([s.codes[: 1 if scheme else None] for s in signals])).long().to(model.info.device)
    batch = Batch(model, audio, captions, codes, reference, prefixes or {})
    found: list[dict[str, NDArray[Any]]] = [{} for _ in signals]
    for name in passes:
        if name in symbolic.HALF_PASSES:
            with torch.inference_mode():
                signals = symbolic.replaced(signals, name, symbolic.half(model, codes, captions, name))
            continue
        for key, values in _run(name, batch, signals).items():
            for b, value in enumerate(values):
                found[b][f"{name}/{key}"] = value
    return [replace(s, extras={**s.extras, **new}) for s, new in zip(signals, found, strict=True)]


def check(passes: Sequence[str], info: ModelInfo, reference: ModelInfo | None = None) -> None:
    """Refuse passes that do not exist, that make no sense for what a model hears or reads, or whose reference cannot.

    Raises
    ------
    InputError
        Naming the first of them.
    """
    for name in passes:
        if name not in EXTRA_PASSES:
            raise InputError(
                f"there is no pass {name!r}{nearest(name, EXTRA_PASSES)}; expected {', '.join(EXTRA_PASSES)}"
            )
        if (name in symbolic.PASSES) > (info.scheme is not None):
            raise InputError(f"{info.name} hears sound, and the pass {name!r} is for notes; leave its attacks out")
        if info.scheme is not None and name not in (*symbolic.PASSES, *symbolic.SHARED):
            able = ", ".join((*symbolic.PASSES, *symbolic.SHARED))
            raise InputError(f"{info.name} reads notes, and the pass {name!r} is for sound; expected one of {able}")
    if symbolic.DECODER_ALONE in passes and not info.conditions:
        raise InputError(
            f"{info.name} is told nothing of a piece, so it has no null stream and no contrast; leave their attacks out"
        )
    if "reference" in passes and reference is not None:
        _check_reference(reference, info)


def _check_reference(other: ModelInfo, info: ModelInfo) -> None:
    """Refuse a second model that does not score what the first one does, or would have to beyond its training."""
    if other.family != "token":
        raise InputError(f"{other.name} is a {other.family} model; a reference for {info.name} must be a token model")
    if other.scheme != info.scheme:
        raise InputError(f"{other.name} does not read what {info.name} reads; name another reference")
    if info.scheme is None and other.segment_seconds < info.segment_seconds:
        raise InputError(
            f"{other.name} was trained on {other.segment_seconds:g} s and would be given {info.segment_seconds:g} s of "
            f"{info.name}; name a reference whose window is at least as long"
        )


def _run(name: str, batch: Batch, signals: Sequence[TokenSignals]) -> dict[str, NDArray[Any]]:
    """Run one pass; every array has the batch in front."""
    import torch

    if name == "gradient":
        return _gradient(batch)
    with torch.inference_mode():
        if name == "reference":
            return _reference(batch)
        if name == symbolic.DECODER_ALONE:
            return symbolic.decoder_alone(batch.model, batch.codes, batch.captions)
        if name in symbolic.NEIGHBOUR_PASSES:
            return symbolic.neighbours(batch.model, batch.captions, name)
        if name == "neighbours":
            return _neighbours(batch)
        if name == "token_neighbours":
            return _token_neighbours(batch)
        return _prefix(batch, name.removeprefix("prefix_"), signals)


def _means(model: TokenModel, codes: Tensor, captions: list[str], start: int = 0) -> NDArray[np.float64]:
    """Return ``[B, K]`` mean log-probabilities of the valid codes from frame ``start`` on."""
    from earwitness.signals.token import reduce_batch

    logits, mask = model.logits(codes, captions)
    mask = mask.clone()
    mask[..., :start] = False
    scored = reduce_batch(logits, None, codes, mask)
    return np.array([[s.series("logp", "conditional", q).mean() for q in range(len(s.codes))] for s in scored])


def _reference(batch: Batch) -> dict[str, NDArray[np.float64]]:
    """Log-likelihood under a second model, in nats per frame *of the target's tokens*, summed over codebooks.

    Two tokenizers have different frame rates and codebooks; per second of audio both describe the same recording.
    ``same_tokens`` records the share of tokens that both agree on: 1 where the comparison is one of likelihoods, 0
    where the tokenizers differ and it is one of code lengths per second.
    """
    import torch

    other = batch.reference
    if other is None:
        raise InputError("the pass 'reference' needs reference=, a model that saw none of the recordings")
    if other.info.scheme is not None:
        means = symbolic.means(symbolic.score(other, batch.codes.to(other.info.device), batch.captions))
        return {"nats_per_frame": over_rows(means) * means.shape[1], "same_tokens": np.ones(len(means))}
    audio, rates = batch.audio.cpu().numpy(), (other.info.sample_rate, batch.model.info.sample_rate)
    if other.info.channels != audio.shape[1]:
        audio = np.repeat(audio.mean(axis=1, keepdims=True), other.info.channels, axis=1)
    if rates[0] != rates[1]:
        common = int(np.gcd(*rates))
        audio = scipy.signal.resample_poly(audio, rates[0] // common, rates[1] // common, axis=-1).astype(np.float32)
    codes = other.encode(torch.from_numpy(audio))
    frames = codes.shape[-1] / batch.codes.shape[-1]
    same = np.zeros(len(codes))
    if codes.shape == batch.codes.shape:
        same = (codes == batch.codes.to(codes)).double().mean(dim=(1, 2)).cpu().numpy()
    return {"nats_per_frame": _means(other, codes, batch.captions).sum(axis=1) * frames, "same_tokens": same}


def _neighbours(batch: Batch) -> dict[str, NDArray[np.float64]]:
    """Mean log-probabilities of the audio neighbours: ``[B, J, K]``."""
    import torch

    audio = batch.audio.cpu().numpy()
    frame = round(audio.shape[-1] / batch.codes.shape[-1])
    found = []
    for change in NEIGHBOURS.values():
        moved = change(audio, batch.model.info.sample_rate, frame)
        codes = batch.model.encode(torch.from_numpy(np.ascontiguousarray(moved)))
        found.append(_means(batch.model, codes, batch.captions))
    return {"means": np.stack(found, axis=1)}


def _token_neighbours(batch: Batch) -> dict[str, NDArray[np.float64]]:
    """Mean log-probabilities of copies with some late tokens drawn anew from the model's null condition: ``[B, J, K]``.

    The upper half of the codebooks carries texture. Positions and noise (Gumbel) are the same for every segment.
    """
    import torch

    proposal = batch.model.logits(batch.codes, None)[0]
    books, frames, entries = proposal.shape[1:]
    late = (torch.arange(books) >= books // 2)[:, None]
    found = []
    for seed in range(TOKEN_NEIGHBOURS):
        source = torch.Generator().manual_seed(seed)
        chosen = (torch.rand(books, frames, generator=source) < RESAMPLED) & late
        noise = -torch.empty(books, frames, entries).exponential_(generator=source).log()
        codes = batch.codes.clone()
        codes[:, chosen] = (proposal[:, chosen].float() + noise[chosen].to(proposal.device)).argmax(-1)
        found.append(_means(batch.model, codes, batch.captions))
    return {"means": np.stack(found, axis=1)}


def _prefix(batch: Batch, kind: str, signals: Sequence[TokenSignals]) -> dict[str, NDArray[np.float64]]:
    """Mean log-probabilities ``[B, K]`` of each segment's first half, after another recording and without it.

    Prefix and half segment together are as long as the window that the model was trained on. In a causal model the
    half without a prefix is read from the conditional stream, at the same positions; a masked model saw the other half
    there, and is asked once more.
    """
    import torch

    books, frames = batch.codes.shape[1:]
    half = frames // 2
    given = batch.prefixes.get(kind)
    if given is None:
        raise InputError(
            f"the pass 'prefix_{kind}' needs prefixes={{'{kind}': codes}} of a recording outside the comparison"
        )
    if given.ndim != 2 or given.shape[0] != books or given.shape[1] < frames - half:
        raise InputError(f"prefix {kind!r} is {tuple(given.shape)}; expected [{books}, at least {frames - half}] codes")
    prefix = given[:, -(frames - half) :].to(batch.codes).expand(len(batch.codes), -1, -1)
    joined = torch.cat([prefix, batch.codes[..., :half]], dim=-1)
    after = _means(batch.model, joined, batch.captions, start=frames - half)
    if batch.model.info.calls > 1:
        return {"after": after, "alone": _means(batch.model, batch.codes[..., :half], batch.captions)}
    valid = signals[0].mask[:, frames - half :]
    alone = [
        [s.streams["conditional"].logp[q, :half][valid[q, -half:]].mean(dtype=np.float64) for q in range(books)]
        for s in signals
    ]
    return {"after": after, "alone": np.array(alone)}


def _gradient(batch: Batch) -> dict[str, NDArray[np.float64]]:
    """Norms ``[B, 2]`` of the training loss' gradient, averaged over parameter tensors: maximum and Euclidean."""
    import torch

    if not hasattr(batch.model, "parameters"):
        raise ModelError(f"{batch.model.info.name}: gives no gradients; leave gradient_norm out")
    parameters = list(batch.model.parameters())
    trained = [p.requires_grad for p in parameters]
    found = []
    try:
        for p in parameters:
            p.requires_grad_(requires_grad=True)
        for b in range(len(batch.codes)):
            with torch.inference_mode(mode=False), torch.enable_grad():
                codes = batch.codes[b : b + 1].clone()
                logits, mask = batch.model.logits(codes, [batch.captions[b]])
                if not logits.requires_grad:
                    raise ModelError(f"{batch.model.info.name}: gives no gradients; leave gradient_norm out")
                logp = torch.log_softmax(logits.float(), -1).gather(-1, codes[..., None])[..., 0]
                loss = -torch.stack([logp[0, q][mask[0, q]].mean() for q in range(codes.shape[1])]).mean()
                given = torch.autograd.grad(loss, parameters, allow_unused=True)
            norms = [[float(g.abs().max()), float(g.norm())] for g in given if g is not None]
            found.append(np.mean(norms, axis=0))
    finally:
        for p, was in zip(parameters, trained, strict=True):
            p.requires_grad_(was)
    return {"norms": np.stack(found)}
