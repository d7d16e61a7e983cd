"""Write what an earlier version leaves behind, small; run it in a checkout of that version: make.py FOLDER."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path.cwd()))

from tests import tiny_corpora, tiny_midi
from tests.tiny import hearing, musicgen, recording
from tests.tiny_diffusion import audioldm

from earwitness import audit

SIDE = 9  # the rule asks for as many on each side


def command(*arguments: object) -> None:
    """Run the command line."""
    subprocess.run([sys.executable, "-m", "earwitness.cli", *map(str, arguments)], check=True)


def main(place: Path) -> None:
    """Write a frozen plan with its log, a report, two stores, a record of recordings and a built manifest."""
    toys = place / "toys"
    os.environ["EARWITNESS_RESULTS"] = str(place / "results")
    rows = ["path,role,artist,caption,split"]
    for side, role in enumerate(("suspect", "held_out")):
        for i in range(SIDE):
            recording(toys / role / f"{i}.wav", 0.9, seed=100 * side + i)
        rows += [f"{role}/{i}.wav,{role},Ann,sad rock,{role}s" for i in range(2)]
    for i in range(8):
        recording(toys / "others" / f"artist-{i // 4}" / f"{i}.wav", 0.9, seed=1000 + i)
    (toys / "few.csv").write_text("\n".join(rows) + "\n")
    tiny_midi.golden_a(toys / "a.mid")
    (toys / "scores.csv").write_text("path,role\na.mid,suspect\n")
    token, diffusion = hearing(musicgen(toys / "token")), audioldm(toys / "diffusion", sample_size=32)

    importlib.import_module("earwitness.audit.heard").EACH = 0  # pictures are large
    asked = {"suspects": toys / "suspect", "held_out": toys / "held_out", "reference_artists": toys / "others"}
    request = audit.Request(models=(str(token),), n_permutations=199, deals=5, redact=True, **asked)
    audit.freeze(request, place / "plan.json")
    audit.run(audit.Request(**vars(request) | {"frozen": place / "plan.json"}), place / "report")

    shutil.rmtree(place / "results" / "signals")
    for name, model, table in (
        ("token", token, "few.csv"),
        ("diffusion", diffusion, "few.csv"),
        ("symbolic", "pocket/figaro-b", "scores.csv"),
    ):
        target = place / "signals" / f"{name}.parquet"
        command("score", f"--model={model}", f"--manifest={toys / table}", f"--done={target.with_suffix('.json')}")
        (part,) = (place / "results" / "signals").glob("*/part-*.parquet")
        shutil.move(part, target)

    sides = (f"--suspects={toys / 'suspect'}", f"--held-out={toys / 'held_out'}")
    command("check", f"--model={token}", *sides, "--write=older")
    for kind in ("csv", "card.yml"):
        shutil.move(Path("data_manifests", "artists", f"older.{kind}"), place / f"record.{kind}")

    (toys / "audiocaps").mkdir()
    tiny_corpora.audiocaps(toys / "audiocaps")
    command(
        "manifest", "build", "audiocaps", f"--from={toys / 'audiocaps'}", "--any-version", f"--out={place}/built.csv"
    )
    shutil.rmtree(toys)
    shutil.rmtree(place / "results")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
