"""Train the pocket symbolic twins again from nothing: scores of a corpus split, windows, a small FIGARO.

``python -m earwitness_build train`` runs `train_twins` after the other families. One thread per process and explicit
seeds: the same machine gives the same weights. Explained on the book page *The pocket world*.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from earwitness.pocket import corpus
from earwitness.util import file_hash
from earwitness_build.training.token_lm import batches
from earwitness_build.training.train import WEIGHTS, described, pick

if TYPE_CHECKING:
    from torch import Tensor

    from earwitness.symbolic.figaro_network import FigaroNetwork
    from earwitness.types import Window

PAD = 0
INPUTS = ("tokens", "bars", "positions", "description", "description_bars")


@dataclass(frozen=True)
class FigaroRecipe:
    """Everything that fixes a symbolic model, given its pieces.

    ``window`` is the context in tokens, of which pocket pieces have too few for FIGARO's 256; ``epochs`` are passes
    over the training windows, which lie where the scored ones do; the learning rate falls as a half cosine.
    """

    seed: int = 0
    window: int = 96
    width: int = 96
    heads: int = 4
    encoder_layers: int = 1
    decoder_layers: int = 2
    epochs: int = 8
    batch: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    dropout: float = 0.1


@dataclass(frozen=True)
class FigaroTwin:
    """A model to train: its name, the split it sees, and how."""

    name: str
    split: str
    recipe: FigaroRecipe


TWINS = (FigaroTwin("figaro-a", "a", FigaroRecipe(seed=1)), FigaroTwin("figaro-b", "b", FigaroRecipe(seed=2)))


def train_twins(only: str | None = None) -> list[Path]:
    """Train the shipped symbolic models and save them as ``weights/<name>``.

    Parameters
    ----------
    only : str, optional
        Train this model alone.

    Raises
    ------
    ModelError
        ``only`` names no model.
    """
    from joblib import Parallel, cpu_count, delayed

    chosen, root = pick(TWINS, only), corpus.ensure_corpus()
    Parallel(n_jobs=min(2, cpu_count()))(delayed(train_twin)(t, root, WEIGHTS / t.name) for t in chosen)
    return [WEIGHTS / t.name for t in chosen]


def build_network(recipe: FigaroRecipe) -> FigaroNetwork:
    """Return an untrained network: FIGARO's expert flavour, small, in the layout of newly trained checkpoints."""
    import torch

    from earwitness.symbolic.figaro_network import FigaroNetwork, Sizes

    torch.manual_seed(recipe.seed)
    sizes = Sizes(
        width=recipe.width,
        heads=recipe.heads,
        feed_forward=4 * recipe.width,
        encoder_layers=recipe.encoder_layers,
        decoder_layers=recipe.decoder_layers,
        positions=recipe.window,
        bars=recipe.window + 1,
    )
    network = FigaroNetwork(sizes, dropout=recipe.dropout)
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.02)
        else:
            torch.nn.init.constant_(parameter, float(name.endswith("LayerNorm.weight")))
    return network


def encode_pieces(paths: Sequence[Path], window: int) -> dict[str, Tensor]:
    """Return the training windows of MIDI files, by ``INPUTS``: tokens ``[N, W + 1]``, all others ``[N, W]``."""
    import torch

    from earwitness.symbolic.windows import FigaroScheme

    scheme = FigaroScheme(window=window)
    found: list[Window] = [w for path in paths for w in scheme.training_windows(scheme.read(path))]
    arrays = {"tokens": np.stack([w.tokens for w in found])}
    arrays |= {name: np.stack([w.inputs[name] for w in found]) for name in INPUTS[1:]}
    return {name: torch.from_numpy(values).long() for name, values in arrays.items()}


def train_network(network: FigaroNetwork, windows: dict[str, Tensor], recipe: FigaroRecipe) -> list[float]:
    """Train on cross-entropy over every label but padding, as FIGARO was; return the loss of each step, in nats."""
    import torch

    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng([recipe.seed, 31])
    parameters = list(network.parameters())
    optimiser = torch.optim.AdamW(parameters, recipe.learning_rate, betas=(0.9, 0.95), weight_decay=recipe.weight_decay)
    count = len(windows["tokens"])
    steps = recipe.epochs * -(-count // recipe.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.learning_rate, steps, pct_start=0.1)
    losses = []
    network.train()
    for batch in islice(batches(count, recipe.batch, rng), steps):
        tokens, *beside = (windows[name][torch.from_numpy(batch)] for name in INPUTS)
        logits = network(tokens[:, :-1], *beside)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=PAD)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    network.eval()
    return losses


def train_twin(twin: FigaroTwin, root: Path, folder: Path) -> None:
    """Train one twin and save it.

    Parameters
    ----------
    twin : Twin
        What to train on what.
    root : Path
        Where the corpus's MIDI files lie.
    folder : Path
        Where to save.
    """
    import torch

    torch.set_num_threads(1)
    start = time.perf_counter()
    entries = [e for e in corpus.plan() if e.split == twin.split]
    windows = encode_pieces([root / e.midi for e in entries], twin.recipe.window)
    network = build_network(twin.recipe)
    losses = train_network(network, windows, twin.recipe)
    record = described(twin, [twin.split], entries) | {
        "objective": "cross-entropy of the next token, description of the piece given",
        "windows": len(windows["tokens"]),
        "steps": len(losses),
        "final_loss": round(float(np.mean(losses[-20:])), 5),
        "seconds": round(time.perf_counter() - start, 1),
    }
    save_twin(network, twin.recipe, folder, record)


def save_twin(network: FigaroNetwork, recipe: FigaroRecipe, folder: Path, record: dict[str, Any]) -> None:
    """Write configuration and weights, in half precision; ``training.json`` holds ``record`` and the weights' hash."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model_type": "figaro",
        "description_flavor": "description",
        "description_options": None,
        "d_model": recipe.width,
        "num_attention_heads": recipe.heads,
        "intermediate_size": 4 * recipe.width,
        "encoder_layers": recipe.encoder_layers,
        "decoder_layers": recipe.decoder_layers,
        "context_size": recipe.window,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    half = {name: tensor.to(torch.float16).contiguous() for name, tensor in network.state_dict().items()}
    save_file(half, folder / "model.safetensors")
    (folder / "training.json").write_text(
        json.dumps(record | {"weights_sha256": file_hash(folder / "model.safetensors")}, indent=2) + "\n"
    )
