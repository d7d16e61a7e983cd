"""Token signals: what every token attack needs to know of one segment, and how it is reduced from logits.

Conventions: codes and masks are ``[K, T]`` (K codebooks, T frames; batched ``[B, K, T]``), logits ``[B, K, T, V]``,
log-probabilities are natural logarithms (nats). Positions outside the mask are NaN. Sequences over several codebooks
are read frame-major, codebook-minor: all codebooks of frame 0, then of frame 1, and so on.

The book page *Methods: token attacks* explains the streams.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from earwitness.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

    from earwitness.models.base import TokenModel

VERSION = 1  # raise it when a stored value changes: stored signals are keyed by it
FIELDS = ("logp", "mean", "var", "rank", "rival")
STREAMS = ("conditional", "null", "contrast")
STD_FLOOR = 1e-3  # nats; below it float32 cannot tell a standard deviation from rounding
VAR_GUARD = 1e-6  # as published with the variance form of Min-K %++


@dataclass(frozen=True, eq=False)
class Stream:
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
    streams: Mapping[str, Stream]
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

        from earwitness.extractors.reduction import reduce_batch

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

    def surprise(self, stream: str = "conditional") -> NDArray[np.float64]:
        """Return minus the mean log-probability of each frame over codebooks, nats ``[T]``; NaN where none is valid."""
        logp = self.streams[stream].logp.astype(np.float64)
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
        streams = {s: Stream(*(arrays[f"{s}.{f}"] for f in FIELDS)) for s in names}
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
    streams = {**signals.streams, "contrast": Stream(nothing, nothing, nothing, nothing, nothing)}
    extras = {k: np.full_like(v, np.nan) if k.endswith("/contrast") else v for k, v in signals.extras.items()}
    return replace(signals, streams=streams, extras=extras)


def over_rows(values: NDArray[Any]) -> NDArray[np.float64]:
    """Return the mean over codebooks or groups ``[..., K]``, those without tokens (NaN) left out; NaN without any."""
    seen = np.isfinite(values)
    number = seen.sum(axis=-1)
    total = np.where(seen, values, 0).sum(axis=-1, dtype=np.float64)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def extract(model: TokenModel, audio: Tensor, captions: list[Any] | None) -> list[TokenSignals]:
    """Score a batch of segments: one conditional and one null pass, all three streams.

    Parameters
    ----------
    model : TokenModel
        A loaded model.
    audio : Tensor
        ``[B, C, samples]`` float32 in [-1, 1] at the model's sample rate; fixed length, never padded.
    captions : list of str or None
        One per segment; ``None`` scores the null stream only. A symbolic model is given its windows instead, and has
        the conditional stream alone.

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

    from earwitness.extractors import notes
    from earwitness.extractors.reduction import reduce_batch

    with torch.inference_mode():
        codes = model.encode(audio)
        if model.info.scheme is not None:
            return notes.score(model, codes, captions or [])
        logits, mask = (None, None) if captions is None else model.logits(codes, captions)
        null_logits, null_mask = model.logits(codes, None)
        if mask is not None and not torch.equal(mask, null_mask):
            raise ModelError(f"{model.info.name}: conditional and null passes disagree about which positions are valid")
        return reduce_batch(logits, null_logits, codes, null_mask)
