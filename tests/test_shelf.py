"""What a folder is, said without loading it: layout, what it lacks, licence, cost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from earwitness import shelf
from earwitness.errors import ModelError
from earwitness.models import describe
from earwitness.models.loading import PIPELINES
from earwitness.shelf import survey
from tests import tiny_diffusion
from tests.tiny import musicgen

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("shelf")
    return {"single": musicgen(root / "musicgen-small"), "pipeline": tiny_diffusion.stable_audio(root / "stable")}


def shown(*arguments: str) -> str:
    from earwitness.cli import app

    done = CliRunner().invoke(app, ["models", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_every_family_that_is_read_is_listed() -> None:
    listed = shown()
    assert len(listed.splitlines()) == len(shelf.LAYOUTS)
    for name in ("MusicGen", "MAGNeT", "AudioLDM 2", "Stable Audio 3", "ACE-Step", "Tango", "FIGARO", "MIDI"):
        assert name in listed


def test_a_folder_is_described_and_nothing_is_built(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.Module, "__init__", lambda *a, **k: pytest.fail("a network was built"))
    said = shown(str(folders["single"]))
    assert "layout: transformers (musicgen)" in said
    assert "loads: yes" in said
    assert "licence: CC-BY-NC-4.0, by its card" in said, "found by the folder's name"
    assert "40 recordings of four minutes: about" in said
    said = shown(str(folders["pipeline"]))
    assert "layout: a pipeline of diffusers (StableAudioPipeline)" in said
    assert "licence: not stated here" in said
    assert "unknown: no card tells the model's size" in said
    assert "window: 0.256 s, 2 channel(s) at 8000 Hz" in said


def test_the_licence_is_what_the_folder_says(folders: dict[str, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folders["single"], tmp_path / "musicgen-small"))
    (copy / "README.md").write_text("---\nlicense: other\nlicense_name: stable-audio-community\n---\nlicense: mit\n")
    assert survey(str(copy)).licence == "other / stable-audio-community, by its README.md"
    (copy / "README.md").write_text("license: mit")
    assert survey(str(copy)).licence == "CC-BY-NC-4.0, by its card", "no front matter says it"


def bare(name: str, content: Any = "") -> Callable[[Path], Any]:
    def make(folder: Path) -> None:
        folder.mkdir()
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))

    return make


CASES: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "lora": (bare("adapter_config.json", {}), "an adapter", "merge it first: python -c"),
    "stable-audio-tools": (bare("model_config.json", {}), "stable-audio-tools' own", "not a Stable Audio's"),
    "another pipeline": (
        bare("model_index.json", {"_class_name": "LongCatAudioDiTPipeline"}), "LongCatAudioDiTPipeline, of no family",
        "'LongCatAudioDiTPipeline' is no family we load",
    ),
    "another model": (bare("config.json", {"model_type": "bark"}), "bark, of no family", "'bark' is no family we load"),
    "nothing": (lambda folder: folder.mkdir(), "none that is known", "found no model's files; .*hf download"),
    "one file of another": (bare("ldm.safetensors"), "none that is known", "weights .ldm.safetensors. without their"),
    "gguf": (bare("model-Q4_K.gguf"), "none that is known", "is weights rounded for llama.cpp .*GGUF.*hf download"),
    "onnx": (bare("decoder_model.onnx"), "none that is known", "is a graph for inference alone .ONNX.*hf download"),
    "core ml": (bare("model.mlmodel"), "none that is known", "is a graph for inference alone .Core ML.*hf download"),
    "nemo": (bare("audio.nemo"), "none that is known", "is an archive of NeMo's"),
    "tensorflow": (bare("tf_model.h5"), "none that is known", "is weights of TensorFlow's; .*hf download"),
    "a broken download": (bare("x.incomplete"), "none that is known", "broken off; the same command .*hf download"),
    "weights of anything": (bare("model.pth"), "none that is known", "weights .model.pth. without their configuration"),
    "a checkpoint": (bare("e.ckpt", "x" * 99), "a checkpoint of Lightning's", "e.ckpt: a pickle that asks"),
    "a folder of models": (
        lambda f: bare("config.json", {"model_type": "musicgen"})((f.mkdir(), f / "a")[1]), "none that is known",
        "a folder of models or parts; name one: earwitness models FOLDER/a",
    ),
    "half a pipeline": (
        bare("model_index.json", {"_class_name": "AceStepPipeline"}), "AceStepPipeline",
        "lacks transformer, vae, text_encoder, tokenizer, condition_encoder, scheduler",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_cannot_be_used_says_what_it_is_and_why(name: str, tmp_path: Path) -> None:
    import re

    make, layout, reason = CASES[name]
    make(tmp_path / "m")
    found = survey(str(tmp_path / "m"))
    assert layout in found.layout
    assert re.search(reason, found.lacks)
    assert found.info is None
    assert re.search(f"loads: no: .*{reason}", shown(str(tmp_path / "m")))


def test_parts_without_weights_or_vocabulary_are_missed(folders: dict[str, Path], tmp_path: Path) -> None:
    for damage, reason in (
        (lambda f: (f / "vae" / "diffusion_pytorch_model.safetensors").unlink(), "vae: expected weights"),
        (lambda f: [p.unlink() for p in (f / "tokenizer").iterdir()], "tokenizer: expected a tokenizer"),
    ):
        copy = Path(shutil.copytree(folders["pipeline"], tmp_path / reason[:5]))
        damage(copy)
        assert survey(str(copy)).lacks.startswith(reason)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_pointer_of_git_lfs_is_not_the_file(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folders["single"], tmp_path / "m"))
    (copy / "model.safetensors").unlink()
    (copy / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 2\n")
    with pytest.raises(ModelError, match=f"m/{name}: what git-lfs keeps in the file's place.*: git lfs pull"):
        describe(str(copy))


def test_a_name_that_is_nowhere_is_refused_and_never_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def fetch(name: str, *, local_files_only: bool, **_: Any) -> str:
        asked.append(local_files_only)
        raise OSError("nothing here")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    with pytest.raises(ModelError, match="not in the local cache"):
        survey("lab/model")
    assert asked == [True]


def test_every_pipeline_that_is_read_has_a_family() -> None:
    from importlib import import_module

    for module in set(PIPELINES.values()):
        family = import_module(f"earwitness.models.{module}")
        assert callable(family.describe)
        assert callable(family.load)
