"""What a file's tags say of title, artist and album: evidence for which recordings are versions of one work.

Tags are text from strangers: read where files are decoded, cut short, and never used but to compare titles.
"""

from __future__ import annotations

from pathlib import Path

TAGS = ("title", "artist", "album")
LONGEST = 200  # characters of a tag that are kept
MOV = {".m4a", ".m4b", ".mp4"}


def read_tags(path: Path) -> dict[str, str]:
    """Return the tags that a file has, of ``title``, ``artist`` and ``album``; none if they cannot be read."""
    try:
        found = _of_mp4(path) if path.suffix.lower() in MOV else _of_others(path)
    except Exception:  # whatever a library makes of broken tags: the sound has been read, and tags are only evidence
        return {}
    return {name: text[:LONGEST] for name in TAGS if (text := str(found.get(name) or "").strip())}


def _of_others(path: Path) -> dict[str, str]:
    import soundfile

    with soundfile.SoundFile(path) as file:
        return dict(file.copy_metadata())


def _of_mp4(path: Path) -> dict[str, str]:
    import av

    how = {"protocol_whitelist": "none", "enable_drefs": "0"}
    with path.open("rb") as file, av.open(file, format="mov", options=how, metadata_errors="replace") as container:
        return {name.lower(): text for name, text in container.metadata.items()}
