"""How much the token signals and attacks cost beside the forward passes that they are read from.

Prints one JSON object. Per network (random weights): the processor seconds of the bare conditional and null passes, the
same with all three streams reduced, their ratio (median over interleaved repeats; goal 1.10), nanoseconds per reduced
logit, and whether memory grows with the number of batches. Then the processor seconds of ``score`` over 3,000 segments.

Run: OMP_NUM_THREADS=1 python benchmarks/bench_token.py [--repeats 9] [--threads 1] [--segments 3000]
"""

import argparse
import json
import platform
import resource
import statistics
import time
import warnings

import numpy as np
import torch
from transformers import (
    EncodecConfig,
    MusicgenConfig,
    MusicgenDecoderConfig,
    MusicgenForConditionalGeneration,
    T5Config,
)
from transformers.tokenization_utils_base import BatchEncoding

from earwitness import attacks
from earwitness.models.musicgen import MusicgenModel
from earwitness.signals.blind import FEATURES, BlindSignals
from earwitness.signals.token import FIELDS, STREAMS, TokenSignals, TokenStream, reduce_batch
from earwitness.types import ModelInfo

NETWORKS = {  # hidden size, layers, entries, frames, batch
    "toy": (32, 2, 64, 200, 8),
    "pocket": (128, 4, 128, 128, 16),
    "wide": (512, 8, 2048, 128, 2),
}


class Characters:
    """A tokenizer that needs no files: one token per character."""

    def __call__(self, captions, **_):
        ids = torch.tensor([[1 + ord(c) % 198 for c in caption.ljust(24)] for caption in captions])
        return BatchEncoding({"input_ids": ids, "attention_mask": torch.ones_like(ids)})


def build(hidden, layers, entries):
    """Return a random MusicGen of four codebooks behind the adapter."""
    text = T5Config(vocab_size=200, d_model=32, d_ff=37, d_kv=8, num_heads=4, num_layers=2)
    codec = EncodecConfig(num_filters=4, hidden_size=16, codebook_size=entries, codebook_dim=16)
    decoder = MusicgenDecoderConfig(
        vocab_size=entries, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=4, ffn_dim=4 * hidden,
        num_codebooks=4, pad_token_id=entries, bos_token_id=entries, audio_channels=1,
    )  # fmt: skip
    config = MusicgenConfig(text_encoder=text.to_dict(), audio_encoder=codec.to_dict(), decoder=decoder.to_dict())
    network = MusicgenForConditionalGeneration(config).eval()
    info = ModelInfo("random", "token", "0", 32_000, 1, 2.56, "float32", "cpu", "tiny")
    return MusicgenModel(network, Characters(), info)


def passes(model, codes, captions):
    """Run what every token attack needs."""
    logits, mask = model.logits(codes, captions)
    return logits, model.logits(codes, None)[0], mask


def timed(function):
    """Return the processor seconds of one call: what else runs on the machine counts less than in wall time."""
    start = time.process_time()
    function()
    return time.process_time() - start


def megabytes():
    """Return the largest resident memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@torch.inference_mode()
def extraction(hidden, layers, entries, frames, batch, repeats):
    """Compare the passes alone with the passes and their reduction."""
    model = build(hidden, layers, entries)
    codes = torch.randint(0, entries, (batch, 4, frames))
    captions = [f"slow music number {n}" for n in range(batch)]

    def bare():
        passes(model, codes, captions)

    def full():
        logits, null, mask = passes(model, codes, captions)
        reduce_batch(logits, null, codes, mask)

    timed(bare), timed(full)
    memory = megabytes()
    alone, both = zip(*((timed(bare), timed(full)) for _ in range(repeats)), strict=True)
    grown = megabytes() - memory
    logits, null, mask = passes(model, codes, captions)
    reduction = min(timed(lambda: reduce_batch(logits, null, codes, mask)) for _ in range(repeats))
    return {
        "hidden": hidden, "layers": layers, "entries": entries, "frames": frames, "batch": batch,
        "bare_cpu_s": statistics.median(alone),
        "full_cpu_s": statistics.median(both),
        "ratio": statistics.median(f / b for f, b in zip(both, alone, strict=True)),
        "reduction_ns_per_logit": reduction / (3 * logits.numel()) * 1e9,
        "memory_growth_mb": grown,
    }  # fmt: skip


class Segments:
    """Random signals of the pocket's size, made when asked for."""

    def __init__(self, count, frames=128, entries=128):
        self.count, self.frames, self.entries = count, frames, entries

    def items(self, family):
        """Yield (row, signal) pairs as the store does."""
        if family == "diffusion":
            return
        rng = np.random.default_rng(0)
        pool = rng.normal(-4, 1, (64, len(FIELDS), 4, self.frames)).astype(np.float32)
        mask = np.ones((4, self.frames), bool)
        for n in range(self.count):
            row = {"track_id": f"t{n // 2}", "segment_id": f"s{n}", "artist": "a", "work": "w", "role": "member"}
            if family == "blind":
                yield row, BlindSignals(dict.fromkeys(FEATURES, 0.5))
                continue
            streams = {s: TokenStream(*np.abs(pool[(n + i) % 64]) * _SIGNS) for i, s in enumerate(STREAMS)}
            codes = rng.integers(0, self.entries, (4, self.frames), np.int32)
            yield row, TokenSignals(codes, mask, streams, {f"sdm/{s}": np.ones(4) for s in STREAMS})


_SIGNS = np.array([-1, -1, 1, 1, -1], np.float32)[:, None, None]  # logp, mean, var, rank, rival


def main():
    """Run everything and print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--segments", type=int, default=3000)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    found = {name: extraction(*shape, given.repeats) for name, shape in NETWORKS.items()}
    segments = Segments(given.segments)
    making = timed(lambda: [list(segments.items(family)) for family in ("token", "blind")])
    pooled = [s for s in attacks.resolve("all") if s.attack.family == "token"]
    scoring = timed(lambda: attacks.score(segments))
    report = {
        "extraction": found,
        "score": {
            "segments": given.segments,
            "token_attacks": len(pooled),
            "blind_attacks": len(FEATURES),
            "cpu_seconds": scoring - making,
            "microseconds_per_score": (scoring - making) / given.segments / (len(pooled) + len(FEATURES)) * 1e6,
        },
        "threads": given.threads,
        "torch": torch.__version__,
        "processor": platform.processor() or platform.machine(),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
