"""One artist against reference artists, when suspects and references differ by artist.

If all suspects are by one artist and the comparison tracks are by others, tracks are not exchangeable between the
sides; the artist is the unit. The suspect artist is ranked among K artists that the model cannot have seen, on the
mean of the pre-oriented sum over equally many tracks each. The p-value cannot fall below 1/(K + 1), however many
tracks there are: more tracks sharpen the score, never that floor.

Book page: *Dataset inference*.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from earwitness.errors import InputError
from earwitness.stats.prepare import Names, prepare


@dataclass(frozen=True)
class RankResult:
    """Rank of one artist among references.

    Attributes
    ----------
    artist : str
    p_value : float
        (1 + number of references at least as high) / (K + 1).
    floor : float
        1 / (K + 1): the smallest p-value that K references can give.
    n_references, n_tracks : int
        K, and tracks per artist.
    scores : dict of str to float
        Artist -> mean pre-oriented sum.
    excluded : dict of str to int
        Reason -> tracks or artists left out.
    note : str
        The limit of the design, in words.
    """

    artist: str
    p_value: float
    floor: float
    n_references: int
    n_tracks: int
    scores: dict[str, float]
    excluded: dict[str, int]
    note: str


def conformal_p(score: float, references: npt.ArrayLike) -> float:
    """(1 + number of references at least as high) / (K + 1); valid if score and references are exchangeable."""
    reference = np.asarray(references, dtype=np.float64)
    if np.isnan(reference).any() or np.isnan(score):
        raise InputError("a rank needs a score of the suspect and of every reference; got NaN")
    return float((1 + np.sum(reference >= score)) / (len(reference) + 1))


def rank_artist(scores: pd.DataFrame, features: Names | None = None, *, seed: int = 0) -> RankResult:
    """Rank the suspect artist among the held-out artists of a score table, on equally many tracks each, drawn by lot.

    These are as many as the suspect artist has, but no more than nine references in ten can deliver; artists with fewer
    are left out and counted.

    Parameters
    ----------
    scores : pandas.DataFrame
        Tidy score table; all suspect rows belong to one artist, held-out rows to K others.
    features : str or sequence of str, optional
        As in :func:`earwitness.stats.infer`.
    seed : int
        Fixes the segments and tracks drawn.

    Raises
    ------
    InputError
        More than one suspect artist, the suspect among the references, fewer than two references.
    """
    prepared = prepare(scores, "track_id", features, seed=seed, blind=[])
    total = prepared.features.mean(axis=1)
    suspects, others = set(prepared.artists[prepared.positive]), set(prepared.artists[~prepared.positive])
    if len(suspects) != 1:
        raise InputError(f"expected suspects by one artist, got {len(suspects)}: rank them one at a time")
    (artist,) = suspects
    if artist in others:
        raise InputError(
            f"artist {artist!r} is on both sides; references must be other artists (for held-out tracks of the same "
            "artist use infer)"
        )
    order = np.random.default_rng((seed, 3)).permutation(len(total))
    tracks = pd.Series(total[order]).groupby(prepared.artists[order], sort=True)
    available = tracks.size()
    t = min(int(available[artist]), int(np.quantile(available.drop(artist), 0.1, method="lower")))
    means = tracks.apply(lambda group: group.iloc[:t].mean())[available >= t]
    references = means.drop(artist)
    if len(references) < 2:
        raise InputError(
            f"expected 2 or more reference artists with {t} tracks each (99 for p = .01), got {len(references)}"
        )
    excluded = dict(prepared.excluded)
    if (available < t).any():
        excluded[f"reference artists with fewer than {t} tracks"] = int((available < t).sum())
    floor = 1 / (len(references) + 1)
    return RankResult(
        artist=str(artist),
        p_value=conformal_p(float(means[artist]), references),
        floor=floor,
        n_references=len(references),
        n_tracks=t,
        scores={str(name): float(value) for name, value in means.items()},
        excluded=excluded,
        note=f"with {len(references)} reference artists the p-value cannot be smaller than {floor:.4f}",
    )
