"""FIGARO's network: BERT stacks with relative distances in the attention, written out on torch alone.

transformers 5 no longer has this attention: it accepts the option, ignores it and adds absolute positions instead. The
names of all parameters are those of the released checkpoints; nothing that they hold and never use is built. Nothing
is masked but the future, so padding counts: descriptions are padded to the window, and what is shorter in the encoder
is met by the decoder as zero states. The book page *Methods: symbolic models* states the formula.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from earwitness.symbolic.figaro_vocabulary import BEGIN, DESCRIPTION, MASK, MAX_BARS, TOKENS

HEADS_OF_VQ_VAE = 8  # fixed in its class
EPSILON = 1e-12


@dataclass(frozen=True)
class Sizes:
    """Everything that shapes a network; all but ``heads`` without distance tables follows from the tensors.

    ``width`` d, ``feed_forward`` F, ``positions`` P (distance tables hold 2 P - 1 rows), ``bars`` and ``places`` rows
    of the bar and position tables, ``latent`` D (0 without latents), ``relative_cross`` whether the cross-attention
    has a distance table (the released layout), ``flavour`` one of ``none``,
    ``description``, ``latent`` and ``both``.
    """

    width: int
    heads: int
    feed_forward: int
    encoder_layers: int
    decoder_layers: int
    positions: int = 256
    bars: int = 257
    places: int = 513
    latent: int = 0
    relative_cross: bool = False
    flavour: str = "description"


class _Projections(nn.Module):
    """Queries, keys, values, and the distance table of one attention."""

    def __init__(self, sizes: Sizes, *, relative: bool) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(sizes.width, sizes.width) for _ in range(3))
        self.heads, self.positions = sizes.heads, sizes.positions
        self.distance_embedding = (
            nn.Embedding(2 * sizes.positions - 1, sizes.width // sizes.heads) if relative else None
        )

    def forward(self, x: Tensor, states: Tensor, *, causal: bool, dropout: float) -> Tensor:
        """Attend from ``x`` ``[B, L, d]`` to ``states`` ``[B, M, d]``.

        With q, k per head of size h and the table E: s_ij = (q_i k_j + q_i E_(i-j) + k_j E_(i-j)) / sqrt(h).
        """
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query(x), self.key(states), self.value(states))
        )
        length, width = q.shape[2], k.shape[2]
        bias = None
        if self.distance_embedding is not None:
            # Distances i - j run from 1 - M to L - 1; row r of the part in use stands for distance r - (M - 1).
            rows = self.distance_embedding.weight[self.positions - width : self.positions - 1 + length]
            place = torch.arange(length, device=x.device)[:, None] - torch.arange(width, device=x.device) + width - 1
            of_query = (q @ rows.T).gather(-1, place.expand(*q.shape[:2], -1, -1))
            of_key = (k @ rows.T).gather(-1, place.T.expand(*k.shape[:2], -1, -1)).transpose(-1, -2)
            bias = (of_query + of_key) / q.shape[-1] ** 0.5
        if causal:
            future = torch.ones(length, width, dtype=torch.bool, device=x.device).triu(1)
            bias = q.new_zeros(length, width) if bias is None else bias
            bias = bias.masked_fill(future, -torch.inf)
        found = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)
        return found.transpose(1, 2).flatten(2)


class _Output(nn.Module):
    """A dense layer, the residual, LayerNorm: BERT is normalised after the sum."""

    def __init__(self, inner: int, width: int) -> None:
        super().__init__()
        self.dense, self.LayerNorm = nn.Linear(inner, width), nn.LayerNorm(width, eps=EPSILON)

    def forward(self, x: Tensor, residual: Tensor, dropout: float) -> Tensor:
        normed: Tensor = self.LayerNorm(functional.dropout(self.dense(x), dropout, self.training) + residual)
        return normed


class _Attention(nn.Module):
    def __init__(self, sizes: Sizes, *, relative: bool) -> None:
        super().__init__()
        self.add_module("self", _Projections(sizes, relative=relative))
        self.output = _Output(sizes.width, sizes.width)

    def forward(self, x: Tensor, states: Tensor, *, causal: bool, dropout: float) -> Tensor:
        inside = dropout if self.training else 0.0
        attend: Any = self.self
        found: Tensor = self.output(attend(x, states, causal=causal, dropout=inside), x, dropout)
        return found


class _Layer(nn.Module):
    def __init__(self, sizes: Sizes, *, crossed: bool) -> None:
        super().__init__()
        self.attention = _Attention(sizes, relative=True)
        self.crossattention = _Attention(sizes, relative=sizes.relative_cross) if crossed else None
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(sizes.width, sizes.feed_forward)})
        self.output = _Output(sizes.feed_forward, sizes.width)

    def forward(self, x: Tensor, states: Tensor | None, *, causal: bool, dropout: float) -> Tensor:
        x = self.attention(x, x, causal=causal, dropout=dropout)
        if self.crossattention is not None and states is not None:
            x = self.crossattention(x, states, causal=False, dropout=dropout)
        found: Tensor = self.output(functional.gelu(self.intermediate["dense"](x)), x, dropout)
        return found


class Stack(nn.Module):
    """An encoder or a decoder over embedded inputs: a constant is added, LayerNorm, then the layers."""

    def __init__(self, sizes: Sizes, layers: int, *, crossed: bool, pooled: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        width, self.dropout = sizes.width, dropout
        self.embeddings: Any = nn.ModuleDict(
            {"token_type_embeddings": nn.Embedding(2, width), "LayerNorm": nn.LayerNorm(width, eps=EPSILON)}
        )
        self.encoder: Any = nn.ModuleDict(
            {"layer": nn.ModuleList(_Layer(sizes, crossed=crossed) for _ in range(layers))}
        )
        if pooled:
            self.pooler: Any = nn.ModuleDict({"dense": nn.Linear(width, width)})

    def forward(self, x: Tensor, states: Tensor | None = None, *, causal: bool = False) -> Tensor:
        """Return ``[B, L, d]``."""
        constant = self.embeddings["token_type_embeddings"].weight[0]
        x = functional.dropout(self.embeddings["LayerNorm"](x + constant), self.dropout, self.training)
        for layer in self.encoder["layer"]:
            x = layer(x, states, causal=causal, dropout=self.dropout)
        return x


class FigaroNetwork(nn.Module):
    """FIGARO: a decoder over tokens, and an encoder over what the flavour is told of the piece."""

    def __init__(self, sizes: Sizes, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.sizes, width = sizes, sizes.width
        self.in_layer = nn.Embedding(len(TOKENS), width)
        self.out_layer = nn.Linear(width, len(TOKENS), bias=False)
        self.bar_embedding, self.pos_embedding = nn.Embedding(sizes.bars, width), nn.Embedding(sizes.places, width)
        told = sizes.flavour != "none"
        parts = {"encoder": Stack(sizes, sizes.encoder_layers, crossed=False, dropout=dropout)} if told else {}
        decoder = Stack(sizes, sizes.decoder_layers, crossed=told, dropout=dropout)
        self.transformer: Any = nn.ModuleDict({**parts, "decoder": nn.ModuleDict({"bert": decoder})})
        if sizes.flavour in {"description", "both"}:
            self.desc_in = nn.Embedding(len(DESCRIPTION), width)
        if sizes.flavour in {"latent", "both"}:
            self.latent_in = nn.Linear(sizes.latent, width, bias=False)
        if sizes.flavour == "both":
            self.desc_proj = nn.Linear(2 * width, width, bias=False)

    def forward(
        self,
        tokens: Tensor,
        bars: Tensor,
        positions: Tensor,
        description: Tensor | None = None,
        description_bars: Tensor | None = None,
        latents: Sequence[Tensor] | None = None,
        *,
        null: bool = False,
    ) -> Tensor:
        """Return the logits ``[B, T, 1357]`` of the token after each input.

        Parameters
        ----------
        tokens, bars, positions : Tensor
            ``[B, T]`` ids of the inputs.
        description, description_bars : Tensor, optional
            ``[B, T]`` ids, padded to the window with 0. For flavour both, None stands for no description: zero vectors.
        latents : sequence of Tensor, optional
            One ``[bars, D]`` per item, unpadded. For flavour both, None stands for zero vectors.
        null : bool
            Leave out the encoder and every cross-attention sub-layer (attention, dense, residual and norm): the decoder
            alone, as arXiv 2512.09654 uses it for a null condition. Embeddings of bars and positions stay.
        """
        x = self.in_layer(tokens) + self.bar_embedding(bars) + self.pos_embedding(positions)
        states = None if null else self._states(x, description, description_bars, latents)
        found: Tensor = self.out_layer(self.transformer["decoder"]["bert"](x, states, causal=True))
        return found

    def _states(
        self, x: Tensor, ids: Tensor | None, bars: Tensor | None, latents: Sequence[Tensor] | None
    ) -> Tensor | None:
        """Return the encoder's states ``[B, T, d]``: those of latents alone are padded with zero states."""
        flavour = self.sizes.flavour
        if flavour == "none":
            return None
        encoder = self.transformer["encoder"]
        if flavour == "latent":
            assert latents is not None
            each = [encoder(self.latent_in(rows)[None])[0] for rows in latents]  # one by one: nothing masks padding
            return torch.stack([functional.pad(rows, (0, 0, 0, x.shape[1] - len(rows))) for rows in each])
        described = torch.zeros_like(x) if ids is None else self.desc_in(ids) + self.bar_embedding(bars)
        if flavour == "both":
            beside = torch.zeros_like(x)
            for b, rows in enumerate(latents or ()):
                beside[b, : len(rows)] = self.latent_in(rows)
            described = self.desc_proj(torch.cat([described, beside], dim=-1))
        states: Tensor = encoder(described)
        return states


class BarEncoder(nn.Module):
    """The encoder half of FIGARO's VQ-VAE: a bar's tokens become one vector made of rows of a codebook.

    ``hide_bars`` replaces bar tokens by ``<mask>``, as the VQ-VAE's own training did; the loader of whole pieces in the
    original leaves them visible, which is the default here too.
    """

    def __init__(self, sizes: Sizes, codes: int, columns: int, *, hide_bars: bool = False) -> None:
        super().__init__()
        self.hide_bars = hide_bars
        self.in_layer = nn.Embedding(len(TOKENS), sizes.width)
        self.transformer: Any = nn.ModuleDict(
            {"encoder": Stack(sizes, sizes.encoder_layers, crossed=False, pooled=True)}
        )
        self.pooling = nn.Linear(sizes.width, sizes.latent, bias=False)
        self.vq_embed = nn.ParameterDict({"embedding": nn.Parameter(torch.zeros(codes, columns))})

    def forward(self, bar: Tensor) -> Tensor:
        """Return the latent ``[D]`` of one bar's tokens ``[n]``, from ``<bos>`` to ``<eos>``."""
        if self.hide_bars:
            first = TOKENS["Bar_0"]
            bar = torch.where((bar >= first) & (bar < first + MAX_BARS), MASK, bar)
        assert int(bar[0]) == BEGIN
        encoder = self.transformer["encoder"]
        pooled = torch.tanh(encoder.pooler["dense"](encoder(self.in_layer(bar)[None])[0, 0]))
        table = self.vq_embed["embedding"]
        groups = self.pooling(pooled).unflatten(-1, (-1, table.shape[1]))
        nearest = (groups[:, None] - table).square().sum(-1).argmin(-1)
        found: Tensor = table[nearest].flatten()
        return found
