"""The same template, unchanged, on small checkpoints in real formats: transformers', audiocraft's and diffusers'.

Whatever a page needs of a published model, it needs of these: the graph for the published ones is in
``test_full_scale.py``. Scores of random weights mean nothing; that the page is made from them is the test.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import yaml

from earwitness.models import describe
from earwitness.pages import execute
from tests import tiny, tiny_audiocraft, tiny_diffusion

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parent.parent
ARTISTS, EACH = 2, 5  # recordings of each artist on each side

FORMATS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "musicgen": ("mia_token", tiny.musicgen),
    **{
        f"audiocraft, {kind}": ("mia_token", partial(tiny_audiocraft.audiocraft, kind=kind))
        for kind in ("audiogen", "magnet")
    },
    **{name: ("mia_diffusion", tiny_diffusion.BUILDERS[name]) for name in ("audioldm", "musicldm", "audioldm2")},
}


def corpus(folder: Path, model: str, seconds: float) -> Path:
    """Write recordings, a manifest with splits, and a card that says whose members they are."""
    rows = []
    for number in range(2 * ARTISTS * EACH):
        name = f"{number:02d}.wav"
        tiny.recording(folder / name, seconds, seed=number)
        split = "train" if number % 2 else "test"
        rows.append(
            {
                "track_id": name,
                "path": name,
                "artist": f"artist {number % 4 // 2}",
                "split": split,
                "caption": "sad rock",
            }
        )
    pd.DataFrame(rows).to_csv(folder / "tiny.csv", index=False)
    card = {"title": "t", "version": 1, "licence": "CC0-1.0", "citation": "c", "membership": "made up",
            "targets": {model: {"member": ["train"], "nonmember": ["test"]}}}  # fmt: skip
    (folder / "tiny.card.yml").write_text(yaml.safe_dump(card))
    return folder / "tiny.csv"


@pytest.mark.parametrize("name", FORMATS)
def test_a_template_runs_unchanged_on_real_formats(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template, make = FORMATS[name]
    folder = tmp_path / "model"
    made = make(folder)
    model = str(made if isinstance(made, Path) else folder)
    seconds = 2.2 * describe(model, allow_download=False).segment_seconds
    (tmp_path / "corpus").mkdir()
    manifest = corpus(tmp_path / "corpus", model, seconds)
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / "results"))
    parameters = {"experiment": "transfer", "model": model, "manifest": str(manifest)}
    parameters |= {"costly_tracks": 4} if template == "mia_diffusion" else {}
    status = tmp_path / "status.json"
    execute(ROOT / "notebooks" / f"{template}.ipynb", tmp_path / "out.ipynb", parameters, status)
    assert json.loads(status.read_text())["state"] == "ok"
    table = pd.read_csv(tmp_path / "results" / "tables" / "transfer" / "mia.csv").set_index("attack")
    headline = "loss/conditional" if template == "mia_token" else "denoising_loss/conditional"
    assert table.loc[headline, "n_member"] == table.loc[headline, "n_nonmember"] == ARTISTS * EACH
    assert table.loc[headline, "n_missing"] == 0
    assert table.index.str.startswith("blind/").any()
