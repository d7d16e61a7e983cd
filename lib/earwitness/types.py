"""What the rooms share: a track, a cut of it, a model's identity, roles and their sides, badges, default features.

These are the types that pass from one room to the next; they import no other room, so that every room can import them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from math import isclose
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

SIDES = {"suspect": ("suspect", "member"), "held_out": ("held_out", "nonmember")}  # side -> its roles
SIDE_OF = {role: side for side, roles in SIDES.items() for role in roles}  # role -> its side in an audit
ROLE_NAMES = {"suspect": "suspects", "held_out": "held-out", "member": "members", "nonmember": "non-members"}
POSITIVE_ROLES, REFERENCE_ROLES = (roles[::-1] for roles in SIDES.values())
REFERENCE = "reference"  # role of what is scored beside the two sides, for the rank among reference artists
BLIND_PREFIX = "blind/"  # ids of attacks that never touch the model
WINDOW = "window"  # number of a segment within its piece: only in score tables of symbolic models
SCORES = {".mid", ".midi", ".kar", ".rmi", ".rmid"}  # for ``symbolic.midi``: .kar has lyrics, .rmi a RIFF wrapper
# What an audit scores and tests, by kind of model: fixed before anything was scored. ``stats.features`` says how.
DEFAULT_FEATURES: dict[str, tuple[str, ...]] = {
    "token": tuple(
        f"{attack}/{stream}"
        for attack in ("zlib", "min_k-0.2", "camia_diversity")
        for stream in ("conditional", "null")
    ),
    "diffusion": ("denoising_loss/conditional", "sima-100-2/conditional"),
    "symbolic": ("loss/conditional/q3", "camia_confident-2/conditional", "camia_diversity/conditional"),
}
# The features of arXiv 2512.09654 by the rows of its membership tables, for each kind of model. Of token models 18, on
# the contrast stream and the first codebook (scores: on every token), with the variance form of Min-K %++; k counts and
# signs are those of the authors' code. Diffusion: the 26 of CDI, on whose code the paper's unpublished half builds.
_PAPER_K, _PAPER_T = (0.1, 0.2, 0.3, 0.4, 0.5), range(0, 1000, 100)
_PAPER_ROWS = {
    "Loss": ("loss",),
    "Zlib": ("zlib",),
    "Hinge": ("hinge",),
    "Min-K %": tuple(f"min_k-{k:g}" for k in _PAPER_K),
    "Min-K %++": tuple(f"min_k++_var-{k:g}" for k in _PAPER_K),
    "CAMIA": ("camia_below", "camia_below_z", "camia_running", "camia_running_z", "camia_slope"),
}
_CDI_ROWS = {
    "Denoising loss": ("denoising_loss",),
    "SecMI": ("secmi",),
    "PIA": ("pia-5",),
    "PIAN": ("pian_cdi-5",),
    "Gradient masking": tuple(f"gradient_mask-{t}" for t in _PAPER_T),
    "Multiple loss": tuple(f"multiple_loss-{t}" for t in _PAPER_T),
    "Noise optimisation": ("noise_optimisation", "noise_move"),
}
PAPER_FEATURES: dict[str, dict[str, tuple[str, ...]]] = {
    kind: {row: tuple(f"{name}/{stream}" for name in names) for row, names in rows.items()}
    for kind, rows, stream in (
        ("token", _PAPER_ROWS, "contrast/q0"),
        ("symbolic", _PAPER_ROWS, "contrast_whole"),
        ("diffusion", _CDI_ROWS, "conditional"),
    )
}
BADGES = {
    "pocket": ("pocket", "A small model trained here on music written here: it tests the method and accuses nobody."),
    "tiny": ("tiny checkpoint", "A toy checkpoint in a real format: it shows that the code runs, nothing more."),
    "real": ("real model", "A published model and real recordings."),
}
MOVED = (
    "this checkpoint was distilled or tuned adversarially after its training, which moved its objective: score the "
    "base checkpoint, or read its scores with care"
)
SHORTEST_FILLED = 1.0  # seconds of sound in a window that training would fill with zeros
PADDED_SECONDS, FILLED_SECONDS = 0.24, 10.24  # AudioLDM's family and Tango heard clips of ten seconds, zero-padded


@dataclass(frozen=True, slots=True)
class Track:
    """One recording of a manifest. Text fields are empty where the manifest is silent; ``duration_s`` is then NaN."""

    track_id: str
    path: Path
    role: str
    artist: str = ""
    work: str = ""
    split: str = ""
    caption: str = ""
    duration_s: float = float("nan")
    sha256: str = ""
    licence: str = ""
    source: str = ""
    released: str = ""


@dataclass(frozen=True)
class FileInfo:
    """What a file's header says: container, codec, sample rate (Hz), channels, length (s); and in what it is odd."""

    format: str
    codec: str
    sample_rate: int
    channels: int
    duration_s: float
    remark: str = ""


@dataclass(frozen=True)
class Segment:
    """A cut of a track.

    ``segment_id`` hashes the decoded audio, the cut and the version of ``data.audio``. ``start_s`` is in seconds from
    the start of the recording, ``total_s`` the length of all of it. ``audio`` is ``[C, samples]``. ``blind`` holds its
    blind signals, where they are known already. Of a MIDI file ``audio`` holds tokens ``[1, W + 1]``, and ``context``
    what else the model reads (``Window``).
    """

    segment_id: str
    start_s: float
    audio: np.ndarray
    blind: Any = None
    context: Any = None
    total_s: float = float("nan")


@dataclass(frozen=True, eq=False)
class Window:
    """What a model is given of a piece: ``tokens`` ``[W + 1]``, of which all but the last are inputs.

    Attributes
    ----------
    index, start : int
        Number of the window, and of its first token in the piece.
    tokens : ndarray
        ``[W + 1]``; labels are ``tokens[1:]``.
    groups, notes : ndarray
        ``[W]``, of the labels: index into the scheme's groups (-1: not scored), and into the score's notes (-1: none).
    inputs : dict of ndarray
        What else the network reads beside the tokens, by name; FIGARO: ``bars`` and ``positions`` of the inputs,
        ``description`` and ``description_bars``, each ``[W]``.
    bar_tokens : tuple of ndarray
        Each bar's tokens from ``<bos>`` to ``<eos>``, for models that read them through an encoder of their own.
    score : Any
        The piece, in the scheme's own form; neighbours are made from it.
    """

    index: int
    start: int
    tokens: NDArray[np.int32]
    groups: NDArray[np.int8]
    notes: NDArray[np.int32]
    inputs: dict[str, NDArray[np.int32]] = field(default_factory=dict)
    bar_tokens: tuple[NDArray[np.int32], ...] = ()
    score: Any = None

    @property
    def start_s(self) -> float:
        """Where the first note of the window starts, in seconds from the start of the piece; 0 without one."""
        held = self.notes[self.notes >= 0]
        return float(self.score.notes["start_s"][held[0]]) if len(held) else 0.0


class Scheme(Protocol):
    """How a family of models reads a MIDI file."""

    @property
    def name(self) -> str:
        """The scheme's own."""
        ...

    @property
    def groups(self) -> tuple[str, ...]:
        """What is scored, a row each: groups of tokens."""
        ...

    def key(self) -> dict[str, Any]:
        """Return what stored signals are keyed by."""
        ...

    def to_plain(self) -> dict[str, Any]:
        """Return everything as JSON can hold it, its ``name`` too."""
        ...

    def read(self, path: Path) -> Any:
        """Return a file in the scheme's own form."""
        ...

    def windows(self, score: Any) -> list[Window]:
        """Return the whole windows of a piece, in order; they do not overlap."""
        ...

    def neighbours(self, kind: str, score: Any) -> list[Any]:
        """Return a piece's neighbours of one kind, in its own form."""
        ...


@dataclass(frozen=True)
class ModelInfo:
    """Identity of a loaded model: everything that must be equal for two scores to be comparable.

    Attributes
    ----------
    name : str
        The name the user gave: a pocket name, a hub name or a local folder's name.
    family : str
        ``"token"`` or ``"diffusion"``.
    revision : str
        SHA-256 over the names and contents of the weight, configuration and tokenizer files.
    sample_rate : int
        Hz.
    channels : int
        Audio channels the model takes.
    segment_seconds : float
        Length of the window the model was trained on, in seconds.
    dtype : str
        Type of the weights as run, for example ``"float32"``.
    device : str
        Where it runs. Not part of the identity: see ``key``.
    badge : str
        ``"pocket"``, ``"tiny"`` (random or toy weights) or ``"real"``.
    versions : dict
        Versions of the libraries that can change a score.
    conditions : tuple of str
        What a diffusion or symbolic model can be conditioned on; not part of the identity.
    mixdown : str
        What a mono model was trained on of stereo recordings: their ``"average"``, or the ``"first"`` channel. Signals
        are keyed by it through ``AudioSpec``.
    scheme : Scheme, optional
        How a symbolic model reads MIDI files (``symbolic.windows``); None for models that hear sound. Such a model has
        no sample rate, channels or seconds: they are 0. The scheme has a key of its own.
    calls : int
        Network calls that one stream of a window takes; not part of the identity.
    source : tuple of Path
        Folders that ``revision`` was read from, that of the model first; not part of the identity.
    shortest_seconds : float
        How short a clip may be, where training filled windows with zeros and norms leave those out; 0: a whole window.
        Signals are keyed by it through ``AudioSpec``.
    remark : str
        What a reader of its scores must know, for example that its objective was moved; not part of the identity.
    """

    name: str
    family: str
    revision: str
    sample_rate: int
    channels: int
    segment_seconds: float
    dtype: str
    device: str
    badge: str
    versions: dict[str, str] = field(default_factory=dict)
    conditions: tuple[str, ...] = ()
    mixdown: str = "average"
    scheme: Scheme | None = None
    calls: int = 1
    source: tuple[Path, ...] = field(default=(), compare=False, repr=False)
    shortest_seconds: float = 0.0
    remark: str = ""

    @property
    def kind(self) -> str:
        """``"symbolic"`` for a token model that reads scores, else the family: whose frozen features an audit takes."""
        return self.family if self.scheme is None else "symbolic"

    @property
    def pad_seconds(self) -> float:
        """How much shorter than the window a clip may be, because training filled the rest with zeros too."""
        if self.shortest_seconds:
            return self.segment_seconds - self.shortest_seconds
        filled = self.family == "diffusion" and isclose(self.segment_seconds, FILLED_SECONDS)
        return PADDED_SECONDS if filled else 0.0

    def key(self) -> dict[str, Any]:
        """Return the part of the identity that stored signals are keyed by (the device is not in it)."""
        left = {
            "device",
            "badge",
            "name",
            "conditions",
            "mixdown",
            "scheme",
            "calls",
            "source",
            "shortest_seconds",
            "remark",
        }
        return {k: v for k, v in asdict(replace(self, scheme=None)).items() if k not in left}
