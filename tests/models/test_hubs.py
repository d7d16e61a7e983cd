"""Hubs and strangers' folders: what was planned is what is scored, nothing is fetched unasked, no code is run."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants

import earwitness as ew
from earwitness.errors import ModelError
from earwitness.models import describe, load_model, locate, revision
from earwitness.signals import extraction
from earwitness.types import Track
from tests import tiny_diffusion
from tests.tiny import musicgen, recording
from tests.tiny_audiocraft import audiocraft
from tests.tiny_hub import Hub

NAME = "lab/model"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("models")
    return [musicgen(root / f"v{seed}", seed=seed) for seed in (1, 2)]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folders: list[Path]) -> Hub:
    hub = Hub(tmp_path / "cache", monkeypatch)
    hub.publish(NAME, folders[0])
    return hub


@pytest.fixture
def tracks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Track]:
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / "results"))
    return [Track(f"t{i}", recording(tmp_path / f"t{i}.wav", 0.7, seed=i), "member") for i in range(2)]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every attempt to look a name up or to connect; the library believes to be online."""
    found: list[str] = []

    def refuse(*arguments: Any, **_: Any) -> None:
        found.append(str(arguments))
        raise OSError("no network in tests")

    for what in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, what, refuse)
    for what in ("create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, what, refuse)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return found


# --- what was planned is what is scored -------------------------------------------------------------------------------


def scores(signals: Any) -> Any:
    return ew.score(signals, ["loss"])["score"].dropna().to_numpy()


def test_a_hub_that_changes_between_plan_and_score_serves_what_was_planned(
    hub: Hub, folders: list[Path], tracks: list[Track]
) -> None:
    planned = describe(NAME, allow_download=True)
    assert planned.revision == revision(folders[0])
    hub.publish(NAME, folders[1])
    before = list(hub.fetched)
    signals = ew.collect(NAME, tracks)
    assert signals.info.revision == planned.revision
    assert ew.load_model(NAME).info.revision == planned.revision
    assert hub.fetched == before, "nothing is fetched unless it is allowed"
    assert scores(signals).tolist() == scores(ew.collect(str(folders[0]), tracks)).tolist()
    assert describe(NAME, allow_download=True).revision == planned.revision, "what is here is completed, not replaced"
    assert {commit for _, commit in hub.fetched} == {hub.commit(folders[0])}


def test_a_cache_that_moves_on_after_the_description_is_not_followed(
    hub: Hub, folders: list[Path], tracks: list[Track], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = load_model
    info = describe(NAME, allow_download=True)

    def late(model: Any, **options: Any) -> Any:
        hub.fetch(NAME, folders[1])  # another process updates the cache
        return real(model, **options)

    monkeypatch.setattr(extraction, "load_model", late)
    for given in (NAME, info):
        hub.fetch(NAME, folders[0])
        shutil.rmtree(Path(os.environ["EARWITNESS_RESULTS"]), ignore_errors=True)
        signals = ew.collect(given, tracks)
        assert signals.info.revision == info.revision == revision(folders[0])
        assert scores(signals).tolist() == scores(ew.collect(str(folders[0]), tracks)).tolist()
    assert describe(NAME).revision == revision(folders[1])


def test_nothing_is_fetched_unless_it_is_allowed(hub: Hub, tracks: list[Track]) -> None:
    for ask in (locate, describe, ew.load_model, lambda name: ew.collect(name, tracks)):
        with pytest.raises(ModelError, match=f"'{NAME}': not in the local cache and not downloaded"):
            ask(NAME)
    assert not hub.fetched
    assert ew.collect(NAME, tracks, allow_download=True).info.name == NAME
    assert len(set(hub.fetched)) == 1


def test_files_that_change_while_they_are_scored_give_no_scores(
    folders: list[Path], tracks: list[Track], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, real = Path(shutil.copytree(folders[0], tmp_path / "copy")), extraction.score_part

    def changing(*arguments: Any) -> Any:
        weights = copy / "model.safetensors"
        held, content = weights.stat(), bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
        os.utime(weights, ns=(held.st_atime_ns, held.st_mtime_ns))  # as if nothing had happened
        return real(*arguments)

    monkeypatch.setattr(extraction, "score_part", changing)
    with pytest.raises(ModelError, match="copy: its files changed while scoring"):
        ew.collect(str(copy), tracks)
    assert not list(tmp_path.rglob("part-*.parquet"))


def test_what_is_hashed_is_what_is_loaded_through_links_too(tmp_path: Path) -> None:
    whole = tiny_diffusion.audioldm(tmp_path / "whole")
    elsewhere = Path(shutil.move(whole / "unet", tmp_path / "unet"))
    (whole / "unet").symlink_to(elsewhere)
    before = describe(str(whole)).revision
    (elsewhere / "config.json").write_text((elsewhere / "config.json").read_text() + "\n")
    assert describe(str(whole)).revision != before
    (whole / "round").symlink_to(whole)
    with pytest.raises(ModelError, match="its folders go round in a circle"):
        describe(str(whole))


# --- a folder names, nobody asks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", ["state_dict.bin", "compression_state_dict.bin"])
def test_parts_that_an_audiocraft_folder_names_are_never_fetched(
    named: str, tmp_path: Path, tracks: list[Track], asked: list[str]
) -> None:
    folder = audiocraft(tmp_path / "craft")
    if named == "state_dict.bin":
        shutil.rmtree(folder / "t5-base")
        part = "t5-base"
    else:
        part = "stranger/codec"
        torch.save({"pretrained": part}, folder / named)
    message = f"'{part}': not in the local cache and not downloaded, for it is craft .*hf download {part}"
    with pytest.raises(ModelError):
        ew.collect(str(folder), tracks)
    assert asked == [], "only names that somebody typed may be looked up"
    for allowed in (False, True):  # a folder was typed, no name of a hub
        with pytest.raises(ModelError, match=message):
            ew.load_model(str(folder), allow_download=allowed)
        with pytest.raises(ModelError, match=message):
            ew.collect(str(folder), tracks, allow_download=allowed)
    assert asked == []


def test_a_codec_cannot_be_a_way_out_of_the_folder(tmp_path: Path) -> None:
    folder = audiocraft(tmp_path / "craft")
    for name in ("x/..", "../x", "x/.", "/x/y"):
        torch.save({"pretrained": name}, folder / "compression_state_dict.bin")
        with pytest.raises(ModelError, match="no hub name of an EnCodec"):
            describe(str(folder))


def edit(path: Path, **fields: Any) -> None:
    held = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(held | fields))


ELSEWHERE = {"_name_or_path": "stranger/model", "base_model_name_or_path": "stranger/base", "_commit_hash": "0" * 40}


def test_names_in_configurations_are_not_looked_up(folders: list[Path], tmp_path: Path, asked: list[str]) -> None:
    pipeline = tiny_diffusion.audioldm2(tmp_path / "pipeline")
    single = Path(shutil.copytree(folders[0], tmp_path / "single"))
    for folder in (pipeline, single):
        for path in folder.rglob("*.json"):
            if path.name.endswith(("config.json", "model_index.json")):
                edit(path, **ELSEWHERE)
    config = json.loads((single / "config.json").read_text())
    for part in ("text_encoder", "audio_encoder", "decoder"):
        config[part] |= ELSEWHERE
    (single / "config.json").write_text(json.dumps(config))
    for folder in (pipeline, single):
        ew.load_model(str(folder), allow_download=True)
    edit(single / "adapter_config.json", peft_type="LORA", **ELSEWHERE)
    try:
        ew.load_model(str(single))
    except ModelError as error:
        assert "adapter" in str(error)  # noqa: PT017 (either is sound)
    assert asked == []


# --- no code ----------------------------------------------------------------------------------------------------------

OWN = [
    "AutoConfig",
    "AutoModel",
    "AutoModelForTextEncoding",
    "AutoProcessor",
    "AutoFeatureExtractor",
    "AutoImageProcessor",
]
FILES = [
    *("config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json"),
    *("scheduler_config.json", "generation_config.json", "model_index.json"),
]
LOAD = """
import sys
import earwitness as ew
from earwitness.errors import ModelError
for folder in sys.argv[1:]:
    try:
        ew.load_model(folder)
        print("loaded")
    except ModelError as error:
        print("refused:", error)
print("left on standard input:", sys.stdin.read().count("y"))
"""


def booby_trapped(folder: Path, marker: Path) -> Path:
    """Name own code in every configuration of a folder, and in each part of one."""
    own = dict.fromkeys(OWN, "own.Own") | {"AutoTokenizer": ["own.Own", "own.Own"]}
    for place in {path.parent for path in folder.rglob("*.json")}:
        (place / "own.py").write_text(f"import pathlib\npathlib.Path({str(marker)!r}).touch()\nclass Own: pass\n")
        for name in FILES:
            if (place / name).is_file():
                edit(place / name, auto_map=own, trust_remote_code=True)
        if (place / "tokenizer_config.json").is_file():
            edit(place / "tokenizer_config.json", tokenizer_class="Own")
    return folder


def test_no_code_of_a_folder_is_run_and_nobody_is_asked(folders: list[Path], tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    trapped = [Path(shutil.copytree(folders[0], tmp_path / "single")), tiny_diffusion.musicldm(tmp_path / "musicldm")]
    trapped += [tiny_diffusion.stable_audio(tmp_path / "stable")]
    for folder in trapped:
        booby_trapped(folder, marker)
    found = subprocess.run(
        [sys.executable, "-c", LOAD, *map(str, trapped)], input="y\n" * 20, text=True, capture_output=True, timeout=300,
        env=os.environ | {"HF_MODULES_CACHE": str(tmp_path / "modules")},
    )  # fmt: skip
    assert not marker.exists(), "code of the folder was run"
    lines = found.stdout.splitlines()
    assert lines[-1] == "left on standard input: 20", found.stdout + found.stderr
    assert all(line.startswith(("loaded", "refused")) for line in lines[:-1]), found.stdout
    assert len(lines) == 4
    assert "Traceback" not in found.stderr
