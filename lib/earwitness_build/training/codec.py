"""Train the pocket codec: a tiny EnCodec, on artists of the composer who are not in the corpus.

Both twins share it, so that it can know nothing of either's tracks. The encoder is a filter bank
(`earwitness_build.training.filterbank`); the residual codebooks are k-means centres of what reaches them; the decoder
learns to make sound from the codes. Explained on the book page *The pocket world*.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from earwitness.pocket import composer, render, style
from earwitness_build.training import filterbank

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import EncodecModel

OUTSIDE_SEED = 77  # another world: no artist, style or note of the corpus
FRAME_RATE = 50
HOP = render.SAMPLE_RATE // FRAME_RATE


@dataclass(frozen=True)
class CodecRecipe:
    """Everything that fixes the codec: data, size, and training of the decoder (``crop`` in frames)."""

    seed: int = 0
    n_artists: int = 40
    tracks_per_artist: int = 6
    filters: int = 18
    hidden: int = 24
    codebooks: int = 4
    entries: int = 128
    steps: int = 3000
    batch: int = 4
    crop: int = 20
    learning_rate: float = 2e-3


def outside_audio(recipe: CodecRecipe) -> np.ndarray:
    """Render tracks of artists who are not in the corpus, float32 ``[tracks, samples]``, at the level models hear."""
    from joblib import Parallel, delayed

    from earwitness.data.audio import LEVEL_DBFS, level_dbfs

    def artist_audio(artist: style.Style) -> list[np.ndarray]:
        pieces = [composer.compose(artist, n, OUTSIDE_SEED) for n in range(recipe.tracks_per_artist)]
        return [render.render(piece, artist) for piece in pieces]

    world = style.draw_world(OUTSIDE_SEED, tuple(f"Outsider {i}" for i in range(recipe.n_artists)))
    audio = np.array([t for tracks in Parallel(n_jobs=-1)(delayed(artist_audio)(a) for a in world) for t in tracks])
    audio -= audio.mean(axis=1, keepdims=True)
    gain = [10 ** ((LEVEL_DBFS - level_dbfs(track)) / 20) for track in audio]
    return np.asarray(audio * np.array(gain)[:, None], dtype=np.float32)


def build_codec(recipe: CodecRecipe) -> EncodecModel:
    """Return an untrained EnCodec of the recipe's size: 16 kHz, 50 frames a second, encoder already a filter bank."""
    import torch
    from transformers import EncodecConfig, EncodecModel

    torch.manual_seed(recipe.seed)
    kbps = recipe.codebooks * np.log2(recipe.entries) * FRAME_RATE / 1000
    config = EncodecConfig(
        target_bandwidths=[float(kbps)],
        sampling_rate=render.SAMPLE_RATE,
        audio_channels=1,
        num_filters=recipe.filters,
        hidden_size=recipe.hidden,
        codebook_size=recipe.entries,
        codebook_dim=recipe.hidden,
        upsampling_ratios=[1, 20, 16],
        num_lstm_layers=1,
        use_causal_conv=False,
        norm_type="weight_norm",
        normalize=False,
        chunk_length_s=None,
        overlap=None,
    )
    codec = EncodecModel(config)
    filterbank.set_filters(codec)
    return codec


def fit_codes(recipe: CodecRecipe, audio: np.ndarray) -> tuple[EncodecModel, Tensor]:
    """Build a codec whose encoder and codebooks are final, from ``audio`` ``[tracks, samples]``.

    Returns
    -------
    EncodecModel, Tensor
        The codec (its decoder untrained), and the quantised latents ``[tracks, hidden, frames]`` of the audio. Weights
        hold half-precision values, exactly as they will be loaded: codes must not change when a model is saved.
    """
    import torch

    codec = build_codec(recipe)
    levels = np.concatenate([filterbank.log_levels(codec, track[None, None]) for track in torch.from_numpy(audio)])
    centre = levels.mean(axis=0)
    axes = np.linalg.svd(np.cov((levels - centre).T))[2][: recipe.hidden]
    filterbank.set_axes(codec, axes, centre)
    latents = torch.from_numpy(((levels - centre) @ axes.T).astype(np.float32))
    _fit_codebooks(codec, latents.numpy(), recipe)
    heard = codec.quantizer.decode(codec.quantizer.encode(latents.T[None]))[0]
    return codec.eval(), heard.reshape(recipe.hidden, len(audio), -1).transpose(0, 1)


def _fit_codebooks(codec: EncodecModel, latents: np.ndarray, recipe: CodecRecipe) -> None:
    """Residual vector quantisation of ``[frames, hidden]``: each codebook is the k-means of what is left by then."""
    import torch
    from sklearn.cluster import MiniBatchKMeans

    residual = latents
    for layer in codec.quantizer.layers:
        means = MiniBatchKMeans(recipe.entries, n_init=1, max_iter=60, batch_size=4096, random_state=recipe.seed)
        centres = torch.from_numpy(means.fit(residual).cluster_centers_).half().float()
        layer.codebook.embed.copy_(centres)
        layer.codebook.embed_avg.copy_(centres)
        residual = residual - layer.codebook.decode(layer.codebook.encode(torch.from_numpy(residual))).numpy()


def train_decoder(recipe: CodecRecipe, codec: EncodecModel, heard: Tensor, audio: np.ndarray) -> None:
    """Teach the decoder to make ``audio`` ``[tracks, samples]`` of quantised latents ``[tracks, hidden, frames]``."""
    import torch

    wave = torch.tensor(audio)
    rng = np.random.default_rng([recipe.seed, 20])
    parameters = list(codec.decoder.parameters())
    optimiser = torch.optim.AdamW(parameters, recipe.learning_rate, betas=(0.8, 0.99), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.learning_rate, recipe.steps, pct_start=0.05)
    for _ in range(recipe.steps):
        cuts = [
            (int(rng.integers(len(wave))), int(rng.integers(heard.shape[2] - recipe.crop))) for _ in range(recipe.batch)
        ]
        latent = torch.stack([heard[t, :, f : f + recipe.crop] for t, f in cuts])
        wanted = torch.stack([wave[t, f * HOP : (f + recipe.crop) * HOP] for t, f in cuts])
        loss = spectral_distance(codec.decoder(latent)[:, 0], wanted)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 5.0)
        optimiser.step()
        schedule.step()


def spectral_distance(made: Tensor, wanted: Tensor) -> Tensor:
    """Distance of two waveforms ``[B, samples]``: logarithmic and linear magnitudes at three resolutions."""
    import torch

    total = torch.zeros(())
    for size in (256, 512, 1024):
        window = torch.hann_window(size)
        ours, theirs = (
            torch.stft(w, size, size // 4, window=window, return_complex=True).abs().clamp(min=0.05)
            for w in (made, wanted)
        )
        total = total + (ours.log() - theirs.log()).abs().mean() + (ours - theirs).norm() / theirs.norm()
    return total
