"""What single pages compute.

``pools`` (null audits dealt from a page's own scores), ``power_comparison`` (recipes at equal level),
``feature_groups`` (what each group of features is worth), ``ablation`` (streams, codebooks, attacks), ``paper`` (the
tables of arXiv 2512.09654 as its authors' code makes them, with levels and defects), ``extraction`` (continuations
of prompts), ``fingerprint_recall`` (planted copies).
"""

from __future__ import annotations

from earwitness.util import lazily

__getattr__, __dir__ = lazily(
    __name__,
    {
        "CLUSTERED": "pools",
        "CONTROL_SCENARIOS": "pools",
        "OURS": "power_comparison",
        "PEER_SCENARIOS": "pools",
        "RECIPES": "power_comparison",
        "SCENARIOS": "pools",
        "against_inputs": "paper",
        "audit_p_values": "power_comparison",
        "audit_scenarios": "pools",
        "candidates": "extraction",
        "causes": "pools",
        "continuations": "extraction",
        "defects": "paper",
        "difference": "extraction",
        "group_worth": "feature_groups",
        "lengthened": "pools",
        "membership": "paper",
        "needed": "paper",
        "padded_loss": "paper",
        "pool": "pools",
        "power_at_equal_level": "power_comparison",
        "repeats": "extraction",
        "share_found": "power_comparison",
        "sides": "paper",
        "smallest": "paper",
        "tracks_needed": "power_comparison",
        "windows_as_items": "paper",
        "with_times": "extraction",
    },
)
