"""Dataset inference: the statistics on which an accusation may rest. Pure functions of a score table or of arrays.

Rooms: ``procedure`` (the whole audit), ``inputs`` (tables to arrays), ``features`` (the frozen list), ``primary`` (the
test), ``gate`` (blind features), ``verdict`` (the rule and its constants), ``result``; ``reference`` (an artist among
artists), ``sequential`` (e-values), ``multiplicity`` (many questions), ``power``; ``calibration`` (null audits),
``shift`` (sides that differ in kind), ``peers`` (published recipes), ``comparison`` (power at equal level) and
``worth`` (what each group of features is worth).
"""

from earwitness.stats.dataset_inference import InferenceResult, infer

__all__ = ["InferenceResult", "infer"]
