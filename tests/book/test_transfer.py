"""The same template, unchanged, on small checkpoints in real formats: transformers', audiocraft's, diffusers', Tango's.

Whatever a page needs of a published model, it needs of these: the graph for the published ones is in
``tests/book/test_full_scale.py``. Scores of random weights mean nothing; that the page is made from them is the test.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from earwitness.book.pages import execute
from earwitness.models import describe
from tests import tiny, tiny_audiocraft, tiny_diffusion

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
ARTISTS, EACH = 2, 5  # recordings of each artist on each side

TOKEN: dict[str, Callable[[Path], object]] = {
    "musicgen": tiny.musicgen,
    **{f"audiocraft, {kind}": partial(tiny_audiocraft.audiocraft, kind=kind) for kind in ("audiogen", "magnet")},
}
FORMATS = {name: ("mia_token", make) for name, make in TOKEN.items()}
LONG = {  # windows of 47 s, in 25 latent frames a second, as published
    "stable_audio_3": partial(tiny_diffusion.stable_audio_3, patch=80),
    "ace_step": partial(tiny_diffusion.ace_step, strides=(4, 8, 10)),
}
FORMATS |= {name: ("mia_diffusion", make) for name, make in (tiny_diffusion.BUILDERS | LONG).items()}


def built(make: Callable[[Path], Any], folder: Path) -> str:
    """Write a checkpoint and return its folder as a model's name."""
    made = make(folder)
    return str(made if isinstance(made, Path) else folder)


def corpus(folder: Path, model: str, *, apart: bool = False) -> Path:
    """Write recordings, a manifest with splits, and a card; ``apart``: no artist is on both sides."""
    window = describe(model, allow_download=False).segment_seconds
    seconds = window * (2.2 if window < 5 else 1.1)  # two windows, one where it is as long as Tango's
    rows = []
    for number in range(2 * ARTISTS * EACH):
        name = f"{number:02d}.wav"
        tiny.recording(folder / name, seconds, seed=number)
        split = "train" if number % 2 else "test"
        rows.append(
            {
                "track_id": name,
                "path": name,
                "artist": split if apart else f"artist {number % 4 // 2}",
                "split": split,
                "caption": "sad rock",
            }
        )
    pd.DataFrame(rows).to_csv(folder / "tiny.csv", index=False)
    card = {"title": "t", "version": 1, "licence": "CC0-1.0", "citation": "c", "membership": "made up",
            "targets": {model: {"member": ["train"], "nonmember": ["test"]}}}  # fmt: skip
    (folder / "tiny.card.yml").write_text(yaml.safe_dump(card))
    return folder / "tiny.csv"


def tables(template: str, folder: Path, **parameters: Any) -> Path:
    """Execute a template and return the folder of its tables."""
    status = folder / "status.json"
    given = {"experiment": "transfer", **parameters}
    execute(ROOT / "notebooks" / f"{template}.ipynb", folder / "out.ipynb", given, status)
    assert json.loads(status.read_text())["state"] == "ok"
    return folder / "results" / "tables" / "transfer"


@pytest.fixture(autouse=True)
def _own_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / "results"))


@pytest.mark.parametrize("name", FORMATS)
def test_a_template_runs_unchanged_on_real_formats(name: str, tmp_path: Path) -> None:
    template, make = FORMATS[name]
    model = built(make, tmp_path / "model")
    few = {"costly_tracks": 4} if template == "mia_diffusion" else {}
    apart = name in {"musicgen", "audioldm"}  # one of each template: then there is nothing to compare within artists
    manifest = corpus(tmp_path / "corpus", model, apart=apart)
    made = tables(template, tmp_path, model=model, manifest=str(manifest), **few)
    table = pd.read_csv(made / "mia.csv").set_index("attack")
    headline = "loss/conditional" if template == "mia_token" else "denoising_loss/conditional"
    assert table.loc[headline, "n_member"] == table.loc[headline, "n_nonmember"] == ARTISTS * EACH
    assert table.loc[headline, "n_missing"] == 0
    assert table.loc[headline, "n_artists"] == (0 if apart else ARTISTS)
    assert table.index.str.startswith("blind/").any()


def hears(folder: Path) -> Path:
    """Write a token model whose codes differ from recording to recording: equal scores cannot be tested."""
    return tiny.hearing(tiny.musicgen(folder))


@pytest.mark.parametrize("make", [hears, tiny_diffusion.stable_audio])
def test_an_audit_runs_unchanged_on_real_formats(make: Callable[[Path], Path], tmp_path: Path) -> None:
    """From a manifest that says no more than path and role; the report agrees with the scores beside it."""
    model = built(make, tmp_path / "model")
    manifest = corpus(tmp_path / "corpus", model)
    rows = pd.read_csv(manifest)
    roles = rows["split"].map({"train": "suspect", "test": "held_out"})
    rows[["path"]].assign(role=roles).to_csv(manifest, index=False)
    manifest.with_suffix(".card.yml").unlink()
    made = tables("artist_audit", tmp_path, model=model, manifest=str(manifest), deals=20)
    (row,) = pd.read_csv(made / "verdicts.csv").to_dict("records")
    assert row["verdict"] in {"evidence", "no evidence", "not testable"}
    assert 0 < row["p_value"] <= 1
    assert row["n_suspect"] == row["n_held_out"] == ARTISTS * EACH
    assert (tmp_path / "results" / "reports" / "transfer" / "report.html").is_file()
    assert pd.read_csv(made / "verification.csv")["line"].iloc[0].startswith("consistent")


def test_audits_artist_by_artist_run_unchanged_on_real_formats(tmp_path: Path) -> None:
    model, control = (built(tiny_diffusion.audioldm, tmp_path / place) for place in ("model", "control"))
    sides = {"suspects": "train", "held_out": "test", "placebo_suspects": "train", "placebo_held_out": "test"}
    made = tables(
        "di_artist", tmp_path, model=model, control_model=control, manifest=str(corpus(tmp_path / "corpus", model)),
        headline="denoising_loss/conditional", n_permutations=99, **sides,
    )  # fmt: skip
    table = pd.read_csv(made / "artists.csv")
    assert table.groupby("group")["artist"].nunique().to_dict() == dict.fromkeys(
        ("control", "never", "trained"), ARTISTS
    )
    assert (table[["n_suspect", "n_held_out"]] == EACH).all(axis=None)
