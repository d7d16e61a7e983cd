"""The artist audit: from two folders of recordings, or a manifest, to a report folder.

Rooms: ``request`` (what was asked), ``frozen`` (the plan fixed before scoring, and the count of runs), ``testable``
(what can be said before a model is run), ``scoring`` (models to results), ``heard`` (pictures of single recordings),
``run`` (all of it in order). What is written is the business of ``earwitness.report``.
"""

from earwitness.audit.request import Request, gather_tracks
from earwitness.audit.run import freeze, run

__all__ = ["Request", "freeze", "gather_tracks", "run"]
