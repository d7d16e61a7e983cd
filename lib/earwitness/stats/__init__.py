"""Dataset inference: the statistics on which an accusation may rest. Pure functions of a score table or of arrays.

May import ``errors``, ``util`` and ``types``, and no other room: a statistic sees no model, no signal and no recording.

In the order of an inference: ``units``, ``score_file`` and ``prepare`` (a table to units x features), ``features`` (the
frozen list), ``permutation_test`` (the primary test), ``blind_gate`` (features that never touch the model), ``metrics``
(effects and intervals), ``power``, ``sequential`` (e-values), ``verdict`` (the rule and its constants),
``dataset_inference`` (all of it). Beside it: ``multiple_testing`` (many questions), ``artist_rank`` (an artist among
artists), ``null_audits`` (how often the rule errs), ``peers`` (published recipes), ``imbalances`` (in what
two sides differ).

Names that matter: ``infer`` and ``compare`` (on the public face), ``InferenceResult``, ``ALPHA`` and ``RULE``.
"""

from __future__ import annotations

from earwitness.util import lazily

__getattr__, __dir__ = lazily(
    __name__,
    {
        "ALPHA": "verdict",
        "CAVEATS": "peers",
        "InferenceResult": "dataset_inference",
        "PEERS": "peers",
        "RULE": "verdict",
        "SEGMENTS_AS_UNITS": "null_audits",
        "compare": "metrics",
        "expected_savings": "sequential",
        "frozen_features": "features",
        "infer": "dataset_inference",
        "inference_as_coded": "peers",
        "level_table": "null_audits",
        "measured_savings": "sequential",
        "needed_table": "power",
        "pairs_to_decide": "sequential",
        "rate": "metrics",
        "shift_curve": "null_audits",
        "smallest_gate_shift": "null_audits",
        "strata_of": "permutation_test",
        "units_needed": "power",
        "write_scores": "score_file",
    },
)
