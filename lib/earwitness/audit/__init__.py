"""The artist audit: from two folders of recordings, or a manifest, to a report folder.

In the order of an audit: ``request`` (what was asked), ``intake`` (what was given), ``plan`` (what is fixed before
scoring, and the count of runs), ``pretest`` (what can be said before a model is run), ``cost``, ``run`` (all of it in
order), ``scoring`` (models to results), ``checks`` (the procedure on this material), ``report`` and ``html`` (what is
written), ``verify`` (whether a report agrees with itself). It may import every room below it; only ``book`` and the
command line import it.
"""

from earwitness.audit.request import Request, gather_tracks
from earwitness.audit.run import freeze, run

__all__ = ["Request", "freeze", "gather_tracks", "run"]
