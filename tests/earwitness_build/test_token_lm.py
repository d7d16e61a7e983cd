"""The pocket models: filter bank, codec, a micro training run, and the weights that are shipped."""

from __future__ import annotations

import hashlib
import json
import re
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors import safe_open  # noqa: E402

from earwitness.data.audio import LEVEL_DBFS, level_dbfs  # noqa: E402
from earwitness.errors import ModelError  # noqa: E402
from earwitness.models import load_model  # noqa: E402
from earwitness.pocket import composer, corpus, render  # noqa: E402
from earwitness_build.training import filterbank, token_lm, train  # noqa: E402
from earwitness_build.training.codec import CodecRecipe, build_codec, fit_codes, spectral_distance, train_decoder  # noqa: E402

TOY_CODEC = CodecRecipe(entries=16, steps=3, batch=2)
TOY_LM = token_lm.LmRecipe(width=16, layers=1, heads=2, text_width=8, epochs=1, batch=2, dropout=0.0)
NAMES = ("musicgen-a", "musicgen-b")


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def _heard(entries) -> np.ndarray:
    """Render tracks and bring them to the level models hear, ``[tracks, samples]``."""
    waves = [render.render(e.piece(), e.artist) for e in entries]
    return np.array([w * 10 ** ((LEVEL_DBFS - level_dbfs(w)) / 20) for w in waves], dtype=np.float32)


@pytest.fixture(scope="module")
def audio():
    return _heard(corpus.plan()[::300])


@pytest.fixture(scope="module")
def untrained():
    return build_codec(TOY_CODEC)


@pytest.fixture(scope="module")
def toy_codec(audio):
    return fit_codes(TOY_CODEC, audio)


@pytest.fixture(scope="module")
def toy_folder(tmp_path_factory, toy_codec):
    """Two tracks, two steps, saved like the real thing."""
    folder = tmp_path_factory.mktemp("toy") / "musicgen-toy"
    codec = toy_codec[0]
    hidden = torch.from_numpy(_heard(corpus.plan()[:2])).unsqueeze(1)
    with torch.inference_mode():
        codes = codec.encode(hidden).audio_codes[0].unsqueeze(1).clone()
    tokenizer = token_lm.build_tokenizer(folder)
    model = token_lm.build_model(TOY_LM, codec, len(tokenizer))
    steps = token_lm.train_lm(model, tokenizer, codes, ["slow music", "fast music"], replace(TOY_LM, epochs=2))
    model = model.half().float()
    token_lm.save_model(model.float(), tokenizer, folder, {"steps": steps})
    return folder, model.float(), tokenizer


def test_the_filter_bank_hears_bands_and_not_phases(untrained):
    centres = filterbank.band_centres(24, render.SAMPLE_RATE)
    time = np.arange(16_000) / render.SAMPLE_RATE
    for band in (1, 6, 14, 20):
        tops = []
        for phase in (0.0, 0.8, 1.6):
            wave = 0.1 * np.cos(2 * np.pi * centres[band] * time + phase)
            level = filterbank.log_levels(untrained, torch.from_numpy(wave.astype(np.float32))[None, None])[10:40]
            assert (level.mean(axis=0).argmax()) == band
            assert level[:, band].std() < 0.2
            tops.append(level[:, band].mean())
        assert np.ptp(tops) < 0.1


def test_the_filter_bank_answers_in_logarithms(untrained):
    """Three times the amplitude is one unit more, within the range the gains cover; silence is zero."""
    tone = np.cos(2 * np.pi * 460 * np.arange(16_000) / render.SAMPLE_RATE)
    levels = [
        filterbank.log_levels(untrained, torch.from_numpy((a * tone).astype(np.float32))[None, None])[10:40, 5].mean()
        for a in (0.0, 0.01, 0.03, 0.09)
    ]
    assert abs(levels[0]) < 0.3
    assert np.diff(levels[1:]) == pytest.approx([1.0, 1.0], abs=0.15)


def test_codes_are_fitted_alike_twice(audio, toy_codec):
    codec, heard = toy_codec
    again, heard_again = fit_codes(TOY_CODEC, audio)
    assert torch.equal(heard, heard_again)
    wave = torch.from_numpy(audio[:1]).unsqueeze(1)
    stored = deepcopy(again).half().float()
    with torch.inference_mode():
        codes = codec.encode(wave).audio_codes
        assert torch.equal(codes, again.encode(wave).audio_codes)
        assert torch.equal(codes, stored.encode(wave).audio_codes), "codes change when stored"
    assert codes.shape == (1, 1, 4, 300)
    assert len(codes[0, 0, 0].unique()) > 4


def test_decoder_training_lowers_its_loss(audio, toy_codec):
    codec, heard = toy_codec
    wave = torch.from_numpy(audio)
    with torch.inference_mode():
        before = float(spectral_distance(codec.decoder(heard)[:, 0], wave))
    train_decoder(replace(TOY_CODEC, steps=12), codec, heard, audio)
    with torch.inference_mode():
        assert float(spectral_distance(codec.decoder(heard)[:, 0], wave)) < before


def test_delay_pattern():
    codes = torch.arange(6).reshape(1, 2, 3)
    inputs, targets = token_lm.delayed(codes, 9)
    assert inputs.tolist() == [[[9, 0, 1, 2], [9, 9, 3, 4]]]
    assert targets.tolist() == [[[0, 1, 2, 9], [9, 3, 4, 5]]]


def test_micro_run_reloads_to_equal_logits(toy_folder):
    folder, model, tokenizer = toy_folder
    loaded = load_model(str(folder))
    assert loaded.info.segment_seconds == pytest.approx(2.56)
    codes = torch.randint(16, (2, 4, 20), generator=torch.Generator().manual_seed(0))
    captions = ["slow music", "a longer caption about fast music"]
    for words in (captions, None):
        logits, mask = loaded.logits(codes, words)
        text = tokenizer(captions, padding=True, return_tensors="pt")
        null = torch.full((2,), words is None)
        with torch.inference_mode():
            ours = token_lm.token_loss(model, codes, {k: text[k] for k in ("input_ids", "attention_mask")}, null)
        # The adapter leaves out the last frames of the delayed codebooks; the training loss holds them.
        full = torch.nn.functional.cross_entropy(logits.flatten(0, 2), codes.flatten(), reduction="none")
        assert float(ours) == pytest.approx(float(full.view(2, 4, 20).mean(dim=(0, 2)).mean()), abs=1e-5)
        assert bool(mask[:, 0].all())


def test_training_is_repeatable_and_learns(toy_codec, tmp_path):
    codec = toy_codec[0]
    tokenizer = token_lm.build_tokenizer(tmp_path / "tokenizer")
    codes = torch.randint(4, (2, 1, 4, 140), generator=torch.Generator().manual_seed(1))
    results = []
    for epochs in (12, 12):
        model = token_lm.build_model(TOY_LM, codec, len(tokenizer))
        token_lm.train_lm(model, tokenizer, codes, ["one", "two"], replace(TOY_LM, epochs=epochs, learning_rate=1e-2))
        results.append(model.decoder.lm_heads[0].weight.detach().clone())
        text = tokenizer(["one", "two"], padding=True, return_tensors="pt")
        words = {key: text[key] for key in ("input_ids", "attention_mask")}
        with torch.inference_mode():
            loss = float(token_lm.token_loss(model, codes[:, 0, :, :128], words, torch.zeros(2, dtype=torch.bool)))
        assert loss < 0.8 * np.log(16)
    assert torch.equal(*results)


@pytest.mark.parametrize("name", NAMES)
def test_shipped_weights_are_small_half_precision_and_hashed(name):
    folder = train.WEIGHTS / name
    assert sum(p.stat().st_size for p in folder.rglob("*")) <= 4e6
    record = json.loads((folder / "training.json").read_text())
    weights = folder / "model.safetensors"
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == record["weights_sha256"]
    assert record["name"] == name
    assert record["tracks"] == 240
    assert record["corpus_version"] == corpus.VERSION
    with safe_open(weights, framework="pt") as tensors:
        kinds = {tensors.get_tensor(key).dtype for key in tensors.keys()}  # noqa: SIM118 (not a dict)
    assert torch.float32 not in kinds
    assert torch.float16 in kinds


def test_shipped_folders_name_no_path_of_a_machine():
    named = {path: re.findall(r'": "/[^"]*"', path.read_text()) for path in train.WEIGHTS.rglob("*.json")}
    assert {path.name: found for path, found in named.items() if found} == {}


def test_recipes_on_disk_are_those_of_the_code():
    for target in train.TARGETS:
        record = json.loads((train.WEIGHTS / target.name / "training.json").read_text())
        assert record["recipe"] == json.loads(json.dumps(vars(target.recipe)))
        assert record["codec_recipe"] == json.loads(json.dumps(vars(train.CODEC)))
        assert record["splits"] == list(target.splits)


def test_the_twins_share_a_codec():
    with (
        safe_open(train.WEIGHTS / "musicgen-a" / "model.safetensors", framework="pt") as a,
        safe_open(train.WEIGHTS / "musicgen-b" / "model.safetensors", framework="pt") as b,
    ):
        codec = [k for k in a.keys() if k.startswith("audio_encoder.")]  # noqa: SIM118 (not a dict)
        assert codec
        assert all(torch.equal(a.get_tensor(k), b.get_tensor(k)) for k in codec)
        head = "decoder.lm_heads.0.weight"
        assert not torch.equal(a.get_tensor(head), b.get_tensor(head))


def test_shipped_codec_gives_back_what_it_was_given():
    """Decoded sound is like its own original in mel space, and much less like another's."""
    import librosa

    model = load_model("pocket/musicgen-a")
    heard = _heard(corpus.plan()[::200])
    with torch.inference_mode():
        codes = model.encode(torch.from_numpy(heard)[:, None])
        made = model.network.audio_encoder.decode(codes[None], [None]).audio_values[:, 0].numpy()
    assert made.std(axis=1).min() > 0.3 * heard.std(axis=1).min()

    def mel(waves):
        power = librosa.feature.melspectrogram(y=waves, sr=render.SAMPLE_RATE, n_mels=40, hop_length=512)
        level = np.log(power + 1e-3).reshape(len(waves), -1)
        return (level - level.mean(axis=1, keepdims=True)) / level.std(axis=1, keepdims=True)

    alike = mel(made) @ mel(heard).T / mel(heard).shape[1]
    assert np.diag(alike).mean() > 0.8
    assert (alike.argmax(axis=1) == np.arange(len(heard))).all()


def test_shipped_models_know_music_and_score_captions():
    """A trained model gives its codes far more than chance, and needs its time order."""
    model = load_model("pocket/musicgen-a")
    assert model.info.segment_seconds == pytest.approx(2.56)
    assert model.info.sample_rate == 16_000
    entry = next(e for e in corpus.plan() if e.split == "neither")
    wave = torch.from_numpy(_heard([entry])[:, : 128 * 320])[:, None]
    codes = model.encode(wave)
    assert codes.shape == (1, 4, 128)
    assert torch.equal(codes, load_model("pocket/musicgen-b").encode(wave))

    def loss(these):
        logits, mask = model.logits(these, [entry.caption])
        losses = torch.nn.functional.cross_entropy(logits.flatten(0, 2), these.flatten(), reduction="none")
        return float(losses[mask.flatten()].mean())

    assert loss(codes) < 0.85 * np.log(128)
    shuffled = codes[..., torch.randperm(128, generator=torch.Generator().manual_seed(0))]
    assert loss(shuffled) > loss(codes) + 0.3


def test_training_targets_see_only_their_split():
    tracks = {
        "musicgen-a": 240,
        "musicgen-b": 240,
        "musicgen-5": 60,
        "musicgen-10": 120,
        "musicgen-40": 480,
        "musicgen-repeats": 240,
    }
    for target in train.TARGETS:
        entries = target.entries()
        assert len(entries) == tracks[target.name]
        assert {e.split for e in entries} == set(target.splits)
        assert {e.artist.name for e in entries} == set(corpus.trained_artists())


def test_repeated_tracks_are_the_first_of_every_second_artist():
    target = train.Target("x", ("a",), train.LmRecipe(), repeats=(64, 16, 4))
    entries, copies = target.entries(), target.copies()
    by_artist = {}
    for e, n in zip(entries, copies, strict=True):
        by_artist.setdefault(e.artist.name, []).append(n)
    assert [*by_artist.values()] == [[64, 16, 4] + 17 * [1], 20 * [1]] * 6
    shipped = {t.name: t for t in train.TARGETS}["musicgen-repeats"]
    record = json.loads((train.WEIGHTS / shipped.name / "training.json").read_text())
    assert record["repeats"] == {e.track_id: n for e, n in zip(entries, copies, strict=True) if n > 1}
    assert record["steps"] == round(shipped.recipe.epochs * -(-sum(copies) // shipped.recipe.batch))


def test_the_ladder_is_nested_and_costs_the_same():
    targets = {t.name: t for t in train.TARGETS}
    ladder = [targets[f"musicgen-{rung}"] for rung in ("5", "10", "a", "40")]
    seen = [{e.track_id for e in t.entries()} for t in ladder]
    assert all(few < many for few, many in pairwise(seen))
    assert {round(t.recipe.epochs * -(-len(t.entries()) // t.recipe.batch)) for t in ladder} == {540}
    assert len({(t.recipe.seed, t.recipe.width, t.recipe.learning_rate) for t in ladder}) == 1


def test_training_an_unknown_model_is_refused():
    with pytest.raises(ModelError, match=r"no pocket model 'musicgen-aa'.*did you mean 'musicgen-a'"):
        train.train_all(only="musicgen-aa")


def test_outside_artists_are_outside():
    from earwitness.pocket.style import draw_world
    from earwitness_build.training.codec import OUTSIDE_SEED

    assert OUTSIDE_SEED != corpus.SEED
    ours = {composer.compose(a, 0, corpus.SEED).sha256 for a in corpus.artists()}
    theirs = {composer.compose(a, 0, OUTSIDE_SEED).sha256 for a in draw_world(OUTSIDE_SEED)}
    assert not ours & theirs
