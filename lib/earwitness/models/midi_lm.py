"""Causal language models over MIDI tokens in transformers' format, with a tokenizer of miditok's in the same folder.

The tokenizer's file is called as transformers' own is and is never given to it. A piece gets BOS in front where the
model's configuration names the tokenizer's own BOS, EOS alike. Such a model is told nothing: its stream is called
conditional, as that of every symbolic model, and there is no other. See the book page *Methods: symbolic models*.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earwitness.errors import ModelError
from earwitness.models.files import read_json
from earwitness.models.loading import badge, headers, load_pretrained
from earwitness.models.midi_base import WindowedModel
from earwitness.symbolic.miditok import FILE, MiditokScheme, is_miditok, tokenizer_of
from earwitness.types import Window
from earwitness.util import file_hash

if TYPE_CHECKING:
    from torch import Tensor

    from earwitness.types import ModelInfo

LIBRARIES = ("miditok", "symusic", "tokenizers", "pretty_midi")
CLASSES = {
    "gpt2": "GPT2LMHeadModel", "gpt_neox": "GPTNeoXForCausalLM", "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
}  # fmt: skip
LONGEST = 512  # inputs of a window: longer ones would leave most pieces with none


def describe(folder: Path, config: dict[str, Any], *, pocket: bool) -> dict[str, Any]:
    """Return the fields of ``ModelInfo`` that the folder determines.

    Raises
    ------
    ModelError
        A tokenizer that is none of miditok's, or that has more tokens than the model.
    """
    if not is_miditok(folder):
        raise ModelError(f"{folder.name}: a {config['model_type']} whose {FILE} is none of miditok's reads no MIDI")
    tokenizer = tokenizer_of(folder)
    entries, context = config.get("vocab_size"), config.get("n_positions") or config.get("max_position_embeddings")
    if not isinstance(entries, int) or not isinstance(context, int) or context < 2:
        raise ModelError(f"{folder.name}: configuration lacks vocab_size or a context length; is the folder complete?")
    if len(tokenizer) > entries:
        raise ModelError(f"{folder.name}: the tokenizer has {len(tokenizer)} tokens and the model {entries} entries")
    begins, ends = (
        name in tokenizer.vocab and config.get(key) == tokenizer[name]
        for name, key in (("BOS_None", "bos_token_id"), ("EOS_None", "eos_token_id"))
    )
    return {
        "family": "token",
        "sample_rate": 0,
        "channels": 0,
        "segment_seconds": 0.0,
        "badge": badge(sum(map(math.prod, headers(folder).values())), pocket=pocket),
        "scheme": MiditokScheme(
            folder.absolute(), min(context, LONGEST), begins, ends, bool(tokenizer.is_trained), file_hash(folder / FILE)
        ),
    }


def load(folder: Path, info: ModelInfo) -> MidiModel:
    """Load a folder (see ``earwitness.models.load_model``); code that it might bring is never run."""
    import torch
    import transformers

    kind = CLASSES[read_json(folder / "config.json")["model_type"]]
    network = load_pretrained(folder, getattr(transformers, kind), getattr(torch, info.dtype))
    return MidiModel(network.to(info.device), info)


class MidiModel(WindowedModel):
    """A loaded causal language model behind the ``TokenModel`` protocol."""

    def logits(self, codes: Tensor, captions: Sequence[Window] | None) -> tuple[Tensor, Tensor]:
        """Return logits ``[B, 1, W, V]`` aligned with ``codes`` and the mask ``[B, 1, W]`` of what belongs to notes.

        Raises
        ------
        ModelError
            No windows: there is no null condition.
        """
        inputs, mask = self.inputs(codes, captions)
        return self.network(input_ids=inputs, use_cache=False).logits[:, None], mask
