"""Tiny checkpoints in FIGARO's layout, tensor by tensor as the published files have them, with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

D, HEADS, F, LATENT, CODES, GROUPS, CONTEXT = 16, 2, 24, 12, 9, 3, 256
LAYERS = 2, 2  # of encoder and decoder
POSITIONS = 300  # 1,024 in the published files
VQ_D, VQ_HEADS = 16, 8
FLAVOURS = ("none", "description", "latent", "both")


def dense(name: str, out: int, inner: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out, inner), f"{name}.bias": (out,)}


def norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def attention(name: str, d: int, heads: int, *, relative: bool = True) -> dict[str, tuple[int, ...]]:
    found = {}
    for part in ("query", "key", "value"):
        found |= dense(f"{name}.self.{part}", d, d)
    if relative:
        found[f"{name}.self.distance_embedding.weight"] = (2 * POSITIONS - 1, d // heads)
    return found | dense(f"{name}.output.dense", d, d) | norm(f"{name}.output.LayerNorm", d)


def stack(
    prefix: str, layers: int, d: int, heads: int, *, cross: bool, relative_cross: bool
) -> dict[str, tuple[int, ...]]:
    found = {
        f"{prefix}embeddings.word_embeddings.weight": (1, d),
        f"{prefix}embeddings.position_embeddings.weight": (POSITIONS, d),
        f"{prefix}embeddings.token_type_embeddings.weight": (2, d),
        **norm(f"{prefix}embeddings.LayerNorm", d),
    }
    for i in range(layers):
        layer = f"{prefix}encoder.layer.{i}."
        found |= attention(f"{layer}attention", d, heads)
        if cross:
            found |= attention(f"{layer}crossattention", d, heads, relative=relative_cross)
        found |= dense(f"{layer}intermediate.dense", F, d) | dense(f"{layer}output.dense", d, F)
        found |= norm(f"{layer}output.LayerNorm", d)
    return found


def transformer(
    d: int, heads: int, encoder_layers: int, *, released: bool, decoder_layers: int = 2
) -> dict[str, tuple[int, ...]]:
    encoder = stack("transformer.encoder.", encoder_layers, d, heads, cross=False, relative_cross=False)
    decoder = stack("transformer.decoder.bert.", decoder_layers, d, heads, cross=True, relative_cross=released)
    head = "transformer.decoder.cls.predictions."
    return {
        **encoder,
        **dense("transformer.encoder.pooler.dense", d, d),
        **decoder,
        f"{head}bias": (1,),
        **dense(f"{head}transform.dense", d, d),
        **norm(f"{head}transform.LayerNorm", d),
        **dense(f"{head}decoder", 1, d),
    }


def shapes(flavour: str, *, released: bool = True) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of one checkpoint's tensors."""
    found = {"in_layer.weight": (1357, D), "out_layer.weight": (1357, D)}
    found |= {"bar_embedding.weight": (CONTEXT + 1, D), "pos_embedding.weight": (513, D)}
    if flavour in {"description", "both"}:
        found["desc_in.weight"] = (965, D)
    if flavour in {"latent", "both"}:
        found["latent_in.weight"] = (D, LATENT)
    if flavour == "both":
        found["desc_proj.weight"] = (D, 2 * D)
    layers, decoder_layers = 0 if flavour == "none" else LAYERS[0], LAYERS[1]
    return found | transformer(D, HEADS, layers, released=released, decoder_layers=decoder_layers)


def vq_shapes() -> dict[str, tuple[int, ...]]:
    """Return those of a VQ-VAE: its stacks stand twice."""
    inside = transformer(VQ_D, VQ_HEADS, 2, released=False)
    twice = {name.removeprefix("transformer."): shape for name, shape in inside.items()}
    return {
        "in_layer.weight": (1357, VQ_D), "out_layer.weight": (1357, VQ_D), **inside, **twice,
        "vq_embed.embedding": (CODES, LATENT // GROUPS), "vq_embed.cluster_size": (CODES,),
        "vq_embed.cluster_sum": (CODES, LATENT // GROUPS), "pooling.weight": (LATENT, VQ_D),
        "unpooling.weight": (VQ_D, LATENT), **dense("attention_proj", VQ_D, VQ_D),
    }  # fmt: skip


def random(named: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, torch.Tensor]:
    """Return random tensors; LayerNorm weights around 1."""
    source = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=source) * 0.3 + ("LayerNorm.weight" in name) for name, shape in named.items()
    }


def hyper(flavour: str, **changed: Any) -> dict[str, Any]:
    """Return hyper-parameters as Lightning stores them."""
    return {
        "d_model": D, "d_latent": LATENT, "n_codes": CODES, "n_groups": GROUPS, "context_size": CONTEXT, "lr": 1e-4,
        "lr_schedule": "sqrt_decay", "warmup_steps": 4000, "max_steps": 10**20, "decoder_layers": 2,
        "encoder_layers": 2, "intermediate_size": F, "num_attention_heads": HEADS, "description_flavor": flavour,
        "description_options": None, "use_pretrained_latent_embeddings": True, **changed,
    }  # fmt: skip


def lightning(path: Path, state: dict[str, torch.Tensor], parameters: dict[str, Any], **others: Any) -> None:
    """Write a checkpoint as Lightning does, optimiser state and all."""
    moments = {i: {"step": torch.tensor(3.0), "exp_avg": torch.zeros_like(t)} for i, t in enumerate(state.values())}
    content = {
        "epoch": 3, "global_step": 100, "pytorch-lightning_version": "1.5.2", "state_dict": state,
        "hparams_name": "kwargs", "hyper_parameters": parameters, "lr_schedulers": [{"last_epoch": 3}],
        "optimizer_states": [{"state": moments, "param_groups": [{"lr": 1e-4, "params": [0]}]}],
        "callbacks": {"ModelCheckpoint{'monitor': 'valid_loss'}": {"best_model_score": torch.tensor(1.2)}}, **others,
    }  # fmt: skip
    torch.save(content, path)


def write(folder: Path, flavour: str = "description", *, released: bool = True, seed: int = 0, **changed: Any) -> Path:
    """Write a folder with a checkpoint (and its VQ-VAE, where it reads latents) and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    state = random(shapes(flavour, released=released), seed)
    if released:
        for prefix in ("encoder", "decoder.bert"):
            state[f"transformer.{prefix}.embeddings.position_ids"] = torch.arange(POSITIONS)[None]
    lightning(folder / "figaro.ckpt", state, hyper(flavour, **changed))
    if flavour in {"latent", "both"}:
        lightning(folder / "vq-vae.ckpt", random(vq_shapes(), seed + 1), {"d_model": VQ_D, "n_codes": CODES})
    return folder


def convert(folder: Path, target: Path) -> Path:
    """Write the same weights in our own stored form."""
    target.mkdir()
    content = torch.load(folder / "figaro.ckpt", weights_only=True)
    save_file({k: v.contiguous() for k, v in content["state_dict"].items()}, target / "model.safetensors")
    if (folder / "vq-vae.ckpt").exists():
        state = torch.load(folder / "vq-vae.ckpt", weights_only=True)["state_dict"]
        save_file({k: v.contiguous() for k, v in state.items()}, target / "vq-vae.safetensors")
    told = {"model_type": "figaro", **{k: v for k, v in content["hyper_parameters"].items() if k != "max_steps"}}
    (target / "config.json").write_text(json.dumps(told))
    return target
