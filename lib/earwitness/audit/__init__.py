"""The audit: ``ew.audit(suspects=…, held_out=…, model=…, out=…)`` writes a report that answers in three words.

May import every room before it: ``pocket``, ``symbolic``, ``data``, ``models``, ``signals``, ``attacks``, ``stats``,
``figures``.

In the order of an audit: ``request`` (what is asked), ``intake`` (which recordings can be used), ``anonymise``
(numbers instead of names), ``plan`` (what is fixed before scoring, and the count of runs), ``cost`` (what it takes),
``pretest`` (what can be said before a model is run), ``scoring``, ``checks`` and ``references`` (models to results),
``wording``, ``report`` and ``html`` (what is written), ``procedure`` (all of it), ``verify`` (afterwards). ``display``
prints what ``plan`` found; ``provenance`` names what runs; ``examples`` shows single recordings.

Names that matter: ``audit``, which is what runs when the room itself is called; ``Request`` and ``run`` are the same in
two steps, ``freeze`` fixes a plan, ``gather_tracks`` reads the recordings.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from inspect import signature
from types import ModuleType
from typing import TYPE_CHECKING

from earwitness.stats.verdict import ALPHA
from earwitness.util import lazily

if TYPE_CHECKING:
    from earwitness.audit.face import Name
    from earwitness.audit.report import Report

__getattr__, __dir__ = lazily(
    __name__,
    {
        "Request": "request",
        "from_environment": "request",
        "gather_tracks": "request",
        "freeze": "procedure",
        "run": "procedure",
        "unnamed": "procedure",
        "AuditPlan": "face",
        "playback": "examples",  # it lies in signals: pages and reports play alike
        "Report": "report",
    },
)


def audit(
    *,
    suspects: Name | None = None,
    held_out: Name | None = None,
    model: Name | Sequence[Name],
    out: Name,
    manifest: Name | None = None,
    root: Name | None = None,
    captions: Name | None = None,
    control_model: Name | None = None,
    control_saw: str | None = None,
    reference_artists: Name | None = None,
    pairs: str | None = None,
    works: Name | None = None,
    unit: str = "work",
    by_folder: bool = False,
    frozen: Name | None = None,
    seed: int | None = None,
    alpha: float = ALPHA,
    n_permutations: int = 9999,
    deals: int = 500,
    dtype: str = "float32",
    by: str = "",
    made_for: str = "",
    with_audio: bool = False,
    redact: bool = False,
    pdf: bool = False,
    allow_download: bool = False,
    say: Callable[[str], None] | None = None,
) -> Report:
    """Audit recordings: *evidence*, *no evidence* or *not testable*, and a report that shows why.

    Parameters
    ----------
    suspects : str or Path, optional
        Folder of the recordings in question.
    held_out : str or Path, optional
        Folder of comparable recordings that cannot have been trained on.
    model : str, Path or sequence
        A pocket name, a local folder or a hub name; several share one level (Holm).
    out : str or Path
        Folder of the report: new, empty, or holding an earlier report, which is replaced.
    manifest : str or Path, optional
        CSV with ``path`` and ``role``, one row per track, instead of the two folders.
    root : str or Path, optional
        Folder that the manifest's paths are relative to; default its own.
    captions : str or Path, optional
        CSV with ``path`` (or ``track_id``) and ``caption``.
    control_model : str or Path, optional
        A model trained on neither side. The difference to it is then what is tested.
    control_saw : str, optional
        ``"neither"``: you know what the control model was trained on, and no manifest card says so.
    reference_artists : str or Path, optional
        A folder with one folder per artist that no model can have seen; the suspects are ranked among them.
    pairs : str, optional
        ``"work"``: compare one suspect with one held-out take of the same work.
    works : str or Path, optional
        CSV with ``path`` (or ``track_id``) and ``work``: which recordings are versions of one piece. An empty ``work``
        says that a recording is a work of its own.
    unit : str
        ``"work"``: versions of one piece count once. ``"track"``: every recording counts, with a warning in the report.
    by_folder : bool
        Folders in a side's folder are artists, those in an artist's are albums; an album counts once.
    frozen : str or Path, optional
        A plan written by ``ew.plan(...).freeze(path)``; anything else is refused.
    seed : int, optional
        Default: derived from the recordings.
    alpha : float
        Level of the tests, above 0 and at most .5.
    n_permutations : int
        Relabellings of each test.
    deals : int
        How often the recordings are dealt to the two sides by lot, to measure how often this audit errs; fewer where
        there are more than 60 recordings, at least 100.
    dtype : str
        Type of number in which every model runs, the control too: ``"float32"``, ``"bfloat16"``, ``"float16"``, or
        ``"auto"``, which is bfloat16 on a card that computes with it. Scores are computed in float32 from its output.
    by, made_for : str
        Who makes the report, and for whom: for its first page, as they are.
    with_audio : bool
        Put the sound of single suspects into the report.
    redact : bool
        Write numbers instead of names and paths.
    pdf : bool
        Print the page to a PDF beside it, with Chromium.
    allow_download : bool
        Fetch a hub model that is not on this machine.
    say : callable, optional
        Is told what happens, a line each; for example ``print``.

    Returns
    -------
    Report
        As written to ``report.json``: ``verdict``, ``answer``, ``results``, what was left out and why.

    Raises
    ------
    InputError
        Recordings, folders or settings that cannot be used; a plan that differs from the frozen one.
    ModelError
        A model that is unknown, unsafe to load or not on this machine.

    Examples
    --------
    >>> import earwitness as ew
    >>> report = ew.audit(
    ...     suspects="released/", held_out="unreleased/", model="pocket/musicgen-b", out="report/"
    ... )  # doctest: +SKIP
    >>> report.verdict  # doctest: +SKIP
    'evidence'
    """
    from earwitness.audit.face import asked, one
    from earwitness.audit.procedure import run

    request = asked(
        model, suspects=suspects, held_out=held_out, manifest=manifest, root=root, captions=captions, pairs=pairs,
        control_model=control_model, control_saw=control_saw, reference_artists=reference_artists, frozen=frozen,
        works=works, unit=unit, by_folder=by_folder, seed=seed, alpha=alpha, n_permutations=n_permutations,
        deals=deals, dtype=dtype, by=by, made_for=made_for, with_audio=with_audio, redact=redact, pdf=pdf,
    )  # fmt: skip
    return run(request, one("out", out), say=say or (lambda _: None), download=allow_download)


class _Callable(ModuleType):
    """A room that can be called: ``ew.audit(...)`` is ``earwitness.audit.audit(...)``."""

    __call__ = staticmethod(audit)


__all__ = ["audit"]
__signature__ = signature(audit)
sys.modules[__name__].__class__ = _Callable
