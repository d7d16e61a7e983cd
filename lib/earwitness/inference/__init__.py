"""Dataset inference: the statistics on which an accusation may rest. Pure functions of a score table or of arrays.

Rooms: ``procedure`` (the whole audit), ``primary`` (the test), ``gate`` (blind features), ``verdict`` (the rule and its
constants), ``features`` (the frozen list), ``result``; ``reference`` (artist against artists), ``sequential``
(e-values), ``multiplicity`` (many questions), ``power``, ``calibration`` (null audits), ``peers`` (published recipes,
for comparison).
"""

from earwitness.inference.procedure import infer
from earwitness.inference.result import InferenceResult

__all__ = ["InferenceResult", "infer"]
