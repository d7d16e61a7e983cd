"""What single pages compute.

``pools`` (null audits dealt from a page's own scores), ``power_comparison`` (recipes at equal level),
``feature_groups`` (what each group of features is worth), ``ablation`` (streams, codebooks, attacks),
``fingerprint_recall`` (planted copies).
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
        "audit_p_values": "power_comparison",
        "audit_scenarios": "pools",
        "causes": "pools",
        "group_worth": "feature_groups",
        "lengthened": "pools",
        "pool": "pools",
        "power_at_equal_level": "power_comparison",
        "tracks_needed": "power_comparison",
    },
)
