"""Recordings by number, and what stands in place of names, paths and hashes in what is given away.

Numbers follow the order of the files' hashes, so they depend on neither names nor roles, and a report with names and
one without hold the same numbers everywhere. A hash of a published file names it as surely as its title does; an HMAC
names it only to whoever holds the key.

Book pages: *Audit your own*, *Threat model*.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from earwitness.data.containers import content_hash
from earwitness.data.manifest import ROLES
from earwitness.errors import AudioError, InputError
from earwitness.types import SIDE_OF, Track
from earwitness.util import digest, plain, reason_of, sha256, unreadable


@dataclass(frozen=True)
class Numbered:
    """Recordings under their numbers.

    Attributes
    ----------
    tracks : list of Track
        ``track_id`` is a number such as ``T007``, ``artist`` one such as ``A01``, ``work`` one such as ``W003`` (or
        empty); ``role`` is ``suspect`` or ``held_out``; ``sha256`` is set.
    names : dict of str to str
        Number -> the recording's own name.
    artists : dict of str to str
        Number -> the artist's own name.
    gone : dict of str to str
        Own name -> why a recording has no number: it vanished or changed since it was examined.
    """

    tracks: list[Track]
    names: dict[str, str]
    artists: dict[str, str]
    gone: dict[str, str] = field(default_factory=dict)


def number(tracks: Sequence[Track], letters: str = "TA") -> Numbered:
    """Give every recording, artist and work a number.

    Parameters
    ----------
    tracks : sequence of Track
        Whatever their order.
    letters : str
        How the numbers of recordings and artists begin.
    """
    hashed, gone = [], {}
    for track in tracks:
        try:
            content = content_hash(track.path)
        except (AudioError, OSError) as error:
            why = str(error).removeprefix(f"{track.path.name}: ") if isinstance(error, AudioError) else reason_of(error)
            gone[track.track_id] = f"could not be read any more when it was to be scored ({why})"
            continue
        if track.sha256 and content != track.sha256:
            gone[track.track_id] = "was changed since it was examined"
            continue
        hashed.append((content, track))
    hashed.sort(key=lambda pair: (pair[0], pair[1].track_id))
    width = max(3, len(str(len(hashed))))
    artists = _numbers(letters[1], (track.artist for _, track in hashed))
    works = _numbers("W", (track.work for _, track in hashed))
    renamed, names = [], {}
    for i, (content, track) in enumerate(hashed, 1):
        key = f"{letters[0]}{i:0{width}d}"
        names[key] = track.track_id
        renamed.append(
            replace(
                track,
                track_id=key,
                sha256=content,
                artist=artists.get(track.artist, ""),
                work=works.get(track.work, ""),
                role=SIDE_OF.get(track.role, track.role),
            )
        )
    return Numbered(renamed, names, {key: name for name, key in artists.items()}, gone)


def _numbers(letter: str, names: Iterable[str]) -> dict[str, str]:
    """Number the distinct names that are not empty, in order of first appearance."""
    found = [name for name in dict.fromkeys(names) if name]
    width = max(2, len(str(len(found))))
    return {name: f"{letter}{i:0{width}d}" for i, name in enumerate(found, 1)}


def manifest_hash(recordings: Iterable[tuple[str, str]]) -> str:
    """Return the SHA-256 over (file hash, role) of all recordings, whatever their names and order."""
    lines = sorted(f"{content} {role}\n" for content, role in recordings)
    return sha256("".join(lines))


def texts_hash(tracks: Iterable[Track]) -> str:
    """Return the SHA-256 over what is known of the recordings besides their sound: captions, artists, works."""
    return digest(sorted([track.sha256, track.caption, track.artist, track.work] for track in tracks))


def seed_of(content: str) -> int:
    """Return the seed that a manifest's hash gives."""
    return int(content[:8], 16)


# --- what a redacted report has instead of hashes ---------------------------------------------------------------------


class Known(BaseModel):
    """What the holder of a key knows of a recording."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    artist: str
    sha256: str


class Key(BaseModel):
    """The secret of redacted reports, and what their HMACs stand for."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    key: str
    recordings: dict[str, Known]

    def seal(self, content: str) -> str:
        """Return the HMAC-SHA256 of a hash, in hexadecimal: it tells nothing to whoever has the file and no key."""
        return hmac.new(bytes.fromhex(self.key), content.encode(), hashlib.sha256).hexdigest()


def read_key(path: Path) -> Key:
    """Read a key.

    Raises
    ------
    InputError
        No key there, or something else.
    """
    try:
        if reason := unreadable(path, path.resolve().parent, 2**26):
            raise InputError(f"{path.name}: expected the key of a redacted report, found {reason}")
        key = Key.model_validate_json(path.read_bytes())
        if any(key.seal(known.sha256) != sealed for sealed, known in key.recordings.items()):
            raise InputError(
                f"{path.name}: what it says of the recordings does not follow from its key; it was changed"
            )
    except OSError as error:
        raise InputError(f"{path.name}: expected the key of a redacted report, {reason_of(error)}") from None
    except (ValidationError, ValueError):
        raise InputError(f"{path.name}: no key of a redacted report; move it, or name the right file") from None
    return key


# --- text ------------------------------------------------------------------------------------------------------------

LENGTH = re.compile(r"(\d)\.\d+ s\b")


class Redactor:
    """Replaces whatever names the recordings by ``[a recording]``, ``[an artist]`` and the like.

    Parameters
    ----------
    tracks : iterable of Track
        All recordings found.
    ids : iterable of str
        Further names of recordings, such as of those that were refused unopened.
    places : iterable of Path
        Folders and files named by the caller.
    """

    def __init__(self, tracks: Iterable[Track], *, ids: Iterable[str] = (), places: Iterable[Path] = ()) -> None:
        words: dict[str, str] = {}
        tracks = list(tracks)
        for name in [*(track.track_id for track in tracks), *ids, *(str(track.path) for track in tracks)]:
            path = Path(name)
            words |= {str(folder): "[a folder]" for folder in path.parents}
            words |= {folder.name: "[a folder]" for folder in path.parents}
            words |= dict.fromkeys((name, path.name, plain(name), plain(path.name)), "[a recording]")
        for track in tracks:
            words |= {track.artist: "[an artist]", track.work: "[a work]", track.caption: "[a caption]"}
        for place in places:
            words |= dict.fromkeys((str(place), place.name, str(place.absolute())), "[a folder]")
        for role in ROLES:  # the first folder of every track_id; words of the report, not names
            words.pop(role, None)
        self._words = {word: instead for word, instead in words.items() if word.strip("./ ")}
        ordered = sorted(self._words, key=len, reverse=True)
        pattern = "|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in ordered)
        self._pattern = re.compile(pattern or r"(?!)")

    def __call__(self, text: str) -> str:
        """Return ``text`` without the names, and without the fractions of seconds that tell one recording's length."""
        return LENGTH.sub(r"\1 s", self._pattern.sub(lambda found: self._words[found.group()], text))
