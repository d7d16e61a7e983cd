"""What a whole audit opens and connects to, as the system saw it: no network, and no file but its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

pytestmark = pytest.mark.slow
CALL = re.compile(r"\b(?:open|creat|openat2?)\((?:[^\",]*, )?\"((?:[^\"\\]|\\.)*)\".* = (-?\d+)")
# What every program on a Linux system may read: libraries, fonts, settings of the system, devices that give nothing.
SYSTEM = (
    "/lib",
    "/usr",
    "/etc",
    "/var/cache/fontconfig",
    "/proc",
    "/sys",
    "/dev/null",
    "/dev/urandom",
    "/dev/shm/sem.",
)
SETTINGS = (".gitconfig", ".config/git")  # git's, which names the commit in the report


@pytest.fixture(scope="module")
def tools() -> list[str]:
    """Return the command that runs another without a network, and the one that writes down what it opens."""
    lacking = [name for name in ("strace", "unshare") if shutil.which(name) is None]
    if not lacking and subprocess.run(["unshare", "--map-root-user", "--net", "true"], capture_output=True).returncode:
        lacking = ["unshare, with namespaces for users allowed"]
    if lacking:
        message = f"no {' and no '.join(lacking)}; on Debian: apt-get install strace util-linux"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
    calls = "trace=open,openat,openat2,creat,socket"
    return ["unshare", "--map-root-user", "--net", "strace", "-f", "-qq", "-s", "4096", "-e", calls, "-o"]


def opened(trace: Path) -> Iterator[str]:
    """Yield the names of all files that were opened, or made, with success."""
    for line in trace.read_text(errors="replace").splitlines():
        found = CALL.search(line)
        if found and int(found[2]) >= 0:
            yield found[1]


def allowed(name: str, places: list[Path]) -> bool:
    return name.startswith(SYSTEM) or any(Path(os.path.realpath(name)).is_relative_to(place) for place in places)


def test_the_reader_of_traces_sees_what_a_program_opens(tools: list[str], tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    code = f"import socket; open({str(secret)!r}); socket.socket(socket.AF_INET)"
    subprocess.run([*tools, str(tmp_path / "trace"), sys.executable, "-c", code], check=True)
    assert str(secret) in set(opened(tmp_path / "trace"))
    assert "socket(AF_INET" in (tmp_path / "trace").read_text()
    assert not allowed(str(secret), [tmp_path / "elsewhere"])


def test_an_audit_runs_without_a_network_and_opens_its_own_files_only(
    tools: list[str], tmp_path: Path, root: Path
) -> None:
    rng = np.random.default_rng(7)
    for side in ("suspects", "held_out"):
        (tmp_path / side).mkdir()
        for i in range(12):
            sf.write(tmp_path / side / f"{i}.flac", rng.uniform(-0.5, 0.5, 3 * 16_000), 16_000)
    work = tmp_path / "results"
    command = [
        *tools, str(tmp_path / "trace"), sys.executable, "-m", "earwitness.cli", "audit",
        "--suspects", str(tmp_path / "suspects"), "--held-out", str(tmp_path / "held_out"),
        "--model", "pocket/musicgen-a", "--permutations", "199", "--deals", "20", "--out", str(tmp_path / "report"),
    ]  # fmt: skip
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    surroundings = {"EARWITNESS_RESULTS": str(work), "TMPDIR": str(temporary), "MPLCONFIGDIR": str(temporary)}
    run = subprocess.run(command, capture_output=True, text=True, cwd=root, env=os.environ | surroundings)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "report" / "report.html").is_file()

    sockets = re.findall(r"socket\((AF_\w+)", (tmp_path / "trace").read_text(errors="replace"))
    assert set(sockets) <= {"AF_UNIX"}
    environment = [Path(place).resolve() for place in (sys.prefix, sys.base_prefix, root, *filter(None, sys.path))]
    git = subprocess.run(["git", "rev-parse", "--git-common-dir"], capture_output=True, text=True, cwd=root).stdout
    places = [*environment, (root / git.strip()).resolve(), tmp_path.resolve()]
    places += [Path.home().resolve() / name for name in SETTINGS]
    inputs = {str(path) for side in ("suspects", "held_out") for path in (tmp_path / side).iterdir()}
    seen = set(opened(tmp_path / "trace"))
    assert inputs <= seen  # the trace holds what the processes that decode open, too
    strange = {name for name in seen if not allowed(str(root / name), places)}
    assert not strange - {str(path) for path in tmp_path.parents}, sorted(strange)
