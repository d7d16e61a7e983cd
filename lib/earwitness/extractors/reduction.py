"""From logits to token signals, block by block, so that no second ``[B, K, T, V]`` tensor ever exists.

Whatever the model's type, logits are turned into float32 before the log-softmax. The contrast stream is the softmax of
the difference of conditional and null logits. The book page *Methods: token attacks* explains the quantities.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from earwitness.errors import InputError, ModelError
from earwitness.extractors.token import FIELDS, STREAMS, Stream, TokenSignals

BLOCK_ELEMENTS = {"cpu": 2**18}  # logits reduced at once: what a cache holds ...
BLOCK_ELEMENTS_ACCELERATOR = 2**25  # ... or what keeps an accelerator busy
SDM_CHUNK, SDM_CHUNKS, SDM_SHUFFLES = 100, 5, 2  # frames pooled (fewer if the item is short), least chunks, repeats


def reduce_batch(logits: Tensor | None, null_logits: Tensor | None, codes: Tensor, mask: Tensor) -> list[TokenSignals]:
    """Reduce the logits of a batch to one ``TokenSignals`` per item.

    Parameters
    ----------
    logits, null_logits : Tensor or None
        ``[B, K, T, V]``, at least one of them; overwritten where the mask is False.
    codes, mask : Tensor
        ``[B, K, T]``: the targets, and which of them the model was trained to predict.

    Raises
    ------
    InputError
        Shapes that do not fit, fewer than two entries, or codes outside the vocabulary.
    ModelError
        Logits that are not finite at a valid position.
    """
    given = {s: x for s, x in (("conditional", logits), ("null", null_logits)) if x is not None}
    codes, mask = codes.long(), mask.bool()
    _check(given, codes, mask)
    if not bool((mask == mask[:1]).all()):  # never among segments of one length
        found = []
        for b in range(len(codes)):
            single = {s: x[b : b + 1] for s, x in given.items()}
            found += reduce_batch(single.get("conditional"), single.get("null"), codes[b : b + 1], mask[b : b + 1])
        return found
    outside = (~mask).nonzero(as_tuple=True)
    for x in given.values():
        x[outside] = 0  # audiocraft leaves NaN there, transformers something plausible: neither may enter a sum
    target = codes.masked_fill(~mask, 0)
    names = STREAMS if len(given) == 2 else tuple(given)
    weights = torch.from_numpy(_chunk_weights(mask[0].cpu().numpy().tobytes(), mask.shape[1])).to(codes.device)
    parts = {s: codes.new_empty((len(FIELDS), *codes.shape), dtype=torch.float32) for s in names}
    spread = {s: codes.new_empty(codes.shape[:2], dtype=torch.float64) for s in names}
    items, spans = _blocks(next(iter(given.values())))
    for item in items:
        pooled: dict[str, Tensor] = {}
        for span in spans:
            for s, x in _streams({s: x[item, :, span].float() for s, x in given.items()}):
                parts[s][:, item, :, span] = _statistics(x, target[item, :, span])
                chunks = weights[:, :, span] @ x
                pooled[s] = pooled[s] + chunks if s in pooled else chunks
        for s in names:
            spread[s][item] = _cosine_spread(pooled[s])
    return _unpack(parts, spread, codes, mask)


def _check(given: dict[str, Tensor], codes: Tensor, mask: Tensor) -> None:
    """Refuse shapes and codes that do not fit."""
    if not given:
        raise InputError("expected the logits of at least one pass, got none")
    for name, x in given.items():
        if x.shape[:-1] != codes.shape or mask.shape != codes.shape or x.shape[-1] < 2:
            raise InputError(
                f"{name} logits {tuple(x.shape)}, codes {tuple(codes.shape)} and mask {tuple(mask.shape)} do not fit: "
                "expected [.., K, T, V], [.., K, T] and [.., K, T] with V >= 2"
            )
        if bool(((codes < 0) | (codes >= x.shape[-1]))[mask].any()):
            raise InputError(f"codes go outside the vocabulary of {x.shape[-1]} entries; use the model's own tokenizer")


def _streams(raw: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yield the float32 logits of each stream of one block."""
    yield from raw.items()
    if len(raw) == 2:
        yield "contrast", raw["conditional"] - raw["null"]


def _blocks(logits: Tensor) -> tuple[list[slice], list[slice]]:
    """Cut ``[B, K, T, V]`` into slices of items and of frames: several items at once, or a span of one's frames."""
    batch, books, frames, entries = logits.shape
    room = max(1, BLOCK_ELEMENTS.get(logits.device.type, BLOCK_ELEMENTS_ACCELERATOR) // (books * entries))
    items, span = max(1, room // max(1, frames)), min(room, max(1, frames))
    return [slice(b, b + items) for b in range(0, batch, items)], [slice(t, t + span) for t in range(0, frames, span)]


def _statistics(logits: Tensor, target: Tensor) -> Tensor:
    """Return the ``FIELDS`` of float32 logits ``[..., V]`` for targets ``[...]``, stacked in front."""
    logp, p = torch.log_softmax(logits, -1), torch.softmax(logits, -1)
    buffer = p * logp  # and used again below: fresh memory costs more than the arithmetic
    mean = buffer.sum(-1, keepdim=True)
    # Centred before squaring: the raw second moment minus mean^2 loses its digits on flat distributions.
    var = torch.sub(logp, mean, out=buffer).square_().mul_(p).sum(-1)
    index = target[..., None]
    own = logp.gather(-1, index)
    rank = torch.gt(logp, own, out=buffer).sum(-1)  # counted as floats: three times faster than booleans
    rival = logp.scatter_(-1, index, -torch.inf).amax(-1)
    return torch.stack([own[..., 0], mean[..., 0], var, rank, rival])


@lru_cache(maxsize=32)
def _chunk_weights(mask: bytes, books: int) -> NDArray[np.float32]:
    """Return ``[K, SDM_SHUFFLES * chunks, T]`` weights that average the logits of randomly chosen, disjoint frames.

    The shuffles depend on the mask alone, so every item of one length meets the same ones, whatever its role.
    """
    valid = np.frombuffer(mask, bool).reshape(books, -1)
    least = int(valid.sum(axis=1).min(initial=valid.shape[1]))
    size = min(SDM_CHUNK, least // SDM_CHUNKS)
    count = least // size if size else 0
    weights = np.zeros((books, SDM_SHUFFLES, count, valid.shape[1]), np.float32)
    for q in range(books):
        for shuffle in range(SDM_SHUFFLES):
            frames = np.random.default_rng(shuffle).permutation(np.flatnonzero(valid[q]))[: size * count]
            np.put_along_axis(weights[q, shuffle], frames.reshape(count, size), np.float32(1 / max(1, size)), axis=1)
    return weights.reshape(books, SDM_SHUFFLES * count, valid.shape[1])


def _cosine_spread(pooled: Tensor) -> Tensor:
    """Return ``[B, K]`` mean cosine distances between the chunk means ``[B, K, SDM_SHUFFLES * chunks, V]``.

    Pairs are those of one shuffle, averaged over shuffles; NaN where a chunk mean vanishes or there are no chunks.
    """
    unit = pooled.double().unflatten(2, (SDM_SHUFFLES, pooled.shape[2] // SDM_SHUFFLES))
    count = unit.shape[3]
    unit = unit / unit.norm(dim=-1, keepdim=True)  # 0 / 0 is NaN: no direction, nothing to say
    similarity = (unit.sum(3).square().sum(-1) - count) / (count * (count - 1) or torch.nan)
    return (1 - similarity).mean(-1)


def _unpack(parts: dict[str, Tensor], spread: dict[str, Tensor], codes: Tensor, mask: Tensor) -> list[TokenSignals]:
    """Blank what is masked, bring everything to the CPU and cut the batch into items."""
    for s, part in parts.items():
        if not bool(torch.isfinite(part[:3]).logical_or_(~mask).all()):
            raise ModelError(f"{s} logits are not finite at valid positions; load the model with dtype float32")
        part.masked_fill_(~mask, torch.nan)
    host = {s: part.cpu().numpy() for s, part in parts.items()}
    extra = {f"sdm/{s}": value.cpu().numpy() for s, value in spread.items()}
    tokens, valid = codes.to(torch.int32).cpu().numpy(), mask.cpu().numpy()
    return [
        TokenSignals(
            tokens[b],
            valid[b],
            {s: Stream(*(field[b] for field in part)) for s, part in host.items()},
            {name: value[b] for name, value in extra.items()},
        )
        for b in range(len(tokens))
    ]
