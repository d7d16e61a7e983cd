"""Which of several copies stays, decided pair by pair, and why each of the others is left out.

Copies are pairs, not chains: that A is a copy of B, and B one of C, does not make A one of C. What is said of a
recording is true of that very file: it is the same as another one, a part of it, holds several (an album or a mix in
one file), or shares a stretch with it.

Nothing looks at which side a recording is on, but to see that copies on two sides are left out on both. Of copies on
one side stays the one in the format that is most common over both sides together, then the lossless, then the longest.
Book pages: *Audit your own*, *Copies*.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from earwitness.types import Track

if TYPE_CHECKING:
    import pandas as pd

SAME = 0.8  # of the longer one that must sound in the shorter, or they are no longer the same recording
EXCERPT = 0.5  # a part that is shorter than this share of its whole never stays in its stead
LONG_S, TRACK_S = 1200.0, 120.0  # so long a recording that holds so long a part is a mix, whatever else it holds
ACROSS = "on the other side"  # stands in every reason of one that is left out because a copy is there
PAIRED = " (versions of one work are compared with --pairs work, unless they are the same file)"
LOSSLESS = ("PCM", "FLOAT", "DOUBLE", "FLAC", "ALAC", "DPCM")  # how codecs of lossless files begin

# --- what two recordings are to each other ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Link:
    """A pair of copies: ``share`` of the first, and of the second, is heard in the other (0 to 1)."""

    first: str
    second: str
    share: float
    other_share: float

    def other(self, name: str) -> str:
        """Return the other one of the two."""
        return self.second if name == self.first else self.first

    def own_share(self, name: str) -> float:
        """Return how much of a recording is heard in the other one."""
        return self.share if name == self.first else self.other_share

    def is_same(self) -> bool:
        """Say whether the two are one recording: nearly all of each is heard in the other."""
        return min(self.share, self.other_share) >= SAME

    def is_part(self, name: str) -> bool:
        """Say whether nearly all of a recording, and not only it, is heard in the other one."""
        return not self.is_same() and self.own_share(name) >= SAME

    def describe(self, name: str, kind: str) -> str:
        """Return what a recording is to the other one, as a clause that ends with its name."""
        other = self.other(name)
        if self.is_same():
            return f"the same {kind} as {other}"
        if self.is_part(name):
            return f"a part of {other}"
        if self.is_part(other):
            return f"a longer {kind} that holds {other}"
        return f"a {kind} of which {self.own_share(name):.0%} is heard in {other}"


def links_of(pairs: pd.DataFrame, facts: Mapping[str, Mapping[str, Any]]) -> list[Link]:
    """Return the pairs with how much of each recording is heard in the other.

    Parameters
    ----------
    pairs : pandas.DataFrame
        From ``fingerprint.duplicates``: ``track_id, other_id, offset_s``.
    facts : mapping
        ``track_id`` -> what is known of the file: ``duration_s`` (s), for pieces of MIDI ``notes`` instead.
    """
    found = []
    for first, second, offset in zip(pairs["track_id"], pairs["other_id"], pairs["offset_s"], strict=True):
        sound = isfinite(offset)
        a, b = (float(facts[name].get("duration_s" if sound else "notes") or 0) for name in (first, second))
        both = max(0.0, min(a, b + offset) - max(0.0, offset)) if sound else min(a, b)
        shares = (min(1.0, both / length) if length > 0 else 1.0 for length in (a, b))
        found.append(Link(first, second, *shares))
    return found


def families(names: Iterable[str], links: Iterable[Link], apart: Iterable[str] = ()) -> list[list[str]]:
    """Return the recordings that hang together by links, in the given order; those of ``apart`` link nothing."""
    family = {name: [name] for name in names if name not in set(apart)}
    for link in links:
        one, other = family.get(link.first), family.get(link.second)
        if one is not None and other is not None and one is not other:
            one.extend(other)
            family.update(dict.fromkeys(other, one))
    order = {name: place for place, name in enumerate(family)}
    found = {id(members): sorted(members, key=order.__getitem__) for members in family.values()}
    return [members for members in found.values() if len(members) > 1]


def settle(
    tracks: Sequence[Track],
    pairs: pd.DataFrame,
    facts: Mapping[str, Mapping[str, Any]],
    *,
    paired: bool = False,
    kind: str = "recording",
) -> tuple[pd.DataFrame, list[Link], dict[str, str]]:
    """Say what each pair of copies is, and which recordings are left out for it.

    Parameters
    ----------
    tracks : sequence of Track
        All recordings that can be used.
    pairs, facts
        As for ``links_of`` and ``left_out``.
    paired : bool
        Works are compared in pairs: two versions of a work, one on each side, are meant to be alike and stay, unless
        they are one file.
    kind : str
        What a recording is called.

    Returns
    -------
    pandas.DataFrame, list of Link, dict
        The pairs with ``twins`` (compared as a pair) and ``relation`` (what the first is to the second, in words);
        those that are no twins; ``track_id`` -> reason for being left out.
    """
    known = {track.track_id: track for track in tracks}

    def is_twins(link: Link) -> bool:
        first, second = known[link.first], known[link.second]
        alike = bool(first.work) and first.work == second.work and first.role != second.role
        return paired and alike and facts[link.first].get("sha256") != facts[link.second].get("sha256")

    links = links_of(pairs, facts)
    twins = [is_twins(link) for link in links]
    said = [link.describe(link.first, kind) for link in links]
    others = [link for link, twin in zip(links, twins, strict=True) if not twin]
    return (
        pairs.assign(twins=np.array(twins, dtype=bool), relation=said),
        others,
        left_out(tracks, others, facts, kind=kind),
    )


# --- which one stays --------------------------------------------------------------------------------------------------


def collections_of(links: Sequence[Link], facts: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return recording -> what it holds, for albums and mixes in one file.

    Such a one holds at least two recordings that are nothing to each other, or is long and holds a whole track.
    """
    related = {frozenset((link.first, link.second)) for link in links}
    held: dict[str, list[str]] = {}
    for link in links:
        for part in (link.first, link.second):
            if link.is_part(part):
                held.setdefault(link.other(part), []).append(part)

    def is_mix(whole: str, part: str) -> bool:
        whole_s, part_s = (float(facts[name].get("duration_s") or 0) for name in (whole, part))
        return whole_s >= LONG_S and TRACK_S <= part_s < EXCERPT * whole_s

    return {
        whole: parts
        for whole, parts in held.items()
        if any(frozenset(pair) not in related for pair in combinations(parts, 2))
        or any(is_mix(whole, part) for part in parts)
    }


def is_lossless(facts: Mapping[str, Any]) -> bool:
    """Say whether a file's codec keeps every sample."""
    return str(facts.get("codec", "")).upper().startswith(LOSSLESS)


def left_out(
    tracks: Sequence[Track], links: Sequence[Link], facts: Mapping[str, Mapping[str, Any]], *, kind: str = "recording"
) -> dict[str, str]:
    """Return ``track_id`` -> reason of every copy that is left out.

    Parameters
    ----------
    tracks : sequence of Track
        All recordings that can be used; formats are counted over all of them.
    links : sequence of Link
        Their pairs of copies.
    facts : mapping
        ``track_id`` -> ``format, codec, duration_s, sha256`` of the file.
    kind : str
        What reasons call a recording.
    """
    role = {track.track_id: track.role for track in tracks}
    work = {track.track_id: track.work for track in tracks}
    of: dict[str, list[Link]] = {name: [] for name in role}
    for link in sorted(links, key=lambda link: not link.is_same()):  # what is the same is said before what is a part
        of[link.first].append(link)
        of[link.second].append(link)
    albums = collections_of(links, facts)
    reasons = {name: _holds(parts, kind) for name, parts in albums.items()}
    both = {name: link for name in role for link in reversed(of[name]) if role[link.other(name)] != role[name]}
    for name, link in both.items():
        hint = PAIRED if work[name] and work[name] == work[link.other(name)] else ""
        reasons.setdefault(name, f"{link.describe(name, kind)} {ACROSS}; both are left out{hint}")
    spread = [name for name in both if name not in albums]
    while spread:  # what hangs together with a recording on both sides is no comparison either
        one = spread.pop()
        for name in (link.other(one) for link in of[one]):
            if name not in reasons:
                link = next(link for link in of[name] if link.other(name) == one)
                reasons[name] = f"{link.describe(name, kind)}, which is left out for a copy {ACROSS}"
                spread.append(name)
    order = _preferred([track for track in tracks if track.track_id not in reasons], tracks, of, facts)
    kept: dict[str, int] = {}
    for place, (name, better) in enumerate(order.items()):
        link_kept = next((link for link in of[name] if link.other(name) in kept), None)
        if link_kept is None:
            kept[name] = place
        else:
            why = _why(better, order[link_kept.other(name)])
            reasons[name] = f"{link_kept.describe(name, kind)} on the same side, which is kept{why}"
    return {track.track_id: reasons[track.track_id] for track in tracks if track.track_id in reasons}


def _holds(parts: Sequence[str], kind: str) -> str:
    """Say what a collection holds."""
    listed = " and ".join(parts[:2]) + (f" and {len(parts) - 2} more" if len(parts) > 2 else "")
    return f"holds {listed}: left out as several {kind}s in one file; each of them is looked at by itself"


# The reasons for which one copy is preferred to another, in the order of the keys below.
BETTER = ("whole", "in the format of more recordings", "lossless", "longer")


def _preferred(
    free: Sequence[Track],
    tracks: Sequence[Track],
    of: Mapping[str, Sequence[Link]],
    facts: Mapping[str, Mapping[str, Any]],
) -> dict[str, tuple[Any, ...]]:
    """Return the recordings that are not left out yet, the one to keep first, each with its key; names do not count."""
    counts = Counter(str(facts[track.track_id].get("format")) for track in tracks)
    names = {track.track_id: None for track in free}  # in their order, by which only copies of one file are told apart

    def key(name: str) -> tuple[Any, ...]:
        own = facts[name]
        part = any(
            link.is_part(name) and link.own_share(link.other(name)) < EXCERPT and link.other(name) in names
            for link in of[name]
        )
        length = -round(float(own.get("duration_s") or 0), 1)
        return part, -counts[str(own.get("format"))], not is_lossless(own), length, str(own.get("sha256", ""))

    return {name: key(name) for name in sorted(names, key=key)}


def _why(own: tuple[Any, ...], other: tuple[Any, ...]) -> str:
    """Say why the other copy is preferred; nothing where only a lot decides."""
    found = (better for better, mine, theirs in zip(BETTER, own, other, strict=False) if mine != theirs)
    better = next(found, "")
    return f" ({better})" if better else ""
