"""Extraction: candidates without labels, likeness of sounds, and the difference to non-members."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from earwitness.book.studies import extraction
from earwitness.errors import InputError
from earwitness.models import load_model
from earwitness.signals import generation
from earwitness.signals.token import TokenSignals, TokenStream
from tests import tiny_diffusion


class Fake:
    """Tracks of two segments whose tokens are best guesses the more often the higher their number."""

    def items(self, family):
        for i in range(6):
            for j in range(2):
                ranks = (np.arange(10) >= i + j).astype(np.float32)[None]
                signal = TokenSignals(
                    np.full((1, 10), i, np.int32), np.ones((1, 10), bool), {"conditional": TokenStream(*(ranks,) * 5)}
                )
                names = {"track_id": f"t{i}", "segment_id": f"t{i}-{j}", "artist": "", "caption": "", "start_s": 0.0}
                yield {**names, "role": "member" if i % 2 else "nonmember"}, signal


def test_candidates_are_those_guessed_best_whatever_their_role() -> None:
    chosen = extraction.candidates(Fake(), 3)
    assert chosen["track_id"].tolist() == ["t5", "t4", "t3"]
    assert chosen["share"].tolist() == [0.6, 0.5, 0.4]
    assert chosen["segment_id"].tolist() == ["t5-1", "t4-1", "t3-1"]
    assert chosen["share_coded"].tolist() == [0.4, 0.5, 0.6], "the second best guess, which is no hit"


def test_the_difference_and_its_p_value_by_hand() -> None:
    """Of six labellings of four tracks one gives members both high values, so that p = 1/6 in the long run."""
    roles = ["member", "member", "nonmember", "nonmember"]
    table = pd.DataFrame({"prompt": 5, "role": roles, "equal": [0.9, 0.7, 0.2, 0.4]})
    row = extraction.difference(table, ["equal"]).iloc[0]
    assert (row["member"], row["nonmember"], row["difference"]) == pytest.approx((0.8, 0.3, 0.5))
    assert row["p"] == pytest.approx(1 / 6, abs=0.02)
    with pytest.raises(InputError, match="all 2 candidates are of one side"):
        extraction.difference(table[:2], ["equal"])


def test_sounds_are_alike_by_their_bands() -> None:
    rng = np.random.default_rng(0)
    time = np.arange(16_000) / 16_000
    low, high = np.sin(2 * np.pi * 300 * time), np.sin(2 * np.pi * 3000 * time)
    noise = 0.001 * rng.normal(size=(2, 16_000))
    spectra = [extraction.log_mel(x, 16_000) for x in (low + noise[0], low + noise[1], high + noise[0])]
    assert extraction.cosine(spectra[0], spectra[1]) > 0.9
    assert extraction.cosine(spectra[0], spectra[2]) < 0.5
    assert np.isnan(extraction.cosine(np.ones(3), np.ones(3)))


def test_repeats_come_from_the_record_of_the_training() -> None:
    times = extraction.repeats("pocket/musicgen-repeats")
    assert sorted(times.values()) == [4] * 6 + [16] * 6 + [64] * 6
    assert extraction.repeats("pocket/musicgen-a") == {}
    (often, _), *_ = times.items()
    table = pd.DataFrame({"track_id": [often, "x", "y"], "role": ["member", "member", "nonmember"]})
    assert extraction.with_times(table, times)["times"].to_list() == [times[often], 1, 0]


def test_a_folder_without_clap_is_named(tmp_path) -> None:
    with pytest.raises(InputError, match="expected a CLAP as transformers saves it"):
        extraction.listener(tmp_path)


def test_a_clap_in_a_folder_hears_what_was_made(tmp_path) -> None:
    """Equal sounds have one embedding, of length 1; the column stands where a folder is named, and only there."""
    torch.manual_seed(0)
    tiny_diffusion.clap().save_pretrained(tmp_path)
    tiny_diffusion.clap_ears().save_pretrained(tmp_path)
    sounds = np.random.default_rng(0).normal(size=(2, 16_000)).astype(np.float32)
    found = extraction.listener(tmp_path)(sounds[[0, 0, 1]], 16_000)
    assert np.linalg.norm(found, axis=1) == pytest.approx([1, 1, 1], abs=1e-5)
    assert np.array_equal(found[0], found[1])
    assert not np.allclose(found[0], found[2], atol=1e-4)


def test_continuations_are_compared_with_what_was_given() -> None:
    """A continuation is alike to itself in every measure, and a prompt alone is no likeness of what follows it."""
    model = load_model("pocket/musicgen-a", device="cpu")
    codes = np.random.default_rng(0).integers(0, 128, (1, 4, 20))
    chosen = pd.DataFrame({"track_id": ["x"], "role": "member", "caption": "slow piano", "codes": [codes[0]]})
    (first,) = extraction.continuations(model, chosen, [16], seed=1).to_dict("records")
    assert (first["prompt"], first["frames"], first["equal"]) == (16, 20, pytest.approx(0, abs=0.2))
    assert first["equal_coded"] == pytest.approx(16 + 4 * first["equal"])
    made, _ = generation.continued(model, torch.from_numpy(codes), 16, ["slow piano"], seed=1)
    again = chosen.assign(codes=[made[0].numpy()])
    (same,) = extraction.continuations(model, again, [16], seed=1).to_dict("records")
    assert [same[name] for name in ("equal", "equal_coded", "mel", "latent")] == pytest.approx([1, 20, 1, 1], abs=1e-4)
