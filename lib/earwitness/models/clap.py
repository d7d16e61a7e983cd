"""CLAP: the joint embedding of text and audio that conditions AudioLDM, MusicLDM and (partly) AudioLDM 2.

AudioLDM was trained on the embedding of the audio itself, and generates from that of a text. For an attack on training
data the audio's own embedding is therefore the faithful condition, the text's the one that a stranger would try: both
are offered where the checkpoint has CLAP's audio half.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from earwitness.errors import ModelError
from earwitness.models.latent_diffusion import normalise

if TYPE_CHECKING:
    from torch import Tensor


def pooled(features: Any) -> Tensor:
    """Return an embedding from what transformers 5 wraps in an output object."""
    found: Tensor = getattr(features, "pooler_output", features)
    return found


def text_embedding(clap: Any, tokenizer: Any, caption: str) -> Tensor:
    """Embed one caption with a full ClapModel or its text half: float ``[D]`` of length 1."""
    import torch

    text = tokenizer(
        [caption], padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    )
    ids, mask = text["input_ids"].to(clap.device), text["attention_mask"].to(clap.device)
    if hasattr(clap, "get_text_features"):
        embedding = pooled(clap.get_text_features(ids, attention_mask=mask))
    else:
        embedding = clap(ids, attention_mask=mask).text_embeds
    return torch.nn.functional.normalize(embedding[0].float(), dim=-1)


def audio_embedding(clap: Any, extractor: Any, audio: Tensor, sample_rate: int) -> Tensor:
    """Embed audio ``[B, samples]`` as AudioLDM's training does; what comes back is ``[B, D]``, of length 1.

    The mean is removed and the peak brought to 0.5, for CLAP's front end keeps the level; then 48 kHz, cut to 10 s or
    repeated. The library draws a random crop of longer audio; it is cut here so that nothing is random.
    """
    import torch
    from torchaudio.functional import resample

    level = normalise(audio.float().cpu())
    heard = resample(level, sample_rate, extractor.sampling_rate)[:, : extractor.nb_max_samples]
    rows = [
        extractor(row.numpy(), sampling_rate=extractor.sampling_rate, return_tensors="pt", truncation="rand_trunc")
        for row in heard
    ]
    features = torch.cat([row["input_features"] for row in rows]).to(clap.device, clap.dtype)
    longer = torch.zeros(len(rows), 1, dtype=torch.bool, device=clap.device)
    if clap.config.audio_config.enable_fusion and features.shape[1] == 1:
        features = features.expand(-1, 4, -1, -1)
    embedding = pooled(clap.get_audio_features(input_features=features, is_longer=longer))
    return torch.nn.functional.normalize(embedding.float(), dim=-1)


def check_same_text_half(clap: Any, text_half: Any, where: str) -> None:
    """Refuse a full CLAP whose text projection is not the pipeline's: its audio half lives in another space."""
    import torch

    ours, theirs = text_half.text_projection.state_dict(), clap.text_projection.state_dict()
    same = ours.keys() == theirs.keys() and all(
        ours[name].shape == theirs[name].shape and torch.allclose(ours[name].float(), theirs[name].float(), atol=1e-3)
        for name in ours
    )
    if not same:
        raise ModelError(
            f"{where}: this CLAP's text projection differs from the pipeline's text_encoder, so its audio embeddings "
            "mean something else; put the CLAP that the model was trained with there, or remove the folder"
        )
