"""The audit as Python asks for it: plain values become a ``Request``, and ``ew.plan`` says what one would take.

Book page: *Audit your own*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earwitness.errors import InputError
from earwitness.stats.verdict import ALPHA

if TYPE_CHECKING:
    from earwitness.audit.cost import Forecast
    from earwitness.audit.plan import Plan
    from earwitness.audit.request import Request

Name = str | Path
PLACES = ("suspects", "held_out", "manifest", "root", "captions", "works", "reference_artists", "frozen")


def one(name: str, place: Any) -> Path:
    """Return the path that an argument gives; refuse several, and none.

    Raises
    ------
    InputError
        Anything but a path or a text that is not empty.
    """
    if not isinstance(place, str | Path) or not str(place):
        raise InputError(f"{name}: expected one path, got {place!r}; put recordings of one side into one folder")
    return Path(place).expanduser()


def asked(model: Name | Sequence[Name] | None, *, control_model: Name | None, **given: Any) -> Request:
    """Return what is asked for, with text turned into paths; everything else is passed on as it is.

    Raises
    ------
    InputError
        As ``one`` and ``Request``.
    """
    from earwitness.audit.request import Request

    models = (model,) if model is None or isinstance(model, str | Path) else tuple(model)
    places = {name: one(name, given[name]) for name in PLACES if given.get(name) is not None}
    control = control_model if control_model is None else str(control_model)
    return Request(models=tuple(map(str, models)) if all(models) else (), control_model=control, **given | places)


@dataclass(frozen=True)
class AuditPlan:
    """What an audit would take, and whether it could be tested; nothing has been scored.

    Printed, it is the table of ``earwitness plan``.

    Attributes
    ----------
    forecasts : tuple of Forecast
        One per model, that of the control model last: tracks, segments, network calls, measured hours, memory, disk.
    """

    forecasts: tuple[Forecast, ...]
    request: Request = field(repr=False)
    allow_download: bool = field(repr=False, default=False)

    @property
    def refusals(self) -> tuple[str, ...]:
        """Why the result could not be tested, each reason once; empty where it could."""
        return tuple(dict.fromkeys(reason for found in self.forecasts for reason in found.refusals))

    @property
    def testable(self) -> bool:
        """Whether nothing stands in the way of a test, as far as headers and counts tell."""
        return not self.refusals

    def to_dict(self) -> list[dict[str, Any]]:
        """Return the forecasts as plain types, ready for ``json.dumps``."""
        return [asdict(found) for found in self.forecasts]

    def freeze(self, path: Name) -> Plan:
        """Fix this audit in a file before it is scored, as ``earwitness plan --freeze`` does.

        Parameters
        ----------
        path : str or Path
            A new file; pass it to ``ew.audit`` as ``frozen``.

        Raises
        ------
        InputError
            The file exists; recordings that cannot be compared.
        """
        from earwitness.audit.procedure import freeze

        return freeze(self.request, one("path", path), download=self.allow_download)

    def __str__(self) -> str:
        """Return the table of ``earwitness plan``."""
        from rich.console import Console

        from earwitness.audit.display import show_forecasts

        written = StringIO()
        show_forecasts(self.forecasts, Console(file=written, highlight=False, width=120))
        return written.getvalue().rstrip()


def plan(
    *,
    suspects: Name | None = None,
    held_out: Name | None = None,
    model: Name | Sequence[Name],
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
    seed: int | None = None,
    alpha: float = ALPHA,
    n_permutations: int = 9999,
    attacks: str = "audit",
    dtype: str = "float32",
    probe: bool = True,
    allow_download: bool = False,
) -> AuditPlan:
    """Say what an audit would take, and whether the result could be tested; nothing is scored.

    Parameters
    ----------
    suspects, held_out, model, manifest, root, captions, control_model, control_saw, reference_artists, pairs
        As for ``ew.audit``.
    works, unit, by_folder
        As for ``ew.audit``.
    seed, alpha, n_permutations : int, float, int, optional
        As for ``ew.audit``, and fixed by ``freeze``. The seed also draws the offsets of the cuts that are counted.
    attacks : str
        Attacks whose signals are counted; ``"audit"``: those that an audit scores.
    dtype : str
        As for ``ew.audit``.
    probe : bool
        Score a few segments to measure seconds, memory and bytes.
    allow_download : bool
        Fetch a hub model that is not on this machine.

    Returns
    -------
    AuditPlan
        ``forecasts``, ``testable``, ``refusals``; ``freeze(path)`` fixes the audit in a file.

    Raises
    ------
    InputError, ModelError
        As ``ew.audit``.

    Examples
    --------
    >>> import earwitness as ew
    >>> planned = ew.plan(
    ...     suspects="released/", held_out="unreleased/", model="pocket/musicgen-b"
    ... )  # doctest: +SKIP
    >>> print(planned)  # doctest: +SKIP
    >>> planned.freeze("plan.json")  # doctest: +SKIP
    """
    from earwitness.audit.cost import forecasts

    request = asked(
        model, suspects=suspects, held_out=held_out, manifest=manifest, root=root, captions=captions, pairs=pairs,
        control_model=control_model, control_saw=control_saw, reference_artists=reference_artists, works=works,
        unit=unit, by_folder=by_folder, seed=seed, alpha=alpha, n_permutations=n_permutations, dtype=dtype,
    )  # fmt: skip
    found = forecasts(request, attacks, seed=seed or 0, probe=probe, allow_download=allow_download)
    return AuditPlan(tuple(found), request, allow_download)
