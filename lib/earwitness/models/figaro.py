"""FIGARO's checkpoints behind the token protocol: expert, learned, both, the reduced descriptions, the baseline.

A window of a piece takes the place of the caption: bars, positions, description and latents are computed from the piece
that is scored. No condition was ever dropped in training. The null condition of arXiv 2512.09654, a decoder without its
cross-attention, is therefore asked for by name only.

Files are Lightning checkpoints or safetensors, tensors only, every name and shape accounted for. A checkpoint is a
torch zip archive. It is mapped with ``weights_only``, and of its content only ``state_dict`` and ``hyper_parameters``
are looked at; nothing else that its pickle may ask for is ever built. Sizes come from the tensors and are compared with
the hyper-parameters. See the book pages *Methods: models* and *Methods: symbolic models*.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earwitness.errors import ModelError
from earwitness.models.files import VQ_VAE, read_json
from earwitness.models.loading import badge, dense, tensors, unpickled
from earwitness.models.midi_base import WindowedModel, stacked
from earwitness.symbolic.figaro_vocabulary import DESCRIPTION, TOKENS
from earwitness.symbolic.windows import FigaroScheme
from earwitness.types import Window

if TYPE_CHECKING:
    from torch import Tensor

    from earwitness.symbolic.figaro_network import Sizes
    from earwitness.types import ModelInfo

CONFIG, WEIGHTS = "config.json", "model.safetensors"
# --- files ------------------------------------------------------------------------------------------------------------

# Held and never used by a network that scores: tables of absolute positions, the head, the pooler, the baseline's
# untrained cross-attention and empty encoder.
UNUSED = re.compile(
    r"transformer\.(encoder|decoder\.bert)\.embeddings\.(word_embeddings\.weight|position_embeddings\.weight|position_ids)"
    r"|transformer\.encoder\.pooler\.dense\.(weight|bias)"
    r"|transformer\.decoder\.cls\.predictions\.(bias|transform\.(dense|LayerNorm)\.(weight|bias)|decoder\.(weight|bias))"
)
UNUSED_BY_BASELINE = re.compile(
    r"transformer\.encoder\.embeddings\..*|transformer\.decoder\.bert\.encoder\.layer\.\d+\.crossattention\..*"
)
UNUSED_OF_VQ_VAE = re.compile(
    r"(transformer\.)?(encoder|decoder)\..*|out_layer\.weight|unpooling\.weight|attention_proj\.(weight|bias)"
    r"|vq_embed\.cluster_(size|sum)"
)
OPTIONS = ("instruments", "chords", "meta")
BLOCK = "transformer.decoder.bert.encoder.layer"
ENCODER = "transformer.encoder.encoder.layer"
CONVERT = "convert it once where it was trained: torch.save({'state_dict': ..., 'hyper_parameters': dict(...)})"


def find(folder: Path) -> tuple[Path, Path | None]:
    """Return the files of the network and of its VQ-VAE, if there is one.

    Raises
    ------
    ModelError
        No weights, or more than one network.
    """
    if (folder / WEIGHTS).is_file():
        beside = folder / VQ_VAE
        return folder / WEIGHTS, beside if beside.is_file() else None
    files = sorted(folder.glob("*.ckpt"))
    kinds = {path: "pooling.weight" in read(path)[0] for path in files}
    networks, encoders = ([p for p in files if kinds[p] is is_encoder] for is_encoder in (False, True))
    if len(networks) != 1 or len(encoders) > 1:
        names = ", ".join(p.name for p in files) or "none"
        raise ModelError(
            f"{folder.name}: expected one FIGARO checkpoint (and its VQ-VAE, if it has one), found {names}"
        )
    return networks[0], encoders[0] if encoders else None


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Map a file's tensors, and return the hyper-parameters that stand beside them.

    Raises
    ------
    ModelError
        Damaged files, and pickles that ask for more than tensors and plain values.
    """
    if path.suffix == ".safetensors":
        return tensors(path), read_json(path.parent / CONFIG) if path.name == WEIGHTS else {}
    content = unpickled(path, CONVERT)
    state = content.get("state_dict") if isinstance(content, dict) else None
    state = dense(state, path, "a Lightning checkpoint (state_dict of dense tensors)")
    hyper = content.get("hyper_parameters")
    return state, dict(hyper) if isinstance(hyper, dict) else {}


def sizes_of(state: dict[str, Tensor], hyper: dict[str, Any], where: str) -> Sizes:
    """Return what the tensors say of the network; the hyper-parameters must not say otherwise.

    Raises
    ------
    ModelError
        Tensors that describe no FIGARO, or that contradict the hyper-parameters.
    """
    from earwitness.symbolic.figaro_network import Sizes

    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    first = f"{BLOCK}.0."
    try:
        vocabulary, width = shapes["in_layer.weight"]
        rows, head = shapes[f"{first}attention.self.distance_embedding.weight"]
        described, latent, joined = (f"{name}.weight" in shapes for name in ("desc_in", "latent_in", "desc_proj"))
        flavour = "both" if joined else "description" if described else "latent" if latent else "none"
        sizes = Sizes(
            width=width,
            heads=width // head,
            feed_forward=shapes[f"{first}intermediate.dense.weight"][0],
            encoder_layers=_layers(shapes, ENCODER),
            decoder_layers=_layers(shapes, BLOCK),
            positions=(rows + 1) // 2,
            bars=shapes["bar_embedding.weight"][0],
            places=shapes["pos_embedding.weight"][0],
            latent=shapes["latent_in.weight"][1] if latent else 0,
            relative_cross=f"{first}crossattention.self.distance_embedding.weight" in shapes and flavour != "none",
            flavour=flavour,
        )
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        raise ModelError(f"{where}: its tensors are not a FIGARO's ({type(error).__name__}: {error})") from None
    if vocabulary != len(TOKENS) or (described and shapes["desc_in.weight"][0] != len(DESCRIPTION)):
        raise ModelError(
            f"{where}: {vocabulary} tokens; FIGARO's vocabularies have {len(TOKENS)} and {len(DESCRIPTION)}"
        )
    if sizes.positions < sizes.bars - 1:
        raise ModelError(f"{where}: distance tables for {sizes.positions} positions, a window of {sizes.bars - 1}")
    told = {
        "d_model": width, "context_size": sizes.bars - 1, "encoder_layers": sizes.encoder_layers,
        "decoder_layers": sizes.decoder_layers, "intermediate_size": sizes.feed_forward,
        "num_attention_heads": sizes.heads, "description_flavor": flavour,
    }  # fmt: skip
    if latent:
        told["d_latent"] = sizes.latent
    if flavour == "none":
        told.pop("encoder_layers")
    for name, found in told.items():
        if name in hyper and hyper[name] != found:
            raise ModelError(f"{where}: {name} is {hyper[name]!r} in its hyper-parameters and {found!r} in its tensors")
    return sizes


def _layers(shapes: dict[str, Any], prefix: str) -> int:
    """Return the number of layers under a prefix; they must be numbered without a gap."""
    found = {int(m[1]) for name in shapes if (m := re.match(rf"{re.escape(prefix)}\.(\d{{1,6}})\.", name))}
    if found != set(range(len(found))):
        raise ValueError(f"layers {sorted(found)} of {prefix}")
    return len(found)


def dropped_of(hyper: dict[str, Any], where: str) -> frozenset[str]:
    """Return what the model's descriptions lack, from ``description_options``.

    Raises
    ------
    ModelError
        Options that are not three booleans.
    """
    options = hyper.get("description_options") or {}
    if not isinstance(options, dict) or not all(
        key in OPTIONS and isinstance(value, bool) for key, value in options.items()
    ):
        raise ModelError(f"{where}: description_options is {json.dumps(options, default=str)[:80]}; expected {OPTIONS}")
    return frozenset(key for key, value in options.items() if not value)


def fill(network: Any, state: dict[str, Tensor], unused: list[re.Pattern[str]], where: str) -> Any:
    """Give a network on the meta device its weights, as float32 for scoring, without gradients.

    Raises
    ------
    ModelError
        A tensor that lacks, has another shape, or belongs to nothing.
    """
    wanted = network.state_dict()
    for name in wanted:
        if name not in state:
            raise ModelError(f"{where}: the weights lack {name}; fetch them again")
        if state[name].shape != wanted[name].shape:
            expected = tuple(wanted[name].shape)
            raise ModelError(f"{where}: tensor {name} has shape {tuple(state[name].shape)}, expected {expected}")
    for name in state:
        if name not in wanted and not any(pattern.fullmatch(name) for pattern in unused):
            raise ModelError(f"{where}: holds {name!r}, which is no part of FIGARO; nothing is loaded by halves")
    network.load_state_dict({name: state[name].float() for name in wanted}, assign=True)
    return network.eval().requires_grad_(requires_grad=False)


# --- the model --------------------------------------------------------------------------------------------------------

LIBRARIES = ("pretty_midi", "mido")
CACHED_PIECES = 64  # latents are those of a whole piece: its windows share them
HALVES = ("description", "latent")  # of the condition of flavour both


def describe(folder: Path, config: dict[str, Any], *, pocket: bool) -> dict[str, Any]:
    """Return the fields of ``ModelInfo`` that a FIGARO folder determines; no network is built."""
    path, encoder = find(folder)
    state, hyper = read(path)
    where = f"{folder.name}/{path.name}"
    sizes = sizes_of(state, hyper, where)
    if sizes.latent and encoder is None:
        raise ModelError(f"{folder.name}: flavour {sizes.flavour} needs its VQ-VAE; put that file beside it")
    return {
        "family": "token",
        "sample_rate": 0,
        "channels": 0,
        "segment_seconds": 0.0,
        "badge": badge(sum(tensor.numel() for tensor in state.values()), pocket=pocket),
        "conditions": {"none": (), "both": HALVES}.get(sizes.flavour, (sizes.flavour,)),
        "scheme": FigaroScheme(sizes.bars - 1, dropped_of(hyper, where)),
    }


def load(folder: Path, info: ModelInfo) -> FigaroModel:
    """Load a FIGARO folder (see ``earwitness.models.load_model``)."""
    import torch

    from earwitness.symbolic.figaro_network import FigaroNetwork

    path, beside = find(folder)
    where = f"{folder.name}/{path.name}"
    state, hyper = read(path)
    sizes = sizes_of(state, hyper, where)
    with torch.device("meta"):
        network = FigaroNetwork(sizes)
    unused = [UNUSED, *([UNUSED_BY_BASELINE] if sizes.flavour == "none" else [])]
    fill(network, state, unused, where)
    options = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    hide = options.get("hide_bar_tokens", False)
    if not isinstance(hide, bool):
        raise ModelError(f"{folder.name}/{CONFIG}: hide_bar_tokens is {hide!r}; expected true or false")
    encoder = _bar_encoder(beside, sizes.latent, hide=hide) if beside and sizes.latent else None
    dtype = getattr(torch, info.dtype)
    return FigaroModel(network.to(info.device, dtype), encoder and encoder.to(info.device), info)


def _bar_encoder(path: Path, latent: int, *, hide: bool) -> Any:
    """Load the encoder half of a VQ-VAE; it stays in float32, for a rounded one would choose other codes."""
    import torch

    from earwitness.symbolic.figaro_network import HEADS_OF_VQ_VAE, BarEncoder, Sizes

    where = f"{path.parent.name}/{path.name}"
    state, _ = read(path)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    first = f"{ENCODER}.0."
    try:
        made, width = shapes["pooling.weight"]
        codes, columns = shapes["vq_embed.embedding"]
        rows, head = shapes[f"{first}attention.self.distance_embedding.weight"]
        layers = _layers(shapes, ENCODER)
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
    return fill(encoder, state, [UNUSED, UNUSED_OF_VQ_VAE], where)


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
            For flavour both: which halves of the condition are given; the other is zero vectors. Nothing at all is the
            null condition of arXiv 2512.09654: the decoder without its cross-attention. No training ever dropped the
            condition, so the network was never used like that before.

        Raises
        ------
        ModelError
            No windows; or the null condition of a model that is told nothing anyway.
        """
        if not told and self.network.sizes.flavour == "none":
            raise ModelError(f"{self.info.name}: is told nothing of a piece, so its null condition is its only one")
        inputs, mask = self.inputs(codes, captions)
        windows = captions or ()
        beside = {
            name: stacked([w.inputs[name] for w in windows]).long().to(codes.device)
            for name in ("bars", "positions", "description", "description_bars")
        }
        if "description" not in told or self.network.sizes.flavour not in {"description", "both"}:
            beside["description"] = beside["description_bars"] = None  # type: ignore[assignment]
        latents = [self._latents(w) for w in windows] if self.encoder is not None and "latent" in told else None
        return self.network(inputs, **beside, latents=latents, null=not told)[:, None], mask

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
