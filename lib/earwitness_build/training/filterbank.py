"""Set the weights of an EnCodec encoder by hand: a bank of band-pass filters and the logarithm of their levels.

A codec trained from random weights needs hours to discover that sound is made of bands. Here the encoder *is* a
filter bank, written into EnCodec's own layers; quantiser and decoder are then trained
(`earwitness_build.training.codec`).
Explained on the book page *The pocket world*.

How the layers are used (the residual blocks and the LSTM pass everything through):

1. the first convolution copies the waveform and lifts it above zero, where ELU changes nothing;
2. the stride of 16 splits it into coarse bands with a cosine and a sine phase each (still linear, still lifted);
3. the stride of 20 combines those into narrow bands in three phases, 120 degrees apart; ELU rectifies them, and the sum
   of the three is the band's level whatever the phase;
4. the next convolution multiplies each level by ``-g`` for six gains g; ELU gives ``exp(-g level) - 1``, and the sum
   over gains three times apart grows like the logarithm of the level;
5. the last convolution rotates the log levels to their principal axes (`set_axes`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

GAINS = 4.0 * 3.0 ** np.arange(6)
PHASES = (0.0, 2 * np.pi / 3, 4 * np.pi / 3)
_LIFT = 2.0
_RECTIFY = 1000.0  # how far above ELU's rounded corner a full-scale band lies


def band_centres(count: int, sample_rate: int) -> np.ndarray:
    """Return ``count`` frequencies in Hz: two thirds are 80 Hz apart, the rest equal ratios up to 0.4 of the rate."""
    even = 60.0 + 80.0 * np.arange(round(count * 0.68))
    rest = count - len(even)
    top = 0.4 * sample_rate
    return np.concatenate([even, even[-1] * (top / even[-1]) ** (np.arange(1, rest + 1) / rest)])


def set_filters(codec: Any) -> None:
    """Write the filter bank into ``codec.encoder`` (an untrained EnCodec with ratios 16, 20, 1) and freeze it."""
    import torch

    with torch.no_grad():
        layers = codec.encoder.layers
        convs = [layer.conv for layer in layers if type(layer).__name__ == "EncodecConv1d"]
        for layer in layers:
            if type(layer).__name__ == "EncodecResnetBlock":
                _pass_through(layer)
            elif type(layer).__name__ == "EncodecLSTM":
                for weights in layer.lstm.parameters():
                    weights.zero_()  # its skip connection remains
        copies, coarse, bands, levels = convs[:4]
        impulse = np.zeros(copies.weight.shape)
        impulse[:, 0, impulse.shape[2] // 2] = 1.0
        _set(copies, impulse, np.full(len(impulse), _LIFT))
        first = _coarse_filters(coarse.weight.shape[0], coarse.weight.shape[2])
        spread = np.repeat(first[:, None, :], coarse.weight.shape[1], axis=1) / coarse.weight.shape[1]
        _set(coarse, spread, _LIFT - _LIFT * first.sum(axis=1))
        count, _, size = bands.weight.shape
        _set(bands, _RECTIFY * _band_filters(first, count, size, codec.config.sampling_rate), 0.0)
        codec.encoder.half().float()
        bands.bias.copy_(-_answer_to_silence(codec, bands))
        _set(levels, _level_weights(*levels.weight.shape), 0.0)
        codec.encoder.half().float()
    codec.encoder.requires_grad_(requires_grad=False)


def set_axes(codec: Any, axes: np.ndarray, centre: np.ndarray) -> None:
    """Make the latent the log levels ``[bands]``, less ``centre`` ``[bands]``, on ``axes`` ``[hidden, bands]``."""
    import torch

    last = codec.encoder.layers[-1].conv
    weight = np.zeros(last.weight.shape)
    weight[:, : axes.shape[1] * len(GAINS), weight.shape[2] // 2] = -np.repeat(axes, len(GAINS), axis=1)
    with torch.no_grad():
        _set(last, weight, -axes @ centre)
        codec.encoder.half().float()


def log_levels(codec: Any, wave: Any) -> np.ndarray:
    """Return the log levels ``[frames, bands]`` (base 3, floor 0) that the encoder sees in ``[1, 1, samples]``."""
    import torch

    with torch.inference_mode():
        hidden = wave
        for layer in codec.encoder.layers[:-1]:
            hidden = layer(hidden)
    n_bands = hidden.shape[1] // len(GAINS)
    split = hidden[0, : n_bands * len(GAINS)].reshape(n_bands, len(GAINS), -1)
    return -np.asarray(split.sum(dim=1).T)


def _coarse_filters(count: int, size: int) -> np.ndarray:
    """Windowed cosines and sines ``[count, size]``: together they hold the whole signal."""
    pair, time = np.arange(count) // 2, np.arange(size) - size / 2
    cycles = (pair + 0.5) / (count // 2) / 2
    wave = np.cos(2 * np.pi * cycles[:, None] * time + (np.arange(count) % 2)[:, None] * np.pi / 2)
    return 4.0 / size * np.hanning(size + 2)[1:-1] * wave


def _band_filters(first: np.ndarray, count: int, size: int, sample_rate: int) -> np.ndarray:
    """Weights ``[count, coarse, size]`` that turn coarse bands into narrow ones: a least-squares fit of the filters."""
    n_coarse, short = first.shape
    length = short + short // 2 * (size - 1)
    reach = np.zeros((n_coarse, size, length))
    for step in range(size):
        reach[:, step, step * (short // 2) : step * (short // 2) + short] = first
    time = np.arange(length) - length / 2
    wanted = np.zeros((count, length))
    centres = band_centres(count // len(PHASES), sample_rate)
    widths = np.maximum(80.0, np.gradient(centres))
    for band, (centre, width) in enumerate(zip(centres, widths, strict=True)):
        span = min(length, 3.2 * sample_rate / width)
        window = np.where(np.abs(time) < span / 2, np.cos(np.pi * time / span) ** 2, 0.0)
        for phase, angle in enumerate(PHASES):
            tone = np.cos(2 * np.pi * centre / sample_rate * time + angle)
            wanted[band * len(PHASES) + phase] = 2 * window / window.sum() * tone
    fit = np.linalg.lstsq(reach.reshape(-1, length).T, wanted.T, rcond=1e-3)[0]
    return np.asarray(fit.T.reshape(count, n_coarse, size))


def _level_weights(count: int, phases: int, taps: int) -> np.ndarray:
    """Weights ``[count, phases, taps]``: minus each gain times the sum of a band's phases, averaged over the taps."""
    weight = np.zeros((count, phases, taps))
    for band in range(min(phases // len(PHASES), count // len(GAINS))):
        for number, gain in enumerate(GAINS):
            here = slice(band * len(PHASES), (band + 1) * len(PHASES))
            weight[band * len(GAINS) + number, here] = -gain / _RECTIFY / taps
    return weight


def _answer_to_silence(codec: Any, conv: Any) -> Any:
    """What a convolution of the encoder gives for silence (the lift, filtered): its bias has to take that away."""
    import torch

    hidden = torch.zeros(1, 1, codec.config.sampling_rate)
    for layer in codec.encoder.layers:
        hidden = layer(hidden)
        if getattr(layer, "conv", None) is conv:
            break
    return hidden[0, :, 10:-10].mean(dim=1)


def _pass_through(block: Any) -> None:
    """Make a residual block the identity."""
    size = block.shortcut.conv.weight.shape[0]
    _set(block.shortcut.conv, np.eye(size)[:, :, None], 0.0)
    last = [layer for layer in block.block if hasattr(layer, "conv")][-1].conv
    _set(last, np.zeros(last.weight.shape), 0.0)


def _set(conv: Any, weight: np.ndarray, bias: np.ndarray | float) -> None:
    """Assign weight and bias of a weight-normalised convolution (whose rows of zeros need a direction of their own)."""
    import torch

    norm = np.sqrt((weight**2).sum(axis=(1, 2), keepdims=True))
    scale, direction = conv.parametrizations.weight.original0, conv.parametrizations.weight.original1
    scale.copy_(torch.as_tensor(norm, dtype=torch.float32))
    direction.copy_(
        torch.as_tensor(np.where(norm > 0, weight / np.where(norm > 0, norm, 1.0), 1.0), dtype=torch.float32)
    )
    conv.bias.copy_(torch.as_tensor(np.broadcast_to(bias, len(weight)).copy(), dtype=torch.float32))
