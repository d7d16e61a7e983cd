"""Synthetic score tables for the tests of metrics and inference."""

from __future__ import annotations

import numpy as np
import pandas as pd

from earwitness.stats.permutation_test import primary_test, rank_standardise
from earwitness.stats.power import auc_to_d
from earwitness.stats.verdict import ALPHA


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


def simulated_power(values, auc, n_suspect, n_held_out, *, n_audits, n_permutations, artists=1, paired=False):
    """Share of audits in which the primary test rejects when an AUC is planted in real scores of units of one kind.

    ``values`` [n, p] are raw unit scores, for example of non-members, from which each audit draws its units. ``auc`` is
    that of the pre-oriented sum, planted as a shift common to all features. The units of each side are dealt to
    ``artists`` in turn; ``paired`` matches each suspect with one held-out unit.
    """
    n = n_suspect + n_held_out
    positive = np.arange(n) < n_suspect
    strata = np.concatenate((np.arange(n_suspect), np.arange(n_held_out))) % artists if artists > 1 else None
    pairs = np.arange(n_suspect)[:, None] + np.array([0, n_suspect]) if paired else None
    scores = rank_standardise(values)
    shift = float(auc_to_d(auc)) * float(scores.mean(axis=1).std())
    rng = np.random.default_rng((0, 7))
    p_values = []
    for start in range(0, n_audits, 50):
        drawn = np.stack([rng.permutation(len(values))[:n] for _ in range(min(50, n_audits - start))])
        each = None if strata is None else np.broadcast_to(strata, drawn.shape)
        planted = rank_standardise(scores[drawn] + shift * positive[:, None], each)
        child = int(rng.integers(2**31))
        outcome = primary_test(planted, positive, pairs=pairs, strata=strata, n_permutations=n_permutations, seed=child)
        p_values.append(outcome.p_value)
    return float((np.concatenate(p_values) <= ALPHA).mean())
