"""Folders made to break a reader: one line each, no traceback, no hang, and never a word about the recordings."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import earwitness as ew
from earwitness.errors import ModelError
from earwitness.models import describe, load_model, tango
from earwitness.types import Track
from tests import tiny_diffusion, tiny_figaro
from tests.models.test_midi_lm import piece, write
from tests.tiny import musicgen, recording
from tests.tiny_audiocraft import audiocraft

MUTATIONS = 500  # a family
LOADED = 8  # of those that their description lets pass
NESTED: Any = {}
for _ in range(60):
    NESTED = {"a": NESTED}
VALUES = [
    *(None, [], {}, "", "wide", [None], ["x"], {"a": 1}, NESTED, [2] * 5000, True, False, 0, -1, -5, 0.5),
    *(float("nan"), float("inf"), -float("inf"), 1e308, 2**31, 2**63, 10**12, 10**400, -(10**400), 1e-320),
]
FAMILIES: dict[str, Callable[[Path], Path]] = {
    "musicgen": musicgen,
    "audiocraft": audiocraft,
    "magnet": lambda folder: audiocraft(folder, "magnet"),
    "audioldm": tiny_diffusion.audioldm,
    "audioldm2": tiny_diffusion.audioldm2,
    "tango": tiny_diffusion.tango,
    "tango_native": tiny_diffusion.tango_native,
    "stable_audio": tiny_diffusion.stable_audio,
    "midi_lm": write,
    "figaro": lambda folder: tiny_figaro.convert(tiny_figaro.write(folder.with_name("ckpt")), folder),
}


@pytest.fixture(autouse=True)
def _short_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tango, "SECONDS", 0.32)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every holder and key in a tree."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, held in list(pairs):
        yield value, key
        yield from places(held)


def read(path: Path) -> Any:
    if path.suffix == ".json":
        return json.loads(path.read_text())
    return yaml.safe_load(torch.load(path, weights_only=True).get("xp.cfg") or "{}")


def put(path: Path, tree: Any) -> None:
    if path.suffix == ".json":
        path.write_text(json.dumps(tree))
    else:
        torch.save(torch.load(path, weights_only=True) | {"xp.cfg": yaml.safe_dump(tree)}, path)


def mutate(path: Path, rng: random.Random) -> None:
    """Change one value of a configuration, add or drop one, or replace the file."""
    kind = rng.random()
    if kind < 0.1:
        content = path.read_bytes()
        path.unlink()
        made: list[Callable[[], object]] = [
            lambda: path.write_bytes(content[: rng.randrange(len(content))]), lambda: path.write_bytes(b"[" * 100_000),
            lambda: path.write_text("[]"), lambda: path.mkdir(), lambda: os.mkfifo(path),
            lambda: path.symlink_to("/dev/zero"), lambda: path.symlink_to(path), lambda: None,
            lambda: path.write_bytes(rng.randbytes(100)), lambda: path.write_text(f'{{"a": {"9" * 5000}}}'),
        ]  # fmt: skip
        rng.choice(made)()
        return
    tree = read(path)
    found = list(places(tree))
    holder, key = rng.choice(found) if found else (tree, "a")
    if kind < 0.15 and isinstance(holder, dict) and found:
        del holder[key]
    elif kind < 0.25 and isinstance(tree, dict):
        extra = ["quantization_config", "num_labels", "return_dict", "max_new_tokens", "extra_ids", "model_max_length"]
        tree[rng.choice(extra)] = rng.choice([{"quant_method": "gptq"}, *VALUES])
    else:
        holder[key] = rng.choice(VALUES)
    put(path, tree)


def score(folder: Path, tracks: list[Track]) -> None:
    ew.score(ew.collect(str(folder), tracks, workers=0))


def refusal(act: Callable[[], object]) -> str:
    """Return what a ``ModelError`` says, or nothing; any other exception is a fault."""
    try:
        act()
    except ModelError as error:
        return str(error)
    return ""


def restore(path: Path, content: bytes) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
    path.write_bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_no_configuration_gives_more_than_a_line(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / "results"))
    folder = FAMILIES[family](tmp_path / "model")
    if family in {"midi_lm", "figaro"}:
        tracks = [Track("t", piece(tmp_path / "t.mid"), "member")]
    else:
        tracks = [Track("t", recording(tmp_path / "t.wav", 0.7, seed=1), "member", caption="sad rock")]
    assert describe(str(folder))
    suffixes = {".json"} if family not in {"audiocraft", "magnet"} else {".json", ".bin"}
    files = sorted(path for path in folder.rglob("*") if path.suffix in suffixes and path.stat().st_size < 3e6)
    rng = random.Random(f"hostile {family}")
    passed, refused, loaded, slowest = 0, 0, 0, 0.0
    for number in range(MUTATIONS):
        path = rng.choice(files)
        content = path.read_bytes()
        mutate(path, rng)
        since = time.process_time()
        said = refusal(lambda: describe(str(folder)))
        passed += not said
        if not said and loaded < LOADED:
            loaded += 1
            said = refusal(lambda: score(folder, tracks)) if loaded % 2 else refusal(lambda: load_model(str(folder)))
        refused += bool(said)
        assert "\n" not in said, number
        assert len(said) < 1300, said
        assert "t.wav" not in said
        assert "check the file" not in said
        slowest = max(slowest, time.process_time() - since)
        restore(path, content)
    assert passed > 20, "most values are nobody's business"
    assert refused > 50
    print(f"{family}: {passed} described, {refused} refused, {loaded} loaded or scored, slowest {slowest:.2f} s CPU")


# --- one of each, with the reason -------------------------------------------------------------------------------------


def edit(name: str, change: Callable[[Any], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        tree = json.loads((folder / name).read_text())
        change(tree)
        (folder / name).write_text(json.dumps(tree))

    return apply


def instead(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return apply


CONFIG, TOKENIZER = "config.json", "tokenizer_config.json"
SINGLE: dict[str, tuple[Callable[[Path], None], str]] = {
    "null": (edit(CONFIG, lambda c: c["decoder"].update(hidden_size=None)), "decoder.hidden_size: .* found None"),
    "a list": (edit(CONFIG, lambda c: c["decoder"].update(ffn_dim=[64])), r"decoder.ffn_dim: .* found \[64\]"),
    "400 digits": (edit(CONFIG, lambda c: c["decoder"].update(ffn_dim=10**400)), "decoder.ffn_dim: .* found 1000"),
    "NaN": (edit(CONFIG, lambda c: c["audio_encoder"].update(overlap=float("nan"))), "audio_encoder.overlap: .* nan"),
    "no rate": (edit(CONFIG, lambda c: c["audio_encoder"].update(sampling_rate=10**9)), "audio_encoder.sampling_rate"),
    "endless window": (edit("generation_config.json", lambda c: c.update(max_length=10**9)), "asks for windows of"),
    "no window": (edit("generation_config.json", lambda c: c.update(max_length=-1)), "max_length: .* found -1"),
    "endless labels": (edit(CONFIG, lambda c: c.update(num_labels=10**9)), "asks for 1000000000 labels"),
    "endless tokens": (edit(TOKENIZER, lambda c: c.update(extra_ids=10**9)), "asks for 1000000000 extra ids"),
    "quantised": (edit(CONFIG, lambda c: c["decoder"].update(quantization_config={"bits": 4})), "are quantised"),
    "negative limit": (edit(TOKENIZER, lambda c: c.update(model_max_length=-4)), "takes -4 tokens at most"),
    "padding": (edit(CONFIG, lambda c: c["decoder"].update(pad_token_id=999)), "pads with token 999 beyond"),
    "another return": (edit(CONFIG, lambda c: c["text_encoder"].update(return_dict=False)), "text_encoder.return_dict"),
    "nested": (edit(CONFIG, lambda c: c.update(a=NESTED)), "longer or deeper than any network's"),
    "an adapter": (instead("adapter_config.json", lambda p: p.write_text("{}")), "an adapter, whose model is"),
    "a pipe": (instead(CONFIG, os.mkfifo), "a pipe, a device or a socket"),
    "a pipe beside": (instead("notes.txt", os.mkfifo), "a pipe, a device or a socket"),
    "a device": (instead(CONFIG, lambda p: p.symlink_to("/dev/zero")), "a pipe, a device or a socket"),
    "weights of a device": (instead("model.safetensors", lambda p: p.symlink_to("/dev/zero")), "a pipe, a device"),
    "a tokenizer of a device": (instead("tokenizer.json", lambda p: p.symlink_to("/dev/zero")), "a pipe, a device"),
    "long": (instead(CONFIG, lambda p: p.write_text('{"a": "' + "x" * 10**7 + '"}')), "longer than 10000000 bytes"),
    "thousands of digits": (instead(CONFIG, lambda p: p.write_text('{"a": ' + "9" * 5000 + "}")), "not JSON"),
    "a deep file": (instead(CONFIG, lambda p: p.write_text("[" * 10**5)), "not JSON"),
}  # fmt: skip
INDEX = "unet/diffusion_pytorch_model.safetensors.index.json"
PIPELINE: dict[str, tuple[Callable[[Path], None], str]] = {
    "a way out": (
        instead(INDEX, lambda p: p.write_text('{"weight_map": {"conv_in.weight": "../../x.safetensors"}}')),
        "names '../../x.safetensors', which the folder does not hold",
    ),
    "endless audio half": (
        edit("clap/config.json", lambda c: c["audio_config"].update(depths=[10**9])), "asks for 1000000000 depths",
    ),
    "mel bands": (edit("clap/preprocessor_config.json", lambda c: c.update(feature_size=10**9)), "feature_size: "),
    "negative limit": (edit(f"tokenizer/{TOKENIZER}", lambda c: c.update(model_max_length=0)), "takes 0 tokens"),
    "no scale": (edit("vae/config.json", lambda c: c.update(scaling_factor=float("inf"))), "scaling_factor: .* inf"),
    "null blocks": (edit("unet/config.json", lambda c: c.update(block_out_channels=None)), "block_out_channels: "),
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("whole")
    return {"single": musicgen(root / "single"), "pipeline": tiny_diffusion.audioldm(root / "pipeline", ears=True)}


@pytest.mark.parametrize(
    ("layout", "name"), [*(("single", name) for name in SINGLE), *(("pipeline", name) for name in PIPELINE)]
)
def test_hostile_folders_are_refused_with_the_reason(
    layout: str, name: str, whole: dict[str, Path], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(whole[layout], tmp_path / "copy"))
    change, message = (SINGLE if layout == "single" else PIPELINE)[name]
    change(copy)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(str(copy))
    assert "\n" not in str(caught.value)


def test_a_tokenizer_that_writes_what_its_encoder_lacks_is_the_models_fault(
    whole: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / "results"))
    copy = Path(shutil.copytree(whole["single"], tmp_path / "copy"))
    edit("tokenizer.json", lambda c: c["added_tokens"].append(
        {"id": 5000, "content": "sad", "special": False, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False}))(copy)  # fmt: skip
    tracks = [Track("t", recording(tmp_path / "t.wav", 0.7, seed=1), "member", caption="sad <extra_id_99>")]
    with pytest.raises(ModelError, match="copy: its network cannot be run .* belong together") as caught:
        ew.collect(str(copy), tracks, workers=0)
    assert "t.wav" not in str(caught.value)


@pytest.mark.slow
def test_whole_commands_end_in_one_line(whole: dict[str, Path], tmp_path: Path) -> None:
    recording(tmp_path / "m" / "a.wav", 0.7)
    (tmp_path / "m" / "m.csv").write_text("track_id,path,role\na,a.wav,member\n")
    tried = [("single", change) for change, _ in SINGLE.values()][:15] + [("pipeline", c) for c, _ in PIPELINE.values()]
    for number, (layout, change) in enumerate(tried[:20]):
        copy = Path(shutil.copytree(whole[layout], tmp_path / f"copy-{number}"))
        change(copy)
        command = ["score", f"--model={copy}", f"--manifest={tmp_path / 'm' / 'm.csv'}"]
        if number % 2:
            command = ["plan", f"--model={copy}", f"--manifest={tmp_path / 'm' / 'm.csv'}"]
        found = subprocess.run(
            [sys.executable, "-m", "earwitness.cli", *command], capture_output=True, text=True, timeout=120,
            check=False, stdin=subprocess.DEVNULL, env=os.environ | {"EARWITNESS_RESULTS": str(tmp_path / "results")},
        )  # fmt: skip
        assert found.returncode == 3, (command, found.stdout, found.stderr)
        assert found.stderr.startswith("earwitness: ")
        assert found.stderr.count("\n") == 1
        assert "a.wav" not in found.stderr
