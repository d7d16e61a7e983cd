"""Published layouts: whatever the number, the kind and the precision of its files, one network is read from them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import earwitness as ew
from earwitness.errors import ModelError
from earwitness.models import describe, files, loading, locate, tango
from tests import tiny_diffusion
from tests.tiny import musicgen
from tests.tiny_audiocraft import audiocraft
from tests.tiny_hub import Hub

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return musicgen(tmp_path_factory.mktemp("layouts") / "single")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_diffusion.musicldm(tmp_path_factory.mktemp("layouts") / "pipeline")


def values(folder: Path) -> dict[str, State]:
    """Load a folder and return the tensors of its networks."""
    model: Any = ew.load_model(str(folder))
    networks = model.parts if hasattr(model, "parts") else {"network": model.network}
    return {name: part.state_dict() for name, part in networks.items() if hasattr(part, "state_dict")}


# --- what a directory's one file of safetensors is turned into --------------------------------------------------------


def halves(state: State) -> list[State]:
    names = sorted(state)
    return [{n: state[n].clone() for n in some} for some in (names[::2], names[1::2])]


def sharded(write: Callable[[State, Path], Any], suffix: str, index: str) -> Callable[[Path, State], None]:
    def apply(stem: Path, state: State) -> None:
        parts = halves(state)
        named = [f"{stem.name}{suffix.format(i + 1, len(parts))}" for i in range(len(parts))]
        for name, part in zip(named, parts, strict=True):
            write(part, stem.with_name(name))
        table = {key: name for name, part in zip(named, parts, strict=True) for key in part}
        stem.with_name(f"{stem.name}{index}").write_text(json.dumps({"weight_map": table}))

    return apply


def cast(state: State, dtype: torch.dtype) -> State:
    return {n: t.to(dtype) if t.is_floating_point() else t for n, t in state.items()}


def tensors(state: State, path: Path) -> None:
    save_file(state, path, metadata={"format": "pt"})


def whole(suffix: str, dtype: torch.dtype = torch.float32) -> Callable[[Path, State], None]:
    def apply(stem: Path, state: State) -> None:
        write = tensors if suffix.endswith("safetensors") else torch.save
        write(cast(state, dtype), stem.with_name(f"{stem.name}{suffix}"))

    return apply


def left_over(stem: Path, state: State) -> None:
    whole(".safetensors")(stem, state)
    gone = {"weight_map": dict.fromkeys(state, f"{stem.name}-00001-of-00002.safetensors")}
    stem.with_name(f"{stem.name}.safetensors.index.json").write_text(json.dumps(gone))
    stem.with_name(f"{stem.name}.safetensors.index.fp32.json").write_text(json.dumps(gone))


def both_precisions(stem: Path, state: State) -> None:
    whole(".safetensors")(stem, state)
    whole(".fp16.safetensors", torch.float16)(stem, state)
    whole(".bin", torch.float16)(stem, state)


LAYOUTS: dict[str, tuple[Callable[[Path, State], None], torch.dtype]] = {
    "bin": (whole(".bin"), torch.float32),
    "a file of before archives": (
        lambda stem, state: torch.save(state, f"{stem}.bin", _use_new_zipfile_serialization=False), torch.float32,
    ),
    "shards of bin": (sharded(torch.save, "-{:05}-of-{:05}.bin", ".bin.index.json"), torch.float32),
    "shards": (sharded(tensors, "-{:05}-of-{:05}.safetensors", ".safetensors.index.json"), torch.float32),
    "fp16 alone": (whole(".fp16.safetensors", torch.float16), torch.float16),
    "fp16 alone, bin": (whole(".fp16.bin", torch.float16), torch.float16),
    "shards of fp16": (
        sharded(lambda s, p: tensors(cast(s, torch.float16), p), ".fp16-{:05}-of-{:05}.safetensors",
                ".safetensors.index.fp16.json"), torch.float16,
    ),
    "bf16 alone": (whole(".bf16.safetensors", torch.bfloat16), torch.bfloat16),
    "float64": (whole(".safetensors", torch.float64), torch.float64),
    "a left-over index": (left_over, torch.float32),
    "both precisions": (both_precisions, torch.float32),
}  # fmt: skip


def laid_out(source: Path, target: Path, layout: str) -> Path:
    """Copy a folder and write each network's weights in another layout."""
    copy = Path(shutil.copytree(source, target))
    for path in sorted(copy.rglob("*.safetensors")):
        state = load_file(path)
        path.unlink()
        stem = path.with_name(path.name.removesuffix(".safetensors"))
        if layout.startswith(("bin", "shards of bin", "a file")) and stem.name == "model":
            stem = stem.with_name("pytorch_model")  # as transformers has it
        LAYOUTS[layout][0](stem, state)
    return copy


@pytest.fixture(scope="module")
def originals(single: Path, pipeline: Path) -> dict[str, dict[str, State]]:
    return {"single": values(single), "pipeline": values(pipeline)}


ALONE = ("bin", "shards of bin", "shards of fp16", "a left-over index")  # of a single folder; a pipeline is cheaper


@pytest.mark.parametrize(
    ("kind", "layout"), [*(("pipeline", layout) for layout in LAYOUTS), *(("single", layout) for layout in ALONE)]
)
def test_every_layout_gives_the_same_network(
    kind: str, layout: str, request: pytest.FixtureRequest, originals: dict[str, dict[str, State]], tmp_path: Path
) -> None:
    folder = laid_out(request.getfixturevalue(kind), tmp_path / kind, layout)
    found, stored = values(folder), LAYOUTS[layout][1]
    assert found.keys() == originals[kind].keys()
    for part, state in originals[kind].items():
        for name, tensor in state.items():
            value = found[part][name]
            assert value.dtype == tensor.dtype, name
            rounded = tensor.to(stored).to(tensor.dtype) if tensor.is_floating_point() else tensor
            if "parametrizations" in name or name not in stored_names(request.getfixturevalue(kind)):
                torch.testing.assert_close(value, rounded, msg=name)
            else:
                assert torch.equal(value, rounded), name


def stored_names(folder: Path) -> set[str]:
    return {name for path in folder.rglob("*.safetensors") for name in load_file(path)}


def test_what_is_not_loaded_is_not_part_of_the_identity(single: Path, pipeline: Path, tmp_path: Path) -> None:
    for source in (single, pipeline):
        copy = laid_out(source, tmp_path / source.name, "both precisions")
        assert describe(str(copy)).revision == describe(str(source)).revision
        for path in [*copy.rglob("*.fp16.safetensors"), *copy.rglob("*.bin")]:
            path.write_bytes(b"other")
        assert describe(str(copy)).revision == describe(str(source)).revision
        assert values(copy).keys() == values(source).keys()


def test_a_native_file_beside_a_pipeline_is_another_programs(pipeline: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(pipeline, tmp_path / "beside"))
    (copy / "model.safetensors").write_bytes(b"no weights")
    (copy / "model.ckpt").write_bytes(b"no weights")
    assert describe(str(copy)).revision == describe(str(pipeline)).revision
    assert values(copy).keys() == values(pipeline).keys()


def test_transformers_pickle_is_taken_before_audiocrafts(single: Path, tmp_path: Path) -> None:
    both = laid_out(single, tmp_path / "both", "bin")
    before = describe(str(both)).revision
    (both / "state_dict.bin").write_bytes(b"audiocraft's")
    (both / "compression_state_dict.bin").write_bytes(b"audiocraft's")
    assert describe(str(both)).revision == before
    assert values(both)


def test_names_of_attention_from_before_diffusers_renamed_it(pipeline: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(pipeline, tmp_path / "older"))
    path = copy / "vae" / "diffusion_pytorch_model.safetensors"
    older = {}
    for name, value in load_file(path).items():
        for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{old}.")
        older[name] = value
    assert any("proj_attn" in name for name in older)
    tensors(older, path)
    for name, value in values(pipeline)["vae"].items():
        assert torch.equal(values_of(copy, "vae")[name], value), name


def values_of(folder: Path, part: str) -> State:
    model: Any = ew.load_model(str(folder))
    found: State = model.parts[part].state_dict()
    return found


def test_a_clap_that_says_float64_is_loaded_as_asked(pipeline: Path, tmp_path: Path) -> None:
    copy = laid_out(pipeline, tmp_path / "copy", "float64")
    path = copy / "text_encoder" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"torch_dtype": "float64", "dtype": "float64"}))
    assert {t.dtype for t in values_of(copy, "text_encoder").values() if t.is_floating_point()} == {torch.float32}
    model: Any = ew.load_model(str(copy))
    assert torch.isfinite(model.condition("text", ["sad rock"], None)["class_labels"]).all()


class Runs:
    def __reduce__(self) -> Any:
        return print, ("executed",)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin"])
def test_a_pickle_that_would_run_code_is_refused(
    name: str, single: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = laid_out(single, tmp_path / "copy", "bin" if name == "pytorch_model.bin" else "shards of bin")
    torch.save({"a": torch.zeros(1), "b": Runs()}, copy / name)
    for attempt in (describe, ew.load_model):
        with pytest.raises(ModelError, match=rf"copy/{name}: a pickle that asks for \S*print; only tensors"):
            attempt(str(copy))
    assert "executed" not in capsys.readouterr().out


def test_tensors_that_claim_more_than_their_file_holds_are_refused(single: Path, tmp_path: Path) -> None:
    copy = laid_out(single, tmp_path / "copy", "bin")
    torch.save({"a": torch.zeros(1).expand(10**6, 10**6)}, copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match="its tensors claim 4000000000000 bytes, the file holds"):
        describe(str(copy))
    torch.save([torch.zeros(1)], copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match="expected named tensors only, found something else"):
        describe(str(copy))


ADAPTERS = ["adapter_config.json", "adapter_model.safetensors", "unet/pytorch_lora_weights.safetensors"]


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize("alone", [True, False])
def test_an_adapter_says_how_to_merge_it(name: str, alone: bool, single: Path, tmp_path: Path) -> None:
    folder = tmp_path / "lora"
    folder.mkdir() if alone else shutil.copytree(single, folder)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text('{"base_model_name_or_path": "x; rm -rf ~"}')
    with pytest.raises(ModelError, match=f"lora/{name}: an adapter, .* merge it first: python -c") as caught:
        describe(str(folder))
    assert "rm -rf" not in str(caught.value)


# --- Tango as it is downloaded ----------------------------------------------------------------------------------------


def test_tango_loads_as_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three pickles and three configurations; the text encoder's texts lie in a folder of its name, or beside it."""
    whole = tiny_diffusion.tango_native(tmp_path / "whole")
    monkeypatch.setattr(tango, "SECONDS", 0.32)
    monkeypatch.setattr(tango, "UNET", json.loads((whole / "unet" / "config.json").read_text()))
    monkeypatch.setattr(tango, "WIDTHS", {"configs/diffusion_model_config.json": 32})
    bare, texts = Path(shutil.copytree(whole, tmp_path / "tango")), tmp_path / "texts"
    shutil.copytree(bare / "tokenizer", texts)
    shutil.copy(bare / "text_encoder" / "config.json", texts)
    for name in ("scheduler", "text_encoder", "tokenizer", "unet"):
        shutil.rmtree(bare / name)
    with pytest.raises(ModelError, match="it is tango that names it; fetch it by `hf download google/flan-t5-large"):
        describe(str(bare))
    complete: Any = ew.load_model(str(whole))
    audio = torch.randn(1, 1, complete.samples, generator=torch.Generator().manual_seed(0))
    t, told = torch.tensor([500]), "sad rock"
    expected = complete.predict_noise(complete.encode(audio), t, complete.condition("text", [told], None))
    for place in (bare / "flan-t5-large", tmp_path / "flan-t5-large"):
        shutil.copytree(texts, place)
        found: Any = ew.load_model(str(bare))
        with torch.no_grad():
            noise = found.predict_noise(found.encode(audio), t, found.condition("text", [told], None))
        assert torch.equal(noise, expected)
        assert found.schedule.prediction == "v_prediction"
        shutil.rmtree(place)
    shutil.copytree(texts, bare / "flan-t5-large")
    config = json.loads((bare / "main_config.json").read_text())
    for key, value, message in (
        ("scheduler_name", "lab/other", "names the scheduler of 'lab/other', which is not known here; put its"),
        ("unet_model_config_path", "x.json", "names the configuration 'x.json' for its UNet, which is not known here"),
        ("unet_model_name", "lab/unet", "built on 'lab/unet'"),
        ("text_encoder_name", "../x", "the text encoder '../x' is no T5 of the hub"),
    ):
        (bare / "main_config.json").write_text(json.dumps(config | {key: value}))
        with pytest.raises(ModelError, match=message):
            describe(str(bare))


def test_tangos_own_numbers_are_the_published_ones() -> None:
    """866 M values in the UNet; Stable Diffusion 2.1's levels, closed form: betas linear in their roots."""
    from diffusers import UNet2DConditionModel

    from earwitness.models.latent_diffusion import read_schedule

    unet = loading.skeleton(UNet2DConditionModel, tango.UNET, Path("tango/unet"))
    assert sum(p.numel() for p in unet.parameters()) == pytest.approx(866e6, rel=0.01)
    schedule = read_schedule(tango.SCHEDULERS[tango.STABLE_DIFFUSION], "")
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    torch.testing.assert_close(schedule.alphas_cumprod.double(), (1 - betas).cumprod(0), atol=1e-6, rtol=1e-4)
    assert schedule.prediction == "v_prediction"


# --- what a hub name fetches ------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    return Hub(tmp_path / "cache", monkeypatch)


def fetched(hub: Hub, name: str) -> set[str]:
    folder = locate(name, allow_download=True)
    return {path.relative_to(folder).as_posix() for path in files.contents(folder)}


def test_a_hub_name_fetches_one_kind_of_weights(hub: Hub, single: Path, pipeline: Path, tmp_path: Path) -> None:
    for layout, kept in (
        ("both precisions", {"model.safetensors"}),
        ("bin", {"pytorch_model.bin"}),
        ("shards of bin", {f"pytorch_model-0000{i}-of-00002.bin" for i in (1, 2)}),
        ("fp16 alone", {"model.fp16.safetensors"}),
    ):
        folder = laid_out(single, tmp_path / layout, layout)
        for extra in ("state_dict.bin", "optimizer.bin", "flax_model.msgpack"):
            (folder / extra).write_bytes(b"large")
        hub.publish(f"lab/{layout.replace(' ', '-')}", folder)
        found = fetched(hub, f"lab/{layout.replace(' ', '-')}")
        assert {name for name in found if Path(name).suffix in files.TENSORS | files.UNREAD} == kept
    folder = laid_out(pipeline, tmp_path / "native", "both precisions")
    for extra in ("model.safetensors", "model.ckpt", "own/diffusion_pytorch_model.safetensors"):
        (folder / extra).parent.mkdir(exist_ok=True)
        (folder / extra).write_bytes(b"4.9 GB")
    hub.publish("lab/native", folder)
    found = {name for name in fetched(hub, "lab/native") if Path(name).suffix in files.TENSORS}
    assert found == {f"{part}/diffusion_pytorch_model.safetensors" for part in ("unet", "vae")} | {
        f"{part}/model.safetensors" for part in ("text_encoder", "vocoder")
    }
    assert ew.load_model("lab/native").info.revision == describe("lab/native").revision


def test_audiocraft_and_tango_are_fetched_whole(hub: Hub, tmp_path: Path) -> None:
    hub.publish("lab/craft", audiocraft(tmp_path / "craft"))
    assert {"state_dict.bin", "compression_state_dict.bin"} <= fetched(hub, "lab/craft")
    hub.publish("lab/tango", tiny_diffusion.tango_native(tmp_path / "tango"))
    assert {n for n in fetched(hub, "lab/tango") if n.endswith(".bin")} == {*files.TANGO_WEIGHTS}
