"""Generation agrees with the logits that made it; likeness of sequences by hand and against slow twins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from earwitness.errors import InputError, ModelError
from earwitness.models import load_model
from earwitness.signals import generation
from earwitness.signals.token import TokenSignals, TokenStream
from earwitness.symbolic.figaro_vocabulary import TOKENS
from earwitness.symbolic.windows import FigaroScheme
from tests import tiny_figaro
from tests.signals.test_symbolic import piece


@pytest.fixture(scope="module")
def model():
    return load_model("pocket/musicgen-a", device="cpu")


def test_the_most_likely_continuation_is_what_the_logits_of_the_whole_say(model) -> None:
    """Every codebook at its own delay: nothing later was read, and nothing earlier was missed."""
    codes = torch.from_numpy(np.random.default_rng(0).integers(0, model.entries, (2, model.codebooks, 9)))
    told = ["slow piano", ""]
    made, frames = generation.continued(model, codes, 3, told, temperature=0)
    assert frames.tolist() == [9, 9]
    assert torch.equal(made[..., :3], codes[..., :3])
    with torch.inference_mode():
        again = model.logits(made, told)[0].argmax(-1)
    assert torch.equal(again[..., 3:], made[..., 3:])
    other = codes.clone()
    other[..., 3:] = 7
    assert torch.equal(generation.continued(model, other, 3, told, temperature=0)[0], made), "it looked ahead"


@pytest.mark.parametrize("prompt", [0, 4])
def test_what_is_kept_between_steps_changes_nothing(model, prompt, monkeypatch) -> None:
    codes = torch.from_numpy(np.random.default_rng(1).integers(0, model.entries, (3, model.codebooks, 12)))
    told = ["slow piano", "", "a lively clarinet over warm pads"]
    made, _ = generation.continued(model, codes, prompt, told, seed=2)
    monkeypatch.setattr(generation, "_reader", lambda *_: None)
    assert torch.equal(generation.continued(model, codes, prompt, told, seed=2)[0], made)


def test_latents_are_the_sums_of_what_codes_stand_for(model) -> None:
    codes = torch.from_numpy(np.random.default_rng(2).integers(0, model.entries, (2, model.codebooks, 3)))
    entries = [layer.codebook.embed for layer in model.network.audio_encoder.quantizer.layers]
    by_hand = [[sum(entries[k][codes[b, k, t]] for k in range(4)).numpy() for t in range(3)] for b in range(2)]
    assert generation.latents(model, codes) == pytest.approx(np.array(by_hand).transpose(0, 2, 1), abs=1e-5)


def test_noise_is_the_same_for_every_recording_and_follows_the_seed(model) -> None:
    codes = torch.zeros(2, model.codebooks, 5, dtype=torch.long)
    made, _ = generation.continued(model, codes, 0, ["", ""], seed=4)
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made, generation.continued(model, codes, 0, ["", ""], seed=5)[0])
    assert torch.equal(made, generation.continued(model, codes, 0, ["", ""], seed=4)[0])


def test_what_cannot_be_continued_is_refused(model) -> None:
    codes = torch.zeros(1, model.codebooks, 5, dtype=torch.long)
    for prompt in (5, 6, -1):
        with pytest.raises(InputError, match=f"prompt of {prompt} frames leaves nothing of 5 to continue"):
            generation.continued(model, codes, prompt, [""])

    class Masked:
        info = type("Info", (), {"calls": 20, "name": "magnet", "scheme": None})

    with pytest.raises(ModelError, match="magnet: fills masked frames and continues nothing"):
        generation.continued(Masked(), codes, 0, [""])


def test_codes_become_sound_again(model) -> None:
    codes = torch.from_numpy(np.random.default_rng(1).integers(0, model.entries, (2, model.codebooks, 20)))
    sound = model.decode(codes)
    assert sound.shape[:2] == (2, 1)
    assert sound.shape[-1] / model.info.sample_rate == pytest.approx(20 / 50, rel=0.3)


def test_scores_are_continued_with_bars_and_positions_of_what_was_written(tmp_path: Path) -> None:
    score = load_model(str(tiny_figaro.write(tmp_path / "m", "description")), device="cpu")
    scheme = FigaroScheme()
    windows = scheme.windows(scheme.read(piece(tmp_path / "a.mid", 3)))
    for window in windows[:3]:
        told = generation._told(window, torch.from_numpy(window.tokens[1:]))
        for name, values in window.inputs.items():
            assert told.inputs[name].tolist() == values.tolist(), name
    window = windows[0]
    codes = torch.from_numpy(window.tokens[None, None, 1:]).long()
    made, ended = generation.continued(score, codes, 250, [window], temperature=0)
    assert torch.equal(made[..., :250], codes[..., :250])
    with torch.inference_mode():
        again = score.logits(made, [generation._told(window, made[0, 0])])[0].argmax(-1)
    assert torch.equal(again[..., 250:], made[..., 250:])
    rest = made[0, 0, 250:].tolist()
    end = TOKENS["<eos>"]
    assert ended[0] == (251 + rest.index(end) if end in rest else 256)


def test_equal_tokens_by_hand() -> None:
    """Two codebooks, four frames: three and two equal. As coded 5 / 2, as meant 5 / 8; after one frame 4 / 6."""
    one = np.array([[1, 2, 3, 4], [1, 1, 1, 1]])
    other = np.array([[9, 2, 3, 4], [1, 1, 2, 2]])
    assert generation.equal_tokens(one, other, as_coded=True) == 2.5
    assert generation.equal_tokens(one, other) == 5 / 8
    assert generation.equal_tokens(one, other, 1) == 4 / 6


def test_edit_share_by_hand() -> None:
    assert generation.edit_share([*map(ord, "kitten")], [*map(ord, "sitting")]) == 1 - 3 / 7
    assert generation.edit_share([], []) == 1
    assert generation.edit_share([], [1, 2]) == 0


@given(st.lists(st.integers(0, 3), max_size=8), st.lists(st.integers(0, 3), max_size=8))
def test_edit_share_equals_a_slow_twin(one, other) -> None:
    table = [[max(i, j) for j in range(len(other) + 1)] for i in range(len(one) + 1)]
    for i, a in enumerate(one, 1):
        for j, b in enumerate(other, 1):
            table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, table[i - 1][j - 1] + (a != b))
    longest = max(len(one), len(other))
    assert generation.edit_share(one, other) == pytest.approx(1 - table[-1][-1] / longest if longest else 1)


def test_the_skyline_is_the_highest_pitch_of_each_position() -> None:
    names = ["Bar_1", "Position_0", "Pitch_60", "Position_0", "Pitch_64", "Position_4", "Pitch_drum_38"]
    names += ["Bar_2", "Position_0", "Pitch_50", "Position_4", "Pitch_62", "Position_0", "Pitch_48"]
    assert generation.skyline([TOKENS[name] for name in names]) == [64, 50, 62]


def test_candidates_share_by_hand() -> None:
    """Ranks 1, 1, 0, 0, 1: two of five are best guesses; of the last two, one is the second best."""
    ranks = np.array([[1, 1, 0, 0, 1]], np.float32)
    stream = TokenStream(*(ranks,) * 5)
    signal = TokenSignals(np.zeros((1, 5), np.int32), np.ones((1, 5), bool), {"conditional": stream})
    assert generation.top_share(signal) == 2 / 5
    assert generation.top_share(signal, rank=1, last=2) == 1 / 2
    assert generation.top_share(signal, rank=1, last=99) == 3 / 5
