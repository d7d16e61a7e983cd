"""What every test runs under: one thread, no network, the project root as working directory."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

# Before anything imports numpy or torch. xdist runs several workers; two threads each on two cores are ruinous.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ.update(TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1", MPLBACKEND="agg")

# A shell starts what it runs in the background deaf to Ctrl-C, and so would be all that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
]


def in_the_book() -> list[str]:
    """Return the files that the last build shows: pages of other tiers are in ``book/_toc.yml`` alone."""
    from earwitness.book.pages import every_chapter
    from earwitness.util import results_dir

    built = results_dir() / "pages" / "_toc.yml"
    toc = yaml.safe_load((built if built.is_file() else ROOT / "book" / "_toc.yml").read_text())
    return [toc["root"], *(chapter["file"] for _, chapter in every_chapter(toc))]


@pytest.fixture(scope="session")
def root() -> Path:
    """Folder of the checkout."""
    return ROOT


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start every test in the checkout's folder, wherever pytest was called."""
    monkeypatch.chdir(ROOT)


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse connections to anything but this machine: no test needs the network, and none may come to need it."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        host = address[0] if isinstance(address, tuple) else "localhost"
        if host not in {"localhost", "127.0.0.1", "::1"}:
            raise AssertionError(f"a test tried to connect to {host}; tests run offline")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(scope="session")
def book(root: Path) -> Path:
    """Folder of the built book. Its absence is a failure, not a reason to skip: `make check` builds it first."""
    folder = root / "book" / "_build" / "html"
    assert (folder / "index.html").is_file(), "no built book; run `make book` first"
    return folder


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium to test pages in; skipped where there is none, except in continuous integration."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        message = "no Chromium; on Debian: apt-get install chromium"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
    return str(found)


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    """Return a running Chromium."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as p:
        launched = p.chromium.launch(executable_path=chromium, args=FLAGS)
        yield launched
        launched.close()
