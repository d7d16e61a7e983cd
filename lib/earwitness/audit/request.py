"""What an audit is asked to do, and the recordings it is asked about.

Captions for recordings in folders come from a table that is matched by name, and never by guess. Pairs that a test
would refuse once all is scored are refused before.

Book pages: *Audit your own*, *Where honest held-out recordings come from*.
"""

from __future__ import annotations

import os
import re
import shlex
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

from earwitness.audit.report import MOST_DEALS, MOST_PERMUTATIONS
from earwitness.data.folders import WAYS, Found, gather
from earwitness.data.manifest import read_card
from earwitness.data.side_table import with_captions
from earwitness.errors import InputError
from earwitness.models import DTYPES
from earwitness.stats.prepare import Saw
from earwitness.stats.verdict import ALPHA
from earwitness.types import ROLE_NAMES, SCORES, SIDE_OF, SIDES, ModelInfo, Track

# --- pairs ------------------------------------------------------------------------------------------------------------

PAIRED = 'pairs="work" (--pairs work)'


def known(pairs: str | None, unit: str = "work") -> None:
    """Refuse a pairing or a unit that does not exist.

    Raises
    ------
    InputError
        A pairing that is neither ``work`` nor None, a unit that is neither ``work`` nor ``track``, pairs of tracks.
    """
    if pairs not in (None, "work"):
        raise InputError(f"expected {PAIRED}, got {pairs!r}")
    if unit not in ("work", "track"):
        raise InputError(f"expected unit (--unit) work or track, got {unit!r}")
    if pairs is not None and unit == "track":
        raise InputError(f"{PAIRED} compares works, and unit (--unit) track counts none; leave one of them out")


def works_of(tracks: Sequence[Track]) -> dict[str, dict[str, list[Track]]]:
    """Return work -> role -> its tracks, in the given order; tracks of no work are nobody's partner."""
    found: dict[str, dict[str, list[Track]]] = defaultdict(lambda: defaultdict(list))
    for track in tracks:
        if track.work:
            found[track.work][track.role].append(track)
    return found


def refuse_none(tracks: Sequence[Track]) -> None:
    """Refuse to compare in pairs where no work is on both sides; nothing needs to be opened to know.

    Raises
    ------
    InputError
        No work is named on both sides.
    """
    if not any(len(sides) > 1 for sides in works_of(tracks).values()):
        raise InputError(
            f"{PAIRED}: no work is named on both sides, so there is no pair; give a manifest whose column 'work' holds "
            "the same name for both recordings of a pair, or such a table with works (--works)"
        )


def refuse_ambiguous(tracks: Sequence[Track]) -> None:
    """Refuse works of which it is not clear who is compared with whom, by the recordings' own names.

    Raises
    ------
    InputError
        Two recordings of one work on a side, or takes of one work by different artists.
    """
    for work, sides in works_of(tracks).items():
        for role, takes in sides.items():
            if len(takes) > 1:
                raise InputError(
                    f"{PAIRED}: {takes[0].track_id!r} and {takes[1].track_id!r} are both {role} takes of work "
                    f"{work!r}; a pair is one suspect and one held-out recording, leave one of them out"
                )
        if len(sides) < 2:
            continue  # without a partner: left out, and counted
        first, second = (takes[0] for takes in sides.values())
        if first.artist != second.artist:
            raise InputError(
                f"{PAIRED}: work {work!r} is by {first.artist!r} in {first.track_id!r} and by {second.artist!r} in "
                f"{second.track_id!r}; a pair is of one artist, name both alike or give the works different names"
            )


# --- the request ------------------------------------------------------------------------------------------------------

SAW = get_args(Saw)
MOST_TEXT = 200  # characters of a name on the first page


@dataclass(frozen=True)
class Request:
    """One audit as asked for: either two folders or one manifest, one or more models, and settings.

    Attributes
    ----------
    models : tuple of str
        Pocket names, local folders or hub names; several share one level (Holm).
    suspects, held_out : Path, optional
        Folders of recordings, any nesting.
    manifest : Path, optional
        CSV with at least ``path`` and ``role``.
    root : Path, optional
        Folder that the manifest's paths are relative to; default its own.
    control_model : str, optional
        A model trained on neither side. The difference to it is then what is tested.
    control_saw : str, optional
        What the control model was trained on, where no manifest card says so; only ``neither`` is accepted.
    reference_artists : Path, optional
        A folder with one folder per artist that no model can have seen; the suspects' artist is ranked among them.
    captions : Path, optional
        CSV with ``path`` (or ``track_id``) and ``caption``; see :func:`earwitness.data.side_table.with_captions`.
    pairs : str, optional
        ``work``: match one suspect with one held-out take of the same work.
    works : Path, optional
        CSV with ``path`` (or ``track_id``) and ``work``: which recordings are versions of one piece.
    unit : str
        ``work``: what counts is the work; ``track``: every recording for itself, with a warning in the report.
    by_folder : bool
        Folders in a side's folder are artists, those in an artist's are albums; an album counts once.
    alpha, n_permutations, deals : float, int, int
        Level, relabellings of the tests, and deals of the level check.
    seed : int, optional
        Default: derived from the manifest hash.
    frozen : Path, optional
        A plan written by ``plan --freeze``; anything else is refused.
    dtype : str
        Type of number of every model, the control included, as for ``load_model``.
    by, made_for : str
        Who makes the report and for whom, for its first page.
    with_audio, redact, pdf : bool
        Put audio of single suspects into the report; names and paths by numbers; a PDF beside the page.
    """

    models: tuple[str, ...]
    suspects: Path | None = None
    held_out: Path | None = None
    manifest: Path | None = None
    root: Path | None = None
    control_model: str | None = None
    control_saw: str | None = None
    reference_artists: Path | None = None
    captions: Path | None = None
    pairs: str | None = None
    works: Path | None = None
    unit: str = "work"
    by_folder: bool = False
    alpha: float = ALPHA
    n_permutations: int = 9999
    deals: int = 500
    seed: int | None = None
    frozen: Path | None = None
    dtype: str = "float32"
    by: str = ""
    made_for: str = ""
    with_audio: bool = False
    redact: bool = False
    pdf: bool = False

    def __post_init__(self) -> None:
        """Refuse combinations that mean nothing.

        Raises
        ------
        InputError
            No model, folders and a manifest together, one folder alone, an unknown pairing or statement, a count or
            seed below its least, a level that is none, an unknown type of number.
        """
        if not self.models:
            raise InputError(
                "expected a model, got none; name one with model (--model), and the recordings: two folders "
                "(--suspects, --held-out) or a manifest (--manifest)"
            )
        if len(set(self.models)) < len(self.models):
            raise InputError(f"a model is named twice ({', '.join(self.models)}); name each once")
        if (self.suspects is None) != (self.held_out is None):
            missing = "suspects (--suspects)" if self.suspects is None else "held_out (--held-out)"
            ways = "" if self.suspects is None else f". {WAYS}"
            raise InputError(f"expected two folders, {missing} is missing; a comparison needs both sides{ways}")
        if self.by_folder and self.manifest is not None:
            raise InputError("by_folder (--by-folder) is for two folders; a manifest has the columns artist and work")
        if (self.manifest is None) == (self.suspects is None):
            ways = "" if self.suspects else f". {WAYS}"
            raise InputError(
                f"expected two folders (--suspects, --held-out) or a manifest (--manifest), and not both{ways}"
            )
        known(self.pairs, self.unit)
        if self.n_permutations < 1 or self.deals < 1:
            raise InputError(f"expected counts from 1, got {self.n_permutations} permutations and {self.deals} deals")
        if self.n_permutations > MOST_PERMUTATIONS or self.deals > MOST_DEALS:
            raise InputError(
                f"expected at most {MOST_PERMUTATIONS:,} permutations and {MOST_DEALS:,} deals, which verify computes "
                f"again, got {self.n_permutations:,} and {self.deals:,}"
            )
        if self.seed is not None and self.seed < 0:
            raise InputError(f"expected a seed from 0 (--seed), got {self.seed}")
        if max(len(self.by), len(self.made_for)) > MOST_TEXT:
            raise InputError(f"by (--by) and made_for (--for): expected a name, at most {MOST_TEXT} characters")
        if self.dtype not in DTYPES:
            raise InputError(f"expected a type of number (--dtype) out of {', '.join(DTYPES)}, got {self.dtype!r}")
        if not 0 < self.alpha <= 0.5:
            raise InputError(f"expected a level alpha (--alpha) above 0 and up to 0.5, got {self.alpha}")
        if self.control_saw is not None and self.control_saw not in SAW:
            raise InputError(f"control_saw (--control-saw): expected {', '.join(SAW)}, got {self.control_saw!r}")
        if self.control_saw is not None and self.control_model is None:
            raise InputError("control_saw without control_model (--control-model); name the control model too")
        if self.control_model in self.models:
            raise InputError(f"{self.control_model!r} is both audited and its own control; name another control model")

    def command(self, *, redact: bool) -> str:
        """Return the command line that asks for this audit, with whole paths: it can be typed anywhere."""

        def place(path: Path, instead: str) -> str:
            return instead if redact else path.absolute().as_posix()

        def model(name: str) -> str:
            return shown(name) if redact or shown(name) == name else Path(name).expanduser().absolute().as_posix()

        words = ["earwitness", "audit"]
        for option, path, instead in (
            ("--suspects", self.suspects, "SUSPECTS"),
            ("--held-out", self.held_out, "HELD_OUT"),
            ("--manifest", self.manifest, "MANIFEST.csv"),
            ("--root", self.root, "FOLDER"),
            ("--captions", self.captions, "CAPTIONS.csv"),
            ("--works", self.works, "WORKS.csv"),
            ("--reference-artists", self.reference_artists, "REFERENCES"),
            ("--frozen", self.frozen, "PLAN.json"),
        ):
            words += [option, place(path, instead)] if path is not None else []
        for name in self.models:
            words += ["--model", model(name)]
        if self.control_model:
            words += ["--control-model", model(self.control_model)]
        for name in ("control_saw", "pairs", "unit", "seed", "alpha", "n_permutations", "deals", "dtype"):
            option, value = f"--{name.removeprefix('n_').replace('_', '-')}", getattr(self, name)
            words += [option, str(value)] if value != getattr(Request, name) else []  # only what is not the default
        for option, value in (("--by", self.by), ("--for", self.made_for)):
            words += [option, value] if value else []
        flags = ("by_folder", "with_audio", "redact", "pdf")
        words += [f"--{flag.replace('_', '-')}" for flag in flags if getattr(self, flag)]
        return " ".join(shlex.quote(word) for word in [*words, "--out", "report"])


VARIABLE = re.compile(r"\$(?:\w+|\{\w+\})")
MODELS = ("model", "other_models", "control_model")
NAMED = re.compile(r"[\w-][\w.-]*(?:/[\w-][\w.-]*)?")  # a pocket or hub name


def from_environment(redact: bool, **given: str | Sequence[str]) -> dict[str, Any]:
    """Return a notebook's parameters with ``$NAME`` replaced by what that variable of the environment holds.

    A notebook keeps its parameters. So that a redacted one keeps no path, none may stand in them: each must be the name
    of a variable, or, for a model, a pocket or hub name.

    Parameters
    ----------
    redact : bool
        Whether literal paths are refused.
    **given : str or sequence of str
        Those that name files, folders and models; ``model``, ``other_models`` and ``control_model`` are models.

    Raises
    ------
    InputError
        With ``redact``: a literal path, or a variable that is not set. The message holds no value.

    Examples
    --------
    >>> from_environment(False, suspects="released", model="pocket/musicgen-b")
    {'suspects': 'released', 'model': 'pocket/musicgen-b'}
    >>> from_environment(True, suspects="released")
    Traceback (most recent call last):
    ...
    earwitness.errors.InputError: redact: expected the name of a variable in 'suspects', got a path that the notebook \
would keep; export SUSPECTS=... in the shell, pass -p suspects '$SUSPECTS', and delete the notebook of this run
    """
    found: dict[str, Any] = {}
    for name, value in given.items():
        texts = [value] if isinstance(value, str) else list(value)
        if redact:
            for text in filter(None, texts):
                _refuse_kept(name, text)
        filled = [os.path.expandvars(text) for text in texts]
        found[name] = filled[0] if isinstance(value, str) else filled
    return found


def _refuse_kept(name: str, text: str) -> None:
    """Refuse a parameter of a redacted notebook that is a path, or a variable that is not set."""
    if VARIABLE.fullmatch(text):
        if text.strip("${}") not in os.environ:
            raise InputError(f"redact: {name!r} names a variable that is not set; export it before the notebook runs")
        return
    if name in MODELS and NAMED.fullmatch(text) and not Path(text).exists():
        return
    instead = name.upper()
    raise InputError(
        f"redact: expected the name of a variable in {name!r}, got a path that the notebook would keep; export "
        f"{instead}=... in the shell, pass -p {name} '${instead}', and delete the notebook of this run"
    )


def shown(model: str) -> str:
    """Return a model's name without the machine's own paths."""
    return Path(model).name if Path(model).expanduser().is_dir() else model


def gather_tracks(request: Request) -> Found:
    """Read the recordings of both sides, with captions where they are given; nothing is opened yet.

    Raises
    ------
    ManifestError
        As ``gather`` and ``with_captions``.
    """
    found = gather(
        suspects=request.suspects, held_out=request.held_out, manifest=request.manifest, root=request.root,
        model=request.models[0], works=request.works, by_folder=request.by_folder,
    )  # fmt: skip
    # A corpus's members are taken for suspects and its non-members for held-out: will the audit find them?
    found = replace(found, tracks=tuple(replace(t, role=SIDE_OF.get(t.role, t.role)) for t in found.tracks))
    if request.captions is None:
        return found
    refused = found.refused["track_id"].astype(str)
    return replace(found, tracks=tuple(with_captions(found.tracks, request.captions, refused)))


def refuse_kind(info: ModelInfo, tracks: Sequence[Track]) -> None:
    """Refuse a side on which no recording is of the kind that the model reads: the model is the cause, not the files.

    Raises
    ------
    InputError
        Only sound for a model that reads MIDI files, or the other way round.
    """
    reads, given = ("MIDI", "sound") if info.scheme is not None else ("sound", "MIDI")
    for role, name in ROLE_NAMES.items():
        side = [track.path.suffix.lower() in SCORES for track in tracks if track.role == role]
        if side and all(midi == (given == "MIDI") for midi in side):
            raise InputError(
                f"{len(side)} {name}: {info.name} reads {reads} files, and all of these are {given} files; "
                f"name a model that reads {given} (--model), or give {reads} files"
            )


def refuse_mixture(infos: Sequence[ModelInfo], control: ModelInfo | None) -> None:
    """Refuse models that do not read the same recordings, and a control that cannot be compared with them.

    Raises
    ------
    InputError
        Models of sound and of scores in one audit, or one model under two names; a control model of another kind, or
        one of those audited.
    """
    for first, second in combinations(infos, 2):
        if first.revision == second.revision:
            raise InputError(f"{first.name!r} and {second.name!r} have the same weights; name the model once")
    scores = [info.name for info in infos if info.scheme is not None]
    if scores and len(scores) < len(infos):
        sound = next(info.name for info in infos if info.scheme is None)
        raise InputError(f"{scores[0]!r} reads MIDI files and {sound!r} hears sound; audit them apart")
    if control is None:
        return
    for info in infos:
        if control.revision == info.revision:
            raise InputError(f"control model refused: {control.name!r} has the weights of {info.name!r}; name another")
        if control.kind != info.kind:
            raise InputError(
                f"control model refused: {control.name!r} is a {control.kind} model and {info.name!r} a {info.kind} "
                "model, whose scores cannot be compared; name a control of the same kind"
            )


def control_known(request: Request, tracks: Sequence[Track]) -> str:
    """Return how it is known that the control model saw neither side; refuse it where that is not known.

    Raises
    ------
    InputError
        The manifest's card says that it saw a side, the caller says so, or nobody says anything.
    """
    name = request.control_model or ""
    card = read_card(request.manifest) if request.manifest is not None else None
    target = card.targets.get(name) if card else None
    if target is not None:
        seen, clean = (
            {split for role in target if role in roles for split in target[role]} for roles in SIDES.values()
        )
        sides = sorted({track.role for track in tracks if track.split in seen})
        if sides:
            raise InputError(
                f"control model refused: the card says that {name!r} was trained on {' and '.join(sides)} tracks; a "
                "control must have seen neither side, or the difference to it convicts the innocent"
            )
        if {track.split for track in tracks} <= clean:
            return "the manifest's card says so"
    if request.control_saw == "neither":
        return "stated by whoever ran the audit"
    raise InputError(
        f"control model refused: nothing says that {name!r} saw neither side"
        + (f" (--control-saw {request.control_saw})" if request.control_saw else "")
        + '; if you know it, say control_saw="neither" (--control-saw neither), and the report names you as the source'
    )
