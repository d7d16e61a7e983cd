"""Loading models: the same code for pocket names, folders and hub names, and nothing unsafe or half."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import MusicgenForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

import earwitness as ew
from earwitness.errors import ModelError
from earwitness.models import base, describe, locate, pocket_names, revision
from earwitness.models import musicgen as musicgen_module
from earwitness.models.base import TokenModel
from earwitness.models.delay_pattern import aligned, delayed
from tests import tiny_midi
from tests.tiny import RATE, musicgen, tune


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return musicgen(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture(scope="session")
def model(folder: Path) -> TokenModel:
    return ew.load_model(str(folder))


def _audio(batch: int, seconds: float = 0.64) -> torch.Tensor:
    return torch.stack([torch.from_numpy(tune(seconds, seed))[None] for seed in range(batch)])


def test_description_needs_no_network(folder: Path) -> None:
    info = describe(str(folder))
    assert (info.family, info.sample_rate, info.channels, info.badge) == ("token", RATE, 1, "tiny")
    assert info.segment_seconds == pytest.approx(32 / 50)
    assert info == ew.load_model(str(folder)).info


def test_scoring_shapes_mask_and_protocol(model: TokenModel) -> None:
    assert isinstance(model, TokenModel)
    codes = model.encode(_audio(3))
    assert codes.shape == (3, 4, 32)
    logits, mask = model.logits(codes, ["sad rock", "", "slow jazz with piano and more words"])
    assert logits.shape == (3, 4, 32, 64)
    assert mask.sum(-1).tolist() == [[32, 31, 30, 29]] * 3
    null, _ = model.logits(codes, None)
    assert torch.isfinite(logits).all()
    torch.testing.assert_close(logits[1], null[1], msg="an empty caption is the null condition")
    assert (logits[0] - null[0]).abs().max() > 1e-3


def test_a_score_does_not_depend_on_batch_mates_or_caption_lengths(model: TokenModel) -> None:
    codes, captions = model.encode(_audio(3)), ["sad rock", "slow jazz with piano", "happy"]
    together, _ = model.logits(codes, captions)
    for i in range(3):
        torch.testing.assert_close(model.logits(codes[i : i + 1], [captions[i]])[0][0], together[i], atol=1e-5, rtol=0)


def test_codes_do_not_depend_on_how_many_segments_are_encoded_at_once(
    model: TokenModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = model.encode(_audio(7))
    for samples in (1, 10_240 * 2, 2**30):  # one, two and all seven at once
        monkeypatch.setattr(musicgen_module, "CACHED_SAMPLES", samples)
        assert torch.equal(model.encode(_audio(7)), cut)


def test_the_delay_pattern_is_causal_and_sees_lower_codebooks(model: TokenModel) -> None:
    codes = model.encode(_audio(1))
    before, _ = model.logits(codes, ["happy"])
    changed = codes.clone()
    changed[:, 1, 10] = (changed[:, 1, 10] + 1) % 64
    after, _ = model.logits(changed, ["happy"])
    difference = (after - before).abs().amax(-1)[0]
    # Codebook 1 of frame 10 is written at step 11: it reaches frame 11 - k + 1 of codebook k and what follows.
    for k in range(4):
        first = 11 + 1 - k
        assert difference[k, :first].max() < 1e-6
        assert difference[k, first] > 1e-6


def test_log_probabilities_match_a_step_by_step_loop(model: TokenModel) -> None:
    codes = model.encode(_audio(1))[..., :6]
    logits, _ = model.logits(codes, None)
    network, pad = model.network, model.pad  # type: ignore[attr-defined]
    null = BaseModelOutput(last_hidden_state=torch.zeros(1, 1, 32))
    sequence = torch.full((4, 1), pad)
    for step in range(6 + 3):
        output = network(encoder_outputs=null, attention_mask=torch.zeros(1, 1), decoder_input_ids=sequence).logits
        column = torch.full((4, 1), pad)
        for k in range(4):
            frame = step - k
            if 0 <= frame < 6:
                torch.testing.assert_close(output[k, -1], logits[0, k, frame], atol=1e-4, rtol=0)
                column[k] = codes[0, k, frame]
        sequence = torch.cat([sequence, column], 1)


def test_stereo_interleaves_channels_with_one_delay_a_pair(tmp_path: Path) -> None:
    stereo = ew.load_model(str(musicgen(tmp_path / "stereo", channels=2)))
    left, right = _audio(2)
    codes = stereo.encode(torch.stack([torch.cat([left, right])]))
    assert codes.shape == (1, 8, 32)
    one = stereo.encode(torch.cat([left, left])[None])
    torch.testing.assert_close(codes[:, ::2], one[:, ::2])
    torch.testing.assert_close(one[:, ::2], one[:, 1::2])
    assert stereo.logits(codes, None)[1].sum(-1).tolist() == [[32, 32, 31, 31, 30, 30, 29, 29]]
    with pytest.raises(ModelError, match="expected 2 channel"):
        stereo.encode(_audio(1))


def _tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_names_of_weights_as_older_checkpoints_have_them(copy: Path, model: TokenModel) -> None:
    def rename(tensors: dict[str, torch.Tensor]) -> None:
        for name in [n for n in tensors if "parametrizations" in n]:
            old = name.replace("parametrizations.weight.original0", "weight_g")
            tensors[old.replace("parametrizations.weight.original1", "weight_v")] = tensors.pop(name)

    _tensors(copy, rename)
    assert any("weight_g" in name for name in load_file(copy / "model.safetensors"))
    codes = model.encode(_audio(2))
    older = ew.load_model(str(copy))
    assert torch.equal(older.encode(_audio(2)), codes)
    assert torch.equal(older.logits(codes, ["happy", "sad"])[0], model.logits(codes, ["happy", "sad"])[0])


def test_weights_in_several_files(copy: Path, model: TokenModel) -> None:
    network = MusicgenForConditionalGeneration.from_pretrained(copy)
    (copy / "model.safetensors").unlink()
    network.save_pretrained(copy, max_shard_size="200KB")
    assert len(list(copy.glob("model-*-of-*.safetensors"))) > 2
    sharded = ew.load_model(str(copy))
    codes = model.encode(_audio(1))
    assert sharded.info.badge == "tiny"
    assert torch.equal(sharded.logits(codes, None)[0], model.logits(codes, None)[0])
    last = sorted(copy.glob("model-*-of-*.safetensors"))[-1]
    last.rename(copy.parent / last.name)
    with pytest.raises(ModelError, match=f"index.json: names '{last.name}', which the folder does not hold"):
        ew.load_model(str(copy))
    index = copy / "model.safetensors.index.json"
    index.write_text(index.read_text().replace(last.name, f"../{last.name}"))
    with pytest.raises(ModelError, match=f"index.json: names '../{last.name}', which the folder does not hold"):
        ew.load_model(str(copy))


@pytest.fixture(scope="session")
def melody_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return musicgen(tmp_path_factory.mktemp("models") / "melody", melody=True)


def test_melody_is_scored_by_its_caption_alone(melody_folder: Path) -> None:
    melody: Any = ew.load_model(str(melody_folder))
    assert melody.info == describe(str(melody_folder))
    assert melody.info.segment_seconds == pytest.approx(32 / 50)
    codes, captions = melody.encode(_audio(3)), ["sad rock", "", "slow jazz with piano and drums"]
    together, mask = melody.logits(codes, captions)
    assert together.shape == (3, 4, 32, 64)
    assert mask.sum(-1).tolist() == [[32, 31, 30, 29]] * 3
    for i, caption in enumerate(captions):
        torch.testing.assert_close(melody.logits(codes[i : i + 1], [caption])[0][0], together[i], atol=1e-5, rtol=0)
    null, _ = melody.logits(codes, None)
    torch.testing.assert_close(together[1], null[1], msg="an empty caption is the null condition")
    assert (together[0] - null[0]).abs().max() > 1e-3


def test_melody_agrees_with_its_decoder_on_a_prefix_made_by_hand(melody_folder: Path) -> None:
    melody: Any = ew.load_model(str(melody_folder))
    network, codes = melody.network, melody.encode(_audio(1))
    text = melody.tokenizer(["happy jazz"], return_tensors="pt")
    with torch.inference_mode():
        states = network.enc_to_dec_proj(network.text_encoder(**text).last_hidden_state)
        no_melody = network.audio_enc_to_dec_proj(torch.eye(12)[:1]).expand(1, 9, -1)
        inputs = torch.full((4, 32 + 3), 64)
        for k in range(4):
            inputs[k, 1 + k : 1 + k + 32] = codes[0, k, : 35 - 1 - k]
        prefix = torch.cat([no_melody, states], dim=1)
        output = network.decoder(input_ids=inputs, encoder_hidden_states=prefix).logits
        null = network.decoder(
            input_ids=inputs, encoder_hidden_states=torch.cat([no_melody, torch.zeros(1, 1, 48)], dim=1)
        ).logits
    logits, _ = melody.logits(codes, ["happy jazz"])
    null_logits, _ = melody.logits(codes, None)
    for k in range(4):
        start = prefix.shape[1] + k
        torch.testing.assert_close(logits[0, k], output[k, start : start + 32], atol=1e-5, rtol=0)
        torch.testing.assert_close(null_logits[0, k], null[k, 9 + 1 + k : 9 + 1 + k + 32], atol=1e-5, rtol=0)


def test_stereo_melody(tmp_path: Path) -> None:
    stereo = ew.load_model(str(musicgen(tmp_path / "stereo", channels=2, melody=True)))
    codes = stereo.encode(torch.cat([_audio(1), _audio(2)[1:]], dim=1))
    logits, mask = stereo.logits(codes, ["happy"])
    assert logits.shape == (1, 8, 32, 64)
    assert mask.sum(-1).tolist() == [[32, 32, 31, 31, 30, 30, 29, 29]]


def test_the_revision_follows_every_file_that_can_change_a_score(copy: Path, folder: Path) -> None:
    assert revision(copy) == revision(folder)
    (copy / "README.md").write_text("words")
    (copy / "training.json").write_text("{}")
    assert revision(copy) == revision(folder)
    config = json.loads((copy / "generation_config.json").read_text())
    (copy / "generation_config.json").write_text(json.dumps(config | {"max_length": 64}))
    assert revision(copy) != revision(folder)
    assert describe(str(copy)).segment_seconds == pytest.approx(64 / 50)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pocket/musicgen-z", "no pocket model 'pocket/musicgen-z'"),
        ("poket/musicgen", "did you mean 'pocket/musicgen"),
        ("lab/musicgen", "not in the local cache and not downloaded"),
        ("not a name", "neither a pocket model, a folder nor a hub name"),
        ("suno/v5", "closed service"),
        ("udio", "closed service"),
    ],
)
def test_unknown_names(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        locate(name, allow_download=False)


def test_the_nearest_pocket_name_is_suggested() -> None:
    if pocket_names():
        with pytest.raises(ModelError, match=f"did you mean '{pocket_names()[0]}'"):
            locate(pocket_names()[0].replace("-", "_"))


def _edit(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def _renamed(name: str) -> Callable[[Path], Any]:
    return lambda copy: (copy / "model.safetensors").rename(copy / name)


def _lacking(copy: Path) -> None:
    _tensors(copy, lambda tensors: tensors.pop("decoder.lm_heads.0.weight"))


def _replaced(copy: Path) -> None:
    """Rename a large tensor, so that no header says that its configured size is absurd."""
    _tensors(
        copy, lambda tensors: tensors.update({"other.name": tensors.pop("decoder.model.decoder.layers.0.fc1.weight")})
    )
    _tensors(copy, lambda tensors: tensors.pop("decoder.model.decoder.layers.0.fc2.weight"))
    _tensors(copy, lambda tensors: tensors.pop("decoder.model.decoder.layers.1.fc1.weight"))
    _tensors(copy, lambda tensors: tensors.pop("decoder.model.decoder.layers.1.fc2.weight"))
    _edit(copy / "config.json", lambda config: config["decoder"].update(ffn_dim=10**9))


def _damaged(copy: Path) -> None:
    data = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(data[: len(data) // 2])


BROKEN = {
    "another family": (lambda c: _edit(c / "config.json", lambda j: j.update(model_type="bark")), "no family we load"),
    "no config": (lambda c: (c / "config.json").unlink(), "expected config.json, model_index.json"),
    "not JSON": (lambda c: (c / "config.json").write_text("{"), "not JSON"),
    "a list": (lambda c: (c / "config.json").write_text("[]"), "expected an object"),
    "no window": (lambda c: (c / "generation_config.json").unlink(), "expected generation_config.json, found none"),
    "no codec": (lambda c: _edit(c / "config.json", lambda j: j.pop("audio_encoder")), "lacks 'sampling_rate'"),
    "another program's weights": (
        _renamed("flax_model.msgpack"),
        "found flax_model.msgpack; fetch it again: hf",
    ),
    "weights by no name": (_renamed("weights.safetensors"), "expected weights .* found weights.safetensors"),
    "no pickle of torch": (_renamed("pytorch_model.bin"), "pytorch_model.bin: a pickle that asks for|damaged"),
    "missing tensor": (_lacking, "the weights lack 1 tensors, first decoder.lm_heads.0.weight"),
    "damaged": (_damaged, "damaged"),
    "no tokenizer": (
        lambda c: [(c / name).unlink() for name in ("tokenizer.json", "spiece.model")],
        "expected a tokenizer .tokenizer.json or spiece.model or .*, found none",
    ),
    "a damaged tokenizer": (
        lambda c: [(c / name).write_text("{") for name in ("tokenizer.json", "spiece.model")],
        "its tokenizer cannot be loaded",
    ),
    "other sizes": (
        lambda c: _edit(c / "config.json", lambda j: j["decoder"].update(ffn_dim=96)),
        "has shape .* the configuration expects",
    ),
    "absurd width": (
        lambda c: _edit(c / "config.json", lambda j: j["decoder"].update(ffn_dim=10**9)),
        "has shape .* the configuration expects",
    ),
    "absurd width of what is not there": (_replaced, "configuration asks for \\d+ values, the weights hold"),
    "overflowing width": (
        lambda c: _edit(c / "config.json", lambda j: j["decoder"].update(ffn_dim=10**18)),
        "has shape|describes no network",
    ),
    "absurd depth": (
        lambda c: _edit(c / "config.json", lambda j: j["decoder"].update(num_hidden_layers=10**9)),
        "asks for 1000000000 layers",
    ),
    "absurd text depth": (
        lambda c: _edit(c / "config.json", lambda j: j["text_encoder"].update(num_layers=10**9)),
        "asks for 1000000000 layers",
    ),
    "absurd codec depth": (
        lambda c: _edit(c / "config.json", lambda j: j["audio_encoder"].update(target_bandwidths=[1e12])),
        "describes no network .*quantizers",
    ),
    "absurd positions": (
        lambda c: _edit(c / "config.json", lambda j: j["decoder"].update(max_position_embeddings=10**10)),
        "configuration asks for \\d+ values|describes no network",
    ),
    "a word for a number": (
        lambda c: _edit(c / "config.json", lambda j: j["decoder"].update(hidden_size="wide")),
        "describes no network",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_folders_are_refused_with_the_reason(copy: Path, name: str) -> None:
    breaks, message = BROKEN[name]
    breaks(copy)
    with pytest.raises(ModelError, match=message) as caught:
        ew.load_model(str(copy))
    assert "\n" not in str(caught.value)


def test_code_that_a_folder_brings_is_not_run(copy: Path, model: TokenModel) -> None:
    trap = copy.parent / "executed"
    (copy / "own.py").write_text(f"from pathlib import Path\nPath({str(trap)!r}).touch()\n")
    own = {"AutoTokenizer": ["own.Own", None], "AutoConfig": "own.Own", "AutoModel": "own.Own"}
    _edit(copy / "tokenizer_config.json", lambda config: config.update(auto_map=own))
    _edit(copy / "config.json", lambda config: config.update(auto_map=own))
    codes = model.encode(_audio(1))
    logits, _ = ew.load_model(str(copy)).logits(codes, ["happy jazz"])
    assert torch.equal(logits, model.logits(codes, ["happy jazz"])[0])
    assert not trap.exists()


def test_an_absurd_melody_is_refused(melody_folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(melody_folder, tmp_path / "copy"))
    _edit(copy / "config.json", lambda config: config.update(chroma_length=10**9))
    with pytest.raises(ModelError, match="asks for 1000000000 frames of melody"):
        ew.load_model(str(copy))


@pytest.mark.parametrize("name", pocket_names())
def test_every_pocket_model_loads_and_scores(name: str, tmp_path: Path) -> None:
    model = ew.load_model(name)
    assert model.info.badge == "pocket"
    if model.info.scheme:
        notes = [(240 * i, 240 * i + 200, 48 + 7 * i % 24, 80) for i in range(100)]
        path = tiny_midi.write(tmp_path / "x.mid", [(0, notes)])
        windows = model.info.scheme.windows(model.info.scheme.read(path))
        tokens = torch.from_numpy(np.stack([w.tokens[None] for w in windows]))
        logits, mask = model.logits(model.encode(tokens), windows)
        assert torch.isfinite(logits[mask]).all()
        assert mask.any()
        return
    samples = round(model.info.segment_seconds * model.info.sample_rate)
    codes = model.encode(torch.from_numpy(tune(samples / RATE)[None, None]))
    if model.info.family == "token":
        logits, mask = model.logits(codes, None)
        assert torch.isfinite(logits[mask]).all()
    else:
        said = model.predict_noise(codes, torch.tensor([100]), model.condition("null", [""], None))
        assert said.shape == codes.shape
        assert torch.isfinite(said).all()


@pytest.mark.parametrize("melody", [False, True])
def test_the_text_encoder_reads_a_caption_once_and_alone(tmp_path: Path, melody: bool) -> None:
    model: Any = ew.load_model(str(musicgen(tmp_path / "tiny", melody=melody)))
    heard: list[int] = []
    model.network.text_encoder.register_forward_hook(lambda _, __, output: heard.append(len(output[0])))
    codes = model.encode(_audio(3))
    for captions in (["sad rock", "", "slow jazz with piano"], ["sad rock", "sad rock", ""], None):
        model.logits(codes, captions)
    assert heard == [1, 1, 1]
    text = model.tokenizer(["sad rock", "", "slow jazz with piano"], padding=True, return_tensors="pt")
    said = text["attention_mask"] * torch.tensor([[1], [0], [1]])
    lengths = text["attention_mask"].sum(1).tolist()
    ours = model.logits(codes, ["sad rock", "", "slow jazz with piano"])[0]
    for row, length in enumerate(lengths):  # the library's own way from ids to logits
        with torch.no_grad():
            steps = model.network(
                input_ids=text["input_ids"][row : row + 1, :length], attention_mask=said[row : row + 1, :length],
                decoder_input_ids=delayed(codes[row : row + 1], model.delays, model.pad).flatten(0, 1), use_cache=False,
            ).logits[None]  # fmt: skip
        library, _ = aligned(steps[:, :, -35:], model.delays, 32)
        torch.testing.assert_close(ours[row], library[0], atol=2e-5, rtol=0)


def test_kept_captions_are_bounded_and_let_gradients_pass(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "CAPTIONS_HELD", 2)
    with torch.inference_mode():
        for caption in ("sad rock", "happy jazz", "slow rock", None):
            model.told(caption)
    assert [caption for _, caption in model._made] == ["slow rock", None]
    with torch.inference_mode():
        first = model.told("sad rock")["states"]
    assert not first.is_inference()
    assert model.told("sad rock")["states"] is first
