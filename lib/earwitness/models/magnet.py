"""MAGNeT in audiocraft's own format: a masked model, and how it is scored all the same.

MAGNeT (arXiv 2401.04577) predicts hidden codes from both sides, codebook by codebook. It has no likelihood of a
sequence. Its score here is a *pseudo-log-likelihood*, built from the task it was trained on:

- **stage by stage**: codebook k is predicted with the codebooks below it given in full and those above it hidden;
- **spans**: time is cut into spans of the trained length (3 frames), as when MAGNeT generates;
- **complementary passes**: a fixed draw deals the spans to ``PASSES`` = 2 equal hands; pass p hides the spans of hand
  p and predicts them from the others. Every position is hidden exactly once and never sees itself. Half of a codebook
  is hidden at a time; in training the share varied, with mean 2 / pi;
- **restricted context**: codebooks above the first attend to ``subcodes_context`` (5) frames on either side.

The draw depends on the number of frames, the span and the codebook alone: every item meets the same one. The logits of
a position come from the pass that hid it; no position is masked out. Their log-probabilities must not be added up to a
likelihood, and attacks that read them as one sequence (slopes, running means) see time order, not prediction order.
A conditional or null stream costs ``PASSES * K`` forward passes (8), where MusicGen needs one.

audiocraft scores with xformers' kernels, which exist for some GPUs only, and with torch's kernels it would put a
causal mask in the place of the restricted context. The explicit attention used here is what the model was
trained with.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from earwitness.errors import ModelError
from earwitness.models import audiocraft
from earwitness.models.audiocraft import LIBRARIES, AudiocraftModel, build, parts
from earwitness.models.audiocraft_files import read_config

if TYPE_CHECKING:
    from torch import Tensor

    from earwitness.types import ModelInfo

__all__ = ["LIBRARIES", "MagnetModel", "describe", "hidden", "load", "parts"]

PASSES = 2


@lru_cache(maxsize=64)
def hidden(frames: int, span: int, codebook: int) -> NDArray[np.bool_]:
    """Return what each pass hides, ``[PASSES, frames]``: every frame exactly once, in spans of ``span`` frames."""
    span = max(1, min(span, frames))
    spans = -(-frames // span)
    hand = np.empty(spans, np.int64)
    hand[np.random.default_rng([frames, span, codebook]).permutation(spans)] = np.arange(spans) % PASSES
    return np.repeat(hand, span)[:frames] == np.arange(PASSES)[:, None]


def describe(folder: Path, config: dict[str, Any], *, pocket: bool) -> dict[str, Any]:
    """Return the fields of ``ModelInfo``; a stream takes a call for each pass over each codebook."""
    return audiocraft.describe(folder, config, pocket=pocket) | {"calls": PASSES * config["transformer_lm"]["n_q"]}


def load(folder: Path, info: ModelInfo) -> MagnetModel:
    """Load a MAGNeT folder (see ``earwitness.models.load_model``)."""
    config = read_config(folder)
    if (config["codebooks_pattern"].get("parallel") or {}).get("empty_initial") != -1:
        raise ModelError(
            f"{folder.name}: expected a MAGNeT's codebook pattern (parallel, empty_initial -1), found another"
        )
    span = config.get("masking", {}).get("span_len", 1)
    # Its own table of attention masks is made for one length and one kernel; ours follows the codes (length 0: none).
    own = {"span_len": span, "segment_duration": 0, "compression_model_framerate": 1}
    return MagnetModel(*build(folder, info, memory_efficient=False, **own), info)


class MagnetModel(AudiocraftModel):
    """A loaded MAGNeT behind the ``TokenModel`` protocol."""

    def predict(self, codes: Tensor, condition: dict[str, tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Return the logits of every position from the pass that hid it, and a mask that is True throughout."""
        import torch

        batch, books, frames = codes.shape
        time = torch.arange(frames, device=codes.device)
        near = (time[:, None] - time).abs() <= self.lm.subcodes_context
        window = torch.zeros(near.shape, device=codes.device).masked_fill_(~near, -torch.inf)
        restricted = self.lm.subcodes_context >= 0
        self.lm.attn_mask_per_stage = [window if k and restricted else None for k in range(books)]
        logits = codes.new_empty((batch, books, frames, self.lm.card), dtype=torch.float32)
        for k in range(books):
            for hides in torch.from_numpy(hidden(frames, self.lm.span_len, k)).to(codes.device):
                given = codes.clone()
                given[:, k, hides] = given[:, k + 1 :] = self.lm.special_token_id
                output = self.lm.compute_predictions(given, [], condition, stage=k)
                logits[:, k, hides] = output.logits[:, k, hides].float()
        return logits, torch.ones_like(codes, dtype=torch.bool)
