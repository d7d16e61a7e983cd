"""FIGARO's checkpoints behind the token protocol: expert, learned, both, the reduced descriptions, the baseline.

A window of a piece takes the place of the caption: bars, positions, description and latents are computed from the piece
that is scored. No condition was ever dropped in training, so there is no null condition and no contrast: the one stream
is the model's own, whatever it was told. See the book pages *Methods: models* and *Methods: symbolic models*.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earwitness.errors import ModelError
from earwitness.models import figaro_weights as weights
from earwitness.models.files import read_json
from earwitness.models.pretrained import badge
from earwitness.models.windowed import WindowedModel, stacked
from earwitness.symbolic.windows import FigaroScheme, Window

if TYPE_CHECKING:
    from torch import Tensor

    from earwitness.models.base import ModelInfo

LIBRARIES = ("pretty_midi", "mido")
CACHED_PIECES = 64  # latents are those of a whole piece: its windows share them
HALVES = ("description", "latent")  # of the condition of flavour both


def describe(folder: Path, config: dict[str, Any], *, pocket: bool) -> dict[str, Any]:
    """Return the fields of ``ModelInfo`` that a FIGARO folder determines; no network is built."""
    path, encoder = weights.find(folder)
    state, hyper = weights.read(path)
    where = f"{folder.name}/{path.name}"
    sizes = weights.sizes_of(state, hyper, where)
    if sizes.latent and encoder is None:
        raise ModelError(f"{folder.name}: flavour {sizes.flavour} needs its VQ-VAE; put that file beside it")
    return {
        "family": "token",
        "sample_rate": 0,
        "channels": 0,
        "segment_seconds": 0.0,
        "badge": badge(sum(tensor.numel() for tensor in state.values()), pocket=pocket),
        "conditions": {"none": (), "both": HALVES}.get(sizes.flavour, (sizes.flavour,)),
        "scheme": FigaroScheme(sizes.bars - 1, weights.dropped_of(hyper, where)),
    }


def load(folder: Path, info: ModelInfo) -> FigaroModel:
    """Load a FIGARO folder (see ``earwitness.models.load_model``)."""
    import torch

    from earwitness.models.figaro_network import FigaroNetwork

    path, beside = weights.find(folder)
    where = f"{folder.name}/{path.name}"
    state, hyper = weights.read(path)
    sizes = weights.sizes_of(state, hyper, where)
    with torch.device("meta"):
        network = FigaroNetwork(sizes)
    unused = [weights.UNUSED, *([weights.UNUSED_BY_BASELINE] if sizes.flavour == "none" else [])]
    weights.fill(network, state, unused, where)
    options = read_json(folder / weights.CONFIG) if (folder / weights.CONFIG).is_file() else {}
    hide = options.get("hide_bar_tokens", False)
    if not isinstance(hide, bool):
        raise ModelError(f"{folder.name}/{weights.CONFIG}: hide_bar_tokens is {hide!r}; expected true or false")
    encoder = _bar_encoder(beside, sizes.latent, hide=hide) if beside and sizes.latent else None
    dtype = getattr(torch, info.dtype)
    return FigaroModel(network.to(info.device, dtype), encoder and encoder.to(info.device), info)


def _bar_encoder(path: Path, latent: int, *, hide: bool) -> Any:
    """Load the encoder half of a VQ-VAE; it stays in float32, for a rounded one would choose other codes."""
    import torch

    from earwitness.models.figaro_network import HEADS_OF_VQ_VAE, BarEncoder, Sizes

    where = f"{path.parent.name}/{path.name}"
    state, _ = weights.read(path)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    first = f"{weights.ENCODER}.0."
    try:
        made, width = shapes["pooling.weight"]
        codes, columns = shapes["vq_embed.embedding"]
        rows, head = shapes[f"{first}attention.self.distance_embedding.weight"]
        layers = weights._layers(shapes, weights.ENCODER)
        sizes = Sizes(
            width=width, heads=HEADS_OF_VQ_VAE, feed_forward=shapes[f"{first}intermediate.dense.weight"][0],
            encoder_layers=layers, decoder_layers=0, positions=(rows + 1) // 2, latent=made,
        )  # fmt: skip
    except (KeyError, ValueError, IndexError) as error:
        raise ModelError(f"{where}: its tensors are not a VQ-VAE's ({type(error).__name__}: {error})") from None
    if made != latent or latent % columns or head * HEADS_OF_VQ_VAE != width:
        raise ModelError(f"{where}: latents of {made} in groups of {columns}; the network beside it takes {latent}")
    with torch.device("meta"):
        encoder = BarEncoder(sizes, codes, columns, hide_bars=hide)
    return weights.fill(encoder, state, [weights.UNUSED, weights.UNUSED_OF_VQ_VAE], where)


class FigaroModel(WindowedModel):
    """A loaded FIGARO behind the ``TokenModel`` protocol."""

    def __init__(self, network: Any, encoder: Any, info: ModelInfo) -> None:
        super().__init__(network, info)
        self.encoder = encoder
        self.pieces: OrderedDict[bytes, Tensor] = OrderedDict()

    def logits(
        self, codes: Tensor, captions: Sequence[Window] | None, *, told: Sequence[str] = HALVES
    ) -> tuple[Tensor, Tensor]:
        """Return logits ``[B, 1, W, V]`` aligned with ``codes`` and the mask ``[B, 1, W]`` of the tokens of notes.

        Parameters
        ----------
        codes : Tensor
            ``[B, 1, W]``; all but the last are inputs too.
        captions : sequence of Window
            What each item's network reads beside the codes.
        told : sequence of str
            For flavour both: which halves of the condition are given; the other is zero vectors.

        Raises
        ------
        ModelError
            No windows: there is no null condition.
        """
        inputs, mask = self.inputs(codes, captions)
        windows = captions or ()
        beside = {
            name: stacked([w.inputs[name] for w in windows]).long().to(codes.device)
            for name in ("bars", "positions", "description", "description_bars")
        }
        if "description" not in told or self.network.sizes.flavour not in {"description", "both"}:
            beside["description"] = beside["description_bars"] = None  # type: ignore[assignment]
        latents = [self._latents(w) for w in windows] if self.encoder is not None and "latent" in told else None
        return self.network(inputs, **beside, latents=latents)[:, None], mask

    def _latents(self, window: Window) -> Tensor:
        """Return the latents ``[bars, D]`` of every bar of a window's piece."""
        import torch

        key = b"|".join(bar.tobytes() for bar in window.bar_tokens)
        if key not in self.pieces:
            with torch.inference_mode(mode=False), torch.no_grad():  # kept, and used where gradients are taken too
                bars = [torch.from_numpy(bar).long().to(self.info.device) for bar in window.bar_tokens]
                rows = torch.stack([self.encoder(bar) for bar in bars])
            self.pieces[key] = rows[: self.info.scheme.window].to(next(self.network.parameters()).dtype)  # type: ignore[union-attr]
            while len(self.pieces) > CACHED_PIECES:
                self.pieces.popitem(last=False)
        return self.pieces[key]
