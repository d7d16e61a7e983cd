"""What of a manifest is on disk: a file that is missing is not a file that is corrupt, and neither is repaired here.

Links to recordings die, disks fail, downloads stop half way. The first is a fact about a corpus (report how many
are gone), the others are mistakes to mend. The book page *Methods: manifests* shows the command.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from earwitness.manifest import Track, file_hash
from earwitness.paths import reason_of


@dataclass(frozen=True)
class Holdings:
    """What was found of a manifest's recordings, as track ids in the manifest's order.

    Attributes
    ----------
    good : tuple of str
        Present, and its bytes are those of the manifest's SHA-256.
    unhashed : tuple of str
        Present, but the manifest holds no SHA-256 to compare with.
    missing : tuple of str
        No such file.
    corrupt : tuple of str
        Present, but its bytes differ from the manifest's SHA-256.
    unreadable : dict of str
        Present, but not to be read: track id -> why.
    """

    good: tuple[str, ...]
    unhashed: tuple[str, ...]
    missing: tuple[str, ...]
    corrupt: tuple[str, ...]
    unreadable: dict[str, str]

    @property
    def sound(self) -> bool:
        """Whether nothing is corrupt or unreadable; recordings may be missing."""
        return not self.corrupt and not self.unreadable


def holdings(tracks: Sequence[Track], *, workers: int = 2) -> Holdings:
    """Compare the files of a manifest with what it says about them.

    Parameters
    ----------
    tracks : sequence of Track
        From ``read_manifest`` or ``read_splits``.
    workers : int
        Files that are read at a time.
    """
    with ThreadPoolExecutor(workers) as pool:
        states = list(pool.map(_state, tracks, chunksize=64))
    kinds: dict[str, list[str]] = {name: [] for name in ("good", "unhashed", "missing", "corrupt")}
    unreadable = {}
    for track, state in zip(tracks, states, strict=True):
        if state in kinds:
            kinds[state].append(track.track_id)
        else:
            unreadable[track.track_id] = state
    return Holdings(**{name: tuple(ids) for name, ids in kinds.items()}, unreadable=unreadable)


def _state(track: Track) -> str:
    """Return good, unhashed, missing or corrupt, or why a file cannot be read."""
    path = Path(track.path)
    try:
        if not track.sha256:
            with path.open("rb"):
                return "unhashed"
        return "good" if file_hash(path) == track.sha256 else "corrupt"
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return reason_of(error)
