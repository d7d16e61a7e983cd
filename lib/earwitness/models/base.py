"""What a model family must offer: two protocols. What is known of a model is ``types.ModelInfo``.

Also what families share that read captions: each caption is read once, whatever the batches. The book page *Methods:
models* explains both families.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from earwitness.types import ModelInfo

if TYPE_CHECKING:
    from torch import Tensor


Condition = dict[str, "Tensor"]  # what the network is told besides its input; of a batch every entry is [B, ...]


@runtime_checkable
class TokenModel(Protocol):
    """An autoregressive (or masked) model over ``K`` parallel codebooks of ``V`` entries.

    A model may also offer ``told(caption) -> Condition``: what one caption tells the network, without batch axis, and
    for None what the null condition does. Where both are equal, to the last bit, the null pass is not run a second
    time. Without ``told``, and for every caption that tells something, both passes are run.
    """

    info: ModelInfo

    def encode(self, audio: Tensor) -> Tensor:
        """Turn audio ``[B, C, samples]`` (float32 in [-1, 1]) into codes ``[B, K, T]`` (int64)."""
        ...

    def logits(self, codes: Tensor, captions: list[str] | None) -> tuple[Tensor, Tensor]:
        """Return logits ``[B, K, T, V]`` aligned with ``codes`` and their validity mask ``[B, K, T]``.

        ``captions=None`` asks for the null condition.
        """
        ...


@runtime_checkable
class DenoisingModel(Protocol):
    """A latent diffusion model, whatever its objective: the noise z_t = alpha_t z + sigma_t eps is what it predicts.

    ``alphas_cumprod`` ``[T]`` holds alpha_t^2 = 1 - sigma_t^2 for the timesteps 0 ... T - 1. A continuous-time model is
    read at t / T. ``info.conditions`` names the conditions it can be given: ``"text"``, ``"null"`` and, where the
    model was trained on it, ``"audio"`` (the recording's own embedding).

    A model may also offer ``placed(condition, places) -> Condition``, which tells it where each clip starts in its
    recording and how long that is (seconds), and ``frames_heard(places)``, how many latent frames of each window hold
    sound where training filled shorter recordings with zeros (``info.shortest_seconds``).
    """

    info: ModelInfo
    alphas_cumprod: Tensor

    def encode(self, audio: Tensor) -> Tensor:
        """Turn audio ``[B, C, samples]`` (float32 in [-1, 1], one window) into scaled latents ``[B, C, ...]``."""
        ...

    def condition(self, name: str, captions: list[str] | None, audio: Tensor | None) -> Condition:
        """Return a condition: ``"text"`` reads the captions, ``"audio"`` the audio, ``"null"`` counts either.

        An empty caption is no text: the null condition.
        """
        ...

    def predict_noise(self, z_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Return the predicted noise, float32 like ``z_t`` ``[B, C, ...]``, at timesteps ``t`` ``[B]``."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Turn latents back into audio ``[B, C, samples]``, with gradients; some checkpoints cannot."""
        ...


Text = TypeVar("Text")
Result = TypeVar("Result")
CAPTIONS_HELD = 512  # results of captions kept at hand; segments of one track follow each other


class CaptionReader:
    """Base of models that read captions one at a time, so that no item's condition depends on its batch mates."""

    def read(self, caption: str | None) -> Condition:
        """Return what one caption tells the network (None: its null condition), without batch axis."""
        raise NotImplementedError

    def told(self, caption: str | None) -> Condition:
        """Return the same as ``read``, which is called once for a caption."""
        return self.once(self.read, caption)

    def once(self, make: Callable[[Text], Result], caption: Text) -> Result:
        """Return what a method makes of a caption; the latest ``CAPTIONS_HELD`` results are kept."""
        import torch

        held: OrderedDict[Any, Any] = self.__dict__.setdefault("_made", OrderedDict())
        key = make.__name__, caption
        if key not in held:
            with torch.inference_mode(mode=False), torch.no_grad():  # tensors that a gradient may pass by, too
                held[key] = make(caption)
            while len(held) > CAPTIONS_HELD:
                held.popitem(last=False)
        held.move_to_end(key)
        found: Result = held[key]
        return found


def stack(items: Sequence[Condition]) -> Condition:
    """Stack conditions of single items, padding sequences with zeros to the longest (their masks say where)."""
    from torch.nn.utils.rnn import pad_sequence

    return {name: pad_sequence([item[name] for item in items], batch_first=True) for name in items[0]}


def alike(one: Condition, other: Condition) -> bool:
    """Say whether two conditions are equal, name by name, to the last bit."""
    import torch

    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
