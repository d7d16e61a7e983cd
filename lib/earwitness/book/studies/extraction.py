"""Extraction of memorised recordings: candidates, their continuation by the model itself, and the difference to others.

A prompt alone makes two sounds alike, so a likeness says nothing by itself: what is reported is the difference between
members and non-members that were chosen *together*, without looking at labels. Source of the procedure: the third
experiment in the code of arXiv 2512.09654, which draws no non-members.

Book page: *Extraction*.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from earwitness.errors import InputError
from earwitness.models.files import locate
from earwitness.signals import generation
from earwitness.types import POSITIVE_ROLES, FloatArray

CODED_RANK, CODED_LAST = 1, 99  # what FIGARO's candidates are chosen by in the code
MELS = 40


def candidates(signals: Any, most: int) -> pd.DataFrame:
    """Return the recordings whose tokens the model guesses best, members and non-members together, one segment each.

    Parameters
    ----------
    signals : Signals
        Of a token model.
    most : int
        How many; chosen without looking at roles.

    Returns
    -------
    pandas.DataFrame
        ``track_id, role, artist, caption, segment_id``; ``share``: of tokens that are the best guess; ``share_coded``:
        the second best guess over the last 99 positions, as FIGARO's code has it; ``codes``: the segment's own.
    """
    rows = []
    for row, signal in signals.items("token"):
        share = generation.top_share(signal)
        coded = generation.top_share(signal, rank=CODED_RANK, last=CODED_LAST)
        rows.append({**row, "share": share, "share_coded": coded, "codes": signal.codes})
    table = pd.DataFrame(rows).sort_values(["share", "segment_id"], ascending=[False, True])
    kept = ["track_id", "role", "artist", "caption", "segment_id", "share", "share_coded", "codes"]
    return table.drop_duplicates("track_id").head(most)[kept].reset_index(drop=True)


def repeats(model: str) -> dict[str, int]:
    """Return how many times recordings stand in a pocket model's training set, where more than once."""
    record = locate(model) / "training.json"
    found: dict[str, int] = json.loads(record.read_text()).get("repeats", {}) if record.is_file() else {}
    return found


def with_times(table: pd.DataFrame, times: Mapping[str, int]) -> pd.DataFrame:
    """Return a table of recordings with a column ``times``: how often each stands in the training set."""
    once = table["role"].isin(POSITIVE_ROLES).astype(int)
    return table.assign(times=table["track_id"].map(times).fillna(once).astype(int))


def listener(folder: str | Path) -> Callable[[FloatArray, int], FloatArray]:
    """Return what a CLAP in a folder hears: sounds ``[B, samples]`` and their rate (Hz) to embeddings ``[B, D]``.

    Raises
    ------
    InputError
        A folder that holds no CLAP as transformers saves it.
    """
    import torch
    from transformers import AutoFeatureExtractor, ClapModel

    from earwitness.models.clap import audio_embedding

    try:
        clap = ClapModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()
        extractor = AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: expected a CLAP as transformers saves it ({str(error).splitlines()[0]})") from None

    def heard(sounds: FloatArray, sample_rate: int) -> FloatArray:
        with torch.inference_mode():
            return audio_embedding(clap, extractor, torch.from_numpy(sounds), sample_rate).cpu().numpy()

    return heard


def continuations(
    model: Any, chosen: pd.DataFrame, prompts: Sequence[int], *, clap: str | Path = "", seed: int = 0
) -> pd.DataFrame:
    """Let a model that hears sound continue each candidate from its first frames, and compare with the original.

    Returns
    -------
    pandas.DataFrame
        One row per candidate and prompt (frames): what ``chosen`` says but its codes, ``prompt``, ``frames``;
        ``equal`` (share of equal codes after the prompt), ``equal_coded`` (as the code counts), and cosines of what
        follows the prompt, means removed: ``mel`` (log-mel spectra of the decoded sounds), ``latent`` (the codec's
        latents) and, where ``clap`` names a folder that holds one, ``clap`` (embeddings of the whole sounds);
        ``original``, ``made``.
    """
    import torch

    codes = torch.from_numpy(np.stack(chosen["codes"].to_list())).long().to(model.info.device)
    hear, rate, told = listener(clap) if clap else None, model.info.sample_rate, chosen.drop(columns="codes")

    def played(these: Any) -> FloatArray:
        """Decode one after the other: a codec's layers over many at once do not fit a processor's caches."""
        return np.concatenate([model.decode(these[i : i + 1])[:, 0].numpy() for i in range(len(these))])

    rows, originals = [], played(codes)
    for prompt in prompts:
        made, _ = generation.continued(model, codes, prompt, chosen["caption"].to_list(), seed=seed)
        both = codes, made
        sounds = originals, played(made)
        inner = [generation.latents(model, x)[..., prompt:] for x in both]
        heard = [hear(x, rate) for x in sounds] if hear else None
        start = round(originals.shape[-1] * prompt / codes.shape[-1])
        for i, row in enumerate(told.to_dict("records")):
            own, other = (x[i].cpu().numpy() for x in both)
            found = {
                **{"prompt": prompt, "frames": codes.shape[-1]},
                "equal": generation.equal_tokens(own, other, prompt),
                "equal_coded": generation.equal_tokens(own, other, as_coded=True),
                "mel": cosine(*(log_mel(sound[i, start:], rate) for sound in sounds)),
                "latent": cosine(*(x[i] for x in inner)),
            }
            if heard:
                found["clap"] = float(heard[0][i] @ heard[1][i])
            rows.append(row | {**found, "original": originals[i], "made": sounds[1][i]})
    return pd.DataFrame(rows)


def log_mel(sound: FloatArray, sample_rate: int) -> FloatArray:
    """Return the logarithm of a sound's power in bands of equal width in mel, [bands, frames]."""
    from scipy.signal import stft

    hertz, _, values = stft(sound, sample_rate, nperseg=min(512, len(sound)))
    mel = 2595 * np.log10(1 + hertz / 700)
    band = np.minimum((mel / mel[-1] * MELS).astype(int), MELS - 1)
    power = np.abs(values) ** 2
    return np.log(np.stack([power[band == b].sum(axis=0) for b in np.unique(band)]) + 1e-8)


def cosine(one: FloatArray, other: FloatArray) -> float:
    """Return the cosine of two arrays after their means are removed; NaN where one of them is constant."""
    a, b = (x.ravel() - x.mean() for x in (one, other))
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if size > 0 else float("nan")


def difference(
    table: pd.DataFrame, measures: Sequence[str], *, n_permutations: int = 9999, seed: int = 0
) -> pd.DataFrame:
    """Return how much more alike continuations of members are than those of non-members, per prompt and measure.

    Returns
    -------
    pandas.DataFrame
        ``prompt, measure, n_member, n_nonmember, member, nonmember, difference`` (of the means) and ``p``: the share of
        relabellings of tracks with a difference as large, one-sided, the observed labelling counted.

    Raises
    ------
    InputError
        Candidates of one side only: there is nothing to compare them with.
    """
    rng, rows = np.random.default_rng((seed, 19)), []
    for prompt, part in table.groupby("prompt", sort=False):
        member = part["role"].isin(POSITIVE_ROLES).to_numpy()
        if member.all() or not member.any():
            raise InputError(f"all {len(part)} candidates are of one side; choose more of them")
        lots = np.stack([member, *(rng.permutation(member) for _ in range(n_permutations))])
        for measure in measures:
            values = part[measure].to_numpy(float)
            apart = lots @ values / member.sum() - ~lots @ values / (~member).sum()
            row = {
                "prompt": prompt,
                "measure": measure,
                "n_member": int(member.sum()),
                "n_nonmember": int((~member).sum()),
            }
            means = {"member": values[member].mean(), "nonmember": values[~member].mean(), "difference": apart[0]}
            rows.append(row | means | {"p": float(np.mean(apart >= apart[0] - 1e-12))})
    return pd.DataFrame(rows)
