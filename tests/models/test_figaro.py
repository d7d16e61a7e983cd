"""FIGARO's checkpoints: both layouts, every flavour, a slow twin of the formula, and files that are refused."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import earwitness as ew
from earwitness.errors import ModelError
from earwitness.models import describe, load_model
from earwitness.symbolic.figaro_network import BarEncoder, FigaroNetwork, Sizes, _Projections
from earwitness.symbolic.windows import FigaroScheme
from earwitness.types import Window
from tests import tiny_figaro, tiny_midi

SCHEME = FigaroScheme()


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> list[Window]:
    """Three whole windows of one piece."""
    path = tmp_path_factory.mktemp("midi") / "x.mid"
    notes = [(240 * i, 240 * i + 200, 48 + 7 * i % 24, 20 + i % 100) for i in range(170)]
    tiny_midi.write(path, [(0, notes), ("drum", notes[::3])])
    return SCHEME.windows(SCHEME.read(path))[:3]


def codes(windows: list[Window]) -> torch.Tensor:
    return torch.from_numpy(np.stack([w.tokens[None, 1:] for w in windows])).long()


def loaded(folder: Path, **options: Any) -> Any:
    return load_model(str(folder), device="cpu", **options)


# --- the formula ------------------------------------------------------------------------------------------------------


def test_the_attention_has_the_originals_check_values() -> None:
    sizes = Sizes(width=2, heads=1, feed_forward=1, encoder_layers=0, decoder_layers=0, positions=4)
    found = _Projections(sizes, relative=True)
    with torch.no_grad():
        for part in (found.query, found.key):
            part.weight.copy_(torch.eye(2))
            part.bias.zero_()
        found.value.weight.zero_()
        r = torch.arange(7.0)
        found.distance_embedding.weight.copy_(torch.stack([r / 10, -(r**2) / 100], dim=1))  # type: ignore[union-attr]
        x = torch.tensor([[[1.0, 0], [0, 1], [1, 1]]])
        probabilities = []
        for j in range(3):  # a value that is 1 at one key alone reads off that key's probability
            found.value.weight.zero_()
            found.value.bias.zero_()
            value = torch.zeros(1, 3, 2)
            value[0, j] = 1
            found.value = torch.nn.Identity()  # type: ignore[assignment]
            found.value.forward = lambda states, held=value: held  # type: ignore[method-assign]
            probabilities.append(found(x, x, causal=False, dropout=0.0)[0, :, 0])
            found.value = torch.nn.Linear(2, 2)
    wanted = [[0.474032, 0.171236, 0.354732], [0.228826, 0.344842, 0.426332], [0.309724, 0.192851, 0.497424]]
    np.testing.assert_allclose(torch.stack(probabilities, dim=1), wanted, atol=1e-6)


class Slow:
    """The network as the formulas say it, in double precision, one number at a time."""

    def __init__(self, state: dict[str, torch.Tensor], heads: int) -> None:
        self.w = {name: tensor.double().numpy() for name, tensor in state.items()}
        self.heads = heads

    def dense(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self.w[f"{name}.weight"].T + self.w[f"{name}.bias"]

    def norm(self, name: str, x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
        return scaled * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def attend(self, name: str, x: np.ndarray, states: np.ndarray, *, causal: bool) -> np.ndarray:
        q, k, v = (
            self.dense(f"{name}.self.{part}", y) for part, y in (("query", x), ("key", states), ("value", states))
        )
        h = q.shape[1] // self.heads
        table = self.w.get(f"{name}.self.distance_embedding.weight")
        out = np.zeros_like(q)
        for head in range(self.heads):
            part = slice(head * h, (head + 1) * h)
            for i in range(len(q)):
                scores = []
                for j in range(i + 1 if causal else len(k)):
                    score = q[i, part] @ k[j, part]
                    if table is not None:
                        row = table[i - j + (len(table) + 1) // 2 - 1]
                        score += q[i, part] @ row + k[j, part] @ row
                    scores.append(score / math.sqrt(h))
                p = np.exp(np.array(scores) - max(scores))
                out[i, part] = p / p.sum() @ v[: len(p), part]
        return self.norm(f"{name}.output.LayerNorm", self.dense(f"{name}.output.dense", out) + x)

    def stack(self, prefix: str, x: np.ndarray, states: np.ndarray | None, layers: int, *, causal: bool) -> np.ndarray:
        x = self.norm(
            f"{prefix}embeddings.LayerNorm", x + self.w[f"{prefix}embeddings.token_type_embeddings.weight"][0]
        )
        for i in range(layers):
            layer = f"{prefix}encoder.layer.{i}."
            x = self.attend(f"{layer}attention", x, x, causal=causal)
            if states is not None:
                x = self.attend(f"{layer}crossattention", x, states, causal=False)
            inner = self.dense(f"{layer}intermediate.dense", x)
            gelu = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
            x = self.norm(f"{layer}output.LayerNorm", self.dense(f"{layer}output.dense", gelu) + x)
        return x

    def logits(self, flavour: str, tokens, bars, positions, description, description_bars, latents) -> np.ndarray:
        w = self.w
        x = w["in_layer.weight"][tokens] + w["bar_embedding.weight"][bars] + w["pos_embedding.weight"][positions]
        states = None
        if flavour != "none":
            told = w["latent_in.weight"] @ latents.T if "latent_in.weight" in w else None
            told = None if told is None else told.T
            if flavour == "latent":
                states = np.zeros_like(x)
                states[: len(told)] = self.stack("transformer.encoder.", told, None, 2, causal=False)
            else:
                given = w["desc_in.weight"][description] + w["bar_embedding.weight"][description_bars]
                if flavour == "both":
                    padded = np.zeros_like(given)
                    padded[: len(told)] = told
                    given = np.concatenate([given, padded], axis=1) @ w["desc_proj.weight"].T
                states = self.stack("transformer.encoder.", given, None, 2, causal=False)
        return self.stack("transformer.decoder.bert.", x, states, 2, causal=True) @ w["out_layer.weight"].T


@pytest.mark.parametrize("released", [True, False])
@pytest.mark.parametrize("flavour", tiny_figaro.FLAVOURS)
def test_logits_equal_a_slow_implementation_of_the_formula(tmp_path: Path, flavour: str, released: bool) -> None:
    model = loaded(tiny_figaro.write(tmp_path / "m", flavour, released=released))
    assert model.network.sizes.relative_cross is (released and flavour != "none")
    rng = np.random.default_rng(1)
    length = 11
    given = [rng.integers(0, n, length) for n in (1357, 257, 513, 965, 257)]
    latents = rng.normal(size=(4, tiny_figaro.LATENT))
    state = torch.load(tmp_path / "m" / "figaro.ckpt", weights_only=True)["state_dict"]
    wanted = Slow(state, tiny_figaro.HEADS).logits(flavour, *given, latents)
    tensors = [torch.from_numpy(x)[None] for x in given]
    with torch.inference_mode():
        found = model.network(*tensors, latents=[torch.from_numpy(latents).float()])[0]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("released", [True, False])
@pytest.mark.parametrize("flavour", tiny_figaro.FLAVOURS)
def test_the_null_condition_is_the_decoder_without_its_cross_attention(
    tmp_path: Path, flavour: str, released: bool
) -> None:
    """As a slow network without any encoder, which reads the same weights."""
    model = loaded(tiny_figaro.write(tmp_path / "m", flavour, released=released))
    rng = np.random.default_rng(2)
    given = [rng.integers(0, n, 11) for n in (1357, 257, 513)]
    state = torch.load(tmp_path / "m" / "figaro.ckpt", weights_only=True)["state_dict"]
    wanted = Slow(state, tiny_figaro.HEADS).logits("none", *given, None, None, None)
    with torch.inference_mode():
        found = model.network(*(torch.from_numpy(x)[None] for x in given), null=True)[0]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_the_null_condition_runs_no_encoder_and_tells_nothing(flavoured: Any, windows: list[Window]) -> None:
    window = windows[0]
    if flavoured.network.sizes.flavour == "none":
        with pytest.raises(ModelError, match="told nothing of a piece, so its null condition is its only one"):
            flavoured.logits(codes([window]), [window], told=())
        return
    emptied = {**window.inputs, "description": np.zeros(256, np.int32)}
    other = Window(**{**vars(window), "inputs": emptied, "bar_tokens": window.bar_tokens[::-1]})
    ran: list[Any] = []
    hook = flavoured.network.transformer["encoder"].register_forward_hook(lambda *_: ran.append(1))
    with torch.inference_mode():
        null, same = (flavoured.logits(codes([w]), [w], told=())[0] for w in (window, other))
        assert not ran
        own = flavoured.logits(codes([window]), [window])[0]
    hook.remove()
    assert torch.equal(null, same)
    assert (null - own).abs().max() > 1e-3


def test_latents_are_rows_of_the_codebook_nearest_to_the_pooled_bar(tmp_path: Path, windows: list[Window]) -> None:
    folder = tiny_figaro.write(tmp_path / "m", "latent")
    model = loaded(folder)
    state = torch.load(folder / "vq-vae.ckpt", weights_only=True)["state_dict"]
    slow, bar = Slow(state, tiny_figaro.VQ_HEADS), windows[0].bar_tokens[1][:20]
    x = slow.stack("transformer.encoder.", slow.w["in_layer.weight"][bar], None, 2, causal=False)
    pooled = slow.w["pooling.weight"] @ np.tanh(slow.dense("transformer.encoder.pooler.dense", x[:1])[0])
    table = slow.w["vq_embed.embedding"]
    wanted = [table[((table - part) ** 2).sum(1).argmin()] for part in pooled.reshape(tiny_figaro.GROUPS, -1)]
    with torch.inference_mode():
        found = model.encoder(torch.from_numpy(bar).long())
    np.testing.assert_allclose(found, np.concatenate(wanted), atol=1e-6)


def test_bar_tokens_can_be_hidden_from_the_latents() -> None:
    sizes = Sizes(width=16, heads=8, feed_forward=8, encoder_layers=1, decoder_layers=0, latent=12)
    torch.manual_seed(0)
    shown, hidden = BarEncoder(sizes, 9, 4), BarEncoder(sizes, 9, 4, hide_bars=True)
    torch.nn.init.normal_(shown.vq_embed["embedding"])
    hidden.load_state_dict(shown.state_dict())
    numbers = [torch.tensor([2, 604 + n, 20, 3]) for n in (1, 200)]
    masked = torch.tensor([2, 4, 20, 3])
    assert torch.equal(hidden(numbers[0]), hidden(numbers[1]))
    assert torch.equal(hidden(numbers[0]), shown(masked))


@pytest.mark.parametrize("layout", ["stored", "released"])
def test_a_folder_says_which_latents_it_means(tmp_path: Path, windows: list[Window], layout: str) -> None:
    folder, told = tiny_figaro.write(tmp_path / "m", "latent"), {}  # a released checkpoint has no config.json
    if layout == "stored":
        folder = tiny_figaro.convert(folder, tmp_path / "stored")
        told = json.loads((folder / "config.json").read_text())
    shown = loaded(folder)
    (folder / "config.json").write_text(json.dumps(told | {"hide_bar_tokens": True}))
    hidden = loaded(folder)
    assert shown.info.revision != hidden.info.revision
    with torch.inference_mode():
        found = [model.logits(codes(windows[:1]), windows[:1])[0] for model in (shown, hidden)]
    assert (found[0] - found[1]).abs().max() > 1e-3
    (folder / "config.json").write_text(json.dumps(told | {"hide_bar_tokens": "yes"}))
    with pytest.raises(ModelError, match="hide_bar_tokens is 'yes'; expected true or false"):
        loaded(folder)


# --- as a model -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=tiny_figaro.FLAVOURS)
def flavoured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return loaded(tiny_figaro.write(tmp_path_factory.mktemp("models") / request.param, request.param))


def test_no_label_is_seen_before_it_is_predicted(flavoured: Any, windows: list[Window]) -> None:
    with torch.inference_mode():
        own, mask = flavoured.logits(codes(windows[:1]), windows[:1])
        changed = codes(windows[:1])
        changed[..., 100:] = 7
        other, _ = flavoured.logits(changed, windows[:1])
    assert own.shape == (1, 1, 256, 1357)
    torch.testing.assert_close(own[:, :, :101], other[:, :, :101], atol=1e-5, rtol=0)
    assert (own[:, :, 101:] - other[:, :, 101:]).abs().max() > 1e-3
    assert mask[0, 0].tolist() == (windows[0].groups >= 0).tolist()


def test_batch_mates_change_nothing(flavoured: Any, windows: list[Window]) -> None:
    with torch.inference_mode():
        together = flavoured.logits(codes(windows), windows)[0]
        alone = torch.cat([flavoured.logits(codes([w]), [w])[0] for w in windows])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_the_first_input_is_the_token_before_the_first_label(flavoured: Any, windows: list[Window]) -> None:
    window = windows[1]
    other = Window(**{**vars(window), "tokens": np.concatenate([[9], window.tokens[1:]])})
    with torch.inference_mode():
        found = [flavoured.logits(codes([w]), [w])[0] for w in (window, other)]
    assert (found[0][0, 0, 0] - found[1][0, 0, 0]).abs().max() > 1e-4


def test_each_flavour_reads_what_it_was_trained_on_and_nothing_else(flavoured: Any, windows: list[Window]) -> None:
    flavour, window = flavoured.network.sizes.flavour, windows[0]
    emptied = {**window.inputs, "description": np.zeros(256, np.int32)}
    changed = {
        "description": Window(**{**vars(window), "inputs": emptied}),
        "latent": Window(**{**vars(window), "bar_tokens": window.bar_tokens[::-1]}),
    }
    with torch.inference_mode():
        own = flavoured.logits(codes([window]), [window])[0]
        for part, other in changed.items():
            moved = bool((flavoured.logits(codes([window]), [other])[0] - own).abs().max() > 1e-4)
            assert moved is (flavour in {part, "both"}), part
    assert flavoured.info.conditions == {"none": (), "both": ("description", "latent")}.get(flavour, (flavour,))
    with pytest.raises(ModelError, match="has no null condition"):
        flavoured.logits(codes([window]), None)


def test_half_precision_scores_nearly_alike(tmp_path: Path, windows: list[Window]) -> None:
    folder = tiny_figaro.write(tmp_path / "m", "both")
    exact, rounded = loaded(folder), loaded(folder, dtype="bfloat16")
    assert rounded.encoder.pooling.weight.dtype == torch.float32  # rounded, it would choose other codes
    with torch.inference_mode():
        a, b = (m.logits(codes(windows[:1]), windows[:1])[0].float().log_softmax(-1) for m in (exact, rounded))
    assert b.isfinite().all()
    assert (a - b).abs().mean() < 0.1


def test_halves_of_the_condition_are_told_apart(tmp_path: Path, windows: list[Window]) -> None:
    model = loaded(tiny_figaro.write(tmp_path / "m", "both"))
    with torch.inference_mode():
        both, *halves = (
            model.logits(codes(windows[:1]), windows[:1], told=told)[0]
            for told in (("description", "latent"), ("description",), ("latent",))
        )
    for half in halves:
        assert (half - both).abs().max() > 1e-3
    assert (halves[0] - halves[1]).abs().max() > 1e-3


@pytest.mark.parametrize("flavour", ["description", "both"])
def test_our_stored_form_scores_alike(tmp_path: Path, windows: list[Window], flavour: str) -> None:
    folder = tiny_figaro.write(tmp_path / "m", flavour, description_options={"meta": True, "chords": False})
    own, stored = loaded(folder), loaded(tiny_figaro.convert(folder, tmp_path / "stored"))
    assert own.info.scheme == stored.info.scheme == FigaroScheme(dropped=frozenset({"chords"}))
    assert own.info.revision != stored.info.revision
    with torch.inference_mode():
        found = [model.logits(codes(windows[:1]), windows[:1])[0] for model in (own, stored)]
    assert torch.equal(*found)


def test_a_changed_weight_changes_the_revision_and_the_badge_is_tiny(tmp_path: Path) -> None:
    first, second = (describe(str(tiny_figaro.write(tmp_path / f"m{seed}", seed=seed))) for seed in (0, 1))
    assert first.revision != second.revision
    assert (first.family, first.badge, first.sample_rate, first.segment_seconds) == ("token", "tiny", 0, 0.0)
    assert "scheme" not in first.key()


def test_published_sizes_give_the_published_numbers_of_parameters() -> None:
    common = {
        "width": 512,
        "heads": 8,
        "feed_forward": 2048,
        "decoder_layers": 6,
        "positions": 1024,
        "encoder_layers": 4,
    }
    # What is never used and not built: word and position tables, the pooler, the head (its output layer is tied).
    unused = 2 * (512 + 1024 * 512) + (512 * 512 + 512) + (512 * 512 + 512 + 1024) + 1
    for flavour, latent, relative, wanted in (
        ("description", 0, True, 43_787_777), ("description", 0, False, 43_001_729),
        ("latent", 1024, True, 43_817_985), ("both", 1024, False, 44_050_305),
    ):  # fmt: skip
        with torch.device("meta"):
            sizes = Sizes(**common, latent=latent, flavour=flavour, relative_cross=relative)  # type: ignore[arg-type]
            network = FigaroNetwork(sizes)
        assert sum(p.numel() for p in network.parameters()) + unused == wanted, flavour


# --- what is refused --------------------------------------------------------------------------------------------------


def rewritten(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    path = folder / "figaro.ckpt"
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)
    return folder


def _without(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["state_dict"].pop(name)


def _with(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["state_dict"].update({name: value})


LAYER = "transformer.decoder.bert.encoder.layer"
REFUSED: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "lacks a tensor": (_without(f"{LAYER}.1.output.dense.bias"), "the weights lack transformer"),
    "unknown tensor": (_with("surprise.weight", torch.zeros(2)), "'surprise.weight', which is no part of FIGARO"),
    "other shape": (_with(f"{LAYER}.1.output.dense.bias", torch.zeros(3)), r"has shape \(3,\), expected \(16,\)"),
    "gap in layers": (_with(f"{LAYER}.7.output.dense.bias", torch.zeros(16)), "are not a FIGARO's"),
    "half relative": (_without(f"{LAYER}.0.crossattention.self.distance_embedding.weight"), "no part of FIGARO"),
    "other vocabulary": (_with("in_layer.weight", torch.zeros(500, 16)), "500 tokens; FIGARO's vocabularies"),
    "few positions": (_with(f"{LAYER}.0.attention.self.distance_embedding.weight", torch.zeros(9, 8)), "5 positions"),
    "sparse tensor": (_with("x", torch.zeros(2, 2).to_sparse()), "dense tensors"),
    "hyper-parameters": (lambda c: c["hyper_parameters"].update(decoder_layers=6), "decoder_layers is 6 in its hyper"),
    "flavour": (lambda c: c["hyper_parameters"].update(description_flavor="both"), "description_flavor is 'both'"),
    "options": (lambda c: c["hyper_parameters"].update(description_options={"tempo": 1}), "description_options is"),
    "no Lightning": (lambda c: c.pop("state_dict"), "expected a Lightning checkpoint"),
    "claims more": (_with("in_layer.weight", torch.zeros(1, 1).expand(1357, 100_000)), "claim 543.* the file holds"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_checkpoints_that_are_not_whole_figaros_are_refused(tmp_path: Path, case: str) -> None:
    change, reason = REFUSED[case]
    folder = rewritten(tiny_figaro.write(tmp_path / "m"), change)
    with pytest.raises(ModelError, match=reason) as caught:
        loaded(folder)
    assert str(caught.value).startswith("m/figaro.ckpt: ")


class Evil:
    """Something that runs when it is unpickled."""

    def __reduce__(self) -> Any:
        return print, ("unpickled",)


class AttributeDict(dict):  # type: ignore[type-arg]
    """As old Lightning versions stored hyper-parameters."""


def test_nothing_but_tensors_and_plain_values_is_unpickled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny_figaro.write(tmp_path / "m")
    for value, named in ((Evil(), "print"), (AttributeDict(x=1), "AttributeDict")):
        content = torch.load(tiny_figaro.write(folder) / "figaro.ckpt", weights_only=True) | {"extra": value}
        torch.save(content, folder / "figaro.ckpt", pickle_module=pickle)
        with pytest.raises(ModelError, match=rf"asks for \S*{named}.*convert it once"):
            loaded(folder)
    assert capsys.readouterr().out == ""


def test_folders_without_their_parts_are_refused(tmp_path: Path) -> None:
    folder = tiny_figaro.write(tmp_path / "m", "both")
    (folder / "vq-vae.ckpt").unlink()
    with pytest.raises(ModelError, match="needs its VQ-VAE; put that file"):
        loaded(folder)
    tiny_figaro.lightning(folder / "other.ckpt", tiny_figaro.random(tiny_figaro.shapes("none")), {})
    with pytest.raises(ModelError, match="expected one FIGARO checkpoint"):
        loaded(folder)
    wrong = tiny_figaro.random({**tiny_figaro.vq_shapes(), "pooling.weight": (9, 16)})
    (folder / "other.ckpt").unlink()
    tiny_figaro.lightning(folder / "vq-vae.ckpt", wrong, {})
    with pytest.raises(ModelError, match="latents of 9 in groups of 4; the network beside it takes 12"):
        loaded(folder)
    (folder / "figaro.ckpt").write_bytes((folder / "figaro.ckpt").read_bytes()[:5000])
    with pytest.raises(ModelError, match="damaged"):
        loaded(folder)


def test_the_public_face_loads_it(tmp_path: Path) -> None:
    assert isinstance(ew.load_model(str(tiny_figaro.write(tmp_path / "m"))).network, FigaroNetwork)
