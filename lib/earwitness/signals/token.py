"""Token signals: what every token attack needs to know of one segment, and how it is reduced from logits.

Conventions: codes and masks are ``[K, T]`` (K codebooks, T frames; batched ``[B, K, T]``), logits ``[B, K, T, V]``,
log-probabilities are natural logarithms (nats). Positions outside the mask are NaN. Sequences over several codebooks
are read frame-major, codebook-minor: all codebooks of frame 0, then of frame 1, and so on.

The reduction goes block by block, so that no second ``[B, K, T, V]`` tensor ever exists. Whatever the model's type,
logits are turned into float32 before the log-softmax. The contrast stream is the softmax of the difference of
conditional and null logits. The book page *Methods: token attacks* explains streams and quantities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import groupby
from math import nan
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from earwitness.errors import InputError, ModelError
from earwitness.models.base import alike

if TYPE_CHECKING:
    from torch import Tensor

    from earwitness.models.base import TokenModel

# --- from logits to statistics ----------------------------------------------------------------------------------------

BLOCK_ELEMENTS = {"cpu": 2**18}  # logits reduced at once: what a cache holds ...
BLOCK_ELEMENTS_ACCELERATOR = 2**25  # ... or what keeps an accelerator busy
SDM_CHUNK, SDM_CHUNKS, SDM_SHUFFLES = 100, 5, 2  # frames pooled (fewer if the item is short), least chunks, repeats


def reduce_batch(logits: Tensor | None, null_logits: Tensor | None, codes: Tensor, mask: Tensor) -> list[TokenSignals]:
    """Reduce the logits of a batch to one ``TokenSignals`` per item.

    Parameters
    ----------
    logits, null_logits : Tensor or None
        ``[B, K, T, V]``, at least one of them; overwritten where the mask is False. One tensor given as both stands
        for passes that are equal: its statistics are computed once, and those of the contrast are known.
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
    import torch

    codes, mask = codes.long(), mask.bool()
    _check(given, codes, mask)
    same = logits is null_logits
    if same:
        given.pop("conditional")
    outside = (~mask).nonzero(as_tuple=True)
    for x in given.values() if len(outside[0]) else ():
        x[outside] = 0  # audiocraft leaves NaN there, transformers something plausible: neither may enter a sum
    target = codes.masked_fill(~mask, 0)
    names = STREAMS if len(given) == 2 else tuple(given)
    own = mask[:1] if bool((mask == mask[:1]).all()) else mask  # equal among segments of one length
    weights = [torch.from_numpy(_chunk_weights(m.tobytes(), len(m))).to(codes.device) for m in own.cpu().numpy()]
    parts = {s: codes.new_empty((len(FIELDS), *codes.shape), dtype=torch.float32) for s in names}
    spread = {s: codes.new_empty(codes.shape[:2], dtype=torch.float64) for s in names}
    items, spans, block = _blocks(next(iter(given.values())))
    room = [codes.new_empty(block, dtype=torch.float32) for _ in range(4)]  # used again by every block and stream
    for item in items:
        alone = [slice(n, n + 1) for n in range(len(codes[item]))] if len(weights) > 1 else [slice(None)]
        weighed = [*zip(alone, weights[item] if len(weights) > 1 else weights, strict=True)]
        pooled: dict[str, list[Tensor]] = {}
        for span in spans:
            raw = {s: x[item, :, span].float() for s, x in given.items()}
            for s in names:
                x = raw[s] if s in raw else torch.sub(raw["conditional"], raw["null"], out=_like(raw["null"], room[3]))
                parts[s][:, item, :, span] = _statistics(x, target[item, :, span], room)
                chunks = [w[:, :, span] @ x[rows] for rows, w in weighed]
                pooled[s] = [a + b for a, b in zip(pooled[s], chunks, strict=True)] if s in pooled else chunks
        for s in names:
            spread[s][item] = torch.cat([_cosine_spread(means) for means in pooled[s]])
    if same:
        shape, entries = codes.shape, next(iter(given.values())).shape[-1]
        flat = _statistics(codes.new_zeros(1, 1, 1, entries, dtype=torch.float32), target[:1, :1, :1] * 0, room)
        parts = {"conditional": parts["null"], "null": parts["null"], "contrast": flat.expand(-1, *shape).clone()}
        spread = {"conditional": spread["null"], "null": spread["null"], "contrast": spread["null"] * torch.nan}
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


def _blocks(logits: Tensor) -> tuple[list[slice], list[slice], int]:
    """Cut ``[B, K, T, V]`` into slices of items and of frames: several items at once, or a span of one's frames.

    Also returns how many logits a block holds at most.
    """
    batch, books, frames, entries = logits.shape
    room = max(1, BLOCK_ELEMENTS.get(logits.device.type, BLOCK_ELEMENTS_ACCELERATOR) // (books * entries))
    items, span = min(max(1, room // max(1, frames)), max(1, batch)), min(room, max(1, frames))
    cuts = [slice(b, b + items) for b in range(0, batch, items)], [slice(t, t + span) for t in range(0, frames, span)]
    return *cuts, items * books * span * entries


def _like(logits: Tensor, room: Tensor) -> Tensor:
    """Return a piece of ``room`` shaped like a block of logits: fresh memory costs more than the arithmetic."""
    return room[: logits.numel()].view(logits.shape)


def _statistics(logits: Tensor, target: Tensor, room: Sequence[Tensor]) -> Tensor:
    """Return the ``FIELDS`` of float32 logits ``[..., V]`` for targets ``[...]``, stacked in front."""
    import torch

    logits, (logp, p, buffer) = logits.contiguous(), (_like(logits, part) for part in room[:3])
    torch.log_softmax(logits, -1, out=logp)
    torch.softmax(logits, -1, out=p)
    mean = torch.mul(p, logp, out=buffer).sum(-1, keepdim=True)
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
    similarity = (unit.sum(3).square().sum(-1) - count) / (count * (count - 1) or nan)
    return (1 - similarity).mean(-1)


def _unpack(parts: dict[str, Tensor], spread: dict[str, Tensor], codes: Tensor, mask: Tensor) -> list[TokenSignals]:
    """Blank what is masked, bring everything to the CPU and cut the batch into items."""
    import torch

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
            {s: TokenStream(*(field[b] for field in part)) for s, part in host.items()},
            {name: value[b] for name, value in extra.items()},
        )
        for b in range(len(tokens))
    ]


# --- the signals ------------------------------------------------------------------------------------------------------

VERSION = 1  # raise it when a stored value changes: stored signals are keyed by it
FIELDS = ("logp", "mean", "var", "rank", "rival")
STREAMS = ("conditional", "null", "contrast")
STD_FLOOR = 1e-3  # nats; below it float32 cannot tell a standard deviation from rounding
VAR_GUARD = 1e-6  # as published with the variance form of Min-K %++


@dataclass(frozen=True, eq=False)
class TokenStream:
    """Statistics of one predicted distribution per position, each float32 ``[K, T]``, NaN outside the mask.

    With logits l, p = softmax(l) and target y: ``logp`` = log p_y; ``mean`` = sum p log p (minus the entropy);
    ``var`` = sum p (log p - mean)^2; ``rank`` = number of v with l_v > l_y (0: the target is the best guess);
    ``rival`` = max over v != y of log p_v.
    """

    logp: NDArray[np.float32]
    mean: NDArray[np.float32]
    var: NDArray[np.float32]
    rank: NDArray[np.float32]
    rival: NDArray[np.float32]

    @cached_property
    def z(self) -> NDArray[np.floating[Any]]:
        """Standardised log-probability: (logp - mean) / standard deviation, the latter at least ``STD_FLOOR``."""
        return (self.logp - self.mean) / np.sqrt(np.maximum(self.var, np.float32(STD_FLOOR**2)))

    @cached_property
    def z_var(self) -> NDArray[np.floating[Any]]:
        """The variance form that circulates beside ``z``: (logp - mean) / (variance + 1e-6)."""
        return (self.logp - self.mean) / (self.var + np.float32(VAR_GUARD))

    @cached_property
    def margin(self) -> NDArray[np.floating[Any]]:
        """Log-odds of the target against its best rival, which equal the difference of their logits."""
        return self.logp - self.rival


@dataclass(frozen=True, eq=False)
class TokenSignals:
    """Everything stored about one segment under one token model.

    Attributes
    ----------
    codes : ndarray
        ``[K, T]`` integers, the segment's tokens.
    mask : ndarray
        ``[K, T]`` booleans, the positions that the model was trained to predict.
    streams : mapping
        ``"conditional"``, ``"null"`` and ``"contrast"`` (softmax of the difference of their logits), as available.
    extras : mapping
        Named results of what needs the logits themselves or further passes, for example ``"sdm/conditional"``.
    """

    codes: NDArray[np.int32]
    mask: NDArray[np.bool_]
    streams: Mapping[str, TokenStream]
    extras: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    cache: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    @property
    def passes(self) -> frozenset[str]:
        """Names of the passes whose results are held."""
        return frozenset(self.streams) | {key.partition("/")[0] for key in self.extras}

    @classmethod
    def from_logits(
        cls,
        logits: NDArray[Any] | Tensor,
        codes: NDArray[Any] | Tensor,
        mask: NDArray[Any] | Tensor,
        null_logits: NDArray[Any] | Tensor | None = None,
    ) -> TokenSignals:
        """Reduce the logits ``[K, T, V]`` of one segment; with ``null_logits`` also the null and contrast streams.

        Raises
        ------
        InputError
            Shapes that do not fit, fewer than two entries, or codes outside the vocabulary.
        ModelError
            Logits that are not finite at a valid position.
        """
        import torch

        given = [None if x is None else torch.as_tensor(x).clone()[None] for x in (logits, null_logits)]
        return reduce_batch(given[0], given[1], torch.as_tensor(codes)[None], torch.as_tensor(mask)[None])[0]

    def series(self, name: str, stream: str, codebook: int | None = None) -> NDArray[np.float64]:
        """Return the valid entries of a ``Stream`` quantity, frame-major; empty where there are none.

        Parameters
        ----------
        name : str
            A field of ``Stream``, or ``"z"``, ``"z_var"``, ``"margin"``.
        stream : str
            A key of ``streams``.
        codebook : int, optional
            One codebook in time order; all of them when omitted.
        """
        key = (name, stream, codebook)
        if key not in self.cache:
            held = self.streams.get(stream)
            values = np.empty((0, 0), np.float32) if held is None else getattr(held, name)
            self.cache[key] = self._select(values, codebook).astype(np.float64)
        found: NDArray[np.float64] = self.cache[key]
        return found

    def surprise(self) -> NDArray[np.float64]:
        """Return each frame's mean surprise over codebooks given the caption, nats ``[T]``; NaN where none is valid."""
        logp = self.streams["conditional"].logp.astype(np.float64)
        seen = np.isfinite(logp)
        total = np.where(seen, logp, 0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
        return np.where(seen.any(axis=0), -total, np.nan)

    def ordered(self, name: str, stream: str, codebook: int | None = None) -> NDArray[np.float64]:
        """Return the entries of ``series`` from the lowest to the highest."""
        key = ("ordered", name, stream, codebook)
        if key not in self.cache:
            self.cache[key] = np.sort(self.series(name, stream, codebook))
        found: NDArray[np.float64] = self.cache[key]
        return found

    def tokens(self, codebook: int | None = None) -> NDArray[np.int32]:
        """Return the valid codes in the order of ``series``."""
        return self._select(self.codes, codebook)

    def first_occurrences(self, codebook: int) -> NDArray[np.intp]:
        """Return where in ``tokens(codebook)`` a code stands for the first time, by code."""
        key = ("first", codebook)
        if key not in self.cache:
            self.cache[key] = np.unique(self.tokens(codebook), return_index=True)[1]
        found: NDArray[np.intp] = self.cache[key]
        return found

    def _select(self, values: NDArray[Any], codebook: int | None) -> NDArray[Any]:
        """Return the entries of ``[K, T]`` values inside the mask, frame-major and codebook-minor."""
        if values.shape != self.mask.shape or (codebook is not None and codebook >= len(values)):
            return values[:0].ravel()
        if codebook is None:
            return values.T[self.mask.T]
        return values[codebook, self.mask[codebook]]

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything as named arrays (``"conditional.logp"``, ``"sdm/null"``, ...), ready to be stored."""
        fields = {f"{s}.{f}": getattr(held, f) for s, held in self.streams.items() for f in FIELDS}
        return {"codes": self.codes, "mask": self.mask, **fields, **self.extras}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> TokenSignals:
        """Undo ``to_arrays``."""
        names = dict.fromkeys(key.partition(".")[0] for key in arrays if key.endswith(".logp"))
        streams = {s: TokenStream(*(arrays[f"{s}.{f}"] for f in FIELDS)) for s in names}
        taken = {"codes", "mask", *(f"{s}.{f}" for s in names for f in FIELDS)}
        extras = {key: value for key, value in arrays.items() if key not in taken}
        return cls(arrays["codes"], arrays["mask"], streams, extras)


def without_contrast(signals: TokenSignals) -> TokenSignals:
    """Return the signals of a segment without a caption: no caption is the null condition, so there is no contrast.

    What is left of it is empty, so that every attack on it says NaN; stored, it would be zeros and rounding.
    """
    if "contrast" not in signals.streams:
        return signals
    nothing = np.empty((0, 0), np.float32)
    streams = {**signals.streams, "contrast": TokenStream(nothing, nothing, nothing, nothing, nothing)}
    extras = {k: np.full_like(v, np.nan) if k.endswith("/contrast") else v for k, v in signals.extras.items()}
    return replace(signals, streams=streams, extras=extras)


def over_rows(values: NDArray[Any]) -> NDArray[np.float64]:
    """Return the mean over codebooks or groups ``[..., K]``, those without tokens (NaN) left out; NaN without any."""
    seen = np.isfinite(values)
    number = seen.sum(axis=-1)
    total = np.where(seen, values, 0).sum(axis=-1, dtype=np.float64)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def extract(model: TokenModel, audio: Tensor, captions: list[Any] | None) -> list[TokenSignals]:
    """Score a batch of segments, all three streams: a conditional pass, and a null pass where it is another one.

    Parameters
    ----------
    model : TokenModel
        A loaded model.
    audio : Tensor
        ``[B, C, samples]`` float32 in [-1, 1] at the model's sample rate; fixed length, never padded.
    captions : list of str or None
        One per segment; ``None`` scores the null stream only.

    Returns
    -------
    list of TokenSignals
        One per segment, on the CPU.

    Raises
    ------
    ModelError
        Passes that disagree about their masks, or logits that are not finite.
    """
    import torch

    with torch.inference_mode():
        codes = model.encode(audio)
        if captions is None:
            logits, mask = model.logits(codes, None)
            return reduce_batch(None, logits, codes, mask)
        known = {caption: told_apart(model, caption) for caption in dict.fromkeys(captions)}
        apart = [known[caption] for caption in captions]
        if not any(apart):
            logits, mask = model.logits(codes, None)
            return reduce_batch(logits, logits, codes, mask)
        logits, mask = model.logits(codes, captions)
        null_logits, null_mask = model.logits(codes[apart], None)
        if not torch.equal(mask[apart], null_mask):
            raise ModelError(f"{model.info.name}: conditional and null passes disagree about which positions are valid")
        found, at = [], 0
        for has_null, run in groupby(range(len(codes)), apart.__getitem__):
            rows = [*run]
            here = slice(rows[0], rows[-1] + 1)
            own = logits[here]
            null = null_logits[at : at + len(rows)] if has_null else own
            at += len(rows) * has_null
            found += reduce_batch(own, null, codes[here], mask[here])
        return found


def told_apart(model: TokenModel, caption: str) -> bool:
    """Say whether a caption tells a model anything else than the null condition does; who cannot say is asked twice."""
    told = getattr(model, "told", None)
    return told is None or not alike(told(caption or None), told(None))
