"""What the statistics cost, how often they accuse wrongly, and how much they see, on synthetic scores.

Prints one JSON object:

- ``speed``: processor seconds for 9,999 relabellings with refit at 200 v 200 units x 40 features; for CDI's 1,000-draw
  procedure on the same table as published (scikit-learn, one fit per fold and draw) and batched; ratios; peak memory.
- ``aggregate``: processor seconds to turn a score table of a million segments into units.
- ``level``: rates of rejection on null audits, with a family-wise 99.9 % band, peers included.
- ``shift``: shares of verdicts when the sides differ in a latent property that the model sees better than the blind
  features do, and nothing was trained on.
- ``power``: share detected at the AUC that the closed form calls detectable with 80 % power; and the primary test
  beside its two halves and the peers (at nominal level) for an even, a sparse and a partly wrong-signed effect.

Run: OMP_NUM_THREADS=1 PYTHONPATH=. python benchmarks/bench_inference.py [--draws 1000] [--audits 2000]
[--only speed level]
"""

import argparse
import json
import platform
import time
import tracemalloc
from itertools import product

import numpy as np
import pandas as pd
from scipy.stats import ttest_ind
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold
from sklearn.preprocessing import StandardScaler
from tests.inference_tables import simulated_power

from earwitness.stats.null_audits import Pool, Scenario, level_table, null_audits, shift_curve
from earwitness.stats.peers import PEERS, cdi, mean_p
from earwitness.stats.permutation_test import primary_test, rank_standardise
from earwitness.stats.power import smallest_detectable_auc
from earwitness.stats.units import unit_table

UNITS, FEATURES = 200, 40
TESTS = ("primary", "gate", "residual", "paired", "difference", "verdict")
SCENARIOS = (
    Scenario("20 v 20", 20, 20, tests=(*TESTS, *PEERS)),
    Scenario("100 v 100", 100, 100, tests=("primary", *PEERS)),
    Scenario("30 v 10", 30, 10, tests=TESTS),
    Scenario("8 v 8", 8, 8, tests=TESTS),
    Scenario("one artist, 15 v 15", 15, 15, one_artist=True, tests=TESTS),
    Scenario("heavy tails, 50 v 50", 50, 50, heavy_tails=True, tests=("primary", *PEERS)),
)


def correlated(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Features with correlation .5 and unit variance."""
    return np.sqrt(0.5) * (rng.normal(size=shape) + rng.normal(size=(*shape[:-1], 1)))


def cdi_as_published(suspect: np.ndarray, held_out: np.ndarray, draws: int, size: int) -> float:
    """Mean p over draws, one scikit-learn fit per fold, as in the recipe's own code."""
    rng, p_values = np.random.default_rng(0), []
    for _ in range(draws):
        index = rng.permutation(len(suspect))[:size]
        s, h = suspect[index], held_out[index]
        scores_s, scores_h = np.empty(size), np.empty(size)
        for train, test in KFold(5, shuffle=True, random_state=0).split(index):
            scaler = StandardScaler().fit(np.vstack((s[train], h[train])))
            model = LogisticRegression(solver="liblinear", max_iter=1000)
            label = np.repeat((1, 0), len(train))
            model.fit(scaler.transform(np.vstack((s[train], h[train]))), label)
            scores_s[test] = model.predict_proba(scaler.transform(s[test]))[:, 1]
            scores_h[test] = model.predict_proba(scaler.transform(h[test]))[:, 1]
        p_values.append(ttest_ind(scores_s, scores_h, equal_var=False).pvalue)
    return float(np.mean(p_values))


def timed(function, repeats: int = 1) -> float:
    """Smallest of ``repeats`` processor seconds (other work on the machine does not count)."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        seconds.append(time.process_time() - start)
    return min(seconds)


def speed(draws: int) -> dict:
    raw = correlated(np.random.default_rng(0), 2 * UNITS, FEATURES)
    positive = np.arange(2 * UNITS) < UNITS
    s, h = raw[positive], raw[~positive]

    def ours() -> None:
        primary_test(rank_standardise(raw), positive, n_permutations=9999)

    seconds = timed(ours, 5)
    tracemalloc.start()
    ours()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    published = timed(lambda: cdi_as_published(s, h, draws, UNITS)) * 1000 / draws
    batched = timed(lambda: mean_p(cdi, s, h, size=UNITS, n_draws=draws, batch=20)) * 1000 / draws
    return {
        "permutations_with_refit_s": round(seconds, 3),
        "peak_memory_mb": round(peak / 2**20),
        "cdi_1000_draws_as_published_s": round(published, 1),
        "cdi_1000_draws_batched_s": round(batched, 1),
        "ratio_to_published": round(published / seconds),
        "ratio_to_batched": round(batched / seconds),
        "draws_timed": draws,
    }


def aggregate(segments: int = 1_000_000, attacks: int = 4) -> dict:
    rng = np.random.default_rng(1)
    track = np.arange(segments) // 10
    base = pd.DataFrame(
        {
            "track_id": np.char.add("track-", track.astype(str)),
            "segment_id": np.char.add("segment-", np.arange(segments).astype(str)),
            "artist": np.char.add("artist-", (track // 100).astype(str)),
            "work": np.char.add("work-", track.astype(str)),
            "role": np.where(track % 2, "suspect", "held_out"),
        }
    )
    parts = [base.assign(attack=f"x{j}", score=rng.normal(size=segments)) for j in range(attacks)]
    table = pd.concat(parts, ignore_index=True)
    return {"segments": segments, "rows": len(table), "s": round(timed(lambda: unit_table(table)), 2)}


def synthetic_pool(n: int = 2000, features: int = 20, blind: int = 20) -> Pool:
    rng = np.random.default_rng(2)
    attacks = correlated(rng, n, features)
    artists = np.array([f"artist {i % 12}" for i in range(n)], dtype=object)
    return Pool(attacks, correlated(rng, n, blind), artists, control=attacks + correlated(rng, n, features))


def level(audits: int) -> list[dict]:
    pool = synthetic_pool()
    return level_table({s.name: null_audits(pool, s, n_audits=audits) for s in SCENARIOS}).round(4).to_dict("records")


def shift(audits: int) -> list[dict]:
    rows = []
    for seen, units in product((0.3, 0.5), (30, 100)):
        rng = np.random.default_rng(3)
        latent = rng.normal(size=4000)
        blind = seen * latent[:, None] + np.sqrt(1 - seen**2) * rng.normal(size=(4000, 20))
        attacks = 0.8 * latent[:, None] + 0.6 * (0.8 * rng.normal(size=(4000, 1)) + 0.6 * rng.normal(size=(4000, 12)))
        pool = Pool(attacks, blind, np.full(4000, "a", dtype=object))
        doses = (0.0, 0.25, 0.5, 1.0, 1.5)
        curve = shift_curve(pool, latent, doses, n_suspect=units, n_held_out=units, n_audits=audits)
        rows += curve.round(4).assign(blind_sees=seen, units=units).to_dict("records")
    return rows


EFFECTS = {
    "even": np.full(20, 0.35),
    "sparse": np.r_[np.full(3, 0.5), np.zeros(17)],
    "wrong": np.r_[np.full(14, 0.2), np.full(6, -0.2)],
}


def power(audits: int) -> dict:
    values = synthetic_pool().attacks
    confirmed = {
        f"{n} v {n}": {
            "closed_form_auc": round(auc := smallest_detectable_auc(n, n), 3),
            "simulated_power": simulated_power(values, auc, n, n, n_audits=audits, n_permutations=999),
        }
        for n in (9, 20, 60)
    }
    effects = {}
    for name, effect in EFFECTS.items():
        rng = np.random.default_rng(4)
        raw = correlated(rng, audits, 120, 20)
        raw[:, :60] += effect
        positive, found = np.arange(120) < 60, {}
        parts = [rank_standardise(raw[i : i + 50]) for i in range(0, audits, 50)]
        both = [primary_test(part, positive, n_permutations=999, seed=i) for i, part in enumerate(parts)]
        learned = [
            primary_test(part, positive, oriented=False, n_permutations=999, seed=i) for i, part in enumerate(parts)
        ]
        p_values = {
            "primary": np.concatenate([o.p_value for o in both]),
            "sum alone": np.concatenate([o.p_direction for o in both]),
            "learned alone": np.concatenate([o.p_value for o in learned]),
        } | {peer: recipe(raw[:, :60], raw[:, 60:]) for peer, recipe in PEERS.items()}
        for test, p in p_values.items():
            found[test] = {"at .05": float((p <= 0.05).mean()), "at .01": float((p <= 0.01).mean())}
        effects[name] = found
    return {"closed_form": confirmed, "60 v 60, 20 features": effects}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000, help="CDI draws timed")
    parser.add_argument(
        "--audits", type=int, default=2000, help="null audits per scenario; a quarter for shift and power"
    )
    parser.add_argument("--only", nargs="+", choices=["speed", "aggregate", "level", "shift", "power"])
    options = parser.parse_args()
    few = max(options.audits // 4, 50)
    parts = {
        "speed": lambda: speed(options.draws),
        "aggregate": aggregate,
        "level": lambda: level(options.audits),
        "shift": lambda: shift(few),
        "power": lambda: power(few),
    }
    result: dict = {"machine": platform.platform(), "python": platform.python_version(), "numpy": np.__version__}
    for name in options.only or parts:
        start = time.perf_counter()
        result[name] = parts[name]()
        result[f"{name}_took_s"] = round(time.perf_counter() - start, 1)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
