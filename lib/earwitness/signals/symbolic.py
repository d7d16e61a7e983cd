"""Symbolic signals: groups of tokens as rows, blind features of notes, and the passes that only scores allow.

A symbolic model has one row of tokens. Its signals get one row per group of the scheme (for FIGARO position,
instrument, pitch, velocity, duration), each masked to its own tokens, so that every attack runs on a group as it does
on a codebook; pooled, groups weigh alike, as they do in number. Bars, metres, tempi, chords and padding are in no row,
but in the streams ``WHOLE`` of arXiv 2512.09654, which read every token of a window.
The book page *Methods: symbolic models* explains it.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from earwitness.data import decode_pool
from earwitness.errors import InputError
from earwitness.signals.token import FIELDS, STREAMS, TokenSignals, TokenStream, reduce_batch
from earwitness.symbolic.figaro_vocabulary import DRUM

if TYPE_CHECKING:
    from torch import Tensor

    from earwitness.types import Window

NEIGHBOUR_PASSES = {"transposition": 2, "dynamics": 2, "tempo": 2}  # network evaluations: up and down
HALF_PASSES = {"description": 1, "latent": 1}  # for models told both: one half alone, zero vectors for the other
# The null condition of arXiv 2512.09654, with the contrast to the model's own: by name only, for no training ever
# dropped what a model is told of a piece. The logits are needed side by side, so the conditional call is made again.
DECODER_ALONE = "decoder_alone"
PASSES = {**NEIGHBOUR_PASSES, **HALF_PASSES, DECODER_ALONE: 2}
# Contrast streams over every token of a window -> what each prediction is compared with: the token after it; or, as the
# paper's code has it, the token that the network was just given.
WHOLE = {"contrast_whole": "labels", "contrast_inputs": "inputs"}
SHARED = ("reference", "gradient")  # passes of models that hear sound which make sense here too
PIECES = 16  # pieces whose neighbours are kept: its windows follow each other

WINDOW_FEATURES = (
    "notes_number", "notes_pitch_mean", "notes_pitch_spread", "notes_velocity_mean", "notes_velocity_spread",
    "notes_length_mean", "notes_length_spread", "notes_per_second", "notes_drums", "notes_programs",
    "notes_classes", "notes_repeats", "notes_zlib",
)  # fmt: skip
PIECE_FEATURES = (
    "notes_piece_seconds", "notes_piece_notes", "notes_piece_bars", "notes_piece_programs", "notes_resolution",
    "notes_metre", "notes_file_bytes", "notes_offgrid",
)  # fmt: skip
FEATURES = WINDOW_FEATURES + PIECE_FEATURES

_neighbours: dict[tuple[int, str], tuple[Any, list[list[Window]]]] = {}


def grouped(signals: Sequence[TokenSignals], windows: Sequence[Window], groups: int) -> list[TokenSignals]:
    """Return signals of one row ``[1, T]`` as ``[groups, T]``; a row's mask holds the tokens of its group."""
    found = []
    for signal, window in zip(signals, windows, strict=True):
        mask = (window.groups == np.arange(groups)[:, None]) & signal.mask
        codes = np.repeat(signal.codes, groups, axis=0)
        streams = {
            name: TokenStream(*(np.where(mask, getattr(held, f), np.float32(nan)) for f in FIELDS))
            for name, held in signal.streams.items()
        }
        # What was computed from the logits is of all groups together: it stands in a place of its own.
        alone = {name: np.concatenate([np.full(groups, nan), value]) for name, value in signal.extras.items()}
        found.append(TokenSignals(codes, mask, streams, alone))
    return found


def score(model: Any, codes: Tensor, windows: Sequence[Window], **options: Any) -> list[TokenSignals]:
    """Return the signals of codes ``[B, 1, T]``: one pass, the conditional stream alone, a row per group."""
    logits, mask = model.logits(codes, windows, **options)
    return grouped(reduce_batch(logits, None, codes, mask), windows, len(model.info.scheme.groups))


def extract(model: Any, tokens: Tensor, windows: Sequence[Window]) -> list[TokenSignals]:
    """Score a batch of windows, given as ``[B, 1, W + 1]`` tokens too: the conditional stream alone."""
    import torch

    with torch.inference_mode():
        return score(model, model.encode(tokens), windows)


def means(signals: Sequence[TokenSignals]) -> NDArray[np.float64]:
    """Return mean log-probabilities per group ``[B, groups]``; NaN for a group without tokens."""
    rows = [[s.series("logp", "conditional", q) for q in range(len(s.codes))] for s in signals]
    return np.array([[values.mean() if values.size else nan for values in row] for row in rows])


def neighbours(model: Any, windows: Sequence[Window], kind: str) -> dict[str, NDArray[np.float64]]:
    """Return the mean log-probabilities of each window's neighbours of a kind: ``[B, J, groups]``.

    NaN where a neighbour has no such window, or the same one: what a change leaves as it was says nothing.
    """
    import torch

    columns = []
    for j in range(NEIGHBOUR_PASSES[kind]):
        moved = [_moved(model.info.scheme, window, kind)[j] for window in windows]
        held = [(own, w[own.index] if own.index < len(w) else None) for own, w in zip(windows, moved, strict=True)]
        column = np.full((len(windows), len(model.info.scheme.groups)), nan)
        there = [b for b, (own, other) in enumerate(held) if other is not None and not _alike(own, other)]
        chosen = [moved[b][windows[b].index] for b in there]
        if chosen:
            tokens = torch.from_numpy(np.stack([w.tokens[None] for w in chosen]))
            column[there] = means(score(model, model.encode(tokens), chosen))
        columns.append(column)
    return {"means": np.stack(columns, axis=1)}


def _alike(one: Window, other: Window) -> bool:
    """Say whether a model is given the same for both."""
    held = ((one.tokens, other.tokens), *((one.inputs[name], other.inputs[name]) for name in one.inputs))
    return all(np.array_equal(a, b) for a, b in held) and len(one.bar_tokens) == len(other.bar_tokens)


def _moved(scheme: Any, window: Window, kind: str) -> list[list[Window]]:
    """Return the windows of each neighbour of a window's piece."""
    key = id(window.score), kind
    if key not in _neighbours or _neighbours[key][0] is not window.score:
        while len(_neighbours) >= PIECES:
            _neighbours.pop(next(iter(_neighbours)))
        piece = window.score
        if isinstance(piece, decode_pool.RemoteScore):
            found = piece.neighbours(kind)
        else:
            found = [scheme.windows(other) for other in scheme.neighbours(kind, piece)]
        _neighbours[key] = piece, found
    return _neighbours[key][1]


def half(model: Any, codes: Tensor, windows: Sequence[Window], name: str) -> list[TokenStream]:
    """Return each window's stream with one half of the condition alone.

    Raises
    ------
    InputError
        A model that is not told both.
    """
    if set(model.info.conditions) != set(HALF_PASSES):
        told = ", ".join(model.info.conditions) or "nothing"
        raise InputError(
            f"{model.info.name}: the stream {name!r} is of models told description and latents, this one is told {told}"
        )
    return [s.streams["conditional"] for s in score(model, codes, windows, told=(name,))]


def decoder_alone(model: Any, codes: Tensor, windows: Sequence[Window]) -> dict[str, NDArray[Any]]:
    """Return what the null and contrast streams of windows are made from, every token counting.

    Returns
    -------
    dict
        ``tokens`` ``[B, W + 1]``; ``labels`` and ``inputs``, float32 ``[B, streams, fields, W]`` in the order of
        ``STREAMS`` and ``FIELDS``: the predictions against the tokens after them, and against their own inputs.
    """
    import torch

    own, null = model.logits(codes, windows)[0], model.logits(codes, windows, told=())[0]
    tokens = np.stack([window.tokens for window in windows])
    found: dict[str, NDArray[Any]] = {"tokens": tokens}
    for name, targets in {"labels": tokens[:, None, 1:], "inputs": tokens[:, None, :-1]}.items():
        against = torch.from_numpy(targets).to(codes)
        reduced = reduce_batch(own, null, against, torch.ones_like(against, dtype=torch.bool))
        found[name] = np.stack([[[getattr(s.streams[n], f)[0] for f in FIELDS] for n in STREAMS] for s in reduced])
    return found


def with_contrast(signals: TokenSignals) -> TokenSignals:
    """Return the signals of a window with a null and a contrast stream, where the pass that they need was run."""
    held = signals.extras.get(f"{DECODER_ALONE}/labels")
    if held is None:
        return signals
    rows = [TokenStream(*(np.where(signals.mask, values, np.float32(nan)) for values in part)) for part in held]
    return replace(signals, streams={**signals.streams, **dict(zip(STREAMS[1:], rows[1:], strict=True))})


def whole(signals: TokenSignals, stream: str) -> TokenSignals:
    """Return a window as one row ``[1, W]`` in which every token counts, compared as a stream of ``WHOLE`` says."""
    if stream not in signals.cache:
        tokens, against = signals.extras[f"{DECODER_ALONE}/tokens"], WHOLE[stream]
        codes = (tokens[1:] if against == "labels" else tokens[:-1])[None]
        held = signals.extras[f"{DECODER_ALONE}/{against}"]
        streams = {name: TokenStream(*part[:, None]) for name, part in zip(STREAMS, held, strict=True)}
        signals.cache[stream] = TokenSignals(codes, np.ones(codes.shape, bool), streams)
    found: TokenSignals = signals.cache[stream]
    return found


def blind(window: Window, path: Path) -> dict[str, float]:
    """Return ``FEATURES`` of one window and the file it was cut from; nothing here asks a model.

    Lengths are in seconds; shares lie in 0 ... 1; ``notes_classes`` is the entropy of pitch classes in nats;
    ``notes_repeats`` the share of notes whose pitch equals the one before; ``notes_zlib`` compressed bytes per token.
    """
    score, tokens = window.score, window.tokens.tolist()
    whole = score.notes
    held = whole[np.unique(window.notes[window.notes >= 0])]
    found = dict.fromkeys(FEATURES, nan) | {
        "notes_number": float(len(held)),
        "notes_zlib": len(zlib.compress(str(tokens).encode())) / len(tokens),
        "notes_piece_seconds": float(whole["end_s"].max()),
        "notes_piece_notes": float(len(whole)),
        "notes_piece_bars": float(score.number_of_bars),
        "notes_piece_programs": float(len(np.unique(whole["program"]))),
        "notes_resolution": float(score.resolution),
        "notes_metre": score.metre,
        "notes_file_bytes": float(path.stat().st_size),
        "notes_offgrid": score.off_grid,
    }
    if not len(held):
        return found
    lengths, pitched = held["end_s"] - held["start_s"], held[held["program"] != DRUM]
    seconds = held["end_s"].max() - held["start_s"].min()
    classes = np.bincount(pitched["pitch"] % 12, minlength=12) / max(1, len(pitched))
    return found | {
        "notes_pitch_mean": float(pitched["pitch"].mean()) if len(pitched) else nan,
        "notes_pitch_spread": float(pitched["pitch"].std()) if len(pitched) else nan,
        "notes_velocity_mean": float(held["velocity"].mean()),
        "notes_velocity_spread": float(held["velocity"].std()),
        "notes_length_mean": float(lengths.mean()),
        "notes_length_spread": float(lengths.std()),
        "notes_per_second": float(len(held) / max(seconds, 1e-3)),
        "notes_drums": float(np.mean(held["program"] == DRUM)),
        "notes_programs": float(len(np.unique(held["program"]))),
        "notes_classes": float(-(classes[classes > 0] * np.log(classes[classes > 0])).sum()) if len(pitched) else nan,
        "notes_repeats": float(np.mean(np.diff(held["pitch"]) == 0)) if len(held) > 1 else nan,
    }


def replaced(signals: Sequence[TokenSignals], name: str, streams: Sequence[TokenStream]) -> list[TokenSignals]:
    """Return signals with one more stream."""
    return [replace(s, streams={**s.streams, name: stream}) for s, stream in zip(signals, streams, strict=True)]
