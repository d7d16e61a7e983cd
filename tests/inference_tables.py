"""Synthetic score tables for the tests of metrics and inference."""

from __future__ import annotations

import numpy as np
import pandas as pd


def score_table(
    n_suspect=20,
    n_held_out=20,
    *,
    shift=0.0,
    blind_shift=0.0,
    attacks=4,
    blind=3,
    segments=2,
    artists=4,
    takes=False,
    seed=0,
    roles=("suspect", "held_out"),
):
    """One row per segment and attack; track effects make segments of a track correlated.

    With ``takes``, each held-out track is a take of the work of a suspect one.
    """
    rng = np.random.default_rng(seed)
    n = n_suspect + n_held_out
    counts = np.broadcast_to(segments, n)
    track = np.repeat(np.arange(n), counts)
    positive = np.arange(n) < n_suspect
    names = [f"x{j}" for j in range(attacks)] + [f"blind/{j}" for j in range(blind)]
    effect = rng.normal(size=(n, len(names))) + rng.normal(size=(n, 1)) * (np.arange(len(names)) < attacks)
    effect[positive, :attacks] += shift
    effect[positive, attacks:] += blind_shift
    values = effect[track] + 0.5 * rng.normal(size=(len(track), len(names)))
    base = pd.DataFrame(
        {
            "track_id": [f"t{i:04d}" for i in track],
            "segment_id": [f"s{k:05d}" for k in range(len(track))],
            "artist": [f"artist {i % artists}" for i in track],
            "work": [f"w{i if i < n_suspect or not takes else i - n_suspect:04d}" for i in track],
            "role": np.where(positive[track], *roles),
        }
    )
    frames = [base.assign(attack=name, score=values[:, j]) for j, name in enumerate(names)]
    return pd.concat(frames, ignore_index=True)
