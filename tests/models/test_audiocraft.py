"""audiocraft's own checkpoints: the same probabilities as in transformers, MAGNeT's score, and nothing unsafe."""

from __future__ import annotations

import os
import pickle
import shutil
import sys
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import earwitness as ew
from earwitness.audit import cost
from earwitness.errors import ModelError
from earwitness.models import audiocraft as audiocraft_module
from earwitness.models import describe, revision
from earwitness.models.base import TokenModel
from earwitness.models.cards import read_cards
from earwitness.models.magnet import PASSES, hidden
from earwitness.signals import token_costly
from earwitness.signals.token import extract, reduce_batch
from earwitness.types import Track
from tests.tiny import RATE, recording, tune
from tests.tiny_audiocraft import audiocraft, twin

KINDS = ("musicgen", "audiogen", "magnet", "unconditional")
CAPTIONS = ["sad rock", "", "slow jazz with piano and drums", "happy jazz"]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("audiocraft")
    found = {kind: audiocraft(root / kind, kind) for kind in KINDS}
    found["stereo"] = audiocraft(root / "stereo", channels=2)
    found["musicgen twin"] = twin(root / "musicgen-twin", found["musicgen"])
    found["stereo twin"] = twin(root / "stereo-twin", found["stereo"], channels=2)
    return found


@pytest.fixture(scope="session")
def models(folders: dict[str, Path]) -> dict[str, TokenModel]:
    return {name: ew.load_model(str(folder)) for name, folder in folders.items()}


def _audio(batch: int, channels: int = 1) -> torch.Tensor:
    tunes = [torch.from_numpy(tune(0.64, seed)) for seed in range(batch * channels)]
    return torch.stack(tunes).view(batch, channels, -1)


@pytest.mark.parametrize("captions", [CAPTIONS, None], ids=["conditional", "null"])
@pytest.mark.parametrize("name", ["musicgen", "stereo"])
def test_the_same_weights_give_the_same_probabilities_in_both_libraries(
    models: dict[str, TokenModel], name: str, captions: list[str] | None
) -> None:
    one, other = models[name], models[f"{name} twin"]
    audio = _audio(4, one.info.channels)
    codes = one.encode(audio)
    assert torch.equal(codes, other.encode(audio))
    (logits, mask), (twin_logits, twin_mask) = one.logits(codes, captions), other.logits(codes, captions)
    assert torch.equal(mask, twin_mask)
    logp, twin_logp = (x.log_softmax(-1).gather(-1, codes[..., None])[..., 0] for x in (logits, twin_logits))
    torch.testing.assert_close(logp[mask], twin_logp[mask], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", [*KINDS, "stereo"])
def test_every_format_is_described_and_scored(
    folders: dict[str, Path], models: dict[str, TokenModel], name: str
) -> None:
    model, info = models[name], describe(str(folders[name]))
    assert isinstance(model, TokenModel)
    assert model.info == info
    assert (info.family, info.sample_rate, info.segment_seconds, info.badge) == ("token", RATE, 0.64, "tiny")
    assert info.channels == (2 if name == "stereo" else 1)
    assert info.versions["audiocraft"] not in {"", "absent"}
    captions = None if name == "unconditional" else CAPTIONS
    signals = extract(model, _audio(4, info.channels), captions)
    books = 4 * info.channels
    late = [0 if name == "magnet" else k // info.channels for k in range(books)]
    assert signals[0].mask.sum(-1).tolist() == [32 - d for d in late]
    for held in signals:
        assert held.codes.shape == (books, 32)
        assert all(np.isfinite(stream.logp[held.mask]).all() for stream in held.streams.values())


@pytest.mark.parametrize("name", ["audiogen", "magnet"])
def test_a_score_does_not_depend_on_batch_mates_or_caption_lengths(models: dict[str, TokenModel], name: str) -> None:
    model = models[name]
    codes = model.encode(_audio(4))
    together, mask = model.logits(codes, CAPTIONS)
    assert torch.isfinite(together).all()
    for i, caption in enumerate(CAPTIONS):
        alone, _ = model.logits(codes[i : i + 1], [caption])
        torch.testing.assert_close(alone[0], together[i], atol=1e-5, rtol=0)
    null, null_mask = model.logits(codes, None)
    assert torch.equal(mask, null_mask)
    torch.testing.assert_close(together[1], null[1], msg="an empty caption is the null condition")
    assert (together[0] - null[0]).abs().max() > 1e-3


def test_positions_outside_the_window_hold_no_nan(models: dict[str, TokenModel]) -> None:
    logits, mask = models["audiogen"].logits(models["audiogen"].encode(_audio(2)), None)
    assert mask.sum().item() == 2 * (4 * 32 - 6)
    assert bool((logits[~mask] == 0).all())


def test_half_precision_writes_the_same_codes(folders: dict[str, Path], models: dict[str, TokenModel]) -> None:
    for name in ("audiogen", "magnet", "musicgen twin"):
        rounded = ew.load_model(str(folders[name]), dtype="bfloat16")
        codes = rounded.encode(_audio(2))
        assert torch.equal(codes, models[name].encode(_audio(2)))
        logits, mask = rounded.logits(codes, CAPTIONS[:2])
        exact, _ = models[name].logits(codes, CAPTIONS[:2])
        assert 0 < (logits.float() - exact)[mask].abs().max() < 0.2
    with pytest.raises(ModelError, match="expected dtype float32, bfloat16, float16, auto, got 'int8'"):
        describe(str(folders["audiogen"]), dtype="int8")


@pytest.mark.parametrize("name", ["audiogen", "magnet", "stereo"])
def test_every_family_goes_through_the_engine(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / "results"))
    said = ["sad rock", "", "slow jazz with piano"]
    tracks = [
        Track(f"t{i}", recording(tmp_path / f"t{i}.wav", 1.4, seed=i), "member", "A", f"w{i}", caption=said[i])
        for i in range(3)
    ]
    scores = ew.score(ew.collect(str(folders[name]), tracks), ["loss", "min_k++-0.2"])
    assert scores["segment_id"].nunique() == 6
    pooled = scores[scores["attack"].isin(["loss/conditional", "loss/null", "loss/contrast"])]
    assert len(pooled) == 3 * 6
    silent = (pooled["track_id"] == "t1") & (pooled["attack"] == "loss/contrast")  # no caption, no contrast
    assert (np.isfinite(pooled["score"]) == ~silent).all()


@pytest.mark.parametrize("name", ["audiogen", "magnet", "musicgen twin"])
def test_gradients_reach_what_was_trained(models: dict[str, TokenModel], name: str) -> None:
    model: Any = models[name]
    audio, captions = _audio(2), ["sad rock", "happy jazz"]
    (first, second) = token_costly.extend(model, audio, captions, extract(model, audio, captions), ["gradient"])
    norms = np.stack([first.extras["gradient/norms"], second.extras["gradient/norms"]])
    assert np.isfinite(norms).all()
    assert norms.min() > 0
    assert len({*norms.ravel()}) == 4
    assert not any(p.requires_grad for p in model.parameters())
    assert not model.logits(model.encode(audio), None)[0].requires_grad


def test_captions_for_a_model_that_takes_none_stop_the_engine(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / "results"))
    track = Track("t", recording(tmp_path / "t.wav", 1.4), "member", "A", "w", caption="sad rock")
    with pytest.raises(ModelError, match="takes no captions, got 'sad rock'; leave the captions empty"):
        ew.collect(str(folders["unconditional"]), [track])
    signals = ew.collect(str(folders["unconditional"]), [replace(track, caption="")])
    assert len(signals.index) == 2


# --- MAGNeT -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("frames", "span"), [(1500, 3), (500, 3), (32, 3), (7, 1), (2, 3), (10, 10**12)])
def test_every_position_is_hidden_exactly_once_in_spans(frames: int, span: int) -> None:
    for codebook in range(4):
        passes = hidden(frames, span, codebook)
        assert passes.shape == (PASSES, frames)
        assert (passes.sum(axis=0) == 1).all()
        starts = np.arange(0, frames, min(span, frames))
        assert all(np.unique(part, axis=1).shape[1] == 1 for part in np.split(passes, starts[1:], axis=1))
        if frames >= 32:
            assert abs(passes.mean(axis=1) - 0.5).max() < 0.1
        assert (passes == hidden.__wrapped__(frames, span, codebook)).all()
    if frames >= 32:
        assert (hidden(frames, span, 0) != hidden(frames, span, 1)).any()


@pytest.mark.parametrize(("name", "calls"), [("audiogen", 2), ("magnet", 2 * PASSES * 4)])
def test_network_calls_are_planned_as_they_are_made(models: dict[str, Any], name: str, calls: int) -> None:
    made: list[int] = []
    hook = models[name].lm.register_forward_hook(lambda network, given, output: made.append(len(output)))
    extract(models[name], _audio(1), ["sad rock"])
    hook.remove()
    assert sum(made) == cost.evaluations("loss", models[name].info)[1] == calls
    published = {card.calls for card in read_cards().models if "magnet" in card.name}
    assert published == {models["magnet"].info.calls}


def test_the_half_after_a_prefix_is_compared_with_the_half_really_alone(models: dict[str, Any]) -> None:
    magnet = models["magnet"]
    audio, captions = _audio(1), ["sad rock"]
    kept = extract(magnet, audio, captions)
    codes = magnet.encode(audio)
    made: list[int] = []
    hook = magnet.lm.register_forward_hook(lambda network, given, output: made.append(len(output)))
    with torch.inference_mode():
        (found,) = token_costly.extend(
            magnet, audio, captions, kept, ["prefix_nonmember"], prefixes={"nonmember": codes[0].flip(-1)}
        )
        hook.remove()
        logits, mask = magnet.logits(codes[..., :16], captions)
    logp = torch.log_softmax(logits, -1).gather(-1, codes[..., :16, None])[0, ..., 0]
    wanted = [float(logp[k][mask[0, k]].mean()) for k in range(4)]
    assert found.extras["prefix_nonmember/alone"] == pytest.approx(wanted, abs=1e-5)
    together = cost.evaluations(["loss", "recall"], magnet.info)[1]
    assert sum(made) == together - cost.evaluations("loss", magnet.info)[1]


@pytest.mark.parametrize("codebook", [0, 1, 3])
def test_no_token_sees_itself(models: dict[str, TokenModel], codebook: int) -> None:
    magnet = models["magnet"]
    codes = magnet.encode(_audio(1))
    before, mask = magnet.logits(codes, ["sad rock"])
    assert mask.all()
    for frame in (0, 13, 31):
        changed = codes.clone()
        changed[0, codebook, frame] = (changed[0, codebook, frame] + 1) % 64
        moved = (magnet.logits(changed, ["sad rock"])[0] - before).abs().amax(-1)[0]
        # Not its own prediction, nor those of its pass, nor those of the codebooks below; the rest may see it.
        together = hidden(32, 3, codebook)[:, frame].argmax()
        assert moved[codebook, torch.from_numpy(hidden(32, 3, codebook)[together])].max() == 0
        assert moved[:codebook].sum() == 0
        assert moved[codebook].max() > 1e-6
        if codebook < 3:
            assert moved[codebook + 1].max() > 1e-6


def test_the_context_is_restricted_above_the_first_codebook(models: dict[str, TokenModel]) -> None:
    magnet = models["magnet"]
    codes = magnet.encode(_audio(1))
    before, _ = magnet.logits(codes, None)
    changed = codes.clone()
    changed[0, 0, 15] = (changed[0, 0, 15] + 1) % 64
    moved = (magnet.logits(changed, None)[0] - before).abs().amax(-1)[0]
    distance = (torch.arange(32) - 15).abs()
    reach = 2 * 5  # layers times frames on either side
    for codebook in (1, 2, 3):
        assert moved[codebook, distance > reach].max() == 0
        assert moved[codebook, :15].max() > 1e-6, "the future is seen"
        assert moved[codebook, 16:].max() > 1e-6, "and so is the past"
    assert moved[0, distance > reach].max() > 1e-6, "the first codebook sees everything"


def test_the_explicit_attention_agrees_with_the_library_where_that_is_right(models: dict[str, TokenModel]) -> None:
    """Without a restricted context audiocraft's own fast path is exact: stage 0."""
    magnet: Any = models["magnet"]
    codes = magnet.encode(_audio(2))
    logits, _ = magnet.logits(codes, None)
    attention = [module for module in magnet.lm.modules() if hasattr(module, "memory_efficient")]
    condition = {k: tuple(x.expand(2, *x.shape[1:]) for x in v) for k, v in magnet._condition(None).items()}
    try:
        for module in attention:
            module.memory_efficient = True
        for part in torch.from_numpy(hidden(32, 3, 0)):
            given = torch.full_like(codes, magnet.lm.special_token_id)
            given[:, 0, ~part] = codes[:, 0, ~part]
            with torch.inference_mode():
                library = magnet.lm(given, [], condition, stage=0)
            torch.testing.assert_close(logits[:, 0, part], library[:, 0, part], atol=1e-5, rtol=0)
    finally:
        for module in attention:
            module.memory_efficient = False


# --- identity and bad input -------------------------------------------------------------------------------------------


@pytest.fixture
def copy(folders: dict[str, Path], tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return Path(shutil.copytree(folders[getattr(request, "param", "audiogen")], tmp_path / "copy"))


def _state(folder: Path, change: Callable[[dict[str, Any]], Any], file: str = "state_dict.bin") -> None:
    content = torch.load(folder / file, weights_only=True)
    change(content)
    torch.save(content, folder / file)


def _config(folder: Path, change: Callable[[dict[str, Any]], Any], file: str = "state_dict.bin") -> None:
    def edit(content: dict[str, Any]) -> None:
        config = yaml.safe_load(content["xp.cfg"])
        change(config)
        content["xp.cfg"] = yaml.safe_dump(config)

    _state(folder, edit, file)


@pytest.mark.parametrize("name", ["state_dict.bin", "compression_state_dict.bin", "t5-base/model.safetensors"])
def test_the_revision_follows_every_part(copy: Path, folders: dict[str, Path], name: str) -> None:
    assert revision(copy) == revision(folders["audiogen"])
    with (copy / name).open("ab") as file:
        file.write(b"\0")
    assert revision(copy) != revision(folders["audiogen"])


def test_parts_kept_elsewhere_belong_to_the_identity(copy: Path, tmp_path: Path) -> None:
    beside = (copy / "t5-base").rename(tmp_path / "t5-base")
    alone = revision(copy)
    whole = revision(copy, beside)
    assert whole != alone
    assert describe(str(copy)).revision == whole, "a folder of its name beside the model's own is taken"
    (beside / "model.safetensors").write_bytes(b"other")
    assert revision(copy, beside) not in {alone, whole}
    beside.rename(tmp_path / "t5-small")
    with pytest.raises(ModelError, match="'t5-base': not in the local cache and not downloaded"):
        describe(str(copy), allow_download=False)


def test_a_folder_in_both_formats_is_read_as_safetensors(folders: dict[str, Path], tmp_path: Path) -> None:
    both = shutil.copytree(folders["musicgen twin"], tmp_path / "both")
    shutil.copy(folders["musicgen"] / "state_dict.bin", both)
    assert describe(str(both)).revision == describe(str(folders["musicgen twin"])).revision


class _Executes:
    """Unpickled carelessly, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("file", ["state_dict.bin", "compression_state_dict.bin"])
def test_a_pickle_that_would_execute_code_is_refused_and_executes_nothing(copy: Path, file: str) -> None:
    trap = copy.parent / "executed"
    content = torch.load(copy / file, weights_only=True)
    torch.save(content | {"version": _Executes(trap)}, copy / file)
    for attempt in (describe, ew.load_model):
        with pytest.raises(ModelError, match=f"{file}: a pickle that asks for .*mkdir; only tensors and plain values"):
            attempt(str(copy))
    (copy / file).write_bytes(pickle.dumps(_Executes(trap)))
    with pytest.raises(ModelError, match=file):
        describe(str(copy))
    assert not trap.exists()
    pickle.loads(pickle.dumps(_Executes(trap)))
    assert trap.exists(), "the trap works"


def test_a_resolver_is_refused_and_never_followed(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARWITNESS_SECRET", "7429")
    describe(str(copy))  # one in a section that no network is built from is not even read
    _config(copy, lambda c: c["transformer_lm"].update(dim="${oc.env:EARWITNESS_SECRET}"))
    with pytest.raises(ModelError, match=r"holds '\$\{oc.env:EARWITNESS_SECRET\}'; only references to plain") as caught:
        describe(str(copy))
    assert "7429" not in str(caught.value)


LM, CODEC = "state_dict.bin", "compression_state_dict.bin"
PROJECTION = "condition_provider.conditioners.description.output_proj"
Break = Callable[[Path], Any]


def set_to(path: str, value: Any, file: str = LM) -> Break:
    """Set one value of a configuration, named with dots."""
    *sections, key = path.split(".")

    def change(config: dict[str, Any]) -> None:
        for section in sections:
            config = config[section]
        config[key] = value

    return lambda folder: _config(folder, change, file)


def entry(name: str, value: Any) -> Break:
    """Set one entry of the export itself, or remove it."""
    return lambda folder: _state(folder, lambda c: c.pop(name) if value is None else c.update({name: value}))


def tensor(name: str, value: Any) -> Break:
    """Set one tensor, or remove it."""
    return lambda folder: _state(
        folder, lambda c: c["best_state"].pop(name) if value is None else c["best_state"].update({name: value})
    )


def saved(content: Any, file: str = LM) -> Break:
    """Put something else in a file's place."""
    return lambda folder: torch.save(content, folder / file)


BOMB = "\n".join(
    ["a: &a [x, x]", *(f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True))]
)
EXPORT, DENSE, PLAIN = "expected audiocraft's export", "expected best_state to hold dense", "only references to plain"
BROKEN: dict[str, tuple[Break, str]] = {
    "no codec": (lambda f: (f / CODEC).unlink(), f"expected {CODEC}, found none"),
    "half a file": (lambda f: (f / LM).write_bytes((f / LM).read_bytes()[:20_000]), "damaged"),
    "an empty file": (lambda f: (f / LM).write_bytes(b""), "damaged"),
    "no export": (saved({"model": torch.zeros(1)}), EXPORT),
    "a list": (saved([torch.zeros(1)]), EXPORT),
    "no tensors": (tensor("emb", "x"), DENSE),
    "a sparse tensor": (tensor("emb", torch.zeros(2, 2).to_sparse()), DENSE),
    "a tensor without its data": (
        tensor("extra", torch.zeros(1, 1).expand(10**7, 10**5)),
        "claim .* bytes, the file holds",
    ),
    "no configuration": (entry("xp.cfg", None), "expected its configuration xp.cfg as text"),
    "no YAML": (entry("xp.cfg", "{"), "not plain YAML"),
    "a YAML bomb": (entry("xp.cfg", BOMB), "not plain YAML .*aliases are not read"),
    "tagged YAML": (entry("xp.cfg", "a: !!python/name:os.system"), "not plain YAML"),
    "a codec for a language model": (
        lambda f: shutil.copy(f / CODEC, f / LM),
        "not a MusicGen's, AudioGen's or MAGNeT's",
    ),
    "another family": (set_to("lm_model", "jasco"), "'jasco' is no family we load"),
    "a missing tensor": (tensor("linears.2.weight", None), "the weights lack 1 tensors, first linears.2.weight"),
    "an unknown tensor": (tensor("extra", torch.zeros(1)), "the weights hold unknown 1 tensors, first extra"),
    "a missing projection": (
        tensor(f"{PROJECTION}.bias", None),
        "the weights lack 1 tensors, first condition_provider",
    ),
    "another text encoder": (
        tensor(f"{PROJECTION}.weight", torch.zeros(48, 31)),
        "'description' does not fit its weights",
    ),
    "a text encoder without words": (
        lambda f: [(f / "t5-base" / name).unlink() for name in ("tokenizer.json", "spiece.model")],
        "t5-base: expected a tokenizer",
    ),
    "another width": (set_to("transformer_lm.dim", 96), "has shape .*, the configuration expects"),
    "absurd width": (set_to("transformer_lm.dim", 4 * 10**9), "has shape|describes no network"),
    "absurd vocabulary": (set_to("transformer_lm.card", 10**9), "has shape"),
    "absurd depth": (set_to("transformer_lm.num_layers", 10**9), "asks for num_layers 1000000000, the weights hold"),
    "absurd heads": (set_to("transformer_lm.num_heads", 10**9), "1000000000 heads over 48 values"),
    "absurd delay": (set_to("codebooks_pattern.delay.delays", [0, 1, 2, 10**12]), "delays beyond 64 steps"),
    "absurd start": (set_to("codebooks_pattern.delay.empty_initial", 10**12), "delays beyond 64 steps"),
    "absurd codec": (set_to("seanet.n_filters", 10**8, CODEC), "has shape|describes no network"),
    "absurd codebooks": (set_to("rvq.bins", 10**9, CODEC), "has shape"),
    "absurd codec depth": (set_to("seanet.encoder", {"n_residual_layers": 10**9}, CODEC), "asks for n_residual_layers"),
    "no window": (set_to("dataset.segment_duration", None), "not a MusicGen's"),
    "an endless window": (set_to("dataset.segment_duration", 1e9), "a window of 1000000000.0 s"),
    "a word for a number": (set_to("transformer_lm.dropout", "x"), "describes no network"),
    "an unknown option": (set_to("transformer_lm.magic", 1), "describes no network"),
    "a missing option": (set_to("transformer_lm.dim", "???"), "not a MusicGen's"),
    "a resolver in a codec": (set_to("rvq.bins", "${oc.decode:64}", CODEC), PLAIN),
    "a reference to a section": (set_to("transformer_lm.dim", "${dataset}"), PLAIN),
    "a reference in a text": (set_to("conditioners.description.t5.name", "t5-${lm_model}"), PLAIN),
    "a reference in a circle": (set_to("transformer_lm.dim", "${transformer_lm.dim}"), "refers to itself"),
    "melody": (
        set_to("conditioners.self_wav", {"model": "chroma_stem"}),
        "'self_wav' .chroma_stem.; MusicGen Melody is read",
    ),
    "another pattern": (set_to("codebooks_pattern.modeling", "unroll"), "the codebook pattern 'unroll'"),
    "a text encoder somewhere": (
        set_to("conditioners.description.t5.name", "/etc"),
        "the text encoder '/etc', which is no",
    ),
    "words": (
        set_to("conditioners.description.t5.normalize_text", True),
        "spaCy's en_core_web_sm, which is not installed",
    ),
    "a codec somewhere": (saved({"pretrained": "../codec"}, CODEC), "the codec '../codec', which is no hub name"),
    "DAC": (saved({"pretrained": "dac_44khz"}, CODEC), "the codec 'dac_44khz', which is no hub name"),
    "absurd tokenizer": (set_to("compression_model_n_q", 10**9), "the codec cannot be used as xp.cfg asks"),
    "another tokenizer": (set_to("compression_model_n_q", 2), "predicts 4 codebooks of 64, the codec writes 2 of 64"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_folders_are_refused_with_the_reason(copy: Path, name: str) -> None:
    breaks, message = BROKEN[name]
    breaks(copy)
    with pytest.raises(ModelError, match=message) as caught:
        ew.load_model(str(copy))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("copy", ["magnet"], indirect=True)
def test_a_magnet_that_writes_a_first_step_is_refused(copy: Path) -> None:
    _config(copy, lambda c: c["codebooks_pattern"]["parallel"].update(empty_initial=0))
    with pytest.raises(ModelError, match="expected a MAGNeT's codebook pattern"):
        ew.load_model(str(copy))


def test_a_caption_where_the_model_takes_none(models: dict[str, TokenModel]) -> None:
    model = models["unconditional"]
    codes = model.encode(_audio(2))
    assert torch.equal(model.logits(codes, ["", ""])[0], model.logits(codes, None)[0])
    with pytest.raises(ModelError, match="unconditional: takes no captions, got 'sad rock'"):
        model.logits(codes, ["", "sad rock"])


def test_channels_must_be_the_models(models: dict[str, TokenModel]) -> None:
    for name, channels in (("audiogen", 2), ("stereo", 1)):
        with pytest.raises(ModelError, match=r"expected \d channel"):
            models[name].encode(_audio(1, channels))


def test_attention_saved_by_torch_itself(copy: Path, models: dict[str, TokenModel]) -> None:
    """A model trained without the library's own attention names its tensors otherwise."""

    def rename(content: dict[str, Any]) -> None:
        names = ("in_proj_weight", "out_proj.weight")
        content["best_state"] = {
            k.replace("attn.", "attn.mha.").replace("attention.", "attention.mha.") if k.endswith(names) else k: v
            for k, v in content["best_state"].items()
        }

    _state(copy, rename)
    codes = models["audiogen"].encode(_audio(1))
    logits, _ = ew.load_model(str(copy)).logits(codes, ["sad rock"])
    torch.testing.assert_close(logits, models["audiogen"].logits(codes, ["sad rock"])[0])


def test_a_limited_past_is_respected(copy: Path) -> None:
    _config(copy, lambda c: c["transformer_lm"].update(past_context=3))
    model = ew.load_model(str(copy))
    codes = model.encode(_audio(1))
    changed = codes.clone()
    changed[0, 0, 2] = (changed[0, 0, 2] + 1) % 64
    moved = (model.logits(changed, None)[0] - model.logits(codes, None)[0]).abs().amax(-1)[0]
    assert moved[0, 3].max() > 1e-6
    assert moved[0, 3 + 2 * 3 + 1 :].max() == 0


def test_without_audiocraft_the_reason_is_given(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "audiocraft.models", None)
    info = describe(str(folders["audiogen"]))  # from the files alone
    assert info.sample_rate == RATE
    with pytest.raises(ModelError, match="needs the package audiocraft .*pip install --no-deps audiocraft"):
        ew.load_model(str(folders["audiogen"]))


def test_loading_prints_nothing(folders: dict[str, Path], capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("musicgen", "audiogen", "magnet", "musicgen twin"):
            model = ew.load_model(str(folders[name]))
            model.logits(model.encode(_audio(1)), ["happy jazz"])
    assert capfd.readouterr() == ("", "")


def test_a_lookup_table_of_captions(copy: Path) -> None:
    prefix = "condition_provider.conditioners.description"
    table = {f"{prefix}.embed.weight": torch.randn(128, 16), f"{prefix}.output_proj.weight": torch.randn(48, 16)}
    _state(copy, lambda c: c["best_state"].update(table))
    lut = {"n_bins": 128, "dim": 16, "tokenizer": "noop"}
    _config(copy, lambda c: c["conditioners"].update(description={"model": "lut", "lut": lut}))
    model = ew.load_model(str(copy))
    logits, _ = model.logits(model.encode(_audio(2)), ["a dog", ""])
    assert torch.isfinite(logits).all()
    _config(copy, lambda c: c["conditioners"]["description"]["lut"].update(n_bins=10**12))
    with pytest.raises(ModelError, match="does not fit its weights"):
        ew.load_model(str(copy))


def test_audiocraft_itself_loads_what_the_tests_save(
    copy: Path, models: dict[str, TokenModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The toy checkpoints are in the real format, and the library's own loader agrees with ours."""
    from audiocraft.models.loaders import load_compression_model, load_lm_model
    from audiocraft.modules.conditioners import ConditioningAttributes, T5Conditioner

    encoder = str(copy / "t5-base")
    monkeypatch.setitem(T5Conditioner.MODELS_DIMS, encoder, 32)
    monkeypatch.setattr(T5Conditioner, "MODELS", [*T5Conditioner.MODELS, encoder])
    set_to("conditioners.description.t5.name", encoder)(copy)
    ours = models["audiogen"]
    codes = ours.encode(_audio(1))
    assert torch.equal(codes, load_compression_model(copy).encode(_audio(1))[0])
    logits, mask = ours.logits(codes, ["sad rock"])
    with torch.inference_mode():
        said = [ConditioningAttributes(text={"description": "sad rock"})]
        output = load_lm_model(copy).compute_predictions(codes, said)
    assert torch.equal(mask, output.mask)
    torch.testing.assert_close(logits[mask], output.logits[mask])


@pytest.mark.parametrize("name", [*KINDS, "stereo", "musicgen twin"])
@pytest.mark.parametrize("captions", [["", "", ""], ["", "sad rock", ""]], ids=["none", "some"])
def test_equal_passes_are_run_once(models: dict[str, TokenModel], name: str, captions: list[str]) -> None:
    model, rows = models[name], []
    if name == "unconditional":
        captions = [""] * 3
    audio = _audio(3, model.info.channels)
    codes = model.encode(audio)
    twin = reduce_batch(
        model.logits(codes, captions)[0], model.logits(codes, None)[0], codes, model.logits(codes, None)[1]
    )

    def counted(codes: torch.Tensor, captions: list[str] | None) -> Any:
        rows.append(len(codes))
        return type(model).logits(model, codes, captions)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "logits", counted)
        found = extract(model, audio, captions)
    assert rows == ([3, 1] if any(captions) else [3])
    for caption, one, other in zip(captions, found, twin, strict=True):
        for key, value in one.to_arrays().items():
            np.testing.assert_allclose(value, other.to_arrays()[key], atol=1e-5 if caption else 0, rtol=0, err_msg=key)


@pytest.mark.parametrize("name", ["audiogen", "musicgen"])
def test_the_text_encoder_reads_a_caption_once(folders: dict[str, Path], name: str) -> None:
    model = ew.load_model(str(folders[name]))
    heard = []
    conditioner = model.lm.condition_provider.conditioners["description"]  # type: ignore[attr-defined]
    conditioner.t5.register_forward_hook(lambda _, __, output: heard.append(len(output.last_hidden_state)))
    for captions in (["sad rock", "", "sad rock"], ["happy jazz", "sad rock", ""]):
        extract(model, _audio(3), captions)
    assert heard == [1, 1, 1]


def test_networks_are_filled_without_being_drawn_first(folders: dict[str, Path], monkeypatch: Any) -> None:
    drawn, normal = [], torch.nn.init.normal_

    def seen(tensor: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        drawn.extend([tensor.shape] if tensor.device.type != "meta" else [])
        return normal(tensor, *args, **options)

    monkeypatch.setattr(torch.nn.init, "normal_", seen)
    for name in ("audiogen", "magnet", "stereo"):
        drawn.clear()
        filled = ew.load_model(str(folders[name]))
        assert not drawn
        with monkeypatch.context() as patch:
            patch.setattr(audiocraft_module.loading, "undrawn", nullcontext)
            old = ew.load_model(str(folders[name]))
        assert drawn
        for part in ("lm", "codec"):
            one, other = (
                [*getattr(m, part).named_buffers(), *getattr(m, part).named_parameters()] for m in (filled, old)
            )
            assert [key for key, _ in one] == [key for key, _ in other]
            assert all(torch.equal(a, b) for (_, a), (_, b) in zip(one, other, strict=True))
        audio = _audio(1, filled.info.channels)
        codes = filled.encode(audio)
        assert torch.equal(codes, old.encode(audio))
        assert torch.equal(filled.logits(codes, ["sad rock"])[0], old.logits(codes, ["sad rock"])[0])
