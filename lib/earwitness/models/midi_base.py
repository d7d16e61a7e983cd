"""What models of scores share: a window of a piece takes the place of the caption.

See the book page *Methods: symbolic models*.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from earwitness.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

    from earwitness.types import ModelInfo, Window


def stacked(values: Sequence[Any]) -> Tensor:
    """Return arrays of equal shape as one tensor, the batch in front."""
    import torch

    return torch.from_numpy(np.stack(values))


class WindowedModel:
    """A network over windows of ``W + 1`` tokens; who extends it adds ``logits``, as ``TokenModel`` has it."""

    def __init__(self, network: Any, info: ModelInfo) -> None:
        self.network, self.info = network, info

    def parameters(self) -> Iterator[Tensor]:
        """Yield what was trained."""
        yield from self.network.parameters()

    def encode(self, audio: Tensor) -> Tensor:
        """Turn windows of tokens ``[B, 1, W + 1]`` into what is predicted: ``[B, 1, W]`` (int64)."""
        return audio[..., 1:].long().to(self.info.device)

    def inputs(self, codes: Tensor, windows: Sequence[Window] | None) -> tuple[Tensor, Tensor]:
        """Return what the network reads, ``[B, W]``, and the mask ``[B, 1, W]`` of what belongs to notes.

        Raises
        ------
        ModelError
            No windows: there is no null condition.
        """
        import torch

        if windows is None:
            raise ModelError(f"{self.info.name}: has no null condition; use the conditional stream alone")
        first = stacked([w.tokens[:1] for w in windows]).long().to(codes.device)
        mask = (stacked([w.groups for w in windows]) >= 0).to(codes.device)
        return torch.cat([first, codes[:, 0, :-1]], dim=1), mask[:, None]
