"""A hub of folders on this disk, behind the library's own cache: what it serves can change between two calls."""

from __future__ import annotations

import hashlib
import shutil
from fnmatch import fnmatch
from pathlib import Path

import pytest
from huggingface_hub import constants, snapshot_download
from huggingface_hub.file_download import repo_folder_name


class Hub:
    """``publish`` puts a folder under a name; ``fetched`` lists what was downloaded, name and commit."""

    def __init__(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cache, self.folders, self.fetched = cache, list[tuple[str, Path]](), list[tuple[str, str]]()
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr("huggingface_hub.snapshot_download", self._download)

    def publish(self, name: str, folder: Path) -> str:
        """Make a folder the newest commit of a name; return the commit."""
        self.folders.append((name, folder))
        return self.commit(folder)

    @staticmethod
    def commit(folder: Path) -> str:
        return hashlib.sha1(str(folder).encode()).hexdigest()

    def snapshot(self, name: str, commit: str) -> Path:
        return self.cache / repo_folder_name(repo_id=name, repo_type="model") / "snapshots" / commit

    def fetch(self, name: str, folder: Path, patterns: tuple[str, ...] = ("*",)) -> None:
        """Put a commit into the cache and make it the one that the name means here, as another process might."""
        place = self.snapshot(name, self.commit(folder))
        for path in folder.rglob("*"):
            name = path.relative_to(folder).as_posix()
            if path.is_file() and any(fnmatch(name, pattern) for pattern in patterns):
                blob = place.parent.parent / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
                blob.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, blob)
                link = place / path.relative_to(folder)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.unlink(missing_ok=True)
                link.symlink_to(blob)
        (place.parent.parent / "refs").mkdir(exist_ok=True)
        (place.parent.parent / "refs" / "main").write_text(place.name)

    def _download(
        self, name: str, *, allow_patterns: list[str], local_files_only: bool, revision: str | None = None
    ) -> str:
        if local_files_only:
            return snapshot_download(
                name, allow_patterns=allow_patterns, local_files_only=True, revision=revision, cache_dir=self.cache
            )
        held = [folder for known, folder in self.folders if known == name]
        folder = next((f for f in held if self.commit(f) == revision), held[-1])
        self.fetched.append((name, self.commit(folder)))
        self.fetch(name, folder, tuple(allow_patterns))
        return str(self.snapshot(name, self.commit(folder)))
