"""The pocket symbolic twins: a micro training run in FIGARO's names and shapes, and the weights that are shipped."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import earwitness as ew  # noqa: E402
from earwitness.errors import ModelError  # noqa: E402
from earwitness.models import pocket_names  # noqa: E402
from earwitness.pocket import corpus  # noqa: E402
from earwitness.pocket.midi import midi_bytes  # noqa: E402
from earwitness.symbolic.windows import FigaroScheme  # noqa: E402
from earwitness.util import project_root  # noqa: E402
from earwitness_build.training import figaro  # noqa: E402
from earwitness_build.training.train import WEIGHTS  # noqa: E402

RECIPE = figaro.FigaroRecipe(seed=3, window=32, width=16, heads=2, decoder_layers=1, epochs=1, batch=8)
SHIPPED = tuple(f"pocket/{twin.name}" for twin in figaro.TWINS)
MANIFEST = project_root() / "data_manifests" / "pocket-midi.csv"


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, paths = tmp_path_factory.mktemp("scores"), []
    for entry in corpus.plan()[:2]:
        paths.append(folder / f"{entry.track_id}.mid")
        paths[-1].write_bytes(midi_bytes(entry.piece(), entry.artist))
    return paths


def test_training_reads_the_windows_that_are_scored(pieces: list[Path]) -> None:
    windows = figaro.encode_pieces(pieces, 32)
    scheme = FigaroScheme(window=32)
    scored = np.stack([w.tokens for w in scheme.windows(scheme.read(pieces[0]))])
    np.testing.assert_array_equal(windows["tokens"][: len(scored)].numpy(), scored)
    count = len(windows["tokens"])
    assert all(windows[name].shape == (count, 32) for name in figaro.INPUTS[1:])


def test_a_micro_run_saves_what_the_adapter_loads(pieces: list[Path], tmp_path: Path) -> None:
    torch.set_num_threads(1)
    windows = figaro.encode_pieces(pieces, RECIPE.window)
    network = figaro.build_network(RECIPE)
    losses = figaro.train_network(network, windows, RECIPE)
    assert len(losses) == -(-len(windows["tokens"]) // RECIPE.batch)
    assert losses[0] == pytest.approx(np.log(1357), rel=0.05), "untrained: every token as likely"
    assert losses[-1] < losses[0]
    figaro.save_twin(network, RECIPE, tmp_path / "toy", {"name": "toy"})
    model: Any = ew.load_model(str(tmp_path / "toy"))
    assert model.info.scheme.window == 32
    for name, value in network.state_dict().items():
        assert torch.equal(model.network.state_dict()[name], value.half().float())


def test_training_is_reproducible_and_uses_its_seed(pieces: list[Path]) -> None:
    windows = figaro.encode_pieces(pieces, RECIPE.window)
    found = []
    for seed in (1, 1, 2):
        recipe = replace(RECIPE, seed=seed)
        found.append(figaro.train_network(figaro.build_network(recipe), windows, recipe))
    assert found[0] == found[1] != found[2]


def test_only_known_twins_are_trained() -> None:
    with pytest.raises(ModelError, match="no pocket model 'figaro-c'; there are figaro-a, figaro-b"):
        figaro.train_twins(only="figaro-c")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_twins(name: str) -> None:
    folder = WEIGHTS / name.removeprefix("pocket/")
    record = json.loads((folder / "training.json").read_text())
    assert record["weights_sha256"] == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) <= 2_000_000
    (twin,) = [t for t in figaro.TWINS if t.name == record["name"]]
    assert record["splits"] == [twin.split]
    assert record["tracks"] == 240
    assert record["recipe"] == json.loads(json.dumps(asdict(twin.recipe))), "train it again, or restore its recipe"
    info = ew.load_model(name).info
    assert info.badge == "pocket"
    assert info.scheme.window == twin.recipe.window


def test_the_twins_are_two() -> None:
    assert set(SHIPPED) == {name for name in pocket_names() if "figaro" in name}
    states = [(WEIGHTS / name.removeprefix("pocket/") / "model.safetensors").read_bytes() for name in SHIPPED]
    assert states[0] != states[1]


@pytest.mark.slow
def test_twin_b_remembers_its_own_pieces_and_twin_a_does_not() -> None:
    """Twin b's pieces against those nobody saw: a signal between useless and trivial on b, none on a."""
    tracks = ew.read_manifest(MANIFEST, target="pocket/figaro-b")
    own, other = (
        ew.compare(ew.score(ew.collect(name, tracks, progress=False)), attacks=["loss/conditional"]).iloc[0]
        for name in SHIPPED[::-1]
    )
    assert 0.55 <= own["auc"] <= 0.70
    assert own["auc_within_low"] > 0.6
    assert other["auc_within_low"] < 0.5 < other["auc_within_high"]
