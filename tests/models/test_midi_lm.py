"""Causal models over miditok's tokens: own folder, own tokenizer, windows, groups, neighbours, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import miditok
import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import earwitness as ew
from earwitness.data.audio import from_plain, to_plain
from earwitness.errors import AudioError, ModelError
from earwitness.models import describe, load_model
from earwitness.signals import symbolic
from earwitness.symbolic.figaro_tokens import GROUPS
from earwitness.symbolic.miditok import MiditokScheme
from earwitness.symbolic.windows import SymbolicSpec, segments
from earwitness.types import Track
from tests import tiny_midi

CONTEXT = 64
STREAM: dict[str, Any] = {"use_programs": True, "use_tempos": True, "use_time_signatures": True}


def piece(path: Path, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    rows = [(240 * i, 240 * i + 200, int(rng.integers(40, 80)), int(rng.integers(1, 128))) for i in range(60)]
    return tiny_midi.write(path, [(0, rows[::2]), (33, rows[1::2]), ("drum", rows[::5])])


def write(folder: Path, *, merged: bool = False, kind: str = "gpt2", token: Any = None, **changed: Any) -> Path:
    """Write a tiny model and its tokenizer into one folder."""
    folder.mkdir(parents=True)
    tokenizer = token or miditok.REMI(miditok.TokenizerConfig(**STREAM))
    if merged:
        files = [piece(folder.parent / f"train{i}.mid", i) for i in range(3)]
        tokenizer.train(vocab_size=len(tokenizer) + 60, files_paths=files)
    own = {"bos_token_id": tokenizer["BOS_None"], "eos_token_id": 50_000} | changed
    torch.manual_seed(0)
    if kind == "gpt2":
        config = GPT2Config(vocab_size=len(tokenizer), n_positions=CONTEXT, n_embd=16, n_layer=1, n_head=2, **own)
        GPT2LMHeadModel(config).save_pretrained(folder)
    else:
        sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=CONTEXT, **sizes, **own)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("merged", [False, True])
def test_windows_are_scored_as_the_model_scores_them(tmp_path: Path, merged: bool, kind: str) -> None:
    folder = write(tmp_path / "m", merged=merged, kind=kind)
    model = load_model(str(folder), device="cpu")
    assert (model.info.family, model.info.badge, model.info.conditions) == ("token", "tiny", ())
    scheme = model.info.scheme
    assert (scheme.window, scheme.begins, scheme.ends, scheme.merged) == (CONTEXT, True, False, merged)
    path = piece(tmp_path / "x.mid", 7)
    tokenizer = miditok.REMI(params=folder / "tokenizer.json")
    whole = [tokenizer["BOS_None"], *tokenizer(path).ids]
    windows = scheme.windows(scheme.read(path))
    assert len(windows) == len(whole) // (CONTEXT + 1) >= 2
    for k, window in enumerate(windows):
        assert window.tokens.tolist() == whole[k * (CONTEXT + 1) : (k + 1) * (CONTEXT + 1)]
    tokens = torch.from_numpy(np.stack([w.tokens[None] for w in windows]))
    network = (GPT2LMHeadModel if kind == "gpt2" else LlamaForCausalLM).from_pretrained(folder).eval()
    with torch.inference_mode():
        logits, mask = model.logits(model.encode(tokens), windows)
        wanted = network(tokens[:, 0, :-1].long()).logits
        alone = model.logits(model.encode(tokens[:1]), windows[:1])[0]
    torch.testing.assert_close(logits[:, 0], wanted, atol=1e-5, rtol=0)
    torch.testing.assert_close(alone[0], logits[0], atol=1e-5, rtol=0)
    assert mask[0, 0].tolist() == (windows[0].groups >= 0).tolist()
    with pytest.raises(ModelError, match="has no null condition"):
        model.logits(model.encode(tokens), None)


def test_groups_follow_the_tokens_kinds(tmp_path: Path) -> None:
    scheme = describe(str(write(tmp_path / "m"))).scheme
    assert scheme.groups == GROUPS
    kinds = {"Position": 0, "Program": 1, "Pitch": 2, "PitchDrum": 2, "Velocity": 3, "Duration": 4}
    tokenizer = miditok.REMI(params=tmp_path / "m" / "tokenizer.json")
    for window in scheme.windows(scheme.read(piece(tmp_path / "x.mid"))):
        names = [tokenizer[int(token)].partition("_")[0] for token in window.tokens[1:]]
        assert window.groups.tolist() == [kinds.get(name, -1) for name in names]


def test_merged_tokens_are_one_row_of_all_that_holds_a_note(tmp_path: Path) -> None:
    scheme = describe(str(write(tmp_path / "m", merged=True))).scheme
    assert scheme.groups == ("note",)
    tokenizer = miditok.REMI(params=tmp_path / "m" / "tokenizer.json")
    seen = set()
    for window in scheme.windows(scheme.read(piece(tmp_path / "x.mid"))):
        for token, group in zip(window.tokens[1:], window.groups, strict=True):
            sequence = miditok.TokSequence(ids=[int(token)], are_ids_encoded=True)
            tokenizer.decode_token_ids(sequence)
            kinds = {tokenizer[i].partition("_")[0] for i in sequence.ids}
            holds = bool(kinds & {"Program", "Pitch", "PitchDrum", "Velocity", "Duration"})
            assert bool(group == 0) is holds
            seen.add(len(sequence.ids) > 1)
    assert seen == {False, True}


@pytest.mark.parametrize("merged", [False, True])
def test_it_goes_through_the_whole_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, merged: bool) -> None:
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / "results"))
    folder = write(tmp_path / "m", merged=merged)
    tracks = [Track(f"t{i}", piece(tmp_path / f"{i}.mid", i), "member" if i else "nonmember") for i in range(2)]
    signals = ew.collect(str(folder), tracks, ["transposition", "dynamics", "tempo"], max_segments=2, progress=False)
    assert len(signals.index) == 4
    scores = ew.score(signals, ["all", "transposition", "dynamics", "tempo"])
    table = scores.pivot_table(index="segment_id", columns="attack", values="score", dropna=False)
    modelled = [name for name in table if not name.startswith("blind/")]
    assert table[["loss/conditional", "transposition/conditional", "dynamics/conditional"]].notna().all(axis=None)
    assert table[modelled].drop(columns="tempo/conditional").notna().all(axis=None)
    # The tempo is told at the start of each piece alone; where tokens are merged, the windows behind it move too.
    assert table["tempo/conditional"].count() == (4 if merged else 2)
    assert (table["transposition/conditional"] != 0).all()
    assert table["blind/notes_number"].between(5, 60).all()
    spec = SymbolicSpec(signals.info.scheme)
    assert from_plain(json.loads(json.dumps(to_plain(spec)))) == spec
    assert set(symbolic.FEATURES) == {name.partition("/")[2] for name in table if name.startswith("blind/")}


def test_neighbours_are_the_piece_moved(tmp_path: Path) -> None:
    scheme = describe(str(write(tmp_path / "m"))).scheme
    read = scheme.read(piece(tmp_path / "x.mid"))

    def pitches(piece: Any, *, drums: bool) -> list[int]:
        return [n.pitch for t in piece.music.tracks for n in t.notes if t.is_drum is drums]

    up, down = scheme.neighbours("transposition", read)
    assert pitches(up, drums=False) == [p + 1 for p in pitches(read, drums=False)]
    assert pitches(down, drums=False) == [p - 1 for p in pitches(read, drums=False)]
    assert pitches(up, drums=True) == pitches(read, drums=True)
    assert [t.qpm for t in scheme.neighbours("tempo", read)[0].music.tempos] == pytest.approx([132.0], rel=1e-5)
    louder = [n.velocity for t in scheme.neighbours("dynamics", read)[0].music.tracks for n in t.notes]
    own = [n.velocity for t in read.music.tracks for n in t.notes]
    assert louder == [min(127, v + 8) for v in own]


def test_kinds_of_token_that_a_tokenizer_lacks_are_left_out_of_pooled_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MIDILike writes no durations; its notes end with tokens of their own."""
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / "results"))
    token = miditok.MIDILike(miditok.TokenizerConfig(**STREAM))
    folder = str(write(tmp_path / "m", token=token))
    other = str(write(tmp_path / "other", token=token, n_inner=24))
    tracks = [Track("x", piece(tmp_path / "x.mid"), "suspect")]
    asked = ["loss", "transposition", "dynamics", "reference"]
    found = ew.collect(folder, tracks, asked, reference=other, progress=False)
    table = ew.score(found, asked).pivot_table(index="segment_id", columns="attack", values="score", dropna=False)
    assert table.notna().all(axis=None)
    groups = ew.score(found, ["loss/*/q*"]).groupby("attack")["score"].count()
    assert groups.min() == 0, "every kind of token is there"


def test_a_change_that_leaves_the_tokens_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / "results"))
    beat = [(240 * i, 240 * i + 100, 38, 90 + i % 7) for i in range(64)]
    drums = tiny_midi.write(tmp_path / "drums.mid", [("drum", beat)])
    timeless = miditok.REMI(miditok.TokenizerConfig(**STREAM | {"use_tempos": False}))
    asked = ["transposition", "tempo", "dynamics"]
    found = ew.collect(
        str(write(tmp_path / "m", token=timeless)), [Track("x", drums, "suspect")], asked, progress=False
    )
    table = ew.score(found, asked).groupby("attack")["score"]
    assert table.count().to_dict() == {
        "transposition/conditional": 0, "tempo/conditional": 0, "dynamics/conditional": len(found.index),
    }  # fmt: skip


def _tokens(folder: Path, change: Any) -> Path:
    path = folder / "tokenizer.json"
    held = json.loads(path.read_text())
    change(held)
    path.write_text(json.dumps(held))
    return folder


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (lambda p: _tokens(write(p), lambda t: t.pop("tokenization")), "tokenizer.json is none of miditok's"),
        (lambda p: _tokens(write(p), lambda t: t.update(tokenization="TokSequence")), "is no tokenizer of miditok's"),
        (lambda p: _tokens(write(p), lambda t: t.update(config={"pitch_range": 3})), "miditok cannot read it"),
        (lambda p: write(p, token=miditok.REMI(miditok.TokenizerConfig())), "writes a sequence per track"),
        (lambda p: write(p, token=miditok.MIDILike(miditok.TokenizerConfig())), "writes a sequence per track"),
    ],
)  # fmt: skip
def test_tokenizers_that_cannot_serve_are_refused(tmp_path: Path, prepare: Any, reason: str) -> None:
    folder = prepare(tmp_path / "m")
    with pytest.raises(ModelError, match=reason):
        describe(str(folder))


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "m")
    miditok.REMI(miditok.TokenizerConfig(**STREAM, use_chords=True)).save_pretrained(folder)
    with pytest.raises(ModelError, match=r"the tokenizer has \d+ tokens and the model \d+ entries"):
        load_model(str(folder), device="cpu")
    (folder / "model.safetensors").unlink()
    write(tmp_path / "n")
    (tmp_path / "n" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="expected .*safetensors"):
        describe(str(tmp_path / "n"))


def test_pieces_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    scheme = MiditokScheme(write(tmp_path / "m"), CONTEXT)
    (tmp_path / "bad.mid").write_bytes(b"MThd")
    with pytest.raises(AudioError, match=r"bad\.mid: not a MIDI file"):
        list(segments(tmp_path / "bad.mid", SymbolicSpec(scheme)))
    short = tiny_midi.write(tmp_path / "short.mid", [(0, [(0, 480, 60, 64)])])
    with pytest.raises(AudioError, match=r"short\.mid: shorter than one window"):
        list(segments(short, SymbolicSpec(scheme)))
