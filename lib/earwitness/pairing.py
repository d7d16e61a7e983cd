"""Which pairs can be compared: what a test of pairs would refuse once all is scored is refused before.

Book page: *Where honest held-out recordings come from*.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from earwitness.errors import InputError
from earwitness.manifest import Track


def known(pairs: str | None) -> None:
    """Refuse a pairing that does not exist.

    Raises
    ------
    InputError
        Anything but ``work`` or None.
    """
    if pairs not in (None, "work"):
        raise InputError(f"expected --pairs work, got {pairs!r}")


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
            "--pairs work: no work is named on both sides, so there is no pair; give a manifest (not two folders) "
            "whose column 'work' holds the same name for both recordings of a pair"
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
                    f"--pairs work: {takes[0].track_id!r} and {takes[1].track_id!r} are both {role} takes of work "
                    f"{work!r}; a pair is one suspect and one held-out recording, leave one of them out"
                )
        if len(sides) < 2:
            continue  # without a partner: left out, and counted
        first, second = (takes[0] for takes in sides.values())
        if first.artist != second.artist:
            raise InputError(
                f"--pairs work: work {work!r} is by {first.artist!r} in {first.track_id!r} and by {second.artist!r} in "
                f"{second.track_id!r}; a pair is of one artist, name both alike or give the works different names"
            )
