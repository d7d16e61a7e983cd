"""What bfloat16 changes: the features of an audit of 20 against 20 pocket recordings, in both types of number.

Prints a table, or writes ``benchmarks/dtype.csv`` (behind the page *What an audit costs*) with ``--write``. Per model
and feature: the largest and the median change of a recording's score and the mean signed change (what all share), in
standard deviations of that score over the recordings; Spearman's correlation of both; and the p-value and verdict of
the same audit on either. Signals are stored as ever, so a second run takes seconds.

Run: python benchmarks/bench_dtype.py [--write benchmarks/dtype.csv]
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import pandas as pd
from bench_audit import MODELS, tracks_of
from scipy.stats import spearmanr

from earwitness.audit.report import scores_bytes
from earwitness.audit.scoring import decide, scores_of
from earwitness.models import describe
from earwitness.stats.features import frozen_features
from earwitness.stats.units import unit_table
from earwitness.stats.verdict import ALPHA

TYPES = ("float32", "bfloat16")
SEED = 0


def compared(name: str, lot: str) -> pd.DataFrame:
    """Return one row per feature of an audit of a model."""
    means, said, kind = [], {}, ""
    for dtype in TYPES:
        info = describe(name, dtype=dtype)
        kind = info.kind
        _, scores = scores_of(name, info, tracks_of(lot))
        table = unit_table(scores, seed=SEED)
        means.append(table.columns(frozen_features(kind)))
        result, _ = decide(scores_bytes(scores), alpha=ALPHA, permutations=9999, seed=SEED, pairs=None)
        said |= {f"p_{dtype}": result.p_value, f"verdict_{dtype}": result.verdict}
    exact, rounded = means
    change = (rounded - exact) / exact.std(axis=0, ddof=1)
    moved = np.abs(change)
    same = [spearmanr(a, b, nan_policy="omit").statistic for a, b in zip(exact.T, rounded.T, strict=True)]
    columns = {"network": name, "recordings": len(exact), "feature": frozen_features(kind)}
    columns |= {
        "largest_sd": np.nanmax(moved, axis=0),
        "median_sd": np.nanmedian(moved, axis=0),
        "shared_sd": np.nanmean(change, axis=0),
        "rank_correlation": same,
    }
    return pd.DataFrame(columns | said)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", type=Path)
    asked = parser.parse_args()
    found = pd.concat([compared(name, lot) for name, lot in MODELS.items()])
    text = found.to_csv(index=False, float_format="%.4g")
    if asked.write:
        asked.write.write_text(text)
    else:
        os.write(1, text.encode())


if __name__ == "__main__":
    main()
