"""What token models share: the delay pattern, and batches that hold only one length of text.

Shapes: codes ``[B, K, T]``, delayed sequences ``[B, K, S]`` with S = T + the longest delay, logits ``[B, K, ., V]``.
Codebook k of frame t is predicted at step t + delay k, so that it sees what was written before. Steps T and later lie
beyond the window the model was trained on: the last ``delay k`` frames of codebook k are masked, as audiocraft's
``compute_predictions`` does (MusicGen, arXiv 2306.05284, section 2.2; book page *Methods: models*).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from earwitness.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

    from earwitness.types import ModelInfo


def delayed(codes: Tensor, delays: Sequence[int], pad: int) -> Tensor:
    """Turn codes ``[B, K, T]`` into the network's inputs ``[B, K, S]``: a step of ``pad``, then each codebook late."""
    batch, books, frames = codes.shape
    sequence = codes.new_full((batch, books, frames + max(delays) + 1), pad)
    for k, delay in enumerate(delays):
        sequence[:, k, 1 + delay : 1 + delay + frames] = codes[:, k]
    return sequence[..., :-1]


def aligned(logits: Tensor, delays: Sequence[int], frames: int) -> tuple[Tensor, Tensor]:
    """Undo the delays: logits ``[B, K, S, V]`` to ``[B, K, T, V]``, and the mask ``[B, K, T]`` of valid positions."""
    import torch

    straight = torch.stack([logits[:, k, d : d + frames] for k, d in enumerate(delays)], dim=1)
    last = torch.tensor([frames - d for d in delays], device=logits.device)
    mask = torch.arange(frames, device=logits.device) < last[:, None]
    return straight, mask.expand(logits.shape[0], -1, -1)


def score_by_length(
    lengths: Sequence[int], score: Callable[[list[int]], tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Score a batch in groups of equal text length.

    For networks that attend to padding: there an item's probabilities would change with its batch mates.

    Parameters
    ----------
    lengths : sequence of int
        Text tokens of each item.
    score : callable
        Takes the rows of one group and returns their logits ``[b, K, T, V]`` and mask ``[b, K, T]``.
    """
    groups = [[row for row, n in enumerate(lengths) if n == length] for length in sorted(set(lengths))]
    logits, mask = score(groups[0])
    if len(groups) == 1:
        return logits, mask
    joined = logits.new_empty((len(lengths), *logits.shape[1:]))
    joined[groups[0]] = logits
    for rows in groups[1:]:
        joined[rows] = score(rows)[0]
    return joined, mask[:1].expand(len(lengths), -1, -1)


def check_channels(audio: Tensor, info: ModelInfo) -> None:
    """Refuse audio ``[B, C, samples]`` whose channels are not the model's."""
    if audio.shape[1] != info.channels:
        raise ModelError(f"{info.name}: expected {info.channels} channel(s), got {audio.shape[1]}")
