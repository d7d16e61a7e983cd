"""Generation by token models, frame by frame through ``logits``, and how alike two sequences are.

A model continues the first frames of a recording's own tokens to the recording's length. MusicGen keeps what it has
read between steps; for the others a step costs a pass over all frames so far, exact and slow. Shapes: codes
``[B, K, T]``; a score has one row. Source: the extraction experiment in the code of arXiv 2512.09654.

Book page: *Extraction*.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from earwitness.errors import InputError, ModelError
from earwitness.models.base import stack
from earwitness.models.delay_pattern import delayed
from earwitness.symbolic.figaro_vocabulary import TOKENS

if TYPE_CHECKING:
    from torch import Tensor

    from earwitness.models.base import TokenModel
    from earwitness.signals.token import TokenSignals
    from earwitness.types import Window

END = TOKENS["<eos>"]
NAMES = {number: name for name, number in TOKENS.items()}


def continued(
    model: TokenModel,
    codes: Tensor,
    prompt: int,
    captions: Sequence[Any],
    *,
    temperature: float = 1.0,
    seed: int = 0,
) -> tuple[Tensor, NDArray[np.int64]]:
    """Continue recordings from their first frames.

    Parameters
    ----------
    model : TokenModel
        One that predicts frame after frame.
    codes : Tensor
        ``[B, K, T]``, the recordings' own; frames from ``prompt`` on are not looked at.
    prompt : int
        Frames that are given, 0 ... T - 1.
    captions : sequence
        What the model is told of each: captions, or windows of scores.
    temperature : float
        Of the draws; 0 takes the most likely token.
    seed : int
        The same noise for every recording, so that no draw can favour one.

    Returns
    -------
    Tensor
        ``[B, K, T]``: prompt and continuation.
    ndarray
        ``[B]``: frames up to and including a score's end, T where it does not end.

    Raises
    ------
    InputError
        A prompt that leaves nothing to continue.
    ModelError
        A model that fills masked frames in any order.
    """
    import torch

    books, frames = codes.shape[1:]
    if not 0 <= prompt < frames:
        raise InputError(f"a prompt of {prompt} frames leaves nothing of {frames} to continue; take a shorter one")
    if model.info.calls > 1:
        raise ModelError(
            f"{model.info.name}: fills masked frames and continues nothing; take MusicGen, AudioGen, FIGARO"
        )
    delays: Sequence[int] = getattr(model, "delays", [0] * books)
    scored, source = model.info.scheme is not None, torch.Generator().manual_seed(seed)
    out, read = codes.clone(), _reader(model, captions)
    out[..., prompt:] = 0
    for step in range(prompt, frames + max(delays)):
        end = frames if scored else min(step + 1, frames)  # what a score's network is told is as long as its window
        told: Any = [_told(c, row[0]) for c, row in zip(captions, out, strict=True)] if scored else [*captions]
        with torch.inference_mode():
            logits = read(out, step) if read else model.logits(out[..., :end], told)[0]
        for k, delay in enumerate(delays):
            if prompt <= (t := step - delay) < frames:
                here = logits[:, k, -1 if read else t].float().cpu()
                noise = -torch.empty(here.shape[-1]).exponential_(generator=source).log()
                out[:, k, t] = (here + temperature * noise).argmax(-1).to(out)
    if not scored:
        return out, np.full(len(out), frames)
    ended = (out[:, 0, prompt:] == END).cpu().numpy()
    return out, np.where(ended.any(axis=1), prompt + 1 + ended.argmax(axis=1), frames)


def _reader(model: Any, captions: Sequence[Any]) -> Callable[[Tensor, int], Tensor] | None:
    """Return what reads codes up to a step and keeps what it read: logits ``[B, K, 1 or more, V]``; or None."""
    if getattr(model, "attends_padding", True):  # MusicGen alone, and not its sister that hears melodies
        return None
    text, kept, seen = stack([model.told(caption or None) for caption in captions]), None, 0

    def read(codes: Tensor, step: int) -> Tensor:
        nonlocal kept, seen
        columns = delayed(codes, model.delays, model.pad)[..., seen : step + 1].flatten(0, 1)
        given = {"encoder_outputs": (text["states"],), "attention_mask": text["mask"], "past_key_values": kept}
        found = model.network(**given, decoder_input_ids=columns, use_cache=True)
        kept, seen = found.past_key_values, step + 1
        logits: Tensor = found.logits.unflatten(0, codes.shape[:2])
        return logits

    return read


def latents(model: Any, codes: Tensor) -> NDArray[np.float32]:
    """Return what a codec's decoder is given, ``[B, D, T]``: the sums of what codes ``[B, K, T]`` stand for."""
    import torch

    with torch.inference_mode():
        if hasattr(model, "network"):  # transformers
            found = model.network.audio_encoder.quantizer.decode(codes.transpose(0, 1).to(model.info.device))
        else:
            found = model.codec.decode_latent(codes.to(model.info.device))
    return np.asarray(found.float().cpu())


def _told(window: Window, codes: Tensor) -> Window:
    """Return what a score's network reads beside its inputs, bar and position following from the tokens so far."""
    ids = [int(window.tokens[0]), *codes[:-1].tolist()]
    bar, position = int(window.inputs["bars"][0]), int(window.inputs["positions"][0])
    bars, positions = [bar], [position]
    for number in ids[1:]:
        kind, _, value = NAMES.get(number, "").rpartition("_")
        if kind == "Bar":
            bar, position = min(bar + 1, len(codes)), 0
        elif kind == "Position":
            position = int(value)
        bars.append(0 if number == END else bar)
        positions.append(0 if number == END else position)
    beside = {"bars": np.array(bars, np.int32), "positions": np.array(positions, np.int32)}
    tokens = np.array([*ids, int(codes[-1])], np.int32)
    return replace(window, tokens=tokens, inputs={**window.inputs, **beside})


def equal_tokens(one: NDArray[Any], other: NDArray[Any], prompt: int = 0, *, as_coded: bool = False) -> float:
    """Return the share of equal codes of two sequences ``[K, T]`` after a prompt.

    ``as_coded``: the code of arXiv 2512.09654 counts the prompt too and divides by K alone, so that it can exceed 1.
    """
    if as_coded:
        return float((one == other).sum() / len(one))
    return float((one[:, prompt:] == other[:, prompt:]).mean())


def edit_share(one: Sequence[int], other: Sequence[int]) -> float:
    """Return 1 - Levenshtein distance / longer length of two sequences; 1 for two empty ones."""
    row = np.arange(len(other) + 1)
    values = np.asarray(other)
    for i, item in enumerate(one, 1):
        best = np.minimum(row[1:] + 1, row[:-1] + (values != item))
        row = np.minimum.accumulate(np.concatenate(([i], best)) - np.arange(len(row))) + np.arange(len(row))
    longest = max(len(one), len(other))
    return 1 - float(row[-1]) / longest if longest else 1.0


def skyline(tokens: Sequence[int]) -> list[int]:
    """Return the highest pitch at each position of FIGARO's tokens, in order; drums have none."""
    found: dict[tuple[int, int], int] = {}
    bar = position = 0
    for number in tokens:
        kind, _, value = NAMES.get(int(number), "").rpartition("_")
        if kind == "Bar":
            bar, position = bar + 1, 0
        elif kind == "Position":
            position = int(value)
        elif kind == "Pitch":
            found[bar, position] = max(found.get((bar, position), -1), int(value))
    return [found[place] for place in sorted(found)]


def top_share(signals: TokenSignals, *, rank: int = 0, last: int | None = None) -> float:
    """Return the share of a segment's tokens that are the model's best guess, given the caption.

    As coded for FIGARO: ``rank=1`` (the *second* best guess) over the ``last=99`` positions.
    """
    ranks = signals.series("rank", "conditional")[-last if last else None :]
    return float(np.mean(ranks == rank)) if ranks.size else float("nan")
