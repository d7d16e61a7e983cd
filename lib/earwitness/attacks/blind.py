"""Blind baselines: attacks that never saw the model, one per feature of the recording.

A blind feature that separates members from non-members shows that the two sets differ in themselves, so they stand in
every table beside the real attacks. Their sign is a convention: larger values score higher, and none is claimed to be
member-like. See the book page *Methods: the blind gate*.
"""

from __future__ import annotations

from math import nan

from earwitness.attacks.registry import attack
from earwitness.signals.blind import BlindSignals


@attack(
    "blind",
    formula=r"x_f",
    source="blind baselines: Das et al., arXiv 2406.16201; features after FiMMIA",
    access="none",
    sign="none",
)
def blind(signals: BlindSignals, *, stream: str) -> float:
    """One feature of the audio, of the notes, or of the manifest row, as it is."""
    return signals.features.get(stream, nan)
