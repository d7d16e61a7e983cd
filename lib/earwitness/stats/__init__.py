"""The statistics on which an accusation may rest: pure functions of score tables or arrays.

``dataset_inference`` is the whole audit: ``prepare`` (tables to arrays), ``features`` (the frozen list),
``permutation_test`` (the primary test), ``blind_gate`` (features that never touch the model) and ``verdict`` (the rule
and its constants). Beside it: ``units`` and ``metrics``; ``artist_rank`` (an artist among artists), ``sequential``
(e-values), ``multiple_testing`` (many questions), ``power``; ``null_audits`` (how often the rule errs, without a
difference and with one) and ``peers`` (published recipes). It imports neither models nor signals nor data.
"""

from earwitness.stats.dataset_inference import InferenceResult, infer

__all__ = ["InferenceResult", "infer"]
