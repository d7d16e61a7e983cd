"""In what two sides of an audit differ, in words: each property compared on its own, as a warning and not a verdict.

The book page *Where honest held-out recordings come from* says what to do about one.
"""

from __future__ import annotations

import pandas as pd

from earwitness.stats.metrics import exact_p, rank_sum_p
from earwitness.types import ROLE_NAMES

LEVEL = 0.05  # of each comparison: a warning, not a verdict, so none is corrected for the others
NUMBERS = {
    "duration_s": ("length", "{:.1f} s"),
    "notes": ("number of notes", "{:.0f}"),
    "level_dbfs": ("loudness", "{:.1f} dBFS"),
    "bandwidth_hz": ("bandwidth", "{:.0f} Hz"),
    "year": ("release date", "{:.1f}"),
}
KINDS = {"format": "format", "codec": "codec", "sample_rate": "sample rate (Hz)", "channels": "channels"}


def sentences(files: pd.DataFrame) -> tuple[str, ...]:
    """Name every property in which the roles of usable files differ, with both values.

    Parameters
    ----------
    files : pandas.DataFrame
        Columns ``role`` and those of ``NUMBERS`` and ``KINDS``; rows of usable recordings.

    Returns
    -------
    tuple of str
        Empty if there are not two roles, or nothing differs (Mann-Whitney for numbers, Fisher's exact test for
        each kind, times the number of kinds).
    """
    roles = [role for role in ROLE_NAMES if (files["role"] == role).any()]
    if len(roles) != 2:
        return ()
    sides = [files[files["role"] == role] for role in roles]
    names = [ROLE_NAMES[role] for role in roles]
    found = []
    for column, (title, unit) in NUMBERS.items():
        if column not in files:
            continue
        a, b = (pd.to_numeric(side[column], errors="coerce").dropna() for side in sides)
        if column == "year" and bool(len(a)) != bool(len(b)):
            found.append(f"release date: known for {names[0] if len(a) else names[1]} only")
        if len(a) and len(b) and rank_sum_p(a.to_numpy(), b.to_numpy()) <= LEVEL:
            values = (unit.format(side.median()) for side in (a, b))
            found.append(f"{title}: median " + ", ".join(f"{v} ({n})" for v, n in zip(values, names, strict=True)))
    for column, title in KINDS.items():
        counts = [side[column].astype(str).value_counts() for side in sides]
        kinds = sorted(set(counts[0].index) | set(counts[1].index))
        p_values = [exact_p(*((int(c.get(kind, 0)), int(c.sum())) for c in counts)) for kind in kinds]
        if len(kinds) > 1 and min(p_values) * len(kinds) <= LEVEL:
            found.append(
                f"{title}: "
                + "; ".join(
                    f"{name} " + ", ".join(f"{kind} {c[kind]}" for kind in kinds if kind in c)
                    for name, c in zip(names, counts, strict=True)
                )
            )
    return tuple(found)


def years(released: pd.Series) -> pd.Series:
    """Return release dates (``2024``, ``2024-05``, ``2024-05-17``) as years with a fraction; NaN where unreadable."""
    parts = released.astype(str).str.extract(r"^\s*(\d{4})(?:-(\d{1,2}))?(?:-(\d{1,2}))?").astype(float)
    return parts[0] + (parts[1].fillna(7) - 1) / 12 + (parts[2].fillna(15) - 1) / 365
