"""Builders of toy inputs in the real on-disk formats: checkpoints and recordings."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile as sf

RATE = 16_000
CAPTIONS = [f"{a} {b} with {c}" for a in ("sad", "happy", "slow") for b in ("rock", "jazz") for c in ("drums", "piano")]


def t5_tokenizer(folder: Path) -> None:
    """Train a sentencepiece model on a few captions and save it as a T5 tokenizer."""
    import sentencepiece
    from transformers import T5Tokenizer

    text = folder / "captions"
    text.write_text("\n".join(CAPTIONS))
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(folder / "spiece"), vocab_size=60, model_type="unigram",
        hard_vocab_limit=False, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    T5Tokenizer.from_pretrained(str(folder)).save_pretrained(str(folder))
    text.unlink()
    (folder / "spiece.vocab").unlink()


def musicgen(
    folder: Path, *, channels: int = 1, frames: int = 32, seed: int = 0, melody: bool = False, ffn: int = 64
) -> Path:
    """Save a random MusicGen (transformers' format) with four codebooks of 64 entries and a window of ``frames``."""
    import torch
    import transformers
    from transformers.utils import logging

    logging.set_verbosity_error()
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    kind = "MusicgenMelody" if melody else "Musicgen"
    text = transformers.T5Config(vocab_size=80, d_model=32, d_ff=37, d_kv=8, num_heads=4, num_layers=2)
    codec = transformers.EncodecConfig(
        target_bandwidths=[1.2], sampling_rate=RATE, audio_channels=1, num_filters=4, hidden_size=16,
        codebook_size=64, codebook_dim=16, upsampling_ratios=[8, 5, 4, 2], num_lstm_layers=1,
        use_causal_conv=False, norm_type="weight_norm", normalize=False,
    )  # fmt: skip
    decoder = getattr(transformers, f"{kind}DecoderConfig")(
        vocab_size=64, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, ffn_dim=ffn,
        num_codebooks=4 * channels, pad_token_id=64, bos_token_id=64, audio_channels=channels, initializer_factor=0.5,
    )  # fmt: skip
    config = getattr(transformers, f"{kind}Config")(
        text_encoder=text.to_dict(), audio_encoder=codec.to_dict(), decoder=decoder.to_dict(), pad_token_id=0,
        **({"num_chroma": 12, "chroma_length": 9} if melody else {}),
    )  # fmt: skip
    model = getattr(transformers, f"{kind}ForConditionalGeneration")(config).eval()
    with torch.no_grad():
        for layer in model.audio_encoder.quantizer.layers:
            layer.codebook.embed.normal_(std=0.02)
    model.generation_config.max_length = frames
    model.save_pretrained(folder)
    t5_tokenizer(folder)
    return folder


def hearing(folder: Path, seed: int = 0) -> Path:
    """Give a checkpoint's codec codebooks that tell melodies apart: entries are what its own encoder makes of some."""
    import torch
    from transformers import MusicgenForConditionalGeneration

    model = MusicgenForConditionalGeneration.from_pretrained(folder)
    codec = model.audio_encoder
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        heard = torch.from_numpy(np.stack([tune(1.0, 1000 + i) for i in range(20)]))[:, None]
        rest = codec.encoder(heard).transpose(1, 2).flatten(0, 1)
        for layer in codec.quantizer.layers:
            book = layer.codebook.embed
            book.copy_(rest[torch.randperm(len(rest), generator=generator)[: len(book)]])
            rest = rest - book[torch.cdist(rest, book).argmin(dim=1)]
    model.save_pretrained(folder)
    return folder


def tune(seconds: float, seed: int = 0, level: float = 0.2) -> np.ndarray:
    """Return a made-up melody ``[samples]`` at 16 kHz that differs with its seed."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    pitch = 220 * 2 ** (rng.integers(0, 24, 1 + int(seconds * 4)) / 12)
    phase = np.cumsum(pitch[(time * 4).astype(int)]) * 2 * np.pi / RATE
    return (level * (np.sin(phase) + 0.3 * np.sin(3 * phase) + 0.1 * rng.standard_normal(len(time)))).astype(np.float32)


def recording(path: Path, seconds: float = 2.0, seed: int = 0, rate: int = RATE, channels: int = 1) -> Path:
    """Write a melody to an audio file in the format its name asks for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    audio = np.repeat(tune(seconds * rate / RATE, seed)[:, None], channels, axis=1)
    sf.write(path, audio, rate)
    return path


def container(
    path: Path, audio: np.ndarray, *, codec: str = "aac", layout: str | None = None, rate: int = RATE
) -> Path:
    """Write audio ``[samples]`` or ``[2, samples]`` through PyAV: M4A by default, ``layout="adts"`` for bare AAC."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    sound = np.atleast_2d(audio).astype(np.float32)
    with av.open(str(path), "w", format=layout) as file:
        stream = file.add_stream(codec, rate=rate, layout="mono" if len(sound) == 1 else "stereo")
        frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout=stream.layout.name)
        frame.sample_rate = rate
        resampler = av.AudioResampler(format=stream.codec_context.format, layout=stream.layout, rate=rate)
        for piece in [*resampler.resample(frame), None]:
            for packet in stream.encode(piece):
                file.mux(packet)
    return path


class Late:
    """An array that a worker's writer gets half a second late."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        time.sleep(0.5)
        return self.array


def described_late(path: Path, spec: object, **more: object) -> Iterator[tuple[dict, dict]]:
    """Do a worker's job, and have the answers wait while it goes on with the next recording."""
    from earwitness.signals.blind import described

    for values, arrays in described(path, spec, **more):
        yield values, {name: Late(array) for name, array in arrays.items()}


def die(path: Path, spec: object, **_: object) -> None:
    """Do a worker's job as a decoder does that a recording brings down."""
    os.abort()


SAMPLE = Path(__file__).parent / "sample" / "sample.csv"


def sample_audio(folder: Path) -> Path:
    """Write the recordings of the sample manifest: whole-number ramps, so that their bytes are the same everywhere."""
    import wave

    for number in range(6):
        path = folder / f"album-{number % 2}" / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        ramp = (np.arange(RATE * (2 + number)) * (number + 3) % 20_000 - 10_000).astype("<i2")
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", ""))
            file.writeframes(ramp.tobytes())
    return folder
